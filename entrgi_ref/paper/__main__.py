"""The paper's experiments on Dream: `python -m entrgi_ref.paper COMMAND`.

The toy runs the same experiments by `python -m toy run`; every other command reads run folders,
whoever wrote them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..commands.options import (
    Attention,
    Authors,
    BatchSize,
    Compiled,
    CudaGraphs,
    DenoiserPath,
    Device,
    Dtype,
    Engine,
    ExperimentName,
    GiveUpAfter,
    Methods,
    MicroBatch,
    NewTokens,
    Offload,
    Optimiser,
    Order,
    OtherVersion,
    Out,
    OwnDenoisingSteps,
    OwnGradientSteps,
    Prompts,
    Quantize,
    RayActors,
    RayAddress,
    RetryFailed,
    RewardDevice,
    RewardWeights,
    RunPath,
    Seeds,
    Size,
    StepSize,
    Temperature,
    TopP,
    Trajectories,
    Unmatched,
    VocabularyBatch,
    given,
    guidance_dtype,
    names_list,
    quantization,
    require_precision,
    run_app,
    seed_list,
    stopping,
)
from ..commands.pairs import announced, pair_of
from .declared.published import LMUNIT

if TYPE_CHECKING:
    from .declared.plan import Plan
    from .declared.testbed import DreamTestbed

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="The paper's experiments: list, plan, run, judge, report, browse, export, repair, bench.",
)

RESULTS = Path("results")


@app.command("list")
def list_(
    out: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders. By default all below results/.", show_default=False),
    ] = None,
) -> None:
    """The experiments, which table or figure each regenerates, and how far runs are."""
    from .run.records import JUDGES
    from .shown.listing import listing

    below = [file.parent for file in RESULTS.glob("**/run.json")]
    own = [folder for folder in below if folder.parent.name != JUDGES]
    runs = sorted(folder for folder in own if (folder / "records").is_dir())
    typer.echo(listing(out or runs))


DRY = ("dry", "prompt_tokens", "tflops", "bandwidth", "json_")
"""Options that `plan` alone has."""


def _declared(
    act: Callable[[Plan, DreamTestbed, Path, dict[str, Any]], None],
) -> Callable[..., None]:
    """A command whose options declare an experiment on Dream. Those of `DRY` are for `plan`."""

    def command(
        context: typer.Context,
        experiment: ExperimentName,
        out: Out = None,
        size: Size = "paper",
        denoiser: DenoiserPath = None,
        reward: Annotated[
            list[str] | None,
            typer.Option(
                "--reward",
                help="A reward model: a folder, a hub id, or NAME=either; may be given several "
                "times. By default the paper's, Skywork-Reward-V2-Qwen3 of 0.6B, 1.7B and 4B; with "
                "--size small that of 0.6B. Where one is wanted it is the one called 1.7B, or else "
                "the first. Of a causal model it is how likely it finds an answer.",
            ),
        ] = None,
        reward_weight: RewardWeights = None,
        benchmark: Annotated[
            list[str] | None,
            typer.Option(
                "--benchmark",
                help="reward-bench-2, judge-bench or rm-bench, with @REVISION to pin one, or a "
                ".jsonl or .parquet file with a field `prompt`; may be given several times. By "
                "default the paper's, which are these three.",
            ),
        ] = None,
        methods: Methods = "",
        seeds: Seeds = "1,2,3",
        prompts: Prompts = 64,
        batch_size: BatchSize = "4",
        device: Device = "auto",
        dtype: Dtype = "auto",
        new_tokens: NewTokens = 128,
        denoising_steps: OwnDenoisingSteps = None,
        gradient_steps: OwnGradientSteps = None,
        step_size: StepSize = 0.5,
        optimiser: Optimiser = "adam",
        temperature: Temperature = 0.7,
        top_p: TopP = 0.95,
        trajectories: Trajectories = 4,
        order: Order = "entropy",
        authors: Authors = False,
        unmatched: Unmatched = "eos",
        compiled: Compiled = False,
        cuda_graphs: CudaGraphs = False,
        micro_batch: MicroBatch = None,
        vocabulary_batch: VocabularyBatch = None,
        quantize: Quantize = None,
        reward_device: RewardDevice = None,
        offload: Offload = False,
        attention: Attention = "sdpa",
        retry_failed: RetryFailed = False,
        other_version: OtherVersion = False,
        give_up_after: GiveUpAfter = 16,
        engine: Engine = "local",
        ray_address: RayAddress = None,
        ray_actors: RayActors = None,
        dry: Annotated[
            bool,
            typer.Option(
                "--dry",
                help="Load no weights: predict memory and time from configurations, for cards of "
                "several sizes, and say what would be fetched.",
            ),
        ] = False,
        prompt_tokens: Annotated[
            int, typer.Option(help="With --dry: tokens of the longest prompt. An assumption.")
        ] = 256,
        tflops: Annotated[
            float, typer.Option(help="With --dry: 10^12 operations per second. An assumption.")
        ] = 100.0,
        bandwidth: Annotated[
            float, typer.Option(help="With --dry: 10^9 bytes of memory per second. An assumption.")
        ] = 1000.0,
        json_: Annotated[
            Path | None,
            typer.Option("--json", help="With --dry: a file for all that is predicted."),
        ] = None,
    ) -> None:
        from ..checks import rows_at_a_time
        from ..commands.own_weights import SEPARATOR
        from ..config import GuidanceConfig, SamplingConfig
        from ..models.checkpoints import device_of, dtype_of
        from .declared.benchmarks import HUB, named
        from .declared.experiments import GUIDED, MAIN
        from .declared.plan import Plan
        from .declared.testbed import DreamTestbed, main_of, reward_paths
        from .run.cluster import cluster_of
        from .run.start import announce, at_commit, local_device, pinned, pinned_models

        rows_at_a_time("vocabulary_batch", vocabulary_batch)
        where = local_device(device)
        cluster = cluster_of(engine, ray_address, ray_actors, gpus=where != "cpu")
        dtype_of(dtype, device_of(where))
        rounded = quantization(quantize)
        chosen = names_list(methods)
        guided = not chosen or any(
            name in (*GUIDED, "damped") or SEPARATOR in name for name in chosen
        )
        steps = 3 if gradient_steps is None else gradient_steps
        require_precision(dtype, authors, steps if guided else 0)
        base = SamplingConfig(
            GuidanceConfig(step_size=step_size, dtype=guidance_dtype(dtype), optimiser=optimiser),
            trajectories=trajectories,
            new_tokens=new_tokens,
            denoising_steps=new_tokens if denoising_steps is None else denoising_steps,
            temperature=temperature,
            top_p=top_p,
            order=order,
        )
        plan = Plan.of(
            experiment,
            SamplingConfig.authors(base) if authors else base,
            seed_list(seeds),
            prompts,
            batch_size,
            chosen,
            gradient_steps,
        )
        folder = RESULTS / experiment if out is None else out
        pair = pair_of(size, given(context, "size"), denoiser, reward or [])
        network = denoiser or pair.denoiser
        if not reward and size != "paper":
            reward = [pair.reward]
        rewards = reward_paths(reward or [])
        if reward_weight:
            from ..models.combined import require_weights

            require_weights(len(rewards), reward_weight)
        elif plan.experiment.rewards == MAIN:  # the others would be fetched for nothing
            rewards = {main_of(rewards): rewards[main_of(rewards)]}
        if dry:
            from .run.dry import Assumed, say

            assumed = Assumed(tflops, bandwidth, prompt_tokens)
            parts = {"micro_batch": micro_batch, "vocabulary_batch": vocabulary_batch}
            typer.echo(say(plan, network, rewards, dtype, assumed, json_, rounded, **parts))
            uncounted = {
                "--reward-device": reward_device,
                "--offload": offload,
                "--reward-weight": reward_weight,
            }
            if names := [name for name, asked in uncounted.items() if asked]:
                typer.echo(f"\nNot counted with: {', '.join(names)}.")
            return
        if json_ is not None:
            raise ValueError(f"json: got {str(json_)!r}, which has no effect without --dry")
        models = pinned_models(folder)

        def fixed(path: str) -> str:
            return at_commit(path, models, announce)

        testbed = DreamTestbed(
            path=fixed(network),
            reward_paths={name: fixed(path) for name, path in rewards.items()},
            benchmarks=[],
            dtype=dtype,
            requested_device=where,
            unmatched=unmatched,
            compiled=compiled,
            cuda_graphs=cuda_graphs,
            micro_batch=micro_batch,
            vocabulary_batch=vocabulary_batch,
            reward_device=reward_device,
            offload=offload,
            attention=attention,
            quantize=rounded,
            reward_weights=reward_weight or (),
        )
        testbed.require_loadable()  # networks and benchmarks may have to be fetched
        if fetched := announced([network, *rewards.values()]):
            announce(fetched)
        testbed.benchmarks = named(benchmark or list(HUB), pinned(folder))
        options = {
            "retry_failed": retry_failed,
            "other_version": other_version,
            "give_up_after": give_up_after,
            "cluster": cluster,
        }
        act(plan, testbed, folder, options)

    command.__doc__ = act.__doc__
    if act.__name__ != "plan_":
        signature = inspect.signature(command, eval_str=True)
        kept = [p for name, p in signature.parameters.items() if name not in DRY]
        command.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return command


@app.command("plan")
@_declared
def plan_(plan: Plan, testbed: DreamTestbed, out: Path, options: dict[str, Any]) -> None:
    """What an experiment, or what is left of it, would take on this device, from a short
    calibration; with --dry on any device, predicted without loading a network.
    """
    from .run.estimate import estimate

    typer.echo(estimate(plan, testbed, out, retry_failed=options["retry_failed"]))


@app.command("run")
@_declared
def run(plan: Plan, testbed: DreamTestbed, out: Path, options: dict[str, Any]) -> None:
    """Run an experiment, or go on with one. Several processes share the work, under torchrun or
    each started by itself, and by --engine ray all GPUs of a cluster.

    Exits with 1 if a prompt has failed.
    """
    from .run.start import rank
    from .run.start import run as run_plan

    failed = run_plan(plan, testbed, out, typer.echo, **options)
    if failed and rank() == 0:
        raise typer.Exit(1)


@app.command()
def judge(
    out: RunPath,
    model: Annotated[
        str,
        typer.Option(help="The judge: a folder, or a hub id. The paper's is LMUnit, of 72B."),
    ] = LMUNIT,
    backend: Annotated[
        str,
        typer.Option(
            help="lmunit (needs the extra `judge`, and GPUs), or transformers for any causal model."
        ),
    ] = "lmunit",
    unit_tests: Annotated[
        Path | None,
        typer.Option(help="A file of criteria to judge by, one per line. By default our five."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions at a time.")] = 16,
    device: Device = "auto",
    dtype: Dtype = "auto",
    gpus: Annotated[int, typer.Option(help="GPUs that share the model, of lmunit.")] = 4,
    other_version: OtherVersion = False,
) -> None:
    """Let a judge score the best answer to every prompt by unit tests, as the paper does by LMUnit.

    Resumable like a run. Exits with 1 if an answer could not be judged.
    """
    from ..commands.files import written_to
    from .judged import backends, judging
    from .judged.judge import read_unit_tests
    from .run.records import JUDGES, read_experiment, read_records
    from .run.start import announce, at_commit, local_device

    with stopping(lambda: f"nothing new has been written to {out}"):
        # All that can be known without the judge's 72 billion parameters comes first.
        read_experiment(out)
        read_records(out)
        tests = read_unit_tests(unit_tests)
        pinned = judging.pinned_judge(out, backend, model, tests)
        with written_to(out / JUDGES):
            model = at_commit(model, pinned, announce)
            where = local_device(device)
            examined = backends.examine_judge(backend, model, where, dtype, batch_size, gpus)
            judging.require_judgeable(out, examined.declaration, tests, other_version=other_version)
        failed = judging.run(out, examined.load(), tests, typer.echo, other_version=other_version)
    if failed:
        raise typer.Exit(1)


@app.command()
def bench(
    shape: Annotated[
        str,
        typer.Option(
            help="tiny, toy, wide (the real vocabulary), small (the pair) or, for a GPU, paper."
        ),
    ] = "wide",
    json_: Annotated[
        Path | None, typer.Option("--json", help="A file for everything that was measured.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=10_000, help="How often each is timed, in turns.")
    ] = 5,
    threads: Annotated[int, typer.Option(min=1, max=256, help="CPU threads.")] = 2,
    device: Device = "auto",
    faster: Annotated[
        bool,
        typer.Option(
            "--faster", help="Compile the denoiser's layers and replay the reward model, on a GPU."
        ),
    ] = False,
    scaling: Annotated[
        bool,
        typer.Option("--scaling", help="Also 1, 2 and 4 times each size: S, N, V, prompt, M, T."),
    ] = False,
    switches: Annotated[
        bool,
        typer.Option("--switches", help="Also without each part of the room fast/, in its turn."),
    ] = False,
    vocabulary_batch: VocabularyBatch = None,
) -> None:
    """Time a run on random networks beside these networks alone, and beside the work on the
    vocabulary that cannot be avoided.
    """
    import torch

    from ..checks import choice
    from ..models.checkpoints import device_of
    from .measured.command import run
    from .measured.networks import SHAPES

    choice("shape", shape, SHAPES)
    torch.set_num_threads(threads)
    where = device_of(device)
    typer.echo(run(shape, json_, rounds, where, faster, scaling, switches, vocabulary_batch))


@app.command()
def repair(out: RunPath) -> None:
    """Take damaged lines, and records of other runs, out of a run; the run computes them again."""
    from ..watching import printable
    from .run.folder import repair as repaired

    said = repaired(out)
    for line in said:
        typer.echo(printable(line))
    typer.echo(f"{len(said)} lines taken out; they are kept in {out / 'dropped'}" if said else "ok")


@app.command()
def report(
    out: RunPath,
    to: Annotated[
        Path | None, typer.Option(help="Where the report goes. By default RUN/report.")
    ] = None,
) -> None:
    """The table (Markdown, LaTeX, CSV and JSON) and the figures (SVG and PNG) of a run, finished or
    not, beside the published numbers.
    """
    from .run.records import own_folder
    from .shown.report import write

    _, files = write(out, to or own_folder(out, "report"), typer.echo)
    typer.echo("Written:")
    for file in files:
        typer.echo(f"  {file}")


@app.command()
def browse(
    out: RunPath,
    to: Annotated[
        Path | None, typer.Option(help="The page's file, .html. By default RUN/browse.html.")
    ] = None,
) -> None:
    """All answers of a run, finished or not, in one page for the browser: methods side by side,
    with their rewards and the step that wrote each token. It needs no network.
    """
    from .shown.browse import write

    file = to or out / "browse.html"
    write(out, file)
    typer.echo(file)


@app.command()
def export(
    out: RunPath,
    to: Annotated[
        Path | None, typer.Option(help="Where the files go. By default RUN/export.")
    ] = None,
    aggregation_names: Annotated[
        bool,
        typer.Option(
            "--aggregation-names",
            help="Put _MNT<n> into the names, which the authors' aggregation script looks for.",
        ),
    ] = False,
) -> None:
    """Write a run as the authors' result files: their layout, their names."""
    from .run.records import own_folder
    from .shown.export import write

    for file in write(out, to or own_folder(out, "export"), aggregation_names):
        typer.echo(file)


def main() -> None:
    """Run the command line; what goes wrong is one line, not a traceback."""
    run_app(app)


if __name__ == "__main__":
    main()
