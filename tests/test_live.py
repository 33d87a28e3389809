"""The engine of the live page in a browser, against the package.

Needs Chromium and the extra `docs`, but no built site.
"""

import random
from dataclasses import replace

import pytest
import torch

from browsing import browsing
from building import live
from building.records import ROOT
from entrgi_ref import (
    EQUATIONS,
    GuidanceConfig,
    KeyedDraws,
    SamplingConfig,
    approximation_error,
    commit,
    discreteness_error,
    draw_candidates,
    entropy,
    generate,
    guide,
    hard_embedding,
    interpolate,
    inverse_cdf,
    nucleus,
    predict,
    prompt_key,
    rank,
    schedule,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.draws import Purpose
from entrgi_ref.fast.gradient import logit_gradient
from entrgi_ref.relaxation import WEIGHTS
from entrgi_ref.schedule import how_many
from toy.language import (
    LENGTH,
    PROMPTS,
    VOCABULARY,
    explain_gold,
    gold,
    parse_prompt,
    sample_answer,
)
from toy.testbed import held_out_prompts

ENGINE = ROOT / "docs" / "assets" / "js" / "live" / "engine.js"
LOAD = """() => {
    globalThis.engine = liveEngine();
    const bytes = Uint8Array.from(atob(RECORDED.weights), c => c.charCodeAt(0)).buffer;
    globalThis.model = engine.load(RECORDED.live, bytes);
}"""
RUN = """([prompt, settings]) => {
    const run = engine.generate(model, prompt, settings), steps = [];
    for (;;) {
        const { value, done } = run.next();
        if (done) return { answers: value, steps };
        steps.push(value);
    }
}"""

pytestmark = [
    browsing,
    pytest.mark.xdist_group("site"),
]


@pytest.fixture(scope="module")
def page(browser):
    """An empty page with the engine and its weights, without a site around them."""
    opened = browser.new_page()
    for script in (ENGINE, live.FILE):
        opened.add_script_tag(path=script)
    opened.evaluate(LOAD)
    return opened


@pytest.fixture(scope="module")
def networks():
    return live.networks()


def config(**changes):
    """The page's defaults; what the guidance has too is the guidance's."""
    fields = GuidanceConfig.__dataclass_fields__
    guidance = {name: changes.pop(name) for name in list(changes) if name in fields}
    toy = SamplingConfig(new_tokens=LENGTH, denoising_steps=16)
    return replace(toy, guidance=GuidanceConfig(dtype="float64", **guidance), **changes)


def settings(config):
    """The same settings by the page's names."""
    guidance = config.constant_guidance
    return {
        "K": config.trajectories,
        "T": config.denoising_steps,
        "M": guidance.steps,
        "eta": guidance.step_size,
        "tau": config.temperature,
        "topP": config.top_p,
        "order": config.order,
        "eosLast": config.eos_last,
        "seed": config.seed,
        "weight": guidance.weight,
    }


def compare(page, networks, prompts, chosen, weight=None):
    """Of all positions the share whose tokens agree; rewards, gold and records where all agree."""
    agreed = total = 0
    here = (
        chosen
        if weight is None
        else chosen.guided(weight=lambda psi: psi.new_full(psi.shape[:1], weight))
    )
    for prompt in prompts:
        records = []
        found = generate(*networks, [prompt], here, observe=records.append)
        sent = settings(chosen) if weight is None else {**settings(chosen), "weight": weight}
        run = page.evaluate(RUN, [prompt, sent])
        tokens = torch.tensor([a["tokens"] for a in run["answers"]])
        same = tokens == found.tokens[0]
        agreed, total = agreed + same.sum().item(), total + same.numel()
        for k, answer in enumerate(run["answers"]):
            if same[k].all():
                assert answer["reward"] == pytest.approx(found.rewards[0, k].item(), abs=1e-6)
                words = [VOCABULARY[token] for token in found.tokens[0, k].tolist()]
                assert answer["gold"] == gold(parse_prompt(prompt), words)
                parts = [tuple(part) for part in answer["parts"]]
                assert parts == explain_gold(parse_prompt(prompt), words)
        assert [s["step"] for s in run["steps"]] == [r.step for r in records]
        if same.all():
            for step, record in zip(run["steps"], records, strict=True):
                recorded(step, record)
    return agreed / total


def recorded(step, record):
    """A step of the page is that of an observer."""
    assert step["t"] == pytest.approx(record.t, abs=1e-6)
    of = record.masked.nonzero()[:, 0]
    for k, found in enumerate(step["trajectories"]):
        mine = of == k
        assert found["positions"] == record.masked[k].nonzero().flatten().tolist()
        assert found["tokens"] == record.tokens[k].tolist()
        assert found["candidates"] == record.candidates[mine].tolist()
        for m, inner in enumerate(found["records"]):
            assert inner["reward"] == pytest.approx(record.rewards[m, k].item(), abs=1e-6)
            for name in ("weight", "entropy", "E", "D"):
                there = getattr(record, name)[m][mine].tolist()
                assert inner[name] == pytest.approx(there, abs=1e-6), name


METHODS = [
    ({}, None),
    ({"weight": "aps", "order": "maskgit_plus", "seed": 2**53 - 1, "trajectories": 1}, None),
    ({"weight": "expectation", "order": "origin", "trajectories": 2}, None),
    (
        {
            "weight": "entrgi_tempered",
            "order": "topk_margin",
            "temperature": 0.4,
            "trajectories": 1,
        },
        None,
    ),
    ({"order": "anchor", "eos_last": False, "steps": 2, "step_size": 1.5, "top_p": 1.0}, 0.6),
    ({"steps": 0, "denoising_steps": 7}, None),
]


@pytest.mark.parametrize(("changes", "weight"), METHODS)
def test_the_page_answers_as_generate_does(page, networks, changes, weight):
    prompts = held_out_prompts(96)[-1:]
    assert compare(page, networks, prompts, config(**changes), weight) >= 0.99


@pytest.mark.deep
def test_the_page_answers_fifty_prompts_as_generate_does(page, networks):
    assert compare(page, networks, held_out_prompts(50), config()) >= 0.99


def test_random_numbers_are_pythons_to_the_last_bit(page):
    rng = random.Random(0)
    purposes = {"hard": Purpose.HARD, "commit": Purpose.COMMIT, "origin": Purpose.ORIGIN}
    for _ in range(20):
        seed, prompt, k = rng.randrange(2**53), str(rng.choice(PROMPTS)), rng.randrange(8)
        step, m, name = rng.randrange(128), rng.randrange(8), rng.choice(list(purposes))
        rows = KeyedDraws.of(seed, [prompt_key(prompt)], 8)
        chance = rows.at(step, torch.full((16,), k), torch.arange(16))
        found = page.evaluate(
            "([seed, prompt, k, name, step, m]) => Array.from(engine.uniform("
            "engine.rowState(seed, model.key(prompt), k), name, step, m, [...Array(16).keys()]))",
            [seed, prompt, k, name, step, m],
        )
        assert found == chance.uniform(purposes[name], m).tolist()


def test_tokens_are_drawn_as_in_python(page):
    torch.manual_seed(0)
    for top_p in (0.3, 0.95, 1.0):
        q = (3 * torch.randn(50, 9, dtype=torch.float64)).softmax(-1)
        q[::5] = torch.tensor([0, 0.25, 0, 0.25, 0.25, 0, 0.25, 0, 0], dtype=torch.float64)  # ties
        u = torch.rand(50, dtype=torch.float64)
        u[:2] = torch.tensor([0, 1 - 2**-53], dtype=torch.float64)
        kept, tokens = page.evaluate(
            """([q, u, topP]) => {
                const kept = q.map(p => engine.nucleus(Float64Array.from(p), topP));
                const tokens = kept.map((p, i) => engine.inverseCdf(p, u[i]));
                return [kept.map(p => Array.from(p)), tokens];
            }""",
            [q.tolist(), u.tolist(), top_p],
        )
        torch.testing.assert_close(
            torch.tensor(kept, dtype=q.dtype), nucleus(q, top_p), atol=1e-14, rtol=0
        )
        assert tokens == inverse_cdf(nucleus(q, top_p), u).tolist()


def test_the_schedule_is_pythons(page):
    for T in (*range(1, 20), 64, 128, 200):
        for N in (1, LENGTH, 128):
            found = page.evaluate("([T, N]) => engine.schedule(T, N)", [T, N])
            there = schedule(T, N)
            assert [s["count"] for s in found] == [s.count for s in there]
            assert [s["t"] for s in found] == pytest.approx([s.t for s in there], abs=1e-6)
            fractions = [s.fraction for s in there]
            assert [s["fraction"] for s in found] == pytest.approx(fractions, abs=1e-6)


def test_gelu_is_exact(page):
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64).requires_grad_()
    y = torch.nn.functional.gelu(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    found = page.evaluate("x => [x.map(engine.gelu), x.map(engine.geluSlope)]", x.tolist())
    assert found[0] == pytest.approx(y.tolist(), abs=1e-14)
    assert found[1] == pytest.approx(slope.tolist(), abs=1e-14)


def board(seed):
    """A half-written answer: prompt, tokens, where it is masked."""
    rng = random.Random(seed)
    prompt = rng.choice(PROMPTS)
    tokens = torch.tensor([VOCABULARY.index(w) for w in sample_answer(rng, prompt)])
    masked = torch.tensor([rng.random() < 0.6 for _ in tokens])
    masked[rng.randrange(LENGTH)] = True
    return str(prompt), tokens.masked_fill(masked, VOCABULARY.index("<mask>"))[None], masked[None]


INSPECT = """([prompt, settings, step, k, response]) => {
    const named = x => Object.fromEntries(Object.entries(x).map(([name, y]) => [name, plain(y)]));
    const plain = x => Array.isArray(x) || ArrayBuffer.isView(x) ? Array.from(x, plain)
        : x === Object(x) ? named(x) : x;
    return plain(engine.inspect(model, prompt, settings, step, k, response));
}"""


def python_state(networks, prompt, tokens, chosen, step, k=0):
    """What a step of one trajectory computes, equation by equation, by the package's functions."""
    denoiser, reward = networks
    guidance, tau = chosen.constant_guidance, chosen.temperature
    masked = tokens == denoiser.mask_id
    encoded = denoiser.encode([prompt])
    whole = torch.cat([encoded.tokens, tokens], 1)
    phi = predict(denoiser, whole, torch.ones_like(whole, dtype=torch.bool), masked)
    position = masked.nonzero(as_tuple=True)[1]
    keyed = KeyedDraws.of(chosen.seed, encoded.keys, k + 1)
    chance = keyed.at(step.index, torch.full_like(position, k), position)
    fixed, table = reward.bind([prompt], 1).at(tokens, masked), reward.embeddings
    weigh = guidance.weight_function(tau)

    def guided(steps):
        return guide(
            phi,
            fixed,
            weight=weigh,
            steps=steps,
            step_size=guidance.step_size,
            temperature=tau,
            top_p=chosen.top_p,
            draw=chance.hard,
        )

    inner = []
    for m in range(guidance.steps):
        psi = guided(m)
        q = token_distribution(psi, tau)
        soft, kept = soft_embedding(q, table).requires_grad_(), nucleus(q, chosen.top_p)
        hard, w = hard_embedding(chance.hard(kept, m), table), weigh(psi)
        mixed = interpolate(soft, hard, w)
        value = fixed(mixed, psi.argmax(-1))
        (slope,) = torch.autograd.grad(value.sum(), soft)
        inner.append(
            {
                "psi": psi,
                "q": q,
                "soft": soft,
                "kept": kept,
                "chance": chance.uniform(Purpose.HARD, m),
                "tokens": chance.hard(kept, m),
                "hard": hard,
                "entropy": entropy(psi),
                "weight": w,
                "mixed": mixed,
                "reward": value.squeeze(),
                "slopes": slope,
                "E": approximation_error(mixed, soft),
                "D": discreteness_error(mixed, hard),
                "gradients": logit_gradient(q.clone(), slope, soft, table, tau),  # in its memory
                "moved": guided(m + 1),
            }
        )
    psi = guided(guidance.steps)
    drawn = draw_candidates(phi, psi, chance.candidates, tau, chosen.top_p)
    confidence = rank(drawn, chance, chosen.order)
    quota = how_many(step, masked, chance, chosen.order)
    put_last = denoiser.eos_id if chosen.eos_last and chosen.order != "origin" else None
    committed = commit(drawn.tokens, confidence, quota, masked, put_last)
    outer = {
        "index": torch.tensor(step.index),
        "count": torch.tensor(step.count),
        "before": tokens[0],
        "positions": position,
        "phi": phi,
        "psi": psi,
        "kept": drawn.probabilities,
        "chance": chance.uniform(Purpose.COMMIT),
        "candidates": drawn.tokens,
        "confidence": confidence,
        "quota": quota.squeeze(),
        "tokens": torch.where(committed, tokens.masked_scatter(masked, drawn.tokens), tokens)[0],
    }
    return outer, inner


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, there in expected.items():
        here = torch.tensor(found[name], dtype=there.dtype)
        torch.testing.assert_close(here, there.detach(), atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("weight", "order"),
    list(zip(WEIGHTS, ["topk_margin", "origin", "entropy", "anchor"], strict=True)),
)
def test_every_equation_of_a_step_is_pythons(page, networks, weight, order):
    """From the mask predictor's logits over what Adam makes of the gradient to what is kept."""
    for seed, index in enumerate((5, 15, 9)):
        prompt, tokens, _ = board(seed)
        chosen = config(weight=weight, steps=2, seed=seed, order=order)
        step = schedule(16, LENGTH)[index]
        outer, inner = python_state(networks, prompt, tokens, chosen, step, seed)
        asked = [prompt, settings(chosen), index, seed, tokens[0].tolist()]
        found = page.evaluate(INSPECT, asked)
        steps = found.pop("gradientSteps")
        same({name: found[name] for name in outer}, outer)
        assert found["t"] == pytest.approx(step.t, abs=1e-6)
        assert found["fraction"] == pytest.approx(step.fraction, abs=1e-6)
        written = [found["positions"][i] for i in found["committed"]]
        changed = (outer["tokens"] != tokens[0]).nonzero().flatten().tolist()
        assert sorted(written) == changed
        assert len(steps) == len(inner)
        for mine, theirs in zip(steps, inner, strict=True):
            same(mine, theirs)


def test_the_rewards_gradient_is_autograds(page, networks):
    _, reward = networks
    for seed in range(4):
        prompt, tokens, masked = board(seed)
        torch.manual_seed(seed)
        mixed = torch.randn(int(masked.sum()), 48, dtype=torch.float64, requires_grad=True)
        value = reward.bind([prompt], 1).at(tokens, masked)(mixed, tokens[masked])
        (slope,) = torch.autograd.grad(value.sum(), mixed)
        found = page.evaluate(
            """([prompt, response, mixed]) => {
                const positions = [...response.keys()].filter(i => response[i] === model.mask);
                const at = [model.encode(prompt), response, positions];
                const { value, slopes } = model.reward(...at, mixed);
                return { value, slopes: slopes.map(s => Array.from(s)) };
            }""",
            [prompt, tokens[0].tolist(), mixed.tolist()],
        )
        assert found["value"] == pytest.approx(value.item(), abs=1e-12)
        slopes = torch.tensor(found["slopes"], dtype=torch.float64)
        torch.testing.assert_close(slopes, slope, atol=1e-12, rtol=1e-10)


def test_entropy_is_pythons(page):
    torch.manual_seed(0)
    logits = torch.randn(20, 9, dtype=torch.float64) * torch.logspace(-3, 3, 20)[:, None]
    found = page.evaluate(
        "rows => rows.map(r => engine.entropy(Float64Array.from(r)))", logits.tolist()
    )
    assert found == pytest.approx(entropy(logits).tolist(), abs=1e-12)
    q = page.evaluate(
        "r => Array.from(engine.tokenDistribution(Float64Array.from(r), .7))", logits[-1].tolist()
    )
    assert q == pytest.approx(token_distribution(logits[-1:], 0.7)[0].tolist(), abs=1e-14)


def test_the_weights_are_small_enough_for_a_page():
    assert live.FILE.stat().st_size <= 2e6


# The inspector of the built page: the numbers of a run at an equation.

SITE = ROOT / "site"
built = pytest.mark.skipif(not (SITE / "live.html").is_file(), reason="no site: make docs")
SHOWN = """() => {
    const state = document.querySelector("#live .state");
    const side = n => state.querySelectorAll(`.columns section:nth-child(${n}) dd`);
    const read = n => [...side(n)].map(dd => ({
        numbers: [...dd.querySelectorAll("data")].map(data => data.value),
        texts: [...dd.querySelectorAll("data")].map(data => data.textContent),
        rows: [...dd.querySelectorAll("tbody th")].map(th => th.textContent),
        words: [...dd.querySelectorAll(".words > *")].map(e => [e.localName, e.textContent]),
    }));
    return { ins: read(1), outs: read(2), at: state.dataset.shown };
}"""


def expected_states(outer, inner, m, i, chosen):
    """What goes into each equation and what comes out of it, in the order in which it is shown."""
    g, guidance = inner[m], chosen.constant_guidance
    at = {name: g[name][i] for name in g if g[name].dim()}
    numbers = [chosen.temperature, guidance.step_size, chosen.top_p]
    tau, eta, p = torch.tensor(numbers, dtype=torch.float64)
    step = schedule(chosen.denoising_steps, LENGTH)[outer["index"]]

    def likeliest(q, *also):
        top = q.argsort(descending=True, stable=True)[:6].tolist()
        return torch.tensor(top + [token for token in also if token not in top])

    ids = likeliest(at["q"], at["tokens"].item())
    top = lambda values, ids=ids: values[ids]  # noqa: E731
    columns = lambda *values: torch.stack([top(v) for v in values], 1).flatten()  # noqa: E731
    now = {name: outer[name][i] for name in ("phi", "kept", "chance", "candidates", "confidence")}
    was, after = outer["before"], outer["tokens"]
    kept = (was != after)[outer["positions"]]
    drawn = likeliest(now["kept"], now["candidates"].item())
    moved = (at["moved"] - at["psi"]).nan_to_num(0)
    levels = torch.tensor([step.t, step.fraction])
    return {
        "schedule": (
            [torch.tensor(chosen.denoising_steps), *levels, torch.tensor(len(outer["positions"]))],
            [outer["quota"]],
        ),
        "token-distribution": ([tau, top(at["psi"])], [top(at["q"])]),
        "soft-embedding": ([top(at["q"])], [at["soft"]]),
        "nucleus": ([p, top(at["q"])], [(at["kept"] > 0).sum(), top(at["kept"])]),
        "draw": ([at["chance"], top(at["kept"])], [at["tokens"]]),
        "hard-embedding": ([at["tokens"]], [at["hard"]]),
        "entropy": ([top(at["psi"])], [at["entropy"]]),
        "entropy-weight": (
            [at["entropy"], torch.tensor(len(VOCABULARY), dtype=torch.float64).log()],
            [at["weight"]],
        ),
        "interpolation": ([at["soft"], at["hard"], at["weight"]], [at["mixed"]]),
        "approximation-error": ([at["mixed"], at["soft"]], [at["E"]]),
        "discreteness-error": ([at["mixed"], at["hard"]], [at["D"]]),
        "logit-gradient": (
            [g["reward"], at["slopes"], at["soft"], tau, top(at["q"])],
            [top(at["gradients"])],
        ),
        "guidance-step": (
            [eta, columns(at["psi"], at["gradients"])],
            [columns(at["moved"], moved)],
        ),
        "order": ([top(now["phi"], likeliest(now["phi"])), tau], [now["confidence"]]),
        "commit": (
            [top(now["kept"], drawn), now["chance"], now["confidence"], outer["quota"]],
            [now["candidates"], kept[i], outer["confidence"]],
        ),
        "generate": ([torch.tensor([])], [torch.tensor([])]),
    }, ids


@built
def test_the_inspector_shows_pythons_numbers_at_every_equation(browser, networks):
    """From a link of the algorithm's page on, by keyboard, in a page opened from a folder."""
    chosen = config(trajectories=2, seed=3)
    prompt, k, m, number = "sea castle gloomy", 1, 1, 5
    records = []
    generate(*networks, [prompt], chosen, observe=records.append)
    (record,) = [r for r in records if r.step == number - 1]
    before = [r for r in records if r.step < number - 1][-1].tokens[k][None]
    step = schedule(16, LENGTH)[number - 1]
    outer, inner = python_state(networks, prompt, before, chosen, step, k)
    assert outer["tokens"].tolist() == record.tokens[k].tolist()
    i = len(outer["positions"]) - 2
    position = outer["positions"][i].item() + 1
    expected, ids = expected_states(outer, inner, m, i, chosen)

    page = browser.new_page(reduced_motion="reduce")
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    address = (SITE / "live.html").as_uri()
    names = list(expected)
    page.goto(f"{address}#run:K=2&seed=3&answer=2&step=5&m=2&position={position}&eq={names[0]}")
    shown_at = "#live .state[data-shown^='{} {} 2']"
    page.wait_for_selector(shown_at.format(names[0], number))
    assert page.evaluate("document.activeElement.textContent") == "The state at an equation"
    after = page.get_by_role("button", name="Next equation")
    for name, sides in expected.items():
        if name != names[0]:
            after.press("Enter")
        page.wait_for_selector(shown_at.format(name, number))
        found = page.evaluate(SHOWN)
        assert found["at"] == f"{name} {number} 2 {position} {m + 1}"
        for mine, theirs in zip((found["ins"], found["outs"]), sides, strict=True):
            for row, value in zip(mine, theirs, strict=True):
                there = value.double().flatten().tolist()
                assert [float(x) for x in row["numbers"]] == pytest.approx(there, abs=1e-6), name
                tolerance = 1e-6 if name == "schedule" else 1e-9
                assert [float(x) for x in row["numbers"]] == pytest.approx(there, abs=tolerance)
                for text, x in zip(row["texts"], there, strict=True):
                    if text.lstrip("\u2212").replace(".", "").isdigit():
                        assert float(text.replace("\u2212", "-")) == pytest.approx(x, abs=5e-5)
        href = page.get_attribute("#live .statement a", "href")
        assert href.split(":")[1] == name
        assert page.locator("#live .statement .katex").count() == 1
        if name == "token-distribution":
            assert found["ins"][1]["rows"] == [VOCABULARY[token] for token in ids]
        if name == "hard-embedding":
            assert found["ins"][0]["texts"] == [VOCABULARY[inner[m]["tokens"][i]]]
    words = [VOCABULARY[token] for token in record.tokens[k]]
    new = ["strong" if a != b else "span" for a, b in zip(before[0], record.tokens[k], strict=True)]
    assert found["outs"][0]["words"] == [list(pair) for pair in zip(new, words, strict=True)]
    assert after.get_attribute("aria-disabled") == "true"

    # The next step; and a link to all of that.
    page.get_by_role("button", name="Next denoising step").press("Enter")
    page.wait_for_selector(shown_at.format("generate", number + 1))
    page.get_by_role("button", name="Previous equation").press("Enter")
    there = page.evaluate(SHOWN)
    assert there["at"].startswith(f"commit {number + 1} 2")
    linked = browser.new_page()
    linked.goto(page.url)
    linked.wait_for_selector(shown_at.format("commit", number + 1))
    assert linked.evaluate(SHOWN) == there
    linked.close()

    # Without a gradient step, or without a masked position, it says so.
    page.goto(f"{address}#run:M=0&K=1&eq=entropy")
    page.wait_for_selector("#live .state[data-shown^='entropy ']")
    assert "M = 0: the equation is not used" in page.inner_text("#live .state")
    records.clear()
    by_chance = config(steps=0, order="origin")
    generate(*networks, [prompt], by_chance, observe=records.append)
    finished = (~records[-1].masked.any(1)).nonzero()[0].item() + 1
    page.goto(f"{address}#run:M=0&order=origin&answer={finished}&step=16&eq=commit")
    page.get_by_text("This answer has no masked position left at this step.").wait_for()
    assert complaints == []
    page.close()


@built
def test_every_equation_of_the_page_opens_its_state(browser):
    page = browser.new_page()
    page.goto((SITE / "algorithm.html").as_uri())
    links = page.locator("a.state")
    found = links.evaluate_all("all => all.map(a => [a.getAttribute('href'), a.ariaLabel])")
    assert sorted(href for href, _ in found) == sorted(
        f"live.html#run:eq={name.partition(':')[2]}" for name in EQUATIONS
    )
    names = [label.removeprefix("live state at ") for _, label in found]
    assert len(set(names)) == len(EQUATIONS)
    assert "Eq. 4b: entropy weight" in names
    page.get_by_role("link", name="live state at Eq. 4b: entropy weight").press("Enter")
    page.wait_for_selector("#live .state[data-shown^='entropy-weight 2 1']")
    shown = page.evaluate(SHOWN)
    assert page.input_value("#live .state select >> nth=0") == "entropy-weight"
    entropy_there, largest = (float(row["numbers"][0]) for row in shown["ins"])
    assert float(shown["outs"][0]["numbers"][0]) == pytest.approx(entropy_there / largest)
    page.close()
