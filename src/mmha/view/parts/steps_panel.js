// A text that is written token by token: at step n the model sees n tokens, and the mask grows by a row.
"use strict";

const StepsPanel = (() => {
  const { el, percent } = Draw;
  const PACE = 900; // milliseconds a step

  function candidates(step) {
    const most = Math.max(...step.may.map(([, p]) => p), 1);
    return step.may.flatMap(([token, p]) => {
      const taken = step.next !== null && step.next[0] === token ? " taken" : "";
      const bar = el("i");
      bar.style.setProperty("--share", p / most);
      return [el("span", { className: taken }, token), el("span", {}, bar), el("span", { className: taken }, percent(p / 1000))];
    });
  }

  function panel(text) {
    const look = { ...text, rows: text.tokens, columns: text.tokens, same: true, causal: true };
    const one = LookPanel.view(look), last = text.tokens.length;
    const slider = el("input", { type: "range", min: 1, max: last, step: 1, value: Math.min(text.prompt, last), "aria-label": "Step" });
    const count = el("p", { role: "status" }), bars = el("div", { className: "bars" }), next = el("p");
    const play = el("button", { type: "button" }, "Play");
    let timer = null;

    function show() {
      const n = Number(slider.value), step = text.steps[n - 1];
      count.textContent = `Step ${n} of ${last} sees ${n} token${n === 1 ? "" : "s"}.`;
      one.queries.buttons.forEach((button, i) => {
        button.classList.toggle("later", i >= n);
        button.classList.toggle("own", i >= text.prompt);
        button.disabled = i >= n;
      });
      one.limit(n, n - 1);
      bars.replaceChildren(...candidates(step));
      next.textContent = step.next === null ? "Here the text ends."
        : `${n < text.prompt ? "The prompt goes on with" : "Written next:"} ${step.next[0]} (${percent(step.next[1] / 1000)}${step.next[2] ? `, number ${step.next[2] + 1} of all` : ""}).`;
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    }
    function advance() {
      if (Number(slider.value) >= last) stop();
      else { slider.value = Number(slider.value) + 1; show(); }
    }
    play.addEventListener("click", () => {
      if (timer !== null) { stop(); return; }
      if (Number(slider.value) >= last) slider.value = 1;
      show();
      play.textContent = "Stop";
      timer = setInterval(advance, PACE);
    });
    slider.addEventListener("input", () => { stop(); show(); });
    const move = (by) => () => { stop(); slider.value = Number(slider.value) + by; show(); };
    show();
    return el("section", { id: "generation" }, el("h2", {}, "Generation, step by step"),
      el("p", { className: "about" }, text.about),
      el("div", { className: "sides" },
        el("div", {}, slider, el("div", { className: "fields" }, el("button", { type: "button", onclick: move(-1) }, "Back"), play,
          el("button", { type: "button", onclick: move(1) }, "Next")), count, one.queries.node, el("h3", {}, "What may come next"), bars, next,
        one.toggle, one.said, el("h3", {}, "Heads, a row a layer"), one.heads),
        el("figure", {}, one.picture, el("figcaption", {}, "The row of a token shows what it looked at; a token sees itself and those before it, and the mask grows by one row a step."))));
  }

  return { panel };
})();
