// Who looks at whom: every layer and head as a small picture, and the words, tinted by how much the chosen one looks at them.
"use strict";

const LookPanel = (() => {
  const { el, id, heat, shade, percent, colour, canvas, rove } = Draw;
  const LABELLED = 40; // words, up to which a picture has room for them

  /** Weights as numbers from 0 to 1; rows are written without the zeros at their end, in thousandths. */
  function weights(look, layer, head) {
    const plain = (rows) => rows.map((row) => look.columns.map((_, j) => (row[j] ?? 0) / 1000));
    if (head !== null) return plain(look.weights[layer][head]);
    const all = look.weights[layer].map(plain);
    return all[0].map((row, i) => row.map((_, j) => all.reduce((sum, one) => sum + one[i][j], 0) / all.length));
  }

  function thumbnail(look, layer, head) {
    const rows = weights(look, layer, head), made = el("canvas", { width: look.columns.length, height: rows.length, "aria-hidden": "true" });
    const draw = () => {
      const context = made.getContext("2d");
      context.clearRect(0, 0, made.width, made.height);
      rows.forEach((row, i) => row.forEach((w, j) => { context.fillStyle = heat(w); context.fillRect(j, i, 1, 1); }));
    };
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    return made;
  }

  /** The grid of heads; `choose(layer, head)` is told which, head null for the mean of a layer. */
  function heads(look, choose) {
    const layers = look.weights.length, count = look.weights[0].length;
    const buttons = look.weights.flatMap((_, layer) => [null, ...Array(count).keys()].map((head) => el("button",
      { type: "button", className: "head", role: "radio", "aria-checked": "false", "aria-label": `layer ${layer}, ${head === null ? "mean of its heads" : `head ${head}`}` },
      thumbnail(look, layer, head), head === null ? "mean" : String(head))));
    const at = (number) => [Math.floor(number / (count + 1)), number % (count + 1) === 0 ? null : number % (count + 1) - 1];
    const pick = (number) => {
      buttons.forEach((one, n) => one.setAttribute("aria-checked", String(n === number)));
      choose(...at(number));
    };
    rove(buttons, pick, count + 1);
    buttons.forEach((one, number) => one.addEventListener("click", () => pick(number)));
    const rows = Array.from({ length: layers }, (_, layer) => {
      const row = el("div", { className: "heads" }, el("span", { "aria-hidden": "true" }, String(layer)),
        ...buttons.slice(layer * (count + 1), (layer + 1) * (count + 1)));
      row.style.setProperty("--count", count);
      return row;
    });
    const node = el("div", { className: "grid", role: "radiogroup", "aria-label": "Layer and head" }, ...rows);
    return { node, pick: (layer) => pick(layer * (count + 1)) };
  }

  function label(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let cut = [...text];
    while (cut.length > 1 && context.measureText(`${cut.join("")}…`).width > room) cut = cut.slice(0, -1);
    return `${cut.join("")}…`;
  }

  /** The matrix with its words at the side; `state()` gives {rows, asks, limit}. */
  function matrix(look, state) {
    const named = Math.max(look.rows.length, look.columns.length) <= LABELLED, room = named ? 84 : 0;
    const size = (width) => (width - room) / look.columns.length;
    return canvas("Weights: rows are queries, columns are keys", (width) => room + size(width) * look.rows.length, (context, width) => {
      const { rows, asks, limit, turned } = state(), cell = size(width);
      context.font = `${Math.min(13, Math.max(8, cell * 0.8))}px system-ui, "Noto Sans", sans-serif`;
      context.textBaseline = "middle";
      rows.forEach((row, i) => row.forEach((w, j) => {
        const hidden = i >= limit || j >= limit;
        const never = look.causal && j > i;
        context.fillStyle = hidden || never ? colour("paper") : colour("empty");
        context.fillRect(room + j * cell, room + i * cell, cell - 0.6, cell - 0.6);
        if (never && i < limit) { // hidden by the mask: a dot
          context.fillStyle = colour("line");
          context.fillRect(room + (j + 0.5) * cell - 1, room + (i + 0.5) * cell - 1, 2, 2);
        }
        if (hidden || never) return;
        context.fillStyle = heat(w);
        context.fillRect(room + j * cell, room + i * cell, cell - 0.6, cell - 0.6);
      }));
      if (asks !== null) {
        context.strokeStyle = colour("strong");
        context.lineWidth = 2;
        if (turned) context.strokeRect(room + asks * cell, room, cell, cell * Math.min(limit, rows.length));
        else context.strokeRect(room, room + asks * cell, cell * Math.min(limit, look.columns.length), cell);
      }
      if (!named) return;
      context.fillStyle = colour("ink");
      look.rows.forEach((word, i) => {
        context.globalAlpha = i < limit ? 1 : 0.3;
        context.textAlign = "right";
        context.fillText(label(context, word, room - 8), room - 6, room + (i + 0.5) * cell);
      });
      look.columns.forEach((word, j) => {
        context.globalAlpha = j < limit ? 1 : 0.3;
        context.save();
        context.translate(room + (j + 0.5) * cell, room - 6);
        context.rotate(-Math.PI / 2);
        context.textAlign = "left";
        context.fillText(label(context, word, room - 8), 0, 0);
        context.restore();
      });
      context.globalAlpha = 1;
    });
  }

  function words(list, labels, name) {
    const buttons = list.map((word, n) => el("button", { type: "button", className: "word" }, el("span", {}, word),
      ...(labels ? [el("small", { className: "label" }, labels[n])] : []), el("small")));
    return { buttons, node: el("div", { className: "words", role: "group", "aria-label": name }, ...buttons) };
  }

  /** A view of one look. `look`: {rows, columns, weights, same, causal, labels}; `same` when rows and columns are one text. */
  function view(look) {
    const state = { layer: 0, head: null, rows: [], asks: null, pinned: null, limit: Infinity, turned: false };
    const said = el("p", { className: "said", role: "status" });
    const queries = words(look.rows, look.labels, look.same ? "Words" : "Words of the translation");
    const keys = look.same ? queries : words(look.columns, null, "Words of the source");
    const picture = matrix(look, () => state);
    const turn = el("input", { type: "checkbox", id: id() });

    function show(asks) {
      state.asks = asks;
      const own = state.turned ? keys : queries, others = state.turned ? queries : keys;
      new Set([...queries.buttons, ...keys.buttons]).forEach((one) => {
        one.style.removeProperty("--weight");
        one.classList.remove("asks", "on");
        one.lastChild.textContent = "";
      });
      if (asks !== null) {
        const row = others.buttons.map((_, n) => (n >= state.limit ? 0 : state.turned ? state.rows[n][asks] : state.rows[asks][n]));
        own.buttons[asks].classList.add("asks");
        row.forEach((w, n) => {
          others.buttons[n].style.setProperty("--weight", shade(w));
          others.buttons[n].classList.add("on");
          if (n < state.limit) others.buttons[n].lastChild.textContent = percent(w);
        });
        const names = state.turned ? look.rows : look.columns;
        const most = row.map((w, n) => [w, n]).filter(([w]) => w >= 0.05).sort((a, b) => b[0] - a[0]).slice(0, 4);
        const list = most.map(([w, n]) => `“${names[n]}” ${percent(w)}`).join(", ");
        const word = (state.turned ? look.columns : look.rows)[asks];
        said.textContent = `“${word}” ${state.turned ? "is looked at by" : "looks at"} ${list || "nothing in particular"}.`;
      }
      picture.draw();
    }
    function listen(list) {
      const active = () => list === (state.turned ? keys : queries);
      rove(list.buttons, (n) => { if (active() && n < state.limit) show(n); }, 1);
      list.buttons.forEach((one, n) => {
        one.addEventListener("pointerenter", () => { if (active() && n < state.limit && state.pinned === null) show(n); });
        one.addEventListener("click", () => {
          if (!active() || n >= state.limit) return;
          state.pinned = state.pinned === n ? null : n;
          list.buttons.forEach((other, m) => other.setAttribute("aria-pressed", String(m === state.pinned)));
          show(n);
        });
      });
    }
    listen(queries);
    if (!look.same) listen(keys);
    turn.addEventListener("change", () => {
      state.turned = turn.checked;
      state.pinned = null;
      [...queries.buttons, ...keys.buttons].forEach((one) => one.removeAttribute("aria-pressed"));
      show(state.asks === null ? null : 0);
    });
    const grid = heads(look, (layer, head) => {
      state.rows = weights(look, layer, head);
      show(state.asks);
    });
    grid.pick(look.weights.length - 1);
    const limit = (n, asks) => { state.limit = n; show(asks); };
    const toggle = el("label", {}, turn, " who looks at it, instead of where it looks");
    return { state, queries, keys, picture: picture.node, said, heads: grid.node, toggle, limit, show };
  }

  function panel(look) {
    const one = view(look);
    one.show(Math.floor(look.rows.length / 3));
    const texts = look.same ? [one.queries.node]
      : [el("h3", {}, "Source"), one.keys.node, el("h3", {}, "Translation"), one.queries.node];
    return el("section", { id: look.id }, el("h2", {}, look.title), el("p", { className: "about" }, look.about),
      el("div", { className: "sides" }, el("div", {}, ...texts, one.toggle, one.said, el("h3", {}, "Heads, a row a layer"), one.heads),
        el("figure", {}, one.picture)));
  }

  return { view, panel };
})();
