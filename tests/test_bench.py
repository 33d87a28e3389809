"""The command `bench`: that what is timed is what it says."""

import inspect
import json
import math
import os
import statistics
import time
import warnings
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from paper_runs import invoke

from building.records import ROOT
from entrgi_ref import GuidanceConfig, generate, guidance
from entrgi_ref.fast import adam, rows
from entrgi_ref.fast import draw as fast_draw
from entrgi_ref.fast import nucleus as fast_nucleus
from entrgi_ref.fast.gradient import logit_gradient
from entrgi_ref.paper.declared.memory import predicted_memory
from entrgi_ref.paper.measured import bench as benching
from entrgi_ref.paper.measured import command, networks, scaling, switches
from entrgi_ref.paper.measured.bench import Bench
from entrgi_ref.paper.measured.networks import SHAPES, Shape, Sizes, Words
from entrgi_ref.paper.measured.scaling import expected_seconds, slope
from entrgi_ref.relaxation import entropy_weight, token_distribution

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # its tokenizer is none of transformers

FEW = Sizes(width=16, layers=1, inner=32, heads=2, key_value_heads=1, head=8)
SMALL = Shape(50, 6, 2, 2, 4, 6, FEW, FEW, gradient_steps=2)
TOY = ("bench", "--shape", "toy", "--threads", "1")
PARTS = {"denoiser", "reward_forward", "reward_backward", "rest"} | {
    *("softmax", "nucleus", "draw", "entropy", "gradient", "adam")
}
KEYS = (
    "overhead_over_networks overhead_over_floor vocabulary_over_unavoidable tables "
    "seconds_per_step peak_memory_bytes parts matrix_rate network_operations"
).split()


def test_a_record_has_what_a_reader_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "toy", SMALL)
    text = invoke(*TOY, "--rounds", "2", "--json", tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(KEYS) <= set(found)
    assert set(found["parts"]) == PARTS
    for name in ("ours", "networks", "unavoidable"):
        assert len(found["seconds"][name]) == 2
        assert min(found["seconds"][name]) > 0
    assert f"{found['overhead_over_networks']:8.2f}" in text
    with pytest.raises(ValueError, match="did you mean 'wide'"):
        invoke("bench", "--shape", "wid")


def test_a_folder_in_place_of_the_record_is_refused_before_anything_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "bench", lambda *given: pytest.fail("it is timed"))
    with pytest.raises(ValueError, match=r"json: got .*, which is a folder"):
        invoke("bench", "--shape", "toy", "--json", tmp_path)


@pytest.mark.slow
def test_some_rows_at_a_time_are_what_is_timed():
    found = benching.bench(SMALL, torch.device("cpu"), rounds=1, vocabulary_batch=5)
    assert found["vocabulary_batch"] == 5
    bench = replace(Bench.of(SMALL, torch.device("cpu")), vocabulary_batch=0)
    with pytest.raises(ValueError, match="vocabulary_batch: got 0"):
        bench.ours()


def test_the_bare_networks_are_asked_what_we_ask_them():
    """The same calls on the same tokens: the denoiser's inputs are equal, the reward's in shape."""
    bench = Bench.of(SMALL, torch.device("cpu"))
    asked = {}
    for kind in ("ours", "bare"):
        calls = []

        def noted(module, arguments, options, calls=calls):
            tokens = options.get("input_ids")
            shape = tuple(options.get("inputs_embeds", tokens).shape)
            calls.append(
                (type(module).__name__, shape, None if tokens is None else tokens.tolist())
            )

        networks = (bench.denoiser.network.model, bench.reward.network.model)
        hooks = [n.register_forward_pre_hook(noted, with_kwargs=True) for n in networks]
        getattr(bench, kind)()
        for hook in hooks:
            hook.remove()
        asked[kind] = calls
    assert asked["ours"] == asked["bare"]
    guided = len(bench.steps.boards) * SMALL.gradient_steps
    assert len(asked["ours"]) == len(bench.steps.boards) + 1 + guided + 1


def test_the_peak_is_of_what_is_held_at_once():
    """The least of a few looks, as what else the process does can only add to it."""
    found = []
    for _ in range(3):
        with benching._peak(torch.device("cpu")) as peak:
            for _ in range(3):
                tables = torch.ones(16, 2**20)
                time.sleep(0.02)  # for the watcher to look
        assert len(tables) == 16
        del tables
        found.append(peak[0])
    assert 0.9 < min(found) / (16 * 2**20 * 4) < 2.5


@pytest.mark.slow
def test_scaling_has_a_line_for_each_size(tmp_path, monkeypatch):
    assert list(scaling.SIZES) == ["S", "N", "V", "prompt", "M", "T"]
    for size, grow in scaling.SIZES.items():
        shapes = [grow(SHAPES["wide"], factor) for factor in (1.0, 4.0)]
        values = [scaling.value_of(shape, size) for shape in shapes]
        assert values[1] == 4 * values[0]
    few = {name: scaling.SIZES[name] for name in ("S", "V")}  # the others would be no news
    monkeypatch.setattr(scaling, "SIZES", few)
    monkeypatch.setitem(SHAPES, "toy", replace(SMALL, denoising_steps=1))
    file = tmp_path / "bench.json"
    text = invoke(*TOY, "--rounds", "1", "--scaling", "--json", file)
    lines = json.loads(file.read_text())["scaling"]
    assert [line["values"] for line in lines] == [[4, 8, 16], [50, 100, 200]]
    assert all(len(line["seconds"]) == 3 for line in lines)
    assert f"{lines[0]['expected']:.2f}, {lines[0]['measured']:.2f}" in text


def test_what_a_run_should_take_grows_with_what_is_worked_on():
    """All in the vocabulary: linear in S, N, V, T; in M as M + 1 where a last draw is made."""
    base = SHAPES["wide"]
    wide = dict.fromkeys(("softmax", "nucleus"), 1.0)

    def grown(parts, **sizes):
        shape = replace(base, **sizes)
        return expected_seconds(parts, base, shape) / expected_seconds(parts, base, base)

    assert grown(wide, trajectories=8) == pytest.approx(2)
    assert grown(wide, vocabulary=2 * base.vocabulary) == pytest.approx(2)
    assert grown(wide, new_tokens=32) == pytest.approx(2)
    assert grown(wide, denoising_steps=16) == pytest.approx(2)
    assert grown(wide, prompt=160) == pytest.approx(1)
    assert grown(wide, gradient_steps=7) == pytest.approx(8 / 4)
    for name in ("softmax", "nucleus", "draw"):
        assert grown({name: 1.0}, gradient_steps=7) == pytest.approx(8 / 4)
    for name in ("entropy", "gradient", "adam"):
        assert grown({name: 1.0}, gradient_steps=6) == pytest.approx(2)
    assert grown({"head": 1.0}, vocabulary=2 * base.vocabulary, prompt=48) == pytest.approx(2)
    assert grown({"denoiser": 1.0}, prompt=48) == pytest.approx((48 + 16) / (16 + 16))
    assert grown({"denoiser": 1.0}, vocabulary=10, gradient_steps=9) == pytest.approx(1)
    assert grown({"rest": 1.0, "reward_forward": 3.0}, gradient_steps=6) == pytest.approx(7 / 4)
    assert slope((1, 2, 4), [3, 6, 12]) == pytest.approx(1)
    assert slope((1, 2, 4), [5, 5, 5]) == pytest.approx(0)


def test_what_only_a_gpu_can_do_is_refused_without_one():
    with pytest.raises(ValueError, match="faster: got True on cpu"):
        invoke("bench", "--shape", "toy", "--faster", "--device", "cpu")


def test_a_wrong_number_of_rows_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(Bench, "of", None)
    with pytest.raises(ValueError, match=r"vocabulary_batch: got 10+, expected an integer below"):
        invoke("bench", "--shape", "tiny", "--vocabulary-batch", 10**30, "--device", "cpu")


def test_each_trick_can_be_switched_off(monkeypatch):
    """And what is off is off: then the plain version is called. Tokens stay what they were."""
    monkeypatch.setattr(adam, "LARGE", 10)
    shape = replace(SMALL, vocabulary=4100, prompts=1, trajectories=1, denoising_steps=1)
    bench = Bench.of(shape, torch.device("cpu"))
    ratios = switches.switched(bench, torch.device("cpu"), rounds=1)
    assert set(ratios) == {"nucleus", "draw", "rows", "gradient", "adam"}
    asked = bench.denoiser, bench.reward, bench.prompts, bench.config
    expected = generate(*asked).tokens
    called = {"nucleus": (fast_nucleus, "_last"), "draw": (fast_draw, "_first")}
    for name in ratios:
        with switches.without(name), monkeypatch.context() as patch:
            if name in called:
                patch.setattr(*called[name], None)  # would be an error if it were called
            assert torch.equal(generate(*asked).tokens, expected), name
    with switches.without("rows"):
        assert min(rows.AT_A_TIME.values()) > 2**60
    with switches.without("gradient"):
        assert guidance.logit_gradient is switches.by_autograd


def test_the_gradient_by_autograd_is_the_closed_form():
    g = torch.Generator().manual_seed(0)
    q = torch.randn(3, 50, generator=g, dtype=torch.float64).softmax(-1)
    embeddings = torch.randn(50, 4, generator=g, dtype=torch.float64)
    slope, soft = torch.randn(3, 4, generator=g, dtype=torch.float64), q @ embeddings
    found = switches.by_autograd(q, slope, soft, embeddings, 0.7)
    expected = logit_gradient(q.clone(), slope, soft, embeddings, 0.7)
    torch.testing.assert_close(found, expected)


def test_the_slow_reference_answers_the_same_prompt():
    bench = Bench.of(SMALL, torch.device("cpu"))
    seconds = bench.reference()
    assert seconds > 0
    bench.shape = replace(SMALL, vocabulary=benching.SLOW + 1)
    assert bench.reference() is None


def test_the_bare_networks_score_each_answer_with_its_own_prompt(monkeypatch):
    bench = Bench.of(SMALL, torch.device("cpu"))  # of two prompts, each answered twice
    asked = []
    score = type(bench.reward).score

    def noted(self, prompts, responses):
        asked.append((list(prompts), list(responses)))
        return score(self, prompts, responses)

    monkeypatch.setattr(type(bench.reward), "score", noted)
    bench.ours()
    bench.bare()
    assert asked[0] == asked[1]
    assert asked[0][0] == [prompt for prompt in bench.prompts for _ in range(2)]


# What is timed, and how often it counts

CPU, CUDA = torch.device("cpu"), SimpleNamespace(type="cuda")


@cache
def small():
    return Bench.of(SMALL, CPU)


@pytest.fixture
def made(as_users_run_it):
    return small()


def noting(calls):
    """A clock by which everything takes two seconds."""

    def clock(call):
        calls.append(call)
        call()
        return 2.0

    return clock


def test_the_boards_are_those_before_each_step(made):
    records = []
    generate(made.denoiser, made.reward, made.prompts, made.config, observe=records.append)
    mask = made.denoiser.mask_id
    before = torch.full((4, 4), mask)
    assert len(made.steps.boards) == len(records)
    for (board, masked), record in zip(made.steps.boards, records, strict=True):
        assert torch.equal(board, before)
        assert torch.equal(masked, board == mask)
        before = record.tokens
    assert torch.equal(made.steps.last, before)
    assert torch.equal(made.steps.logits, records[0].logits)
    assert (made.config.trajectories, made.config.new_tokens) == (2, 4)
    assert (made.config.denoising_steps, made.config.guidance) == (6, GuidanceConfig(steps=2))


def test_each_part_counts_as_often_as_it_is_done(made):
    """M times, and once more what is drawn from after the last gradient step."""
    calls, steps = [], len(made.steps.boards)
    found = made.parts(noting(calls))
    once, climbing, drawing = 2.0 * steps, 2 * 2.0 * steps, 3 * 2.0 * steps
    assert found == {
        "denoiser": once,
        "reward_forward": climbing,
        "reward_backward": climbing,
        **dict.fromkeys(("softmax", "nucleus", "draw"), drawing),
        **dict.fromkeys(("entropy", "gradient", "adam"), climbing),
    }
    assert len(calls) == 9 * steps


def test_the_parts_of_the_vocabulary_are_those_of_a_run(made):
    """On the settings of the run, and each on what the one before it gives."""
    config, calls = made.config, []
    made._vocabulary_parts(noting(calls))
    for (_, masked), begin in zip(made.steps.boards, range(0, len(calls), 6), strict=True):
        softmax, cut, draw, weight, gradient, climb = calls[begin : begin + 6]
        psi = made.steps.logits[: int(masked.sum())]
        q = (psi / config.temperature).softmax(-1)
        assert softmax.func is token_distribution
        assert torch.equal(softmax.args[0], psi)
        assert softmax.args[1] == config.temperature
        torch.testing.assert_close(cut.args[0], q)
        assert cut.args[1] == config.top_p
        torch.testing.assert_close(draw.args[0], cut())
        assert draw.args[1].shape == psi.shape[:1]
        assert (weight.func, weight.args[0].shape) == (entropy_weight, psi.shape)
        spare, slope, soft, embeddings, temperature = gradient.args
        assert spare.shape == psi.shape
        assert torch.equal(slope, torch.ones_like(soft))
        torch.testing.assert_close(soft, q @ made.reward.embeddings)
        assert embeddings is made.reward.embeddings
        assert temperature == config.temperature
        (group,) = climb.__self__.param_groups
        assert group["lr"] == config.guidance.step_size
        torch.testing.assert_close(group["params"][0].grad, q)


def test_the_work_that_cannot_be_avoided_is_guidance_without_a_network(made, monkeypatch):
    """By the closed form of the gradient of the sum of a soft embedding."""
    tables, slopes = [], []

    class Noting(torch.optim.Adam):
        def __init__(self, parameters, lr):
            assert lr == made.config.guidance.step_size
            super().__init__(parameters, lr=lr)

        def step(self):
            (psi,) = self.param_groups[0]["params"]
            tables.append(psi.detach().clone())
            slopes.append(psi.grad.clone())
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Noting)
    made.unavoidable()
    masks = [int(masked.sum()) for _, masked in made.steps.boards for _ in range(2)]
    assert [len(table) for table in tables] == masks
    tau, sums = made.config.temperature, made.reward.embeddings.sum(1)
    for psi, found in zip(tables, slopes, strict=True):
        q = (psi / tau).softmax(-1)
        torch.testing.assert_close(found, q * (sums - (q @ sums)[:, None]) / tau)
    assert torch.equal(tables[0], made.steps.logits[: masks[0]])


def test_what_a_rewards_gradient_is_timed_on(made):
    mixed, likeliest = made._mixed(3)
    assert torch.equal(mixed, made.reward.embeddings[[0, 0, 0]])
    assert likeliest.tolist() == [5, 5, 5]
    leaf = torch.tensor([2.0, 3.0], requires_grad=True)
    assert benching._gradient((leaf**2).sum(), leaf).tolist() == [4, 6]
    prompt, valid, _ = made._read()
    assert prompt.shape == (4, 8)
    assert torch.equal(prompt[0], prompt[1])
    assert valid.shape == (4, 8 + 4)
    assert valid.all()


def test_the_reference_is_asked_for_one_trajectory_of_the_first_prompt(made, monkeypatch):
    asked = []
    monkeypatch.setattr(benching, "seconds_of", lambda call, device: asked.append(call) or 3.0)
    assert made.reference() == 3.0 * 2 * 2
    (call,) = asked
    denoiser, reward, prompt, trajectory, config = call.args
    assert (denoiser, prompt, trajectory, config) == (
        *(made.denoiser, made.prompts[0], 0, made.config),
    )
    assert reward.embeddings.dtype == reward.network.model.embed_tokens.weight.dtype == torch.double
    assert made.reward.network.model.embed_tokens.weight.dtype == torch.float32
    for vocabulary, there in ((512, True), (513, False)):
        one = replace(made, shape=replace(SMALL, vocabulary=vocabulary))
        assert (one.reference() is not None) == there
    monkeypatch.setattr(Path, "is_file", lambda file: False)
    assert made.reference() is None


def test_rates_counts_and_sizes(made, monkeypatch):
    times = iter([100.0] * 3 + [1.0, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0])
    sizes = []

    def timed(call, device):
        sizes.append([tuple(each.shape) for each in call.args])
        return next(times)

    monkeypatch.setattr(benching, "seconds_of", timed)
    assert made.matrix_rate() == 2 * 1024**3 / 5.0  # the first three warm it up
    assert sizes == [[(1024, 1024)] * 2] * 10
    assert made.table_bytes == 4 * 2 * 2 * 4 * 50
    assert made.waits() is None
    networks = (made.denoiser.network, made.reward.network)
    whole, parted = (
        predicted_memory(
            *(network.config.to_dict() for network in networks),
            *([8, 8], 2, 4, "float32"),  # a prompt of six tokens between two marks
            gradient_steps=2,
            device="cpu",
            suffix=1,
            vocabulary_batch=rows,
        ).working
        for rows in (None, 3)
    )
    assert made.predicted_memory() == whole > parted
    assert replace(made, vocabulary_batch=3).predicted_memory() == parted


def test_operations_are_those_of_matrices_in_the_networks_alone(made, capfd):
    """Twice as many with the same calls made twice."""
    steps = replace(made.steps, boards=made.steps.boards * 2)
    score = made.operations() * 2 - replace(made, steps=steps).operations()
    assert 0 < score < made.operations() / 3  # of the prompts and of the answers at the end
    assert capfd.readouterr().out == ""


class OnGPU:
    """What the bench asks of a GPU and of torch, written down."""

    def __init__(self, monkeypatch):
        self.said, self.held = [], 700
        for name in ("synchronize", "reset_peak_memory_stats"):
            say = partial(self.say, name)
            monkeypatch.setattr(torch.cuda, name, lambda device, say=say: say())
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", partial(self.say, "debug"))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.held)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000)

    def say(self, *words):
        self.said.append(words)


def test_a_gpu_is_waited_for_before_and_after(monkeypatch):
    gpu, clock = OnGPU(monkeypatch), iter([5.0, 7.5])
    monkeypatch.setattr(benching.time, "perf_counter", lambda: gpu.say("time") or next(clock))
    assert benching.seconds_of(lambda: gpu.say("call"), CUDA) == 2.5
    said = [word for (word,) in gpu.said]
    assert said == ["synchronize", "time", "call", "synchronize", "time"]
    gpu.said, clock = [], iter([1.0, 2.0])
    assert benching.seconds_of(lambda: gpu.say("call"), CPU) == 1.0
    assert [word for (word,) in gpu.said] == ["time", "call", "time"]


def test_the_peak_of_a_gpu_is_torchs_beyond_what_was_held(monkeypatch):
    gpu = OnGPU(monkeypatch)
    with benching._peak(CUDA) as peak:
        assert gpu.said == [("reset_peak_memory_stats",)]
        assert peak == [0]
        gpu.held = 900
    assert peak == [300]


def test_waits_of_the_host_are_torchs_warnings_by_the_step(made, monkeypatch):
    """What a gradient step adds is the difference of two runs."""
    gpu, asked = OnGPU(monkeypatch), []

    def generated(denoiser, reward, prompts, config):
        asked.append(config.guidance.steps)
        for _ in range(30 + 10 * config.guidance.steps):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    monkeypatch.setattr(benching, "generate", generated)
    one = replace(made, reward=SimpleNamespace(device=CUDA))
    steps = len(made.steps.boards)
    assert one.waits() == {"step": 50 / steps, "gradient_step": 10 / steps}
    assert asked == [2, 3]
    assert gpu.said == [("debug", "warn"), ("debug", "default")] * 2


def test_what_is_resident_without_the_files_of_linux(monkeypatch):
    statm = int(Path("/proc/self/statm").read_text().split()[1])
    assert 0.5 < benching._resident() / (statm * os.sysconf("SC_PAGE_SIZE")) < 2
    used = SimpleNamespace(ru_maxrss=3000)
    monkeypatch.setattr(benching.resource, "getrusage", lambda who: used)
    monkeypatch.setattr(Path, "is_file", lambda file: False)
    for system, expected in (("darwin", 3000), ("freebsd", 3000 * 1024)):
        monkeypatch.setattr(benching.sys, "platform", system)
        assert benching._resident() == expected


# Records and reports


def timed_as(seconds):
    """In place of `seconds_of`: what a method of the bench takes, one after another."""
    found = {name: iter(values) for name, values in seconds.items()}

    def timed(call, device):
        name = getattr(call, "__name__", "part")
        return next(found[name]) if name in found else 0.25

    return timed


@pytest.fixture
def quiet(made, monkeypatch):
    """A bench of which nothing is run, but what is asked of it is written down."""
    said = []
    for name in ("ours", "bare", "unavoidable", "make_faster"):

        def say(self, name=name):
            said.append(name)

        say.__name__ = name
        monkeypatch.setattr(Bench, name, say)
    monkeypatch.setattr(Bench, "of", lambda shape, device: replace(made, shape=shape))
    monkeypatch.setattr(Bench, "operations", lambda self: 700)
    monkeypatch.setattr(Bench, "matrix_rate", lambda self: 1400.0)
    monkeypatch.setattr(Bench, "reference", lambda self: 12.0)
    monkeypatch.setattr(Bench, "_network_parts", lambda self, clock: {"denoiser": clock(len)})
    monkeypatch.setattr(Bench, "_vocabulary_parts", lambda self, clock: {"adam": clock(len)})
    return said


OURS, BARE, REST = [4.0, 9.0, 6.0], [1.0, 2.0, 3.0], [2.0, 0.5, 0.25]
TIMES = {"ours": OURS, "bare": BARE, "unavoidable": REST}


def test_a_record_is_made_of_medians(made, quiet, monkeypatch):
    monkeypatch.setattr(benching, "seconds_of", timed_as(TIMES))
    found = benching.bench(SMALL, CPU, rounds=3, vocabulary_batch=5)
    assert quiet == ["ours", "bare", "unavoidable", "ours"]  # once to warm, once for the memory
    steps, peak = len(made.steps.boards), found["peak_memory_bytes"]
    assert peak >= 0
    assert found["held_before_bytes"] > 2**20
    for name in ("peak_memory_bytes", "held_before_bytes", "commit", "versions", "threads"):
        del found[name]
    assert found == {
        "overhead_over_networks": 6 / 2,
        "overhead_over_floor": 6 / (2 + 0.5),
        "reference_over_ours": 12 / 6,
        "vocabulary_over_unavoidable": (6 - 2) / 0.5,
        "tables": peak / made.table_bytes,
        "predicted_memory_bytes": replace(made, vocabulary_batch=5).predicted_memory(),
        "matrix_rate": 1400.0,
        "network_operations": 700,
        "host_waits": None,
        "seconds_per_step": 6 / steps,
        "steps": steps,
        "parts": {
            "denoiser": 0.25 / steps,
            "adam": 0.25 / steps,
            "rest": pytest.approx(5.5 / steps),
        },
        "seconds": {"ours": OURS, "networks": BARE, "unavoidable": REST},
        "shape": asdict(SMALL),
        "device": "cpu",
        "vocabulary_batch": 5,
        "settings": json.loads(made.config.to_json()),
        "seeds": [0],
    }
    monkeypatch.setattr(Bench, "reference", lambda self: None)
    short = {"ours": [0.25], "bare": [0.125], "unavoidable": [0.125]}
    monkeypatch.setattr(benching, "seconds_of", timed_as(short))
    quiet.clear()
    found = benching.bench(SMALL, CPU, rounds=1, faster=True)
    assert quiet[0] == "make_faster"
    assert found["reference_over_ours"] is None
    assert found["parts"]["rest"] == 0  # the parts by themselves took longer
    assert found["vocabulary_batch"] is None
    assert inspect.signature(benching.bench).parameters["rounds"].default == 5
    assert not inspect.signature(benching.bench).parameters["faster"].default


FOUND = {
    "overhead_over_networks": 3.0,
    "overhead_over_floor": 2.4,
    "reference_over_ours": None,
    "vocabulary_over_unavoidable": 8.0,
    "tables": 10.5,
    "peak_memory_bytes": 3 * 2**29,
    "network_operations": 700,
    "matrix_rate": 1400.0,
    "host_waits": {"step": 4.875, "gradient_step": 0.25},
    "seconds_per_step": 0.5,
    "parts": {"denoiser": 0.25, "rest": 0.0},
    "seconds": {"ours": OURS, "networks": BARE, "unavoidable": REST},
    "threads": 2,
    "device": "cpu",
}
REPORT = """\
ours / networks                            3.00
ours / (networks + unavoidable)            2.40
(ours - networks) / unavoidable            8.00
peak memory, in tables of [n, V]          10.50
peak memory                                1.50 GiB
networks, of the matrix rate               0.25
ours, of the matrix rate                   0.08
host waits, a step                          4.9
host waits, a gradient step                 0.2
a step that commits                       500.0 ms, of it
  denoiser                                250.0 ms (by itself)
  rest                                      0.0 ms (by itself)
ours                                      6.000 s (4.000 to 9.000)
networks                                  2.000 s (1.000 to 3.000)
unavoidable                               0.500 s (0.250 to 2.000)"""


def test_a_report_is_lines_of_numbers():
    assert benching.report(FOUND) == REPORT
    changed = FOUND | {"reference_over_ours": 12.0, "host_waits": None}
    assert set(benching.report(changed).splitlines()) ^ set(REPORT.splitlines()) == {
        "the slow reference of the tests / ours    12.00",
        "host waits, a step                          4.9",
        "host waits, a gradient step                 0.2",
    }


LINE = {
    "size": "S",
    "values": [4, 8, 16],
    "seconds": [0.1, 0.2, 0.4],
    "expected": 0.994,
    "measured": 1.006,
}


@pytest.mark.parametrize("everything", [False, True])
def test_the_command_writes_what_it_prints(everything, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(command, "bench", lambda *words: asked.append(words) or {**FOUND})
    monkeypatch.setattr(command, "scaling", lambda *words: asked.append(words) or [LINE])
    monkeypatch.setattr(command, "switched", lambda *words: asked.append(words) or {"adam": 1.5})
    monkeypatch.setattr(Bench, "of", lambda *words: words)
    more = {"scaled": True, "switches": True, "vocabulary_batch": 7} if everything else {}
    text = command.run("tiny", tmp_path / "b.json", 4, CPU, **more)
    assert asked.pop(0) == (SHAPES["tiny"], CPU, 4, False, more.get("vocabulary_batch"))
    tiny = SHAPES["tiny"], CPU
    assert asked == ([(*tiny, 4), (tiny, CPU, 4)] if everything else [])  # as often as the others
    lines = [
        "size     values                    seconds                  slope: expected, measured",
        "S        4, 8, 16                  0.100, 0.200, 0.400      0.99, 1.01",
        "without fast/adam.py, over with            1.50",
    ]
    expected = ["tiny, cpu, 2 threads", REPORT, *(lines if everything else [])]
    assert text == "\n".join(expected)
    written = (tmp_path / "b.json").read_text()
    found = json.loads(written)
    assert written == json.dumps(found, indent=1) + "\n"
    options = " --vocabulary-batch 7 --scaling --switches" if everything else ""
    assert found["command"] == (
        f"python -m entrgi_ref.paper bench --shape tiny --rounds 4{options}"
    )
    assert found["testbed"] == "random networks of the shape tiny"
    assert found["machine"].endswith(", 2 threads of a CPU, cpu")
    assert FOUND.items() <= found.items()
    assert found.get("scaling") == ([LINE] if everything else None)
    assert found.get("without") == ({"adam": 1.5} if everything else None)
    assert command.run("tiny", None, 4, CPU) == "\n".join(expected[:2])


def test_without_a_trick_over_with_all_by_medians(made, monkeypatch):
    off = []

    def timed(call, device):
        assert call == made.ours
        off.append(
            adam.LARGE == switches.NEVER
            or rows.AT_A_TIME[next(iter(rows.AT_A_TIME))] == switches.NEVER
        )
        return float(len(off))

    monkeypatch.setattr(switches, "seconds_of", timed)
    # In each round all six in turns: seconds 1 to 6, 7 to 12, 13 to 18; the medians are 7 to 12.
    assert switches.switched(made, CPU, rounds=3) == {
        "nucleus": 8 / 7,
        "draw": 9 / 7,
        "rows": 10 / 7,
        "gradient": 11 / 7,
        "adam": 12 / 7,
    }
    assert off == [False, False, False, True, False, True] * 3
    off.clear()
    switches.switched(made, CPU)
    assert len(off) == 3 * 6


# How time grows


def test_slopes_are_of_medians_and_of_the_parts(made, monkeypatch):
    shapes = []

    def of(shape, device):
        shapes.append(shape)
        return replace(made, shape=shape)

    monkeypatch.setattr(Bench, "of", of)
    monkeypatch.setattr(scaling, "parts_of", lambda bench, device: {"softmax": 1.0, "rest": 0.0})
    monkeypatch.setattr(
        scaling, "SIZES", {"V": scaling.SIZES["V"], "prompt": scaling.SIZES["prompt"]}
    )

    def timed(call, device):
        return float(call.__self__.shape.vocabulary + len(shapes))

    monkeypatch.setattr(scaling, "seconds_of", timed)
    v, prompt = scaling.scaling(SMALL, CPU, rounds=1)
    assert v == {
        "size": "V",
        "values": [50, 100, 200],
        "seconds": [54.0, 104.0, 204.0],
        "expected": pytest.approx(1),
        "measured": pytest.approx(
            statistics.linear_regression(
                [math.log(x) for x in (1, 2, 4)], [math.log(x) for x in (54, 104, 204)]
            ).slope
        ),
    }
    assert (prompt["values"], prompt["expected"]) == ([6, 12, 24], pytest.approx(0, abs=1e-12))
    assert shapes[0] == SMALL
    shapes.clear()
    # A real vocabulary is the largest of the three.
    for vocabulary, first in ((25_000, 25_000), (25_001, 6_250), (152_064, 38_016)):
        shapes.clear()
        scaling.scaling(replace(SMALL, vocabulary=vocabulary), CPU, rounds=1)
        assert [shape.vocabulary for shape in shapes[:4]] == [first, first, 2 * first, 4 * first]


def test_the_last_layer_is_a_part_of_its_own(made, monkeypatch):
    sizes = []

    def timed(call, device):
        sizes.append(tuple(call.args[0].shape) if isinstance(call, partial) else None)
        return 0.5

    monkeypatch.setattr(scaling, "seconds_of", timed)
    monkeypatch.setattr(Bench, "parts", lambda self, clock: {"denoiser": 8.0, "rest": clock(len)})
    masks = [int(masked.sum()) for _, masked in made.steps.boards]
    assert scaling.masks_of(made) == masks
    head = 0.5 * len(masks)
    found = scaling.parts_of(made, CPU)
    assert found == {"denoiser": 8.0 - head, "rest": 0.5, "head": head}
    assert sizes == [None, *((n, 16) for n in masks)]
    monkeypatch.setattr(Bench, "parts", lambda self, clock: {"denoiser": 0.1})
    assert scaling.parts_of(made, CPU) == {"denoiser": 0.0, "head": head}


@pytest.mark.parametrize("part", ["reward_forward", "reward_backward"])
def test_a_reward_model_reads_the_answer_and_one_token_more(part):
    base = SHAPES["wide"]
    for change, expected in (
        ({"new_tokens": 32}, (32 + 1) / (16 + 1)),
        ({"prompts": 3}, 3),
        ({"prompt": 99}, 1),
        ({"gradient_steps": 9}, 3),
        ({"vocabulary": 9}, 1),
    ):
        found = expected_seconds({part: 2.0}, base, replace(base, **change))
        assert found == pytest.approx(2.0 * expected)


def test_steps_beyond_one_for_each_token_take_nothing():
    base = SHAPES["wide"]
    for parts, twice in (({"rest": 1.0}, 2), ({"denoiser": 1.0}, 2), ({"head": 1.0}, 2)):
        for steps, factor in ((16, twice), (32, twice), (4, 0.5)):
            shape = replace(base, denoising_steps=steps)
            assert expected_seconds(parts, base, shape) == pytest.approx(factor)


def test_a_size_is_read_as_it_is_grown():
    base = Shape(50, 6, 2, 3, 4, 5, FEW, FEW, gradient_steps=7)
    assert {size: scaling.value_of(base, size) for size in scaling.SIZES} == {
        "S": 6,
        "N": 4,
        "V": 50,
        "prompt": 6,
        "M": 7,
        "T": 5,
    }
    for size, grow in scaling.SIZES.items():
        assert scaling.value_of(grow(base, 2.0), size) == 2 * scaling.value_of(base, size)


# Networks of a shape


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_that_of_its_record(name):
    """What is compared with a record has to be of the same sizes."""
    if name == "toy":  # of which none is kept: the toy's own sizes
        assert SHAPES[name] == Shape(64, 8, 16, 4, 12, 12)
        return
    record = json.loads((ROOT / f"docs/records/bench-{name}.json").read_text())
    assert asdict(SHAPES[name]) == record["shape"]


def test_networks_have_the_sizes_of_the_shape():
    denoiser_of = Sizes(width=16, layers=1, inner=32, heads=2, key_value_heads=1, head=8)
    reward_of = Sizes(width=24, layers=2, inner=40, heads=4, key_value_heads=2, head=12)
    shape = Shape(50, 6, 2, 3, 4, 5, denoiser_of, reward_of, dtype="bfloat16")
    denoiser, reward = networks.networks(shape, CPU)
    assert torch.get_default_dtype() == torch.float32
    for network, sizes in ((denoiser.network, denoiser_of), (reward.network, reward_of)):
        config = network.config
        assert sizes.options.items() <= config.to_dict().items()
        assert (config.vocab_size, config.max_position_embeddings) == (50, 84)
        assert not config.tie_word_embeddings
        assert network.model.layers[0].self_attn.q_proj.out_features == sizes.heads * sizes.head
        assert not network.training
        for weight in network.parameters():
            assert (weight.dtype, weight.requires_grad) == (torch.bfloat16, False)
    assert reward.network.config.num_labels == 1
    assert denoiser.writable.tolist() == [False, False] + [True] * 48
    assert (denoiser.mask_id, denoiser.eos_id, denoiser.pad_id) == (0, 1, 1)
    assert denoiser.tokens == tuple(map(str, range(50)))
    assert reward.vocabulary.ids.tolist() == list(range(50))
    assert reward.vocabulary.matched.all()
    assert not reward.vocabulary.unmatched
    assert (reward.eos_id, reward.pad_id, reward.prefix_cache) == (1, 1, True)
    assert reward.embeddings is reward.network.get_input_embeddings().weight
    again, _ = networks.networks(shape, CPU)
    assert torch.equal(again.network.lm_head.weight, denoiser.network.lm_head.weight)


def test_words_are_numbers():
    words = Words(50)
    assert words("5 7  49") == {"input_ids": [5, 7, 49]}
    assert words.decode([1, 5, 0, 7, 1]) == "5 7"
    turns = [{"role": "user", "content": "5 7"}, {"role": "assistant", "content": "9"}]
    assert words.apply_chat_template(turns) == "2 5 7 3 2 9 3"
    special = (words.mask_token_id, words.eos_token_id, words.pad_token_id)
    assert (special, words.all_special_ids) == ((0, 1, 1), (0, 1))


def test_prompts_are_ordinary_words_and_the_same_each_time():
    shape = Shape(12, 400, 3, 1, 1, 1)
    found = [list(map(int, prompt.split())) for prompt in networks.prompts_of(shape)]
    assert [len(row) for row in found] == [400] * 3
    # None of the two special ones, nor of the marks of a turn, and all others.
    assert {word for row in found for word in row} == set(range(4, 12))
    assert networks.prompts_of(shape) == networks.prompts_of(shape)
    assert found[0] != found[1]
