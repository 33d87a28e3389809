"""Recorded runs of the authors' code, replayed draw by draw.

The recordings lie in tests/data/parity; PARITY_DIR names another folder of the same layout. All
settings come from the recording. The prefix cache is on, and no step is skipped.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.models import Dream, SequenceReward

FOLDER = Path(os.environ.get("PARITY_DIR") or Path(__file__).parent / "data" / "parity")
RECORDED = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def networks():
    dream = Dream.from_pretrained(FOLDER / "dream-tiny", device="cpu", dtype="float32")
    reward = SequenceReward.from_pretrained(
        FOLDER / "reward-tiny", dream, dtype="float32", prefix_cache=True
    )
    return dream, reward


@pytest.fixture(scope="module")
def vectors():
    return load_file(FOLDER / "vectors.safetensors")


@dataclass
class Replay:
    """The random choices of one recorded run, as `Draws`."""

    hard_tokens: torch.Tensor
    sampled_tokens: torch.Tensor
    responses: torch.Tensor
    """Before each step, and after the last one."""
    mask_id: int

    def at(self, step, row, position):
        return ReplayStep(self, step, row, position)


@dataclass
class ReplayStep:
    run: Replay
    step: int
    row: torch.Tensor
    position: torch.Tensor

    def hard(self, probabilities, gradient_step):
        tokens = self.run.hard_tokens[self.step, gradient_step, self.row, self.position].long()
        return tokens.clamp_min(0)  # none is drawn for Expectation, and none has an effect

    def candidates(self, probabilities):
        return self.run.sampled_tokens[self.step, self.row, self.position].long()

    def written(self):
        return self.run.responses[self.step + 1, self.row, self.position] != self.run.mask_id

    def origin(self):
        """Below every probability where a token was written, and above where not."""
        return torch.where(self.written(), 0.0, 1.0).double()

    def order(self):
        """Gumbel numbers of 37 where a token was written, and of minus infinity where not."""
        return torch.where(self.written(), 1 - 2.0**-53, 0.0).double()


def settings(case):
    guidance = GuidanceConfig(
        weight=case["method"] if case["method"] in ("aps", "expectation") else "entrgi",
        steps=case.get("M", 0),
        step_size=case["eta"],
    )
    config = SamplingConfig(
        guidance=guidance,
        trajectories=case["K"],
        new_tokens=case["max_new_tokens"],
        denoising_steps=case["T"],
        temperature=case["temperature"],
        top_p=case["top_p"],
        order=case["alg"],
        order_temperature=case.get("alg_temp") or 0.0,
        skip_empty_steps=False,
    )
    return replace(config.authors(), eos_last=case["deprioritize_eos"])


def test_parity_of_the_vocabulary(networks, vectors):
    _, reward = networks
    assert torch.equal(reward.vocabulary.ids, vectors["token_mapping"].long())


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_parity(case, networks, vectors):
    dream, reward = networks
    name, prompts, config = case["name"], case.get("prompts", RECORDED["prompts"]), settings(case)
    N = config.new_tokens
    recorded = {
        key.removeprefix(f"{name}."): value
        for key, value in vectors.items()
        if key.startswith(f"{name}.")
    }
    encoded = dream.encode(prompts)
    assert torch.equal(
        encoded.tokens.repeat_interleave(config.trajectories, 0),
        recorded["x"][0, :, :-N].long(),
    )

    after = torch.cat([recorded["x"][1:, :, -N:], recorded["final"][None]])
    responses = torch.cat([recorded["x"][:1, :, -N:], after])
    replay = Replay(recorded["hard_tokens"], recorded["sampled_tokens"], responses, dream.mask_id)
    steps = []

    def compare(record):
        t = record.step
        steps.append(t)
        torch.testing.assert_close(
            record.rewards, recorded["inner_rewards"][t], atol=1e-4, rtol=0, msg=f"step {t}: R"
        )
        if t in case["snapshot_steps"]:
            assert torch.equal(record.masked, recorded[f"step{t}.mask"].bool())
            torch.testing.assert_close(
                record.logits, recorded[f"step{t}.logits"], atol=5e-5, rtol=0, msg=f"step {t}: phi"
            )
            # Not all of psi: Adam's first step is nearly the gradient's sign, so where a gradient
            # is nearly 0, its rounding decides how far a logit moves.
            moved = record.guided_logits - recorded[f"step{t}.guided_logits"]
            assert (moved.abs() < 2e-3).double().mean() >= 0.999, f"step {t}: psi"
        assert torch.equal(record.tokens, after[t].long()), f"step {t}: tokens"

    generation = generate(dream, reward, prompts, config, observe=compare, draws=replay)
    assert steps == list(range(config.denoising_steps))
    assert generation.responses == case["responses"]
    expected = torch.tensor(case["rewards"])
    torch.testing.assert_close(generation.rewards, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(generation.top1, torch.tensor(case["top1"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(generation.average, torch.tensor(case["avg"]), atol=1e-4, rtol=0)
