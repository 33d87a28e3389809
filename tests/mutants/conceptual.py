"""Twenty mistakes that one could make in good faith, and tests that must notice each.

`python -m mutants.conceptual` tries them, and writes a line for each: its name, and whether it was
caught. This is a test of the tests: `make test` runs it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from .trial import Copy

ROOT = Path(__file__).parent.parent.parent
LIMIT = 60.0
"""Seconds for the tests of one mistake."""


@dataclass(frozen=True)
class Mistake:
    """One wrong line in place of a right one."""

    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    """Those that must notice, as pytest names them."""

    def code(self, root: Path) -> str:
        """The file with the mistake."""
        source = (root / self.file).read_text()
        if source.count(self.right) != 1:
            raise ValueError(
                f"{self.file}: {self.right!r} stands there {source.count(self.right)}x"
            )
        return source.replace(self.right, self.wrong)


def in_file(name: str, *tests: str) -> tuple[str, ...]:
    """Tests of one file."""
    return tuple(f"tests/test_{name}.py::test_{test}" for test in tests)


CORE = "entrgi_ref/"
MISTAKES = {
    "the temperature multiplies": Mistake(
        f"{CORE}relaxation.py",
        ".detach()).div_(temperature)",
        ".detach()).mul_(temperature)",
        in_file("relaxation", "distribution_is_exp_of_logits_over_temperature"),
    ),
    "the weight grows with certainty": Mistake(
        f"{CORE}relaxation.py",
        "return (h / math.log(logits.shape[-1])).clamp(0, 1)",
        "return (1 - h / math.log(logits.shape[-1])).clamp(0, 1)",
        in_file("relaxation", "weight_is_one_at_uniform_and_zero_at_one_hot"),
    ),
    "the weight is divided by the log of what may be written": Mistake(
        f"{CORE}relaxation.py",
        "math.log(logits.shape[-1])",
        "math.log(int(logits[0].isfinite().sum()))",
        in_file("relaxation", "weight_uses_the_full_width_of_the_vocabulary"),
    ),
    "the weight has a gradient": Mistake(
        f"{CORE}relaxation.py",
        "psi = logits.detach()",
        "psi = logits",
        in_file("relaxation", "weight_is_detached"),
    ),
    "no stop-gradient": Mistake(
        f"{CORE}relaxation.py",
        "(hard - soft)).detach()",
        "(hard - soft))",
        in_file("relaxation", "gradient_of_interpolation_is_that_of_the_soft_embedding"),
    ),
    "soft and hard in each other's place": Mistake(
        f"{CORE}relaxation.py",
        "[:, None] * (hard - soft)",
        "[:, None] * (soft - hard)",
        in_file("relaxation", "interpolation_is_the_weighted_mean"),
    ),
    "the reward is descended": Mistake(
        f"{CORE}guidance.py",
        "logit_gradient(q, -slope,",
        "logit_gradient(q, slope,",
        in_file("guidance", "gradient_ascent_is_the_formula", "adam_is_nearly_a_sign_step"),
    ),
    "the hard token is that of the first gradient step": Mistake(
        f"{CORE}guidance.py",
        "draw, nucleus(q, top_p), m)",
        "draw, nucleus(q, top_p), 0)",
        in_file("reference", "every_method_and_order"),
    ),
    "the weight is that of the unguided logits": Mistake(
        f"{CORE}guidance.py",
        "w = weight(psi)",
        "w = weight(logits)",
        in_file("reference", "every_method_and_order"),
    ),
    "the soft embedding is cut to the nucleus": Mistake(
        f"{CORE}guidance.py",
        "soft = soft_embedding(q, reward",
        "soft = soft_embedding(nucleus(q, top_p), reward",
        in_file("guidance", "what_the_reward_reads_and_what_is_observed"),
    ),
    "the gradient lacks the temperature": Mistake(
        f"{CORE}fast/gradient.py",
        "slope = slope / temperature",
        "slope = slope * 1",
        in_file("guidance", "gradient_ascent_is_the_formula"),
    ),
    "the candidates are drawn from the prediction": Mistake(
        f"{CORE}denoising.py",
        "nucleus(token_distribution(guided_logits, temperature), top_p)",
        "nucleus(token_distribution(logits, temperature), top_p)",
        in_file("reference", "every_method_and_order"),
    ),
    "committed positions are drawn anew": Mistake(
        f"{CORE}denoising.py",
        "torch.where(committed, response.masked_scatter(masked, drawn.tokens), response)",
        "torch.where(committed | ~masked, drawn.tokens[0], response)",
        in_file("denoising", "commitments_stay_and_follow_the_schedule"),
    ),
    "shares are rounded up": Mistake(
        f"{CORE}schedule.py",
        "(n.float() * fraction).floor()",
        "(n.float() * fraction).ceil()",
        in_file("schedule", "schedule_of_the_published_numbers"),
    ),
    "the order ranks by the guided entropy": Mistake(
        f"{CORE}orders.py",
        "_entropy_at(candidates.logits, candidates",
        "_entropy_at(candidates.guided_logits, candidates",
        in_file("orders", "entropy_ranks_by_the_unguided_distribution_at_the_temperature"),
    ),
    "the end of an answer comes in its turn": Mistake(
        f"{CORE}orders.py",
        "if put_last is not None:",
        "if put_last is None:",
        in_file("denoising", "ends_of_sequence_come_last"),
    ),
    "two purposes share their numbers": Mistake(
        f"{CORE}draws.py",
        "    COMMIT = 2",
        "    COMMIT = 1",
        in_file("draws", "no_two_purposes_places_or_times_share_a_number"),
    ),
    "a seed without the prompt": Mistake(
        f"{CORE}draws.py",
        "absorb(absorb(torch.zeros_like(found), seed), found)",
        "absorb(absorb(torch.zeros_like(found), seed), 0)",
        in_file("denoising", "keys_make_one_prompt_two_draws"),
    ),
    "the mask predictor is read without its shift": Mistake(
        f"{CORE}models/denoiser.py",
        "length - 1 if self.family.shifted else length",
        "length",
        in_file("models", "logits_are_those_of_a_plain_bidirectional_qwen2"),
    ),
    "the score is taken one token too early": Mistake(
        f"{CORE}models/sequence.py",
        "read.cached :], index, 0).amax(1)",
        "read.cached :], index, 0).amax(1) - 1",
        in_file("models", "final_scores_are_the_models_own"),
    ),
}
"""By what is wrong. None is like any other: each breaks another idea of the method."""


def main() -> None:
    """Try all of them."""
    tests = sorted({test for mistake in MISTAKES.values() for test in mistake.tests})
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(ROOT, Path(folder) / "copy", tests)
        right = (ROOT / CORE / "relaxation.py").read_text()
        if copy.killed(f"{CORE}relaxation.py", right, tests, LIMIT * 5, imported=False):
            raise SystemExit("the tests fail without any mistake")
        for name, mistake in MISTAKES.items():
            caught = copy.killed(mistake.file, mistake.code(ROOT), mistake.tests, LIMIT)
            print(f"{name}: {'caught' if caught else 'not caught'}", flush=True)


if __name__ == "__main__":
    main()
