"""Training of the toy's networks: deterministic given the recipe, and cached on disk.

The mask predictor learns the corpus. The reward models learn the gold score, by regression, from
finished sentences only: no mixed embedding is ever shown to them. All training prompts are disjoint
from the held-out ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from . import language, models, networks
from .language import ID, LENGTH, MASK, VOCABULARY, Prompt, gold, sample_answer, split_prompts
from .models import PROMPT_LENGTH, WRITABLE, ToyDenoiser, ToyReward, append_end, encode_words
from .networks import MaskPredictor, RewardModel, Size

Track = Callable[[Iterable[int], str], Iterable[int]]
"""Wraps the training steps, with a label, to show progress."""


@dataclass(frozen=True)
class Recipe:
    """All that a trained network depends on, beside the code."""

    size: Size
    steps: int
    """Training steps."""
    seed: int = 0
    """The training seed: of the first weights, the examples and their order."""
    batch: int = 64
    """Examples in a training step."""
    learning_rate: float = 4e-3
    """The largest: it rises over the first tenth of the steps, and then falls."""
    examples: int = 60_000
    """Sentences that are drawn to train on."""


@dataclass(frozen=True)
class DenoiserRecipe(Recipe):
    """A `MaskPredictor`, trained on the corpus with a masking rate drawn uniformly for each
    sentence.
    """

    def build(self) -> nn.Module:
        return MaskPredictor(self.size, len(VOCABULARY), PROMPT_LENGTH + LENGTH)

    def data(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        prompts, answers = corpus(rng, self.examples)
        return torch.cat([encode_words(prompts), encode_words(answers)], 1), torch.zeros(
            self.examples
        )

    def loss(
        self, network: nn.Module, tokens: Tensor, _: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy at the masked positions of the answer, in nats per token."""
        rate = torch.rand(len(tokens), 1, generator=generator).clamp(min=1 / LENGTH)
        masked = F.pad(
            torch.rand(len(tokens), LENGTH, generator=generator) < rate,
            (PROMPT_LENGTH, 0),
            value=False,
        )
        return F.cross_entropy(
            network(tokens.masked_fill(masked, ID[MASK]), masked), tokens[masked]
        )


@dataclass(frozen=True)
class RewardRecipe(Recipe):
    """A `RewardModel`, trained on the gold score, standardised over its training mixture.

    The mixture is half corpus, a quarter answers to another prompt and a quarter answers with up to
    30% random words.
    """

    embedding_std: float = 1.0
    """Standard deviation of the embeddings before training."""

    def build(self) -> nn.Module:
        return RewardModel(
            self.size, len(VOCABULARY), PROMPT_LENGTH + LENGTH + 1, self.embedding_std
        )

    def data(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        prompts, answers = mixture(rng, self.examples)
        scores = torch.tensor([gold(*example) for example in zip(prompts, answers, strict=True)])
        tokens = append_end(torch.cat([encode_words(prompts), encode_words(answers)], 1))
        return tokens, (scores - scores.mean()) / scores.std()

    def loss(
        self, network: nn.Module, tokens: Tensor, scores: Tensor, _: torch.Generator
    ) -> Tensor:
        """Mean squared error, in variances of the gold score."""
        assert isinstance(network, RewardModel)
        return F.mse_loss(network(network.embedding(tokens)), scores)


DENOISER = DenoiserRecipe(Size(64, 2), steps=2400, learning_rate=6e-3)
"""The mask predictor of the demo."""
REWARDS = {
    "small": RewardRecipe(Size(24, 2), steps=1600),
    "medium": RewardRecipe(Size(48, 4), steps=1600),
    "large": RewardRecipe(Size(96, 4), steps=3200, learning_rate=2e-3, examples=120_000),
}
"""The reward models, by size. The demo uses `medium`."""
QUICK_DENOISER = DenoiserRecipe(Size(48, 2), steps=1200, learning_rate=6e-3, examples=20_000)
QUICK_REWARD = RewardRecipe(Size(24, 2), steps=800, learning_rate=6e-3, examples=20_000)
"""The pair of the quick runs: trained in seconds, less fluent and a worse judge."""


def corpus(rng: random.Random, examples: int) -> tuple[list[Prompt], list[list[str]]]:
    """Training prompts and answers to them."""
    train, _ = split_prompts()
    prompts = [rng.choice(train) for _ in range(examples)]
    return prompts, [sample_answer(rng, prompt) for prompt in prompts]


def mixture(rng: random.Random, examples: int) -> tuple[list[Prompt], list[list[str]]]:
    """What a reward model is trained on: see `RewardRecipe`."""
    train, _ = split_prompts()
    words = [word for word, writable in zip(VOCABULARY, WRITABLE.tolist(), strict=True) if writable]
    prompts, answers = corpus(rng, examples)
    for i in range(examples):
        kind = rng.random()
        if kind < 0.25:
            prompts[i] = rng.choice(train)
        elif kind < 0.5:
            rate = rng.uniform(0, 0.3)
            answers[i] = [rng.choice(words) if rng.random() < rate else word for word in answers[i]]
    return prompts, answers


def train(recipe: DenoiserRecipe | RewardRecipe, track: Track) -> nn.Module:
    """A network trained from scratch.

    One thread, so that the result depends on nothing but the recipe, the code and the machine.
    `track` wraps the training steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = recipe.build()
        generator = torch.Generator().manual_seed(recipe.seed)
        tokens, targets = recipe.data(random.Random(recipe.seed))
        optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, recipe.steps, pct_start=0.1
        )
        kind = "mask predictor" if isinstance(recipe, DenoiserRecipe) else "reward model"
        for _ in track(range(recipe.steps), f"training a {kind} of width {recipe.size.width}"):
            chosen = torch.randint(recipe.examples, (recipe.batch,), generator=generator)
            optimizer.zero_grad()
            recipe.loss(network, tokens[chosen], targets[chosen], generator).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()
        return network
    finally:
        torch.set_num_threads(threads)


def no_progress(steps: Iterable[int], label: str) -> Iterable[int]:
    """A `Track` that shows nothing."""
    return steps


def load_denoiser(recipe: DenoiserRecipe, track: Track = no_progress) -> ToyDenoiser:
    """The trained mask predictor, from the cache or trained now; `track` wraps the steps."""
    network = cached(recipe, track)
    assert isinstance(network, MaskPredictor)
    return ToyDenoiser(network)


def load_reward(recipe: RewardRecipe, track: Track = no_progress) -> ToyReward:
    """A trained reward model, from the cache or trained now; `track` wraps the steps."""
    network = cached(recipe, track)
    assert isinstance(network, RewardModel)
    return ToyReward(network)


def cache_folder() -> Path:
    """Where trained networks are kept: `toy/.cache`, or the environment variable TOY_CACHE."""
    return Path(os.environ.get("TOY_CACHE", Path(__file__).parent / ".cache"))


def cache_key(recipe: Recipe) -> str:
    """A hash of the recipe, of the code that it runs and of torch's version: another of these,
    another network.
    """
    files = [module.__file__ for module in (language, models, networks)] + [__file__]
    sources = [Path(str(file)).read_text() for file in files]
    key = [type(recipe).__name__, asdict(recipe), sources, torch.__version__]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def stored(recipe: Recipe) -> Path:
    """Where the cache has a network, or would have it."""
    return cache_folder() / f"{type(recipe).__name__}-{cache_key(recipe)}.safetensors"


def cached(recipe: DenoiserRecipe | RewardRecipe, track: Track = no_progress) -> nn.Module:
    """The network of `recipe` from the cache; trained and stored if it is not there, or if its file
    is damaged.
    """
    path = stored(recipe)
    network = recipe.build()
    if path.exists():
        try:
            network.load_state_dict(_load(path))
            return network
        except Exception as error:  # whatever is wrong with the file, training again mends it
            print(f"{path.name} in the cache is damaged ({error!r}): training again")
    network = train(recipe, track)
    _save(network.state_dict(), path)
    return network


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        pass
    save_file(tensors, file.name, metadata={"digest": _digest(tensors)})
    os.replace(file.name, path)  # in one go: a reader never sees half a file


def _load(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(path)
    with safe_open(path, "pt") as file:
        digest = file.metadata()["digest"]
    if digest != _digest(tensors):
        raise ValueError("its contents do not match its checksum")
    return tensors
