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
from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from .. import checks
from ..protocols import Denoiser
from . import checkpoints
from .checkpoints import Network
from .loading import How, Loading
from .reading import hidden_states, require_own_logits
from .sequence import (
    SCORE_BATCH,
    fallback_of,
    readable_config,
    require_all,
    table_of,
    tokens_of,
    visible_of,
)
from .tokenizers import around_response, conversation, load_tokenizer, padded
from .vocabulary import UNMATCHED, VocabularyMap


@dataclass(frozen=True, eq=False)
class LikelihoodReward:
    """A frozen causal model as a reward. Made by `from_pretrained`."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    vocabulary: VocabularyMap
    embeddings: Float[Tensor, "V d"]
    """In the diffusion vocabulary's order, on the denoiser's device."""
    eos_id: int | None
    pad_id: int | None
    """The diffusion model's ids, by which the end of an answer is known."""

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        denoiser: Denoiser,
        *,
        tokens: Sequence[str | None] | None = None,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        unmatched: str = "eos",
        **how: Unpack[How],
    ) -> LikelihoodReward:
        """Load a causal model from a folder, or from the hub by its id, such as `Qwen/Qwen3-0.6B`.

        The arguments are those of `SequenceReward.from_pretrained`. Raises `ValueError` if it is
        not there, is no causal model that can be read from embeddings, has only pickled weights or
        no chat template, if it changes the logits of its output layer, or if the vocabularies have
        too little in common.
        """
        checks.choice("unmatched", unmatched, UNMATCHED)
        home = denoiser.writable.device
        loading = Loading.of(dtype, home if device is None else device, **how)
        folder = checkpoints.locate(path, revision)
        config: PretrainedConfig = readable_config(
            folder, MODEL_FOR_CAUSAL_LM_MAPPING, "causal models"
        )
        tokenizer = load_tokenizer(folder)
        width = config.get_text_config().vocab_size
        known = {token: i for token, i in tokenizer.get_vocab().items() if i < width}
        names = tokens_of(denoiser) if tokens is None else tokens
        require_all(names, denoiser)
        vocabulary = VocabularyMap.by_string(names, known, fallback_of(tokenizer, folder, width))
        network = loading.network(AutoModelForCausalLM, folder, config)
        require_own_logits(network)
        return cls(
            network=network,
            tokenizer=tokenizer,
            vocabulary=vocabulary.to(home),
            embeddings=vocabulary.embeddings(table_of(network), unmatched).to(home),
            eos_id=denoiser.eos_id,
            pad_id=getattr(denoiser, "pad_id", None),
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        found: torch.device = self.network.get_input_embeddings().weight.device
        return found

    def bind(self, prompts: Sequence[str], trajectories: int) -> BoundLikelihood:
        """Tokenise the prompts."""
        around = [around_response(self.tokenizer, prompt) for prompt in prompts]
        suffixes = {suffix for _, suffix in around}
        if len(suffixes) != 1:
            raise ValueError("checkpoint: what its chat template writes after an answer varies")
        tokens, valid = self._tokens([prefix for prefix, _ in around])
        suffix = self._tokens([suffixes.pop()])[0][0]
        return BoundLikelihood(
            self,
            tokens.repeat_interleave(trajectories, 0),
            valid.repeat_interleave(trajectories, 0),
            suffix,
        )

    @torch.no_grad()
    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "S"]:
        """The mean log-likelihood of finished texts, tokenised afresh, after the prompt."""
        pairs = list(zip(prompts, responses, strict=True))
        rewards = []
        for start in range(0, len(pairs), SCORE_BATCH):
            some = pairs[start : start + SCORE_BATCH]
            tokens, valid = self._tokens([conversation(self.tokenizer, *pair) for pair in some])
            before = [around_response(self.tokenizer, prompt)[0] for prompt, _ in some]
            lengths = self._tokens(before)[1].sum(1)
            asked = valid & (valid.cumsum(1) > lengths[:, None])
            embedded = self.network.get_input_embeddings()(tokens)
            rewards.append(self.mean_log_likelihood(embedded, valid, tokens, asked))
        return torch.cat(rewards).to(self.embeddings.device)

    def mean_log_likelihood(
        self,
        embedded: Float[Tensor, "S L d"],
        visible: Bool[Tensor, "S L"],
        targets: Int[Tensor, "S L"],
        asked: Bool[Tensor, "S L"],
    ) -> Float[Tensor, "S"]:
        """Of the targets that are `asked` about, each given what is visible before it."""
        hidden = hidden_states(self.network, embedded, visible)
        # A hidden position hands on nothing: what predicts a target is the last visible one.
        index = torch.where(visible, torch.arange(visible.shape[1], device=visible.device), -1)
        before = F.pad(index.cummax(1).values[:, :-1], (1, 0), value=-1)
        asked = asked & (before >= 0)
        row, place = asked.nonzero().unbind(1)
        logits = self.network.get_output_embeddings()(hidden[row, before[row, place]])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_p = -F.cross_entropy(logits, targets[row, place], reduction="none")
        total = logits.new_zeros(len(embedded)).index_add(0, row, log_p)
        return total / asked.sum(1).clamp_min(1)

    def _tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "P L"], Bool[Tensor, "P L"]]:
        width = len(self.network.get_input_embeddings().weight)
        return padded(self.tokenizer, texts, 0, self.device, "the causal model", width)


@dataclass(frozen=True, eq=False)
class BoundLikelihood:
    """The causal model with its prompts."""

    reward: LikelihoodReward
    prefix: Int[Tensor, "S prefix"]
    valid: Bool[Tensor, "S prefix"]
    suffix: Int[Tensor, "suffix"]

    def at(self, response: Int[Tensor, "S N"], masked: Bool[Tensor, "S N"]) -> StepLikelihood:
        """Fix the tokens at the positions that are not masked.

        Raises `ValueError` if the model has too few positions for such an answer.
        """
        length = self.valid.shape[1] + response.shape[1] + len(self.suffix)
        checkpoints.require_positions("the causal model", length, self.reward.network.config)
        return StepLikelihood(self, response, masked)


@dataclass(frozen=True, eq=False)
class StepLikelihood:
    """The causal model with prompts and committed tokens fixed."""

    bound: BoundLikelihood
    response: Int[Tensor, "S N"]
    masked: Bool[Tensor, "S N"]

    @property
    def embeddings(self) -> Float[Tensor, "V d"]:
        """The embedding table in the diffusion vocabulary's order."""
        return self.bound.reward.embeddings

    def __call__(
        self, mixed: Float[Tensor, "n d"], likeliest: Int[Tensor, "n"]
    ) -> Float[Tensor, "S"]:
        """The reward of each trajectory, with `mixed` embeddings at its masked positions."""
        bound, reward = self.bound, self.bound.reward
        device, embed = reward.device, reward.network.get_input_embeddings()
        at = self.masked.nonzero_static(size=len(mixed)).unbind(1)
        response = F.embedding(self.response, self.embeddings).index_put(at, mixed).to(device)
        likely = self.response.index_put(at, likeliest)
        seen = visible_of(likely, reward.eos_id, reward.pad_id).to(device)
        suffix = bound.suffix.expand(len(response), -1)
        after = torch.ones_like(suffix, dtype=torch.bool)
        embedded = torch.cat([embed(bound.prefix), response, embed(suffix)], 1)
        targets = torch.cat([bound.prefix, reward.vocabulary.ids[likely].to(device), suffix], 1)
        visible = torch.cat([bound.valid, seen, after], 1)
        asked = torch.cat([torch.zeros_like(bound.valid), seen, after], 1)
        return reward.mean_log_likelihood(embedded, visible, targets, asked).to(mixed.device)
