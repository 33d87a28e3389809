"""`--engine ray` on two machines, of which one joins late and is cut off on the way.

Each is made of namespaces: it has a network, a name and a folder of temporary files of its own, and
the second does not see the folder of the run. That takes root, and Linux.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from paper_runs import arguments, benchmark_file, by_key, invoke

ROOT = Path(__file__).parent.parent
SWITCH = f"er{os.getpid()}"
RAYS = Path(tempfile.gettempdir(), "ray")
PORT, SECONDS = 6399, 300
NEEDED = ("ip", "unshare", "mount", "hostname")


def can_be_made():
    """Whether this process may make namespaces: in a container root may not."""
    if not all(map(shutil.which, NEEDED)):
        return False
    tried = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"]
    return subprocess.run(tried, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.deep,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif("not can_be_made()", reason="needs root, and Linux's namespaces"),
]


@dataclass(frozen=True)
class Machine:
    """What has a network, a name and a folder of Ray's of its own."""

    number: int
    folder: Path
    """What is private to it."""
    unseen: Path | None = None
    """A folder of the other machine."""

    @property
    def name(self):
        return f"{SWITCH}n{self.number}"

    @property
    def address(self):
        return f"10.213.77.{10 + self.number}"

    def plug_in(self):
        ip("netns", "add", self.name)
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.name, "master", SWITCH, "up")
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", self.name, "link", "set", device, "up")

    @property
    def said(self):
        """What was printed on it so far."""
        return self.folder / "said.txt"

    def start(self, script):
        """A shell on it. All that it has started ends with it."""
        hidden = f"mount -t tmpfs none {self.unseen};" if self.unseen else ""
        prepare = (
            f"hostname {self.name}; mkdir -p {RAYS} {self.folder}/ray; "
            f"mount --bind {self.folder}/ray {RAYS}; {hidden} {script}"
        )
        alone = ("--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        there = ("ip", "netns", "exec", self.name, "unshare", *alone, "sh", "-c", prepare)
        environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        with self.said.open("w") as out:
            return subprocess.Popen(there, stdout=out, stderr=out, cwd=ROOT, env=environment)


def ip(*words, check=True):
    subprocess.run(["ip", *words], check=check, capture_output=True)


@pytest.fixture
def machines(tmp_path):
    """Two of them, plugged into one switch."""
    out = tmp_path / "out"
    found = Machine(1, tmp_path / "one"), Machine(2, tmp_path / "two", unseen=out)
    for folder in (out, *(machine.folder for machine in found)):
        folder.mkdir()
    try:
        ip("link", "add", SWITCH, "type", "bridge")
        ip("link", "set", SWITCH, "up")
        for machine in found:
            machine.plug_in()
        yield found
    finally:
        for machine in found:
            ip("link", "delete", machine.name, check=False)
            ip("netns", "delete", machine.name, check=False)
        ip("link", "delete", SWITCH, check=False)


def test_a_machine_may_join_late_and_be_cut_off(tmp_path, machines, monkeypatch):
    """With a batch in hand. Nothing is lost, nothing is there twice, and each number is that of a
    single process.
    """
    pytest.importorskip("ray")
    first, second = machines
    located = tmp_path / "located"
    located.mkdir()
    monkeypatch.setenv("LOCATED", str(located))
    benchmark, out = benchmark_file(tmp_path), tmp_path / "out" / "run"
    given = (
        "--methods",
        "located_weight:weight",
        "--seeds",
        "1,2,3,4,5,6",
        "--new-tokens",
        24,
        "--batch-size",
        1,
    )
    given += ("--dtype", "float64", "--device", "cpu")
    invoke(*arguments(benchmark, tmp_path / "alone", *given))
    node, at = "ray start --num-cpus=1 --num-gpus=0", f"{first.address}:{PORT}"
    head = f"--head --node-ip-address={first.address} --port={PORT} --include-dashboard=false"
    words = arguments(benchmark, out, *given, "--engine", "ray", "--ray-actors", 2)
    run = shlex.join(["python", "-m", "entrgi_ref.paper", *words, "--ray-address", at])
    with ExitStack() as both:
        driver = first.start(f"{node} {head} && {run}")
        both.callback(end, driver)

        def wait(condition):
            limit = time.monotonic() + SECONDS
            while not condition():
                assert driver.poll() is None, first.said.read_text()
                assert time.monotonic() < limit, first.said.read_text()
                time.sleep(0.1)

        wait(lambda: records(out) >= 2)
        both.callback(
            end, second.start(f"{node} --address={at} --node-ip-address={second.address} --block")
        )
        wait(lambda: marks(located / second.name) >= 10)  # one is a trial
        ip("link", "set", second.name, "down")
        assert driver.wait(SECONDS) == 0, first.said.read_text()
    assert by_key(out) == by_key(tmp_path / "alone")


def end(process):
    process.kill()
    process.wait()


def marks(file):
    """How many there are of a machine."""
    return file.stat().st_size if file.exists() else 0


def records(folder):
    """How many lines there are."""
    files = (folder / "records").glob("*.jsonl")
    return sum(len(file.read_bytes().splitlines()) for file in files)
