"""The command `run`, on any testbed: the command lines of Dream and of the toy call it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Set
from contextlib import ExitStack
from pathlib import Path

import typer

from ... import checks
from ...commands.files import require_writable
from ...commands.options import stopping
from ...commands.progress import Progress, quiet
from ...watching import printable
from ..declared.benchmarks import HUB
from ..declared.plan import Plan, prompts_of
from ..declared.testbed import Testbed
from .batches import batches
from .cluster import Actors, Cluster
from .folder import RunFolder
from .records import Key, key_of, read_experiment, read_records
from .runner import GIVE_UP_AFTER, Runner


def rank() -> int:
    """This process's number under torchrun, 0 without."""
    return _number("RANK")


def _number(variable: str) -> int:
    found = os.environ.get(variable, "0")
    if not re.fullmatch("[0-9]{1,9}", found):
        raise ValueError(
            f"{variable}: got {found!r:.40} in the environment, expected a number of a process"
        )
    return int(found)


def announce(message: str) -> None:
    """Say something once, however many processes there are, beside what the command prints."""
    if rank() == 0:
        typer.echo(message, err=True)


def local_device(device: str) -> str:
    """Under torchrun `auto` is the GPU of this process's own number, if there are GPUs."""
    if device == "auto" and "LOCAL_RANK" in os.environ:
        import torch

        if torch.cuda.is_available():
            return f"cuda:{_number('LOCAL_RANK') % torch.cuda.device_count()}"
    return device


def pinned(folder: Path) -> dict[str, str]:
    """The commits of the hub's benchmarks that a run in `folder` began with: it goes on with these,
    whatever the hub has by now.
    """
    if not (folder / "run.json").is_file():
        return {}
    sources = read_experiment(folder)["benchmarks"]
    return {name: source.partition("@")[2] for name, source in sources.items() if name in HUB}


def pinned_models(folder: Path) -> dict[str, str]:
    """Hub id -> the commit of the models that a run in `folder` began with."""
    if not (folder / "run.json").is_file():
        return {}
    found = read_experiment(folder)
    rewards = list(found["rewards"].values())
    parts = [part for reward in rewards for part in reward.get("parts", [])]
    models = [found.get("denoiser"), *rewards, *parts]
    known = [model for model in models if isinstance(model, dict) and "commit" in model]
    return {model["name"]: model["commit"] for model in known}


def at_commit(path: str, commits: Mapping[str, str], say: Callable[[str], None]) -> str:
    """A model at the commit that a run began with, whatever the hub has by now.

    `path` itself if it is a folder, names a commit, or is not one of `commits`.
    """
    hub_id, _, revision = path.partition("@")
    if Path(path).is_dir() or hub_id not in commits or re.fullmatch("[0-9a-f]{40}", revision):
        return path
    say(f"{hub_id}: going on with the commit {commits[hub_id]}, as begun")
    return f"{hub_id}@{commits[hub_id]}"


def run(
    plan: Plan,
    testbed: Testbed,
    out: Path,
    say: Callable[[str], None],
    *,
    retry_failed: bool = False,
    other_version: bool = False,
    give_up_after: int = GIVE_UP_AFTER,
    cluster: Cluster | None = None,
) -> int:
    """Run an experiment into a folder, or go on with it. Returns how many prompts have failed.

    With a `cluster` its actors compute, and this process writes. Ctrl-C is `StoppedError`, which
    says what is kept.
    """
    checks.integer("give_up_after", give_up_after, minimum=0)
    expected: list[Key] = []
    written: Set[Key] = frozenset()
    loud = rank() == 0

    def done() -> int:
        return sum(key in written for key in expected)

    def kept() -> str:
        if not expected:
            return f"nothing new has been written to {out}"
        return f"{done()} of {len(expected)} prompts are kept in {out}; the same command goes on"

    with stopping(kept), ExitStack() as stack:
        actors = None if cluster is None else Actors(cluster, plan, testbed)
        testbed.examine(plan.base.new_tokens)
        new = not (out / "run.json").is_file()
        if new:
            require_writable(out)
        if actors is not None:
            stack.enter_context(actors)
        if new and actors is None:  # what cannot be loaded is not declared
            testbed.reward(testbed.main_reward)
        elif new and actors is not None:
            actors.load()
        folder = RunFolder(
            out,
            plan.declaration(testbed),
            asked=plan.asked(testbed),
            retry_failed=retry_failed,
            other_version=other_version,
            prompt=prompts_of(testbed),
        )
        written = folder.done  # which grows with each record
        try:
            expected = [key for batch in batches(plan, testbed) for key in batch.keys]
            with Progress(len(expected), done, loud) as progress:
                said = progress.say if loud else quiet
                runner = Runner(plan, testbed, folder, said, progress, give_up_after)
                if actors is None:
                    runner.run()
                else:
                    actors.run(runner)
        finally:
            folder.close()
        wanted = set(expected)
        records = [record for record in read_records(out) if key_of(record) in wanted]
        failed = [record for record in records if record["status"] == "failed"]
        if loud:
            say(f"{len(records)} prompts in {out}, {len(failed)} of them failed")
            for record in failed[:5]:
                say(
                    f"  {record['benchmark']}, {record['method']}, seed {record['seed']}, prompt "
                    f"{record['idx']}: {printable(str(record['reason']))}"
                )
            if len(failed) > 5:
                say(f"  and {len(failed) - 5} more")
    return len(failed)
