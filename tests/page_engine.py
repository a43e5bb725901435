"""The scripts of the page in an engine without a browser: QuickJS, from PyPI."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import quickjs

from mask_notations import Case
from mmha.view import page

ASK = """
const answer = (ask) => (text) => {
  try { return JSON.stringify(ask(JSON.parse(text))); }
  catch (error) {
    if (!(error instanceof Masks.Refused)) throw error;
    return JSON.stringify({ refused: error.message });
  }
};
globalThis.evaluate = answer((c) => {
  const mask = Masks.parse(c.notation), grid = Masks.grid(c.batch, c.heads, c.q_len, c.k_len, c.q_start);
  mask.fit(grid);
  const seen = [];
  for (let b = 0; b < c.batch; b += 1) for (let h = 0; h < c.heads; h += 1) seen.push(...Masks.item(mask, grid, b, h));
  return { seen };
});
globalThis.measure = answer((c) => {
  const grid = Masks.grid(1, 1, c.q_len, c.k_len, c.q_start), seen = Masks.item(Masks.parse(c.notation), grid, 0, 0);
  const found = Masks.tiles(seen, c.q_len, c.k_len, 3, 5);
  return { ...Masks.count(seen, c.q_len, c.k_len), ...found, codes: [...found.codes] };
});
globalThis.wanted = answer((notation) => Masks.wants(Masks.parse(notation)));
"""


class Engine:
    """Asks the page's own evaluator of masks."""

    def __init__(self) -> None:
        self.context = quickjs.Context()
        self.context.eval(page.read("notation.js") + page.read("masks.js") + ASK)

    def ask(self, name: str, question: Any) -> Any:
        """The answer, {"refused": message} when the evaluator refuses; a bug of it is raised."""
        return json.loads(self.context.get(name)(json.dumps(question)))

    def evaluate(self, case: Case) -> Any:
        """{"seen": bits of all pairs} or {"refused": message}."""
        return self.ask("evaluate", asdict(case))
