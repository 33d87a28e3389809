"use strict";
/* A denoising trajectory to step through. Used by the trace page, which holds a copy, and by the documentation. */
const CIVIDIS = [[0, 34, 78], [58, 77, 107], [124, 123, 120], [185, 172, 112], [254, 232, 56]];

function weightColour(weight) {
  const place = Math.min(Math.max(weight, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return CIVIDIS[low].map((c, i) => Math.round(c + (CIVIDIS[low + 1][i] - c) * (place - low)));
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const number = (x, digits = 2) => (x < 0 ? "\u2212" : "") + Math.abs(x).toFixed(digits);

/* A line chart. names: of the denoising steps; series: {name, colour, dash, points: [[x, y]]}, x in steps from the left. */
function chart(caption, yLabel, names, series, low, high, W) {
  const steps = names.length;
  const [H, L, R, T, B] = [190, 60, 12, 12, 40];
  const x = v => L + (v / Math.max(steps, 1)) * (W - L - R);
  const y = v => H - B - ((v - low) / (high - low || 1)) * (H - T - B);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${caption}. ${yLabel} against denoising step.` });
  const now = svg("rect", { class: "now", y: T, height: H - B - T, width: 0 });
  root.append(now);
  for (const v of [low, (low + high) / 2, high]) {
    root.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: y(v), y2: y(v) }));
    root.append(svg("text", { x: L - 6, y: y(v) + 4, "text-anchor": "end" }, number(v)));
  }
  const every = Math.max(1, Math.ceil(steps / (W / 70)));
  for (let s = 0; s < steps; s += every) root.append(svg("text", { x: x(s + 0.5), y: H - B + 16, "text-anchor": "middle" }, names[s]));
  root.append(svg("text", { x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle" }, "denoising step"));
  root.append(svg("text", { x: 12, y: (T + H - B) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(T + H - B) / 2})` }, yLabel));
  for (const s of series) {
    root.append(svg("polyline", { points: s.points.map(([a, b]) => `${x(a)},${y(b)}`).join(" "), fill: "none", stroke: s.colour,
      "stroke-width": 2, "stroke-dasharray": s.dash || "none" }));
    for (const [a, b] of s.points) root.append(svg("circle", { cx: x(a), cy: y(b), r: 2.2, fill: s.colour }));
  }
  const legend = series.filter(s => s.name).map(s => {
    const key = element("span", { "aria-hidden": "true" }, s.dash ? " ┅ " : " ━ ");
    key.style.color = s.colour;
    return element("span", {}, key, s.name);
  });
  return { figure: element("figure", {}, element("figcaption", {}, caption, ...legend), root),
           show: s => { const inside = s < steps; now.setAttribute("x", x(inside ? s : 0)); now.setAttribute("width", inside ? x(1) - x(0) : 0); } };
}

const padded = (low, high) => { const d = (high - low) * 0.06 || 0.5; return [low - d, high + d]; };

function panel(data, ranges, width) {
  const steps = data.frames.length - 1;
  const names = data.frames.slice(0, steps).map(f => f.step + 1);
  const slots = element("ol", { class: "slots", "aria-label": `Response of ${data.title}` });
  const details = element("p", { class: "quiet details" });
  const results = element("dl", { class: "results" });
  const section = element("section", {}, element("h2", {}, data.title), element("p", { class: "quiet" }, data.subtitle), slots, details, results);
  const spread = name => data.frames.flatMap((f, s) => (f[name] || []).map((v, m, list) => [s + (m + 0.5) / list.length, v]));
  const charts = [];
  if (spread("rewards").length) {
    charts.push(chart("Reward that the gradient step sees, one point per gradient step.", "reward R(ê)", names,
      [{ colour: "var(--text)", points: spread("rewards") }], ...ranges.rewards, width));
    charts.push(chart("Mean over the masked positions of", "distance", names,
      [{ name: "E, input to soft embedding", colour: "var(--E)", points: spread("mean_E") },
       { name: "D, input to hard embedding", colour: "var(--D)", dash: "5 4", points: spread("mean_D") }], ...ranges.errors, width));
  } else {
    section.append(element("p", { class: "quiet" }, "No gradient steps. The colours show the weight that EntRGi would give."));
  }
  section.append(...charts.map(c => c.figure));

  function describe(frame, i) {
    const parts = [`position ${frame.positions[i] + 1}`, `candidate “${frame.candidates[i]}”`, `entropy ${number(frame.entropy[i])} nats`, `w = ${number(frame.weight[i])}`];
    if (frame.E.length) parts.push(`E = ${number(frame.E[i])}`, `D = ${number(frame.D[i])}`);
    return parts.join(", ");
  }

  return { section, show(s) {
    const at = Math.min(s, steps);
    const frame = data.frames[at];
    const before = at > 0 ? data.frames[at - 1].committed : [];
    slots.replaceChildren(...frame.tokens.map((token, position) => {
      const i = frame.positions.indexOf(position);
      if (i < 0) {
        const item = element("li", {}, token, element("small", {}, before.includes(position) ? "new" : "\u00a0"));
        return item;
      }
      const kept = frame.committed.includes(position);
      const item = element("li", { class: kept ? "masked chosen" : "masked", tabindex: "0", "aria-label": describe(frame, i) + (kept ? ", kept" : "") },
        frame.candidates[i], element("small", {}, `w ${number(frame.weight[i])}`));
      const [r, g, b] = weightColour(frame.weight[i]);
      item.style.background = `rgb(${r},${g},${b})`;
      item.style.color = 0.299 * r + 0.587 * g + 0.114 * b < 118 ? "#fff" : "#000";
      item.title = describe(frame, i);
      for (const event of ["focus", "mouseenter"]) item.addEventListener(event, () => { details.textContent = describe(frame, i); });
      return item;
    }));
    const rewards = frame.rewards || [];
    details.textContent = at === steps ? "The answer."
      : `${frame.positions.length} masked, ${frame.committed.length} kept.` + (rewards.length ? ` Reward at the gradient steps: ${rewards.map(v => number(v)).join(" → ")}` : "");
    results.replaceChildren(...(at === steps ? Object.entries(data.results) : []).map(([k, v]) => element("div", {}, element("dt", {}, k), element("dd", {}, v))));
    charts.forEach(c => c.show(at));
  } };
}

/* Show a trace in `root`. data: {prompt, panels}, as written by entrgi_ref.watching.trace_page. lines, if there are some:
   [{label, href}], where the algorithm's steps stand in the source; `answer` marks the one of the finished answer. */
function mountTrace(root, data, lines = []) {
  root.classList.add("trace");
  const all = name => data.panels.flatMap(p => p.frames.flatMap(f => f[name] || []));
  const rewards = all("rewards"), errors = [...all("mean_E"), ...all("mean_D")];
  const ranges = { rewards: padded(Math.min(...rewards), Math.max(...rewards)), errors: [0, Math.max(...errors, 0.01) * 1.05] };
  const share = root.clientWidth > 640 ? root.clientWidth / 2 : root.clientWidth;  // text in charts keeps its size
  const panels = data.panels.map(p => panel(p, ranges, Math.max(260, Math.min(560, share - 40))));
  const length = Math.max(...data.panels.map(p => p.frames.length));

  const button = (title, label, text) => element("button", { type: "button", title, "aria-label": label }, text);
  const buttons = {
    first: button("First step (Home)", "First step", "|\u25c0"),
    back: button("Back (left arrow)", "One step back", "\u25c0"),
    play: button("Play or pause (space)", "Play", "Play"),
    next: button("Forward (right arrow)", "One step forward", "\u25b6"),
    last: button("Answer (End)", "To the answer", "\u25b6|"),
  };
  const slider = element("input", { type: "range", min: 0, max: length - 1, value: 0, step: 1, "aria-label": "Denoising step" });
  const where = element("output", { "aria-live": "polite" });
  const links = element("p", { class: "lines" });
  root.replaceChildren(
    element("p", {}, "Prompt: ", element("strong", {}, data.prompt)),
    element("p", { class: "quiet" }, "A coloured slot is still masked. Its colour is the weight w of the hard embedding: 0 (soft) ",
      element("span", { class: "bar", role: "img", "aria-label": "colour scale from dark blue at w = 0 to yellow at w = 1" }),
      " 1 (hard). The word in it is the candidate drawn at this step; ", element("span", { class: "key" }),
      " marks the candidates that are kept. Point at a slot, or move to it with Tab, for its numbers."),
    element("div", { class: "controls" }, ...Object.values(buttons), slider, where), ...(lines.length ? [links] : []),
    element("div", { class: "panels" }, ...panels.map(p => p.section)));

  let timer = null;
  function show(s) {
    const at = Math.min(Math.max(s, 0), length - 1);
    slider.value = at;
    const frame = data.panels.find(p => p.frames.length === length).frames[at];
    where.textContent = frame.step === null ? "the answer" : `denoising step ${frame.step + 1}, noise level t = ${number(frame.t)}`;
    slider.setAttribute("aria-valuetext", where.textContent);
    links.replaceChildren("This frame in the source: ", ...lines.filter(l => Boolean(l.answer) === (frame.step === null)).map(
      l => element("a", { href: l.href }, l.label)));
    panels.forEach(p => p.show(at));
  }
  function pause() { clearInterval(timer); timer = null; buttons.play.textContent = "Play"; buttons.play.setAttribute("aria-label", "Play"); }
  function toggle() {
    if (timer) return pause();
    if (Number(slider.value) >= length - 1) show(0);
    buttons.play.textContent = "Pause"; buttons.play.setAttribute("aria-label", "Pause");
    timer = setInterval(() => { show(Number(slider.value) + 1); if (Number(slider.value) >= length - 1) pause(); }, 900);
  }
  const go = s => { pause(); show(s); };
  const actions = { first: () => go(0), back: () => go(Number(slider.value) - 1), play: toggle, next: () => go(Number(slider.value) + 1), last: () => go(length - 1) };
  for (const [name, action] of Object.entries(actions)) buttons[name].addEventListener("click", action);
  slider.addEventListener("input", () => go(Number(slider.value)));
  root.addEventListener("keydown", event => {
    if (event.target === slider || event.altKey || event.ctrlKey || event.metaKey) return;
    const key = { ArrowLeft: "back", ArrowRight: "next", Home: "first", End: "last" }[event.key];
    if (key) { actions[key](); event.preventDefault(); }
    else if (event.key === " " && !["BUTTON", "A"].includes(event.target.tagName)) { toggle(); event.preventDefault(); }
  });
  show(0);
}
