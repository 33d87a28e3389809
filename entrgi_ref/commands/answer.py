"""The command `python -m entrgi_ref PROMPT ...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import checks
from .files import require_writable, write_text
from .memory import memory
from .options import (
    Authors,
    DenoiserPath,
    Device,
    Dtype,
    GradientSteps,
    Method,
    MicroBatch,
    NewTokens,
    Optimiser,
    Order,
    OwnDenoisingSteps,
    RewardPath,
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
    require_precision,
    stopping,
)
from .pairs import pair_of

if TYPE_CHECKING:
    from torch import Tensor

    from .. import DenoisingRecord, Generation, Reward, SamplingConfig
    from ..models import DiffusionLM
    from ..watching import Recorder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def answer(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to answer.", show_default=False)],
    size: Size = "small",
    denoiser: DenoiserPath = None,
    reward: RewardPath = None,
    method: Method = "entrgi",
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
        str | None, typer.Option(help="The hub's branch, tag or commit of the reward model.")
    ] = None,
    reward_adapter: Annotated[
        str | None, typer.Option(help="A LoRA adapter to merge into the reward model.")
    ] = None,
    unmatched: Unmatched = "eos",
    micro_batch: MicroBatch = None,
    vocabulary_batch: VocabularyBatch = None,
    authors: Authors = False,
    template: Annotated[
        str | None,
        typer.Option(
            help="An answer with blanks to fill in, such as 'I am ____ because ____.': each "
            "underscore of a blank is one token. In place of --new-tokens."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for answers.json and trace.html, unguided beside guided."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the first trajectory while it is denoised.")
    ] = False,
) -> None:
    """Answer one prompt by a masked diffusion language model, guided by a reward model, and print
    every trajectory's reward and the best answer.
    """
    from ..config import SamplingConfig
    from ..models import DenoiserCheckpoint, RewardCheckpoint
    from ..models.checkpoints import device_of, dtype_of

    # All that can be known without the weights comes first.
    require_precision(dtype, authors, gradient_steps if method != "bon" else 0)
    settings = guidance(method, gradient_steps, step_size, optimiser, dtype)
    dtype_of(dtype, device_of(device))
    _check_prompt(prompt)
    pair = pair_of(size)
    paths = denoiser or pair.denoiser, reward or pair.reward
    if fetched := pair.announced(*paths):
        typer.echo(fetched, err=True)
    checkpoint = DenoiserCheckpoint.examine(paths[0], revision=denoiser_revision)
    reward_model = RewardCheckpoint.examine(
        paths[1], revision=reward_revision, unmatched=unmatched, adapter=reward_adapter
    )
    reward_model.vocabulary(checkpoint.tokens)
    start = None if template is None else checkpoint.template(template)[None]
    blanks = new_tokens
    if start is not None:
        if given(context, "new_tokens"):
            raise ValueError(
                f"new_tokens: got {new_tokens} beside a template, which has {start.shape[1]} tokens"
            )
        new_tokens, blanks = start.shape[1], int((start == checkpoint.mask_id).sum())
    config = SamplingConfig(
        guidance=settings,
        trajectories=trajectories,
        new_tokens=new_tokens,
        denoising_steps=blanks if denoising_steps is None else denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
        seed=seed,
    )
    config = SamplingConfig.authors(config) if authors else config
    for examined in (checkpoint, reward_model):
        examined.require_room([prompt], new_tokens)
    if out is not None:
        require_writable(out)

    shown = "no guidance" if config.constant_guidance.steps == 0 else method
    run = _Run(prompt, template, start, shown, watch, out, vocabulary_batch)
    with stopping(run.kept):
        with memory("load both networks in 16 bits by --dtype bfloat16, or take a smaller reward"):
            networks = checkpoint.load(dtype=dtype, device=device)
            loaded = reward_model.load(networks, dtype=dtype, micro_batch=micro_batch)
            run.networks = (networks, loaded)
        with memory(_what_to_lower(config)):
            run.answer(config)


@dataclass
class _Run:
    """One prompt, answered; with `out` beside its unguided answers, on a page."""

    prompt: str
    template: str | None
    start: Tensor | None
    shown: str
    watch: bool
    out: Path | None
    vocabulary_batch: int | None
    networks: tuple[DiffusionLM, Reward] | None = None
    written: list[Path] = field(default_factory=list)

    def kept(self) -> str:
        """What there is after Ctrl-C."""
        files = ", ".join(map(str, self.written))
        return f"{files} is written, the page is not" if files else "nothing new has been written"

    def answer(self, config: SamplingConfig) -> None:
        """Answer, print, then write: what cannot be written has at least been seen."""
        from ..watching import trace_page

        generation, recorder = self._generate(config, self.shown, self.watch)
        _print(generation, self.shown)
        if self.out is None:
            return
        answers = {
            "prompt": self.prompt,
            "template": self.template,
            "responses": generation.responses[0],
            "rewards": generation.rewards[0].tolist(),
            "settings": json.loads(config.to_json()),
        }
        self._write("answers.json", json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
        runs = [(self.shown, generation, recorder)]
        if config.constant_guidance.steps:
            unguided = self._generate(config.guided(steps=0), "no guidance", False)
            runs.insert(0, ("no guidance", *unguided))
        self._write("trace.html", trace_page(self.prompt, [_panel(*one) for one in runs]))
        typer.echo("\nWritten:")
        for file in self.written:
            typer.echo(f"  {file}")

    def _write(self, name: str, text: str) -> None:
        assert self.out is not None
        write_text(self.out / name, text)
        self.written.append(self.out / name)

    def _generate(
        self, config: SamplingConfig, title: str, view: bool
    ) -> tuple[Generation, Recorder]:
        from ..denoising import generate
        from ..watching import Recorder, TerminalView

        assert self.networks is not None
        denoiser, reward = self.networks
        recorder = Recorder(denoiser)
        observers: list[Callable[[DenoisingRecord], None]] = [recorder] if self.out else []
        if view:
            colour = sys.stdout.isatty()
            separator = "" if colour else "|"
            observers.append(TerminalView(denoiser, separator=separator, colour=colour))
        elif sys.stderr.isatty():
            observers.append(
                lambda step: typer.echo(
                    f"\r{title}: denoising step {step.step + 1} of {config.denoising_steps}",
                    nl=step.step + 1 == config.denoising_steps,
                    err=True,
                )
            )

        def observe(step: DenoisingRecord) -> None:
            for observer in observers:
                observer(step)

        generation = generate(
            denoiser,
            reward,
            [self.prompt],
            config,
            start=self.start,
            observe=observe if observers else None,
            vocabulary_batch=self.vocabulary_batch,
        )
        return generation, recorder


def _print(generation: Generation, shown: str) -> None:
    """Every trajectory's reward and the best answer."""
    from ..watching import printable

    rewards, best = generation.rewards[0].tolist(), int(generation.rewards[0].argmax())
    typer.echo("\nreward  answer")
    for k, (value, text) in enumerate(zip(rewards, generation.responses[0], strict=True)):
        start = printable(text)
        star = "*" if k == best else " "
        typer.echo(f"{value:+6.2f}{star} {start[:90]}{'...' if len(start) > 90 else ''}")
    typer.echo(
        f"\nTop@1 {generation.top1.item():+.2f}, Avg@K {generation.average.item():+.2f} over "
        f"{len(rewards)} trajectories ({shown})\n"
    )
    for line in generation.best[0].splitlines():
        typer.echo(printable(line))


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise ValueError(f"prompt: got {prompt!r}, expected some text")
    checks.text("prompt", prompt)


def _panel(shown: str, generation: Generation, recorder: Recorder) -> dict[str, object]:
    """The best trajectory of a run, for the trace page."""
    best = int(generation.rewards[0].argmax())
    config, steps = generation.config, generation.config.constant_guidance.steps
    return {
        "title": "Unguided" if steps == 0 else f"Guided: {shown}",
        "subtitle": f"the best of {config.trajectories} trajectories, {steps} gradient steps per "
        "denoising step",
        "frames": recorder.frames(best),
        "results": {"reward of the answer": f"{generation.rewards[0, best]:.2f}"},
    }


def _what_to_lower(config: SamplingConfig) -> str:
    """What memory grows with is trajectories x (prompt + new tokens)."""
    K, N = config.trajectories, config.new_tokens
    if K > 1:
        return f"lower --trajectories from {K} to {K // 2}, which halves what the batch takes"
    return f"lower --new-tokens from {N} to {max(1, N // 2)}, or take a smaller reward model"
