// The notation of masks, read as mmha.masks.notation reads it: the same grammar, the same messages.
"use strict";

const Notation = (() => {
  const DEEPEST = 100;
  const TOKEN = /(?:(-?\d+)|([A-Za-z_][\p{L}\p{N}_.]*)|([$@]\d+)|([&|~()[\],=]))/uy;
  const WORDS = new Map([["none", null], ["true", true], ["false", false]]);

  class Refused extends Error {}

  const text = (word) => (word.includes("'") && !word.includes('"') ? `"${word}"` : `'${word.replaceAll("'", "\\'")}'`);
  const fail = (argument, expected, got) => { throw new Refused(`\`${argument}\`: expected ${expected}, got ${got}`); };

  /** [word, offset] of every token; the offset counts characters, of which some are two places in a string. */
  function tokens(notation) {
    const found = [], blank = /\s*/uy;
    let place = 0, column = 0;
    const advance = (to) => { column += [...notation.slice(place, to)].length; place = to; };
    for (;;) {
      blank.lastIndex = place;
      blank.test(notation);
      advance(blank.lastIndex);
      if (place === notation.length) return found;
      TOKEN.lastIndex = place;
      const match = TOKEN.exec(notation);
      if (match === null) {
        const wrong = [...notation.slice(place, place + 2)][0];
        fail("mask", `a mask such as 'causal & window(4)' at column ${column + 1}`, text(wrong));
      }
      found.push([match[0], column]);
      advance(TOKEN.lastIndex);
    }
  }

  /** How many letters must change to make one word of the other. */
  function distance(a, b) {
    let row = [...b, ""].map((_, j) => j);
    [...a].forEach((x, i) => {
      const next = [i + 1];
      [...b].forEach((y, j) => next.push(Math.min(next[j] + 1, row[j + 1] + 1, row[j] + (x === y ? 0 : 1))));
      row = next;
    });
    return row[b.length];
  }

  function hint(word, atoms) {
    const near = [...atoms.values()].map((atom) => atom.spelled).filter(Boolean)
      .map((name) => [distance(word.toLowerCase(), name), name]).sort((a, b) => a[0] - b[0])[0];
    return near[0] <= Math.max(word.length, near[1].length) / 2 ? `; did you mean '${near[1]}'?` : "";
  }

  /** Recursive descent. `atoms`: name without underscores → {spelled, parameters: [[name, default?]], make}. */
  class Reader {
    constructor(notation, atoms, join) {
      Object.assign(this, { atoms, join, at: 0, depth: 0 });
      this.end = [...notation].length;
      this.tokens = tokens(notation);
    }

    whole() {
      const mask = this.mask();
      if (this.at < this.tokens.length) this.fail("'&', '|' or the end");
      return mask;
    }

    peek() { return this.at < this.tokens.length ? this.tokens[this.at][0] : ""; }

    take(wanted) {
      if (this.peek() !== wanted) return false;
      this.at += 1;
      return true;
    }

    /** Take the first of what may stand here; any other was looked for before. */
    need(...wanted) {
      if (!this.take(wanted[0])) this.fail(wanted.map((word) => `'${word}'`).join(" or "));
    }

    fail(expected, more = "") {
      const [word, place] = this.at < this.tokens.length ? this.tokens[this.at] : ["", this.end];
      fail("mask", `${expected} at column ${place + 1}`, (word === "" ? "the end" : text(word)) + more);
    }

    enter() {
      if (this.depth === DEEPEST) this.fail(`at most ${DEEPEST} levels of brackets`);
      this.depth += 1;
      this.at += 1;
    }

    mask() {
      const parts = [this.and()];
      while (this.take("|")) parts.push(this.and());
      return parts.length === 1 ? parts[0] : this.join.or(parts);
    }

    and() {
      const parts = [this.not()];
      while (this.take("&")) parts.push(this.not());
      return parts.length === 1 ? parts[0] : this.join.and(parts);
    }

    not() {
      let negated = false;
      while (this.take("~")) negated = !negated;
      let mask;
      if (this.peek() === "(") {
        this.enter();
        mask = this.mask();
        this.need(")");
        this.depth -= 1;
      } else mask = this.atom();
      return negated ? this.join.not(mask) : mask;
    }

    atom() {
      const start = this.at, word = this.peek();
      const atom = this.atoms.get(word.toLowerCase().replaceAll("_", ""));
      if (atom === undefined) this.fail("the name of a mask", word === "" ? "" : hint(word, this.atoms));
      this.at += 1;
      const values = [], named = new Map();
      if (this.peek() === "(") {
        this.enter();
        while (!this.take(")")) {
          if (values.length || named.size) this.need(",", ")");
          this.argument(values, named);
        }
        this.depth -= 1;
      }
      return this.build(start, atom, values, named);
    }

    argument(values, named) {
      const word = this.peek();
      if (/^[\p{L}_][\p{L}\p{N}_]*$/u.test(word) && (this.tokens[this.at + 1] ?? [])[0] === "=") {
        this.at += 2;
        named.set(word, this.value());
      } else if (named.size) this.fail("a named argument");
      else values.push(this.value());
    }

    value() {
      const word = this.peek(), known = word.toLowerCase();
      if (WORDS.has(known) || /^-?\d+$/.test(word)) {
        this.at += 1;
        return WORDS.has(known) ? WORDS.get(known) : Number(word);
      }
      if (/^[$@]/.test(word)) this.fail("a value");
      if (word !== "[") return this.mask();
      this.enter();
      const values = [];
      while (!this.take("]")) {
        if (values.length) this.need(",", "]");
        values.push(this.value());
      }
      this.depth -= 1;
      return values;
    }

    build(start, atom, given, named) {
      const [chosen, values] = atom.listed === undefined ? [atom, given] : atom.listed(atom, given, this.atoms);
      const names = chosen.parameters.map(([name]) => name);
      const filled = values.length <= names.length && [...named.keys()].every((n) => names.indexOf(n) >= values.length)
        && chosen.parameters.every((p, i) => i < values.length || named.has(p[0]) || p.length > 1);
      if (!filled) {
        const wanted = chosen.parameters.map((p) => (p.length > 1 ? `${p[0]}=${p[1]}` : p[0])).join(", ");
        const [word, place] = this.tokens[start], count = values.length + named.size;
        fail("mask", `${word}(${wanted}) at column ${place + 1}`, `${count} argument${count === 1 ? "" : "s"}`);
      }
      return chosen.make(...chosen.parameters.map((p, i) =>
        (i < values.length ? values[i] : named.has(p[0]) ? named.get(p[0]) : p[1])));
    }
  }

  return { Reader, Refused, fail };
})();
