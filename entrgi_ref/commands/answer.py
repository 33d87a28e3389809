"""The command `python -m entrgi_ref PROMPT ...`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .asked import asked
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
    guidance,
    names_list,
    quantization,
    require_precision,
    stopping,
)
from .pairs import chosen

if TYPE_CHECKING:
    from ..models.loading import How
    from ..protocols import Reward

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
            help="expectation, aps, entrgi, entrgi_tempered, or bon for no guidance; several with "
            "commas are shown side by side."
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
    from ..config import SamplingConfig
    from ..models import DenoiserCheckpoint, SumOfRewards, examine_reward
    from ..models.checkpoints import identity
    from ..models.combined import require_weights
    from ..models.loading import Loading
    from .answering import Answering, Case, Networks
    from .shown import require_table

    # All that can be known without the weights comes first.
    methods = names_list(method)
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"method: got {method!r}, expected names with commas, each once")
    guided = gradient_steps if methods != ["bon"] else 0
    require_precision(dtype, authors, guided)
    guidances = {
        name: guidance(name, gradient_steps, step_size, optimiser, dtype) for name in methods
    }
    rounded = quantization(quantize)
    hows: dict[str, How] = {
        name: {"quantize": rounded.get(name), "offload": offload, "attention": attention}
        for name in ("denoiser", "reward")
    }
    loading = Loading.of(dtype, device, **hows["denoiser"])
    Loading.of(
        loading.dtype,
        loading.device if reward_device is None else reward_device,
        adapter=reward_adapter,
        field="device" if reward_device is None else "reward_device",
        **hows["reward"],
    )
    questions = asked(prompts or [], from_, template or [])
    network, judges, fetched = chosen(size, given(context, "size"), denoiser, reward or [])
    weights = reward_weight or [1.0] * len(judges)
    require_weights(len(judges), weights)
    if len(judges) > 1 and (reward_revision or reward_adapter):
        name = "reward_revision" if reward_revision else "reward_adapter"
        raise ValueError(f"{name}: got one for {len(judges)} rewards, expected a single --reward")
    if table is not None:
        require_table(table)
    if fetched:
        typer.echo(fetched, err=True)
    checkpoint = DenoiserCheckpoint.examine(network, revision=denoiser_revision)
    examined = {}
    for path in judges:
        found = examine_reward(
            path, revision=reward_revision, unmatched=unmatched, adapter=reward_adapter
        )
        found.vocabulary(checkpoint.tokens)
        if path in examined:
            raise ValueError(f"reward: got {path!r} twice, expected each once, with its weight")
        examined[path] = found
    cases = []
    for question in questions:
        start = None if question.template is None else checkpoint.template(question.template)[None]
        length = blanks = new_tokens
        if start is not None:
            if given(context, "new_tokens") and all(one.template for one in questions):
                raise ValueError(
                    f"new_tokens: got {new_tokens} beside a template, which has {start.shape[1]} "
                    "tokens"
                )
            length, blanks = start.shape[1], int((start == checkpoint.mask_id).sum())
        base = SamplingConfig(
            trajectories=trajectories,
            new_tokens=length,
            denoising_steps=blanks if denoising_steps is None else denoising_steps,
            temperature=temperature,
            top_p=top_p,
            order=order,
            seed=seed,
        )
        configs = {}
        for name, settings in guidances.items():
            config = replace(base, guidance=settings)
            configs[name] = SamplingConfig.authors(config) if authors else config
        cases.append(Case(question.prompt, question.template, start, configs))
        checkpoint.require_room([question.prompt], length)
        for one in examined.values():
            one.require_room([question.prompt], length)
    if out is not None:
        require_writable(out)
    if table is not None:
        require_writable(table.parent)

    described = {
        "denoiser": identity(checkpoint.folder),
        "rewards": [
            {**identity(one.folder), "weight": weight}
            for one, weight in zip(examined.values(), weights, strict=True)
        ],
        "dtype": str(loading.dtype).removeprefix("torch."),
        "quantize": rounded,
        "unmatched": unmatched,
    }
    run = Answering(cases, watch, out, table, vocabulary_batch, described)
    with stopping(run.kept):
        with memory("load both networks in 16 bits by --dtype bfloat16, or take a smaller reward"):
            predictor = checkpoint.load(
                dtype=loading.dtype, device=loading.device, **hows["denoiser"]
            )
            parts = {
                path: one.load(
                    predictor,
                    dtype=loading.dtype,
                    device=reward_device,
                    micro_batch=micro_batch,
                    **hows["reward"],
                )
                for path, one in examined.items()
            }
            total: Reward = next(iter(parts.values()))
            if weights != [1.0]:
                total = SumOfRewards.of(list(parts.values()), weights)
            networks = Networks(predictor, total, parts)
        run.run(networks)
