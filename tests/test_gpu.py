"""The real shapes with random weights, on a GPU; and the same code, small, on the CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from entrgi_ref import generate
from shapes import PAPER, TINY, measure, networks, prompts_of

RECORD = Path(__file__).parent.parent / "results" / "gpu.json"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def check(record):
    assert record["finite"]
    assert record["denoising_steps_run"] == 3
    # What bfloat16 leaves of two orders of the same sums.
    assert record["cache"]["largest_reward_difference"] < 0.1 * max(1, record["reward_spread"])
    assert record["cache"]["gradient_cosine"] > 0.98


@pytest.mark.slow
def test_small_shapes_on_the_cpu():
    check(measure(TINY, "cpu"))


@pytest.mark.gpu
@needs_gpu
def test_real_shapes():
    """4 prompts of 100 to 600 tokens, K = 4, 128 tokens. Writes results/gpu.json."""
    record = measure(PAPER, "cuda")
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    check(record)


@pytest.mark.gpu
@needs_gpu
def test_host_waits_as_often_whatever_the_gradient_steps():
    """Counted by torch itself."""
    denoiser, judge = networks(TINY, "cuda")
    prompts = prompts_of(denoiser, TINY.prompts)

    def waits(steps, length):
        guidance = replace(TINY.config.guidance, steps=steps)
        config = replace(TINY.config, guidance=guidance, new_tokens=length, denoising_steps=length)
        generate(denoiser, judge, prompts, config)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning, match="synchroniz") as caught:
                generate(denoiser, judge, prompts, config)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in caught)

    # Two for the shapes that depend on data, where the masks are, and one for the conditions.
    for steps in (1, 4):
        assert waits(steps, 12) - waits(steps, 7) <= 3 * 5


@pytest.mark.gpu
@needs_gpu
def test_a_replayed_reward_is_the_reward():
    """In float32: the same tokens, and the same gradients at new numbers."""
    denoiser, judge = networks(TINY, "cuda", torch.float32)
    prompts = prompts_of(denoiser, TINY.prompts)
    graphed = replace(judge, cuda_graphs=True)
    plain = generate(denoiser, judge, prompts, TINY.config)
    replayed = generate(denoiser, graphed, prompts, TINY.config)
    assert torch.equal(replayed.tokens, plain.tokens)
    torch.testing.assert_close(replayed.rewards, plain.rewards)
    K, N = TINY.config.trajectories, TINY.config.new_tokens
    response = torch.full((len(prompts) * K, N), denoiser.mask_id, device="cuda")
    masked = torch.ones_like(response, dtype=torch.bool)
    steps = [r.bind(prompts, K).at(response, masked) for r in (judge, graphed)]
    for seed in range(3):
        torch.manual_seed(seed)
        tokens = torch.randint(200, (response.numel(),), device="cuda")
        found = []
        for step in steps:
            mixed = judge.embeddings[tokens].clone().requires_grad_()
            rewards = step(mixed, tokens)
            found.append((rewards.detach().clone(), torch.autograd.grad(rewards.sum(), mixed)[0]))
        torch.testing.assert_close(found[0], found[1])
