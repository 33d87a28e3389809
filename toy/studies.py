"""Commands that measure something on the toy: each is data here and a function in a module of its
own. What they share (options, networks, printing, the record) is done once.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entrgi_ref.commands.files import written_to
from entrgi_ref.commands.options import GradientSteps, Seed

from .options import EmbeddingStd, Quick, Reward, Threads, TrainingSeed, load_testbed
from .record import provenance, write_record

if TYPE_CHECKING:
    from entrgi_ref import SamplingConfig

    from .demo import Plan
    from .testbed import Testbed

FIRST_TRAINING_SEED = 10
"""Of the demo's networks. Smaller ones were looked at while the toy was designed."""


@dataclass(frozen=True)
class Study:
    """A command that measures something."""

    module: str
    """Where its function `study` is: (`Setting`) -> `Finding`."""
    help: str
    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Name -> type and default, beside those that all studies have."""


STUDIES = {
    "gradients": Study(
        "toy.exact",
        "Compare each weight function's gradient with the exact one, found by enumeration.",
        {
            "states": (
                Annotated[
                    int,
                    typer.Option(min=1, max=96, help="Held-out answers with two masked positions."),
                ],
                32,
            ),
            "draws": (
                Annotated[
                    int,
                    typer.Option(min=1, max=10_000, help="Draws of hard tokens at each state."),
                ],
                128,
            ),
            "seed": (Seed, 1),
        },
    ),
    "spread": Study(
        "toy.spread",
        "Repeat the comparison on several trained pairs: how much of a result is one pair's luck. "
        "Pairs are trained at their first use, which takes minutes.",
        {
            "pairs": (
                Annotated[int, typer.Option(min=2, max=40, help="Pairs of networks to train.")],
                5,
            ),
            "prompts": (
                Annotated[
                    int | None,
                    typer.Option(
                        help="Held-out prompts: 64, with --quick 16.", show_default=False, min=1
                    ),
                ],
                None,
            ),
            "seeds": (
                Annotated[
                    str,
                    typer.Option(
                        help="Seeds of sampling, with commas: 1,2,3, with --quick 1.",
                        show_default=False,
                    ),
                ],
                "",
            ),
            "gradient_steps": (GradientSteps, 3),
            "methods": (
                Annotated[
                    str,
                    typer.Option(
                        "--methods",
                        "--method",
                        help="With commas: bon, bon_equal_compute, expectation, aps, entrgi, or "
                        "weights of your own as MODULE:FUNCTION. By default all but those.",
                        show_default=False,
                    ),
                ],
                "",
            ),
            "baseline": (
                Annotated[str, typer.Option(help="The method to which differences are taken.")],
                "bon",
            ),
            "constants": (
                Annotated[
                    str,
                    typer.Option(
                        help="Constant weights to compare too, with commas; `mean` is EntRGi's "
                        "mean weight on each pair.",
                        show_default=False,
                    ),
                ],
                "",
            ),
        },
    ),
    "ledger": Study(
        "toy.ledger",
        "What each difference between the authors' code and this package does (docs/ledger.md).",
    ),
    "leading": Study(
        "toy.leading",
        "How long the committed run at the start of an answer is: what a cache of it could save.",
    ),
    "shift": Study(
        "toy.shift",
        "Read the mask predictor one position off, as a model with a shift that is not there.",
    ),
    "dial": Study(
        "toy.dial",
        "Turn the dial: constant weights from 0 to 1, and the entropy's, over M.",
    ),
}


@dataclass(frozen=True)
class Setting:
    """What a study is given."""

    load: Callable[..., Testbed]
    """The networks of a training seed; `pairs=` says how many seeds from there will be needed."""
    training_seed: int
    quick: bool
    options: Mapping[str, Any]
    """Its own options, by name."""
    say: Callable[[str], None]

    @property
    def testbed(self) -> Testbed:
        """The networks of the training seed that was asked for."""
        return self.load(self.training_seed)

    @property
    def plan(self) -> Plan:
        """How much to run."""
        from .demo import FULL, QUICK

        return QUICK if self.quick else FULL


@dataclass(frozen=True)
class Finding:
    """What a study found: what is printed, and what is recorded."""

    text: str
    rows: Any
    testbed: str
    """The networks, in words."""
    base: SamplingConfig
    prompts: int
    seeds: Sequence[int]
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the record."""


SHARED: dict[str, tuple[Any, Any]] = {
    "quick": (Quick, False),
    "reward": (Reward, "medium"),
    "training_seed": (TrainingSeed, FIRST_TRAINING_SEED),
    "embedding_std": (EmbeddingStd, 1.0),
    "threads": (Threads, 2),
}


def command(name: str, study: Study) -> Callable[..., None]:
    """The command line of a study."""
    where = Annotated[Path, typer.Option(help="The folder for the results.")]
    options = {**study.options, **SHARED, "out": (where, Path("results") / name)}

    def run(
        quick: bool,
        reward: str,
        training_seed: int,
        embedding_std: float,
        threads: int,
        out: Path,
        **own: Any,
    ) -> None:
        setting = Setting(
            load=lambda seed, pairs=1: load_testbed(
                reward, quick, seed, embedding_std, threads, pairs
            ),
            training_seed=training_seed,
            quick=quick,
            options=own,
            say=typer.echo,
        )
        with written_to(out):  # before networks are trained
            found: Finding = importlib.import_module(study.module).study(setting)
            typer.echo(f"\n{found.text}\n")
            record = provenance(found.base, found.testbed, found.prompts, found.seeds)
            write_record(out / "run.json", {**record, **found.more, "rows": found.rows})
        typer.echo(f"Written: {out / 'run.json'}")

    run.__doc__ = study.help
    run.__annotations__ = {option: kind for option, (kind, _) in options.items()}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for option, (kind, default) in options.items()
        ]
    )
    return run
