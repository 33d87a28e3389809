"""`--engine ray`: whatever happens to its actors, the records are those of a single process."""

import ast
import contextlib
import copy
import json
import os
import random
import shutil
import signal
import socket
import sys
import threading
import warnings
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import torch
from paper_runs import TINY_BASE, arguments, benchmark_file, by_key, invoke, lines
from test_package import SOURCES

from checkpoints import DREAM, REWARD
from entrgi_ref.commands.options import StoppedError
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.declared.testbed import DreamTestbed
from entrgi_ref.paper.run import batches, cluster, start
from entrgi_ref.paper.run.cluster import Actors, Cluster, cluster_of
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import key_of
from entrgi_ref.paper.run.runner import Runner
from faults import Disk, Fault, Process
from hash_testbed import BASE, METHODS, HashPlan, HashTestbed
from mortal_testbed import MortalTestbed
from ray_testbeds import Broken, Deadly, Elsewhere, Watched
from tiny_testbed import FailingDenoiser, FailingReward

pytestmark = pytest.mark.xdist_group("ray")  # one cluster

ONE = Cluster(actors=1)


def started(test):
    """It takes a cluster, which takes long to start."""
    return pytest.mark.slow(pytest.mark.usefixtures("cluster_of_two")(test))


@pytest.fixture(scope="module")
def cluster_of_two():
    """Of two GPUs, as far as Ray knows. Its processes find the networks of the tests."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address="local", num_cpus=2, num_gpus=2, **options)
    yield
    ray.shutdown()


def plan_of(seeds=(1, 2), batch_size=2, methods=("damped", "smc")):
    return Plan.of("main", TINY_BASE, seeds, 5, batch_size, methods)


def run(folder, testbed=None, cluster=None, **options):
    return start.run(plan_of(**options), testbed or Watched(), folder, print, cluster=cluster)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A single process, without interruption."""
    folder = tmp_path_factory.mktemp("alone")
    run(folder)
    return by_key(folder)


@started
def test_an_actor_that_dies_costs_nothing_but_time(tmp_path, alone):
    """One is killed, and one loses its device, each with all answers of a batch in hand."""
    testbed = Watched(folder=tmp_path, deaths=("killed", "lost"))
    assert run(tmp_path, testbed, Cluster()) == 0  # of as many actors as GPUs
    assert {path.name for path in tmp_path.glob("*")} >= {"killed", "lost"}
    assert len(list(tmp_path.glob("pid-*"))) >= 3  # two, and who took their places
    assert by_key(tmp_path) == alone
    assert len(list((tmp_path / "records").glob("*.jsonl"))) == 1  # the driver alone writes


@started
def test_a_batch_that_kills_every_actor_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RESTARTS", 0)
    with pytest.raises(ValueError, match="ray: an actor died and is not started again") as error:
        run(tmp_path, Deadly(), ONE)
    assert "\n" not in str(error.value)
    assert lines(tmp_path) == []


@started
def test_failing_prompts_and_full_memory_travel(tmp_path, capsys):
    denoiser = FailingDenoiser(1)
    denoiser.most_rows = 4  # two prompts of two trajectories
    testbed = Watched(denoise=denoiser, judge=FailingReward(2, dislikes=("333",)))
    options = {"batch_size": "auto", "seeds": [1]}
    run(tmp_path / "alone", testbed, **options)
    capsys.readouterr()
    assert run(tmp_path / "ray", testbed, ONE, **options) == 2
    assert by_key(tmp_path / "ray") == by_key(tmp_path / "alone")
    said = capsys.readouterr()
    assert "out of memory with 5 prompts, going on with 2" in said.err
    assert "tried one by one" in said.err
    assert "10 prompts in" in said.out


@started
def test_a_part_done_run_is_gone_on_with(tmp_path, alone):
    """Also in the middle of a batch; and with as many threads as a single process."""
    torch.set_num_threads(2)
    try:
        run(tmp_path / "alone", seeds=[1])
        shutil.copytree(tmp_path / "alone", tmp_path / "ray")
        (file,) = (tmp_path / "ray" / "records").glob("*.jsonl")
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
        run(tmp_path / "ray", cluster=ONE, seeds=[1])
    finally:
        torch.set_num_threads(1)
    assert {record["gold"][0] for record in lines(tmp_path / "ray")} == {2}
    assert by_key(tmp_path / "ray") == by_key(tmp_path / "alone")
    before = lines(tmp_path / "ray")
    run(tmp_path / "ray", cluster=ONE, seeds=[1])
    assert lines(tmp_path / "ray") == before


@started
def test_a_process_started_by_hand_shares_the_work(tmp_path, alone):
    """It begins while an actor computes, and leaves it what it has in hand."""
    plan, testbed = plan_of(), Watched()
    folders = [RunFolder(tmp_path, plan.declaration(testbed)) for _ in range(2)]
    by_hand = Runner(plan, testbed, folders[1], print)
    answerer = batches.Answerer(plan, testbed, print)
    begun = []

    def progress(record):
        if not begun:
            begun.append(record)
            for taken in by_hand.take():
                if taken is None:  # what is left is the actor's
                    break
                with taken[1]:
                    by_hand.write(answerer.records(taken[0]))

    driver = Runner(plan, testbed, folders[0], print, progress)
    with Actors(ONE, plan, testbed) as actors:
        actors.run(driver)
    for folder in folders:
        folder.close()
    assert by_key(tmp_path) == alone
    assert len(list((tmp_path / "records").glob("*.jsonl"))) == 2


@started
@pytest.mark.parametrize(
    ("testbed", "message"),
    [
        (Broken(), r"^checkpoint: no weights$"),
        (Elsewhere(), r"another run \(dtype: 'float32' at the driver, 'half' here\); give every"),
    ],
)
def test_what_cannot_be_loaded_ends_the_run_and_is_not_declared(tmp_path, testbed, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, testbed, ONE)
    assert list(tmp_path.iterdir()) == []


@started
def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch, alone):
    write = RunFolder.write

    def stops(folder, record):
        if len(folder.done) == 4:
            raise KeyboardInterrupt
        write(folder, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", stops)
        with pytest.raises(StoppedError, match="4 of 20 prompts are kept"):
            run(tmp_path, cluster=ONE)
    run(tmp_path)  # no lock is left behind
    assert by_key(tmp_path) == alone


@started
def test_the_command_line_on_dream(tmp_path):
    """Examined by the driver, loaded by the actor alone."""
    words = ["--methods", "entrgi", "--seeds", "1", "--prompts", "2", "--dtype", "float64"]
    benchmark = benchmark_file(tmp_path)
    invoke(*arguments(benchmark, tmp_path / "alone", *words))
    output = invoke(
        *arguments(benchmark, tmp_path / "ray", *words, "--engine", "ray", "--ray-actors", 1)
    )
    assert "2 prompts in" in output
    assert by_key(tmp_path / "ray") == by_key(tmp_path / "alone")


def killer(pids, moments, enough):
    """Kills processes that compute, one at each of these moments, in seconds after the last."""
    killed = 0
    for moment in moments:
        if enough.wait(moment):
            return killed
        found = [int(file.name) for file in pids.iterdir()]
        for pid in sorted(found, reverse=True)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
            (pids / str(pid)).unlink()
    return killed


def whole_lines(folder):
    """Key -> record. None is there twice, and none is half written unless it is the last."""
    found = {}
    for file in (folder / "records").glob("*.jsonl"):
        for line in file.read_bytes().split(b"\n")[:-1]:
            record = json.loads(line)
            del record["timing"]
            assert key_of(record) not in found
            found[key_of(record)] = record
    return found


def schedule_on_a_cluster(folder, number):
    """Actors are killed at random moments, the driver at a random operation; then all goes on.

    Returns how many of each have died.
    """
    chance, ended = random.Random(number), []
    plan = HashPlan.of("main", BASE, (1, 2), 4, 2, METHODS)
    start.run(plan, HashTestbed(), folder / "alone", print)
    truth, out, pids = by_key(folder / "alone"), folder / "out", folder / "pids"
    pids.mkdir()
    before, killed = {}, []
    for last in (False, False, True):
        testbed = MortalTestbed(pids=pids, seconds=chance.choice([0.01, 0.03]))
        one = Cluster(actors=chance.randint(1, 2))
        fault = None if last else Fault("kill", chance.randint(10, 50), chance.choice([0, 0.5, 1]))
        enough = threading.Event()
        moments = [chance.uniform(0.1, 2.0) for _ in range(chance.randint(0, 3))]
        killing = threading.Thread(
            target=lambda *given: killed.append(killer(*given)), args=(pids, moments, enough)
        )
        with Disk(out).mounted(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of half-written lines
            run = partial(start.run, plan, testbed, out, str, cluster=one)
            driver = Process("driver", run, fault)
            killing.start()
            while not driver.ended:
                driver.go_on()
            enough.set()
            killing.join()
        assert driver.error is None, driver.error
        ended.append(driver.dead)
        found = whole_lines(out)
        assert before.items() <= found.items() <= truth.items()
        before = found
    assert found == truth
    return sum(killed), sum(ended)


@started
def test_actors_and_drivers_that_die_at_random(tmp_path):
    schedule_on_a_cluster(tmp_path, 0)


@pytest.mark.deep
@pytest.mark.usefixtures("cluster_of_two")
def test_actors_and_drivers_that_die_at_random_in_many_schedules(tmp_path):
    died = []
    for number in range(1, 25):
        (tmp_path / str(number)).mkdir()
        died.append(schedule_on_a_cluster(tmp_path / str(number), number))
        print(number, died[-1], flush=True)
    actors, drivers = map(sum, zip(*died, strict=True))
    assert actors >= 5
    assert drivers > 20


def test_a_testbed_travels_without_what_this_machine_has_loaded():
    """The path of a checkpoint in the cache, and what it held, may be others elsewhere."""
    testbed = DreamTestbed(str(DREAM), {"tiny": str(REWARD)}, [])
    testbed.examine(4)
    assert testbed.declaration["main_reward"] == "tiny"
    given = {each.name for each in fields(DreamTestbed) if each.init}
    assert set(vars(testbed)) > given
    elsewhere = copy.copy(testbed)
    assert set(vars(elsewhere)) == given
    assert elsewhere._reward is None


def test_bad_options_of_an_engine(monkeypatch):
    assert cluster_of("local", None, None, gpus=True) is None
    assert cluster_of("ray", "auto", 3, gpus=False) == Cluster("auto", 3, False)
    for given, message in [
        (("spark", None, None), r"engine: got 'spark', expected .*ray"),
        (("local", "auto", None), r"ray_address: got 'auto', which has no effect"),
        (("local", None, 2), r"ray_actors: got 2, which has no effect"),
        (("ray", None, 0), r"ray_actors: got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            cluster_of(*given, gpus=True)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ValueError, match="under torchrun"):
        cluster_of("ray", None, None, gpus=True)


def test_no_cluster_answers(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=f"ray_address: nothing answers at {address}"):
        run(tmp_path, cluster=Cluster(address))


def test_without_ray_a_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"^ray: not installed; pip install 'entrgi-ref\[ray\]'"):
        run(tmp_path, cluster=ONE)
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, seeds=[1])  # nobody else needs it


def test_ray_is_imported_late():
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "ray" not in ast.unparse(node).replace(".", " ").split(), path
