"""A run folder, whatever is done to it in whatever order: nothing is lost, nothing is there twice.

The commands are the real ones, on networks that cost nothing. What they do to the disk fails, or
kills them, at any place; `faults.py` says how.
"""

import json
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from unittest import mock

import pytest
import typer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from paper_runs import FORKS

import mortal_testbed
import pretended_ray
from entrgi_ref.commands.options import StoppedError
from entrgi_ref.commands.progress import Progress
from entrgi_ref.paper import __main__ as paper
from entrgi_ref.paper.judged import backends
from entrgi_ref.paper.run import start
from entrgi_ref.paper.run.cluster import Cluster
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import JUDGES, key_of
from entrgi_ref.paper.shown import figures
from faults import Disk, Fault, Process, current
from hash_testbed import BASE, METHODS, REASON, HashJudge, HashPlan, HashTestbed
from pretended_ray import Fate
from properties import tried

SEEDS, PROMPTS, BATCH = (1, 2), len(HashTestbed.prompts), 2
ALL = {"seeds": SEEDS, "prompts": PROMPTS, "methods": METHODS}


def plan_of(seeds, prompts, methods, base=BASE, batch_size=BATCH):
    return HashPlan.of("main", base, seeds, prompts, batch_size, methods)


def run(folder, ask=ALL, dislikes=frozenset(), *, base=BASE, batch_size=BATCH, **options):
    """The command `run`, below its options."""
    plan, testbed = plan_of(**ask, base=base, batch_size=batch_size), HashTestbed(dislikes)
    options = {"retry_failed": True, "give_up_after": 0, **options}
    return start.run(plan, testbed, folder, typer.echo, **options)


def judge(folder):
    return paper.judge(folder, "hash", "hash", None, 16, "cpu", "float32", 1, False)


def echo(message="", **_):
    """What `typer.echo` is in a process: it keeps what is said."""
    if process := current():
        process.said.append(str(message))


def quiet():
    """Commands say what they say to their process, and draw no figures."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(typer, "echo", echo))
    stack.enter_context(mock.patch.object(Progress, "say"))
    stack.enter_context(mock.patch.dict(sys.modules, {"ray": pretended_ray}))
    stack.enter_context(mock.patch.object(figures, "draw", return_value=[]))
    stack.enter_context(mock.patch.object(backends, "examine_judge", return_value=HashJudge()))
    return stack


# The truth: what a run says that nothing has happened to


def contents(line):
    """What is written in a line beside the time that it took. ValueError if it is no JSON."""
    record = dict(json.loads(line))
    record.pop("timing", None)
    return record


class Truth:
    """Of an uninterrupted run of all prompts."""

    def __init__(self, folder):
        with quiet():
            run(folder)
            judge(folder)
            paper.export(folder, None, False)  # what is imported late is there by then
            paper.list_([folder])
            self.report, self.table = report_of(folder)
        (judged,) = (folder / JUDGES).iterdir()
        self.judge = judged.name
        self.records = self._by_key(folder)
        self.judgements = self._by_key(judged)
        self.known: dict[tuple[bytes, bool], tuple | None] = {}
        """Lines that have been looked at."""
        empty = {"status": "failed", "reason": REASON, "responses": [], "rewards": []}
        self.failed = {
            key: {name: value for name, value in record.items() if name != "gold"} | empty
            for key, record in self.records.items()
        }

    def _by_key(self, folder):
        (file,) = (folder / "records").iterdir()
        found = [contents(line) for line in file.read_bytes().splitlines()]
        return {key_of(record): record for record in found}

    def of(self, line, judged):
        """The key of a line that is true and its status, else None."""
        if (line, judged) not in self.known:
            self.known[line, judged] = self._of(line, judged)
        return self.known[line, judged]

    def _of(self, line, judged):
        try:
            record = contents(line)
            key = key_of(record)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if record == (self.judgements if judged else self.records).get(key):
            return key, "ok"
        return (key, "failed") if not judged and record == self.failed.get(key) else None


def report_of(folder):
    paper.report(folder, None)
    report = (folder / "report" / "report.md").read_text()
    return report, json.loads((folder / "report" / "table.json").read_text())


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Truth(tmp_path_factory.mktemp("truth"))


# What is done to a folder


@dataclass
class Actors:
    number: int
    fate: Fate


asks = st.fixed_dictionaries(
    {
        "seeds": st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2, unique=True),
        "prompts": st.integers(1, PROMPTS),
        "methods": st.sampled_from([METHODS, METHODS[:1], METHODS[1:]]),
    }
)
faults = st.builds(
    Fault,
    st.sampled_from(["kill", "stop", "full", "broken"]),
    st.integers(0, 80),
    st.sampled_from([0, 0.5, 1]),
    st.booleans(),
)
troubles = st.none() | faults | st.integers(1, 80)
"""Of a command: none, a fault, or after how many operations it is left alone for a while."""
actors = st.none() | st.builds(
    Actors, st.integers(1, 3), st.builds(Fate, st.integers(0, 9), st.sampled_from([0, 2, 30]))
)
"""Of a run: none, or those that compute it, and what happens to them."""
STOPS = "still writing|has no records yet|is no run folder"
"""What a command may say though nothing is wrong."""


def has_room(machine):
    return len(machine.alive) < 3


class Machine(RuleBasedStateMachine):
    truth: Truth

    def __init__(self):
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="run-")).resolve()
        self.folder = self.home / "out"
        self.disk = Disk(self.folder)
        self.alive: list[Process] = []
        self.there = {False: Counter(), True: Counter()}
        """Of answers and of judgements: (key, status) -> how many lines there are of it."""
        self.synced = {False: set(), True: set()}
        """Those of which it has been said that they are on the disk."""
        self.touched: set[bytes] = set()
        """Lines that were damaged from outside."""
        self.whole = True
        self.stack = quiet()
        self.warned = self.stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        self.stack.enter_context(self.disk.mounted())
        self.stack.enter_context(mock.patch.object(RunFolder, "write", self.noted(RunFolder.write)))

    def noted(self, write):
        def and_note(folder, record):
            key = key_of(record)
            new = key not in folder.done
            write(folder, record)
            if new:
                judged = folder.path != self.folder
                self.synced[judged].add((key, record["status"]))
                self.there[judged][key, record["status"]] += 1

        return and_note

    # What is there

    def lines(self, judged):
        """The lines of all files, and whether they end."""
        where = f"{JUDGES}/{self.truth.judge}/records" if judged else "records"
        for file in sorted((self.folder / where).glob("*.jsonl")):
            *whole, last = file.read_bytes().split(b"\n")
            yield from ((line, True) for line in whole)
            if last:
                yield last, False

    def found(self, judged):
        """(key, status) -> how many true lines there are of it."""
        found = (
            self.truth.of(line, judged)
            for line, _ in self.lines(judged)
            if line not in self.touched
        )
        return Counter(each for each in found if each)

    def bad(self, *which):
        """Lines that are no records."""
        return [
            line
            for judged in which or (False, True)
            for line, ends in self.lines(judged)
            if ends and self.truth.of(line, judged) is None
        ]

    def odd(self):
        """Whether there are lines that were damaged, but say what they said before."""
        return any(
            line in self.touched and self.truth.of(line, judged)
            for judged in (False, True)
            for line, _ in self.lines(judged)
        )

    def states(self):
        """Key -> status, as it counts."""
        found = (self.truth.of(line, False) for line, _ in self.lines(False))
        return dict(sorted(filter(None, found), key=lambda each: each[1] == "ok"))

    def dropped(self):
        files = self.folder.glob("dropped/**/*.jsonl")
        return {line for file in files for line in file.read_bytes().split(b"\n")}

    @invariant()
    def nothing_is_lost_and_nothing_is_there_twice(self):
        self.whole = False
        assert not self.disk.outside, f"written elsewhere, or unseen: {self.disk.outside}"
        assert {path.name for path in self.home.iterdir()} <= {"out"}
        kept = self.dropped()
        for judged in (False, True):
            found, before = self.found(judged), self.there[judged]
            for each in before:
                assert found[each], f"lost: {each}"
            for (key, status), count in found.items():
                if status == "ok" or found[key, "ok"]:
                    assert count <= max(1, before[key, status]), f"{count} times: {key}"
            self.there[judged] = found
            bad = set(self.bad(judged))
            assert bad <= self.touched, f"nobody has damaged {bad - self.touched}"
            kept |= {line for line, _ in self.lines(judged)}
        assert self.touched <= kept, f"gone: {self.touched - kept}"
        self.whole = True

    # Commands

    def command(self, name, act, trouble=None, finished=lambda process: None, may_say=STOPS):
        """Do it as a process, up to its end or to where it is left alone."""
        process = Process(name, act, trouble if isinstance(trouble, Fault) else None)
        process.finished, process.may_say = finished, may_say
        process.hurt = isinstance(trouble, Fault)
        process.damage = bool(self.bad()) or self.odd()
        self.go_on(process, trouble if isinstance(trouble, int) else None)
        return process

    def go_on(self, process, operations=None):
        process.go_on(operations)
        self.alive = [one for one in self.alive if one is not process]
        if not process.ended:
            assert self.alive or not process.waiting, f"{process.name} waits for nobody"
            self.alive.append(process)
        elif process.error is not None and not isinstance(process.error, typer.Exit):
            self.require_one_line(process)
        elif not process.dead:
            process.finished(process)

    def require_one_line(self, process):
        """What goes wrong is said in a line that says where."""
        error, said = process.error, str(process.error)
        if process.hurt and isinstance(error, KeyboardInterrupt | StoppedError):
            return  # `run_app` makes a line of either
        right = isinstance(error, ValueError) and "\n" not in said
        right &= str(self.folder) in said or said.startswith("ray: an actor died")
        expected = process.hurt or process.damage or re.search(process.may_say, said)
        if not right or not expected:
            raise AssertionError(f"{process.name}: {error!r}") from error

    def run(self, ask, trouble, dislikes=(), retry_failed=False, actors=None):
        def finished(process):
            states, wanted = self.states(), keys_of(ask)
            assert not self.bad(False), "a run goes over a damaged line"
            assert wanted <= states.keys(), f"not done: {wanted - states.keys()}"
            failed = sum(states[key] == "failed" for key in wanted)
            assert process.result == failed
            said = f"{len(wanted)} prompts in {self.folder}, {failed} of them failed"
            assert said in process.said, process.said

        disliked = frozenset(HashTestbed.prompts[i] for i in dislikes)

        cluster = None if actors is None else Cluster(actors=actors.number, gpus=False)

        def act():
            if actors is not None:
                current().fate = replace(actors.fate)
            return run(self.folder, ask, disliked, retry_failed=retry_failed, cluster=cluster)

        stops = STOPS if actors is None or actors.fate.deaths < 9 else f"{STOPS}|actor died"
        return self.command("run", act, trouble, finished, stops)

    @precondition(has_room)
    @rule(
        ask=asks,
        trouble=troubles,
        dislikes=st.just([]) | st.lists(st.integers(0, PROMPTS - 1), max_size=2),
        retry_failed=st.booleans(),
        actors=actors,
    )
    def run_some(self, ask, trouble, dislikes, retry_failed, actors):
        self.run(ask, trouble, dislikes, retry_failed, actors)

    @precondition(has_room)
    @rule(trouble=troubles, actors=actors)
    def run_all(self, trouble, actors):
        self.run(ALL, trouble, actors=actors)

    @precondition(has_room)
    @rule(trouble=troubles)
    def judge(self, trouble):
        wanted = {key for key, status in self.states().items() if status == "ok"}

        def finished(process):
            assert not self.bad(), "a judge goes over a damaged line"
            judged = {self.truth.of(line, True) for line, _ in self.lines(True)}
            assert all((key, "ok") in judged for key in wanted), "not all is judged"

        self.command("judge", lambda: judge(self.folder), trouble, finished)

    @precondition(has_room)
    @rule(trouble=troubles)
    def repair(self, trouble):
        lines = [(line, judged) for judged in (False, True) for line, _ in self.lines(judged)]
        bad = sum(self.truth.of(*each) is None for each in lines)  # half ones too
        alone = not self.alive and trouble is None and not self.odd()

        def finished(process):
            assert not self.bad(), "a repair leaves a damaged line"
            if alone:
                said = f"{bad} lines taken out; they are kept in" if bad else "ok"
                assert process.said[-1].startswith(said), process.said

        self.command("repair", lambda: paper.repair(self.folder), trouble, finished)

    @rule()
    def list_(self):
        self.warned.clear()
        process = self.command("list", lambda: paper.list_([self.folder]))
        (said,) = process.said
        half = any(not ends and not self.truth.of(line, False) for line, ends in self.lines(False))
        told = any("half-written last line" in str(one.message) for one in self.warned)
        # Of judgements too; and nothing is read beyond a damaged line.
        assert told >= (half and "cannot be read" not in said)
        if not (self.folder / "run.json").exists():
            assert f"{self.folder}: cannot be read: out: " in said
        elif self.bad(False) or self.odd():
            told = re.search(f"{self.folder}: cannot be read: .*, line [0-9]+: .* repair", said)
            assert told or not self.bad(False), said
        else:
            states = self.states()
            done = sum(status == "ok" for status in states.values())
            expected = f"{self.folder}: main, {done} prompts done, {len(states) - done} failed"
            assert expected in said, said
            cells = Counter((key[1], key[2], key[4]) for key in states)
            for (benchmark, method, seed), count in cells.items():
                assert f"  {benchmark} {method}, seed {seed}: {count} of " in said
            if "judged by" in said and not self.bad(True):
                judged = self.found(True)
                count = sum(judged[key, "ok"] > 0 for key in states if states[key] == "ok")
                assert f": {count} of {done}" in said.partition("judged by")[2]

    @precondition(has_room)
    @rule(trouble=st.none() | faults)
    def report(self, trouble):
        def finished(process):
            assert not self.bad(), "a report goes over a damaged line"
            table = json.loads((self.folder / "report" / "table.json").read_text())
            states, judged = self.states(), self.found(True)
            answers = {key for key, status in states.items() if status == "ok"}
            top1 = {key: max(self.truth.records[key]["rewards"]) for key in answers}
            assert column(table, "top1_mean_reward") == means(top1)
            marks = {k: self.truth.judgements[k]["score"] for k in answers if judged[k, "ok"]}
            assert column(table, "judge:hash_mean_1_to_5") == means(marks)
            failed = len(states) - len(answers)
            assert bool(failed) == bool(re.search(f"\\b{failed} prompts? failed", process.said[0]))

        self.command("report", lambda: paper.report(self.folder, None), trouble, finished)

    @precondition(has_room)
    @rule(trouble=st.none() | faults)
    def export(self, trouble):
        def finished(process):
            assert not self.bad(), "an export goes over a damaged line"
            found = []
            for one in (json.loads(Path(name).read_text()) for name in process.said):
                cell = "main", "digits", one["method"], "{}", one["config"]["seed"]
                for each in one["results"]:
                    found.append((*cell, each["idx"]))
                    expected = self.truth.records[found[-1]]
                    assert each["all_responses"] == expected["responses"]
                    assert each["all_rewards"] == expected["rewards"]
            answers = [key for key, status in self.states().items() if status == "ok"]
            assert sorted(found) == sorted(answers)

        def act():
            paper.export(self.folder, None, False)

        self.command("export", act, trouble, finished)

    @precondition(lambda self: (self.folder / "run.json").exists() and has_room(self))
    @rule(setting=st.sampled_from([{"base": BASE.guided(steps=2)}, {"batch_size": 3}]))
    def run_another(self, setting):
        """It is refused and changes nothing."""

        def contents():
            files = [self.folder / "run.json", *self.folder.glob("**/records/*")]
            return {file: file.read_bytes() for file in files}

        def finished(process):
            raise AssertionError("another run is not refused")

        before, refused = contents(), "holds another run .* there, .* here"
        self.command("another", lambda: run(self.folder, **setting), None, finished, refused)
        assert contents() == before

    # What happens beside

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 2), operations=st.none() | st.integers(1, 40))
    def go_on_with_one(self, which, operations):
        self.go_on(self.alive[which % len(self.alive)], operations)

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 2))
    def kill_one(self, which):
        self.alive.pop(which % len(self.alive)).kill()

    @rule(part=st.sampled_from([0, 0.5, 1]), undone=st.integers(0, 7), zeros=st.booleans())
    def lose_power(self, part, undone, zeros):
        while self.alive:
            self.kill_one(0)
        self.disk.lose_power(part, undone, zeros)
        for judged in (False, True):
            found = self.found(judged)
            for each in self.synced[judged]:
                assert found[each], f"lost with the power: {each}"
        self.settle()

    def is_idle(self):
        return not self.alive and any(self.files())

    def files(self):
        return sorted([*self.folder.glob("records/*"), *self.folder.glob("judges/*/records/*")])

    @precondition(is_idle)
    @rule(which=st.integers(0, 20), share=st.floats(0, 1))
    def truncate(self, which, share):
        file = self.pick(which)
        data = file.read_bytes()
        self.change(file, data[: int(len(data) * share)])

    @precondition(is_idle)
    @rule(
        which=st.integers(0, 20),
        line=st.integers(0, 20),
        how=st.sampled_from(["byte", "nul", "half", "double", "merge"]),
        place=st.floats(0, 1, exclude_max=True),
    )
    def garble(self, which, line, how, place):
        file = self.pick(which)
        lines = file.read_bytes().splitlines(keepends=True)
        if not lines:
            return
        number = line % len(lines)
        one = lines[number]
        at = int(len(one) * place)
        lines[number] = {
            "byte": one[:at] + b"\xff" + one[at + 1 :],  # no text: one that is could be true
            "nul": b"\0" * (len(one) - 1) + b"\n",
            "half": one[:at] + b"\n",
            "double": one.removesuffix(b"\n") + b"\n" + one,
            "merge": one.removesuffix(b"\n"),
        }[how]
        self.change(file, b"".join(lines))

    def pick(self, which):
        files = self.files()
        return files[which % len(files)]

    def change(self, file, data):
        """From outside: what is gone by it is gone."""
        before = whole(file)
        file.write_bytes(data)
        self.touched |= {line for line in whole(file) if line not in before}
        # A line without its end is a half-written one, which the next run may drop.
        there = {line for judged in (False, True) for line, ends in self.lines(judged) if ends}
        self.touched &= there | self.dropped()
        self.settle()

    def settle(self):
        """What is there now is what there has to be."""
        self.disk.settle()
        for judged in (False, True):
            self.there[judged] = self.found(judged)
            self.synced[judged] = set(self.there[judged])

    @precondition(is_idle)
    @rule()
    def delete_locks(self):
        for claims in [self.folder / "claims", *self.folder.glob("judges/*/claims")]:
            shutil.rmtree(claims, ignore_errors=True)

    # The end

    def teardown(self):
        try:
            if self.whole:
                self.end()
        finally:
            for process in self.alive:
                process.kill()
            self.stack.close()
            shutil.rmtree(self.home)

    def end(self):
        """However it went, it becomes the run that nothing has happened to."""
        for _ in range(20):
            for process in list(self.alive):
                self.go_on(process)
        assert not self.alive, f"they wait for each other: {self.alive}"
        if (self.folder / "run.json").exists():
            self.command("repair", lambda: paper.repair(self.folder))
        assert self.run(ALL, None, retry_failed=True).result == 0
        self.judge(None)
        assert {key for key, status in self.states().items() if status == "ok"} == keys_of(ALL)
        before = {file: file.read_bytes() for file in self.files()}
        self.run(ALL, None, retry_failed=True)
        self.judge(None)
        assert {file: file.read_bytes() for file in self.files()} == before
        assert report_of(self.folder) == (self.truth.report, self.truth.table)
        self.export(None)
        self.list_()
        self.nothing_is_lost_and_nothing_is_there_twice()


def keys_of(ask):
    return {
        ("main", "digits", method, "{}", seed, idx)
        for method, seed, idx in product(ask["methods"], ask["seeds"], range(ask["prompts"]))
    }


def column(table, name):
    """Method -> number."""
    return {row["method"]: row[name] for row in table["rows"] if row.get(name) is not None}


def means(values):
    """Method -> mean over seeds of the mean over prompts, of those that all methods have."""
    methods = {key[2] for key in values}
    found = {}
    for method in methods:
        seeds: dict[int, list[float]] = {}
        for key, number in sorted(values.items()):
            if key[2] == method and all((*key[:2], m, *key[3:]) in values for m in methods):
                seeds.setdefault(key[4], []).append(number)
        if seeds:
            found[method] = statistics.fmean(map(statistics.fmean, seeds.values()))
    return found


def tried_on(truth, schedules):
    Machine.truth = truth
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    options = settings(schedules, stateful_step_count=12, suppress_health_check=slow)
    run_state_machine_as_test(Machine, settings=options)


def test_nothing_is_lost_and_nothing_is_there_twice(truth):
    tried_on(truth, tried(50))


@pytest.mark.deep
def test_nothing_is_lost_in_a_thousand_schedules(truth):
    tried_on(truth, tried(100))  # make test-deep: ten times that


@pytest.mark.slow
def test_processes_that_are_really_killed(truth, tmp_path):
    """Two at a time, by the system, at moments that nobody has chosen."""
    moments, kills, folder = random.Random(0), 0, tmp_path / "out"
    (tmp_path / "pids").mkdir()
    for _ in range(12):
        both = [
            FORKS.Process(target=mortal_testbed.run, args=(folder, tmp_path / "pids", 0.03))
            for _ in range(2)
        ]
        for process in both:
            process.start()
        while any(process.is_alive() for process in both) and not any(folder.glob("records/*")):
            time.sleep(0.01)
        for process in both:
            process.join(moments.uniform(0, 0.1))
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        found = [truth.of(line, False) for file in folder.glob("records/*") for line in whole(file)]
        assert None not in found
        assert len(set(found)) == len(found)
    assert kills >= 4  # the others had ended
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(folder)
        judge(folder)
        assert report_of(folder) == (truth.report, truth.table)


def whole(file):
    return file.read_bytes().split(b"\n")[:-1]
