// Pages that open from disk: browsers start no worker there, so that the search runs in a hidden frame instead.
"use strict";

if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      const inside = frame.contentWindow;
      const load = (from) => new Promise((done) => {
        const script = inside.document.createElement("script");
        script.src = from;
        script.onload = done;
        inside.document.head.append(script);
      });
      inside.importScripts = (...list) => list.reduce((before, one) => before.then(() => load(one)), Promise.resolve());
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const ready = load(new URL(address, location.href).href);
      this.postMessage = (data) => ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
