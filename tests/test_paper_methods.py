"""Rivals as rows of `main`: their compute, their records, what runs and reports make of them."""

import json
import math
import re
from dataclasses import replace

import pytest
from paper_runs import PROMPTS, TINY_BASE, arguments, benchmark_file, by_key, invoke, tiny_run

from checkpoints import pair
from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.experiments import LABELS, METHODS, RIVALS
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
