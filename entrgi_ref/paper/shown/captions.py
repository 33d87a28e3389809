"""What stands below each figure: what is drawn, of how many prompts and seeds, what bars and bands
are, and which settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...commands.shown import counted
from ..declared.experiments import label_of
from .comparable import differences, rounded
from .figures import AVERAGED_BY_STEP, SPREAD, averaged_over_sizes, bars
from .numbers import answers_of, beside_the_published
from .summary import Run


def caption(run: Run, name: str) -> str:
    """The caption of the figure `name` of a run."""
    return " ".join([*DRAWN[name](run), *_counts(run), _settings(run, name)])


def _main(run: Run) -> Iterator[str]:
    measures = ", ".join(measure.label for measure in run.measures.values())
    yield f"Each method's {measures}: mean over the seeds. {bars(run)}"
    if beside_the_published(run):
        yield "Vertical strokes: Top@1 as published on the authors' page, where it is known."
        if any(differences(run)):
            yield "They are of other settings, which the notes name: not comparable."


def _error_by_step(run: Run) -> Iterator[str]:
    yield (
        "Left: E, the distance of what the reward model reads from the soft embedding. Right: the "
        "entropy of the masked positions, and the most it can be, log V, where V is the size of "
        f"the vocabulary. {AVERAGED_BY_STEP} Bands: from the {SPREAD[0]}th to the {SPREAD[1]}th "
        "percentile of the means of single prompts, each prompt of each seed for itself."
    )


def _error_vs_entropy(run: Run) -> Iterator[str]:
    yield (
        "How often an entropy and an error E occur together, on a logarithmic scale, counted at "
        "each masked position of each answer, at each gradient step of each denoising step. "
        "Nothing is averaged, and there are no bars."
    )


def _reward_size(run: Run) -> Iterator[str]:
    yield (
        "Each measure against the reward model that guides and scores: mean over the seeds. "
        f"{bars(run)} Methods are moved aside so that each is seen."
    )


def _gradient_steps(run: Run) -> Iterator[str]:
    yield (f"{averaged_over_sizes(run)} {bars(run)} Methods are moved aside so that each is seen.")


DRAWN = {
    "main": _main,
    "error-by-step": _error_by_step,
    "error-vs-entropy": _error_vs_entropy,
    "reward-size": _reward_size,
    "gradient-steps": _gradient_steps,
}


def _counts(run: Run) -> Iterator[str]:
    """Over how many prompts and seeds: those that all methods have answered."""
    common = Counter((benchmark, seed) for benchmark, seed, _ in run.common("top1"))
    found: dict[str, list[str]] = {}
    for benchmark in run.benchmarks:
        counts = [n for (name, _), n in common.items() if name == benchmark]
        if counts:
            size = counted(min(counts), "prompt", max(counts))
            found.setdefault(f"{size} × {counted(len(counts), 'seed')}", []).append(benchmark)
    for size, names in found.items():
        yield f"{', '.join(names)}: {size}{' each' if len(names) > 1 else ''}."
    for measure in run.measures:
        if run.common(measure) != run.common("top1"):
            yield f"{run.measures[measure].label}: {len(run.common(measure))} of these prompts."


def _settings(run: Run, name: str) -> str:
    """The settings of the run, without what varies along an axis."""
    declared, settings = run.declaration, run.declaration["settings"]
    guidance, denoiser = settings["guidance"], run.declaration["denoiser"]
    steps = "" if run.variants("gradient_steps") else f"M = {guidance['steps']} gradient steps of "
    rewards = run.variants("reward") or [declared["main_reward"]]
    parts = [
        f"K = {settings['trajectories']} answers",
        f"{settings['new_tokens']} new tokens",
        f"T = {settings['denoising_steps']} denoising steps",
        f"{steps}η = {guidance['step_size']:g} ({guidance['optimiser']})",
        f"τ = {settings['temperature']:g}",
        f"top-p {settings['top_p']:g}",
        f"order {settings['order']}",
        f"reward {', '.join(str(declared['rewards'][reward]['name']) for reward in rewards)}",
        f"mask predictor {denoiser if isinstance(denoiser, str) else denoiser['name']}",
        *([str(declared["dtype"])] if "dtype" in declared else []),
        *rounded(run),
    ]
    return f"Settings: {', '.join(parts)}.{''.join(_other_answers(run))}"


def _other_answers(run: Run) -> Iterator[str]:
    """The methods with another K."""
    for method in run.methods:
        found = {K for benchmark in run.benchmarks for K in answers_of(run, benchmark, method)}
        if found and found != {run.declaration["settings"]["trajectories"]}:
            few, many = min(found), max(found)
            yield f" {label_of(method)}: K = {few if few == many else f'{few} to {many}'} answers."
