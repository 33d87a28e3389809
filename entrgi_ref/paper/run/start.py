"""The command `run`, on any testbed: the command lines of Dream and of the toy call it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ... import checks
from ...commands.files import require_writable
from ...commands.options import stopping
from ...commands.progress import Progress, quiet
from ..declared.benchmarks import HUB
from ..declared.plan import Plan
from ..declared.testbed import Testbed
from .folder import RunFolder
from .records import key_of, read_declaration, read_records
from .runner import GIVE_UP_AFTER, Runner, batches


def rank() -> int:
    """This process's number under torchrun, 0 without."""
    return int(os.environ.get("RANK", "0"))


def local_device(device: str) -> str:
    """Under torchrun `auto` is the GPU of this process's own number, if there are GPUs."""
    if device == "auto" and "LOCAL_RANK" in os.environ:
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def pinned(folder: Path) -> dict[str, str]:
    """The commits of the hub's benchmarks that a run in `folder` began with: it goes on with these,
    whatever the hub has by now.
    """
    if not (folder / "run.json").is_file():
        return {}
    sources = read_declaration(folder).get("benchmarks", {})
    return {name: source.partition("@")[2] for name, source in sources.items() if name in HUB}


def pinned_models(folder: Path) -> dict[str, str]:
    """Hub id -> `id@commit` of the models that a run in `folder` began with."""
    if not (folder / "run.json").is_file():
        return {}
    found = read_declaration(folder)
    models = [found.get("denoiser"), *dict(found.get("rewards") or {}).values()]
    known = [model for model in models if isinstance(model, dict) and "commit" in model]
    return {model["name"]: f"{model['name']}@{model['commit']}" for model in known}


def run(
    plan: Plan,
    testbed: Testbed,
    out: Path,
    say: Callable[[str], None],
    *,
    retry_failed: bool = False,
    other_version: bool = False,
    give_up_after: int = GIVE_UP_AFTER,
) -> int:
    """Run an experiment into a folder, or go on with it. Returns how many prompts have failed.

    Ctrl-C is `StoppedError`, which says what is kept.
    """
    checks.integer("give_up_after", give_up_after, minimum=0)
    testbed.examine()
    if not (out / "run.json").is_file():
        require_writable(out)
        testbed.reward(testbed.main_reward)  # what cannot be loaded is not declared
    folder = RunFolder(
        out,
        plan.declaration(testbed),
        asked=plan.asked(testbed),
        retry_failed=retry_failed,
        other_version=other_version,
    )
    expected = [key for batch in batches(plan, testbed) for key in batch.keys]
    loud = rank() == 0

    def done() -> int:
        return sum(key in folder.done for key in expected)

    def kept() -> str:
        return f"{done()} of {len(expected)} prompts are kept in {out}; the same command goes on"

    with stopping(kept), Progress(len(expected), done, loud) as progress:
        said = progress.say if loud else quiet
        runner = Runner(plan, testbed, folder, said, progress, give_up_after)
        try:
            runner.run()
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
                f"{record['idx']}: {record['reason']}"
            )
        if len(failed) > 5:
            say(f"  and {len(failed) - 5} more")
    return len(failed)
