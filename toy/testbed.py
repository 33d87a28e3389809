"""The toy as a testbed: its two networks, its prompts, and the measures that need to know the
language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from entrgi_ref.checks import choice, integer, number
from entrgi_ref.paper.declared.costs import Costs

from .language import LENGTH, gold, is_valid, parse_prompt, split_prompts
from .models import (
    PROMPT_LENGTH,
    ClosedFormReward,
    ToyDenoiser,
    ToyReward,
    encode_prompts,
    encode_words,
    words_of,
)
from .training import (
    DENOISER,
    QUICK_DENOISER,
    QUICK_REWARD,
    REWARDS,
    DenoiserRecipe,
    RewardRecipe,
    Track,
    load_denoiser,
    load_reward,
    no_progress,
)

REWARD_NAMES = [*REWARDS, "closed_form"]
QUICK_LACKS = ("small", "large")


@dataclass(frozen=True, eq=False)
class Made:
    """How `Testbed.load` made a pair of networks."""

    seed: int
    denoiser: ToyDenoiser
    reward: ToyReward | ClosedFormReward
    again: Callable[[int], Testbed]
    """Training seed -> another pair, trained in the same way."""


@dataclass(frozen=True, eq=False)
class Testbed:
    """A pair of networks, a mask predictor and a reward model, and how they were made.

    `dataclasses.replace(testbed, reward=...)` puts a reward of your own in.
    """

    denoiser: ToyDenoiser
    """Any `Denoiser` of the toy's vocabulary and length will do."""
    reward: ToyReward | ClosedFormReward
    """Any `Reward` whose embeddings are [V, d] in the order of `toy.language.VOCABULARY`."""
    description: str
    """The same in words: which networks, of which training seeds."""
    made: Made | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        reward: str = "medium",
        *,
        quick: bool = False,
        seed: int,
        embedding_std: float = 1.0,
        track: Track = no_progress,
    ) -> Testbed:
        """A pair of networks, trained with `seed`, from the cache if they are there.

        Args:
            reward: small, medium, large or closed_form.
            quick: take smaller networks, trained in seconds (and no other reward than the quick
                one, called medium, or the closed form).
            seed: of the training of both networks. The demo's is 10.
            embedding_std: in [1e-6, 1000], the standard deviation with which the reward model's
                embeddings start.
            track: wraps the training steps, to show progress.

        Raises:
            ValueError: for a reward that there is not, or an `embedding_std` out of its range.
        """
        denoiser_recipe, reward_recipe = recipes(reward, quick, seed, embedding_std)
        description = f"mask predictor of seed {seed}"
        denoiser = load_denoiser(denoiser_recipe, track)

        def made(judge: ToyReward | ClosedFormReward, description: str) -> Testbed:
            how = Made(seed, denoiser, judge, again)
            return cls(denoiser, judge, description, how)

        def again(seed: int) -> Testbed:
            return cls.load(
                reward, quick=quick, seed=seed, embedding_std=embedding_std, track=track
            )

        if reward_recipe is None:
            description = f"{'quick ' if quick else ''}{description}, closed-form reward"
            return made(ClosedFormReward(), description)
        description += f", {'quick' if quick else reward} reward model of seed {seed}"
        if embedding_std != 1:
            description += f" with embeddings started at standard deviation {embedding_std:g}"
        return made(load_reward(reward_recipe, track), description)

    def pairs(self, count: int) -> Iterator[Testbed]:
        """This pair of networks and `count` - 1 others that are trained like it, each with the next
        training seed; each is loaded or trained when its turn comes.

        A reward of your own, that was put in later, guides them all.

        Raises:
            ValueError: if `count` is no integer of at least 1, or if there should be others, and
                the mask predictor is not one that `load` made.
        """
        integer("pairs", count, minimum=1)
        made = self.made
        if count > 1 and (made is None or made.denoiser is not self.denoiser):
            raise ValueError(
                f"pairs: got {count} with a mask predictor of your own, expected 1, or one of "
                "Testbed.load, of which others can be trained"
            )
        return self._pairs(count)

    def _pairs(self, count: int) -> Iterator[Testbed]:
        yield self
        for after in range(1, count):
            assert self.made is not None
            other = self.made.again(self.made.seed + after)
            own = self.reward is not self.made.reward
            yield replace(other, reward=self.reward) if own else other

    @property
    def costs(self) -> Costs:
        """What each network costs per sequence.

        Both read whole sequences, the reward model one more token.
        """
        positions = PROMPT_LENGTH + LENGTH
        return Costs(
            denoiser=positions * count_parameters(self.denoiser.network),
            reward=0
            if isinstance(self.reward, ClosedFormReward)
            else (positions + 1) * count_parameters(self.reward.network),
        )


def recipes(
    reward: str, quick: bool, seed: int, embedding_std: float
) -> tuple[DenoiserRecipe, RewardRecipe | None]:
    """How `Testbed.load` trains the mask predictor and the reward model; None for the closed form.

    Arguments and errors are those of `Testbed.load`.
    """
    choice("reward", reward, REWARD_NAMES)
    if quick and reward in QUICK_LACKS:
        raise ValueError(
            f"reward: got {reward!r} with --quick, which has one size only; leave it out, or "
            "give closed_form"
        )
    number("embedding_std", embedding_std, 1e-6, 1e3, low_allowed=True)
    integer("seed", seed, minimum=0)
    denoiser = replace(QUICK_DENOISER if quick else DENOISER, seed=seed)
    if reward == "closed_form":
        return denoiser, None
    of_reward = QUICK_REWARD if quick else REWARDS[reward]
    return denoiser, replace(of_reward, seed=seed, embedding_std=embedding_std)


def count_parameters(network: nn.Module) -> int:
    """The number of parameters without the tables of token and position embeddings."""
    return sum(
        p.numel()
        for name, p in network.named_parameters()
        if "embedding" not in name and "position" not in name
    )


def held_out_prompts(count: int) -> list[str]:
    """The first `count` prompts that no network was trained on; there are 96.

    Raises `ValueError` for more, or for less than 1.
    """
    _, held_out = split_prompts()
    if not 1 <= count <= len(held_out):
        raise ValueError(
            f"prompts: got {count}, expected 1 to {len(held_out)}, the number of held-out prompts"
        )
    return [str(prompt) for prompt in held_out[:count]]


def gold_score(prompt: str, response: str) -> float:
    """The gold score of a decoded response, in points: `toy.language.gold` of its words."""
    return gold(parse_prompt(prompt), words_of(response))


def valid(response: str) -> bool:
    """Whether a decoded response obeys the grammar."""
    return is_valid(words_of(response))


@torch.no_grad()
def log_likelihood(
    denoiser: ToyDenoiser, prompts: Sequence[str], responses: Sequence[str]
) -> Float[Tensor, "S"]:
    """The mask predictor's log-likelihood of each response, in nats per token, ends of sequence
    after the first left out.

    By the chain rule from left to right: token i is predicted with all tokens from i on masked.
    """
    tokens = encode_words([words_of(response) for response in responses])
    prompt = encode_prompts(prompts)
    ends = (tokens == denoiser.eos_id).int()
    counted = ends.cumsum(1) - ends == 0
    total = torch.zeros(len(tokens))
    later = torch.arange(LENGTH)
    for i in range(LENGTH):
        rows = counted[:, i].nonzero().squeeze(1)
        if not len(rows):
            break
        seen = tokens[rows].masked_fill(later >= i, denoiser.mask_id)
        visible = torch.cat([prompt[rows], seen], 1)
        here = (later == i).expand_as(seen)
        log_q = denoiser(visible, torch.ones_like(visible, dtype=torch.bool), here).log_softmax(-1)
        total[rows] += log_q.gather(1, tokens[rows, i, None]).squeeze(1)
    return total / counted.sum(1)
