"""The table of symbols: one source for the page, the hover texts and the check of signatures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Symbol:
    """A symbol of the paper and what it is called here."""

    tex: str
    name: str
    """The identifier."""
    shape: str
    """As in the signatures; empty for a plain number."""
    range: str
    meaning: str
    signatures: tuple[str, ...] = ()
    """`module:function` that have a parameter of this name and shape, or `module:Class.field`."""
    plain: str = ""
    """The symbol without TeX, for hover texts."""


CORE = "entrgi_ref.relaxation"
SYMBOLS = (
    Symbol(
        r"z_t",
        "tokens",
        "S L",
        "ids below V",
        "The partially masked sequence at noise level t: prompt and response.",
        ("entrgi_ref.denoising:predict",),
        "z_t",
    ),
    Symbol(
        r"\mathcal M_t",
        "masked",
        "S N",
        "True or False",
        "Where the response is still masked.",
        ("entrgi_ref.denoising:predict", "entrgi_ref.orders:commit"),
        "M_t",
    ),
    Symbol(
        r"\phi^l",
        "logits",
        "n V",
        "finite, or −inf for ids that may not be written",
        "The mask predictor's logits at the masked positions. A function of one equation takes ψ "
        "by this name.",
        ("entrgi_ref.guidance:guide", f"{CORE}:token_distribution"),
        "φ",
    ),
    Symbol(
        r"\psi^l",
        "guided_logits",
        "n V",
        "as φ",
        "The guided logits. They start at φ, and end within η M of it, or so: the step is Adam's.",
        ("entrgi_ref.denoising:draw_candidates",),
        "ψ",
    ),
    Symbol(
        r"q^l",
        "probabilities",
        "n V",
        "[0, 1], rows sum to 1",
        "The token distribution, softmax(ψ / τ).",
        (f"{CORE}:soft_embedding", "entrgi_ref.draws:nucleus"),
        "q",
    ),
    Symbol(
        r"E^R",
        "embeddings",
        "V d",
        "real",
        "The reward model's table of embeddings, in the diffusion vocabulary's order.",
        (f"{CORE}:soft_embedding", f"{CORE}:hard_embedding"),
        "E^R",
    ),
    Symbol(
        r"\bar e^l",
        "soft",
        "n d",
        "convex hull of the rows of E^R",
        "The soft embedding: the average of all embeddings, weighted by q.",
        (f"{CORE}:interpolate", "entrgi_ref.errors:approximation_error"),
        "e with a bar",
    ),
    Symbol(
        r"\tilde e^l",
        "hard",
        "n d",
        "rows of E^R",
        "The hard embedding: that of one sampled token.",
        (f"{CORE}:interpolate", "entrgi_ref.errors:discreteness_error"),
        "e with a tilde",
    ),
    Symbol(
        r"w^l",
        "weight",
        "n",
        "[0, 1]",
        "The weight of the hard embedding. EntRGi's is H / log K, H the entropy of softmax(ψ).",
        (f"{CORE}:interpolate",),
        "w",
    ),
    Symbol(
        r"\hat e^l",
        "mixed",
        "n d",
        "between soft and hard",
        "What the reward model reads at a masked position.",
        ("entrgi_ref.errors:approximation_error", "entrgi_ref.errors:discreteness_error"),
        "e with a hat",
    ),
    Symbol(
        r"R(\hat e)",
        "rewards",
        "S",
        "real",
        "The reward model's number for each trajectory.",
        ("entrgi_ref.errors:GradientRecord.rewards",),
        "R",
    ),
    Symbol(
        r"\mathcal E^l",
        "E",
        "n",
        "[0, ∞), units of the embedding",
        "How far the reward model's input is from the soft embedding.",
        ("entrgi_ref.errors:GradientRecord.E",),
        "E",
    ),
    Symbol(
        r"\mathcal D^l",
        "D",
        "n",
        "[0, ∞), units of the embedding",
        "How far the reward model's input is from the drawn token's embedding.",
        ("entrgi_ref.errors:GradientRecord.D",),
        "D",
    ),
    Symbol(
        r"\tau",
        "temperature",
        "",
        "[1e-6, 1e6]",
        "Divides the logits before the softmax.",
        (f"{CORE}:token_distribution", "entrgi_ref.guidance:guide"),
        "τ",
    ),
    Symbol(
        r"M",
        "steps",
        "",
        "0, 1, 2, …",
        "Gradient steps per denoising step. With 0 there is no guidance: Best-of-N.",
        ("entrgi_ref.guidance:guide", "entrgi_ref.config:GuidanceConfig.steps"),
        "M",
    ),
    Symbol(
        r"\eta",
        "step_size",
        "",
        "(0, ∞), in logits",
        "The step size of Adam.",
        ("entrgi_ref.guidance:guide", "entrgi_ref.config:GuidanceConfig.step_size"),
        "η",
    ),
    Symbol(
        r"T",
        "denoising_steps",
        "",
        "1, 2, …",
        "Steps from all masked to none.",
        (
            "entrgi_ref.schedule:schedule",
            "entrgi_ref.config:SamplingConfig.denoising_steps",
        ),
        "T",
    ),
    Symbol(
        r"N",
        "new_tokens",
        "",
        "1, 2, …",
        "Length of a response.",
        ("entrgi_ref.schedule:schedule", "entrgi_ref.config:SamplingConfig.new_tokens"),
        "N",
    ),
    Symbol(
        r"K",
        "trajectories",
        "",
        "1, 2, …",
        "Answers per prompt. (In Eq. 4 the same letter stands for the size of the vocabulary, V.)",
        ("entrgi_ref.config:SamplingConfig.trajectories",),
        "K",
    ),
)

LETTERS = {
    "P": "prompts",
    "S": "trajectories in the batch: K for each prompt, side by side",
    "L": "length of prompt and response together",
    "N": "length of the response",
    "n": "masked positions, flat over the batch, in (S, N) order",
    "V": "diffusion vocabulary",
    "d": "width of the reward model's embeddings",
    "M": "gradient steps in each of T denoising steps",
}
"""The letters of the shapes, as in the docstring of `entrgi_ref.relaxation`."""


def table() -> str:
    """The symbols as a Markdown table."""
    lines = ["| symbol | name | shape | range | meaning |", "| --- | --- | --- | --- | --- |"]
    for s in SYMBOLS:
        shape = f"[{s.shape.replace(' ', ', ')}]" if s.shape else "number"
        lines.append(f"| ${s.tex}$ | `{s.name}` | {shape} | {s.range} | {s.meaning} |")
    return "\n".join(lines)


def letters() -> str:
    """The letters of the shapes as a Markdown table."""
    lines = ["| letter | counts |", "| --- | --- |"]
    return "\n".join(lines + [f"| {letter} | {what} |" for letter, what in LETTERS.items()])


def hover_texts() -> dict[str, str]:
    """Identifier -> what a reader is told who points at it."""
    return {s.name: f"{s.plain}{f' [{s.shape}]' if s.shape else ''}: {s.meaning}" for s in SYMBOLS}
