"""The toy's commands, tables and statistics on what is made by hand: no network is trained."""

import itertools
import json
import math
import statistics as python_statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import entrgi_ref
from building import records as committed
from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.orders import ORDERS
from entrgi_ref.paper.declared import plan as experiment_plan
from entrgi_ref.paper.declared.costs import Costs
from properties import tried
from toy import __main__ as main_module
from toy import ahead, dial, exact, experiments, leading, ledger, shift, spread, table
from toy import demo as demo_module
from toy import options as options_module
from toy import testbed as toy_testbed
from toy.__main__ import app, main
from toy.demo import BASE, FULL, QUICK, Plan
from toy.language import LENGTH, VOCABULARY
from toy.models import ToyDenoiser
from toy.record import provenance, write_record
from toy.statistics import MOST, STUDENT, Estimate, bootstrap, spearman, student
from toy.studies import STUDIES, Finding, Setting
from toy.testbed import Testbed as Toy
from toy.testbed import held_out_prompts, recipes
from toy.training import DENOISER, QUICK_DENOISER, QUICK_REWARD, REWARDS

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # pretended networks have other types

# The command line

SHARED = {"quick": False, "reward": "medium", "training_seed": 10, "embedding_std": 1.0}
OPTIONS = {
    None: {
        **SHARED, "out": None, "trajectories": 4, "denoising_steps": 16, "gradient_steps": 3,
        "step_size": 0.5, "optimiser": "adam", "temperature": 0.7, "top_p": 0.95,
        "order": "entropy", "threads": 2,
    },
    "watch": {
        **SHARED, "prompt": "sea castle gloomy", "method": "entrgi", "template": None,
        "gradient_steps": 3, "step_size": 0.5, "optimiser": "adam", "order": "entropy", "seed": 1,
        "threads": 2,
    },
    "run": {
        "out": None, "methods": "", "seeds": "1,2,3", "prompts": 64, "batch_size": "64",
        "quick": False, "trajectories": 4, "denoising_steps": 16, "gradient_steps": None,
        "step_size": 0.5, "optimiser": "adam", "temperature": 0.7, "top_p": 0.95,
        "order": "entropy", "training_seed": 10, "language": None, "retry_failed": False,
        "other_version": False, "give_up_after": 16, "engine": "local", "ray_address": None,
        "ray_actors": None, "threads": 2,
    },
    "train": {**SHARED, "reward": "all"},
    "gradients": {**SHARED, "states": 32, "draws": 128, "seed": 1, "threads": 2},
    "spread": {
        **SHARED, "pairs": 5, "prompts": None, "seeds": "", "gradient_steps": 3, "methods": "",
        "baseline": "bon", "constants": "", "threads": 2,
    },
    **{name: {**SHARED, "threads": 2} for name in ("ledger", "leading", "shift", "dial")},
}  # fmt: skip


@pytest.fixture(scope="module")
def commands():
    return typer.main.get_command(app)


def test_what_is_taken_where_nothing_is_said(commands):
    """A change of it changes the numbers of everybody who says nothing. Where nothing is taken, the
    help shows nothing.
    """
    for name, expected in OPTIONS.items():
        command = commands if name is None else commands.commands[name]
        options = [option for option in command.params if not option.required]
        found = {option.name: option.default for option in options}
        if name in STUDIES:
            assert found.pop("out") == Path("results") / name
        assert found == expected, name
        shown = {option.name for option in options if option.show_default}
        assert not shown & {name for name, default in expected.items() if default == ""}
    assert {*STUDIES, "watch", "run", "train"} == OPTIONS.keys() - {None}


@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        ("dial --training-seed", 0, 2**63 - 1),
        ("dial --threads", 1, 256),
        ("spread --pairs", 2, 40),
        ("spread --prompts", 1, None),
        ("run main --language", 0, None),
    ],
)
def test_a_number_out_of_its_range_is_refused(words, least, most, commands):
    name, *words = words.split()
    option = words[-1].strip("-").replace("-", "_")

    def taken(number):
        return commands.commands[name].make_context("", [*words, str(number)]).params[option]

    for number in (least, most or 10**6):
        assert taken(number) == number
    with pytest.raises(
        Exception, match=rf"greater than or equal to {least}$|range (x>=)?{least}\b"
    ):
        taken(least - 1)
    if most:
        with pytest.raises(Exception, match=rf"less than or equal to {most}$|<=x<={most}\.$"):
            taken(most + 1)


def test_a_mistake_of_ours_is_a_plain_traceback(monkeypatch, capsys, tmp_path):
    def study(setting):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(dial, "study", study)
    monkeypatch.setattr(sys, "argv", ["toy", "dial"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError) as mistake:
        main()
    sys.excepthook(mistake.type, mistake.value, mistake.tb)
    assert capsys.readouterr().err.startswith("Traceback (most recent call last):\n")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Which networks the commands ask for: none is loaded, and results are in an empty folder."""
    calls = []

    def load(reward, quick, seed, embedding_std, threads, pairs=1):
        calls.append((reward, quick, seed, embedding_std, threads, pairs))
        return calls[-1]

    for module in ("toy.__main__", "toy.studies"):
        monkeypatch.setattr(f"{module}.load_testbed", load)
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize(
    ("words", "folder", "plan", "warned"),
    [
        ([], "results/demo", FULL, ""),
        (["--out", "there"], "there", FULL, ""),
        (
            ["--quick"],
            "results/demo-quick",
            QUICK,
            "\nThe networks are the quick ones: not those of the documentation's numbers.\n",
        ),
    ],
)
def test_the_demo_has_the_papers_settings(
    words, folder, plan, warned, commands, asked, monkeypatch
):
    def run_demo(testbed, config, how_much, out, say):
        assert (testbed, config, how_much, out) == (asked[0], BASE, plan, Path(folder))
        say("said")
        return "the table\n", [out / "a", out / "b"]

    monkeypatch.setattr(demo_module, "run_demo", run_demo)
    run = CliRunner().invoke(commands, words)
    assert run.output == f"said\n\nthe table\n{warned}\nWritten:\n  {folder}/a\n  {folder}/b\n"
    assert asked == [("medium", "--quick" in words, 10, 1.0, 2, 1)]


def test_how_much_the_demo_runs_is_what_the_records_say():
    record = committed.read("demo")
    assert (FULL.prompts, [*FULL.seeds]) == (record["prompts"], record["seeds"]) == (64, [1, 2, 3])
    assert Plan(16, (1,)) == QUICK  # as --prompts and --seeds of `spread` say


@pytest.fixture
def ran(monkeypatch):
    """What the command `run` hands to the runner."""
    calls = []

    def run(plan, testbed, folder, say, **more):
        calls.append((plan, testbed, folder, more))
        return int(plan.prompts == 13)  # of which a prompt has failed

    monkeypatch.setattr("entrgi_ref.paper.run.start.run", run)
    kept = "entrgi_ref.paper.run.cluster.cluster_of"
    monkeypatch.setattr(kept, lambda *words, gpus: (*words, gpus))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    return calls


def test_an_experiment_has_the_papers_settings(commands, asked, ran):
    run = CliRunner().invoke(commands, ["run", "main"])
    assert (run.exit_code, run.output) == (0, "")
    ((plan, testbed, folder, more),) = ran
    assert plan == experiment_plan.Plan.of("main", BASE, [1, 2, 3], 64, "64")
    assert (testbed.quick, testbed.training_seed) == (False, 10)
    assert testbed.load("small") == ("small", False, 10, 1.0, 2, 1)
    assert folder == Path("results/toy/main")
    assert more == {
        "retry_failed": False,
        "other_version": False,
        "give_up_after": 16,
        "cluster": ("local", None, None, False),  # the networks are small: no GPU is needed
    }


def test_what_an_experiment_is_told_reaches_the_runner(commands, asked, ran):
    words = [
        *("run", "main", "--out", "there", "--prompts", "13", "--training-seed", "12", "--quick"),
        *("--retry-failed", "--other-version", "--give-up-after", "0", "--threads", "1"),
        *("--methods", "bon,aps", "--seeds", "4,6", "--batch-size", "7", "--gradient-steps", "2"),
        *("--trajectories", "5", "--denoising-steps", "9", "--step-size", "0.25"),
        *("--optimiser", "sgd", "--temperature", "0.8", "--top-p", "0.9", "--order", "origin"),
    ]
    assert CliRunner().invoke(commands, words).exit_code == 1
    ((plan, testbed, folder, more),) = ran
    settings = {"trajectories": 5, "denoising_steps": 9, "temperature": 0.8, "top_p": 0.9}
    guidance = GuidanceConfig(step_size=0.25, optimiser="sgd")
    base = replace(BASE, guidance=guidance, order="origin", **settings)
    asked_for = "main", base, [4, 6], 13, "7", ["bon", "aps"], 2
    assert plan == experiment_plan.Plan.of(*asked_for)
    assert (folder, testbed.quick) == (Path("there"), True)
    assert (more["retry_failed"], more["other_version"], more["give_up_after"]) == (True, True, 0)
    testbed.load("medium")
    assert asked == [("medium", True, 12, 1.0, 1, 1)]


def test_an_experiment_on_a_language_has_networks_of_its_own(commands, asked, ran):
    assert (
        CliRunner().invoke(commands, ["run", "main", "--language", "3", "--quick"]).exit_code == 0
    )
    ((_, testbed, folder, _),) = ran
    assert isinstance(testbed, experiments.LanguageTestbed)
    assert (testbed.seed, testbed.quick, testbed.track) == (3, True, options_module.bar)
    assert folder == Path("results/language-3/main")
    run = CliRunner().invoke(commands, ["run", "main", "--language", "3", "--training-seed", "11"])
    message = "training_seed: got 11 with --language, whose networks have its seed"
    assert str(run.exception) == message
    assert asked == []


def test_the_first_language_is_one_too(commands, asked, ran):
    assert CliRunner().invoke(commands, ["run", "main", "--language", "0"]).exit_code == 0
    ((_, testbed, folder, _),) = ran
    assert (testbed.seed, folder) == (0, Path("results/language-0/main"))


def test_what_is_watched_has_the_settings_that_are_asked_for(commands, monkeypatch):
    loaded, seen = [], []
    denoiser = SimpleNamespace(mask_id=9, template=lambda text: torch.tensor([9, 1, 9, 9]))

    def load(*words):
        loaded.append(words)
        return SimpleNamespace(denoiser=denoiser, reward="reward")

    def generate(network, reward, prompts, config, start, observe):
        assert (network, reward, prompts) == (denoiser, "reward", ["sky farm tiny"])
        seen.append((config, start, type(observe).__name__))
        return SimpleNamespace(rewards=torch.tensor([[1.5]]), best=["the eagle"])

    monkeypatch.setattr(main_module, "load_testbed", load)
    monkeypatch.setattr(entrgi_ref, "generate", generate)
    words = "watch|sky farm tiny|--gradient-steps|2|--step-size|0.25|--order|origin|--seed|7"
    networks = "--reward|large|--training-seed|3|--embedding-std|0.5|--threads|1"
    more = "--method|aps|--optimiser|sgd|--template|_ a _ _"
    run = CliRunner().invoke(commands, f"{words}|{networks}|{more}".split("|"))
    assert run.exit_code == 0, run.output
    assert run.output.count("reward +1.50, gold") == 2
    assert loaded == [("large", False, 3, 0.5, 1)]
    guided = GuidanceConfig("aps", 2, 0.25, optimiser="sgd")
    assert [config for config, _, _ in seen] == [
        SamplingConfig(guidance, 1, LENGTH, 3, order="origin", seed=7)
        for guidance in (GuidanceConfig(steps=0), guided)
    ]
    assert all(start.tolist() == [[9, 1, 9, 9]] for _, start, _ in seen)
    assert {view for _, _, view in seen} == {"TerminalView"}


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        ("", ["small", "medium", "large"]),
        ("--quick", ["medium"]),
        ("--reward large", ["large"]),
        ("--reward closed_form --quick", ["closed_form"]),
    ],
)
def test_train_loads_every_size_or_the_one_that_is_named(words, sizes, commands, asked):
    words = ["train", *words.split(), "--training-seed", "4", "--embedding-std", "0.5"]
    assert CliRunner().invoke(commands, words).exit_code == 0
    assert asked == [(size, "--quick" in words, 4, 0.5, 1, 1) for size in sizes]


def test_a_study_loads_networks_when_it_asks_for_them(commands, asked, monkeypatch):
    def study(setting):
        assert asked == []
        assert setting.plan is FULL
        assert setting.testbed == ("large", False, 11, 0.5, 3, 1)
        assert setting.load(12, pairs=3) == ("large", False, 12, 0.5, 3, 3)
        return Finding("| found |", [1], "networks", BASE, 3, (1, 2))

    monkeypatch.setattr(dial, "study", study)
    words = ["dial", "--reward", "large", "--training-seed", "11", "--embedding-std", "0.5"]
    run = CliRunner().invoke(commands, [*words, "--threads", "3"])
    assert run.output == "\n| found |\n\nWritten: results/dial/run.json\n"
    assert json.loads(Path("results/dial/run.json").read_text())["rows"] == [1]


# Which networks


def test_networks_of_all_pairs_are_trained_ahead(monkeypatch):
    seen, threads = [], []
    monkeypatch.setattr(ahead, "train_ahead", lambda *words: seen.append(words))
    monkeypatch.setattr(Toy, "load", lambda reward, **more: (reward, more))
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    bar = options_module.bar
    found = options_module.load_testbed("medium", True, 5, 0.5, 1)
    more = {"quick": True, "seed": 5, "embedding_std": 0.5, "track": bar}
    assert found == ("medium", more)
    options_module.load_testbed("closed_form", True, 5, 1.0, 2, pairs=3)
    assert threads == [1, 2]
    assert seen == [
        (
            [replace(QUICK_DENOISER, seed=5), replace(QUICK_REWARD, seed=5, embedding_std=0.5)],
            1,
            bar,
        ),
        ([replace(QUICK_DENOISER, seed=seed) for seed in (5, 6, 7)], 2, bar),
    ]
    assert list(bar(range(3), "training")) == [0, 1, 2]


def test_recipes_are_of_the_size_and_the_seed():
    large = replace(REWARDS["large"], seed=0, embedding_std=1000)
    assert recipes("large", False, 0, 1000) == (replace(DENOISER, seed=0), large)
    quick = replace(QUICK_REWARD, seed=3, embedding_std=0.01)
    assert recipes("medium", True, 3, 0.01) == (replace(QUICK_DENOISER, seed=3), quick)
    assert recipes("closed_form", True, 3, 1.0) == (replace(QUICK_DENOISER, seed=3), None)
    for wrong, message in (
        (("medium", True, 3, 0), "embedding_std: got 0, expected"),
        (("medium", True, 3, 1000.5), "embedding_std: got 1000.5"),
        (("medium", True, -1, 1.0), "seed: got -1"),
        (("small", True, 3, 1.0), "reward: got 'small' with --quick"),
    ):
        with pytest.raises(ValueError, match=message):
            recipes(*wrong)


class Started:
    """Processes that are pretended: they end in the order in which they were started."""

    def __init__(self):
        self.events, self.running = [], []

    def get_context(self, method):
        assert method == "spawn"  # a fork of a process with threads of torch may hang
        return self

    def Process(self, target, args, daemon):
        assert daemon  # so that it ends with the command
        (recipe,) = args
        return SimpleNamespace(
            sentinel=recipe, start=lambda: self.note(f"start {recipe.seed}", recipe)
        )

    def note(self, event, recipe):
        self.events.append(event)
        self.running.append(recipe)

    def wait(self, sentinels):
        assert [*sentinels] == self.running
        ended = self.running.pop(0)
        self.events.append(f"end {ended.seed}")
        return [ended, *self.running]


def test_so_many_networks_are_trained_at_a_time(monkeypatch, tmp_path):
    """Those that are not in the cache, in the order in which they are asked for."""
    monkeypatch.setenv("TOY_CACHE", str(tmp_path))
    wanted = [replace(QUICK_REWARD, seed=seed) for seed in range(5)]
    ahead.stored(wanted[1]).touch()

    def train_ahead(recipes, processes):
        pretended, labels = Started(), []

        def track(networks, label):
            labels.append((len(networks), label))
            return networks

        monkeypatch.setattr(ahead, "multiprocessing", pretended)
        monkeypatch.setattr(ahead, "connection", pretended)
        ahead.train_ahead(recipes, processes, track)
        return labels, pretended.events

    two = ["start 0", "start 2", "end 0", "start 3", "end 2", "start 4", "end 3", "end 4"]
    assert train_ahead(wanted, 2) == ([(4, "training 4 networks, 2 at a time")], two)
    three = ["start 0", "start 2", "start 3", "end 0", "start 4", "end 2", "end 3", "end 4"]
    assert train_ahead(wanted, 3) == ([(4, "training 4 networks, 3 at a time")], three)
    assert train_ahead(wanted[:3], 2)[1] == ["start 0", "start 2", "end 0", "end 2"]
    for few, processes in ((wanted, 1), (wanted[:2], 2)):
        assert train_ahead(few, processes) == ([], [])  # one is trained when it is needed


def test_a_pair_of_networks_says_nothing_of_how_others_are_made():
    testbed = Toy(None, None, "networks", made=toy_testbed.Made(1, None, None, None))
    assert "made" not in repr(testbed)
    assert list(testbed.pairs(1)) == [testbed]
    assert len([*replace(testbed, denoiser=1, made=None).pairs(1)]) == 1


def test_the_toy_as_a_testbed_of_the_paper(monkeypatch):
    loaded = []

    def load(name):
        loaded.append(name)
        return SimpleNamespace(
            denoiser=f"denoiser {name}", reward=f"reward {name}", costs=len(name)
        )

    full = experiments.ToyTestbed(load, quick=False, training_seed=12)
    assert full.rewards == ("small", "medium", "large")
    assert full.declaration == {
        "testbed": "toy",
        "denoiser": "full, training seed 12",
        "rewards": {
            "small": {"name": "toy-small"},
            "medium": {"name": "toy-medium"},
            "large": {"name": "toy-large"},
        },
        "main_reward": "medium",
        "benchmarks": {"toy": "96 held-out prompts"},
    }
    assert [full.reward("large"), full.denoiser(), full.costs("large", [], 16)] == [
        "reward large", "denoiser medium", 5
    ]  # fmt: skip
    assert loaded == ["large", "medium"]
    assert list(full.benchmarks[0].prompts) == held_out_prompts(96)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert full.device == "cpu, 3 threads"
    quick = experiments.ToyTestbed(load, quick=True, training_seed=12)
    assert quick.rewards == ("medium",)
    assert quick.declaration["denoiser"] == "quick, training seed 12"
    with pytest.raises(ValueError, match="reward: got 'large'"):
        quick.reward("large")


@pytest.mark.parametrize(
    ("quick", "plan"), [(True, experiments.measured.QUICK), (False, experiments.measured.FULL)]
)
def test_a_language_as_a_testbed_of_the_paper(quick, plan, monkeypatch):
    loaded = []

    def load(denoiser, rewards, track):
        loaded.append((denoiser, rewards))
        return SimpleNamespace(
            denoiser="denoiser", rewards={"small": "judge"}, costs=len,
            gold_score=lambda prompt, response: f"{prompt}: {response}",
        )  # fmt: skip

    monkeypatch.setattr(experiments.templates.Testbed, "load", load)
    found = experiments.LanguageTestbed(3, quick)
    assert found.rewards == ("small", "medium", "large")
    language = experiments.templates.draw_language(3, plan.words)
    assert found.benchmarks[0].prompts == experiments.templates.held_out_prompts(language)
    assert found.declaration == {
        "testbed": "template language",
        "denoiser": f"{'quick' if quick else 'full'}, language 3",
        "rewards": {name: {"name": f"language-3-{name}"} for name in found.rewards},
        "main_reward": "medium",
        "benchmarks": {"language": "48 held-out prompts"},
    }
    assert loaded == []
    assert (found.denoiser(), found.reward("small")) == ("denoiser", "judge")
    assert (found.costs("small", [], 16), found.gold("a", "b")) == (5, "a: b")
    assert loaded == [experiments.measured.recipes_of(plan, 3)]  # once
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert found.device == "cpu, 3 threads"
    with pytest.raises(ValueError, match="reward: got 'tiny'"):
        found.reward("tiny")


# Statistics


def test_quantiles_are_those_of_students_distribution():
    """With x = sqrt(n) tan(a) its density is that of cos(a) to the power of n - 1."""
    assert len(STUDENT) == MOST - 1 == 39
    for n, quantile in enumerate(STUDENT, 1):

        def area(to, n=n):
            middles = (np.arange(2000) + 0.5) / 2000 * to
            return (np.cos(middles) ** (n - 1)).mean() * to

        above_half = area(math.atan(quantile / math.sqrt(n))) / area(math.pi / 2) / 2
        assert above_half == pytest.approx(0.475, abs=3e-5), n


@tried(100)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_students_interval_is_that_of_the_standard_error(values):
    found, n = student(np.array(values)), len(values)
    half = STUDENT[n - 2] * python_statistics.stdev(values) / math.sqrt(n)
    expected = Estimate(python_statistics.fmean(values), found.mean - half, found.mean + half)
    assert vars(found) == pytest.approx(vars(expected), abs=1e-9)


def test_an_interval_is_known_of_2_to_40_repeats():
    alone = student(np.array([3.0]))
    assert (alone.mean, math.isnan(alone.low), math.isnan(alone.high)) == (3.0, True, True)
    assert student(np.arange(40.0)).mean == 19.5
    for n in (0, 41):
        with pytest.raises(ValueError, match=f"values: got {n}, expected 1 to 40 repeats"):
            student(np.zeros(n))


def ranks(values):
    """Equal ones share the mean of the places that they have in order."""
    order = sorted(values)
    return [order.index(v) + (order.count(v) - 1) / 2 for v in values]


@tried(50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=8))
def test_rank_correlation_is_pearsons_of_the_ranks(pairs):
    x, y = zip(*pairs, strict=True)
    rho, p = spearman(np.array(x, dtype=float), np.array(y, dtype=float))
    if len({*x}) == 1 or len({*y}) == 1:
        assert (math.isnan(rho), p) == (True, 1)
        return
    expected = python_statistics.correlation(ranks(x), ranks(y))
    assert rho == pytest.approx(expected)
    if len(pairs) <= 5:
        b = ranks(y)
        each = [
            python_statistics.correlation(ranks(x), order) for order in itertools.permutations(b)
        ]
        share = sum(abs(r) >= abs(expected) - 1e-9 for r in each) / len(each)
        assert p == pytest.approx(share, abs=0.025)  # 5 standard errors of 10,000 shufflings


def test_the_share_of_shufflings_by_hand():
    x = np.arange(4.0)
    rho, p = spearman(x, np.array([1.0, 3.0, 0.0, 2.0]))
    assert (rho, p) == (pytest.approx(0, abs=1e-15), 1)  # all are as far from 0
    rho, p = spearman(np.arange(40.0), -np.arange(40.0))
    assert (rho, p) == (pytest.approx(-1), 1 / 10_001)  # none is, but the one that was measured
    for few in (x[:3], x[:0]):
        rho, p = spearman(few, few)
        assert (math.isnan(rho), p) == (True, 1)


# The demo's table


def row(method, *, mean_gold, mean_reward, pairs=(0.2,) * 5, size=table.LEAST, **more):
    """A row with differences as they are given."""
    differences = {"gold_mean": mean_gold, "average": mean_reward}
    return table.Row(
        method, 4, {}, differences, {"gold_mean": pairs}, Estimate(1, 1, 1), 1.0, size, **more
    )


HIGH, LOW = Estimate(0.256, 0.006, 0.506), Estimate(-0.256, -0.506, -0.006)
ABOVE_OR_0, BELOW_OR_0 = Estimate(0.25, 0.0, 0.5), Estimate(-0.25, -0.5, 0.0)


@pytest.mark.parametrize(
    ("found", "each", "size", "decided"),
    [
        (HIGH, (0.2, 0.01), table.LEAST, "better"),
        (HIGH, (0.2, 0.0), table.LEAST, "cannot tell"),
        (HIGH, (0.2, -0.01), table.LEAST, "cannot tell"),
        (ABOVE_OR_0, (0.2, 0.01), table.LEAST, "cannot tell"),
        (Estimate(0.25, -0.01, 0.5), (0.2, 0.01), table.LEAST, "cannot tell"),
        (LOW, (-0.2, -0.01), table.LEAST, "worse"),
        (LOW, (-0.2, 0.0), table.LEAST, "cannot tell"),
        (LOW, (-0.2, 0.01), table.LEAST, "cannot tell"),
        (BELOW_OR_0, (-0.2, -0.01), table.LEAST, "cannot tell"),
        (Estimate(-0.25, -0.5, 0.01), (-0.2, -0.01), table.LEAST, "cannot tell"),
        (HIGH, (0.2, 0.01), table.Size(64, 3, 5), "better"),
        (HIGH, (0.2, 0.01), table.Size(63, 3, 5), "cannot tell"),
        (HIGH, (0.2, 0.01), table.Size(64, 2, 5), "cannot tell"),
        (LOW, (-0.2, -0.01), table.Size(64, 3, 4), "cannot tell"),
    ],
)
def test_the_rule_at_its_borders(found, each, size, decided):
    assert table.decided(found, each, size) == decided


OVERRATES = "\n  The reward rises and the gold score falls: it climbs what the reward overrates."
NO_GAIN = "\n  The reward rises, the gold score is not shown to follow: that is no improvement."
WITHOUT = "\n  The reward falls: what is wanted rises without it."
BETTER = "BETTER.\n  Mean gold +0.26 [+0.01, +0.51] points, above 0 on 5 of 5 pairs; mean reward"
WORSE = "WORSE.\n  Mean gold −0.26 [−0.51, −0.01] points, above 0 on 0 of 5 pairs; mean reward"
EITHER = (
    "CANNOT TELL.\n  Mean gold +0.25 [+0.00, +0.50] points, above 0 on 3 of 5 pairs; mean reward"
)


@pytest.mark.parametrize(
    ("gold", "pairs", "reward", "said"),
    [
        (HIGH, (0.2,) * 5, HIGH, f"{BETTER} +0.26 [+0.01, +0.51]."),
        (HIGH, (0.2,) * 5, LOW, f"{BETTER} −0.26 [−0.51, −0.01].{WITHOUT}"),
        (HIGH, (0.2,) * 5, BELOW_OR_0, f"{BETTER} −0.25 [−0.50, +0.00]."),
        (LOW, (-0.2,) * 5, HIGH, f"{WORSE} +0.26 [+0.01, +0.51].{OVERRATES}"),
        (LOW, (-0.2,) * 5, ABOVE_OR_0, f"{WORSE} +0.25 [+0.00, +0.50]."),
        (LOW, (-0.2,) * 5, LOW, f"{WORSE} −0.26 [−0.51, −0.01]."),
        (
            ABOVE_OR_0, (0.5, 0.7, 1.2, 0, -0.9), HIGH,
            f"{EITHER} +0.26 [+0.01, +0.51].{NO_GAIN}",
        ),
        (
            ABOVE_OR_0, (0.5, 0.7, 1.2, 0, -0.9), ABOVE_OR_0,
            f"{EITHER} +0.25 [+0.00, +0.50].",
        ),
        (
            ABOVE_OR_0, (0.5, 0.7, 1.2, 0, -0.9), LOW,
            f"{EITHER} −0.26 [−0.51, −0.01].",
        ),
    ],
)  # fmt: skip
def test_a_verdict_word_for_word(gold, pairs, reward, said):
    rows = [
        row("bon", mean_gold=Estimate(0, 0, 0), mean_reward=Estimate(0, 0, 0)),
        row("entrgi", mean_gold=gold, mean_reward=reward, pairs=pairs),
    ]
    assert table.verdict(rows) == f"EntRGi against Best-of-N: {said}\n\n{table.RULE}"


def test_too_few_to_decide_are_counted():
    size = table.Size(63, 2, 1)
    (_, mine) = rows = [
        row("aps", mean_gold=HIGH, mean_reward=HIGH, size=size, baseline="aps"),
        row("mine", mean_gold=HIGH, mean_reward=HIGH, size=size, pairs=[0.2], baseline="aps"),
    ]
    assert (
        table.verdict(rows)
        == """\
mine against APS: CANNOT TELL.
  Mean gold +0.26 [+0.01, +0.51] points, above 0 on 1 of 1 pair; mean reward +0.26 [+0.01, +0.51].
  Too few to decide: 63 of 64 prompts, 2 of 3 seeds, 1 of 5 pairs.

The rule: the difference in mean gold decides. Better: its interval is above 0, and so is every
pair. Worse: both are below. All else cannot be told apart. At least 64 prompts, 3 seeds and
5 pairs of networks."""
    )
    assert table.decision(mine) == "cannot tell"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((1, 1), "1 prompt x 1 seed on one pair of networks"),
        ((2, 3, 1), "2 prompts x 3 seeds on one pair of networks"),
        ((0, 2, 2), "0 prompts x 2 seeds on each of 2 pairs of networks"),
    ],
)
def test_a_size_in_words(size, said):
    assert str(table.Size(*size)) == said


def answered(method, idx, seed, *, K=4, pair="a", seconds=0.5):
    """A record whose measures are whole numbers."""
    best = idx + 10 * seed + (method == "entrgi")
    return {
        "method": method, "testbed": pair, "idx": idx, "seed": seed,
        "rewards": [best, *[best - 1.0] * (K - 1)], "gold": [7.0, *[3.0] * (K - 1)],
        "log_likelihood": [-2.0] * K, "valid": [True] * (K - 1) + [False],
        "timing": {"seconds_per_prompt": seconds},
    }  # fmt: skip


TABLE = """\
Reward and gold:

| Method    | K  | Top@1 (reward)       | Avg@K (reward)       | Gold of the best (points) \
| Gold, mean (points) |
| --------- | -: | -------------------: | -------------------: | ------------------------: \
| ------------------: |
| Best-of-N |  4 | 10.50 [10.00, 11.00] |   9.75 [9.25, 10.25] |         7.00 [7.00, 7.00] \
|   4.00 [4.00, 4.00] |
| EntRGi    |  4 | 11.50 [11.00, 12.00] | 10.75 [10.25, 11.25] |         7.00 [7.00, 7.00] \
|   4.00 [4.00, 4.00] |

Fluency and cost:

| Method    | K  | Log-likelihood (nats/token) | Valid (share)        | Seconds per prompt \
| Time / EntRGi's |
| --------- | -: | --------------------------: | -------------------: | -----------------: \
| --------------: |
| Best-of-N |  4 |        −2.00 [−2.00, −2.00] | 0.750 [0.750, 0.750] |              0.500 \
|            0.25 |
| EntRGi    |  4 |        −2.00 [−2.00, −2.00] | 0.750 [0.750, 0.750] |              2.000 \
|            1.00 |

Difference to Best-of-N, prompt by prompt:

| Method | K  | Top@1 (reward)       | Avg@K (reward)       | Gold of the best (points) \
| Gold, mean (points)  |
| ------ | -: | -------------------: | -------------------: | ------------------------: \
| -------------------: |
| EntRGi |  4 | +1.00 [+1.00, +1.00] | +1.00 [+1.00, +1.00] |      +0.00 [+0.00, +0.00] \
| +0.00 [+0.00, +0.00] |

| Method | K  | Log-likelihood (nats/token) | Valid (share)           |
| ------ | -: | --------------------------: | ----------------------: |
| EntRGi |  4 |        +0.00 [+0.00, +0.00] | +0.000 [+0.000, +0.000] |

2 prompts x 1 seed on one pair of networks. Brackets are 95% intervals: a percentile bootstrap over
the prompts, of each prompt's mean over the seeds; for the seconds Student's, over the seeds. They
are conditional on one trained pair of networks: another can change the order of the methods.
"""


def test_a_table_word_for_word():
    """Of one pair of networks; one seed has no interval of the seconds."""
    records = [
        answered(method, idx, 1, seconds=seconds)
        for method, seconds in (("bon", 0.5), ("entrgi", 2.0))
        for idx in (0, 1)
    ]
    assert table.markdown(table.summarise(records)) == TABLE


def test_intervals_over_pairs_are_named_as_such():
    records = [
        answered(method, 0, 1, pair=pair) for pair in ("a", "b") for method in ("bon", "entrgi")
    ]
    size = "1 prompt x 1 seed on each of 2 pairs of networks"
    text = f"\n\n{size}. {table.ON_PAIRS}\n"
    assert table.markdown(table.summarise(records)).endswith(text)


def test_a_baseline_alone_is_compared_with_nothing():
    (alone,) = table.summarise([answered("bon", 0, 1), answered("bon", 0, 2)])
    assert (alone.size, alone.trajectories) == (table.Size(1, 2, 1), 4)
    assert math.isnan(alone.time_ratio)
    assert table.verdict([alone]) == table.RULE


def test_records_may_come_in_any_order():
    """What is compared is of one prompt and seed, on one pair; a pair is all that is said of it."""
    records = [
        {
            **answered(method, idx, seed, pair=pair, K=K),
            "gold": [idx**2 * seed * K, *[0.0] * (K - 1)],
        }
        for pair in ("one, and a reward", "one, and another")
        for method, K in (("bon", 4), ("aps", 3))
        for seed in (1, 2)
        for idx in (0, 1, 2)
    ]
    rows = table.summarise(records)
    assert rows[0].size == table.Size(3, 2, 2)
    shuffled = records[:6] + records[11:5:-1] + records[12:18] + records[:17:-1]
    assert repr(table.summarise(shuffled)) == repr(rows)
    alone = records[:12]
    assert repr(table.summarise(alone[:6] + alone[:5:-1])) == repr(table.summarise(alone))


def test_a_pair_counts_with_its_mean_over_prompts_and_seeds():
    """Not with the middle one, which a few large differences do not move."""
    pairs = {"first": 1, "second": 2}
    records = [
        answered(method, idx, seed, pair=pair, seconds=(1, 1, 7)[seed] * factor)
        | {"gold": [(method == "entrgi") * (factor * idx**2 + seed**2)] * 4}
        for pair, factor in pairs.items()
        for method in ("bon", "entrgi")
        for seed in (0, 1, 2)
        for idx in (0, 1, 2)
    ]
    expected = [5 / 3 * factor + 5 / 3 for factor in pairs.values()]
    _, row = table.summarise(records)
    assert row.by_pair["gold_mean"] == pytest.approx(expected)
    for found in (row.differences["gold_mean"], row.measures["gold_mean"]):
        assert vars(found) == pytest.approx(vars(student(np.array(expected))))
    assert row.seconds.mean == 4.5
    _, alone = table.summarise(records[:18])
    assert alone.by_pair["gold_mean"] == pytest.approx(expected[:1])
    assert alone.seconds.mean == 3


def test_times_are_compared_seed_by_seed():
    """The middle one of the ratios, which is not the ratio of the middle ones."""
    took = {"bon": (2, 8, 4), "entrgi": (1, 1, 4)}
    records = [
        answered(method, idx, seed, seconds=seconds)
        for method, each in took.items()
        for seed, seconds in enumerate(each)
        for idx in (0, 1)
    ]
    assert [row.time_ratio for row in table.summarise(records)] == [2, 1]


def test_each_method_has_its_own_number_of_answers():
    records = [answered("bon_equal_compute", 0, 1, K=7), answered("entrgi", 0, 1, K=3)]
    found = table.summarise(records, baseline="entrgi")
    assert [each.trajectories for each in found] == [7, 3]


# The demo


def test_the_methods_of_the_demo():
    """Equal compute: EntRGi's 106 readings for each of 4 answers buy 26.5 unguided ones of 16."""
    costs = Costs(denoiser=1, reward=1)
    assert demo_module.methods_of(BASE, SimpleNamespace(costs=costs)) == {
        "bon": BASE.guided(steps=0),
        "bon_equal_compute": replace(BASE.guided(steps=0), trajectories=27),
        "expectation": BASE.guided(weight="expectation"),
        "aps": BASE.guided(weight="aps"),
        "entrgi": BASE,
    }
    few = replace(BASE.guided(steps=1), trajectories=2)  # 46 for each of 2 buy 5.75
    found = demo_module.methods_of(few, SimpleNamespace(costs=costs))
    assert found["bon_equal_compute"] == replace(few.guided(steps=0), trajectories=6)
    assert (found["bon"], found["entrgi"]) == (few.guided(steps=0), few)


def test_a_comparison_is_of_one_pair_unless_more_are_asked_for():
    asked = []
    pretended = SimpleNamespace(pairs=lambda count: asked.append(count) or iter(()))
    for pairs in ({}, {"pairs": 40}):
        assert [*demo_module.compare(pretended, {"entrgi": BASE}, ["a"], [1], **pairs)] == []
    assert asked == [1, 40]


def test_a_batch_is_timed_from_its_start_to_its_end(monkeypatch):
    times = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(demo_module, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    monkeypatch.setattr(demo_module, "generate", lambda d, r, prompts, config: config.seed)
    monkeypatch.setattr(demo_module, "records_of", lambda *given: [given])
    pretended = SimpleNamespace(denoiser=None, reward=None)
    found = [*demo_module._compared(pretended, {"aps": BASE}, ["a"], [5, 6])]
    assert found == [(pretended, "aps", 5, 3.0), (pretended, "aps", 6, 1.0)]


def test_the_panels_of_a_trace_are_of_the_best_trajectory(monkeypatch):
    configs = {"bon": replace(BASE.guided(steps=0), trajectories=3), "entrgi": BASE}
    answers = {
        0: ([0.25, 0.75, -1.0], ["a whale", "the whale finds the knight", "a fox"]),
        3: ([1.5, 0.75, -1.0], ["the whale a", "a whale", "a fox"]),
    }

    def generate(denoiser, reward, prompts, config, observe):
        assert prompts == ["sea castle gloomy"]
        observe(config)
        rewards, responses = answers[config.constant_guidance.steps]
        return SimpleNamespace(rewards=torch.tensor([rewards]), responses=[responses])

    class Recorder:
        def __init__(self, denoiser):
            self.seen = []

        def __call__(self, record):
            self.seen.append(record)

        def frames(self, row):
            return [*self.seen, row]

    monkeypatch.setattr(demo_module, "generate", generate)
    monkeypatch.setattr(demo_module, "Recorder", Recorder)
    pretended = SimpleNamespace(denoiser=None, reward=None)
    assert demo_module.trajectories(pretended, configs, "sea castle gloomy") == [
        {
            "title": "Unguided",
            "subtitle": "Best-of-N: the best of 3 trajectories, "
            "0 gradient steps per denoising step",
            "frames": [configs["bon"], 1],
            "results": {
                "reward of the answer": "0.75",
                "gold score": "2.00 points",
                "grammatical": "yes",
            },
        },
        {
            "title": "Guided by EntRGi",
            "subtitle": "EntRGi: the best of 4 trajectories, 3 gradient steps per denoising step",
            "frames": [BASE, 0],
            "results": {
                "reward of the answer": "1.50",
                "gold score": "-1.00 points",
                "grammatical": "no",
            },
        },
    ]


NOTES = """\
Held-out prompts; T = 16, M = 3, eta = 0.5, tau = 0.7, top_p = 0.95, order entropy. The pair of \
networks: pretended networks.

Top@1, Avg@K and the choice of the best answer are by the guiding reward model, in standard
deviations of its training scores. Gold is the score that a program gives. Log-likelihood is the
mask predictor's own. Best-of-N at equal compute gets as many trajectories as EntRGi's cost buys,
counted as positions x parameters without embeddings, a backward pass as one forward pass.
"""


def test_the_demos_files_hold_what_was_found(monkeypatch, tmp_path):
    plan, prompts = Plan(prompts=17, seeds=(1, 2)), held_out_prompts(17)
    methods = {"bon": BASE.guided(steps=0), "entrgi": BASE}
    records = [
        answered(method, idx, seed, seconds=seconds)
        for seed in plan.seeds
        for method, seconds in (("bon", 0.5), ("entrgi", 2.0))
        for idx in range(17)
    ]
    warmed, drawn, said = [], [], []
    stubs = {
        "methods_of": lambda base, testbed: methods,
        "generate": lambda denoiser, reward, prompts, config: warmed.append(prompts),
        "compare": lambda testbed, m, p, seeds: (
            iter(records) if (p, seeds) == (prompts, (1, 2)) else 1
        ),
        "errors_by_step": lambda testbed, methods, prompts: {"entrgi": [(1, len(prompts))]},
        "draw_demo": lambda rows, curves, light, dark: drawn.append((light.name, dark.name)),
        "trajectories": lambda testbed, methods, prompt: [{"title": prompt}],
        "trace_page": lambda prompt, panels: f"{prompt}: {panels}",
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(demo_module, name, stub)
    monkeypatch.setattr(sys, "argv", ["toy", "--quick", "--out", "there"])
    pretended = SimpleNamespace(description="pretended networks", denoiser=None, reward=None)
    text, files = demo_module.run_demo(pretended, BASE, plan, tmp_path, said.append)
    assert warmed == [prompts[:1]]  # once, as the first calls are slow
    assert said == [
        "seed 1, Best-of-N: 17 prompts in 8.5 s",
        "seed 1, EntRGi: 17 prompts in 34.0 s",
        "seed 2, Best-of-N: 17 prompts in 8.5 s",
        "seed 2, EntRGi: 17 prompts in 34.0 s",
    ]
    names = ["table.md", "records.jsonl", "run.json", "figure.svg", "figure-dark.svg"]
    assert files == [tmp_path / name for name in [*names, "trace.json", "trace.html"]]
    assert drawn == [("figure.svg", "figure-dark.svg")]
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    rows = table.summarise(records)
    assert found["table.md"] == text == f"{table.markdown(rows)}\n{NOTES}"
    assert [json.loads(line) for line in found["records.jsonl"].splitlines()] == records
    where = provenance(BASE, "pretended networks", 17, (1, 2))
    assert where["command"] == "python -m toy --quick --out there"
    each = [demo_module.row_record(row) for row in rows]
    kept = {**where, "rows": each, "errors_by_step": {"entrgi": [[1, 16]]}}
    assert json.loads(found["run.json"]) == kept
    panels = [{"title": prompts[0]}]
    traced = {**where, "prompt": prompts[0], "panels": panels}
    assert json.loads(found["trace.json"]) == traced
    assert found["trace.html"] == f"{prompts[0]}: {panels}"
    assert each[1]["timing"] == {
        "seconds_per_prompt": {"mean": 2.0, "low": 2.0, "high": 2.0},
        "ratio_to_entrgi": 1.0,
    }
    assert "eta = 2 (sgd), tau" in demo_module._notes(
        plan, BASE.guided(step_size=2.0, optimiser="sgd"), pretended
    )


def test_a_record_says_where_its_numbers_come_from(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["-m", "dial", "--threads", "1"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr("toy.record.commit", lambda: "abc")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    found = provenance(BASE, "networks", 3, (1, 2))
    assert found == {
        "command": "python -m toy dial --threads 1",
        "commit": "abc",
        "testbed": "networks",
        "prompts": 3,
        "seeds": [1, 2],
        "settings": json.loads(BASE.to_json()),
        "versions": {"python": "3.11.7", "torch": torch.__version__},
        "machine": "x86_64, 3 threads of a CPU",
    }
    write_record(tmp_path / "run.json", {"a": {"b": [1]}})
    assert (tmp_path / "run.json").read_text() == '{\n "a": {\n  "b": [\n   1\n  ]\n }\n}\n'


def test_the_seconds_of_a_method_are_its_own(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(demo_module.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(demo_module, "generate", lambda *given: given[-1].seed)
    monkeypatch.setattr(demo_module, "records_of", lambda *given: [given[1:]])
    pretended = SimpleNamespace(denoiser=None, reward=None)
    methods = dict.fromkeys(("bon", "aps", "entrgi"), BASE)
    found = list(demo_module._compared(pretended, methods, ["a"], [1, 2]))
    assert found == [(method, seed, 1.0) for seed in (1, 2) for method in methods]


def test_numbers_that_are_not_finite_are_null_in_a_record(tmp_path):
    alone = asdict(Estimate(3.0, math.nan, math.nan))
    rows = {"rows": [alone, (np.float64("inf"), np.float64(1.5))], "word": "nan"}
    write_record(tmp_path / "run.json", rows)

    def refused(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "run.json").read_text(), parse_constant=refused)
    alone |= {"low": None, "high": None}
    assert found == {"rows": [alone, [None, 1.5]], "word": "nan"}


# What the studies say

SOME = Estimate(0.12345, -0.98765, 1.5)
SHOWN_2 = "0.12 [−0.99, 1.50]"
SHOWN_3 = "0.123 [−0.988, 1.500]"
SIGNED_2 = "+0.12 [−0.99, +1.50]"
SIGNED_3 = "+0.123 [−0.988, +1.500]"


def setting(options=None, *, quick=True, description="pretended networks", **more):
    """What a study is given, without networks."""
    said = []
    pretended = SimpleNamespace(description=description, denoiser="denoiser", **more)
    return Setting(lambda seed, pairs=1: pretended, 10, quick, options or {}, said.append), said


def test_the_gradients_are_shown_as_a_table(monkeypatch):
    agreement = exact.Agreement(SOME, Estimate(0.5, 0.25, 0.75), Estimate(2, 1.999, 3))
    seen = []

    def agreements(*given):
        seen.append(given)
        return {"aps": agreement, "w = 0.5": agreement}

    monkeypatch.setattr(exact, "agreements", agreements)
    given, _ = setting({"states": 3, "draws": 5, "seed": 7})
    found = exact.study(given)
    base = replace(BASE, seed=7)
    assert seen == [(given.testbed, base, 3, 5)]
    assert (
        found.text
        == f"""\
| Weight | Cosine, mean of draws | Cosine, one draw | Relative bias |
| --- | ---: | ---: | ---: |
| APS | {SHOWN_2} | 0.50 [0.25, 0.75] | 2.00 [2.00, 3.00] |
| w = 0.5 | {SHOWN_2} | 0.50 [0.25, 0.75] | 2.00 [2.00, 3.00] |

3 states x 5 draws; pretended networks."""
    )
    assert found.rows["aps"]["bias"] == {"mean": 2, "low": 1.999, "high": 3}
    assert (found.base, found.prompts, found.seeds, found.more) == (base, 3, [7], {"draws": 5})


def test_the_effects_of_the_ledger_are_shown_as_a_table(monkeypatch):
    effect = {"tokens": SOME, "average": SOME, "gold_mean": SOME, "valid": SOME}
    monkeypatch.setattr(
        ledger,
        "effects",
        lambda testbed, base, prompts, seeds: {f"{len(prompts)}, {seeds}": effect},
    )
    found = ledger.study(setting()[0])
    assert (
        found.text
        == f"""\
| Row, and what is done otherwise | Tokens that change | Avg@K (reward) | Gold, mean (points) | \
Valid (share) |
| --- | ---: | ---: | ---: | ---: |
| 16, (1,) | {SHOWN_3} | {SIGNED_2} | {SIGNED_2} | {SIGNED_3} |"""
    )
    assert found.rows["16, (1,)"]["tokens"] == vars(SOME)
    assert (found.prompts, found.seeds, found.more) == (16, (1,), {})


def test_leading_runs_are_shown_as_a_table(monkeypatch):
    shares = {"row": SOME, "prompt": Estimate(0.5, 0.25, 0.75)}
    monkeypatch.setattr(
        leading, "lengths", lambda testbed, base, prompts, seeds: {f"{len(prompts)}": shares}
    )
    found = leading.study(setting(quick=False)[0])
    assert (
        found.text
        == f"""\
| order | leading committed run, share of the answer | shortest of a prompt's |
| --- | ---: | ---: |
| 64 | {SHOWN_3} | 0.500 [0.250, 0.750] |"""
    )
    assert found.rows == {"64": {name: vars(each) for name, each in shares.items()}}
    assert (found.prompts, found.seeds) == (64, (1, 2, 3))


def test_leading_runs_are_averaged_for_each_prompt(monkeypatch):
    """Over steps, seeds and trajectories; the intervals are over prompts."""
    boards = [  # two prompts with two trajectories each, before two steps; 1 is masked
        [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]],
        [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1]],
    ]

    asked = []

    def generate(denoiser, reward, prompts, config, observe):
        asked.append((config.order, config.seed))
        for board in boards:
            observe(SimpleNamespace(masked=torch.tensor(board) > 0))

    monkeypatch.setattr(leading, "generate", generate)
    base = replace(BASE, trajectories=2, new_tokens=4)
    pretended = SimpleNamespace(denoiser=None, reward=None)
    found = leading.lengths(pretended, base, ["a", "b"], [1, 2])
    rows = np.array([(0 + 1 + 2 + 4) / 4, (2 + 3 + 1 + 3) / 4]) / 4
    shortest = np.array([(0 + 2) / 2, (2 + 1) / 2]) / 4
    expected = {"row": bootstrap(rows), "prompt": bootstrap(shortest)}
    assert found == dict.fromkeys((*ORDERS, "origin"), expected)
    assert asked == [(order, seed) for order in found for seed in (1, 2)]


def test_effects_are_differences_of_prompts(monkeypatch):
    """Of all seeds together; a change counts as the share of tokens that are others."""
    changed = {1: [[[1, 1, 0, 0], [0, 0, 0, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]]}
    changed[2] = [[[0, 0, 0, 0]] * 2, [[1, 0, 0, 0]] * 2]

    def generate(denoiser, reward, prompts, config):
        tokens = torch.tensor(changed[config.seed]) * (config.order == "anchor")
        return SimpleNamespace(config=config, tokens=tokens + 10 * config.seed)

    def records_of(testbed, name, generation, seconds):
        more, seed = 5.0 * (name == "other"), generation.config.seed
        found = [answered(name, idx, seed) for idx in (0, 1)]
        return [{**each, "rewards": [each["idx"] * more + seed, 0.0]} for each in found]

    monkeypatch.setattr(ledger, "generate", generate)
    monkeypatch.setattr(ledger, "records_of", records_of)
    monkeypatch.setattr(ledger, "variants", lambda base: {"other": replace(base, order="anchor")})
    pretended = SimpleNamespace(denoiser=None, reward=None)
    assert ledger.effects(pretended, BASE, ["a", "b"], [1, 2]) == {
        "other": {
            "tokens": bootstrap(np.array([(2 / 8 + 0) / 2, (7 / 8 + 2 / 8) / 2])),
            "average": bootstrap(np.array([0.0, 2.5])),
            "gold_mean": Estimate(0, 0, 0),
            "valid": Estimate(0, 0, 0),
        }
    }


def test_the_dial_is_shown_as_a_table(monkeypatch):
    places = [(w, M) for M in (0, 1, 2) for w in (0.0, 0.25, "entropy")]
    rows = [
        {"w": w, "M": M, "measures": {"gold_mean": vars(Estimate(M, -M, 10.125))}}
        for w, M in places
    ]
    monkeypatch.setattr(dial, "WEIGHTS", (0.0, 0.25, "entropy"))
    monkeypatch.setattr(dial, "turn", lambda testbed, base, prompts, seeds: rows)
    found = dial.study(setting()[0])
    one, two = "1.00 [−1.00, 10.12]", "2.00 [−2.00, 10.12]"
    assert (
        found.text
        == f"""\
| Gold, mean | M = 1 | M = 2 |
| --- | ---: | ---: |
| w = 0 | {one} | {two} |
| w = 0.25 | {one} | {two} |
| w = H / log K | {one} | {two} |"""
    )
    assert found.rows == rows


def test_the_places_of_the_dial_are_those_of_its_record():
    record = committed.read("dial")["rows"]
    places = [(place["w"], place["M"]) for place in record]
    assert places == [("entropy", 0)] + [(w, M) for M in dial.GRADIENT_STEPS for w in dial.WEIGHTS]


def test_readings_are_shown_side_by_side(monkeypatch):
    measures = dict.fromkeys(("valid", "gold_mean", "average", "log_likelihood"), SOME)
    readings = {"own": measures, "own, guided": measures}
    answers = [
        {"prompt": "sky desert grand", "own": "a fox guards a oryx", "one off": "fox a"},
        {"prompt": "sea desert grand", "own": "a whale", "one off": "a"},
    ]
    seen = []

    def one_step(*given):
        seen.append(given)
        return {"a": "step"}

    monkeypatch.setattr(shift, "read_both", lambda *given: (readings, answers))
    monkeypatch.setattr(shift, "one_step", one_step)
    found = shift.study(setting()[0])
    cells = f"{SHOWN_3} | {SHOWN_2} | {SHOWN_2} | {SHOWN_2}"
    assert (
        found.text
        == f"""\
| read | Valid (share) | Gold, mean (points) | Avg@K (reward) | Log-likelihood (nats/token) |
| --- | ---: | ---: | ---: | ---: |
| as it was trained | {cells} |
| the same, guided | {cells} |

| prompt | read as it was trained | read one off |
| --- | --- | --- |
| sky desert grand | a fox guards a oryx | **fox** **a** |
| sea desert grand | a whale | a |"""
    )
    assert found.rows["own"]["valid"] == vars(SOME)
    assert found.more == {"answers": answers, "step": {"a": "step"}}
    first = ["a", "fox", "guards", "a", "oryx", *["<eos>"] * 11]
    assert seen == [("denoiser", held_out_prompts(1)[0], first)]


def pretended_answers(monkeypatch, module):
    """Answers that say how they were made, and records of numbers that depend on it."""

    def generate(denoiser, reward, prompts, config):
        assert reward == "reward"
        how = denoiser, config.constant_guidance.steps, config.seed
        return SimpleNamespace(
            config=config, how=how, responses=[[f"{prompt} {how}", "-"] for prompt in prompts]
        )

    def records_of(testbed, name, generation, seconds):
        denoiser, steps, seed = generation.how
        assert seconds == 0
        place = 100 * (denoiser != "own") + 1000 * steps
        found = [answered(name, idx, seed) for idx in range(len(generation.responses))]
        return [{**each, "rewards": [place + seed + each["idx"], 0.0]} for each in found]

    monkeypatch.setattr(module, "generate", generate)
    monkeypatch.setattr(module, "records_of", records_of)


def test_readings_are_of_all_seeds_and_answers_of_the_first(monkeypatch):
    """The unguided ones, of three prompts at most."""
    pretended_answers(monkeypatch, shift)
    monkeypatch.setattr(shift, "OneOff", lambda network: f"one off {network}")
    denoiser = type("Own", (str,), {"network": "network"})("own")
    testbed = SimpleNamespace(denoiser=denoiser, reward="reward")
    prompts = ["a", "b", "c", "d"]
    found, answers = shift.read_both(testbed, BASE, prompts, [5, 2])
    assert answers == [
        {"prompt": prompt, "own": f"{prompt} {('own', 0, 5)}"}
        | {"one off": f"{prompt} {('one off network', 0, 5)}"}
        for prompt in prompts[:3]
    ]
    each = np.arange(4) + 3.5
    assert {name: measures["average"] for name, measures in found.items()} == {
        "own": bootstrap(each / 2),
        "own, guided": bootstrap((each + 3000) / 2),
        "one off": bootstrap((each + 100) / 2),
        "one off, guided": bootstrap((each + 3100) / 2),
    }


def test_places_of_the_dial_are_of_all_seeds(monkeypatch):
    pretended_answers(monkeypatch, dial)
    testbed = SimpleNamespace(denoiser="own", reward="reward")
    rows = dial.turn(testbed, BASE, ["a", "b"], [1, 4])
    assert [(row["w"], row["M"]) for row in rows] == [
        *[("entropy", 0)],
        *itertools.product(dial.WEIGHTS, (1,)), *itertools.product(dial.WEIGHTS, (2,)),
        *itertools.product(dial.WEIGHTS, (3,)), *itertools.product(dial.WEIGHTS, (4,)),
        *itertools.product(dial.WEIGHTS, (6,)), *itertools.product(dial.WEIGHTS, (8,)),
    ]  # fmt: skip
    for row in rows:
        expected = bootstrap((np.array([2.5, 3.5]) + 1000 * row["M"]) / 2)
        assert row["measures"]["average"] == vars(expected)
        assert list(row["measures"]) == ["top1", "average", "gold_best", "gold_mean", "valid"]


def test_the_blanks_of_one_step_are_those_of_its_record():
    record = committed.read("shift")
    step = record["step"]["words"]
    assert [i for i, word in enumerate(step) if word == "<mask>"] == [*shift.BLANKS]
    assert len(record["answers"]) == shift.EXAMPLES


class Numbered(torch.nn.Module):
    """Says another word at each position: the one with the position's number, and 10 more."""

    def __init__(self):
        super().__init__()
        self.read = []

    def forward(self, tokens, masked):
        self.read.append([VOCABULARY[token] for token in tokens[0].tolist()])
        said = torch.arange(10, 10 + masked.shape[1])[masked[0]]
        return torch.nn.functional.one_hot(said, len(VOCABULARY)).float()


def test_what_is_read_of_one_step_has_its_blanks_in_the_answer():
    network = Numbered()
    answer = ["a", "fox", "guards", "a", "oryx", *["<eos>"] * 11]
    found = shift.one_step(ToyDenoiser(network), "sky desert grand", answer)
    words = ["a", "fox", "<mask>", "<mask>", "oryx", *["<eos>"] * 11]
    assert found["words"] == words
    assert network.read == [["sky", "desert", "grand", *words]] * 2
    assert found["own"] == list(VOCABULARY[13:29])
    assert found["one off"] == list(VOCABULARY[12:28])


def asked_of_spread(**more):
    nothing = {"prompts": None, "seeds": "", "methods": "", "baseline": "bon", "constants": ""}
    return {"pairs": 2, "gradient_steps": 3, **nothing, **more}


@pytest.fixture
def spread_out(monkeypatch):
    """`spread` on two pretended pairs: what it compares is noted, and each number is made up."""
    seen = []

    def compare(testbed, methods, prompts, seeds, *, baseline):
        seen.append((testbed.description, methods, len(prompts), seeds))
        for number, method in enumerate(methods):
            for idx, seed in itertools.product(range(len(prompts)), seeds):
                record = answered(method, idx, seed, pair=testbed.description)
                more = 0.25 * number * (1 + (testbed.description == "second"))
                record["gold"] = [gold + more for gold in record["gold"]]
                yield {**record, "rewards": [1.0, *[0.0] * 3], "baseline": baseline}

    def known(base, testbed):
        names = ("bon", "bon_equal_compute", "expectation", "aps", "entrgi")
        return {name: (name, base.constant_guidance.steps) for name in names}

    monkeypatch.setattr(spread, "compare", compare)
    monkeypatch.setattr(spread, "methods_of", known)
    monkeypatch.setattr(spread, "mean_weight", lambda testbed, *_: len(testbed.description) / 10)
    pairs = [SimpleNamespace(description=name) for name in ("first", "second")]

    def study(**more):
        asked, loads = asked_of_spread(**more), []
        given, said = setting(asked)
        first = SimpleNamespace(description="first", pairs=lambda count: iter(pairs[:count]))
        given = replace(given, load=lambda seed, pairs: loads.append((seed, pairs)) or first)
        found = spread.study(given)
        assert loads == [(10, asked["pairs"])]
        assert said == ["answered by first", "answered by second"]
        return found, seen

    return study


def test_spread_compares_all_methods_with_best_of_n(spread_out):
    found, seen = spread_out()
    names = ["bon", "bon_equal_compute", "expectation", "aps", "entrgi"]
    methods = {name: (name, 3) for name in names}
    assert seen == [("first", methods, 16, (1,)), ("second", methods, 16, (1,))]
    assert list(found.rows) == names[1:]
    assert found.rows["entrgi"] == {
        "top1": [0, 0], "average": [0, 0], "gold_best": [1, 2], "gold_mean": [1, 2]
    }  # fmt: skip
    shown = "+0.00 [+0.00, +0.00], +0.00 to +0.00"
    assert found.text.startswith("""\
Difference to Best-of-N over 2 trained pairs: mean [95% interval over the pairs], smallest to \
largest.
16 prompts x 1 seed on each of 2 pairs of networks.

| Method | Top@1 (reward) | Avg@K (reward) | Gold of the best (points) | Gold, mean (points) |
| --- | ---: | ---: | ---: | ---: |
""")
    lines = found.text.splitlines()
    gold = "+1.50 [−4.85, +7.85], +1.00 to +2.00"
    assert lines[8] == f"| EntRGi | {shown} | {shown} | {gold} | {gold} |"
    assert lines[10] == "Best-of-N, equal compute against Best-of-N: CANNOT TELL."
    assert found.text.endswith(table.RULE)
    assert found.testbed == "2 pairs, the first of them: first"
    assert (found.prompts, found.seeds, found.more) == (16, (1,), {"baseline": "bon"})


def test_spread_takes_the_methods_the_constants_and_the_baseline_that_are_named(spread_out):
    own = "toy.exact:constant_half"
    found, seen = spread_out(
        methods=f"aps,entrgi,{own}", baseline="aps", constants="0,1,mean", prompts=3, seeds="4,5",
        gradient_steps=2,
    )  # fmt: skip
    base = BASE.guided(steps=2)
    for (_, methods, prompts, seeds), mean in zip(seen, (0.5, 0.6), strict=True):
        assert (prompts, [*seeds]) == (3, [4, 5])
        half = methods.pop("constant_half")
        assert (half.guidance.steps, half.guidance.weight.module) == (2, "toy.exact")
        assert methods == {
            "aps": ("aps", 2),
            "entrgi": ("entrgi", 2),
            "w = 0": base.guided(weight=dial.Constant(0.0)),
            "w = 1": base.guided(weight=dial.Constant(1.0)),
            "w = EntRGi's mean": base.guided(weight=dial.Constant(mean)),
        }
    assert list(found.rows) == ["entrgi", "constant_half", "w = 0", "w = 1", "w = EntRGi's mean"]
    assert found.text.startswith("Difference to APS over 2 trained pairs")
    assert "3 prompts x 2 seeds on each of 2 pairs of networks.\n" in found.text
    assert (found.more["baseline"], found.more["mean_weight"]) == ("aps", [0.5, 0.6])
    assert found.more["own_weights"]["constant_half"]["function"] == "constant_half"
    assert (found.base, found.prompts, [*found.seeds]) == (base, 3, [4, 5])


@pytest.mark.parametrize(("seeds", "own"), [("1,2", 0), ("0,1,5", 2)])
def test_the_mean_weight_has_a_seed_of_its_own(spread_out, monkeypatch, seeds, own):
    asked = []
    mean = lambda testbed, base, prompts: asked.append(base.seed) or 0.5  # noqa: E731
    monkeypatch.setattr(spread, "mean_weight", mean)
    spread_out(seeds=seeds, constants="mean")
    assert asked == [own] * 2
    for constants in ("mean", "0.5,mean"):
        with pytest.raises(ValueError, match="constants: got mean with no gradient steps"):
            spread_out(seeds=seeds, constants=constants, gradient_steps=0)


@pytest.mark.parametrize("constant", ["-0.01", "1.01", "means", "nan"])
def test_constants_that_are_no_weights_are_refused(constant, spread_out):
    message = f"constants: got '{constant}', expected numbers in .0, 1., or mean"
    with pytest.raises(ValueError, match=message):
        spread_out(constants=constant)
