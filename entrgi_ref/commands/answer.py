"""The command `python -m entrgi_ref PROMPT ...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    Authors,
    Device,
    DreamPath,
    Dtype,
    GradientSteps,
    Method,
    NewTokens,
    Order,
    OwnDenoisingSteps,
    RewardPath,
    Seed,
    StepSize,
    Temperature,
    TopP,
    Trajectories,
    Unmatched,
    guidance,
)

if TYPE_CHECKING:
    from .. import DenoisingRecord, Generation, SamplingConfig
    from ..models import Dream, SequenceReward
    from ..watching import Recorder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def answer(
    prompt: Annotated[str, typer.Argument(help="What to answer.", show_default=False)],
    dream: DreamPath,
    reward: RewardPath,
    method: Method = "entrgi",
    device: Device = "auto",
    dtype: Dtype = "auto",
    new_tokens: NewTokens = 128,
    denoising_steps: OwnDenoisingSteps = None,
    gradient_steps: GradientSteps = 3,
    step_size: StepSize = 0.5,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    trajectories: Trajectories = 4,
    order: Order = "entropy",
    seed: Seed = 0,
    dream_revision: Annotated[
        str | None, typer.Option(help="The hub's branch, tag or commit of the Dream checkpoint.")
    ] = None,
    reward_revision: Annotated[
        str | None, typer.Option(help="The hub's branch, tag or commit of the reward model.")
    ] = None,
    reward_adapter: Annotated[
        str | None, typer.Option(help="A LoRA adapter to merge into the reward model.")
    ] = None,
    unmatched: Unmatched = "eos",
    authors: Authors = False,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for answers.json and trace.html, unguided beside guided."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the first trajectory while it is denoised.")
    ] = False,
) -> None:
    """Answer one prompt by Dream, guided by a reward model, and print every trajectory's reward and
    the best answer.
    """
    from ..config import SamplingConfig
    from .memory import memory

    config = SamplingConfig(
        guidance=guidance(method, gradient_steps, step_size, dtype),
        trajectories=trajectories,
        new_tokens=new_tokens,
        denoising_steps=new_tokens if denoising_steps is None else denoising_steps,
        temperature=temperature,
        top_p=top_p,
        order=order,
        seed=seed,
    )
    config = SamplingConfig.authors(config) if authors else config
    _check_prompt(prompt)
    if out is not None:
        _check_out(out)

    from ..models import Dream, SequenceReward
    from ..watching import printable

    with memory("load both networks in 16 bits by --dtype bfloat16, or take a smaller reward"):
        denoiser = Dream.from_pretrained(dream, revision=dream_revision, dtype=dtype, device=device)
        judge = SequenceReward.from_pretrained(
            reward,
            denoiser,
            revision=reward_revision,
            dtype=dtype,
            unmatched=unmatched,
            adapter=reward_adapter,
        )
    shown = "no guidance" if config.constant_guidance.steps == 0 else method
    with memory(_what_to_lower(config)):
        generation = _generate(denoiser, judge, prompt, config, shown, watch, out)
    rewards = generation.rewards[0].tolist()
    typer.echo("\nreward  answer")
    for k, (value, text) in enumerate(zip(rewards, generation.responses[0], strict=True)):
        best = "*" if k == int(generation.rewards[0].argmax()) else " "
        start = printable(text)
        typer.echo(f"{value:+6.2f}{best} {start[:90]}{'...' if len(start) > 90 else ''}")
    typer.echo(
        f"\nTop@1 {generation.top1.item():+.2f}, Avg@K {generation.average.item():+.2f} over "
        f"{trajectories} trajectories ({shown})\n"
    )
    for line in generation.best[0].splitlines():
        typer.echo(printable(line))
    if out is not None:
        typer.echo(f"\nWritten:\n  {out / 'answers.json'}\n  {out / 'trace.html'}")


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise ValueError(f"prompt: got {prompt!r}, expected some text")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"prompt: got {prompt!r}, which is not valid text") from error


def _check_out(out: Path) -> None:
    """Before anything is computed: that the files can be written."""
    for file in (out / "answers.json", out / "trace.html"):
        try:
            out.mkdir(parents=True, exist_ok=True)
            existed = file.exists()
            file.open("a").close()
            if not existed:
                file.unlink()
        except OSError as error:
            raise ValueError(f"out: cannot write {file}: {error.strerror}") from error


def _generate(
    denoiser: Dream,
    judge: SequenceReward,
    prompt: str,
    config: SamplingConfig,
    shown: str,
    watch: bool,
    out: Path | None,
) -> Generation:
    """The answers to the prompt; writes the files of `out`, if there is one."""
    from .. import generate
    from ..watching import Recorder, TerminalView, write_trace

    def run(config: SamplingConfig, title: str, view: bool) -> tuple[Generation, Recorder]:
        recorder = Recorder(denoiser)
        observers: list[Callable[[DenoisingRecord], None]] = [recorder] if out else []
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

        return generate(
            denoiser, judge, [prompt], config, observe=observe if observers else None
        ), recorder

    generation, recorder = run(config, shown, watch)
    if out is not None:
        runs = [(shown, generation, recorder)]
        if config.constant_guidance.steps:
            runs.insert(0, ("no guidance", *run(config.guided(steps=0), "no guidance", False)))
        panels = [_panel(*one) for one in runs]
        write_trace(out / "trace.html", prompt, panels)
        written = {
            "prompt": prompt,
            "responses": generation.responses[0],
            "rewards": generation.rewards[0].tolist(),
            "settings": json.loads(config.to_json()),
        }
        text = json.dumps(written, indent=1, ensure_ascii=False)
        (out / "answers.json").write_text(text + "\n", encoding="utf-8")
    return generation


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
