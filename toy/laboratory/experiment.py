"""What the laboratory's commands share. An experiment is a number of independent units, such as
languages. What a unit gave is kept in a file of its own: a run that was stopped goes on.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from entrgi_ref.commands.files import require_writable, write_text
from entrgi_ref.paper.run.records import require_no_link

from ..options import Threads
from ..record import write_record

Json = Any
"""What `json` reads and writes."""


class Design(Protocol):
    """An experiment with its settings fixed."""

    @property
    def units(self) -> Sequence[str]:
        """The names of its units."""

    @property
    def seeds(self) -> Sequence[int]:
        """What its languages are made from."""

    @property
    def settings(self) -> Mapping[str, Json]:
        """All that a unit's result depends on, beside its name and the code."""

    def measure(self, unit: str) -> Json:
        """One unit's result. It depends on nothing that ran before."""

    def summary(self, results: Mapping[str, Json]) -> tuple[str, Json]:
        """Of all units: what is printed, and what stands in the record under `rows`."""


@dataclass(frozen=True)
class Experiment:
    """A command of the laboratory."""

    module: str
    """Where its function `design` is: (quick, first seed, units or None) -> `Design`."""
    help: str
    group: str | None = None
    """`exact` for `python -m toy exact NAME`."""
    first_seed: int = 1
    """By default: of seeds that nobody looked at while the experiment was made."""


EXPERIMENTS: dict[str, Experiment] = {
    "gradient": Experiment(
        "toy.laboratory.gradient",
        "Estimators of the gradient against the exact one: bias, variance and direction.",
        "exact",
        first_seed=101,  # smaller ones were looked at before
    ),
    "distribution": Experiment(
        "toy.laboratory.distribution",
        "What every sampler really draws, against the tilted target and at matched KL.",
        "exact",
        first_seed=201,  # smaller ones were looked at before
    ),
    "infilling": Experiment(
        "toy.laboratory.infilling",
        "Samplers on wide languages between two given words, where weights are small.",
        "exact",
        first_seed=301,  # smaller ones were looked at before
    ),
    "rivals": Experiment(
        "toy.laboratory.rivals",
        "Guidance, damped guidance, SMC, self-rewarding SMC and lookahead at equal compute, on "
        "several trained pairs: a seed is one of training.",
        first_seed=41,  # smaller ones were looked at before
    ),
    "claims": Experiment(
        "toy.laboratory.claims",
        "The paper's claims, each judged on languages of a family, with networks of their own.",
        first_seed=101,  # smaller ones were looked at before
    ),
}


def results(
    design: Design, folder: Path, made_with: Mapping[str, Json], say: Callable[[str], None]
) -> tuple[dict[str, Json], float]:
    """The result of every unit: read where it is there already, else measured and kept. And the
    seconds that all of them took, whenever that was.

    `ValueError` if the folder's results are of other settings or of other code, or damaged.
    """
    require_writable(folder)
    require_no_link(folder, "units")
    require_writable(folder / "units")  # before a unit is measured, which takes minutes
    about = json.loads(json.dumps({**made_with, "settings": design.settings}))
    file = folder / "settings.json"
    if file.exists():
        before = _read(file)
        for name in about:
            if before.get(name) != about[name]:
                raise ValueError(
                    f"out: {folder} has results of another {name} ({before.get(name)!r}, now "
                    f"{about[name]!r}): remove it, or give another --out"
                )
    else:
        write_text(file, json.dumps(about, indent=1) + "\n")
    found: dict[str, Json] = {}
    total = 0.0
    for i, unit in enumerate(design.units):
        kept = folder / "units" / f"{unit}.json"
        start = time.perf_counter()
        if not kept.exists():
            result = design.measure(unit)
            seconds = round(time.perf_counter() - start, 1)
            write_text(kept, json.dumps({"seconds": seconds, "result": result}) + "\n")
            say(f"{unit}: done in {seconds:.0f} s, {i + 1} of {len(design.units)}")
        read = _read(kept)
        took: Json = read.get("seconds")
        timed = type(took) in (int, float) and 0 <= took < 1e12
        if "result" not in read or not timed:
            raise _damaged(kept, f"it holds {read!r:.60}, expected seconds and a result")
        found[unit], total = read["result"], total + took
    return found, total


LARGEST = 2**26
"""Bytes of a file of results."""


def _read(file: Path) -> dict[str, Json]:
    if not file.is_file() or file.stat().st_size > LARGEST:  # a pipe never ends
        raise _damaged(file, f"it is no file of at most {LARGEST} bytes")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    if not isinstance(found, dict):
        raise _damaged(file, f"it holds {found!r:.60}, expected an object")
    return found


def _damaged(file: Path, reason: object) -> ValueError:
    return ValueError(f"out: {file} is damaged ({reason}): remove it")


def _summary(design: Design, found: Mapping[str, Json], folder: Path) -> tuple[str, Json]:
    """Of all units; `ValueError` that names the file of one that has another form."""
    try:
        return design.summary(found)
    except UNREADABLE as error:
        for unit, result in found.items():
            try:
                design.summary({unit: result})
            except UNREADABLE as alone:
                reason = f"{type(alone).__name__}: {alone}"
                raise _damaged(folder / "units" / f"{unit}.json", reason) from error
        raise


UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What comes of adding up results that somebody has edited."""
MOST_UNITS = 10_000


def command(name: str, experiment: Experiment) -> Callable[..., None]:
    """The command line of an experiment."""
    full = f"{experiment.group}-{name}" if experiment.group else name

    def run(
        quick: Annotated[
            bool, typer.Option("--quick", help="A small version, within a minute.")
        ] = False,
        first_seed: Annotated[
            int | None,
            typer.Option(
                min=0,
                max=2**62,
                help="The first unit's; the others follow. By default each experiment's own; with "
                "--quick 1, so that nobody sees those of the full set early.",
                show_default=False,
            ),
        ] = None,
        units: Annotated[
            int | None,
            typer.Option(
                min=1,
                max=MOST_UNITS,
                help="How many (of each kind), in place of the experiment's own.",
            ),
        ] = None,
        threads: Threads = 2,
        out: Annotated[
            Path | None,
            typer.Option(help="The folder for the results; a stopped run goes on there."),
        ] = None,
    ) -> None:
        import torch

        from entrgi_ref.commands.provenance import commit

        torch.set_num_threads(threads)
        first = first_seed if first_seed is not None else 1 if quick else experiment.first_seed
        folder = out or Path("results") / (f"{full}-quick" if quick else full)
        design: Design = importlib.import_module(experiment.module).design(quick, first, units)
        made_with = {"commit": commit(), "torch": torch.__version__}
        found, seconds = results(design, folder, made_with, typer.echo)
        text, rows = _summary(design, found, folder)
        typer.echo(f"\n{text}\n\nWritten: {folder / 'run.json'}")
        record = {
            "command": " ".join(["python -m toy", *sys.argv[1:]]),
            "commit": made_with["commit"],
            "settings": design.settings,
            "seeds": list(design.seeds),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "machine": f"{platform.machine()}, {threads} threads of a CPU",
            "seconds": round(seconds, 1),
            "rows": rows,
        }
        write_record(folder / "run.json", record)

    run.__doc__ = experiment.help
    return run


def add_to(app: typer.Typer) -> None:
    """Put the laboratory's commands into the toy's."""
    groups: dict[str, typer.Typer] = {}
    for name, experiment in EXPERIMENTS.items():
        target = app
        if experiment.group is not None:
            if experiment.group not in groups:
                groups[experiment.group] = typer.Typer(help=GROUPS[experiment.group])
                app.add_typer(groups[experiment.group], name=experiment.group)
            target = groups[experiment.group]
        target.command(name)(command(name, experiment))


GROUPS = {"exact": "Methods against the truth, on languages small enough to enumerate."}
