"""Rivals as rows of `main`: their compute, their records, what runs and reports make of them."""

import json
import math
import re
from dataclasses import replace

import pytest
from paper_runs import PROMPTS, TINY_BASE, arguments, benchmark_file, by_key, invoke, tiny_run

from checkpoints import pair
from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.paper.declared.benchmarks import Benchmark
from entrgi_ref.paper.declared.costs import Costs, gradient_steps_of
from entrgi_ref.paper.declared.experiments import (
    EXPERIMENTS,
    LABELS,
    METHODS,
    RIVALS,
    Cell,
    in_order,
)
from entrgi_ref.paper.declared.methods import BETA, Method
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.run import estimate
from entrgi_ref.paper.run.records import read_by_key, read_records
from entrgi_ref.paper.shown import figures, numbers, report
from entrgi_ref.paper.shown.summary import Run
from tiny import TinyDenoiser, TinyReward
from tiny_testbed import FailingReward, TinyTestbed


def based(M=3, K=4, N=8, T=8):
    return SamplingConfig(
        GuidanceConfig(steps=M, dtype="float64"), trajectories=K, new_tokens=N, denoising_steps=T
    )


@pytest.mark.parametrize(
    ("base", "costs"),
    [
        (based(), Costs(10, 7)),
        (based(), Costs(10, 7, text=12)),
        (based(N=8, T=3), Costs(10, 7, text=12)),  # too few steps for two candidates
        (based(M=1, K=1), Costs(0.1, 7)),
        (based(M=0), Costs(10, 7)),
    ],
)
def test_rivals_have_the_compute_of_entrgi(base, costs):
    steps = base.denoising_steps - (base.denoising_steps == base.new_tokens)  # that commit a token
    M, N, K = base.guidance.steps, base.new_tokens, base.trajectories
    text = costs.text or costs.reward
    unguided = steps * costs.denoiser + costs.reward
    guided = unguided + steps * 2 * M * costs.reward
    of = {name: Method.of(name, base, lambda: costs) for name in RIVALS}
    assert of["damped"].config == base
    for name, cost in (("smc", unguided + steps * text), ("self_smc", unguided)):
        particles = of[name].config.trajectories
        assert particles * cost >= K * guided - 1e-9 > (particles - 1) * cost
        assert of[name].config == replace(base.guided(steps=0), trajectories=particles)
        assert of[name].options == {"beta": BETA[name]}
    candidates, answers = of["lookahead"].options["candidates"], of["lookahead"].config.trajectories
    cost = unguided + candidates * N * text
    if cost <= guided + 1e-9:  # as many as can be had
        assert answers == K
        assert cost + N * text > guided
    else:  # two are too many, so that there are fewer answers
        assert candidates == 2
        assert answers == min(K, math.ceil(K * guided / cost))


class Counting(TinyReward):
    scored = 0

    def score(self, prompts, responses):
        self.scored += len(responses)
        return super().score(prompts, responses)

    def bind(self, prompts, trajectories):
        raise AssertionError  # no gradients


@pytest.mark.parametrize("name", ["smc", "self_smc", "lookahead"])
def test_what_is_counted_is_what_is_read(name):
    method = Method.of(name, based(), lambda: Costs(10, 7))
    denoiser, reward = TinyDenoiser(1), Counting(2)
    found = method.answer(denoiser, reward, ["12", "3"])
    assert denoiser.calls == 7
    assert reward.scored == found.rewards.numel() * (method.texts + 1)


def test_damped_is_guided_by_smaller_steps():
    base = based()
    networks = TinyDenoiser(1), TinyReward(2)
    damped = Method.of("damped", base, None).answer(*networks, ["12", "3"])
    sizes = [guidance.step_size for _, guidance in damped.config.guided_steps()]
    assert sizes == sorted(sizes)
    assert sizes[-1] == base.guidance.step_size > 2 * sizes[0]
    entrgi = Method.of("entrgi", base, None).answer(*networks, ["12", "3"])
    assert (damped.tokens != entrgi.tokens).any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rivals")
    tiny_run(folder, methods=["entrgi", *RIVALS], asked=True)
    return folder


def test_a_record_says_by_what_it_was_made(run):
    testbed, records = TinyTestbed(), read_records(run)
    assert len(records) == 5 * (1 + len(RIVALS))
    for record in records:
        method = Method.recorded(record)
        found = method.answer(testbed.denoise, testbed.judge, [record["prompt"]])
        assert found.responses[0] == record["responses"], record["method"]
        assert json.loads(json.dumps(record["settings"])).items() >= method.settings.items()
        assert ("options" in record["settings"]) == (record["method"] in RIVALS)
    K = {record["method"]: len(record["rewards"]) for record in records}
    # 13 for a guided answer; 7 without guidance, and 3 or 8 for the texts: see `TinyTestbed.costs`.
    assert K == {"entrgi": 2, "damped": 2, "smc": 3, "self_smc": 4, "lookahead": 2}


def test_batches_and_interruptions_change_no_answer(run, tmp_path):
    methods = ["entrgi", *RIVALS]
    tiny_run(tmp_path, methods=methods, batch_size=3)
    whole, other = by_key(run), by_key(tmp_path)
    assert {key: r["responses"] for key, r in other.items()} == {
        key: r["responses"] for key, r in whole.items()
    }
    tiny_run(
        tmp_path / "b", TinyTestbed(judge=FailingReward(2, dislikes=("333",))), methods=methods
    )
    again = {key for key, r in by_key(tmp_path / "b").items() if r["status"] == "failed"}
    assert len(again) == len(methods)
    tiny_run(tmp_path / "b", methods=methods, retry_failed=True)
    assert {key: r["responses"] for key, r in read_by_key(tmp_path / "b").items()} == {
        key: r["responses"] for key, r in whole.items()
    }


def test_rivals_run_only_when_they_are_named():
    assert Plan.of("main", TINY_BASE, [1], 1, 1).methods == METHODS
    assert not set(METHODS) & set(RIVALS)
    assert Plan.of("main", TINY_BASE, [1], 1, 1, ["smc", "bon"]).methods == ("bon", "smc")
    with pytest.raises(ValueError, match=r"methods: got 'smcc', expected one of .*'lookahead'"):
        Plan.of("main", TINY_BASE, [1], 1, 1, ["smcc"])
    with pytest.raises(ValueError, match="methods: got 'smc'"):
        Plan.of("reward-size", TINY_BASE, [1], 1, 1, ["smc"])


@pytest.mark.draws
def test_a_report_shows_the_rivals_that_have_run(run, tmp_path):
    text, _ = report.write(run, tmp_path)
    main, _, less = text.partition(", less EntRGi**")
    for method in RIVALS:  # in the table, and in that of the differences
        assert main.count(f"\n| {LABELS[method]} ") == less.count(f"\n| {LABELS[method]} ") == 1
    assert (main.count("\n| EntRGi  "), less.count("\n| EntRGi  ")) == (1, 0)
    assert "Rivals (EntRGi, damped, SMC, Self-rewarding SMC, Lookahead) have the compute" in text
    assert set(numbers.OURS) == {"bon_equal_compute", *RIVALS}
    assert Run.read(run).methods == ("entrgi", *RIVALS)
    assert ">Self-rewarding SMC<" in (tmp_path / "main.svg").read_text()
    assert set(figures.STYLES) == set(LABELS)
    for part in (1, 2):  # colours, markers
        assert len({style[part] for style in figures.STYLES.values()}) == len(LABELS)
    assert set(figures.DASHES) == set(LABELS)
    assert len(set(figures.DASHES.values())) == len(LABELS)


def test_a_plan_counts_the_texts_that_are_scored(monkeypatch, tmp_path):
    """On a clock on which scoring alone takes time: as long as a run."""
    now = [0.0]
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(estimate, "duration", lambda seconds: f"{seconds:.2f} s")

    class Slow(FailingReward):
        def score(self, prompts, responses):
            now[0] += 2 * len(responses)
            return super().score(prompts, responses)

    testbed = TinyTestbed(judge=Slow(2))
    plan = Plan.of("main", TINY_BASE, [1], 4, 2, ["smc", "lookahead"])
    text = estimate.estimate(plan, testbed, tmp_path)
    # Two batches of each: 3 steps of SMC, 2 candidates for each of 4 tokens, and the answers.
    assert "12 forward passes of the mask predictor, 0 forward" in text
    assert "and 22 scores of a text for each trajectory of a batch" in text
    seconds = 2 * 4 * (3 * (3 + 1) + 2 * (2 * 4 + 1))
    assert f"about {seconds:.2f} s on" in text


def test_rivals_run_on_dream(tmp_path):
    words = ["--methods", ",".join(RIVALS), "--prompts", "1", "--seeds", "1"]
    words += ["--new-tokens", "6", "--denoising-steps", "6"]
    benchmark = benchmark_file(tmp_path)
    invoke(*arguments(benchmark, tmp_path / "run", *words))
    records = {record["method"]: record for record in read_records(tmp_path / "run")}
    assert set(records) == set(RIVALS)
    for record in records.values():
        assert record["status"] == "ok"
        assert len(record["rewards"]) == record["settings"]["trajectories"]

    shown = invoke("report", tmp_path / "run")
    table = shown.partition(", less ")[0]
    assert all(table.count(f"| {LABELS[method]} ") == 1 for method in (*METHODS, *RIVALS))

    def size(network):
        return sum(p.numel() for n, p in network.named_parameters() if "embed_tokens" not in n)

    dream, reward = pair("float32")
    tokens = [dream.encode([prompt]).tokens.shape[1] for prompt in PROMPTS]
    length = sum(tokens) / len(tokens) + 6
    predict, read, text = (
        n * size(m.network) for n, m in ((length, dream), (6, reward), (length, reward))
    )
    guided = 2 * (5 * (predict + 6 * read) + read)  # of six steps the first commits nothing
    K = math.ceil(guided / (5 * (predict + text) + read))
    assert len(records["smc"]["rewards"]) == K
    words = arguments(benchmark, tmp_path / "new", *words, "--dry", "--prompt-tokens", 9)
    output = invoke("plan", *words[1:])
    for method, more in (("smc", ""), ("self_smc", ""), ("lookahead", r", candidates = \d")):
        assert re.search(
            rf"\n  {LABELS[method]}, K = \d+{more}, without gradients: +[\d.]+ GiB", output
        )


def test_what_an_answer_costs_is_counted_by_hand():
    """Seven of the eight steps commit a token; a gradient step reads there and back."""
    costs, base = Costs(denoiser=10, reward=7), based(M=3, K=4)
    assert gradient_steps_of(base) == [3] * 7
    assert gradient_steps_of(replace(base, skip_empty_steps=False)) == [3] * 8
    unguided = base.guided(steps=0)
    assert costs.per_trajectory(unguided) == 7 * 10 + 7
    assert costs.per_trajectory(base) == 7 * 10 + 7 * 3 * 2 * 7 + 7
    assert costs.per_trajectory(unguided, texts=5) == 7 * 10 + 5 * 7 + 7
    assert replace(costs, text=0.5).per_trajectory(unguided, texts=5) == 7 * 10 + 5 * 0.5 + 7
    assert (costs.of_text, replace(costs, text=0).of_text) == (7, 0)
    assert costs.equal_trajectories(base, unguided) == math.ceil(4 * 371 / 77)
    assert costs.equal_trajectories(base, unguided, texts=5) == math.ceil(4 * 371 / 112)


@pytest.mark.parametrize(("more", "K"), [(0, 8), (1e-11, 8), (1e-5, 9), (-1e-5, 8)])
def test_equal_trajectories_are_rounded_up_but_for_errors_of_rounding(more, K):
    """A guided answer costs twice an unguided one, or a little more."""
    base = based(M=1, K=4)
    costs = Costs(denoiser=13 / 7 * (1 - more), reward=1)
    assert costs.equal_trajectories(base, base.guided(steps=0)) == K


@pytest.mark.parametrize(
    ("text", "candidates"),
    [(1.0, 5), (42 / 48, 6), (42 / 48 + 1e-12, 6), (42 / 48 + 1e-6, 5), (3, 2)],
)
def test_lookahead_has_as_many_candidates_as_guidance_would_buy(text, candidates):
    """Guidance costs 42; eight tokens have as many candidates each."""
    found = Method.of("lookahead", based(M=3), lambda: Costs(10, 1, text=text))
    assert found.options == {"beta": 1.0, "candidates": candidates}
    assert found.texts == 8 * candidates


def test_texts_that_cost_nothing_are_no_reason_for_more():
    found = Method.of("lookahead", based(), lambda: Costs(10, 0, text=0))
    assert found.options["candidates"] == 2


def test_other_methods_score_no_texts_and_ask_for_no_costs():
    for name in ("bon", "expectation", "aps", "entrgi", "damped"):
        method = Method.of(name, based(), lambda: pytest.fail("costs are not asked for"))
        assert (method.texts, dict(method.options), method.takes_draws) == (0, {}, True)
        guidance = method.config.guidance
        assert (guidance.steps, method.config.trajectories) == (0 if name == "bon" else 3, 4)
        weight = {"bon": "entrgi", "damped": "entrgi"}.get(name, name)
        assert guidance.weight == weight
    of = {name: Method.of(name, based(), lambda: Costs(10, 7)) for name in RIVALS}
    assert [of[name].texts for name in ("smc", "self_smc")] == [7, 0]
    assert [of[name].takes_draws for name in RIVALS] == [True, False, False, False]
    assert BETA == {"smc": 0.1, "self_smc": 1.0, "lookahead": 1.0}


def test_what_each_experiment_varies():
    rewards, models, steps = ("small", "large"), ("aps", "entrgi"), (1, 2, 3, 4, 6, 8)
    guided = ("expectation", *models)
    sizes = [{"reward": size} for size in rewards]
    varied = [{**size, "gradient_steps": M} for size in sizes for M in steps]
    assert {
        name: (one.methods, one.observed, one.beside, one.variants(rewards, "large"))
        for name, one in EXPERIMENTS.items()
    } == {
        "main": (METHODS, False, RIVALS, [{}]),
        "error-by-step": (models, True, (), [{}]),
        "error-vs-entropy": (models, True, (), [{}]),
        "reward-size": (("bon", *guided), False, (), sizes),
        "gradient-steps": (guided, False, (), varied),
    }


@pytest.mark.parametrize(
    ("field", "good", "bad", "message"),
    [
        ("prompts", (1, 2), (0, -1), "prompts: got {}, expected an integer of at least 1"),
        (
            "gradient_steps",
            (0, 1),
            (-1,),
            "gradient_steps: got {}, expected an integer of at least 0",
        ),
        (
            "batch_size",
            (1, "2", "auto"),
            (0, "0", "-1", "many", "١", "1_0", "9" * 5000),
            "batch_size: got {!r}, expected auto or an integer of at least 1",
        ),
    ],
)
def test_a_plan_of_numbers_that_can_be(field, good, bad, message):
    usual = {"name": "main", "base": TINY_BASE, "seeds": [1], "prompts": 3, "batch_size": 2}
    for value in good:
        plan = Plan.of(**usual | {field: value})
        if field == "gradient_steps":
            assert plan.base == TINY_BASE.guided(steps=value)
        else:
            assert getattr(plan, field) == (None if value == "auto" else int(value))
    for value in bad:
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(value))}$"):
            Plan.of(**usual | {field: value})


def test_methods_are_in_the_order_of_the_tables_and_then_by_name():
    own = [f"mine:{name}" for name in "cabed"]
    assert in_order([*own, "entrgi", "bon"]) == ["bon", "entrgi", *sorted(own)]


def test_gradient_steps_take_the_place_of_those_that_are_varied():
    plan = Plan.of("gradient-steps", TINY_BASE, [1], 1, 1, gradient_steps=0)
    assert plan.experiment.gradient_steps == (0,)
    assert plan.base == TINY_BASE
    testbed = TinyTestbed()
    for cell in plan.cells(testbed):
        assert cell.variant["gradient_steps"] == 0
        assert plan.settings(testbed, cell).guidance.steps == 0  # not the 3 of the settings
    for experiment in ("error-by-step", "error-vs-entropy"):
        assert Plan.of(experiment, TINY_BASE, [1], 1, 1, gradient_steps=1).methods == (
            "aps",
            "entrgi",
        )
        message = f"gradient_steps: got 0, expected 1 or more: {experiment} shows their errors"
        with pytest.raises(ValueError, match=f"^{message}$"):
            Plan.of(experiment, TINY_BASE, [1], 1, 1, gradient_steps=0)


def test_costs_are_asked_once_for_each_method_of_all_prompts():
    asked = []

    class Asked(TinyTestbed):
        def costs(self, *given):
            asked.append(given)
            return Costs(10, 7)

    plan, testbed = Plan.of("main", TINY_BASE, [3], 2, 1, ["bon", "lookahead"]), Asked()
    bon, lookahead = plan.cells(testbed)
    assert plan.method(testbed, bon).config.seed == 3
    assert asked == []
    plan.method(testbed, lookahead)
    assert asked == [("large", testbed.prompts, TINY_BASE.new_tokens)]
    steps = Plan.of("gradient-steps", TINY_BASE, [3], 2, 1, ["aps"])
    for cell in steps.cells(testbed):
        assert steps.settings(testbed, cell).guidance.steps == cell.variant["gradient_steps"]
    assert plan.asked(testbed) == {
        "methods": ["bon", "lookahead"],
        "seeds": [3],
        "variants": [{}],
        "prompts": {"digits": 2},
    }
    settings = json.loads(TINY_BASE.to_json())
    del settings["seed"]
    assert plan.declaration(testbed) == {
        "experiment": "main",
        "settings": settings,
        "batch_size": 1,
        **testbed.declaration,
    }
    auto = Plan.of("main", TINY_BASE, [3], 9, "auto", ["bon"])
    assert auto.declaration(testbed)["batch_size"] == "auto"
    assert auto.asked(testbed)["prompts"] == {"digits": 5}


class TwoBenchmarks(TinyTestbed):
    """On the first the denoiser costs nothing, on the second as much as the reward model."""

    benchmarks = (Benchmark("one", ("1",), "one"), Benchmark("two", ("22", "333", "1"), "two"))

    def costs(self, *given):
        self.asked = given
        return Costs(0.0 if given[1] == ("1",) else 1.0, 1.0)


def test_costs_are_those_of_the_reward_model_and_the_benchmark_of_a_cell():
    testbed, plan = TwoBenchmarks(), Plan.of("main", TINY_BASE, [1], 1, 1, ["bon_equal_compute"])
    for name, prompts in (("one", ("1",)), ("two", ("22", "333", "1"))):
        for reward in testbed.rewards:
            plan.method(testbed, Cell("main", name, "bon_equal_compute", {"reward": reward}, 1))
            assert testbed.asked == (reward, prompts, TINY_BASE.new_tokens)


def test_what_is_asked_for_has_prompts_of_every_benchmark():
    """As many as there are, of one that has fewer."""
    asked = Plan.of("main", TINY_BASE, [1], 2, 1).asked(TwoBenchmarks())
    assert asked["prompts"] == {"one": 1, "two": 2}


def test_equal_compute_is_that_of_each_benchmark(tmp_path):
    """Of the second, answers without guidance pay for the denoiser too."""
    testbed = TwoBenchmarks()
    tiny_run(tmp_path, testbed, prompts=1, methods=["bon_equal_compute"])
    (one, two) = read_records(tmp_path)
    K, M, T = TINY_BASE.trajectories, TINY_BASE.guidance.steps, len(gradient_steps_of(TINY_BASE))
    assert (one["benchmark"], len(one["responses"])) == ("one", K * (1 + 2 * T * M))
    both = math.ceil(K * (T + 2 * T * M + 1) / (T + 1))
    assert (two["benchmark"], len(two["responses"])) == ("two", both)
