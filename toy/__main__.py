"""python -m toy: the method on the toy, in minutes, on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from entrgi_ref.commands.files import written_to
from entrgi_ref.commands.options import (
    BatchSize,
    DenoisingSteps,
    Engine,
    ExperimentName,
    GiveUpAfter,
    GradientSteps,
    Methods,
    Optimiser,
    Order,
    OtherVersion,
    Out,
    OwnGradientSteps,
    Prompts,
    RayActors,
    RayAddress,
    RetryFailed,
    Seed,
    Seeds,
    StepSize,
    Temperature,
    TopP,
    Trajectories,
    given,
    guidances,
    names_list,
    run_app,
    seed_list,
)
from entrgi_ref.commands.shown import is_terminal

from .laboratory import experiment
from .options import EmbeddingStd, Quick, Reward, Threads, TrainingSeed, bar, load_testbed
from .studies import FIRST_TRAINING_SEED, STUDIES, command

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
    optimiser: Optimiser = "adam",
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
        _require_no_options(context)
        return
    from entrgi_ref import GuidanceConfig, SamplingConfig

    from .demo import FULL, QUICK, run_demo
    from .language import LENGTH

    config = SamplingConfig(
        guidance=GuidanceConfig(steps=gradient_steps, step_size=step_size, optimiser=optimiser),
        trajectories=trajectories,
        new_tokens=LENGTH,
        denoising_steps=denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
    )
    folder = out or Path("results/demo-quick" if quick else "results/demo")
    with written_to(folder):  # before networks are trained
        testbed = load_testbed(reward, quick, training_seed, embedding_std, threads)
        table, files = run_demo(testbed, config, QUICK if quick else FULL, folder, typer.echo)
    if quick:
        table += "\nThe networks are the quick ones: not those of the documentation's numbers.\n"
    typer.echo(f"\n{table}\nWritten:")
    for file in files:
        typer.echo(f"  {file}")


def _require_no_options(context: typer.Context) -> None:
    """An option before the name of a command would be the demo's, and would say nothing."""
    command = context.invoked_subcommand
    for name in context.params:
        if given(context, name):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option}: got it before the command, expected python -m toy {command} {option}"
            )


@app.command()
def watch(
    prompt: Annotated[
        str, typer.Argument(help="Topic of the subjects, topic of the objects, style.")
    ] = "sea castle gloomy",
    method: Annotated[
        str,
        typer.Option(
            help="Shown after the unguided trajectory: expectation, aps, entrgi, or a weight of "
            "your own as MODULE:FUNCTION."
        ),
    ] = "entrgi",
    template: Annotated[
        str | None,
        typer.Option(
            help="An answer with blanks to fill in, such as 'a _ _ finds the _ today': each "
            "underscore is one word."
        ),
    ] = None,
    quick: Quick = False,
    reward: Reward = "medium",
    gradient_steps: GradientSteps = 3,
    step_size: StepSize = 0.5,
    optimiser: Optimiser = "adam",
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

    from .language import LENGTH, parse_prompt
    from .testbed import gold_score

    if method == "bon":
        raise ValueError("method: got 'bon', expected a guided one; the unguided is shown first")
    guided = guidances([method], gradient_steps, step_size, optimiser, "float32")
    parse_prompt(prompt)  # before networks are trained
    testbed = load_testbed(reward, quick, training_seed, embedding_std, threads)
    start = None if template is None else testbed.denoiser.template(template)[None]
    blanks = LENGTH if start is None else int((start == testbed.denoiser.mask_id).sum())
    for title, guidance in (
        ("Unguided", GuidanceConfig(steps=0)),
        *((f"Guided by {name}", own) for name, own in guided.items()),
    ):
        config = SamplingConfig(guidance, 1, LENGTH, blanks, order=order, seed=seed)
        typer.echo(f"\n{title}: {prompt}\nstep, noise level t, response, R at each gradient step")
        view = TerminalView(testbed.denoiser, colour=is_terminal(sys.stdout))
        answer = generate(
            testbed.denoiser, testbed.reward, [prompt], config, start=start, observe=view
        )
        typer.echo(
            f"reward {answer.rewards.item():+.2f}, gold {gold_score(prompt, answer.best[0]):+.2f}"
        )


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
    optimiser: Optimiser = "adam",
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    order: Order = "entropy",
    training_seed: TrainingSeed = FIRST_TRAINING_SEED,
    language: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**62,
            help="A template language of the laboratory, drawn by this seed with networks of its "
            "own, in place of the toy's language. It has 48 held-out prompts.",
            show_default=False,
        ),
    ] = None,
    retry_failed: RetryFailed = False,
    other_version: OtherVersion = False,
    give_up_after: GiveUpAfter = 16,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    ray_actors: RayActors = None,
    threads: Threads = 2,
) -> None:
    """Run one of the paper's experiments on the toy, or go on with one.

    `python -m entrgi_ref.paper list` names them, `python -m entrgi_ref.paper report` reports on
    what this writes.
    """
    from dataclasses import replace

    import torch

    from entrgi_ref import GuidanceConfig
    from entrgi_ref.paper.declared.plan import Plan
    from entrgi_ref.paper.run.cluster import cluster_of
    from entrgi_ref.paper.run.start import run as run_plan

    from .demo import BASE
    from .experiments import LanguageTestbed, ToyTestbed

    base = replace(
        BASE,
        guidance=GuidanceConfig(step_size=step_size, optimiser=optimiser),
        trajectories=trajectories,
        denoising_steps=denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
    )
    chosen = names_list(methods)
    plan = Plan.of(experiment, base, seed_list(seeds), prompts, batch_size, chosen, gradient_steps)
    testbed: ToyTestbed | LanguageTestbed
    if language is None:
        testbed = ToyTestbed(
            lambda name: load_testbed(name, quick, training_seed, 1.0, threads),
            quick,
            training_seed,
        )
        results = Path("results/toy")
    else:
        if training_seed != FIRST_TRAINING_SEED:
            raise ValueError(
                f"training_seed: got {training_seed} with --language, whose networks have its seed"
            )
        torch.set_num_threads(threads)
        testbed = LanguageTestbed(language, quick, bar)
        results = Path(f"results/language-{language}")
    folder = results / experiment if out is None else out
    failed = run_plan(
        plan,
        testbed,
        folder,
        typer.echo,
        retry_failed=retry_failed,
        other_version=other_version,
        give_up_after=give_up_after,
        cluster=cluster_of(engine, ray_address, ray_actors, gpus=False),
    )
    if failed:
        raise typer.Exit(1)


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


for _name, _study in STUDIES.items():
    app.command(_name)(command(_name, _study))
experiment.add_to(app)


def main() -> None:
    """Run the command line; wrong input is one line, not a traceback."""
    run_app(
        app,
        kept="trained networks are kept, and units of the laboratory that are done",
    )


if __name__ == "__main__":
    main()
