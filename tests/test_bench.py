"""The command `bench`: that what is timed is what it says."""

import json
import time

import pytest
import torch
from paper_runs import invoke

from entrgi_ref.paper.measured import bench as benching
from entrgi_ref.paper.measured.bench import Bench
from entrgi_ref.paper.measured.networks import SHAPES, Shape, Sizes

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # its tokenizer is none of transformers

FEW = Sizes(width=16, layers=1, inner=32, heads=2, key_value_heads=1, head=8)
SMALL = Shape(50, 6, 2, 2, 4, 6, FEW, FEW, gradient_steps=2)
PARTS = {"denoiser", "reward_forward", "reward_backward", "rest"} | {
    *("softmax", "nucleus", "draw", "entropy", "gradient", "adam")
}
KEYS = (
    "overhead_over_networks overhead_over_floor vocabulary_over_unavoidable tables "
    "seconds_per_step peak_memory_bytes parts matrix_rate network_operations"
).split()


def test_a_record_has_what_a_reader_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(SHAPES, "toy", SMALL)
    text = invoke("bench", "--shape", "toy", "--rounds", "2", "--json", tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(KEYS) <= set(found)
    assert set(found["parts"]) == PARTS
    for name in ("ours", "networks", "unavoidable"):
        assert len(found["seconds"][name]) == 2
        assert min(found["seconds"][name]) > 0
    assert f"{found['overhead_over_networks']:8.2f}" in text
    with pytest.raises(ValueError, match="did you mean 'wide'"):
        invoke("bench", "--shape", "wid")


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
