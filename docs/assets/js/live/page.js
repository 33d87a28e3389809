"use strict";
/* The live page: settings, a worker that writes, and what it has written so far. All settings are in the address. */
const LIVE_NETWORKS = new URL("../../live/networks.js", document.currentScript.src).href;

function mountLive(root) {
  const { element, number } = Draw, MARK = "#run:";
  const NAMES = { unguided: "Unguided", guided: "Guided" };
  let toy = null, worker = null, id = 0, sides = {}, chosen = 0, at = 0, follow = true, before = null, asked = null, sought = null;

  /* ---- Settings ---- */

  const select = (name, options) => element("select", { name }, ...options.map(([value, text]) => element("option", { value }, text)));
  const numeric = (name, value, min, max, step) => element("input", { name, type: "number", value, min, max, step, required: "", inputmode: "decimal" });
  const controls = {
    subjects: select("subjects", []), objects: select("objects", []), style: select("style", []),
    weight: select("weight", [["entrgi", "EntRGi: w = H / log V"], ["entrgi_tempered", "EntRGi, entropy at τ"], ["expectation", "Expectation: w = 0"],
      ["aps", "APS: w = 1"], ["constant", "a constant w"]]),
    w: numeric("w", 0.5, 0, 1, 0.05),
    M: numeric("M", 3, 0, 12, 1), eta: numeric("eta", 0.5, 0.05, 5, 0.05), tau: numeric("tau", 0.7, 0.1, 3, 0.05),
    topP: numeric("topP", 0.95, 0.05, 1, 0.05),
    order: select("order", [["entropy", "entropy"], ["maskgit_plus", "probability"], ["topk_margin", "margin"], ["anchor", "logit"], ["origin", "at random"]]),
    K: numeric("K", 4, 1, 8, 1), T: numeric("T", 16, 1, 32, 1), seed: numeric("seed", 0, 0, Number.MAX_SAFE_INTEGER, 1),
  };
  const LABELS = {
    subjects: "Subjects", objects: "Objects", style: "Style", weight: "Method", w: "w", M: "M, gradient steps", eta: "η, step size", tau: "τ, temperature",
    topP: "top-p", order: "Order", K: "K, answers", T: "T, denoising steps", seed: "Seed",
  };
  const field = name => element("label", { class: `field ${name}` }, element("span", {}, LABELS[name]), controls[name]);
  const button = (text, type = "button") => element("button", { type }, text);
  const run = button("Run", "submit"), stop = button("Stop"), another = button("Another seed"), reset = button("Defaults"), link = button("Copy link");
  const group = (name, ...names) => element("fieldset", {}, element("legend", {}, name), ...names.map(field));
  const form = element("form", { "aria-label": "Settings" },
    group("Prompt", "subjects", "objects", "style"), group("Guidance", "weight", "w", "M", "eta"),
    group("Sampling", "tau", "topP", "order", "K", "T", "seed"), element("p", { class: "buttons" }, run, stop, another, reset, link));
  stop.disabled = true;

  const written = () => Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, control.value]));
  const initial = () => ({ ...defaults, subjects: "sea", objects: "castle", style: "gloomy" });
  const defaults = written();
  function fill(values) {
    for (const [name, control] of Object.entries(controls)) {
      if (values[name] === undefined) continue;
      const old = control.value;
      control.value = values[name];
      if (control.value === "" || !control.checkValidity()) control.value = old;
    }
    constant();
  }
  function constant() {
    controls.w.disabled = controls.weight.value !== "constant";
    controls.w.closest("label").hidden = controls.w.disabled;
  }
  function settings() {
    const found = written(), numbers = ["M", "eta", "tau", "topP", "K", "T", "seed"];
    return {
      prompt: `${found.subjects} ${found.objects} ${found.style}`,
      settings: { ...Object.fromEntries(numbers.map(name => [name, Number(found[name])])), order: found.order,
        weight: found.weight === "constant" ? Number(found.w) : found.weight },
    };
  }
  /* All settings, and where the inspector stands. */
  const address = () => MARK + new URLSearchParams({ ...written(),
    ...(inspector.open() ? { ...inspector.written(), step: (steps("guided")[place()]?.step ?? sought ?? 0) + 1, answer: chosen + 1 } : {}) });
  const remember = () => history.replaceState(null, "", address());
  const fromAddress = () => location.hash.startsWith(MARK) ? Object.fromEntries(new URLSearchParams(location.hash.slice(MARK.length))) : null;

  /* ---- What is written ---- */

  const status = element("p", { class: "status", role: "status" }, "The networks are loading …");
  const slider = element("input", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "Denoising step" });
  const where = element("output", {}), answers = element("span", { class: "answers" });
  const panels = Object.fromEntries(Object.keys(NAMES).map(side => [side, {
    slots: element("ol", { class: "slots", "aria-label": `${NAMES[side]} answer` }), words: element("p", { class: "quiet details" }),
    results: element("dl", { class: "results" }),
  }]));
  const charts = element("div", { class: "panels" });
  const summary = element("div", { class: "summary" });
  const shown = element("div", { class: "trace" },
    element("p", { class: "quiet" }, "A coloured slot is still masked; its colour is the weight w of the hard embedding, 0 (soft) ",
      element("span", { class: "bar", role: "img", "aria-label": "colour scale from dark blue at w = 0 to yellow at w = 1" }),
      " 1 (hard). The word in it is this step's candidate; ", element("span", { class: "key" }), " marks those that are kept. Point at a slot, or move to it with Tab, for its numbers."),
    element("div", { class: "scrub" }, slider, where, answers),
    element("div", { class: "panels" }, ...Object.entries(panels).map(([side, p]) =>
      element("section", {}, element("h2", {}, NAMES[side]), p.slots, p.words, p.results))),
    charts, summary);
  const inspector = liveInspector({
    toy: () => toy,
    go(change) { follow = false; at = place() + change; show(); remember(); },
    answer(k) { chosen = k; show(); remember(); },
    ask: request => worker.postMessage({ id, ...request }),
    changed: () => { if (asked) remember(); },
  });

  const steps = side => sides[side]?.steps ?? [];
  /* The step that the inspector is at: behind the last one are the answers. None while a link's step is not yet written. */
  const place = () => sought === null ? Math.min(at, steps("guided").length - 1) : -1;
  const length = () => Math.max(steps("unguided").length, steps("guided").length);
  const mean = values => values.reduce((a, b) => a + b, 0) / values.length;
  const points = x => (x > 0 ? "+" : "") + number(x);

  function slot(word, small, weight, kept) {
    const item = element("li", {}, word, element("small", {}, small));
    if (weight === undefined) return item;
    const [r, g, b] = weightColour(weight);
    item.className = kept ? "masked chosen" : "masked";
    item.style.background = `rgb(${r},${g},${b})`;
    item.style.color = 0.299 * r + 0.587 * g + 0.114 * b < 118 ? "#fff" : "#000";
    return item;
  }
  /* What a slot says when it is pointed at, or reached with Tab. */
  function tell(item, panel, word, text) {
    item.tabIndex = 0;
    item.title = text;
    item.setAttribute("aria-label", `${word}: ${text}`);
    for (const event of ["focus", "mouseenter"]) item.addEventListener(event, () => { panel.words.textContent = `${word}: ${text}`; });
  }
  const readable = word => word === "<eos>" ? "·" : word;

  function draw(side) {
    const panel = panels[side], found = steps(side), answer = sides[side]?.answers?.[chosen];
    const place = Math.min(at, found.length), finished = place === found.length && answer;
    const frame = found[Math.min(place, found.length - 1)], mine = frame?.trajectories[chosen];
    panel.results.replaceChildren();
    if (finished) {
      const other = side === "guided" && before?.answers[chosen];
      panel.slots.replaceChildren(...answer.words.map((word, i) => {
        const parts = answer.parts.filter(([position]) => position === i), sum = parts.reduce((a, [, p]) => a + p, 0);
        const item = slot(readable(word), parts.length ? points(sum) : "\u00a0");
        if (parts.length) tell(item, panel, word, parts.map(([, p, reason]) => `${points(p)} ${reason}`).join("; "));
        item.classList.add(parts.length ? sum > 0 ? "good" : "bad" : "plain");
        if (other && other.words[i] !== word) item.classList.add("changed");
        return item;
      }));
      panel.words.textContent = "The answer; under each word its points of the gold score.";
      if (other) {
        const differ = answer.words.filter((word, i) => other.words[i] !== word).length;
        panel.words.textContent += ` Against the run before (${before.what}) ${differ} of ${answer.words.length} words differ, underlined.`;
      }
      panel.results.replaceChildren(...[["Reward", answer.reward], ["Gold", answer.gold]].map(([name, x]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, number(x)))));
    } else if (mine) {
      const earlier = new Set(place ? found[place - 1]?.trajectories[chosen].committed.map(i => found[place - 1].trajectories[chosen].positions[i]) : []);
      const record = mine.records.at(-1), w = record?.weight ?? mine.weight;
      panel.slots.replaceChildren(...mine.tokens.map((token, position) => {
        const i = mine.positions.indexOf(position);
        if (i < 0) return slot(readable(toy.vocabulary[token]), earlier.has(position) ? "new" : "\u00a0");
        const item = slot(readable(toy.vocabulary[mine.candidates[i]]), `w ${number(w[i])}`, w[i], mine.committed.includes(i));
        tell(item, panel, toy.vocabulary[mine.candidates[i]], `w ${number(w[i])}, entropy ${number((record?.entropy ?? mine.entropy)[i])} nats`
          + (record ? `, E ${number(record.E[i])}, D ${number(record.D[i])}` : "") + (mine.committed.includes(i) ? ", kept" : ""));
        return item;
      }));
      panel.words.textContent = `${mine.positions.length} masked, ${mine.committed.length} kept. `
        + (record && w.length ? `Mean w ${number(mean(w))}, E ${number(mean(record.E))}, D ${number(mean(record.D))}. Reward `
          + `${mine.records.map(r => number(r.reward)).join(" → ")}` : "");
    } else {
      panel.slots.replaceChildren(...Array.from({ length: toy?.length ?? 16 }, () => slot("?", "\u00a0")));
      panel.words.textContent = "All masked.";
    }
  }

  function drawCharts() {
    const found = steps("guided"), all = found.map(s => s.trajectories[chosen].records), names = found.map(s => s.step + 1);
    const spread = of => all.flatMap((records, s) => records.flatMap((r, m) => r.weight.length ? [[s + (m + 0.5) / records.length, of(r)]] : []));
    const rewards = spread(r => r.reward), E = spread(r => mean(r.E)), D = spread(r => mean(r.D));
    charts.replaceChildren();
    if (!rewards.length) return;
    const width = Math.max(280, Math.min(520, panels.guided.slots.clientWidth || 400)), values = rewards.map(([, y]) => y);
    const drawn = [
      chart("Guided: the reward that each gradient step sees.", "reward R(ê)", names, [{ colour: "var(--text)", points: rewards }], ...padded(Math.min(...values), Math.max(...values)), width),
      chart("Guided: mean over the masked positions of", "distance", names,
        [{ name: "E, to the soft embedding", colour: "var(--E)", points: E }, { name: "D, to the hard one", colour: "var(--D)", dash: "5 4", points: D }],
        0, Math.max(...[...E, ...D].map(([, y]) => y), 0.01) * 1.05, width),
    ];
    drawn.forEach(c => c.show(at));
    charts.replaceChildren(...drawn.map(c => c.figure));
  }

  function drawSummary() {
    const [u, g] = ["unguided", "guided"].map(side => sides[side]?.answers);
    summary.replaceChildren();
    if (!u || !g) return;
    const best = a => a.reduce((x, y) => y.reward > x.reward ? y : x);
    const rows = [["Reward of the best", a => best(a).reward], ["Reward, mean", a => mean(a.map(x => x.reward))],
      ["Gold of the best", a => best(a).gold], ["Gold, mean", a => mean(a.map(x => x.gold))]];
    const cell = (name, ...content) => element(name, {}, ...content);
    summary.replaceChildren(element("table", { class: "means" }, element("caption", {}, u.length > 1 ? `All ${u.length} answers` : "The one answer"),
      element("thead", {}, element("tr", {}, cell("th", ""), cell("th", NAMES.unguided), cell("th", NAMES.guided))),
      element("tbody", {}, ...rows.map(([name, of]) => element("tr", {}, element("th", { scope: "row" }, name), cell("td", number(of(u))), cell("td", number(of(g))))))));
  }

  function drawAnswers() {
    const count = sides.guided?.K ?? 0, [u, g] = ["unguided", "guided"].map(side => sides[side]?.answers);
    answers.replaceChildren(...(count > 1 ? ["Answer ", ...Array.from({ length: count }, (_, k) => {
      const made = button(String(k + 1));
      made.setAttribute("aria-pressed", k === chosen);
      made.setAttribute("aria-label", `Answer ${k + 1}` + (u && g ? `: reward ${number(u[k].reward)} unguided, ${number(g[k].reward)} guided` : ""));
      made.addEventListener("click", () => { chosen = k; show(); answers.querySelectorAll("button")[k].focus(); });
      return made;
    })] : []));
  }

  function show() {
    const last = length();
    if (follow) at = last;
    if (follow && !sides.guided?.answers) at = Math.max(0, last - 1);
    slider.max = last;
    slider.value = at;
    const frame = steps("guided")[at] ?? (at < last ? steps("unguided")[at] : null);
    where.textContent = frame ? `step ${frame.step + 1} of ${sides.guided.T}, t = ${number(frame.t)}` : last ? "the answers" : "not begun";
    slider.setAttribute("aria-valuetext", where.textContent);
    Object.keys(NAMES).forEach(draw);
    drawCharts();
    drawSummary();
    drawAnswers();
    inspector.show({ run: id, asked, steps: steps("guided"), at: place(), answer: chosen });
  }
  slider.addEventListener("input", () => { at = Number(slider.value); follow = at === length(); sought = null; show(); });
  slider.addEventListener("change", () => { if (asked) remember(); });

  /* ---- Running ---- */

  const describe = ({ prompt, settings: s }) => ({ prompt, ...s });
  /* With `linked` the page goes to the step and the answer that a link holds, and then does not follow the run. */
  function start(linked) {
    if (!worker || !form.reportValidity()) return;
    const now = settings();
    if (sides.guided?.answers) {
      const old = describe(asked), changed = Object.entries(describe(now)).filter(([name, x]) => old[name] !== x);
      before = { answers: sides.guided.answers, what: changed.map(([name]) => `${name} ${old[name]}`).join(", ") || "same settings" };
    }
    asked = now;
    const fresh = () => ({ steps: [], answers: null, K: now.settings.K, T: now.settings.T });
    sides = { unguided: fresh(), guided: fresh() };
    chosen = Math.min(linked ? Math.max(0, Number(linked.answer) - 1 || 0) : chosen, now.settings.K - 1);
    follow = true;
    sought = linked ? Math.max(0, Number(linked.step) - 1 || 0) : null;
    stop.disabled = false;
    status.textContent = "Writing …";
    worker.postMessage({ id: ++id, ...now });
    show();
    remember();
  }
  function halt(text) {
    stop.disabled = true;
    status.textContent = text;
  }
  function received({ data }) {
    if (data.id !== id) return;
    if (data.state) return inspector.received(data);
    if (data.step) sides[data.side].steps.push(data.step);
    if (data.answers) sides[data.side].answers = data.answers;
    if (sought !== null && data.side === "guided" && (data.answers || data.step.step >= sought)) {
      [sought, follow, at] = [null, false, steps("guided").length - 1];
    }
    if (data.seconds) halt(`Both written in ${number(data.seconds, 1)} s, in this page, in float64.`);
    show();
  }
  form.addEventListener("submit", event => { event.preventDefault(); start(); });
  controls.weight.addEventListener("change", constant);
  stop.addEventListener("click", () => { worker.postMessage({ id: ++id }); halt("Stopped."); });
  another.addEventListener("click", () => { controls.seed.value = Number(controls.seed.value) + 1; start(); });
  reset.addEventListener("click", () => { fill(initial()); });
  link.addEventListener("click", async () => {
    remember();
    try { await navigator.clipboard.writeText(location.href); status.textContent = "Copied: a link with all settings."; }
    catch { status.textContent = "The address of this page now holds all settings."; }
  });
  window.addEventListener("hashchange", () => { const found = fromAddress(); if (found) follows(found); });

  /* What a link says. */
  function follows(found) {
    fill(initial());
    fill(found);
    inspector.fill(found);
    if (inspector.open()) shown.before(inspector.root); // what is written above it would push it down
    start(found.eq ? found : undefined);
  }

  function ready() {
    toy = RECORDED.live;
    for (const [name, values] of [["subjects", toy.topics], ["objects", toy.topics], ["style", toy.styles]]) {
      controls[name].replaceChildren(...values.map(value => element("option", { value }, value)));
    }
    const linked = fromAddress();
    fill(initial());
    const source = URL.createObjectURL(new Blob([`${liveEngine};(${liveWorker})(liveEngine());`], { type: "text/javascript" }));
    worker = new Worker(source);
    worker.onmessage = received;
    worker.onerror = event => halt(`The worker failed: ${event.message}`);
    const bytes = Uint8Array.from(atob(RECORDED.weights), c => c.charCodeAt(0)).buffer;
    worker.postMessage({ toy, bytes }, [bytes]);
    status.textContent = "Ready. Press Run.";
    root.dataset.ready = "";
    if (linked) follows(linked);
  }
  const script = element("script", { src: LIVE_NETWORKS });
  script.addEventListener("load", ready);
  script.addEventListener("error", () => { status.textContent = "The networks could not be loaded."; });
  document.head.append(script);

  root.replaceChildren(form, status, shown, inspector.root);
  constant();
  show();
}
