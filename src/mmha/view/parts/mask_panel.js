// A mask expression, typed in and drawn at once with its tiles and its cost.
"use strict";

const MaskPanel = (() => {
  const { el, id, colour, canvas } = Draw;
  const LARGEST = 1024, HEAD_SIZE = 64;
  const TILES = [[4, 4], [8, 8], [16, 16], [32, 32], [32, 256]];
  const EXAMPLES = [
    ["causal", 32], ["causal & window(7)", 32], ["window(4, 4) | global(0)", 32], ["causal | prefix(8)", 32],
    ["causal & documents(9, 5, 12, 6)", 32], ["causal & ~dilated(3)", 32], ["blocks([[1, 0, 1], [1, 1, 0], [0, 1, 1]], 11)", 32],
    ["tree(-1, 0, 0, 1, 1, 2)", 16], ["per_head(causal, window(3, 3))", 32], ["causal & window(255)", 1024],
  ];
  const number = (value) => value.toLocaleString("en");

  function field(text, control) { return el("label", {}, text, control); }

  /** What the form says now, or throws what is wrong with it. */
  function ask(form) {
    const size = (input, name) => {
      const value = Number(input.value);
      const good = input.value !== "" && Number.isInteger(value) && value >= 1 && value <= LARGEST;
      if (!good) throw new Masks.Refused(`${name}: expected an integer from 1 to ${LARGEST}, got ${input.value || "nothing"}`);
      return value;
    };
    const mask = Masks.parse(form.text.value);
    const { batch, heads } = Masks.wants(mask);
    const [q_len, k_len] = [size(form.queries, "queries"), size(form.keys, "keys")];
    const start = form.start.value === "" ? null : Number(form.start.value);
    if (start !== null && !Number.isSafeInteger(start)) throw new Masks.Refused("first query at: expected an integer");
    const grid = Masks.grid(batch, heads, q_len, k_len, start);
    mask.fit(grid);
    return { mask, grid };
  }

  function see({ mask, grid }, item, tile) {
    const [b, h] = [Math.floor(item / grid.heads), item % grid.heads];
    const seen = Masks.item(mask, grid, b, h);
    return { grid, seen, tile, tiles: Masks.tiles(seen, grid.q_len, grid.k_len, ...tile), ...Masks.count(seen, grid.q_len, grid.k_len) };
  }

  function paint(context, width, found, cursor) {
    const { grid: { q_len, k_len }, seen, tiles, tile } = found, cell = width / k_len, high = cell * q_len;
    const rows = [colour("empty"), colour("masked"), colour("full")];
    tiles.codes.forEach((code, n) => {
      const [i, j] = [Math.floor(n / tiles.columns) * tile[0], (n % tiles.columns) * tile[1]];
      context.fillStyle = rows[code];
      context.fillRect(j * cell, i * cell, Math.min(tile[1], k_len - j) * cell, Math.min(tile[0], q_len - i) * cell);
    });
    context.fillStyle = colour("mixed");
    for (let i = 0; i < q_len; i += 1) {
      for (let j = 0; j < k_len; j += 1) {
        const mixed = tiles.codes[Math.floor(i / tile[0]) * tiles.columns + Math.floor(j / tile[1])] === 1;
        if (mixed && seen[i * k_len + j]) context.fillRect(j * cell, i * cell, cell + 0.3, cell + 0.3);
      }
    }
    const lines = (step, most, strong) => {
      context.strokeStyle = colour("paper");
      context.lineWidth = strong;
      context.beginPath();
      for (let j = step[1]; j < k_len; j += step[1]) { context.moveTo(j * cell, 0); context.lineTo(j * cell, high); }
      for (let i = step[0]; i < q_len; i += step[0]) { context.moveTo(0, i * cell); context.lineTo(width, i * cell); }
      if (most) context.stroke();
    };
    lines([1, 1], cell >= 7, 1);
    lines(tile, cell * Math.min(...tile) >= 6, 3);
    if (cursor !== null) {
      context.strokeStyle = colour("ink");
      context.lineWidth = 2;
      context.strokeRect(0, cursor[0] * cell, width, Math.max(cell, 2));
      context.strokeRect(cursor[1] * cell, cursor[0] * cell, Math.max(cell, 2), Math.max(cell, 2));
    }
  }

  function cost({ grid: { q_len, k_len }, visible, runs, tiles, tile }) {
    const pairs = q_len * k_len, counts = [0, 0, 0];
    tiles.codes.forEach((code) => { counts[code] += 1; });
    const flops = (n) => { const f = 4 * HEAD_SIZE * n; return f < 1e6 ? `${(f / 1e3).toFixed(1)} thousand` : `${(f / 1e6).toFixed(1)} million`; };
    return [
      ["pairs", `${number(visible)} of ${number(pairs)} visible, ${(100 * visible / pairs).toFixed(1)} %`],
      ["tiles", `${counts[2]} full, ${counts[1]} mixed, ${counts[0]} empty, of ${tile[0]} queries × ${tile[1]} keys; empty ones are skipped`],
      ["work", `${flops(visible)} operations a head of ${HEAD_SIZE}, ${flops(pairs)} without the mask` +
        (visible ? `: ${(pairs / visible).toFixed(pairs / visible < 10 ? 1 : 0)} × as many` : "")],
      ["held as", `${number(runs)} span${runs === 1 ? "" : "s"} of keys, ${number(8 * runs)} bytes; a byte a pair would be ${number(pairs)}`],
    ].flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  }

  function described({ grid, seen }, [i, j]) {
    const row = seen.subarray(i * grid.k_len, (i + 1) * grid.k_len), spans = [];
    row.forEach((now, key) => {
      if (now && !row[key - 1]) spans.push([key, key]);
      if (now) spans[spans.length - 1][1] = key;
    });
    const shown = spans.slice(0, 6).map(([a, z]) => (a === z ? `${a}` : `${a}–${z}`)).join(", ") + (spans.length > 6 ? ", …" : "");
    const sees = spans.length ? `sees key${spans.length === 1 && spans[0][0] === spans[0][1] ? "" : "s"} ${shown}` : "sees nothing: its output is 0";
    return `Query ${i} at position ${grid.start + i} ${sees}. Key ${j} is ${row[j] ? "visible" : "hidden"} to it.`;
  }

  function legend() {
    const kinds = [["full", "full tile: no mask needed"], ["mixed", "mixed tile, visible"], ["masked", "mixed tile, hidden"], ["empty", "empty tile: skipped"]];
    return el("ul", { className: "legend" }, ...kinds.map(([name, text]) => el("li", { className: name }, el("i"), text)));
  }

  function panel({ text, size }) {
    const whole = (value, least = 1) => el("input", { type: "number", value, min: least, max: LARGEST, step: 1 });
    const wrong = el("p", { className: "wrong", role: "alert", id: id() });
    const form = {
      text: el("input", { type: "text", value: text, spellcheck: false, autocomplete: "off", "aria-describedby": wrong.id }),
      queries: whole(size), keys: whole(size),
      start: el("input", { type: "number", value: "", step: 1, placeholder: "end" }),
      tile: el("select", {}, ...TILES.map(([q, k], n) => el("option", { value: n }, `${q} × ${k}${k === 256 ? " (the kernels')" : ""}`))),
      item: el("select"),
    };
    form.tile.value = 1;
    const said = el("p", { className: "said", role: "status" }), facts = el("dl");
    let found = null, cursor = null;
    const picture = canvas("The mask: rows are queries, columns are keys", (width) => (found ? width * Math.min(2, found.grid.q_len / found.grid.k_len) : width),
      (context, width) => { if (found) paint(context, width, found, cursor); });
    const items = field("shown", form.item);

    function point(to) {
      cursor = to;
      said.textContent = to === null ? "Point at a cell, or move with the arrow keys, to read its row." : described(found, to);
      picture.draw();
    }
    function update() {
      try {
        const asked = ask(form), count = asked.grid.batch * asked.grid.heads;
        if (form.item.options.length !== count) {
          form.item.replaceChildren(...Array.from({ length: count }, (_, n) => el("option", { value: n },
            `row ${Math.floor(n / asked.grid.heads)}, head ${n % asked.grid.heads}`)));
        }
        items.hidden = count === 1;
        found = see(asked, Number(form.item.value), TILES[form.tile.value]);
        wrong.textContent = "";
        facts.replaceChildren(...cost(found));
        point(null);
      } catch (error) {
        if (!(error instanceof Masks.Refused)) throw error;
        wrong.textContent = error.message.replace(/^`mask`: /, "");
      }
      form.text.setAttribute("aria-invalid", String(wrong.textContent !== ""));
    }
    function choose([example, side]) {
      Object.assign(form.text, { value: example });
      form.queries.value = form.keys.value = side;
      form.start.value = "";
      form.tile.value = side > 64 ? 4 : 1;
      update();
    }
    const at = (event) => {
      const { grid: { q_len, k_len } } = found, box = picture.node.getBoundingClientRect();
      const place = (x, size, count) => Math.min(count - 1, Math.max(0, Math.floor((x / size) * count)));
      return [place(event.clientY - box.top, box.height, q_len), place(event.clientX - box.left, box.width, k_len)];
    };
    picture.node.tabIndex = 0;
    picture.node.addEventListener("pointermove", (event) => { if (found) point(at(event)); });
    picture.node.addEventListener("pointerleave", () => { if (found) point(null); });
    picture.node.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (step === undefined || found === null) return;
      event.preventDefault();
      const [i, j] = cursor ?? [step[0] < 0 ? 1 : -step[0], step[1] < 0 ? 1 : -step[1]];
      const within = (x, count) => Math.min(count - 1, Math.max(0, x));
      point([within(i + step[0], found.grid.q_len), within(j + step[1], found.grid.k_len)]);
    });
    Object.values(form).forEach((control) => control.addEventListener("input", update));
    update();
    return el("section", { id: "mask" }, el("h2", {}, "A mask and its cost"),
      el("p", { className: "about" }, "Masks are joined by &, | and ~. Rows are queries, columns are keys; the last query stands at the last key unless told otherwise."),
      el("div", { className: "sides" },
        el("div", {}, el("label", { className: "line" }, "Mask", form.text), wrong,
          el("div", { className: "examples" }, ...EXAMPLES.map((one) => el("button", { type: "button", onclick: () => choose(one) }, one[0]))),
          el("div", { className: "fields" }, field("queries", form.queries), field("keys", form.keys),
            field("first query at", form.start), field("tile", form.tile), items),
          facts),
        el("figure", {}, picture.node, el("figcaption", {}, legend()), said)));
  }

  return { panel };
})();
