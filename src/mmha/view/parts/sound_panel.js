// A recording before and after it was enhanced, the gain of each bin, and which earlier frames each frame looked at.
"use strict";

const SoundPanel = (() => {
  const { el, colour, canvas, percent } = Draw;
  const KILOHERTZ = 8, SHOWN = 3; // the highest frequency; how many frames are named

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const channels = (name) => {
    const value = colour(name);
    return value.startsWith("#") ? [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16)) : value.split(" ").map(Number);
  };

  /** Numbers from 0 to 255, frame after frame, as a picture: time to the right, the first of each frame at the bottom. */
  function picture(values, frames, high) {
    const made = el("canvas", { width: frames, height: high }), image = new ImageData(frames, high);
    const stops = [channels("paper"), channels("heat"), channels("ink")];
    for (let t = 0; t < frames; t += 1) {
      for (let f = 0; f < high; f += 1) {
        const place = values[t * high + f] / 127.5, low = Math.min(1, Math.floor(place)), part = place - low;
        const at = 4 * ((high - 1 - f) * frames + t);
        for (let c = 0; c < 3; c += 1) image.data[at + c] = stops[low][c] + part * (stops[low + 1][c] - stops[low][c]);
        image.data[at + 3] = 255;
      }
    }
    made.getContext("2d").putImageData(image, 0, 0);
    return made;
  }

  function panel(sound) {
    const { frames, bins, reach } = sound, level = bytes(sound.level), gain = bytes(sound.gain), back = sound.back.map(bytes);
    // Decibels add up: 255 steps of the level are `range`, of the gain `depth`.
    const cleaned = level.map((value, n) => Math.max(0, value - ((255 - gain[n]) * sound.depth) / sound.range));
    const said = el("p", { className: "said", role: "status" });
    const block = el("select", {}, ...[["mean", "mean of all"], ...back.map((_, n) => [n, `block ${n}`])].map(([value, text]) => el("option", { value }, text)));
    let at = Math.floor(frames * 0.7);

    /** How much frame t looked at the frame d before it. */
    function looked(t, d) {
      const chosen = block.value === "mean" ? back : [back[Number(block.value)]];
      return chosen.reduce((sum, one) => sum + (one[t * reach + d] / 255) ** 2, 0) / chosen.length;
    }
    const cursor = (context, width, high) => {
      context.strokeStyle = colour("mixed");
      context.lineWidth = 2;
      context.strokeRect(((at + 0.5) * width) / frames, 0, 0, high);
    };
    function spectrogram(label, values) {
      let made = null, scheme = null;
      return canvas(`${label}: time to the right, frequency upwards to ${KILOHERTZ} kHz`, () => 150, (context, width) => {
        if (scheme !== colour("paper")) { // the picture is made once for each scheme
          made = picture(values, frames, bins);
          scheme = colour("paper");
        }
        context.imageSmoothingEnabled = false;
        context.drawImage(made, 0, 0, width, 150);
        cursor(context, width, 150);
      }, 1100);
    }
    const weights = canvas("Weights of the frame on those before it", () => 90, (context, width) => {
      const step = width / frames, row = Array.from({ length: Math.min(reach, at + 1) }, (_, d) => looked(at, d));
      const most = Math.max(...row, 1e-9);
      context.fillStyle = `rgb(${colour("heat")})`;
      row.forEach((w, d) => context.fillRect((at - d) * step, 90 - (88 * w) / most, Math.max(1, step - 0.5), (88 * w) / most));
      context.fillStyle = colour("line");
      context.fillRect(0, 89, width, 1);
      cursor(context, width, 90);
    }, 1100);
    const drawings = [["Noisy", spectrogram("Noisy", level)], [`Gain, ${sound.name}`, spectrogram("Gain", gain)],
      ["Cleaned", spectrogram("Cleaned", cleaned)], ["Where the marked frame looked", weights]];

    function show(to) {
      at = Math.min(frames - 1, Math.max(0, to));
      const seconds = (n) => `${((n * sound.seconds) / frames).toFixed(2)} s`;
      const row = Array.from({ length: Math.min(reach, at + 1) }, (_, d) => [looked(at, d), d]).sort((a, b) => b[0] - a[0]).slice(0, SHOWN);
      said.textContent = `The frame at ${seconds(at)} looked most at ${row.map(([w, d]) => `${seconds(at - d)} (${percent(w)})`).join(", ")}; none after it.`;
      drawings.forEach(([, drawing]) => drawing.draw());
    }
    drawings.forEach(([, { node }]) => {
      node.tabIndex = 0;
      node.addEventListener("pointermove", (event) => show(Math.floor((event.offsetX / node.clientWidth) * frames)));
      node.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -frames, End: frames }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        show(at + step);
      });
    });
    // What is heard is marked, too, while it is heard.
    const players = Object.entries(sound.sounds).map(([name, wav]) => {
      const player = el("audio", { controls: true, src: `data:audio/wav;base64,${wav}`, "aria-label": `The recording ${name} it was enhanced` });
      player.addEventListener("timeupdate", () => { if (!player.paused) show(Math.round((player.currentTime * frames) / sound.seconds)); });
      player.addEventListener("play", () => players.forEach(([, other]) => { if (other !== player) other.pause(); }));
      return [name, player];
    });
    block.addEventListener("input", () => show(at));
    show(at);
    return el("section", { id: "recording" }, el("h2", {}, "A recording, enhanced"), el("p", { className: "about" }, sound.about),
      el("div", { className: "sides" }, ...players.map(([name, player]) => el("figure", {}, el("figcaption", {}, `To hear: ${name}`), player))),
      el("div", { className: "fields" }, el("label", {}, "attention of", block)), said,
      ...drawings.map(([text, { node }]) => el("figure", {}, el("figcaption", {}, text), node)));
  }

  return { panel };
})();
