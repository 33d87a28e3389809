"use strict";
/* The live page's numbers at one equation: what goes into it and what comes out, for one masked position of a step of the run.
   All come from the engine's `inspect`. Statements and numbers of the equations come with the page, in RECORDED. */
const EQUATION_STATES = (() => {
  const SHOWN = 6;
  /* What can be shown: a number; a vector; a table whose rows are tokens; one whose rows are the masked positions; an answer. */
  const number = (label, value, text) => ({ kind: "number", label, value, text });
  const setting = (label, value) => number(label, value, String(value));
  const vector = (label, values) => ({ kind: "vector", label, values });
  const tokens = (label, ids, columns) => ({ kind: "tokens", label, ids, columns });

  /* The likeliest tokens, and one more if it is not among them. */
  function likeliest(q, also) {
    const falling = Array.from(q.keys()).sort((a, b) => q[b] - q[a]).slice(0, SHOWN);
    return also === undefined || falling.includes(also) ? falling : [...falling, also];
  }

  /* In the order in which a step computes them. Each is given the state of the step `s`, that of the gradient step `g`, the place
     `i` of the chosen position among the masked ones, the settings `c`, and what the toy's words are. */
  const outer = {
    schedule: ({ s, c }) => ({
      ins: [setting("T, denoising steps", c.T), number("t, noise level", s.t), number("1 − s/t, the step's share", s.fraction),
        number("n, masked tokens of this answer", s.positions.length)],
      outs: [number(c.order === "origin" ? "how many are kept: with the order “at random” chance says it" : "⌊n (1 − s/t)⌋, how many are kept", s.quota)],
    }),
  };
  const inner = {
    "token-distribution": ({ g, i, c, ids }) => ({
      ins: [setting("τ, temperature", c.tau), tokens("ψ, of the likeliest tokens", ids, [["ψ", g.psi[i]]])],
      outs: [tokens("q", ids, [["q", g.q[i]]])],
    }),
    "soft-embedding": ({ g, i, ids }) => ({
      ins: [tokens("q, of the likeliest tokens", ids, [["q", g.q[i]]])], outs: [vector("ē, soft embedding", g.soft[i])],
    }),
    nucleus: ({ g, i, c, ids }) => ({
      ins: [setting("p, the mass of top-p", c.topP), tokens("q, of the likeliest tokens", ids, [["q", g.q[i]]])],
      outs: [number("tokens in the nucleus", g.kept[i].reduce((n, p) => n + (p > 0), 0)), tokens("the nucleus", ids, [["probability", g.kept[i]]])],
    }),
    draw: ({ g, i, ids, word }) => ({
      ins: [number("u, uniform number", g.chance[i]), tokens("the nucleus", ids, [["probability", g.kept[i]]])],
      outs: [number("x, drawn token", g.tokens[i], word(g.tokens[i]))],
    }),
    "hard-embedding": ({ g, i, word }) => ({
      ins: [number("x, drawn token", g.tokens[i], word(g.tokens[i]))], outs: [vector("ẽ, hard embedding", g.hard[i])],
    }),
    entropy: ({ g, i, ids }) => ({
      ins: [tokens("ψ, of the likeliest tokens", ids, [["ψ", g.psi[i]]])], outs: [number("H, nats", g.entropy[i])],
    }),
    "entropy-weight": ({ g, i, c, V }) => ({
      ins: [number("H, nats", g.entropy[i]), number("log K, nats", Math.log(V))], outs: [number("w, weight", g.weight[i])],
      note: { entrgi: "", entrgi_tempered: "In this run H is taken at τ, not at 1." }[c.weight] ?? "This run's w is a constant: it does not use this equation.",
    }),
    interpolation: ({ g, i }) => ({
      ins: [vector("ē, soft embedding", g.soft[i]), vector("ẽ, hard embedding", g.hard[i]), number("w, weight", g.weight[i])],
      outs: [vector("ê, what the reward model reads", g.mixed[i])],
    }),
    "approximation-error": ({ g, i }) => ({
      ins: [vector("ê, what the reward model reads", g.mixed[i]), vector("ē, soft embedding", g.soft[i])], outs: [number("E", g.E[i])],
    }),
    "discreteness-error": ({ g, i }) => ({
      ins: [vector("ê, what the reward model reads", g.mixed[i]), vector("ẽ, hard embedding", g.hard[i])], outs: [number("D", g.D[i])],
    }),
    "logit-gradient": ({ g, i, c, ids }) => ({
      ins: [number("R, reward of the answer as it is read", g.reward), vector("g, the reward's gradient at ê", g.slopes[i]),
        vector("ē, soft embedding", g.soft[i]), setting("τ, temperature", c.tau), tokens("q, of the likeliest tokens", ids, [["q", g.q[i]]])],
      outs: [tokens("gradient of the logits", ids, [["∇R", g.gradients[i]]])],
    }),
    "guidance-step": ({ g, i, c, ids }) => ({
      ins: [setting("η, step size", c.eta), tokens("before", ids, [["ψ", g.psi[i]], ["∇R", g.gradients[i]]])],
      outs: [tokens("after Adam's step", ids, [["ψ", g.moved[i]], ["moved by", g.moved[i].map((x, j) => g.psi[i][j] === -Infinity ? 0 : x - g.psi[i][j])]])],
    }),
  };
  const last = {
    order: ({ s, i, c }) => ({
      ins: [tokens("φ, of the likeliest tokens", likeliest(s.phi[i]), [["φ", s.phi[i]]]), setting("τ, temperature", c.tau)],
      outs: [number("confidence", s.confidence[i])],
      note: { entropy: "", origin: "In this run chance says who comes first." }[c.order] ?? "In this run the order is another, and reads ψ in place of φ.",
    }),
    commit: ({ s, i, c, word }) => ({
      ins: [tokens("the nucleus of the guided distribution", likeliest(s.kept[i], s.candidates[i]), [["probability", s.kept[i]]]),
        number("u, uniform number", s.chance[i]), number("confidence", s.confidence[i]), number("how many are kept", s.quota)],
      outs: [number("x, candidate", s.candidates[i], word(s.candidates[i])),
        number("kept", Number(s.committed.includes(i)), s.committed.includes(i) ? "yes" : "no, it stays masked"), { kind: "positions", label: "all masked positions" }],
      note: c.order !== "origin" && s.candidates.some(x => word(x) === "<eos>") ? "A candidate that ends the answer comes after all others, whatever its confidence." : "",
    }),
    generate: ({ s }) => ({
      ins: [{ kind: "answer", label: "the answer before the step", tokens: s.before, was: s.before }],
      outs: [{ kind: "answer", label: "the answer after it", tokens: s.tokens, was: s.before }],
    }),
  };
  const names = Object.keys({ ...outer, ...inner, ...last });

  /* `at` says which: { name, m, i }. Null where the run makes no gradient step and the equation needs one. */
  function describe(toy, settings, s, { name, m, i }) {
    const g = s.gradientSteps[m];
    if (name in inner && !g) return null;
    const c = settings, V = toy.vocabulary.length, word = token => toy.vocabulary[token], ids = g && likeliest(g.q[i], g.tokens[i]);
    return { note: "", ...(outer[name] ?? inner[name] ?? last[name])({ s, g, i, c, V, ids, word }) };
  }
  return { names, describe, perGradientStep: name => name in inner, perPosition: name => name in inner || name === "order" || name === "commit" };
})();

/* `page` gives: toy(), the networks' words; go(change), another step; answer(k); ask(request), the engine's state; changed(). */
function liveInspector(page) {
  const { element, number } = Draw, { names, describe, perGradientStep, perPosition } = EQUATION_STATES;
  const equations = Object.fromEntries(Object.entries(RECORDED.equations).map(([id, found]) => [id.split(":")[1], { id, ...found }]));
  const titles = Object.fromEntries(names.map(name => [name, `${equations[name].number}: ${name.replaceAll("-", " ")}`]));
  const wanted = { name: "", m: 0, position: null };
  let view = null, key = "", state = null, reveal = false;

  const option = (value, text) => element("option", { value }, text);
  const labelled = (text, control) => element("label", { class: "field" }, element("span", {}, text), control);
  /* At an end a button says so and does nothing, but keeps the focus. */
  const button = (text, label, press) => {
    const made = element("button", { type: "button", "aria-label": label }, text);
    made.addEventListener("click", () => { if (made.getAttribute("aria-disabled") !== "true") press(); });
    return { made, end(reached) { made.setAttribute("aria-disabled", reached); } };
  };
  const pick = (label, chosen) => {
    const made = element("select", {});
    made.addEventListener("change", () => chosen(made.value));
    return { made, row: labelled(label, made) };
  };
  const turn = change => { choose(names[names.indexOf(wanted.name) + change]); };
  const equation = pick("Equation", name => choose(name)), gradientStep = pick("Gradient step", m => { wanted.m = Number(m); again(); });
  const position = pick("Masked position", p => { wanted.position = Number(p); again(); }), answer = pick("Answer", k => page.answer(Number(k)));
  equation.made.append(option("", "none"), ...names.map(name => option(name, titles[name])));
  const before = button("← equation", "Previous equation", () => turn(-1)), after = button("equation →", "Next equation", () => turn(1));
  const earlier = button("← step", "Previous denoising step", () => page.go(-1)), later = button("step →", "Next denoising step", () => page.go(1));
  const heading = element("h2", { tabindex: -1 }, "The state at an equation"), where = element("p", { class: "quiet", role: "status" });
  const statement = element("div", { class: "statement" }), body = element("div", {});
  const root = element("section", { class: "state", "aria-label": "The state at an equation" }, heading,
    element("div", { class: "choices" }, equation.row, answer.row, position.row, gradientStep.row), element("p", { class: "buttons" }, ...[before, after, earlier, later].map(b => b.made)),
    where, statement, body);

  function choose(name) {
    wanted.name = name;
    again();
  }
  function again() {
    if (view) show(view);
    drawn();
    page.changed();
  }

  /* ---- What is shown ---- */

  const exact = (x, text) => element("data", { value: x }, text ?? (Number.isInteger(x) ? String(x) : Number.isFinite(x) ? small(x) : x < 0 ? "−∞" : "∞"));
  const small = x => x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(2).replaceAll("-", "−") : number(x, 4);
  function table(head, rows) {
    return element("table", { class: "numbers" }, element("thead", {}, element("tr", {}, ...head.map(text => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows.map(([first, ...others]) => element("tr", {}, element("th", { scope: "row" }, first),
        ...others.map(value => element("td", {}, value))))));
  }
  const draws = {
    number: ({ value, text }) => exact(value, text),
    vector({ values }) {
      const first = 4, list = part => element("span", { class: "entries" }, ...Array.from(part, x => exact(x)));
      return element("div", {}, list(values.slice(0, first)),
        element("details", {}, element("summary", {}, `the other ${values.length - first} of ${values.length} numbers`), list(values.slice(first))));
    },
    tokens: ({ ids, columns }) => table(["token", ...columns.map(([name]) => name)],
      ids.map(id => [page.toy().vocabulary[id], ...columns.map(([, values]) => exact(values[id]))])),
    positions: () => table(["position", "candidate", "confidence", "kept"], state.positions.map((p, i) =>
      [String(p + 1), page.toy().vocabulary[state.candidates[i]], exact(state.confidence[i]), state.committed.includes(i) ? "yes" : "no"])),
    answer: ({ tokens, was }) => element("p", { class: "words" }, ...tokens.flatMap((token, i) => [element(token === was[i] ? "span" : "strong", {}, page.toy().vocabulary[token]), " "])),
  };
  function part(title, rows) {
    return element("section", {}, element("h3", {}, title),
      element("dl", {}, ...rows.flatMap(row => [element("dt", {}, row.label), element("dd", {}, draws[row.kind](row))])));
  }

  function drawn() {
    const { name } = wanted;
    equation.made.value = name;
    for (const row of [answer.row, position.row, gradientStep.row]) row.hidden = true;
    ends();
    delete root.dataset.shown;
    statement.replaceChildren();
    body.replaceChildren();
    where.textContent = name ? view?.asked ? "This step is not written yet." : "Press Run, and the numbers stand here." : "Choose an equation, and see its numbers at a step of the guided run.";
    if (!name) return;
    const found = equations[name], formula = element("div", {});
    katex.render(found.statement, formula, { displayMode: true, throwOnError: true, strict: "error", trust: false });
    statement.append(formula, element("a", { href: `algorithm.html#${found.id}` }, `${titles[name]}, explained`));
    if (!view || !state) return;
    if (!state.positions.length) { where.textContent = "This answer has no masked position left at this step."; return; }
    const { settings } = view.asked, i = place(), m = Math.min(wanted.m, Math.max(0, state.gradientSteps.length - 1));
    const list = (select, row, values, chosen, shown) => {
      select.replaceChildren(...values.map(([value, text]) => option(value, text)));
      select.value = chosen;
      row.hidden = !shown;
    };
    list(answer.made, answer.row, Array.from({ length: settings.K }, (_, k) => [k, String(k + 1)]), view.answer, settings.K > 1);
    list(position.made, position.row, state.positions.map((p, j) => [p, `${p + 1}: ${page.toy().vocabulary[state.candidates[j]]}`]), state.positions[i], perPosition(name));
    list(gradientStep.made, gradientStep.row, state.gradientSteps.map((_, j) => [j, `${j + 1} of ${state.gradientSteps.length}`]), m,
      perGradientStep(name) && state.gradientSteps.length > 1);
    where.textContent = `Guided run, denoising step ${state.index + 1} of ${settings.T}, t = ${number(state.t)}; answer ${view.answer + 1}`
      + (perPosition(name) ? `, masked position ${state.positions[i] + 1}` : "") + (perGradientStep(name) && state.gradientSteps.length ? `, gradient step ${m + 1}` : "") + ".";
    const shown = describe(page.toy(), settings, state, { name, m, i });
    if (!shown) body.append(element("p", {}, "This run makes no gradient step, M = 0: the equation is not used."));
    else body.append(...(shown.note ? [element("p", {}, shown.note)] : []), element("div", { class: "columns" }, part("What goes in", shown.ins), part("What comes out", shown.outs)));
    root.dataset.shown = `${name} ${state.index + 1} ${view.answer + 1} ${state.positions[i] + 1} ${m + 1}`;
    if (reveal) {
      reveal = false;
      heading.scrollIntoView();
      heading.focus({ preventScroll: true });
    }
  }
  function ends() {
    const place = names.indexOf(wanted.name), run = view && wanted.name;
    before.end(place < 1);
    after.end(place === names.length - 1);
    earlier.end(!run || view.at === 0);
    later.end(!run || view.at >= view.steps.length - 1);
  }
  /* The chosen position's place among the masked ones; where it is written already, that of the first to be kept. */
  function place() {
    const found = state.positions.indexOf(wanted.position);
    return found < 0 ? state.committed[0] ?? 0 : found;
  }

  /* `next` is { run, asked, steps, at, answer }: which run, what was asked for, the steps so far, and which of them. */
  function show(next) {
    view = next;
    if (!wanted.name || !view.steps[view.at]) {
      key = "";
      state = null;
      return drawn();
    }
    ends();
    const asking = `${view.run} ${view.at} ${view.answer}`;
    if (asking === key) return;
    key = asking;
    state = null;
    const { prompt, settings } = view.asked, { vocabulary, length } = page.toy();
    const response = view.at ? view.steps[view.at - 1].trajectories[view.answer].tokens : new Array(length).fill(vocabulary.indexOf("<mask>"));
    page.ask({ key, inspect: [prompt, settings, view.steps[view.at].step, view.answer, response] });
  }
  function received(answered) {
    if (answered.key !== key) return;
    state = answered.state;
    drawn();
    page.changed();
  }

  drawn();
  return {
    root, show, received,
    /* What a link holds of it, and the other way round; places are counted from 1. */
    written() {
      if (!wanted.name) return {};
      const position = state?.positions[place()] ?? wanted.position;
      return { eq: wanted.name, m: wanted.m + 1, ...(position === null ? {} : { position: position + 1 }) };
    },
    fill({ eq, m, position }) {
      wanted.name = names.includes(eq) ? eq : "";
      wanted.m = Math.max(1, Math.floor(Number(m)) || 1) - 1;
      wanted.position = Number(position) >= 1 ? Math.floor(Number(position)) - 1 : null;
      reveal = wanted.name !== "";
      drawn();
    },
    open: () => wanted.name !== "",
  };
}
