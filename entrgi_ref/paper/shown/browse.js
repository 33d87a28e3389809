"use strict";
/* The page that entrgi_ref.paper.shown.browse writes. All texts of the run are set as text, never read as HTML. */
const RUN = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const END = "⟨end⟩", BREAK = "⏎", ROW = 96, NARROW = matchMedia("(max-width: 820px)");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const signed = text => text.replace("-", "\u2212");
const number = (x, digits = 2) => signed(x.toFixed(digits));
const short = x => signed(String(Number(x.toFixed(2))));
const best = record => Math.max(...record.rewards);
const mean = values => values.reduce((sum, v) => sum + v, 0) / values.length;
const colour = method => `var(--m-${RUN.methods[method][0].replace(/[^a-z_]/g, "")}, var(--quiet))`;

const VARIANTS = RUN.variants.map(v => [v.reward === undefined ? "" : `reward ${v.reward}`,
  v.gradient_steps === undefined ? "" : `M = ${v.gradient_steps}`].filter(Boolean).join(", "));
const BY_PLACE = RUN.places.map(() => []);
for (const record of RUN.records) BY_PLACE[record.place].push(record);
const COLUMNS = RUN.methods.flatMap((_, method) => RUN.variants.map((_, variant) => ({ method, variant })))
  .filter(c => RUN.records.some(r => r.method === c.method && r.variant === c.variant));
const RANGE = RUN.records.filter(r => r.rewards).map(best).reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
const share = (x, [low, high]) => high > low ? (x - low) / (high - low) : 0.5;

/* What is shown. A filter that is "" lets all pass; step is null for the finished answers. */
let state = { benchmark: "", seed: "", variant: "", hidden: [], q: "", sort: "", plus: 0, minus: 0, place: null, step: null };
let columns = [], found = [], cards = [], steps = 0;

// The address

const address = place => RUN.places[place].slice(0, 3).join("/");

function read() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const method = name => RUN.methods.findIndex(m => m[0] === name);
  const chosen = asked.has("methods") ? asked.get("methods").split(",") : null;
  const variant = VARIANTS.indexOf(asked.get("variant") ?? "");
  const place = RUN.places.findIndex((_, i) => address(i) === asked.get("prompt"));
  const step = Number.parseInt(asked.get("step") ?? "", 10);
  const known = (name, of) => of.includes(asked.get(name)) ? asked.get(name) : "";
  state = {
    benchmark: known("benchmark", RUN.places.map(p => p[0])), seed: known("seed", RUN.places.map(p => String(p[1]))),
    variant: VARIANTS.length > 1 && variant >= 0 ? String(variant) : "",
    hidden: chosen ? RUN.methods.flatMap((m, i) => chosen.includes(m[0]) ? [] : [i]) : [],
    q: asked.get("q") ?? "", sort: known("sort", Array.from($("sort").options, o => o.value)),
    plus: Math.max(0, method(asked.get("plus") ?? (RUN.methods.some(m => m[0] === "entrgi") ? "entrgi" : ""))),
    minus: Math.max(0, method(asked.get("minus") ?? "bon")),
    place: place < 0 ? null : place, step: step >= 0 ? step : null,
  };
}

function write(turned = false) {
  const said = new URLSearchParams();
  if (state.place !== null) said.set("prompt", address(state.place));
  for (const name of ["benchmark", "seed", "q", "sort"]) if (state[name]) said.set(name, state[name]);
  if (state.variant) said.set("variant", VARIANTS[state.variant]);
  if (state.hidden.length) said.set("methods", RUN.methods.filter((_, i) => !state.hidden.includes(i)).map(m => m[0]).join(","));
  if (state.sort === "difference") for (const name of ["plus", "minus"]) said.set(name, RUN.methods[state[name]][0]);
  if (state.step !== null) said.set("step", state.step);
  const hash = `#${said}`;
  if (hash === (location.hash || "#")) return;
  if (turned) history.pushState(null, "", hash); else history.replaceState(null, "", hash);
}

// Which prompts, in which order

const shown = record => columns.some(c => c.method === record.method && c.variant === record.variant);

function matches(place) {
  const q = state.q.toLowerCase(), texts = RUN.places[place];
  if (!q) return true;
  texts.lower ??= texts[3].toLowerCase();
  return texts.lower.includes(q) || BY_PLACE[place].some(record => {
    record.lower ??= (record.responses ?? [record.failed]).join("\n").toLowerCase();
    return shown(record) && record.lower.includes(q);
  });
}

function rewardOf(place) {
  const values = BY_PLACE[place].filter(r => r.rewards && shown(r)).map(best);
  return values.length ? Math.max(...values) : null;
}

/* Of two methods, also of such as are not shown; the mean over the variants of which both have answers. */
function difference(place) {
  const [a, b] = [state.plus, state.minus].map(method => new Map(BY_PLACE[place].filter(
    r => r.rewards && r.method === method && (!state.variant || r.variant === Number(state.variant))).map(r => [r.variant, best(r)])));
  const both = [...a.keys()].filter(variant => b.has(variant));
  return both.length ? mean(both.map(variant => a.get(variant) - b.get(variant))) : null;
}

function choose() {
  columns = COLUMNS.filter(c => !state.hidden.includes(c.method) && (!state.variant || c.variant === Number(state.variant)));
  found = RUN.places.flatMap(([benchmark, seed], i) => (!state.benchmark || benchmark === state.benchmark)
    && (!state.seed || String(seed) === state.seed) && BY_PLACE[i].some(shown) && matches(i) ? [i] : []);
  const keys = {
    high: place => rewardOf(place), low: place => rewardOf(place) === null ? null : -rewardOf(place), difference,
    failed: place => BY_PLACE[place].filter(r => r.failed && shown(r)).length,
  };
  if (keys[state.sort]) {
    const key = new Map(found.map(place => [place, keys[state.sort](place)]));
    found.sort((a, b) => (key.get(b) ?? -Infinity) - (key.get(a) ?? -Infinity) || a - b);
  }
}

// The list: only the rows that can be seen are made

function row(place, i) {
  const [benchmark, seed, idx, prompt] = RUN.places[place];
  const records = BY_PLACE[place].filter(shown), answered = records.filter(r => r.rewards);
  const strip = element("span", { class: "strip", "aria-hidden": "true" });
  for (const record of answered) {
    const tick = element("i");
    tick.style.left = `${100 * share(best(record), RANGE)}%`;
    tick.style.background = colour(record.method);
    strip.append(tick);
  }
  const failed = records.length - answered.length;
  const top = answered.reduce((a, r) => a && best(a) >= best(r) ? a : r, null);
  const value = element("span", { class: "value" });
  if (state.sort === "difference") {
    const d = difference(place);
    value.append(d === null ? "–" : (d > 0 ? "+" : "") + number(d));
  } else if (top) {
    const dot = element("i", { class: "dot" });
    dot.style.background = colour(top.method);
    dot.title = RUN.methods[top.method][1];
    value.append(dot, number(best(top)));
  }
  const made = element("div", { role: "option", id: `row-${place}`, class: "row", "aria-selected": String(place === state.place),
    "aria-setsize": found.length, "aria-posinset": i + 1 },
    element("span", { class: "text" }, ...marked(prompt.slice(0, 300))), strip,
    element("span", { class: "meta" }, element("span", {}, `${benchmark} · seed ${seed} · #${idx}`),
      ...(failed ? [element("span", { class: "failed" }, `${failed} failed`)] : []), value));
  made.style.top = `${i * ROW}px`;
  made.addEventListener("click", () => turn(place, true));
  return made;
}

function list() {
  const box = $("list"), first = Math.max(0, Math.floor(box.scrollTop / ROW) - 3);
  const last = Math.min(found.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 3);
  $("rows").style.height = `${found.length * ROW}px`;
  $("rows").replaceChildren(...found.slice(first, last).map((place, i) => row(place, first + i)));
  if ($(`row-${state.place}`)) box.setAttribute("aria-activedescendant", `row-${state.place}`);
  else box.removeAttribute("aria-activedescendant");
}

function intoView() {
  const box = $("list"), at = found.indexOf(state.place) * ROW;
  if (at < 0) return;
  if (at < box.scrollTop) box.scrollTop = at;
  else if (at + ROW > box.scrollTop + box.clientHeight) box.scrollTop = at + ROW - box.clientHeight;
}

/* A text in pieces, those that are searched for in <mark>. */
function marked(text) {
  if (!state.q) return [text];
  const pieces = [];
  let from = 0;
  for (const [start, end] of hits(text)) {
    pieces.push(text.slice(from, start), element("mark", {}, text.slice(start, end)));
    from = end;
  }
  return [...pieces, text.slice(from)];
}

function hits(text) {
  const asked = new RegExp(state.q.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  return Array.from(text.matchAll(asked), m => [m.index, m.index + m[0].length]);
}

// A prompt and its answers

function article() {
  const place = state.place;
  $("shown").hidden = place === null;
  $("empty").hidden = place !== null;
  $("empty").textContent = found.length ? "No prompt is chosen." : "No prompt fits.";
  document.body.classList.toggle("reads", place !== null);
  cards = [];
  if (place === null) return;
  const [benchmark, seed, idx, prompt] = RUN.places[place];
  $("where").textContent = `${benchmark} · seed ${seed} · prompt ${idx}`;
  $("prompt").replaceChildren(...marked(prompt));
  $("prompt").classList.toggle("long", prompt.length > 240);
  const records = columns.map(c => BY_PLACE[place].find(r => r.method === c.method && r.variant === c.variant));
  const rewards = records.flatMap(r => r?.rewards ?? []);
  const range = [Math.min(...rewards), Math.max(...rewards)];
  steps = Math.max(0, ...records.map(r => r?.of ?? 0));
  $("shown").style.setProperty("--columns", columns.length);
  const made = columns.map((c, i) => column(c, records[i], range, i + 1));
  // Side by side the heads stay in sight; below each other each stands above its answers.
  $("heads").replaceChildren(...(NARROW.matches ? [] : made.map(m => m.head)));
  $("answers").replaceChildren(...made.flatMap(m => NARROW.matches ? [m.head, ...m.cells] : m.cells));
  const unseen = records.some(r => r?.rewards && !r.steps);
  $("bar").hidden = !steps;
  $("unknown").hidden = !unseen;
  $("unknown").textContent = steps ? "Answers without colours are shown finished: which step wrote their tokens is not recorded of methods "
    + "without a gradient, nor by earlier versions." : "Which step wrote each token is not recorded here: not of methods without a gradient, "
    + "and not by earlier versions. Prompts that are run anew have it.";
  $("step").max = steps;
  $("previous").disabled = found.indexOf(place) <= 0;
  $("next").disabled = found.indexOf(place) === found.length - 1;
  step();
}

function column(c, record, range, at) {
  const dot = element("i", { class: "dot" });
  dot.style.background = colour(c.method);
  const head = element("h3", {}, dot, element("span", {}, RUN.methods[c.method][1], ...(VARIANTS[c.variant] ? [element("small", {}, VARIANTS[c.variant])] : [])));
  const placed = (made, line) => { made.style.gridColumn = at; made.style.gridRow = line; return made; };
  const none = (...said) => ({ head, cells: [placed(element("p", { class: "none" }, ...said), "1 / span 2")] });
  if (!record) return none("No record of this prompt.");
  if (record.failed) return none(element("strong", { class: "failed" }, "Failed"), " ", element("span", {}, ...marked(record.failed)));
  const plot = element("span", { class: "plot", role: "img", "aria-label": `Rewards: ${record.rewards.map(r => number(r)).join(", ")}` });
  const order = record.rewards.map((_, k) => k).sort((a, b) => record.rewards[b] - record.rewards[a] || a - b);
  for (const k of [...order].reverse()) {
    const point = element("i", k === order[0] ? { class: "best" } : {});
    point.style.left = `${100 * share(record.rewards[k], range)}%`;
    point.style.setProperty("--c", colour(c.method));
    plot.append(point);
  }
  const facts = element("dl", {}, ...[["best", number(best(record))], ["mean", number(mean(record.rewards))], ["answers", record.rewards.length]]
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
  return { head, cells: [placed(element("div", { class: "rewards" }, plot, facts), 1), ...order.map((k, rank) => placed(card(record, k, rank === 0), rank + 2))] };
}

function card(record, k, isBest) {
  const facts = element("p", { class: "facts" }, element("strong", {}, number(record.rewards[k])));
  if (isBest) facts.append(element("span", { class: "star" }, "★ best"));
  if (record.gold) facts.append(element("span", {}, `gold ${short(record.gold[k])}`));
  if (isBest) for (const [judge, score] of Object.entries(record.judged ?? {})) facts.append(element("span", {}, `${judge} ${short(score)}`));
  facts.append(element("span", { class: "which" }, `answer ${k + 1}`));
  const response = record.responses[k];
  const plain = element("div", { class: "text plain" }, ...marked(response || "(empty)"));
  const made = element("article", { class: isBest ? "card best" : "card", "aria-label": `Answer ${k + 1}` }, facts, plain);
  if (record.steps) {
    const answer = tokens(record, k, response);
    made.append(answer.text);
    cards.push({ ...answer, plain });
  }
  return made;
}

/* The tokens of an answer. The ⟨end⟩ that fill its tail are one chip. */
function tokens(record, k, response) {
  const words = record.words[k].map(w => RUN.words[w]), at = record.steps[k], of = record.of;
  let tail = words.length;
  while (tail > 0 && words[tail - 1] === END) tail -= 1;
  if (words.length - tail < 3) tail = words.length;
  const apart = /\s/.test(response) && !words.some(w => /\s/.test(w)) ? " " : "";  // words that bring no spaces of their own
  const text = element("div", { class: "text tokens", role: "group", "aria-label": "Tokens" });
  const slots = [], starts = [];
  let whole = "";
  for (let i = 0; i < tail; i += 1) {
    const seen = words[i].trimStart() || words[i];
    const made = element("span", { class: "t", tabindex: "-1" }, seen);
    made.style.setProperty("--p", of > 1 ? (at[i] / (of - 1)).toFixed(3) : 1);
    slots.push({ made, first: at[i], last: at[i], says: `“${words[i].trim() || words[i]}”, step ${at[i] + 1} of ${of}, position ${i + 1}` });
    starts.push(whole.length);
    whole += words[i] + apart;
    text.append(words[i].slice(0, words[i].length - seen.length), made, apart);
    for (const sign of words[i]) if (sign === BREAK) text.append(element("br"));
  }
  if (state.q) {
    for (const [start, end] of hits(whole)) {
      slots.forEach((slot, i) => { if (starts[i] < end && starts[i] + words[i].length > start) slot.made.classList.add("hit"); });
    }
  }
  if (tail < words.length) {
    const its = at.slice(tail), [first, last] = [Math.min(...its), Math.max(...its)];
    const made = element("span", { class: "t chip", tabindex: "-1" }, `${END} × ${its.length}`);
    made.style.setProperty("--p", of > 1 ? (first / (of - 1)).toFixed(3) : 1);
    slots.push({ made, first, last, its, says: `${its.length} times ${END}, steps ${first + 1} to ${last + 1} of ${of}, from position ${tail + 1}` });
    text.append(made);
  }
  if (slots.length) slots[0].made.tabIndex = 0;
  for (const slot of slots) slot.made.slot_ = slot;
  return { text, slots };
}

/* Show the answers as they stood after `state.step` steps: a token of step s is there from s + 1 on. */
function step() {
  const after = state.step === null ? steps : Math.min(state.step, steps), done = after === steps;
  const tint = $("tint").checked;
  $("step").value = after;
  $("after").textContent = done ? `finished, ${steps} steps` : after ? `after step ${after} of ${steps}` : `all masked, before step 1 of ${steps}`;
  $("step").setAttribute("aria-valuetext", $("after").textContent);
  $("answers").classList.toggle("tinted", tint);
  $("legend").classList.toggle("off", !tint);
  for (const { text, slots, plain } of cards) {
    text.hidden = done && !tint;
    plain.hidden = !text.hidden;
    for (const slot of slots) {
      slot.made.classList.toggle("masked", slot.first >= after);
      slot.made.classList.toggle("new", !done && slot.first === after - 1);
      if (slot.its) {
        const written = slot.its.filter(s => s < after).length;
        slot.made.textContent = written && written < slot.its.length ? `${END} × ${written} of ${slot.its.length}` : `${END} × ${slot.its.length}`;
      }
    }
  }
  tip(null);
}

function move(to) {
  const after = Math.max(0, Math.min(steps, to));
  state.step = after === steps ? null : after;
  step();
}

// What is said of a token

function tip(token) {
  const box = $("tip");
  box.textContent = token ? token.slot_.says : "";
  box.classList.toggle("on", Boolean(token));
  if (!token) return;
  const place = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - box.offsetWidth - 8));
  const above = place.top - box.offsetHeight - 6;
  box.style.left = `${left}px`;
  box.style.top = `${above > 4 ? above : place.bottom + 6}px`;
}

// What the page does

let timer = null;
function pause() { clearInterval(timer); timer = null; $("play").textContent = "Play"; }
function play() {
  if (timer) { pause(); return write(); }
  if (state.step === null) move(0);
  $("play").textContent = "Pause";
  timer = setInterval(() => {
    move((state.step ?? steps) + 1);
    if (state.step === null) { pause(); write(); }
  }, Math.max(60, Math.min(500, 8000 / steps)));
}

function turn(place, pushed) {
  pause();
  state.place = place;
  write(pushed);
  list();
  article();
  if (place !== null) { $("reading").scrollTop = 0; if (NARROW.matches) scrollTo(0, 0); }
}

function by(offset) {
  const at = found.indexOf(state.place), to = at < 0 ? 0 : at + offset;
  if (found[to] === undefined) return;
  turn(found[to], false);
  intoView();
  list();
}

function filter() {
  pause();
  controls();
  choose();
  if (!found.includes(state.place)) state.place = NARROW.matches || !found.length ? null : found[0];
  $("count").textContent = found.length === RUN.places.length ? `${found.length} prompts` : `${found.length} of ${RUN.places.length} prompts`;
  list();
  intoView();
  list();
  article();
  write();
}

function controls() {
  for (const name of ["benchmark", "seed", "variant", "sort", "plus", "minus"]) $(name).value = state[name];
  if ($("search").value !== state.q) $("search").value = state.q;
  $("difference").hidden = state.sort !== "difference";
  for (const box of $("methods").querySelectorAll("input")) box.checked = !state.hidden.includes(Number(box.value));
}

function options(id, values, all) {
  const made = values.map(([value, label]) => element("option", { value }, label));
  if (all) made.unshift(element("option", { value: "" }, all));
  $(id).replaceChildren(...made);
  $(id).closest("label").hidden = values.length < 2;
}

function begin() {
  const unique = values => [...new Set(values)];
  const { experiment, testbed, ...more } = RUN.run;
  document.title = `${experiment} on ${testbed}: answers`;
  document.querySelector("h1").textContent = `${experiment} on ${testbed}`;
  const failed = RUN.records.filter(r => r.failed).length;
  $("about").textContent = [`${RUN.records.length} records${failed ? `, ${failed} failed` : ""}`,
    ...Object.entries(more).map(([name, value]) => `${name} ${value}`)].join(" · ");
  options("benchmark", unique(RUN.places.map(p => p[0])).map(v => [v, v]), "all");
  options("seed", unique(RUN.places.map(p => p[1])).sort((a, b) => a - b).map(v => [v, String(v)]), "all");
  options("variant", VARIANTS.map((label, i) => [i, label]), "all");
  for (const id of ["plus", "minus"]) options(id, RUN.methods.map((m, i) => [i, m[1]]), "");
  $("sort").querySelector("[value=failed]").hidden = !failed;
  $("sort").querySelector("[value=difference]").hidden = RUN.methods.length < 2;
  $("methods").append(...RUN.methods.map((m, i) => {
    const dot = element("i", { class: "dot" });
    dot.style.background = colour(i);
    return element("label", {}, element("input", { type: "checkbox", value: i }), dot, m[1]);
  }));

  for (const name of ["benchmark", "seed", "variant", "sort"]) $(name).addEventListener("change", e => { state[name] = e.target.value; filter(); });
  for (const name of ["plus", "minus"]) $(name).addEventListener("change", e => { state[name] = Number(e.target.value); filter(); });
  let waiting;
  $("search").addEventListener("input", e => { clearTimeout(waiting); waiting = setTimeout(() => { state.q = e.target.value; filter(); }, 120); });
  $("filters").addEventListener("submit", e => e.preventDefault());
  $("methods").addEventListener("change", () => {
    state.hidden = [...$("methods").querySelectorAll("input:not(:checked)")].map(box => Number(box.value));
    filter();
  });
  $("step").addEventListener("input", e => { pause(); move(Number(e.target.value)); });
  $("step").addEventListener("change", () => write());
  $("tint").addEventListener("change", step);
  $("play").addEventListener("click", play);
  $("previous").addEventListener("click", () => by(-1));
  $("next").addEventListener("click", () => by(1));
  $("back").addEventListener("click", e => { e.preventDefault(); turn(null, true); $("list").focus(); });
  $("list").addEventListener("scroll", list, { passive: true });
  $("list").addEventListener("keydown", e => {
    const page = Math.floor($("list").clientHeight / ROW), last = found.length - 1, at = found.indexOf(state.place);
    const by_ = { ArrowDown: 1, ArrowUp: -1, PageDown: Math.min(page, last - at), PageUp: -Math.min(page, at), Home: -at, End: last - at }[e.key];
    if (by_ === undefined || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    by(by_);
  });
  new ResizeObserver(list).observe($("list"));
  new ResizeObserver(() => $("reading").style.setProperty("--bar", `${$("bar").offsetHeight}px`)).observe($("bar"));
  const fit = () => { $("more").open = !NARROW.matches; article(); };
  NARROW.addEventListener("change", fit);
  $("more").open = !NARROW.matches;
  const answers = $("answers"), token = e => e.target.closest?.(".t");
  for (const event of ["mouseover", "focusin"]) answers.addEventListener(event, e => tip(token(e)));
  for (const event of ["mouseleave", "focusout"]) answers.addEventListener(event, () => tip(null));
  $("reading").addEventListener("scroll", () => tip(null), { passive: true });
  answers.addEventListener("keydown", e => {
    const from = token(e), forth = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!from || !forth || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    const there = [...from.parentElement.querySelectorAll(".t:not(.masked)")], to = there[there.indexOf(from) + forth];
    if (!to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
  document.addEventListener("keydown", e => {
    if (e.key === "Escape") return tip(null);
    if (e.altKey || e.ctrlKey || e.metaKey || e.target.closest("input:not([type=checkbox],[type=range]), select, textarea")) return;
    const acts = { "/": () => { $("search").focus(); $("search").select(); }, j: () => by(1), k: () => by(-1), p: () => steps && state.place !== null && play(),
      ",": () => { pause(); move((state.step ?? steps) - 1); write(); }, ".": () => { pause(); move((state.step ?? steps) + 1); write(); } };
    if (!Object.hasOwn(acts, e.key)) return;
    e.preventDefault();
    acts[e.key]();
  });
  addEventListener("popstate", () => { read(); filter(); });
  read();
  filter();
}

begin();
