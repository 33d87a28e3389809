"""Recorded runs of the authors' code, replayed draw by draw.

The recordings lie in tests/data/parity; PARITY_DIR names another folder of the same layout. All
settings come from the recording. The prefix cache is on, and no step is skipped.

What a recording cannot decide is taken from it: which of equally confident positions was written
(the authors' sorting leaves that open, and all ends of sequence are equal to it), and what was
drawn.
"""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.models import Dream, SequenceReward
from entrgi_ref.orders import ORDERS, ORIGIN
from tiny import stand_in

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
    eos_id: int | None
    """None where ends of sequence are like other tokens."""
    inside: list[bool] = field(default_factory=list)
    """Of every token that was drawn, whether it lies in the nucleus."""

    def at(self, step, row, position):
        self.current = ReplayStep(self, step, row, position)
        return self.current

    def order(self, case):
        """The order of the recording; among equals, what was written there comes first."""
        if case["alg"] == ORIGIN:
            return ORIGIN

        def order(candidates):
            if case.get("alg_temp"):  # drawn, and the draw is recorded
                return torch.zeros(len(candidates.tokens))
            confidence = ORDERS[case["alg"]](candidates)
            if self.eos_id is not None:
                confidence = confidence.masked_fill(candidates.tokens == self.eos_id, 0)
            up = torch.nextafter(confidence, torch.full_like(confidence, torch.inf))
            return torch.where(self.current.written(), up, confidence)

        return order


@dataclass
class ReplayStep:
    run: Replay
    step: int
    row: torch.Tensor
    position: torch.Tensor

    def hard(self, probabilities, gradient_step):
        tokens = self.run.hard_tokens[self.step, gradient_step, self.row, self.position].long()
        drawn = tokens >= 0  # none is drawn for Expectation, and none has an effect
        self.note(probabilities[drawn], tokens[drawn])
        return tokens.clamp_min(0)

    def candidates(self, probabilities):
        tokens = self.run.sampled_tokens[self.step, self.row, self.position].long()
        self.note(probabilities, tokens)
        return tokens

    def note(self, probabilities, tokens):
        self.run.inside += (probabilities.gather(1, tokens[:, None]) > 0).flatten().tolist()

    def written(self):
        return self.run.responses[self.step + 1, self.row, self.position] != self.run.mask_id

    def origin(self):
        """Below every probability where a token was written, and above where not."""
        return torch.where(self.written(), 0.0, 1.0).double()

    def order(self):
        """First what was written, then where the mask token was drawn: whether that was chosen
        cannot be seen.
        """
        drawn = self.run.sampled_tokens[self.step, self.row, self.position]
        rest = torch.where(drawn == self.run.mask_id, 0.5, 0.0)
        return torch.where(self.written(), 1 - 2.0**-53, rest.double())


SETTINGS = set(
    "name prompts snapshot_steps rewards top1 avg responses K T M eta temperature top_p "
    "max_new_tokens method alg alg_temp deprioritize_eos".split()
)
METHODS = ("entrgi", "aps", "expectation")


def settings(case):
    assert set(case) <= SETTINGS, f"not replayed: {set(case) - SETTINGS}"
    assert case["method"] in METHODS or case.get("M", 0) == 0
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
        # Under `origin` theirs has no effect, and ours refuses it.
        order_temperature=0.0 if case["alg"] == "origin" else case.get("alg_temp") or 0.0,
        skip_empty_steps=False,
    )
    return replace(config.authors(), eos_last=case["deprioritize_eos"])


def test_parity_has_cases():
    assert RECORDED["cases"]


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
    replay = Replay(
        recorded["hard_tokens"],
        recorded["sampled_tokens"],
        responses,
        dream.mask_id,
        dream.eos_id if config.eos_last else None,
    )
    config = replace(config, order=replay.order(case))
    assert (recorded["x"][..., :-N] == recorded["x"][0, :, :-N]).all(), "a prompt changes"
    steps, rewards = [], []

    def compare(record):
        t = record.step
        steps.append(t)
        if record.masked.any():  # `origin` may be done before the last step
            rewards.append((t, record.rewards))
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

    def run(denoiser, observe):
        return generate(denoiser, reward, prompts, config, observe=observe, draws=replay)

    generation = run(dream, compare)
    assert steps == list(range(config.denoising_steps))
    assert sum(replay.inside) >= 0.999 * len(replay.inside), "draws outside of the nucleus"
    compare_rewards(rewards, recorded["inner_rewards"], lambda seed: observed(run, dream, seed))
    assert generation.responses == case["responses"]
    expected = torch.tensor(case["rewards"])
    torch.testing.assert_close(generation.rewards, expected, atol=1e-4, rtol=0)
    for found, name in ((generation.top1, "top1"), (generation.average, "avg")):
        expected = torch.tensor(case[name], dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def compare_rewards(mine, recorded, rerun):
    """Within 1e-4. A reward after the first gradient step may be further off if rounding explains
    it: where a token's gradient is nearly 0, its sign is a matter of rounding, and Adam turns the
    sign into a move of psi. Runs with logits that are off by as much as two kernels differ say how
    far such a reward can be.
    """
    found = torch.stack([rewards for _, rewards in mine]) if mine else recorded[:0]
    expected = recorded[[t for t, _ in mine]]
    off = (found - expected).abs()
    allowed = torch.full_like(off, 1e-4)
    if off.numel() and off.max() > 1e-4:
        again = torch.stack([found, *map(rerun, range(3))])
        spread = again.amax(0) - again.amin(0)
        allowed[:, 1:] += 2 * spread[:, 1:]
        assert (spread > 1e-4).double().mean() < 0.2
    late = [mine[i][0] for i in (off > allowed).nonzero()[:, 0].tolist()]
    assert not late, f"steps {sorted(set(late))}: R is off by up to {off.max():.1e}"


class Rounded:
    """A denoiser whose logits are off by up to 2e-5, as those of another kernel are."""

    def __init__(self, denoiser, seed):
        self.denoiser, self.generator = denoiser, torch.Generator().manual_seed(seed)
        stand_in(self, denoiser)

    def __call__(self, *inputs):
        logits = self.denoiser(*inputs)
        noise = torch.rand(logits.shape, generator=self.generator)
        return logits + 2e-5 * (2 * noise - 1)


def observed(run, dream, seed):
    rewards = []
    run(Rounded(dream, seed), lambda r: rewards.append(r.rewards) if r.masked.any() else None)
    return torch.stack(rewards)
