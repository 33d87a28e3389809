"""From the diffusion model's token ids to the reward model's.

Guidance mixes embeddings of the reward model by probabilities of the diffusion model, so the two
must mean the same tokens. They are matched by the token's exact string.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import checks

WARN_BELOW = 0.9
REFUSE_BELOW = 0.5
"""Of tokens that are read as ends of sequence, which many of them would make misleading. As zero
rows they have no pull: so the authors' second code reads LLaDA."""
UNMATCHED = ("eos", "zero")


@dataclass(frozen=True, eq=False)
class VocabularyMap:
    """Which token of the reward model each token of the diffusion model is."""

    ids: Int[Tensor, "V"]
    """The reward model's id, or the fallback's where there is none."""
    matched: Bool[Tensor, "V"]
    named: int
    """How many diffusion ids have a token at all; the output layer may be wider."""
    unmatched: tuple[str, ...]
    """Tokens that the reward model lacks, by rising id: in a byte-pair vocabulary the most common
    come first."""

    @classmethod
    @checks.explained
    def by_string(
        cls,
        tokens: Sequence[str | None],
        reward_ids: Mapping[str, int],
        fallback: int,
        unmatched: str = "eos",
    ) -> VocabularyMap:
        """Match `tokens`, the string of every diffusion id, with the ids of the reward model.

        `fallback` is the reward id that `unmatched` tokens get. Source: authors' code.

        Warns if less than 90% of the tokens match, with the worst examples; raises `ValueError`
        under 50%, of zero rows if none matches.
        """
        fallback = checks.integer("fallback", fallback, minimum=0)
        checks.choice("unmatched", unmatched, UNMATCHED)
        found = [None if token is None else reward_ids.get(token) for token in tokens]
        lacking = tuple(
            token
            for token, index in zip(tokens, found, strict=True)
            if token is not None and index is None
        )
        result = cls(
            ids=torch.tensor([fallback if index is None else index for index in found]),
            matched=torch.tensor([index is not None for index in found]),
            named=sum(token is not None for token in tokens),
            unmatched=lacking,
        )
        least = 0.0 if unmatched == "zero" else REFUSE_BELOW
        if result.overlap < least or not result.overlap:
            needed = f"at least {least:.0%}" if least else "some"
            raise ValueError(f"vocabulary: {result.report()}; {needed} must match")
        if result.overlap < WARN_BELOW:
            warnings.warn(f"vocabulary: {result.report()}", stacklevel=2)
        return result

    def to(self, device: torch.device) -> VocabularyMap:
        """The map with its tensors on a device."""
        return replace(self, ids=self.ids.to(device), matched=self.matched.to(device))

    @property
    def overlap(self) -> float:
        """The share of the diffusion model's tokens that the reward model has, in [0, 1]."""
        return 1 - len(self.unmatched) / self.named if self.named else 0.0

    def report(self) -> str:
        """One line: how many match, and which do not."""
        matching = self.named - len(self.unmatched)
        worst = checks.some([f"{token!r:.60}" for token in self.unmatched])
        lacking = f", it lacks {worst}" if self.unmatched else ""
        beyond = len(self.matched) - self.named
        wider = f"; {beyond} further ids have no token" if beyond else ""
        return (
            f"the reward model has {matching} of the diffusion model's {self.named} tokens "
            f"({self.overlap:.1%}){lacking}{wider}"
        )

    @checks.explained
    def unmatched_mass(self, probabilities: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
        """The probability of all tokens together that the reward model lacks.

        A share of tokens says little: those that a denoiser writes are few. Source: ours.
        """
        checks.shape("probabilities", probabilities, (None, len(self.matched)), "[n, V]")
        return probabilities.masked_fill(self.matched.to(probabilities.device), 0).sum(-1)

    @checks.explained
    def embeddings(
        self, table: Float[Tensor, "reward_vocabulary d"], unmatched: str
    ) -> Float[Tensor, "V d"]:
        """The reward model's embedding table in the diffusion vocabulary's order.

        An unmatched token gets the embedding of the fallback (`eos`, as in the authors' code) or
        none (`zero`).
        """
        checks.choice("unmatched", unmatched, UNMATCHED)
        checks.shape("table", table, (None, None), "[reward_vocabulary, d]")
        ordered = table[checks.ids("table's rows", self.ids, len(table)).to(table.device)]
        if unmatched == "zero":
            ordered = ordered.masked_fill(~self.matched.to(table.device)[:, None], 0)
        return ordered
