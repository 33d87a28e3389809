"""What memory a run takes, from the configurations of its networks alone.

Counted are tensors that are alive at once, at each place where there may be the most of them. The
counts follow `generate` and `guide`, and transformers' Qwen2 and Qwen3 with `sdpa`; tests hold them
against what torch hands out on a CPU, and against records of a GPU. What kernels use for themselves
is not counted, nor is what the driver and fragments take.

Letters as in `relaxation.py`: S trajectories, n = S N masked positions at the first step, V. A
table is [n, V] in the precision of the guided logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...fast import adam, gradient, nucleus
from ...fast.rows import AT_A_TIME
from .shapes import Sizes

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
ROUNDED = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""Bytes of a number of a rounded weight; of 4bit with the scale of each 64. 8bit has one a row."""
SUFFIX = 2
"""Tokens that a chat template writes after an answer: of Qwen's, the end of the turn and a line."""
SCORED = 16
"""Finished texts that are scored at a time."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a run, by what they are for."""

    denoiser: int
    """Weights of the mask predictor."""
    reward: int
    """Weights of the reward model."""
    embeddings: int
    """The reward model's embeddings once more, in the order of the diffusion vocabulary."""
    table: int
    """One table of [n, V], with everything masked."""
    cache: int
    """Keys and values of the prompts, which stay from the first gradient step to the end."""
    activations: int
    """What the reward model's forward pass keeps for its backward pass."""
    reading: int
    """Working memory of the mask predictor's forward pass."""
    moments: Mapping[str, int]
    """Moment of a run -> all that is alive then, but for weights and embeddings."""

    @property
    def weights(self) -> int:
        """What is there before the first prompt."""
        return self.denoiser + self.reward + self.embeddings

    @property
    def working(self) -> int:
        """The most that a run takes beside the weights."""
        return max(self.moments.values())

    @property
    def fullest(self) -> str:
        """The moment at which the most is taken."""
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def peak(self) -> int:
        """The most that is taken at once."""
        return self.weights + self.working


def predicted_memory(
    denoiser_config: Mapping[str, Any],
    reward_config: Mapping[str, Any],
    prompt_lengths: Sequence[int],
    trajectories: int,
    new_tokens: int,
    dtype: str = "bfloat16",
    guidance_dtype: str = "float32",
    *,
    gradient_steps: int = 3,
    device: str = "cuda",
    suffix: int = SUFFIX,
    micro_batch: int | None = None,
    vocabulary_batch: int | None = None,
    quantize: Mapping[str, str] | None = None,
    pauses: bool = False,
) -> Memory:
    """The memory of one batch, `trajectories` for each of the prompts.

    Args:
        denoiser_config: the contents of the mask predictor's config.json.
        reward_config: those of the reward model's.
        prompt_lengths: tokens of each prompt in its chat template. All are padded to the longest.
        trajectories: K.
        new_tokens: N.
        dtype: of both networks.
        guidance_dtype: of the guided logits.
        gradient_steps: M; of 0 there are no gradients, of 1 the optimiser's state comes late.
        device: cuda or cpu, which work on tables in parts of another size.
        suffix: tokens that the reward model reads after an answer.
        micro_batch: trajectories that the reward model reads at a time (`--reward-micro-batch`).
        vocabulary_batch: masked positions that are guided at a time (`--vocabulary-batch`).
        quantize: `denoiser` or `reward` -> 8bit or 4bit (`--quantize`).
        pauses: whether the last logits are held, as under the order `origin`: see
            `SamplingConfig.may_pause`.
    """
    denoiser, reward = Sizes.of(denoiser_config), Sizes.of(reward_config)
    b, g = BYTES[dtype], BYTES[guidance_dtype]
    S, prompt, V = len(prompt_lengths) * trajectories, max(prompt_lengths), denoiser.vocabulary
    n = S * new_tokens
    table = n * V * g
    tables = _Tables(n, V, g, device)
    part = _Tables(min(n, vocabulary_batch or n), V, g, device)  # what is guided at a time
    q = part.n * V * g
    whole = prompt + new_tokens + suffix
    bits = quantize or {}
    copy = {  # of the weight that is worked with, in the network's precision
        name: sizes.products["largest"] * b if name in bits else 0
        for name, sizes in (("denoiser", denoiser), ("reward", reward))
    }
    predicting = forward(denoiser, S, prompt + new_tokens, prompt + new_tokens, b, padding=True)
    predicting += copy["denoiser"]
    cache = kept = 0
    moments = {
        "the draw of candidates": 3 * table + max(tables.nucleus, table + tables.draw),
        "the order": 3 * table + tables.entropy,
    }
    if gradient_steps:
        read, rows = new_tokens + suffix, min(S, micro_batch or S)
        cache = 2 * reward.layers * S * prompt * reward.keys * b
        kept = activations(reward, rows, read, prompt + read, b)
        vectors = (4 * n + 2 * S * read) * reward.width * b  # soft, hard, mixed, slope; the board
        before = (2 if gradient_steps == 1 else 4) * table + q  # phi, psi, Adam's two
        moments = {name: cache + most for name, most in moments.items()} | {
            "the nucleus in guidance": cache + before + part.nucleus,
            "the draw of hard tokens": cache + before + q + part.draw,
            "the weight": cache + before + part.weight,
            "the soft embedding": cache + before + (part.n * V * b if b != g else 0),
            "the reward model's gradient": cache
            + before
            + vectors
            + kept
            + copy["reward"]
            + max(
                backward(reward, rows, read, prompt + read, b),
                likelihoods(reward, rows * read, b),
            ),
            "the gradient of the logits": cache + before + part.gradient + vectors,
            "the optimiser's step": cache + 4 * table + q + (part.adam if tables.adam else 0),
            "reading the prompts": cache
            + 2 * table
            + q
            + cache // trajectories
            + copy["reward"]
            + forward(reward, S // trajectories, prompt, prompt, b),
        }
    scored = min(SCORED, S)
    moments |= {"the mask predictor": cache + predicting}
    last = n * V * b if pauses else 0
    moments = {name: held + last for name, held in moments.items()}
    moments |= {
        "the prediction": cache + 2 * table,
        "the final scores": cache + copy["reward"] + forward(reward, scored, whole, whole, b),
    }
    return Memory(
        denoiser=denoiser.as_denoiser * b - saved(denoiser, b, bits.get("denoiser")),
        reward=reward.as_reward * b - saved(reward, b, bits.get("reward")),
        embeddings=V * reward.width * b,
        table=table,
        cache=cache,
        activations=kept,
        reading=predicting,
        moments=moments,
    )


def saved(sizes: Sizes, b: int, bits: str | None) -> int:
    """Bytes that weights of b bytes a number take less when the layers' products are rounded."""
    if bits is None:
        return 0
    numbers, rows = sizes.products["numbers"], sizes.products["rows"]
    scales = rows * b if bits == "8bit" else 0
    return sizes.layers * (int(numbers * (b - ROUNDED[bits])) - scales)


@dataclass(frozen=True)
class _Tables:
    """What work on a table takes beside the tables that it is given, result included."""

    n: int
    V: int
    g: int
    device: str

    @property
    def part(self) -> int:
        """Numbers that are worked on at a time: see `fast/rows.py`."""
        most = AT_A_TIME[self.device]
        whole = self.n * self.V
        return whole if whole <= most else max(1, most // self.V) * self.V

    @property
    def nucleus(self) -> int:
        """Where tokens are sorted: values, ids of 8 bytes, sums of float64, the sums before, what
        is kept, a table of zeros and one that is filled. Where values are: those, and sums twice.
        """
        part, whole = self.part, self.n * self.V
        if self.g == 4 and self.V >= nucleus.LARGE:
            return whole * self.g
        if self.device == "cpu":
            return whole * (self.g + 16)
        each = 5 * self.g + 16
        if part == whole:
            return part * each
        # From the second part on there is also the table that parts are put into, and the part
        # before.
        return max(part * each, (whole + part) * self.g + min(part, whole - part) * each)

    @property
    def draw(self) -> int:
        """Sums in float64."""
        return 8 * self.part

    @property
    def entropy(self) -> int:
        """The logits over tau, their log softmax, its exponential and one more."""
        return 4 * self.part * self.g

    @property
    def weight(self) -> int:
        """As the entropy, of logits as they are."""
        return 3 * self.part * self.g

    @property
    def gradient(self) -> int:
        """Products of some columns, in the precision of the table, and less their mean."""
        return 3 * self.n * min(self.V, gradient.TOKENS[self.device]) * self.g

    @property
    def adam(self) -> int:
        """In one pass nothing; else a root."""
        one_pass = self.g == 4 and self.n * self.V > adam.LARGE
        return 0 if one_pass else self.n * self.V * self.g


def activations(sizes: Sizes, S: int, read: int, seen: int, b: int) -> int:
    """What a network keeps for the backward pass to its inputs, its own weights being frozen.

    S sequences of which `read` tokens are read and see `seen`. Products with frozen weights keep
    nothing. A normalisation keeps its input in float32 and a number per token; attention keeps
    queries, keys and values (these once per head of queries, also of tokens that were read before),
    what it returns, a number per head, and the mask as numbers; the gated layer keeps three.
    """
    tokens = S * read
    wide = max(b, 4)
    norms = 2 * tokens * (sizes.width + 1) * wide
    if sizes.kind == "qwen3":
        norms += tokens * (sizes.queries + sizes.keys + sizes.heads + sizes.kv_heads) * wide
    attention = 2 * (tokens * sizes.queries + S * seen * sizes.repeated) * b
    attention += tokens * sizes.heads * wide + tokens * seen * b
    gated = 3 * tokens * sizes.inner * b
    ends = tokens * (sizes.width + 1) * wide + 2 * tokens * sizes.head * b + 16 * S
    return sizes.layers * (norms + attention + gated) + ends


def backward(sizes: Sizes, S: int, read: int, seen: int, b: int) -> int:
    """What the backward pass of the last layer takes beside what is kept: gradients of the gated
    layer, or those of attention, when what the gated layer kept is given back.
    """
    tokens = S * read
    gated = 3 * tokens * sizes.inner * b + 2 * tokens * sizes.width * b
    attention = 2 * tokens * (sizes.queries + sizes.width) * b + 2 * S * seen * sizes.repeated * b
    return max(gated, attention - 3 * tokens * sizes.inner * b)


def likelihoods(sizes: Sizes, tokens: int, b: int) -> int:
    """What a causal model takes to be asked about tokens: in float32 at least, three numbers for
    each word of its vocabulary, the log softmax and in the backward pass two gradients.
    """
    return 3 * tokens * sizes.vocabulary * max(b, 4) if sizes.causal else 0


def forward(sizes: Sizes, S: int, read: int, seen: int, b: int, padding: bool = False) -> int:
    """What a forward pass without gradients takes, the vectors that go in included.

    `padding`: the mask is the same for all tokens of a sequence, as the mask predictor's, and so
    hardly takes memory.
    """
    tokens = S * read
    # Of the vectors that go in, of a layer's input and of what it adds to, the first two are one
    # in the first layer; and the mask predictor's last layer is narrow (models/window.py).
    vectors = 2 if padding and sizes.layers <= 2 else 3
    around = vectors * sizes.width + 2 * sizes.head
    gated = sizes.width + 3 * sizes.inner
    rotated = max(4 * sizes.queries + 2 * sizes.keys, 2 * sizes.queries + 5 * sizes.keys)
    attention = 2 * S * seen * sizes.keys + 2 * tokens * sizes.queries
    attention += 2 * S * seen * sizes.repeated if sizes.heads > sizes.kv_heads > 1 else 0
    mask = 0 if padding else tokens * seen
    most = max(tokens * gated, tokens * rotated, attention + mask)
    return (tokens * around + most) * b + mask
