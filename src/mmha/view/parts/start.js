// Puts the panels into the page, from the data that it carries.
"use strict";

(() => {
  const { el } = Draw;
  const data = JSON.parse(document.getElementById("data").textContent);
  const panels = [["A mask and its cost", MaskPanel.panel(data.mask)]];
  data.looks.forEach((look) => panels.push([look.short, LookPanel.panel(look)]));
  if (data.generation !== null) panels.push(["Generation", StepsPanel.panel(data.generation)]);
  const names = { sentence: "Sentence, through the tagger and BERT", prompt: "Prompt, for the language model", source: "Text to translate" };
  const asks = data.form && el("form", { method: "get", action: "/" },
    ...Object.entries(data.form.texts).map(([name, value]) => el("label", { className: "line" }, names[name], el("input", { type: "text", name, value }))),
    el("p", { className: "wrong", role: "alert" }, data.form.wrong), el("button", {}, "Look"));
  if (data.recording) panels.push(["Recording", SoundPanel.panel(data.recording)]);
  document.getElementById("panels").replaceChildren(...(asks ? [asks] : []), ...panels.map(([, node]) => node));
  document.getElementById("contents").replaceChildren(...panels.map(([name, node]) => el("a", { href: `#${node.id}` }, name)));
})();
