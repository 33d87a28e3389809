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
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from paper_runs import TINY_BASE, arguments, benchmark_file, by_key, invoke, lines
from test_package import SOURCES

from checkpoints import DREAM, REWARD
from entrgi_ref.commands.options import StoppedError
from entrgi_ref.paper.declared.plan import Plan
from entrgi_ref.paper.declared.testbed import DreamTestbed
from entrgi_ref.paper.run import batches, cluster, start
from entrgi_ref.paper.run.cluster import Actor, Actors, Cluster, cluster_of
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


class Noted:
    """In the place of Ray: notes what it is asked for. A call is done at once."""

    def __init__(self, monkeypatch, *, connected=False, gpus=None):
        monkeypatch.setitem(sys.modules, "ray", self)
        monkeypatch.setattr(cluster, "made_with", lambda: {"commit": "c0ffee"})
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")  # so that it is put back
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
        self.connected, self.gpus = connected, gpus
        self.asked, self.started, self.calls, self.killed, self.waits = [], [], [], [], []
        self.answers = {}
        self.exceptions = SimpleNamespace(RayError=OSError, RayTaskError=LookupError)

    def is_initialized(self):
        return self.connected

    def init(self, **options):
        self.asked.append(("init", options))

    def shutdown(self):
        self.asked.append("shutdown")

    def cluster_resources(self):
        return {"CPU": 4} if self.gpus is None else {"CPU": 4, "GPU": self.gpus}

    def remote(self, **options):
        self.asked.append(("remote", options))
        return lambda kind: SimpleNamespace(remote=self._start)

    def _start(self, *given):
        def call(batch):
            self.calls.append((actor, batch))
            return len(self.calls) - 1

        actor = SimpleNamespace(given=given, records=SimpleNamespace(remote=call))
        self.started.append(actor)
        return actor

    def wait(self, returned, *, num_returns, timeout):
        assert num_returns == 1
        self.waits.append(timeout)
        return returned[:1], returned[1:]

    def get(self, returned):
        answer = self.answers.get(returned, ([f"record {returned}"], []))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor):
        self.killed.append(actor)


def actors_of(one=ONE):
    return Actors(one, plan_of(), Watched())


WITHOUT_A_GPU = {"num_cpus": 1, "num_gpus": 0, "max_restarts": 8, "max_task_retries": -1}


def test_a_cluster_of_this_machine_ends_with_the_run(monkeypatch):
    ray = Noted(monkeypatch)
    with actors_of():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    quiet = {"log_to_driver": False, "logging_level": "WARNING"}
    start = ("init", {"address": "local", "include_dashboard": False, **quiet})
    assert ray.asked == [start, ("remote", WITHOUT_A_GPU), "shutdown"]


def test_a_cluster_that_a_program_has_connected_to_stays(monkeypatch):
    ray = Noted(monkeypatch, connected=True)
    with actors_of():
        pass
    assert ray.asked == [("remote", WITHOUT_A_GPU)]


def test_a_cluster_elsewhere_is_asked_before_it_is_connected_to(monkeypatch):
    ray, order = Noted(monkeypatch), []
    monkeypatch.setattr(cluster, "_require_answer", order.append)
    with actors_of(Cluster("there:1")):
        pass
    assert order == ["there:1"]
    quiet = {"log_to_driver": False, "logging_level": "WARNING"}
    assert ray.asked[0] == ("init", {"address": "there:1", **quiet})
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ  # it is not ours

    def fails(**options):
        raise ConnectionError("two\n  lines")

    ray.init = fails
    with pytest.raises(ValueError, match=r"^ray_address: 'there:1': two lines$"):
        actors_of(Cluster("there:1")).__enter__()


@pytest.mark.parametrize(
    ("gpus", "wanted", "each", "started"),
    [
        (3, Cluster(), 1, 3),
        (1.0, Cluster(), 1, 1),
        (0.5, Cluster(), 0, 1),
        (None, Cluster(), 0, 1),
        (3, Cluster(gpus=False), 0, 1),
        (3, Cluster(actors=2), 1, 2),
        (None, Cluster(actors=2), 0, 2),
    ],
)
def test_each_gpu_has_an_actor_if_nothing_else_is_said(monkeypatch, gpus, wanted, each, started):
    ray = Noted(monkeypatch, connected=True, gpus=gpus)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)  # an actor has as many as the driver
    with actors_of(wanted) as actors:
        assert ray.asked == [("remote", WITHOUT_A_GPU | {"num_gpus": each})]
        actors.load()
        assert len(ray.started) == started
        assert ray.calls == [(actor, None) for actor in ray.started]  # they load the networks
        assert ray.waits == [None]  # for one of them, as long as it takes
        actors._ask()
        assert len(ray.started) == started  # idle and busy ones count
    assert len(ray.killed) == started
    plan, testbed, expected, threads = ray.started[0].given
    assert (plan, threads) == (plan_of(), 7)
    assert expected == {**plan.declaration(testbed), "made_with": {"commit": "c0ffee"}}


def test_an_actor_must_have_the_drivers_weight_functions_too():
    plan = plan_of()
    own = {"half": {"module": "m", "function": "half", "source": "ab"}}
    with_own = SimpleNamespace(
        own_weights=own, declared_weights=own, declaration=lambda testbed: {"a": 1}
    )
    assert cluster._declared(with_own, None)["own_weights"] == own
    assert "own_weights" not in cluster._declared(plan, SimpleNamespace(declaration={}))


def test_nodes_that_join_later_have_actors_too(monkeypatch):
    ray = Noted(monkeypatch, connected=True, gpus=1)
    with actors_of(Cluster()) as actors:
        actors.load()
        ray.gpus = 4
        actors._ask()
        assert len(ray.started) == 4
        ray.gpus = 2  # a lost node takes no actor with it that answers
        actors._ask()
        assert len(ray.started) == 4


class Handing:
    """In the place of a `Runner`: hands out batches, and notes what is written, and if it is held
    meanwhile.
    """

    def __init__(self, *batches):
        self.batches, self.held = batches, set()
        self.written, self.said = [], []

    def take(self):
        for taken in self.batches:
            if taken is None:
                yield None
                continue
            lock = ExitStack()
            lock.callback(self.held.discard, taken)
            self.held.add(taken)
            yield taken, lock

    def write(self, records):
        self.written.append((records, set(self.held)))

    def say(self, message):
        self.said.append(message)


def test_what_an_actor_returns_is_written_while_its_batch_is_held(monkeypatch):
    ray, runner = Noted(monkeypatch, connected=True), Handing("A", "B", None)
    ray.answers = {1: (["of A"], ["slow"]), 2: (["of B"], [])}
    with actors_of() as actors:
        actors.load()
        actors.run(runner)
        (actor,) = ray.started
        assert ray.calls == [(actor, None), (actor, "A"), (actor, "B")]
        assert runner.written == [(["of A"], {"A", "B"}), (["of B"], {"B"})]
        assert runner.said == ["slow"]
        assert runner.held == set()
        # While others hold what is left, as long as a runner waits.
        assert ray.waits == [None, None, cluster.POLL_SECONDS]
        assert ray.killed == []
        slept = []
        monkeypatch.setattr(cluster.time, "sleep", slept.append)
        actors.run(Handing(None))
        assert ray.killed == [actor]
        assert slept == [cluster.POLL_SECONDS]
        actors._collect(None)
        assert slept == [cluster.POLL_SECONDS, 0]
        actors._ask()  # another takes its place
        assert len(ray.started) == 2


def test_what_is_said_of_a_batch_is_heard_though_the_run_ends_with_it(monkeypatch):
    """Such as why it was halved, where its prompts are the last of too many that failed."""

    class Given(Handing):
        def write(self, records):
            raise ValueError("too many")

    ray, runner = Noted(monkeypatch, connected=True), Given("A", None)
    ray.answers = {1: (["of A"], ["halved"])}
    with actors_of() as actors:
        actors.load()
        with pytest.raises(ValueError, match="too many"):
            actors.run(runner)
    assert runner.said == ["halved"]
    assert runner.held == set()


def test_what_is_in_hand_is_given_back_when_a_run_ends(monkeypatch):
    ray, runner = Noted(monkeypatch, connected=True), Handing("A", "B")
    with actors_of(Cluster(actors=2)) as actors:
        actors.load()
        actors.run(runner)
        assert runner.held == {"A", "B"}
        assert len(actors._busy) == 2
    assert runner.held == set()
    assert len(ray.killed) == len(ray.started) == 2


def test_what_an_actor_raises_is_raised_by_the_driver(monkeypatch):
    ray, cause = Noted(monkeypatch, connected=True), ValueError("no weights")
    raised = LookupError("in an actor")
    raised.cause = cause
    for error, message in (
        (raised, "^no weights$"),
        (
            OSError("the actor\n died"),
            "^ray: an actor died and is not started again: the actor died$",
        ),
    ):
        ray.answers = {len(ray.calls): error}
        with actors_of() as actors, pytest.raises(ValueError, match=message):
            actors.load()


def test_an_actor_computes_what_a_single_process_would(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "made_with", lambda: {"commit": "c0ffee"})
    plan, testbed = (
        plan_of(methods=["bon"], seeds=[1]),
        Watched(judge=FailingReward(2, dislikes=("22",))),
    )
    expected = cluster._declared(plan, testbed)
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    actor = Actor(plan, testbed, expected, 3)
    assert used == [3]
    assert testbed.loads == 0
    assert actor.records(None) == ([], [])
    assert testbed.loads == 1
    said = []
    alone = batches.Answerer(plan, testbed, said.append)

    def timeless(records):
        return [
            {key: value for key, value in record.items() if key != "timing"} for record in records
        ]

    for batch in batches.batches(plan, testbed):
        records, heard = actor.records(batch)
        assert timeless(records) == timeless(alone.records(batch))
        assert heard == said  # of this batch alone
        said.clear()

    def lost(batch):
        raise torch.AcceleratorError("an illegal memory access")

    actor._answerer = SimpleNamespace(records=lost)
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    actor.records(batch)
    assert left == [1]
    assert capsys.readouterr().err == "the device is lost: an illegal memory access\n"
    other = Actor(plan, testbed, expected | {"batch_size": 7, "experiment": "?"}, 3)
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    with pytest.raises(ValueError, match="another run") as error:
        other.records(None)
    assert str(error.value) == (
        "ray: an actor on node-7 would compute another run (experiment: '?' at the driver, 'main' "
        "here; batch_size: 7 at the driver, 2 here); give every node the same code, checkpoints "
        "and --dtype"
    )


def test_an_address_is_tried_if_it_is_a_host_and_a_port(monkeypatch):
    tried = []

    def connect(address, timeout):
        tried.append((address, timeout))
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    for address in ("auto", "ray://there:10001", "there", ":6379", "there:6379a", "there:"):
        cluster._require_answer(address)
    assert tried == []
    cluster._require_answer("there:6379")
    cluster._require_answer("[::1]:1")
    assert tried == [(("there", 6379), 10.0), (("::1", 1), 10.0)]
    for error in (OSError("no route"), OverflowError("too large")):

        def fails(address, timeout, error=error):
            raise error

        monkeypatch.setattr(socket, "create_connection", fails)
        with pytest.raises(ValueError, match=rf"^ray_address: nothing answers at a:1 \({error}\)$"):
            cluster._require_answer("a:1")


def test_options_of_an_engine_that_are_just_allowed():
    assert Cluster() == Cluster(None, None, True)
    assert cluster_of("ray", None, 1, gpus=True) == Cluster(None, 1, True)
