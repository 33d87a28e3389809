"""The command `python -m entrgi_ref PROMPT ...`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .asked import Asked, asked
from .files import require_writable
from .memory import memory
from .options import (
    Attention,
    Authors,
    DenoiserPath,
    Device,
    Dtype,
    GradientSteps,
    MicroBatch,
    NewTokens,
    Offload,
    Optimiser,
    Order,
    OwnDenoisingSteps,
    Quantize,
    RewardDevice,
    RewardWeights,
    Seed,
    Size,
    StepSize,
    Temperature,
    TopP,
    Trajectories,
    Unmatched,
    VocabularyBatch,
    given,
    guidances,
    names_list,
    quantization,
    require_precision,
    stopping,
)
from .pairs import announced, pair_of

if TYPE_CHECKING:
    from ..config import GuidanceConfig, SamplingConfig
    from ..models import DenoiserCheckpoint
    from ..protocols import Reward
    from .answering import Case

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def answer(
    context: typer.Context,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...",
            help="What to answer; several are answered one by one. - reads standard input, a "
            "prompt in each line.",
            show_default=False,
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A file with a prompt in each line, or .jsonl with objects that have a `prompt` "
            "and perhaps a `template`; - is standard input.",
        ),
    ] = None,
    size: Size = "small",
    denoiser: DenoiserPath = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            help="The reward: a folder, or its id on the hub. A sequence classifier is a reward "
            "model; of a causal model it is how likely it finds the answer. Several are added up. "
            "By default that of --size.",
            show_default=False,
        ),
    ] = None,
    reward_weight: RewardWeights = None,
    method: Annotated[
        str,
        typer.Option(
            help="expectation, aps, entrgi, entrgi_tempered, a weight of your own as "
            "MODULE:FUNCTION, or bon for no guidance; several with commas are shown side by side."
        ),
    ] = "entrgi",
    device: Device = "auto",
    dtype: Dtype = "auto",
    new_tokens: NewTokens = 128,
    denoising_steps: OwnDenoisingSteps = None,
    gradient_steps: GradientSteps = 3,
    step_size: StepSize = 0.5,
    optimiser: Optimiser = "adam",
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    trajectories: Trajectories = 4,
    order: Order = "entropy",
    seed: Seed = 0,
    denoiser_revision: Annotated[
        str | None,
        typer.Option(
            "--denoiser-revision",
            "--dream-revision",
            help="The hub's branch, tag or commit of the mask predictor.",
        ),
    ] = None,
    reward_revision: Annotated[
        str | None,
        typer.Option(
            help="The hub's branch, tag or commit of the reward model; of several, --reward "
            "ID@REVISION."
        ),
    ] = None,
    reward_adapter: Annotated[
        str | None, typer.Option(help="A LoRA adapter to merge into the reward model.")
    ] = None,
    unmatched: Unmatched = "eos",
    micro_batch: MicroBatch = None,
    vocabulary_batch: VocabularyBatch = None,
    quantize: Quantize = None,
    reward_device: RewardDevice = None,
    offload: Offload = False,
    attention: Attention = "sdpa",
    authors: Authors = False,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="An answer with blanks to fill in, such as 'I am ____ because ____.': each "
            "underscore of a blank is one token. In place of --new-tokens. Once for all prompts, "
            "or once for each.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for answers.json and trace.html, on which a method alone stands beside "
            "the unguided answers."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="A file, .csv or .json, for a table with a row for each answer."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the first trajectory while it is denoised.")
    ] = False,
) -> None:
    """Answer prompts by a masked diffusion language model, guided by a reward, and print every
    trajectory's reward and the best answer.
    """
    from ..checks import rows_at_a_time
    from ..config import SamplingConfig
    from ..models import DenoiserCheckpoint, SumOfRewards, examine_reward
    from ..models.checkpoints import identity
    from ..models.loading import Together
    from .answering import Answering, Networks
    from .shown import require_table

    # All that can be known without the weights comes first.
    guidances = _guidances(method, gradient_steps, step_size, optimiser, dtype, authors)
    rounded = quantization(quantize)
    loading = Together.of(
        dtype,
        device,
        reward_device,
        quantize=rounded,
        offload=offload,
        attention=attention,
        adapter=reward_adapter,
    )
    loading.reward.require_steps(False, micro_batch)
    questions = asked(prompts or [], from_, template or [])
    pair = pair_of(size, given(context, "size"), denoiser, reward or [])
    network, judges = denoiser or pair.denoiser, reward or [pair.reward]
    weights = _weights(judges, reward_weight, reward_revision, reward_adapter)
    if table is not None:
        require_table(table, out)
    rows_at_a_time("vocabulary_batch", vocabulary_batch)
    if fetched := announced([network, *judges]):
        typer.echo(fetched, err=True)
    checkpoint = DenoiserCheckpoint.examine(network, revision=denoiser_revision)
    examined = {
        path: examine_reward(
            path, revision=reward_revision, unmatched=unmatched, adapter=reward_adapter
        )
        for path in judges
    }
    for judge in examined.values():
        judge.vocabulary(checkpoint.tokens)
    if given(context, "new_tokens") and all(one.template for one in questions):
        raise ValueError(f"new_tokens: got {new_tokens} beside a template, which has its own")
    base = SamplingConfig(
        trajectories=trajectories,
        new_tokens=new_tokens,
        denoising_steps=new_tokens if denoising_steps is None else denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
        seed=seed,
    )
    cases = [
        _case(one, checkpoint, base, guidances, authors, own_steps=denoising_steps is not None)
        for one in questions
    ]
    for case in cases:
        length = next(iter(case.configs.values())).new_tokens
        checkpoint.require_room([case.prompt], length)
        for judge in examined.values():
            judge.require_room([case.prompt], length)
    if out is not None:
        require_writable(out)
    if table is not None:
        require_writable(table.parent)

    described = {
        "denoiser": identity(checkpoint.folder),
        "rewards": [
            {**identity(judge.folder), "weight": weight}
            for judge, weight in zip(examined.values(), weights, strict=True)
        ],
        "dtype": str(loading.denoiser.dtype).removeprefix("torch."),
        "quantize": rounded,
        "unmatched": unmatched,
    }
    run = Answering(cases, watch, out, table, vocabulary_batch, described)
    with stopping(run.kept):
        with memory("load both networks in 16 bits by --dtype bfloat16, or take a smaller reward"):
            predictor = checkpoint.load(**loading.denoiser.options)
            parts = {
                path: judge.load(predictor, micro_batch=micro_batch, **loading.reward.options)
                for path, judge in examined.items()
            }
            total: Reward = next(iter(parts.values()))
            if weights != [1.0]:
                total = SumOfRewards.of(list(parts.values()), weights)
            networks = Networks(predictor, total, parts)
        run.run(networks)


def _guidances(
    method: str, steps: int, step_size: float, optimiser: str, dtype: str, authors: bool
) -> dict[str, GuidanceConfig]:
    """The guidance of each of the methods that are named with commas."""
    methods = names_list(method, "method")
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"method: got {method!r}, expected names with commas, each once")
    require_precision(dtype, authors, 0 if methods == ["bon"] else steps)
    return guidances(methods, steps, step_size, optimiser, dtype)


def _weights(
    rewards: list[str], weights: list[float] | None, revision: str | None, adapter: str | None
) -> list[float]:
    """A weight for each reward, by default 1."""
    from ..models.combined import require_weights

    found = weights or [1.0] * len(rewards)
    require_weights(len(rewards), found)
    if len(set(rewards)) < len(rewards):
        raise ValueError("reward: got one of them twice, expected each once, with its weight")
    for name, value in (("reward_revision", revision), ("reward_adapter", adapter)):
        if value is not None and len(rewards) > 1:
            raise ValueError(
                f"{name}: got one for {len(rewards)} rewards, expected a single --reward"
            )
    return found


def _case(
    question: Asked,
    checkpoint: DenoiserCheckpoint,
    base: SamplingConfig,
    guidances: dict[str, GuidanceConfig],
    authors: bool,
    own_steps: bool,
) -> Case:
    """A prompt, with the settings of each method. A template has a length of its own, and by
    default as many denoising steps as blanks.
    """
    from ..config import SamplingConfig
    from .answering import Case

    start = None
    if question.template is not None:
        start = checkpoint.template(question.template)[None]
        blanks = int((start == checkpoint.mask_id).sum())
        steps = base.denoising_steps if own_steps else blanks
        base = replace(base, new_tokens=start.shape[1], denoising_steps=steps)
    configs = {name: replace(base, guidance=own) for name, own in guidances.items()}
    if authors:
        configs = {name: SamplingConfig.authors(config) for name, config in configs.items()}
    return Case(question.prompt, question.template, start, configs)
