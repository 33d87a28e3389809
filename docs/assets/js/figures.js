"use strict";
/* The arithmetic of the interactive figures, in the order of the equations. The tests compare it with Python's.
   Vectors are arrays, tables arrays of rows. */
const EntRGi = {
  WORDS: ["the", "cat", "dog", "sat", "ran"],
  LOGITS: [2, 1, 0.5, 0, -1],
  EMBEDDINGS: [[0, 2], [2, 1], [1.5, -1], [-1, -1.5], [-2, 0.5]],
  HILLS: [{ at: [2.2, 0.2], height: 1, width: 1.1 }, { at: [-1.6, -0.7], height: 0.6, width: 0.8 }],

  /* Eq. 1 */
  tokenDistribution(logits, temperature) {
    const largest = Math.max(...logits);
    const e = logits.map(x => Math.exp((x - largest) / temperature));
    const sum = e.reduce((a, b) => a + b, 0);
    return e.map(x => x / sum);
  },
  /* Eq. 2 */
  softEmbedding(q, embeddings) {
    return embeddings[0].map((_, j) => q.reduce((sum, p, i) => sum + p * embeddings[i][j], 0));
  },
  /* Eq. 4, in nats; the weight at temperature 1 */
  entropy(logits) {
    return EntRGi.tokenDistribution(logits, 1).reduce((h, p) => p > 0 ? h - p * Math.log(p) : h, 0);
  },
  entropyWeight(logits) {
    return Math.min(Math.max(EntRGi.entropy(logits) / Math.log(logits.length), 0), 1);
  },
  /* Eq. 5, its value */
  interpolate(soft, hard, weight) {
    return soft.map((s, j) => s + weight * (hard[j] - s));
  },
  /* Eq. 8 */
  distance(a, b) {
    return Math.hypot(...a.map((x, j) => x - b[j]));
  },
  /* The figure's reward: two hills in the plane. */
  reward(e) {
    return EntRGi.HILLS.reduce((r, h) => r + h.height * Math.exp(-(EntRGi.distance(e, h.at) ** 2) / (2 * h.width ** 2)), 0);
  },
  rewardGradient(e) {
    return e.map((x, j) => EntRGi.HILLS.reduce((g, h) =>
      g - h.height * (x - h.at[j]) / h.width ** 2 * Math.exp(-(EntRGi.distance(e, h.at) ** 2) / (2 * h.width ** 2)), 0));
  },
  /* Eq. 6 before Adam: the gradient taken at the mixed embedding, applied through the soft one. */
  logitGradient(q, soft, embeddings, gradient, temperature) {
    const dot = e => e.reduce((sum, x, j) => sum + x * gradient[j], 0);
    return q.map((p, i) => p * (dot(embeddings[i]) - dot(soft)) / temperature);
  },
  /* All of them. `method` is entrgi, expectation, aps, or a number: a constant weight. */
  step(logits, temperature, sampled, method) {
    const q = EntRGi.tokenDistribution(logits, temperature);
    const soft = EntRGi.softEmbedding(q, EntRGi.EMBEDDINGS), hard = EntRGi.EMBEDDINGS[sampled];
    const weight = { entrgi: EntRGi.entropyWeight(logits), expectation: 0, aps: 1 }[method] ?? Number(method);
    const mixed = EntRGi.interpolate(soft, hard, weight);
    const gradient = EntRGi.rewardGradient(mixed);
    return {
      q, soft, hard, weight, mixed, gradient, entropy: EntRGi.entropy(logits), reward: EntRGi.reward(mixed),
      E: EntRGi.distance(mixed, soft), D: EntRGi.distance(mixed, hard),
      logitGradient: EntRGi.logitGradient(q, soft, EntRGi.EMBEDDINGS, gradient, temperature),
    };
  },
};

const Draw = {
  element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  },
  svg(name, attributes = {}, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  },
  number: (x, digits = 2) => (x < 0 && Number(x.toFixed(digits)) !== 0 ? "\u2212" : "") + Math.abs(x).toFixed(digits),
  slider(label, low, high, step, value, changed) {
    const output = Draw.element("output", {}, Draw.number(value));
    const input = Draw.element("input", { type: "range", min: low, max: high, step, value, "aria-label": label });
    input.addEventListener("input", () => { output.textContent = Draw.number(Number(input.value)); changed(Number(input.value)); });
    const row = Draw.element("label", {}, label, input, output);
    return { row, set(x) { input.value = x; output.textContent = Draw.number(Number(input.value)); changed(Number(input.value)); } };
  },
};

/* Figure (a): five logits and a temperature; the three embeddings in a plane, and the gradient. */
function mountRelaxation(root) {
  const state = { logits: [...EntRGi.LOGITS], temperature: 0.7, sampled: 2, method: "entrgi" };
  const { element, svg, number } = Draw;
  const set = (name, i) => x => { if (i === undefined) state[name] = x; else state[name][i] = x; show(); };
  const sliders = EntRGi.WORDS.map((word, i) => Draw.slider(`ψ “${word}”`, -4, 4, 0.1, state.logits[i], set("logits", i)));
  const tau = Draw.slider("τ", 0.1, 3, 0.05, state.temperature, set("temperature"));
  const method = element("select", { "aria-label": "Method" },
    ...[["entrgi", "EntRGi: w = H / log K"], ["expectation", "Expectation: w = 0"], ["0.5", "w = 0.5"], ["aps", "APS: w = 1"]].map(
      ([value, text]) => element("option", { value }, text)));
  method.addEventListener("change", () => { state.method = method.value; show(); });
  const sampled = element("select", { "aria-label": "Sampled token" }, ...EntRGi.WORDS.map((w, i) => element("option", { value: i }, w)));
  sampled.value = state.sampled;
  sampled.addEventListener("change", () => { state.sampled = Number(sampled.value); show(); });
  const again = element("button", { type: "button" }, "Sample again");
  again.addEventListener("click", () => {
    const q = EntRGi.tokenDistribution(state.logits, state.temperature);
    let u = Math.random(), i = 0;
    while (i < q.length - 1 && (u -= q[i]) > 0) i++;
    state.sampled = i; sampled.value = i; show();
  });
  const climb = element("button", { type: "button" }, "One gradient step");
  climb.addEventListener("click", () => {
    const { logitGradient } = EntRGi.step(state.logits, state.temperature, state.sampled, state.method);
    logitGradient.forEach((g, i) => sliders[i].set(Math.min(4, Math.max(-4, state.logits[i] + 5 * g))));
  });
  const reset = element("button", { type: "button" }, "Reset");
  reset.addEventListener("click", () => { EntRGi.LOGITS.forEach((x, i) => sliders[i].set(x)); tau.set(0.7); });

  const W = 380, H = 300, scale = 62;
  const place = ([x, y]) => [W / 2 - 24 + scale * x, H / 2 + 12 - scale * y];
  const plane = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "The embeddings in a plane" });
  const hills = svg("g"), marks = svg("g");
  for (const hill of EntRGi.HILLS) for (const part of [1, 0.66, 0.33]) {
    const [cx, cy] = place(hill.at);
    hills.append(svg("circle", { cx, cy, r: hill.width * scale * part * 1.15, fill: "var(--quiet)", opacity: 0.1 * hill.height }));
  }
  plane.append(hills, svg("polygon", { points: [0, 1, 2, 3, 4].map(i => place(EntRGi.EMBEDDINGS[i]).join()).join(" "),
    fill: "none", stroke: "var(--quiet)", "stroke-dasharray": "3 3", opacity: 0.7 }), marks);
  const bars = svg("svg", { viewBox: "0 0 340 150", role: "img", "aria-label": "Probabilities and gradients of the five tokens" });
  const words = element("p", { class: "live", "aria-live": "polite" });

  function arrow([x, y], [dx, dy], colour, dash) {
    const length = Math.hypot(dx, dy) || 1e-9, [ux, uy] = [dx / length, dy / length], [tx, ty] = [x + dx, y + dy];
    const g = svg("g", { stroke: colour, fill: colour, "stroke-width": 2 });
    g.append(svg("line", { x1: x, y1: y, x2: tx, y2: ty, "stroke-dasharray": dash || "none" }),
      svg("polygon", { "stroke-width": 0, points: `${tx + 7 * ux},${ty + 7 * uy} ${tx - 4 * uy},${ty + 4 * ux} ${tx + 4 * uy},${ty - 4 * ux}` }));
    return g;
  }
  function show() {
    const s = EntRGi.step(state.logits, state.temperature, state.sampled, state.method);
    marks.replaceChildren();
    EntRGi.EMBEDDINGS.forEach((e, i) => {
      const [x, y] = place(e);
      marks.append(svg("circle", { cx: x, cy: y, r: 2 + 9 * Math.sqrt(s.q[i]), fill: "var(--quiet)", opacity: 0.55 }),
        svg("text", { x: x + 9, y: y - 9 }, EntRGi.WORDS[i]));
    });
    const [soft, hard, mixed] = [s.soft, s.hard, s.mixed].map(place);
    marks.append(svg("line", { x1: soft[0], y1: soft[1], x2: hard[0], y2: hard[1], stroke: "var(--quiet)" }));
    const pull = s.gradient.map((g, j) => 55 * g * (j ? -1 : 1));
    marks.append(arrow(soft, pull, "var(--soft)", "4 3"), arrow(mixed, pull, "var(--mixed)"));
    marks.append(svg("rect", { x: soft[0] - 6, y: soft[1] - 6, width: 12, height: 12, fill: "var(--soft)" }),
      svg("polygon", { points: `${hard[0]},${hard[1] - 8} ${hard[0] - 7},${hard[1] + 6} ${hard[0] + 7},${hard[1] + 6}`, fill: "var(--hard)" }),
      svg("circle", { cx: mixed[0], cy: mixed[1], r: 6.5, fill: "var(--mixed)" }));
    plane.setAttribute("aria-label", `Soft embedding at ${s.soft.map(x => number(x)).join(", ")}; hard at the token ${EntRGi.WORDS[state.sampled]}; `
      + `mixed at ${s.mixed.map(x => number(x)).join(", ")}; reward's gradient there ${s.gradient.map(x => number(x)).join(", ")}`);

    bars.replaceChildren(svg("text", { x: 0, y: 12, class: "quiet" }, "q"), svg("text", { x: 0, y: 100, class: "quiet" }, "∂R/∂ψ"));
    const most = Math.max(...s.logitGradient.map(Math.abs), 0.05);
    s.q.forEach((p, i) => {
      const x = 50 + 58 * i, g = s.logitGradient[i] / most;
      bars.append(svg("rect", { x, y: 66 - 50 * p, width: 40, height: 50 * p, fill: "var(--soft)" }),
        svg("text", { x: x + 20, y: 62 - 50 * p, "text-anchor": "middle" }, number(p)),
        svg("text", { x: x + 20, y: 80, "text-anchor": "middle", class: "quiet" }, EntRGi.WORDS[i]),
        svg("rect", { x, y: Math.min(110, 110 - 22 * g), width: 40, height: Math.abs(22 * g), fill: "var(--mixed)" }),
        svg("text", { x: x + 20, y: 147, "text-anchor": "middle" }, number(s.logitGradient[i])));
    });
    words.textContent = `H = ${number(s.entropy)} nats of at most ${number(Math.log(5))}; w = ${number(s.weight)}. Reward R(ê) = ${number(s.reward)}. `
      + `The gradient is taken E = ${number(s.E)} away from the soft embedding, D = ${number(s.D)} away from the token.`;
  }

  const key = (shape, colour, text) => {
    const mark = element("span", { "aria-hidden": "true" }, shape);
    mark.style.color = `var(--${colour})`;
    return element("span", {}, mark, ` ${text}   `);
  };
  const choice = (label, ...controls) => element("p", {}, `${label} `, ...controls);
  root.replaceChildren(
    element("div", { class: "columns" },
      element("div", {},
        element("fieldset", {}, element("legend", {}, "Logits and temperature"), ...sliders.map(s => s.row), tau.row),
        choice("Method", method), choice("Sampled token", sampled, " ", again), element("p", {}, climb, " ", reset), bars),
      element("div", {}, plane,
        element("p", {}, key("■", "soft", "soft ē"), key("▲", "hard", "hard ẽ"), key("●", "mixed", "mixed ê, where the gradient is taken"),
          key("⇢", "soft", "the same gradient, where it is applied."), "Shaded: the two hills of this reward.")),
    ), words);
  show();
}

/* Figure (c): the dial. rows: [{w, M, measures}], as recorded on the toy. */
function mountDial(root, rows) {
  const { element, svg, number } = Draw;
  const settings = [...new Set(rows.filter(r => r.M > 0).map(r => r.w))];
  const measures = [["top1", "Reward of the best"], ["gold_best", "Gold of the best"], ["gold_mean", "Gold, mean"], ["valid", "Valid answers"]];
  const none = rows.find(r => r.M === 0);
  const name = w => w === "entropy" ? "w = H / log K (EntRGi)" : `w = ${w}${w === 0 ? " (Expectation)" : w === 1 ? " (APS)" : ""}`;
  const start = settings.indexOf("entropy");
  const input = element("input", { type: "range", min: 0, max: settings.length - 1, step: 1, value: start, "aria-label": "Weight of the hard embedding" });
  const output = element("output", {}), charts = element("div", { class: "columns" }), words = element("p", { class: "live", "aria-live": "polite" });
  input.addEventListener("input", show);

  function chart(measure, title, chosen) {
    const W = 300, H = 190, [L, R, T, B] = [44, 10, 24, 34];
    const drawn = rows.filter(r => r.M > 0), Ms = [...new Set(drawn.map(r => r.M))].sort((a, b) => a - b);
    const ends = rows.flatMap(r => [r.measures[measure].low, r.measures[measure].high]);
    const low = Math.min(...ends), high = Math.max(...ends), gap = (high - low) * 0.05;
    const x = M => L + (M - Ms[0]) / (Ms.at(-1) - Ms[0]) * (W - L - R);
    const y = v => H - B - (v - low + gap) / (high - low + 2 * gap) * (H - T - B);
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} against M, for ${name(chosen)}` });
    root.append(svg("text", { x: L, y: 14 }, title));
    for (const v of [low, (low + high) / 2, high]) root.append(svg("line", { x1: L, x2: W - R, y1: y(v), y2: y(v), stroke: "var(--faint)" }),
      svg("text", { x: L - 5, y: y(v) + 4, "text-anchor": "end", class: "quiet" }, number(v)));
    for (const M of Ms) root.append(svg("text", { x: x(M), y: H - B + 15, "text-anchor": "middle", class: "quiet" }, M));
    root.append(svg("text", { x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle", class: "quiet" }, "gradient steps M"));
    const flat = y(none.measures[measure].mean);
    root.append(svg("line", { x1: L, x2: W - R, y1: flat, y2: flat, stroke: "var(--quiet)", "stroke-dasharray": "5 4" }));
    for (const w of [...settings.filter(w => w !== chosen), chosen]) {
      const line = drawn.filter(r => r.w === w).sort((a, b) => a.M - b.M), mine = w === chosen;
      root.append(svg("polyline", { points: line.map(r => `${x(r.M)},${y(r.measures[measure].mean)}`).join(" "), fill: "none",
        stroke: mine ? "var(--mixed)" : "var(--faint)", "stroke-width": mine ? 2.5 : 1.5 }));
      if (mine) for (const r of line) {
        const m = r.measures[measure];
        root.append(svg("line", { x1: x(r.M), x2: x(r.M), y1: y(m.low), y2: y(m.high), stroke: "var(--mixed)" }),
          svg("circle", { cx: x(r.M), cy: y(m.mean), r: 3.5, fill: "var(--mixed)" }));
      }
    }
    return root;
  }
  function show() {
    const chosen = settings[Number(input.value)];
    output.textContent = name(chosen);
    input.setAttribute("aria-valuetext", name(chosen));
    charts.replaceChildren(...measures.map(([measure, title]) => chart(measure, title, chosen)));
    const at = M => rows.find(r => r.w === chosen && r.M === M).measures, show = m => `${number(m.mean)} [${number(m.low)}, ${number(m.high)}]`;
    words.textContent = `${name(chosen)}, M = 3: reward of the best ${show(at(3).top1)}, gold of the best ${show(at(3).gold_best)}, `
      + `mean gold ${show(at(3).gold_mean)}, valid ${show(at(3).valid)}. Dashed: Best-of-N.`;
  }
  const row = element("label", {}, "Weight w", input, output);
  row.style.gridTemplateColumns = "4.5rem minmax(6rem, 20rem) 1fr";
  output.style.textAlign = "left";
  root.replaceChildren(row, charts, words);
  show();
}
