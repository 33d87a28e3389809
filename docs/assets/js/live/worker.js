"use strict";
/* Writes answers beside the page, which stays responsive. A page that is opened from a folder can make a worker of its own
   scripts' source only; so this is a function, and so is the engine. */
function liveWorker(engine) {
  let model = null, latest = 0;
  const pause = () => new Promise(resume => setTimeout(resume));

  /* Both answers in turns, a denoising step at a time. Stops when the page has asked for something else. */
  async function write({ id, prompt, settings }) {
    const started = performance.now();
    const runs = { unguided: engine.generate(model, prompt, { ...settings, M: 0 }), guided: engine.generate(model, prompt, settings) };
    while (Object.keys(runs).length) {
      for (const [side, run] of Object.entries(runs)) {
        const { value, done } = run.next();
        if (done) delete runs[side];
        postMessage({ id, side, [done ? "answers" : "step"]: value });
        await pause();
        if (id !== latest) return;
      }
    }
    postMessage({ id, seconds: (performance.now() - started) / 1000 });
  }
  onmessage = ({ data }) => {
    if (data.toy) model = engine.load(data.toy, data.bytes);
    latest = data.id ?? latest;
    if (data.prompt) write(data);
    if (data.inspect) postMessage({ id: data.id, key: data.key, state: engine.inspect(model, ...data.inspect) });
  };
}
