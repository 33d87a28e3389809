"""The command `bench`: that what is timed is what it says."""

import json
import time
from dataclasses import replace

import pytest
import torch
from paper_runs import invoke

from entrgi_ref import generate, guidance
from entrgi_ref.fast import adam, rows
from entrgi_ref.fast import draw as fast_draw
from entrgi_ref.fast import nucleus as fast_nucleus
from entrgi_ref.fast.gradient import logit_gradient
from entrgi_ref.paper.measured import bench as benching
from entrgi_ref.paper.measured import scaling, switches
from entrgi_ref.paper.measured.bench import Bench
from entrgi_ref.paper.measured.networks import SHAPES, Shape, Sizes
from entrgi_ref.paper.measured.scaling import expected_seconds, slope

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
    with benching._peak(torch.device("cpu")) as peak:
        for _ in range(3):
            tables = torch.ones(16, 2**20)
            time.sleep(0.02)  # for the watcher to look
    assert len(tables) == 16
    assert 0.9 < peak[0] / (16 * 2**20 * 4) < 2.5


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
    assert grown({"adam": 1.0}, gradient_steps=6) == pytest.approx(2)
    assert grown({"denoiser": 1.0}, prompt=48) == pytest.approx((48 + 16) / (16 + 16))
    assert grown({"denoiser": 1.0}, vocabulary=10, gradient_steps=9) == pytest.approx(1)
    assert grown({"rest": 1.0, "reward_forward": 3.0}, gradient_steps=6) == pytest.approx(7 / 4)
    assert slope((1, 2, 4), [3, 6, 12]) == pytest.approx(1)
    assert slope((1, 2, 4), [5, 5, 5]) == pytest.approx(0)


def test_what_only_a_gpu_can_do_is_refused_without_one():
    with pytest.raises(ValueError, match="faster: got True on cpu"):
        invoke("bench", "--shape", "toy", "--faster", "--device", "cpu")


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
