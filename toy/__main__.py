"""python -m toy: the method on the toy, in minutes, on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from entrgi_ref.commands.options import (
    BatchSize,
    DenoisingSteps,
    ExperimentName,
    GradientSteps,
    Methods,
    Order,
    Out,
    OwnGradientSteps,
    Prompts,
    RetryFailed,
    Seed,
    Seeds,
    StepSize,
    Temperature,
    TopP,
    Trajectories,
    names_list,
    run_app,
    seed_list,
)

if TYPE_CHECKING:
    from .testbed import Testbed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

FIRST_TRAINING_SEED = 10
"""Of the demo's networks. Smaller ones were looked at while the toy was designed."""

Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Smaller networks, trained in seconds; where there is a choice fewer prompts and one "
        "seed. To try things out: the numbers are others.",
    ),
]
Reward = Annotated[
    str, typer.Option(help="The guiding reward model: small, medium, large or closed_form.")
]
TrainingSeed = Annotated[
    int,
    typer.Option(
        help="Of the networks: another seed is another pair, trained if it is not in the cache."
    ),
]
EmbeddingStd = Annotated[
    float,
    typer.Option(help="Standard deviation of the reward model's embeddings before its training."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    quick: Quick = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder for the results. By default results/demo, or results/demo-quick.",
            show_default=False,
        ),
    ] = None,
    reward: Reward = "medium",
    trajectories: Trajectories = 4,
    denoising_steps: DenoisingSteps = 16,
    gradient_steps: GradientSteps = 3,
    step_size: StepSize = 0.5,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    order: Order = "entropy",
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    embedding_std: EmbeddingStd = 1.0,
    threads: Threads = 2,
) -> None:
    """Guide held-out prompts with every method and compare them: a table, a figure and a trace
    page.

    Networks are trained at the first run, which takes about a minute, and kept in toy/.cache.
    """
    if context.invoked_subcommand:
        return
    from entrgi_ref import GuidanceConfig, SamplingConfig

    from .demo import FULL, QUICK, run_demo
    from .language import LENGTH

    config = SamplingConfig(
        guidance=GuidanceConfig(steps=gradient_steps, step_size=step_size),
        trajectories=trajectories,
        new_tokens=LENGTH,
        denoising_steps=denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
    )
    testbed = load_testbed(reward, quick, training_seed, embedding_std, threads)
    folder = out or Path("results/demo-quick" if quick else "results/demo")
    table, files = run_demo(testbed, config, QUICK if quick else FULL, folder, typer.echo)
    if quick:
        table += "\nThe networks are the quick ones: not those of the documentation's numbers.\n"
    typer.echo(f"\n{table}\nWritten:")
    for file in files:
        typer.echo(f"  {file}")


@app.command()
def watch(
    prompt: Annotated[
        str, typer.Argument(help="Topic of the subjects, topic of the objects, style.")
    ] = "sea castle gloomy",
    method: Annotated[
        str, typer.Option(help="Shown after the unguided trajectory: expectation, aps, entrgi.")
    ] = "entrgi",
    quick: Quick = False,
    reward: Reward = "medium",
    gradient_steps: GradientSteps = 3,
    step_size: StepSize = 0.5,
    order: Order = "entropy",
    seed: Seed = 1,
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    embedding_std: EmbeddingStd = 1.0,
    threads: Threads = 2,
) -> None:
    """Show one trajectory in the terminal, unguided and then guided: tokens appear, masked slots
    are coloured by w.
    """
    from entrgi_ref import GuidanceConfig, SamplingConfig, generate
    from entrgi_ref.watching import TerminalView

    from .language import LENGTH
    from .testbed import gold_score

    testbed = load_testbed(reward, quick, training_seed, embedding_std, threads)
    for title, guidance in (
        ("Unguided", GuidanceConfig(steps=0)),
        (
            f"Guided by {method}",
            GuidanceConfig(weight=method, steps=gradient_steps, step_size=step_size),
        ),
    ):
        config = SamplingConfig(guidance, 1, LENGTH, LENGTH, order=order, seed=seed)
        typer.echo(f"\n{title}: {prompt}\nstep, noise level t, response, R at each gradient step")
        view = TerminalView(testbed.denoiser, colour=sys.stdout.isatty())
        answer = generate(testbed.denoiser, testbed.reward, [prompt], config, observe=view)
        typer.echo(
            f"reward {answer.rewards.item():+.2f}, gold {gold_score(prompt, answer.best[0]):+.2f}"
        )


@app.command()
def gradients(
    quick: Quick = False,
    reward: Reward = "medium",
    states: Annotated[int, typer.Option(help="Held-out answers with two masked positions.")] = 32,
    draws: Annotated[int, typer.Option(help="Draws of hard tokens at each state.")] = 128,
    seed: Seed = 1,
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    embedding_std: EmbeddingStd = 1.0,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path(
        "results/gradients"
    ),
) -> None:
    """Compare each weight function's gradient with the exact one, found by enumeration."""
    from dataclasses import replace

    from .demo import BASE, provenance, write_record
    from .exact import agreements, markdown

    testbed = load_testbed(reward, quick, training_seed, embedding_std, threads)
    base = replace(BASE, seed=seed)
    found = agreements(testbed, base, states, draws)
    typer.echo(f"\n{markdown(found)}\n\n{states} states x {draws} draws; {testbed.description}.")
    rows = {name: {key: vars(e) for key, e in vars(a).items()} for name, a in found.items()}
    record = provenance(base, testbed.description, states, [seed]) | {"draws": draws, "rows": rows}
    write_record(out / "run.json", record)


@app.command()
def spread(
    pairs: Annotated[int, typer.Option(min=2, max=10, help="Pairs of networks to train.")] = 5,
    quick: Quick = False,
    reward: Reward = "medium",
    gradient_steps: GradientSteps = 3,
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    embedding_std: EmbeddingStd = 1.0,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("results/spread"),
) -> None:
    """Repeat the comparison on several trained pairs: how much of a result is one pair's luck.

    Each pair is trained at its first use, which takes about a minute.
    """

    from .demo import BASE, FULL, QUICK, compare, methods_of, provenance, write_record
    from .spread import differences, markdown
    from .testbed import held_out_prompts

    base = BASE.guided(steps=gradient_steps)
    plan = QUICK if quick else FULL
    found, first = [], ""
    for seed in range(training_seed, training_seed + pairs):
        testbed = load_testbed(reward, quick, seed, embedding_std, threads)
        prompts = held_out_prompts(plan.prompts)
        found.append(list(compare(testbed, methods_of(base, testbed), prompts, plan.seeds)))
        first = first or testbed.description
        typer.echo(f"{testbed.description}: done")
    rows = differences(found)
    typer.echo(f"\n{markdown(rows)}\n")
    typer.echo(
        f"Difference to Best-of-N over {pairs} trained pairs: mean [95% interval over the pairs], "
        f"smallest to largest. {plan.prompts} prompts x {len(plan.seeds)} seeds each."
    )
    description = f"{pairs} pairs, the first of them: {first}"
    record = provenance(base, description, plan.prompts, plan.seeds)
    write_record(out / "run.json", record | {"rows": rows})


@app.command()
def ledger(
    quick: Quick = False,
    reward: Reward = "medium",
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("results/ledger"),
) -> None:
    """What each difference between the authors' code and this package does (docs/ledger.md)."""
    from .demo import BASE, FULL, QUICK, provenance, write_record
    from .ledger import effects, markdown
    from .testbed import held_out_prompts

    testbed = load_testbed(reward, quick, training_seed, 1.0, threads)
    plan = QUICK if quick else FULL
    found = effects(testbed, BASE, held_out_prompts(plan.prompts), plan.seeds)
    typer.echo(f"\n{markdown(found)}\n")
    record = provenance(BASE, testbed.description, plan.prompts, plan.seeds)
    rows = {name: {m: vars(e) for m, e in effect.items()} for name, effect in found.items()}
    write_record(out / "run.json", record | {"rows": rows})


@app.command()
def run(
    experiment: ExperimentName,
    out: Out = None,
    methods: Methods = "",
    seeds: Seeds = "1,2,3",
    prompts: Prompts = 64,
    batch_size: BatchSize = "64",
    quick: Quick = False,
    trajectories: Trajectories = 4,
    denoising_steps: DenoisingSteps = 16,
    gradient_steps: OwnGradientSteps = None,
    step_size: StepSize = 0.5,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    order: Order = "entropy",
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    retry_failed: RetryFailed = False,
    threads: Threads = 2,
) -> None:
    """Run one of the paper's experiments on the toy, or go on with one.

    `python -m entrgi_ref.paper list` names them, `python -m entrgi_ref.paper report` reports on
    what this writes.
    """
    from dataclasses import replace

    from entrgi_ref import GuidanceConfig
    from entrgi_ref.paper.declared.plan import Plan
    from entrgi_ref.paper.run.start import run as run_plan

    from .demo import BASE
    from .experiments import ToyTestbed

    base = replace(
        BASE,
        guidance=GuidanceConfig(step_size=step_size),
        trajectories=trajectories,
        denoising_steps=denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
    )
    chosen = names_list(methods)
    plan = Plan.of(experiment, base, seed_list(seeds), prompts, batch_size, chosen, gradient_steps)
    testbed = ToyTestbed(
        lambda name: load_testbed(name, quick, training_seed, 1.0, threads), quick, training_seed
    )
    folder = Path("results/toy") / experiment if out is None else out
    if run_plan(plan, testbed, folder, typer.echo, retry_failed=retry_failed):
        raise typer.Exit(1)


@app.command()
def dial(
    quick: Quick = False,
    reward: Reward = "medium",
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("results/dial"),
) -> None:
    """Turn the dial: constant weights from 0 to 1, and the entropy's, over M."""
    from .demo import BASE, FULL, QUICK, provenance, write_record
    from .dial import markdown, turn
    from .testbed import held_out_prompts

    testbed = load_testbed(reward, quick, training_seed, 1.0, threads)
    plan = QUICK if quick else FULL
    found = turn(testbed, BASE, held_out_prompts(plan.prompts), plan.seeds)
    typer.echo(f"\n{markdown(found)}\n")
    record = provenance(BASE, testbed.description, plan.prompts, plan.seeds)
    write_record(out / "run.json", record | {"rows": found})


@app.command()
def train(
    quick: Quick = False,
    reward: Annotated[
        str, typer.Option(help="The reward model to train: small, medium, large or all.")
    ] = "all",
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    embedding_std: EmbeddingStd = 1.0,
) -> None:
    """Train the networks and keep them in the cache, so that the other commands need not wait."""
    from .training import REWARDS

    for name in (
        REWARDS if reward == "all" and not quick else ["medium" if reward == "all" else reward]
    ):
        load_testbed(name, quick, training_seed, embedding_std, threads=1)


def load_testbed(
    reward: str, quick: bool, seed: int, embedding_std: float, threads: int
) -> Testbed:
    """The trained networks, with a progress bar if they have to be trained first."""
    import torch

    from .testbed import Testbed

    torch.set_num_threads(threads)

    def track(steps: Iterable[int], label: str) -> Iterable[int]:
        with typer.progressbar(steps, label=label) as bar:
            yield from bar

    return Testbed.load(reward, quick=quick, seed=seed, embedding_std=embedding_std, track=track)


def main() -> None:
    """Run the command line; wrong input is one line, not a traceback."""
    run_app(app)


if __name__ == "__main__":
    main()
