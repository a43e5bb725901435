// What all panels use: elements made of text alone (never of markup), canvases in the page's colours, arrow keys.
"use strict";

const Draw = (() => {
  /** An element. Properties are set as such, those with a dash or `role` as attributes; children are nodes or text. */
  function el(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-") || key === "role") made.setAttribute(key, value);
      else made[key] = value;
    }
    made.append(...children);
    return made;
  }

  let ids = 0;
  const id = () => `n${(ids += 1)}`;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const heat = (weight) => `rgb(${colour("heat")} / ${shade(weight)})`;

  /** Opacity of a weight: its square root, so that small weights show, and never so dark that a word is unreadable. */
  const shade = (weight) => (0.72 * Math.sqrt(Math.min(1, Math.max(0, weight)))).toFixed(3);

  const percent = (weight) => (weight === 0 ? "0 %" : weight < 0.001 ? "< 0.1 %" : `${(100 * weight).toFixed(weight < 0.0995 ? 1 : 0)} %`);

  const redraws = new Set();
  const redraw = () => redraws.forEach((draw) => draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);

  /** A canvas that is drawn in CSS pixels: `paint(context, width)` is called now, on resize and in another scheme. */
  function canvas(label, height, paint, most = 560) {
    const made = el("canvas", { role: "img", "aria-label": label });
    const draw = () => {
      const width = Math.min(made.clientWidth, most), scale = devicePixelRatio || 1;
      if (width === 0) return;
      const high = height(width);
      made.width = Math.round(width * scale);
      made.height = Math.round(high * scale);
      made.style.height = `${high}px`;
      const context = made.getContext("2d");
      context.scale(scale, scale);
      context.clearRect(0, 0, width, high);
      paint(context, width);
    };
    made.style.maxWidth = `${most}px`;
    redraws.add(draw);
    new ResizeObserver(draw).observe(made);
    return { node: made, draw };
  }

  /** Arrow keys move the focus among the elements, which are one stop of the tabulator; `choose` is told the number. */
  function rove(elements, choose, columns = 1) {
    const go = (to) => {
      elements.forEach((one, number) => { one.tabIndex = number === to ? 0 : -1; });
      elements[to].focus();
    };
    elements.forEach((one, number) => {
      one.tabIndex = number === 0 ? 0 : -1;
      one.addEventListener("focus", () => {
        elements.forEach((other) => { other.tabIndex = other === one ? 0 : -1; });
        choose(number, "focus");
      });
      one.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -number, End: elements.length - 1 - number };
        const to = number + (steps[event.key] ?? NaN);
        if (!(to >= 0 && to < elements.length) || elements[to].disabled) return;
        event.preventDefault();
        go(to);
      });
    });
  }

  return { el, id, colour, heat, shade, percent, canvas, rove };
})();
