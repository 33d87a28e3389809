"""An ordinary causal language model as a `Reward`: how likely it finds an answer.

No reward model is needed, only a causal model of the same tokenizer. The reward is the mean
log-likelihood, in nats per token, of the answer and of what the chat template writes after it,
given the prompt. Guidance reaches it through what the model reads: which token is asked about at a
masked position is its most likely one, and is held fixed. Source: another script of the authors'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PretrainedConfig

from ..protocols import Denoiser
from .causal import CausalReward, Conversations
from .checkpoints import Network, require_tied
from .families import FAMILIES
from .reading import hidden_states, require_own_logits
from .replayed import Backbone
from .sequence import RewardCheckpoint, readable_config


class LikelihoodCheckpoint(RewardCheckpoint):
    """All of a causal model's checkpoint but its weights. Made by `examine`."""

    architecture: ClassVar[Network] = AutoModelForCausalLM

    @staticmethod
    def readable(folder: Path) -> PretrainedConfig:
        """The configuration, if it is that of a causal model that can be read from embeddings.

        Raises `ValueError` naming the field if it is not.
        """
        return readable_config(folder, MODEL_FOR_CAUSAL_LM_MAPPING, "causal models")

    @classmethod
    def examine(cls, path: str | Path, **options: Any) -> RewardCheckpoint:
        """Look at a checkpoint, as `RewardCheckpoint.examine` does.

        Raises `ValueError` also for a mask predictor whose configuration is that of a causal model.
        """
        found = super().examine(path, **options)
        for family in FAMILIES:
            mark = family.mark if family.model_type == found.config.model_type else None
            if mark is not None and mark in found.tokenizer.get_vocab():
                raise ValueError(
                    f"checkpoint: {found.folder} has the mask token {mark!r} of {family.name}, "
                    "which is no causal model: it has no likelihood of an answer"
                )
        return found

    def require_own(self, network: Network) -> None:
        """Raise `ValueError` if we would read other numbers than the network does itself, or than
        its file says.
        """
        if self.config.get_text_config().tie_word_embeddings:
            require_tied(self.folder, network.get_input_embeddings().weight, {})
        require_own_logits(network)

    @staticmethod
    def made(**parts: Any) -> LikelihoodReward:
        """The reward, of its parts."""
        return LikelihoodReward(**parts)


@dataclass(frozen=True, eq=False)
class LikelihoodReward(CausalReward):
    """A frozen causal model as a reward. Made by `from_pretrained`."""

    counts_prompt: ClassVar[bool] = False
    again: ClassVar[int] = 1  # it predicts the first token of the answer

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        denoiser: Denoiser,
        *,
        tokens: Sequence[str | None] | None = None,
        revision: str | None = None,
        unmatched: str = "eos",
        adapter: str | Path | None = None,
        **options: Any,
    ) -> LikelihoodReward:
        """Load a causal model from a folder, or from the hub by its id, such as `Qwen/Qwen3-0.6B`.

        The arguments are those of `SequenceReward.from_pretrained`. Raises `ValueError` if it is
        not there, is no causal model that can be read from embeddings, has only pickled weights or
        no chat template, if it changes the logits of its output layer, or if the vocabularies have
        too little in common.
        """
        checkpoint = LikelihoodCheckpoint.examine(
            path, revision=revision, unmatched=unmatched, adapter=adapter
        )
        found = checkpoint.load(denoiser, tokens=tokens, **options)
        assert isinstance(found, cls)
        return found

    def counting(self, tokens: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Every token of the answer and of what follows it."""
        return torch.ones_like(tokens, dtype=torch.bool)

    def rewards(self, read: Conversations, backbone: Backbone | None = None) -> Float[Tensor, "S"]:
        """The mean log-likelihood of the tokens that count, each given what is visible before."""
        hidden = hidden_states(self.network, read.embedded, read.visible, read.present, backbone)
        # A hidden position hands on nothing: what predicts a token is the last visible one.
        places = torch.arange(read.visible.shape[1], device=hidden.device)
        last = torch.where(read.visible, places, -1).cummax(1).values
        before = F.pad(last[:, :-1], (1, 0), value=-1) - read.cached
        asked = read.counted & (before >= 0)
        row, place = asked.nonzero().unbind(1)
        logits = self.network.get_output_embeddings()(hidden[row, before[row, place]])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_p = -F.cross_entropy(logits, read.tokens[row, place], reduction="none")
        total = logits.new_zeros(len(hidden)).index_add(0, row, log_p)
        return total / asked.sum(1).clamp_min(1)
