// Masks as values, evaluated from their definitions as mmha.masks does: key j stands at position j, query i at q_start + i.
"use strict";

const Masks = (() => {
  const { Reader, Refused, fail } = Notation;
  const FARTHEST = 2 ** 60;
  const LONGEST = 2 ** 20; // tokens of documents that are written out

  /** A mask: `fit(grid)` throws when it cannot be asked about the sizes, `row(at)` gives j → visible for one query. */
  class Mask {
    constructor(row, fit = () => {}, more = {}) { Object.assign(this, { row, fit, wants: {}, parts: [] }, more); }
  }

  const join = {
    and: (parts) => new Mask((at) => { const rows = parts.map((m) => m.row(at)); return (j) => rows.every((r) => r(j)); },
      (grid) => parts.forEach((m) => m.fit(grid)), { parts }),
    or: (parts) => new Mask((at) => { const rows = parts.map((m) => m.row(at)); return (j) => rows.some((r) => r(j)); },
      (grid) => parts.forEach((m) => m.fit(grid)), { parts }),
    not: (mask) => new Mask((at) => { const row = mask.row(at); return (j) => !row(j); },
      (grid) => mask.fit(grid), { parts: [mask] }),
  };

  // What arguments may be.

  const tuple = (shape) => `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
  const spelled = (value) => (value === null ? "None" : value === true ? "True" : value === false ? "False"
    : Array.isArray(value) ? `[${value.map(spelled).join(", ")}]` : value instanceof Mask ? "a mask" : String(value));
  const described = (value) => {
    const said = spelled(value);
    return Array.isArray(value) ? `list ${said.length > 60 ? `${said.slice(0, 57)}...` : said}` : said;
  };

  function reach(argument, value, least) {
    if (typeof value !== "number") fail(argument, "an integer", described(value));
    if (value < least) fail(argument, `an integer >= ${least}`, value);
    if (value > FARTHEST) fail(argument, "an integer within 2**60", value);
    return value;
  }

  function side(argument, value) {
    const expected = "an integer >= 0, or None for no bound";
    if (value === null) return null;
    if (typeof value !== "number") fail(argument, expected, described(value));
    if (value < 0) fail(argument, expected, value);
    return reach(argument, value, 0);
  }

  /** Nested lists as {shape, data, bool}, or null when they are ragged or hold what is no number. */
  function tensor(value) {
    if (typeof value === "number") return { shape: [], data: [value], bool: false };
    if (typeof value === "boolean") return { shape: [], data: [Number(value)], bool: true };
    if (!Array.isArray(value)) return null;
    const parts = value.map(tensor);
    if (parts.some((part) => part === null || String(part.shape) !== String(parts[0].shape))) return null;
    const data = parts.flatMap((part) => part.data);
    const bool = data.length > 0 && parts.every((part) => part.bool || part.data.length === 0);
    return { shape: [parts.length, ...(parts.length ? parts[0].shape : [])], data, bool };
  }

  function integers(argument, value, expected) {
    const made = tensor(value);
    if (made === null) fail(argument, expected, described(value));
    if (made.bool) fail(argument, expected, `a bool tensor of shape ${tuple(made.shape)}`);
    return made;
  }

  function bools(argument, value, expected) {
    const made = tensor(value);
    if (made === null) fail(argument, expected, described(value));
    const good = made.bool || made.data.every((x) => x === 0 || x === 1);
    if (!good) fail(argument, expected, `an int64 tensor of shape ${tuple(made.shape)}`);
    return made;
  }

  function shaped(argument, made, dimensions, expected) {
    if (!dimensions.includes(made.shape.length)) fail(argument, expected, `shape ${tuple(made.shape)}`);
    return made;
  }

  function nonNegative(argument, data) {
    const least = data.reduce((a, b) => Math.min(a, b), 0);
    if (least < 0) fail(argument, "integers >= 0", least);
  }

  function isShape(argument, shape, wanted, names) {
    const fits = shape.length === wanted.length && wanted.every((want, i) => want === null || want === shape[i]);
    const shown = tuple(wanted.map((want) => want ?? "*"));
    if (!fits) fail(argument, `shape ${names} = ${shown}`, tuple(shape));
  }

  function broadcasts(argument, shape, sizes) {
    const fits = [...shape].reverse().every((have, i) => i >= 4 || have === 1 || have === [...sizes].reverse()[i]);
    if (!fits) fail(argument, `a shape that broadcasts to (B, H, Tq, Tk) = ${tuple(sizes)}`, tuple(shape));
  }

  // The masks.

  const simple = (test) => () => new Mask((at) => (j) => test(at.p, j));

  function window_(left, right) {
    const [before, after] = [side("left", left), side("right", right)];
    return new Mask(({ p }) => (j) => (before === null || j >= p - before) && (after === null || j <= p + after));
  }

  const modulo = (a, b) => ((a % b) + b) % b;

  function dilated(step) {
    reach("step", step, 1);
    return new Mask(({ p }) => (j) => modulo(p - j, step) === 0);
  }

  function chunked(size) {
    reach("size", size, 1);
    return new Mask(({ p }) => { const own = Math.floor(p / size); return (j) => Math.floor(j / size) === own; });
  }

  /** A mask made of one number, or of one per row of the batch: `test(at, number)` gives j → visible. */
  const perBatch = (argument, test) => (value) => {
    const expected = "an int or integers of shape (B,)";
    if (typeof value === "number") {
      reach(argument, value, 0);
      return new Mask((at) => test(at, value));
    }
    const made = typeof value === "boolean" ? reach(argument, value, 0) : integers(argument, value, expected);
    shaped(argument, made, [1], expected);
    nonNegative(argument, made.data);
    return new Mask((at) => test(at, made.data[at.b]), (grid) => isShape(argument, made.shape, [grid.batch], "(B,)"),
      { wants: { batch: made.data.length } });
  };

  const flags = (names, size, place) => (value) => {
    const expected = "bools of shape (B, T) or (T,), True = real";
    const made = bools("real", value, expected);
    shaped("real", made, [1, 2], "bools of shape (B, T) or (T,)");
    const one = made.shape.length === 1, wide = made.shape[made.shape.length - 1];
    return new Mask((at) => (j) => made.data[(one ? 0 : at.b * wide) + place(at, j)] === 1,
      (grid) => isShape("real", made.shape, one ? [grid[size]] : [grid.batch, grid[size]], one ? `(${names},)` : `(B, ${names})`),
      { wants: one ? {} : { batch: made.shape[0] } });
  };

  function covers(argument, grid, keys, positions, keyText, positionText, got) {
    if (grid.k_len > keys) fail(argument, keyText, got);
    const [first, stop] = grid.extent;
    if (first < 0 || stop > positions) fail(argument, `${positionText} ${first} to ${stop - 1}`, got);
  }

  function documents(value) {
    const expected = "integers of shape (B, T) or (T,)";
    const made = shaped("ids", integers("ids", value, expected), [1, 2], expected);
    const length = made.shape[made.shape.length - 1], one = made.shape.length === 1;
    return new Mask(({ b, p }) => {
      const ids = one ? made.data : made.data.slice(b * length, (b + 1) * length);
      return (j) => ids[j] === ids[p];
    }, (grid) => {
      if (!one) isShape("ids", made.shape, [grid.batch, null], "(B, T)");
      covers("ids", grid, length, length, `an id for each of the ${grid.k_len} keys`, "an id for each query position",
        `${length} ids`);
    }, { wants: one ? {} : { batch: made.shape[0] } });
  }

  function fromLengths(value) {
    const expected = "a list of integers, or of lists of them";
    if (!Array.isArray(value)) fail("lengths", expected, described(value));
    const nested = Array.isArray(value[0]);
    const packs = (nested ? value : [value]).map((pack) => integers("lengths", pack, expected));
    packs.forEach((pack) => {
      if (pack.shape.length !== 1) fail("lengths", expected, described(value));
      nonNegative("lengths", pack.data);
      const sum = pack.data.reduce((a, b) => a + b, 0);
      if (sum > LONGEST) fail("lengths", `a sum of at most ${LONGEST} in a page`, sum);
    });
    const rows = packs.map((pack) => pack.data.flatMap((count, id) => Array(count).fill(id)));
    const totals = [...new Set(rows.map((row) => row.length))].sort((a, b) => a - b);
    if (totals.length > 1) fail("lengths", "rows of the batch with the same sum", `sums ${totals.join(", ")}`);
    return documents(nested ? rows : rows[0]);
  }

  function global_(value) {
    const made = integers("positions", value, "integers of shape (n,)");
    shaped("positions", made, [1], "integers of shape (n,)");
    nonNegative("positions", made.data);
    const chosen = new Set(made.data);
    return new Mask(({ p }) => (chosen.has(p) ? () => true : (j) => chosen.has(j)));
  }

  function blocks(layout, size) {
    const expected = "bools of shape (query blocks, key blocks)";
    const made = shaped("layout", bools("layout", layout, expected), [2], expected);
    reach("size", size, 1);
    const [queries, keys] = made.shape;
    return new Mask(({ p }) => {
      const row = Math.floor(p / size) * keys;
      return (j) => made.data[row + Math.floor(j / size)] === 1;
    }, (grid) => covers("layout", grid, keys * size, queries * size, `blocks for ${grid.k_len} keys`,
      "blocks for query positions", `${tuple(made.shape)} blocks of ${size}`));
  }

  function tree(value) {
    const made = integers("parents", value, "integers of shape (n,)");
    const parents = shaped("parents", made, [1], "integers of shape (n,)").data;
    parents.forEach((parent, node) => {
      if (parent < -1 || parent >= node) fail("parents", `parents[${node}] between -1 and ${node - 1}`, parent);
    });
    return new Mask(({ p, grid }) => {
      const base = grid.k_len - parents.length;
      if (p < base) return (j) => j <= p;
      const seen = new Set();
      for (let node = p - base; node >= 0; node = parents[node]) seen.add(base + node);
      return (j) => j < base || seen.has(j);
    }, (grid) => {
      if (parents.length > grid.k_len) {
        fail("parents", `at most ${grid.k_len} nodes, one per key`, `${parents.length} nodes`);
      }
      const last = grid.extent[1] - 1;
      if (last >= grid.k_len) fail("q_start", `query positions below the ${grid.k_len} keys`, `position ${last}`);
    });
  }

  function perHead(masks) {
    if (!Array.isArray(masks) || !masks.every((m) => m instanceof Mask)) {
      fail("masks", "a list of masks, one per head", described(masks));
    }
    if (masks.length === 0) fail("masks", "one mask per head", "none");
    return new Mask((at) => masks[at.h].row(at), (grid) => {
      if (masks.length !== grid.heads) fail("masks", `one mask for each of the ${grid.heads} heads`, masks.length);
      masks.forEach((mask) => mask.fit(grid));
    }, { parts: masks, wants: { heads: masks.length } });
  }

  /** The offset of a row in a tensor that broadcasts to (B, H, Tq, Tk), and the step from key to key. */
  function offset(shape, at) {
    const four = [...Array(4 - shape.length).fill(1), ...shape];
    return [at.b, at.h, at.i].reduce((sum, x, d) => (sum * four[d]) + (four[d] === 1 ? 0 : x), 0) * four[3];
  }

  const wide = (shape) => {
    const four = [...Array(4 - shape.length).fill(1), ...shape];
    return { ...(four[0] > 1 && { batch: four[0] }), ...(four[1] > 1 && { heads: four[1] }) };
  };

  function dense_(value) {
    const expected = "a bool tensor broadcastable to (B, H, Tq, Tk)";
    const { shape, data } = shaped("tensor", bools("tensor", value, expected), [0, 1, 2, 3, 4], expected);
    const keys = shape.length ? shape[shape.length - 1] : 1;
    return new Mask((at) => { const row = offset(shape, at); return (j) => data[row + (keys === 1 ? 0 : j)] === 1; },
      (grid) => broadcasts("tensor", shape, grid.sizes), { wants: wide(shape) });
  }

  function spans(shape, offsets, runs) {
    if (!Array.isArray(shape) || shape.length !== 4) fail("shape", "four integers (B or 1, H or 1, Tq, Tk)", described(shape));
    shape.forEach((size) => reach("shape", size, 0));
    const starts = integers("offsets", offsets, "integers of shape (R + 1,)");
    let pairs = integers("spans", runs, "integers of shape (n, 2)");
    if (pairs.data.length === 0) pairs = { shape: [0, 2], data: [] };
    const rows = shape[0] * shape[1] * shape[2], { data } = pairs;
    isShape("offsets", starts.shape, [rows + 1], "(R + 1,)");
    isShape("spans", pairs.shape, [pairs.shape[0], 2], "(n, 2)");
    const rises = starts.data.every((x, i) => i === 0 || x >= starts.data[i - 1]);
    if (starts.data[0] !== 0 || starts.data[rows] !== pairs.shape[0] || !rises) {
      fail("offsets", `a rise from 0 to the number of spans, ${pairs.shape[0]}`, spelled(starts.data));
    }
    for (let row = 0; row < rows; row += 1) {
      for (let n = starts.data[row], least = 0; n < starts.data[row + 1]; n += 1) {
        const [start, stop] = [data[2 * n], data[2 * n + 1]];
        const apart = start >= least && start < stop && stop <= shape[3];
        if (!apart) fail("spans", `runs within ${shape[3]} keys, sorted and apart in each row`, spelled(runs));
        least = stop + 1;
      }
    }
    return new Mask((at) => {
      const row = offset([shape[0], shape[1], shape[2], 1], at);
      const own = data.slice(2 * starts.data[row], 2 * starts.data[row + 1]);
      return (j) => own.filter((edge) => edge <= j).length % 2 === 1;
    }, (grid) => {
      broadcasts("shape", shape, grid.sizes);
      if (shape[2] !== grid.q_len || shape[3] !== grid.k_len) {
        fail("shape", `(Tq, Tk) = ${tuple(grid.sizes.slice(2))}`, tuple(shape.slice(2)));
      }
    }, { wants: wide([shape[0], shape[1], 1, 1]) });
  }

  // Their names and parameters.

  const plain = (values) => values.every((v) => typeof v === "number" || typeof v === "boolean" || v instanceof Mask);
  /** Values without brackets are a list, when there are `least` of them or more. */
  const listed = (least) => (atom, values) => [atom, plain(values) && values.length >= least ? [values] : values];
  const lengthsOrIds = (atom, values, atoms) =>
    (plain(values) && values.length ? [atoms.get("documents.fromlengths"), [values]] : [atom, values]);

  const ATOMS = new Map([
    ["full", [], simple(() => true)],
    ["causal", [], simple((p, j) => j <= p)],
    ["strict_causal", [], simple((p, j) => j < p)],
    ["window", [["left"], ["right", 0]], window_],
    ["dilated", [["step"]], dilated],
    ["chunked", [["size"]], chunked],
    ["prefix", [["length"]], perBatch("length", (_, length) => (j) => j < length)],
    ["key_padding", [["lengths"]], perBatch("lengths", (_, length) => (j) => j < length), listed(2)],
    ["key_padding.left", [["starts"]], perBatch("starts", (_, start) => (j) => j >= start), listed(2)],
    ["keys", [["real"]], flags("Tk", "k_len", (_, j) => j), listed(1)],
    ["queries", [["real"]], flags("Tq", "q_len", (at) => at.i), listed(1)],
    ["query_padding", [["lengths"]], perBatch("lengths", (at, length) => () => at.p < length), listed(2)],
    ["documents", [["ids"]], documents, lengthsOrIds],
    ["documents.from_lengths", [["lengths"]], fromLengths],
    ["global", [["positions"]], global_, listed(1)],
    ["blocks", [["layout"], ["size"]], blocks],
    ["tree", [["parents"]], tree, listed(1)],
    ["per_head", [["masks"]], perHead, listed(2)],
    ["dense", [["tensor"]], dense_],
    ["spans", [["shape"], ["offsets"], ["spans"]], spans],
    ["predicate", [["fn"]], (fn) => fail("fn", "a hashable function of (b, h, p, j)", described(fn))],
  ].map(([name, parameters, make, list]) =>
    [name.replaceAll("_", ""), { spelled: name, parameters, make, listed: list }]));

  /** The mask that a notation names. Throws Refused. */
  const parse = (notation) => new Reader(notation, ATOMS, join).whole();

  /** The sizes of a problem; q_start defaults to k_len - q_len. */
  function grid(batch, heads, q_len, k_len, q_start = null) {
    const start = q_start ?? k_len - q_len;
    return { batch, heads, q_len, k_len, start, extent: q_len ? [start, start + q_len] : [0, 0], sizes: [batch, heads, q_len, k_len] };
  }

  /** The rows of the batch and the heads that a mask speaks of; 1 where it speaks of none. */
  function wants(mask) {
    const all = [mask.wants, ...mask.parts.map(wants)];
    return { batch: Math.max(1, ...all.map((w) => w.batch ?? 1)), heads: Math.max(1, ...all.map((w) => w.heads ?? 1)) };
  }

  /** One byte a pair of one (batch, head) item, 1 = visible; the mask has to fit the grid. */
  function item(mask, grid, b, h) {
    const { q_len, k_len } = grid, out = new Uint8Array(q_len * k_len);
    for (let i = 0; i < q_len; i += 1) {
      const sees = mask.row({ b, h, i, p: grid.start + i, grid });
      for (let j = 0; j < k_len; j += 1) if (sees(j)) out[i * k_len + j] = 1;
    }
    return out;
  }

  /** Per tile 0 = empty, 1 = mixed, 2 = full: {rows, columns, codes}. */
  function tiles(seen, q_len, k_len, qTile, kTile) {
    const rows = Math.ceil(q_len / qTile), columns = Math.ceil(k_len / kTile);
    const counts = new Uint32Array(rows * columns), codes = new Uint8Array(rows * columns);
    for (let i = 0; i < q_len; i += 1) {
      const row = Math.floor(i / qTile) * columns;
      for (let j = 0; j < k_len; j += 1) counts[row + Math.floor(j / kTile)] += seen[i * k_len + j];
    }
    counts.forEach((count, tile) => {
      const high = Math.min(qTile, q_len - Math.floor(tile / columns) * qTile);
      const broad = Math.min(kTile, k_len - (tile % columns) * kTile);
      codes[tile] = count === 0 ? 0 : count === high * broad ? 2 : 1;
    });
    return { rows, columns, codes };
  }

  /** How many pairs are visible, and in how many runs of neighbouring keys they lie. */
  function count(seen, q_len, k_len) {
    let visible = 0, runs = 0;
    for (let i = 0; i < q_len; i += 1) {
      for (let j = 0, before = 0; j < k_len; j += 1) {
        const now = seen[i * k_len + j];
        visible += now;
        runs += now && !before ? 1 : 0;
        before = now;
      }
    }
    return { visible, runs };
  }

  return { parse, grid, wants, item, tiles, count, Refused };
})();
