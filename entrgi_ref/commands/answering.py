"""Prompts answered one by one, by one method or several, and written to files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .files import write_text
from .memory import memory
from .own_weights import settings_of
from .provenance import made_with
from .shown import Answered, alone, is_terminal, means, side_by_side, write_table

if TYPE_CHECKING:
    from torch import Tensor

    from ..config import SamplingConfig
    from ..denoising import Generation
    from ..errors import DenoisingRecord
    from ..models import DiffusionLM
    from ..models.causal import CausalReward
    from ..protocols import Reward
    from ..watching import Recorder

UNGUIDED = "no guidance"


@dataclass(frozen=True)
class Case:
    """A prompt with its template, if there is one, and the settings of each method."""

    prompt: str
    template: str | None
    start: Tensor | None
    configs: Mapping[str, SamplingConfig]


@dataclass(frozen=True)
class Networks:
    """What answers."""

    denoiser: DiffusionLM
    reward: Reward
    parts: Mapping[str, CausalReward]
    """The reward, or those that it is the sum of, by name."""


@dataclass
class Answering:
    """Prompts, answered; with `out` on a page too, guided beside unguided."""

    cases: Sequence[Case]
    watch: bool
    out: Path | None
    table: Path | None
    vocabulary_batch: int | None
    checkpoints: Mapping[str, Any]
    """What answers.json says of the networks."""
    answered: list[Answered] = field(default_factory=list)
    written: dict[Path, None] = field(default_factory=dict)

    def kept(self) -> str:
        """What there is after Ctrl-C."""
        files = ", ".join(map(str, self.written))
        if not files:
            return "nothing new has been written"
        missing = self.out is not None and not any(f.suffix == ".html" for f in self.written)
        return f"{files} is written{', the page is not' if missing else ''}"

    def run(self, networks: Networks) -> None:
        """Answer and print each prompt, then write: what cannot be written has been seen."""
        from ..watching import printable

        traces: list[tuple[str, list[dict[str, Any]]]] = []  # prompt and panels, with `out`
        for number, case in enumerate(self.cases):
            if len(self.cases) > 1:
                self._say(f"\n{number + 1} of {len(self.cases)}: {printable(case.prompt)}")
            runs: list[Answered] = []
            traces.append((case.prompt, []))
            for method, config in case.configs.items():
                with memory(what_to_lower(config)):
                    generation, recorder = self._generate(
                        networks, case, method, config, self.watch
                    )
                by_model = _by_model(networks, case.prompt, generation)
                runs.append(Answered(case.prompt, case.template, method, generation, by_model))
                self.answered.append(runs[-1])
                if self.out is not None:
                    traces[-1][1].append(panel(method, generation, recorder))
            self._say("", *(alone(runs[0]) if len(runs) == 1 else side_by_side(runs)))
            if self.table is not None:
                self._write(self.table, None)
            if self.out is not None:
                self._write(self.out / "answers.json", self._json())
                self._page(networks, case, traces)
        if len(self.cases) > 1:
            self._say("", *means(self.answered))
        if self.written:
            self._say("", "Written:", *(f"  {file}" for file in self.written))
        with memory(what_to_lower(next(iter(self.cases[0].configs.values())))):
            self._say(*lacking(networks, self.cases[0]))

    def _page(
        self, networks: Networks, case: Case, traces: list[tuple[str, list[dict[str, Any]]]]
    ) -> None:
        """One guided method alone is shown beside the unguided answers."""
        from ..watching import trace_pages

        assert self.out is not None
        config, *others = case.configs.values()
        if config.constant_guidance.steps and not others:
            plain = config.guided(steps=0)
            unguided = self._generate(networks, case, UNGUIDED, plain, watch=False)
            traces[-1][1].insert(0, panel(UNGUIDED, *unguided))
        self._write(self.out / "trace.html", trace_pages(traces))

    def _write(self, file: Path, text: str | None) -> None:
        if text is None:
            write_table(file, self.answered)
        else:
            write_text(file, text)
        self.written[file] = None

    def _json(self) -> str:
        """One answer as an object, several as a list of them."""
        found = [
            {
                "prompt": one.prompt,
                "template": one.template,
                "method": one.method,
                "responses": one.responses,
                "rewards": one.rewards,
                **({"rewards_by_model": dict(one.by_model)} if one.by_model else {}),
                "settings": settings_of(one.generation.config),
                "checkpoints": self.checkpoints,
                "made_with": made_with(),
            }
            for one in self.answered
        ]
        whole = len(self.cases) == 1 and len(self.cases[0].configs) == 1
        shown: Any = found[0] if whole else {"answers": found}
        return json.dumps(shown, indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def _say(*lines: str) -> None:
        for line in lines:
            typer.echo(line)

    def _generate(
        self, networks: Networks, case: Case, method: str, config: SamplingConfig, watch: bool
    ) -> tuple[Generation, Recorder]:
        from ..denoising import generate
        from ..watching import Recorder, TerminalView

        denoiser = networks.denoiser
        recorder = Recorder(denoiser)
        observers: list[Callable[[DenoisingRecord], None]] = [recorder] if self.out else []
        if watch:
            if len(case.configs) > 1:
                self._say(f"\n{method}")
            colour = is_terminal(sys.stdout)
            separator = "" if colour else "|"
            observers.append(TerminalView(denoiser, separator=separator, colour=colour))
        elif is_terminal(sys.stderr):
            observers.append(
                lambda step: typer.echo(
                    f"\r{method}: denoising step {step.step + 1} of {config.denoising_steps}",
                    nl=step.step + 1 == config.denoising_steps,
                    err=True,
                )
            )

        def observe(step: DenoisingRecord) -> None:
            for observer in observers:
                observer(step)

        generation = generate(
            denoiser,
            networks.reward,
            [case.prompt],
            config,
            start=case.start,
            observe=observe if observers else None,
            vocabulary_batch=self.vocabulary_batch,
        )
        return generation, recorder


def _by_model(networks: Networks, prompt: str, generation: Generation) -> dict[str, list[float]]:
    """What each part of a sum gives the answers; nothing if there is one reward."""
    if networks.reward in networks.parts.values():
        return {}
    answers = generation.responses[0]
    return {
        name: part.score([prompt] * len(answers), answers).tolist()
        for name, part in networks.parts.items()
    }


def panel(method: str, generation: Generation, recorder: Recorder) -> dict[str, object]:
    """The best trajectory of a run, for the trace page."""
    best = int(generation.rewards[0].argmax())
    config, steps = generation.config, generation.config.constant_guidance.steps
    return {
        "title": "Unguided" if steps == 0 else f"Guided: {method}",
        "subtitle": f"the best of {config.trajectories} trajectories, {steps} gradient steps per "
        "denoising step",
        "frames": recorder.frames(best),
        "results": {"reward of the answer": f"{generation.rewards[0, best]:.2f}"},
    }


def what_to_lower(config: SamplingConfig) -> str:
    """What memory grows with is trajectories x (prompt + new tokens)."""
    K, N = config.trajectories, config.new_tokens
    if K > 1:
        return f"lower --trajectories from {K} to {K // 2}, which halves what the batch takes"
    return f"lower --new-tokens from {N} to {max(1, N // 2)}, or take a smaller reward model"


def lacking(networks: Networks, case: Case) -> list[str]:
    """What the rewards lack of the vocabulary, by the probability that the mask predictor gives it
    where the answer begins. Nothing if they have all.
    """
    import torch

    from ..protocols import Template

    lines = []
    for name, part in networks.parts.items():
        if not part.vocabulary.unmatched:
            continue
        denoiser, config = networks.denoiser, next(iter(case.configs.values()))
        template = Template.of(case.start, (1, config.new_tokens), denoiser)
        prompt = denoiser.encode([case.prompt])
        response = template.tokens.to(prompt.tokens)
        tokens = torch.cat([prompt.tokens, response], 1)
        valid = torch.cat([prompt.valid, template.present.to(prompt.valid)], 1)
        with torch.no_grad():
            logits = denoiser(tokens, valid, response == denoiser.mask_id).float()
            q = logits.masked_fill(~denoiser.writable, -torch.inf).softmax(-1)
        mass = part.vocabulary.unmatched_mass(q).mean()
        lines.append(
            f"\nvocabulary of {name}: {part.vocabulary.report()}; where the answer begins, what it "
            f"lacks has a probability of {mass:.1e} under the mask predictor"
        )
    return lines
