"""The run folder: nothing that was written is lost, whatever happens to the process or the disk."""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from building.records import ROOT
from entrgi_ref.commands import provenance
from entrgi_ref.paper.run import folder as folders
from entrgi_ref.paper.run import required
from entrgi_ref.paper.run.folder import RunFolder, repair
from entrgi_ref.paper.run.records import (
    bad_line,
    best,
    declared,
    differences,
    earlier_layout,
    fingerprint,
    judges_of,
    key_of,
    line_of,
    lines_of,
    of_best,
    read_by_key,
    read_declaration,
    read_experiment,
    read_judge,
    read_records,
    require_same,
)
from entrgi_ref.paper.shown.listing import listing
from entrgi_ref.paper.shown.summary import Run
from properties import tried

DECLARATION = {"experiment": "main", "settings": {"top_p": 0.95}, "batch_size": 4}


def record(idx, **more):
    identity = {"experiment": "main", "benchmark": "b", "method": "bon", "variant": {}, "seed": 1}
    answers = {"responses": ["a", "b"], "rewards": [0.5, -1.0], "status": "ok"}
    made = {"fingerprint": fingerprint(DECLARATION)}
    return {**identity, "idx": idx, "prompt": f"é\n{idx}\u2028", **answers, **made, **more}


def errors(steps=(), counts=((1, 2),)):
    """What an observer saw, with one bin of entropy and two of E."""
    histogram = {
        "entropy_edges": [0, 1],
        "error_edges": [0, 1, 2.5],
        "counts": list(map(list, counts)),
    }
    return {"steps": list(steps), "histogram": histogram, "log_vocabulary": 2.0}


NO_BIN = {"entropy_edges": [], "error_edges": [], "counts": []}


def written(words, steps=None):
    """Which step wrote each token, by default one after the other."""
    return {"words": words, "steps": steps or [list(range(len(answer))) for answer in words]}


def opened(path, **options):
    return RunFolder(path, DECLARATION, **options)


def write(path, *records, **options):
    folder = opened(path, **options)
    for one in records:
        folder.write(one)
    folder.close()


def test_a_record_is_read_back_as_it_was(tmp_path):
    write(tmp_path, record(1), record(0, answers=["a\ud800b", '"\\']))
    assert read_records(tmp_path) == [record(0, answers=["a\ud800b", '"\\']), record(1)]
    assert read_declaration(tmp_path)["settings"] == {"top_p": 0.95}


def test_a_record_is_on_the_disk_when_write_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    folder = opened(tmp_path)
    for idx in range(3):
        folder.write(record(idx))
        (file,) = (tmp_path / "records").glob("*.jsonl")
        assert len(file.read_bytes().splitlines()) == idx + 1
        assert synced[-1] == file.stat().st_size


@pytest.fixture
def synced(monkeypatch):
    """Path -> how large it was when it was last synced; of a folder 0."""
    found = {}

    def sync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        found[Path(path)] = 0 if os.path.isdir(path) else os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", sync)
    return found


def test_the_names_of_new_files_are_on_the_disk_too(tmp_path, synced):
    """A file is not there again after the power has failed unless its folder was synced."""
    folder = opened(tmp_path)
    assert tmp_path in synced  # where run.json has been moved to
    folder.write(record(0))
    assert tmp_path / "records" in synced


@pytest.mark.parametrize("half", [False, True])
def test_what_is_mended_is_on_the_disk_before_anything_is_written(tmp_path, synced, half):
    write(tmp_path, record(0), record(1))
    (file,) = (tmp_path / "records").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"half' if half else whole[:-1])
    synced.clear()
    with pytest.warns(UserWarning, match="half-written") if half else contextlib.nullcontext():
        opened(tmp_path)
    assert file.read_bytes() == whole
    assert synced[file] == len(whole)


def test_what_repair_takes_out_is_on_the_disk_before_it_is_taken_out(tmp_path, synced, monkeypatch):
    write(tmp_path, record(0))
    (file,) = (tmp_path / "records").glob("*.jsonl")
    file.write_bytes(b"garbage\n" + file.read_bytes())
    replace, dropped = os.replace, tmp_path / "dropped" / "records"

    def checked(source, target):
        assert synced[dropped / file.name] == len(b"garbage\n")
        assert dropped in synced
        synced.clear()
        replace(source, target)

    monkeypatch.setattr(os, "replace", checked)
    repair(tmp_path)
    assert tmp_path / "records" in synced


def test_a_record_is_written_as_a_whole_by_a_system_that_takes_little_at_a_time(
    tmp_path, monkeypatch
):
    write_some = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write_some(file, data[:7]))
    write(tmp_path, record(0), record(1))
    assert read_records(tmp_path) == [record(0), record(1)]


def test_a_run_folder_holds_nothing_else(tmp_path):
    """`run.json` is written aside and moved into place."""
    write(tmp_path, record(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claims", "records", "run.json"]


@pytest.mark.parametrize("does", [opened, repair])
def test_opening_or_repairing_a_folder_waits_for_whoever_declares_it(tmp_path, does):
    folder, waiting = opened(tmp_path), threading.Thread(target=does, args=[tmp_path])
    with folder.lock("declaration"):
        waiting.start()
        waiting.join(0.15)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()


def test_the_order_of_a_declarations_fields_does_not_matter(tmp_path):
    write(tmp_path, record(0))
    RunFolder(tmp_path, dict(reversed(DECLARATION.items())))
    swapped = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    assert len({key_of(record(0, variant=variant)) for variant in swapped}) == 1


@tried(60)
@given(data=st.data())
def test_a_file_cut_at_any_byte_loses_no_complete_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("run")
    write(path, *map(record, range(3)))
    (file,) = (path / "records").glob("*.jsonl")
    whole = file.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    file.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    # A line that only lacks its newline is complete.
    complete += whole[cut : cut + 1] == b"\n"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert [r["idx"] for r in read_records(path)] == list(range(complete))
    half = len(whole[:cut].rpartition(b"\n")[2]) > 0 and whole[cut : cut + 1] != b"\n"
    assert [str(w.message).endswith("half-written last line") for w in found] == [True] * half
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        folder = opened(path)
    assert ["dropped a half-written last line" in str(w.message) for w in found] == [True] * half
    assert folder.done == {key_of(record(idx)) for idx in range(complete)}
    for idx in range(4):
        folder.write(record(idx))
    folder.close()
    assert read_records(path) == [record(idx) for idx in range(4)]
    lines = [line for f in (path / "records").iterdir() for line in f.read_text().splitlines()]
    assert sorted(json.loads(line)["idx"] for line in lines) == [0, 1, 2, 3]


@pytest.mark.parametrize("does", [opened, read_records, repair])
def test_records_with_the_line_ends_of_an_old_mac_are_refused_and_stay(tmp_path, does):
    """They are no line that is half-written."""
    write(tmp_path, record(0), record(1))
    (file,) = (tmp_path / "records").iterdir()
    file.write_bytes(content := file.read_bytes().replace(b"\n", b"\r"))
    with pytest.raises(ValueError, match=rf"^out: {file} has lines that end with CR, expected LF"):
        does(tmp_path)
    assert file.read_bytes() == content


def test_a_half_written_line_is_kept_aside(tmp_path):
    """Of a run, and of a judge of it, where lines that `repair` takes out are too."""
    for folder in (tmp_path, tmp_path / "judges" / "j"):
        write(folder, record(0))
        (file,) = (folder / "records").iterdir()
        file.write_bytes(file.read_bytes() + b'{"half')
        aside = tmp_path / "dropped" / file.relative_to(tmp_path)
        with pytest.warns(UserWarning, match=f"half-written last line; it is kept in {aside}$"):
            opened(folder)
        assert aside.read_bytes() == b'{"half\n'
        assert read_records(folder) == [record(0)]


def test_another_run_is_refused_with_the_fields_that_differ(tmp_path):
    write(tmp_path, record(0))
    other = {**DECLARATION, "settings": {"top_p": 0.9}, "dtype": "float32"}
    with pytest.raises(ValueError, match="another run") as error:
        RunFolder(tmp_path, other)
    assert "settings.top_p: 0.95 there, 0.9 here" in str(error.value)
    assert "dtype: None there, 'float32' here" in str(error.value)
    assert "batch_size" not in str(error.value)
    assert read_records(tmp_path) == [record(0)]


def test_what_others_write_is_seen_and_not_written_again(tmp_path):
    mine, theirs = opened(tmp_path), opened(tmp_path)
    theirs.write(record(0))
    assert key_of(record(0)) not in mine.done
    mine.refresh()
    assert key_of(record(0)) in mine.done
    theirs.write(record(2, status="failed"))
    mine.refresh()
    assert key_of(record(2)) in mine.done
    mine.write(record(0))
    mine.write(record(1))
    assert len(read_records(tmp_path)) == 3
    files = [f.read_text().splitlines() for f in sorted((tmp_path / "records").glob("*.jsonl"))]
    assert sorted(map(len, files)) == [1, 2]


def test_the_file_of_a_living_process_is_not_mended(tmp_path):
    living = opened(tmp_path)
    living.write(record(0))
    (file,) = (tmp_path / "records").glob("*.jsonl")
    with file.open("ab") as half:
        half.write(b'{"half')
    opened(tmp_path)
    assert file.read_bytes().endswith(b'{"half')
    living.close()
    with pytest.warns(UserWarning, match="half-written"):
        opened(tmp_path)
    assert file.read_bytes().endswith(b"\n")


def test_a_lock_is_held_by_one_process_and_falls_with_it(tmp_path):
    folder = opened(tmp_path)
    code = f"""
import sys, time
from pathlib import Path
from entrgi_ref.paper.run.folder import RunFolder
with RunFolder(Path({str(tmp_path)!r}), {DECLARATION!r}).lock("batch") as ours:
    print(ours, flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert other.stdout.readline() == "True\n"
    with folder.lock("batch") as ours, folder.lock("another batch") as another:
        assert (ours, another) == (False, True)
    other.kill()
    other.wait()
    with folder.lock("batch") as ours:
        assert ours


def test_who_waits_for_a_lock_waits_for_the_one_that_the_next_asks_for(tmp_path):
    """Neither who lets it go nor who is turned away puts another file in its place."""
    folder = opened(tmp_path)
    with contextlib.ExitStack() as waiting:
        with folder.lock("batch"):
            claims = [waiting.enter_context(f.open()) for f in (tmp_path / "claims").iterdir()]
        for claim in claims:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _ in range(2):
            with folder.lock("batch") as ours:
                assert not ours


def test_locks_may_be_deleted(tmp_path):
    folder = opened(tmp_path)
    shutil.rmtree(tmp_path / "claims")
    with folder.lock("batch") as ours:
        assert ours


def test_a_folder_remembers_what_was_asked_of_it(tmp_path):
    for asked in ({"seeds": [1]}, {"seeds": [1, 2]}, None, {"seeds": [1]}):
        opened(tmp_path, asked=asked).close()
    declared = read_declaration(tmp_path)
    assert declared["asked"] == [{"seeds": [1]}, {"seeds": [1, 2]}]
    assert {name: declared[name] for name in DECLARATION} == DECLARATION
    with pytest.raises(ValueError, match="another run") as error:
        RunFolder(tmp_path, DECLARATION | {"batch_size": 5}, asked={"seeds": [3]})
    assert "asked" not in str(error.value)
    assert read_declaration(tmp_path) == declared


def test_failed_prompts_are_tried_again_if_asked(tmp_path):
    write(tmp_path, record(0, status="failed"), record(1))
    assert len(opened(tmp_path).done) == 2
    folder = opened(tmp_path, retry_failed=True)
    assert folder.done == {key_of(record(1))}
    folder.write(record(0, answers=["now"]))
    assert read_records(tmp_path) == [record(0, answers=["now"]), record(1)]
    folder.refresh()
    assert len(folder.done) == 2
    folder.close()
    # Whatever the names of the files say of their order.
    files = {"failed" in file.read_text(): file for file in (tmp_path / "records").iterdir()}
    for names in (("a", "b"), ("d", "c")):
        for failed, name in zip((True, False), names, strict=True):
            files[failed] = files[failed].rename(tmp_path / "records" / f"{name}.jsonl")
        assert read_records(tmp_path) == [record(0, answers=["now"]), record(1)]


def twins(path, **change):
    """A run with two records of one prompt, in two files."""
    write(path, record(0), record(1))
    (file,) = (path / "records").iterdir()
    other = file.with_name("0.jsonl")
    other.write_bytes(b"".join(map(line_of, (record(2), record(1) | change))))
    return file, other


def test_two_equal_records_of_a_prompt_count_once(tmp_path):
    """Two processes may have computed one batch: what says by whom and how fast may differ."""
    by = {"timing": {"seconds": 1}, "device": "b", "commit": "c", "versions": {"torch": "0"}}
    twins(tmp_path, **by)
    assert [r["idx"] for r in read_records(tmp_path)] == [0, 1, 2]
    assert len(opened(tmp_path).done) == 3
    assert repair(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rewards": [0.5, 2.0]}, "rewards"),
        ({"responses": ["a", "c"]}, "responses"),
        ({"written": written([["a"], ["b"]]), "gold": [1, 2]}, "gold, written"),
    ],
    ids=str,
)
def test_two_different_records_of_a_prompt_are_named_and_repair_takes_both_out(
    tmp_path, change, field
):
    """Nobody knows which one is right, so the run computes it again."""
    file, other = twins(tmp_path, **change)
    reason = f"it is of the prompt of records/{file.name}, line 2, with another {field}"
    for reader in (read_records, read_by_key, opened):
        with pytest.raises(ValueError, match=re.escape(f"out: {other}, line 2: {reason}; python")):
            reader(tmp_path)
    said = repair(tmp_path)
    reason = f"it is of the prompt of records/0.jsonl, line 2, with another {field}"
    assert f"records/{file.name}, line 2: {reason}" in said
    assert len(said) == 2
    assert [r["idx"] for r in read_records(tmp_path)] == [0, 2]
    write(tmp_path, record(1))
    assert [r["idx"] for r in read_records(tmp_path)] == [0, 1, 2]


def test_of_two_failures_the_last_counts_and_of_two_answers_the_first(tmp_path):
    failed = {"status": "failed", "responses": [], "rewards": []}
    lines = [
        record(0) | failed | {"reason": "first"},
        record(0) | failed | {"reason": "last"},
        record(1) | {"device": "first"},
        record(1) | {"device": "last"},
    ]
    write(tmp_path, *lines[:1], *lines[2:3])
    (file,) = (tmp_path / "records").iterdir()
    own = {"fingerprint": json.loads(file.read_text().splitlines()[0])["fingerprint"]}
    file.write_text("".join(json.dumps(line | own) + "\n" for line in lines))
    failure, answer = read_records(tmp_path)
    assert (failure["reason"], answer["device"]) == ("last", "first")


def test_what_has_failed_is_no_other_record_of_a_prompt(tmp_path):
    twins(tmp_path, status="failed", responses=[], rewards=[])
    assert [r["status"] for r in read_records(tmp_path)] == ["ok"] * 3
    assert repair(tmp_path) == []


WIDER = errors() | {"histogram": errors()["histogram"] | {"error_edges": [0, 1, 3.5]}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": "x"}, "its prompt is another text than that of other records with its"),
        ({"errors": WIDER}, "its errors.histogram has other edges than those of other records"),
    ],
    ids=["prompt", "edges"],
)
def test_a_record_that_says_what_the_others_do_not_is_named_and_taken_out(tmp_path, change, reason):
    """Whichever is read first: what most records say is right."""
    same = {"experiment": "error-by-step", "errors": errors()}
    others = [record(0, method=method, **same) for method in ("aps", "entrgi")]
    write(tmp_path, record(0, **same) | change, *others)
    (file,) = (tmp_path / "records").iterdir()
    for reader in (read_records, read_by_key, opened):
        with pytest.raises(ValueError, match=re.escape(f"out: {file}, line 1: {reason}")):
            reader(tmp_path)
    assert [said.partition(": ")[0] for said in repair(tmp_path)] == [
        f"records/{file.name}, line 1"
    ]
    assert read_records(tmp_path) == others


def test_of_two_records_that_say_unlike_things_none_is_right(tmp_path):
    write(tmp_path, record(0), record(0, method="aps", prompt="x"), record(1))
    with pytest.raises(ValueError, match="line 1: its prompt is another text than"):
        read_records(tmp_path)
    assert len(repair(tmp_path)) == 2
    assert read_records(tmp_path) == [record(1)]


def test_another_seed_may_have_other_prompts(tmp_path):
    write(tmp_path, record(0), record(0, seed=2, prompt="x"))
    assert len(read_records(tmp_path)) == 2


def test_edges_that_are_off_by_their_last_digits_are_the_same(tmp_path):
    """The norms that they are made of are summed in another order on another device."""
    edges = {"error_edges": [0, 1 + 1e-7, 2.5 - 1e-7]}
    off = errors() | {"histogram": errors()["histogram"] | edges}
    both = [record(i, experiment="error-by-step", errors=e) for i, e in enumerate((errors(), off))]
    write(tmp_path, *both)
    assert read_records(tmp_path) == both


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"benchmark": "c"}, "its benchmark is 'c', none of the run's"),
        ({"idx": 2}, "its idx is 2, expected one below 2: as many were asked for"),
    ],
    ids=["benchmark", "idx"],
)
def test_what_the_run_was_not_asked_for_is_named_and_repair_takes_it_out(tmp_path, change, reason):
    own = {"fingerprint": fingerprint(CONTENTS)}
    RunFolder(tmp_path, CONTENTS, asked=ASKED).close()
    file = tmp_path / "records" / "a.jsonl"
    lines = (record(1, **own), record(0, **own) | change)
    file.write_bytes(b"".join(map(line_of, lines)))
    for reader in (read_records, read_by_key, lambda path: RunFolder(path, CONTENTS)):
        with pytest.raises(ValueError, match=re.escape(f"out: {file}, line 2: {reason}")):
            reader(tmp_path)
    assert repair(tmp_path) == [f"records/a.jsonl, line 2: {reason}"]
    assert read_records(tmp_path) == [record(1, **own)]


def test_what_another_process_was_asked_for_is_of_the_run(tmp_path):
    """It declares that before it writes, and a run asked for fewer prompts keeps those it has."""
    own = {"fingerprint": fingerprint(CONTENTS)}
    mine = RunFolder(tmp_path, CONTENTS, asked=ASKED)
    theirs = RunFolder(tmp_path, CONTENTS, asked=ASKED | {"prompts": {"b": 3}})
    theirs.write(record(2, **own))
    mine.refresh()
    assert key_of(record(2)) in mine.done
    RunFolder(tmp_path, CONTENTS, asked=ASKED | {"prompts": {"b": 1}}).close()
    assert read_records(tmp_path) == [record(2, **own)]


def test_a_run_goes_on_while_another_process_writes_the_same_prompt(tmp_path):
    folder = opened(tmp_path)
    twins(tmp_path, rewards=[0.5, 2.0])
    folder.refresh()
    folder.write(record(3))
    assert len(folder.done) == 4


def test_a_full_disk_is_one_clear_error_and_what_was_written_stays(tmp_path):
    """A limit on the size of files stands for the disk."""
    folder, before = opened(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        for idx in range(9):
            folder.write(record(0) | {"idx": idx})

    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))  # python ignores the signal
    try:
        with pytest.raises(ValueError, match=r"cannot write to (.|\n)*goes on from there"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        folder.close()
    with pytest.warns(UserWarning, match="half-written"):
        found = read_records(tmp_path)
    fit = 1500 // len(json.dumps(record(0)) + "\n")
    assert [r["idx"] for r in found] == list(range(fit))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_a_lock_or_in_a_repair_is_one_clear_error(
    tmp_path, monkeypatch, number
):
    folder = opened(tmp_path)
    (tmp_path / "records" / "a.jsonl").write_bytes(b"garbage\n")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    message = rf"^out: cannot write to {tmp_path}: .*{os.strerror(number)}.* goes on from there$"
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(ValueError, match=message), folder.lock("batch"):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(ValueError, match=message):
            repair(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        patch.setattr(os, "unlink", fail)
        with pytest.raises(ValueError, match=r"^out: cannot write .*run\.json: "):
            opened(tmp_path, asked={"seeds": [1]})


def folders_fail(patch, number):
    """As they are synced, by an error of the system."""
    sync = os.fsync

    def fail(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    patch.setattr(os, "fsync", fail)


def test_a_record_whose_file_may_have_no_name_does_not_count(tmp_path, monkeypatch):
    """The disk breaks as the folder is synced; the next record tries again."""
    folder = opened(tmp_path)
    for _ in range(2):
        with monkeypatch.context() as patch:
            folders_fail(patch, errno.EIO)
            with pytest.raises(ValueError, match=rf"{os.strerror(errno.EIO)}.*goes on from there$"):
                folder.write(record(0))
        assert not folder.done
    folder.write(record(0))
    assert read_records(tmp_path) == [record(0)]


def test_a_file_system_that_does_not_sync_folders_is_none_that_is_broken(tmp_path, monkeypatch):
    folder = opened(tmp_path)
    folders_fail(monkeypatch, errno.EINVAL)
    folder.write(record(0))
    assert read_records(tmp_path) == [record(0)]


def test_what_is_raised_under_a_lock_is_not_said_of_the_disk(tmp_path):
    folder = opened(tmp_path)
    with pytest.raises(FileNotFoundError), folder.lock("batch"):
        (tmp_path / "nowhere").read_bytes()


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out: cannot write to .*file"):
        opened(tmp_path / "file")
    with pytest.raises(ValueError, match="is no run folder"):
        read_records(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        read_declaration(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="has no fingerprint"):
        read_declaration(tmp_path)
    (tmp_path / "run.json").write_text('{"fingerprint": "f", "experiment": "main"}')
    with pytest.raises(ValueError, match=r"damaged: its fingerprint is 'f', but that of its cont"):
        read_experiment(tmp_path)


def test_a_line_that_is_no_record_is_named(tmp_path):
    write(tmp_path, record(0))
    (file,) = (tmp_path / "records").glob("*.jsonl")
    file.write_text('{"idx": 3}\n' + file.read_text())
    with pytest.raises(ValueError, match=rf"{file}, line 1: it has no experiment; .* repair"):
        read_records(tmp_path)


BAD_LINES = [
    (b"garbage", "it is not JSON"),
    (b"\0" * 40, "it is not JSON"),
    (b"\xff\xfe{}", "it is not JSON"),
    (b"[" * 100_000, "it is not JSON"),
    (b"[1, 2]", r"it is \[1, 2\], expected an object"),
    (b'[["idx", 3]]', "expected an object"),
    (b"null", "it is None, expected an object"),
    (b"3", "it is 3, expected an object"),
    (b'{"idx": 3}', "it has no experiment"),
    (json.dumps(record(7) | {"status": "odd"}).encode(), "its status is 'odd'"),
    (json.dumps({k: v for k, v in record(7).items() if k != "status"}).encode(), "no status"),
    (json.dumps(record(7) | {"fingerprint": "other"}).encode(), "of another run"),
    (json.dumps(record(7) | {"rewards": [1.0]}).encode(), "2 responses and 1 rewards"),
    (json.dumps(record(7) | {"rewards": [], "responses": []}).encode(), "0 responses and 0"),
    (
        json.dumps(record(7) | {"rewards": [1.0, math.nan]}).encode(),
        "its rewards.1. is nan, expected a n",
    ),
    (
        json.dumps(record(7) | {"rewards": [1.0, True]}).encode(),
        "its rewards.1. is True, expected a n",
    ),
    (json.dumps(record(7) | {"rewards": "ab"}).encode(), "its rewards is 'ab', expected a list"),
    (
        json.dumps(record(7) | {"responses": ["a", 1]}).encode(),
        "its responses.1. is 1, expected a text",
    ),
    (json.dumps(record(7) | {"gold": [1.0]}).encode(), "gold scores"),
    (
        json.dumps(record(7)).encode()[:-1] + b', "rewards": [9, 9]}',
        "the key 'rewards' stands there twice",
    ),
    (json.dumps(record(7) | {"seed": "1"}).encode(), "its seed is '1'"),
    (json.dumps(record(7) | {"idx": True}).encode(), "its idx is True"),
    (json.dumps(record(7) | {"variant": None}).encode(), "its variant is None"),
    *(
        (json.dumps(record(7) | change).encode(), f"{reason}")
        for change, reason in (
            ({"prompt": 5}, "its prompt is 5, expected a text"),
            ({"variant": {"reward": [1]}}, r"its variant.reward is \[1\], expected a text"),
            ({"variant": {"gradient_steps": "3"}}, "its variant.gradient_steps is '3'"),
            ({"settings": "x"}, "its settings is 'x', expected an object"),
            ({"settings": {}}, "it has no settings.trajectories"),
            ({"versions": []}, r"its versions is \[\], expected an object"),
            ({"versions": {"torch": 2}}, "its versions.torch is 2, expected a text"),
            ({"commit": 1}, "its commit is 1, expected a text"),
            ({"errors": 3}, "its errors is 3, expected an object"),
            ({"errors": {"steps": []}}, "it has no errors.histogram"),
            ({"errors": errors(steps=[{"step": 1}])}, r"it has no errors.steps\[0\].E"),
            ({"errors": errors(counts=[[1, 2.5]])}, r"its errors.*counts\[0\]\[1\] is 2.5"),
            ({"written": {"words": [["a"], ["b"]]}}, "it has no written.steps"),
            (
                {"written": written([["a"], [1]])},
                r"its written.words\[1\]\[0\] is 1, expected a text",
            ),
            ({"written": written([["a"]])}, "written.words are of 1 answers"),
            ({"written": written([["a"], ["b"]], [[0], [1, 2]])}, "as many steps as words"),
            ({"written": written([["a"], ["b"]], [[0], [-1]])}, "steps hold a negative number"),
            ({"errors": errors(counts=[[1]])}, "counts do not fit the edges"),
            ({"errors": errors(counts=[[1, 2]] * 2)}, "counts do not fit the edges"),
            ({"errors": errors() | {"histogram": NO_BIN}}, "its errors.histogram has no bin"),
            ({"errors": errors()}, "it has errors, which main does not observe"),
            ({"experiment": "error-by-step"}, "it has no errors, which error-by-step observes"),
            (
                {"experiment": "error-by-step", "errors": None},
                "it has no errors, which error-by-step observes",
            ),
        )
    ),
]


@pytest.mark.parametrize("line", [line for line, _ in BAD_LINES])
def test_the_quick_question_and_the_slow_one_agree(line):
    """What fits is what `require_fields` lets pass."""
    try:
        found = json.loads(line)
        required.require_fields(found, required.IDENTITY | required.ANSWERS)
    except (ValueError, TypeError, RecursionError):
        fine = False
    else:
        fine = True
    with contextlib.suppress(ValueError, RecursionError):
        assert required._is_answer(json.loads(line)) == fine


def test_what_an_observer_saw_is_accepted(tmp_path):
    write(
        tmp_path,
        record(0, experiment="error-by-step", errors=errors(), written=written([["a"], ["b"]])),
        record(1, errors=None),
    )
    assert len(read_records(tmp_path)) == 2


EXPERIMENT = {
    "experiment": "main",
    "testbed": "dream",
    "denoiser": {"name": "dream"},
    "dtype": "float32",
    "settings": {"guidance": {}},
    "rewards": {"a": {"name": "a"}},
    "main_reward": "a",
    "benchmarks": {"b": "2 prompts"},
    "asked": [{"methods": ["bon"], "variants": [{}], "seeds": [1], "prompts": {"b": 2}}],
    "made_with": [{"commit": "c"}],
}
CONTENTS = {k: v for k, v in EXPERIMENT.items() if k not in ("asked", "made_with")}
(ASKED,) = EXPERIMENT["asked"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"settings": None}, "its settings is None, expected an object"),
        ({"settings": {}}, "it has no settings.guidance"),
        ({"benchmarks": ["b"]}, r"its benchmarks is \['b'\], expected an object"),
        ({"benchmarks": dict.fromkeys(map(str, range(65)), "x")}, "it has 65 benchmarks, expected"),
        ({"rewards": {"a": "a"}}, "its rewards.a is 'a', expected an object"),
        ({"main_reward": "b"}, "its main_reward is 'b'"),
        ({"denoiser": "dream"}, "its denoiser is 'dream', expected an object"),
        ({"dtype": 3}, "its dtype is 3, expected a text"),
        ({"asked": {}}, r"its asked is \{\}, expected a list"),
        ({"asked": [{}]}, r"it has no asked\[0\].methods"),
        ({"made_with": ["c"]}, r"its made_with\[0\] is 'c', expected an object"),
    ],
    ids=str,
)
def test_a_declaration_of_another_form_is_one_line(tmp_path, change, reason):
    contents = EXPERIMENT | change
    own = {k: v for k, v in contents.items() if k not in ("asked", "made_with")}
    written = json.dumps({"fingerprint": fingerprint(own), **contents})
    (tmp_path / "run.json").write_text(written)
    if reason is None:
        assert read_experiment(tmp_path) == json.loads(written)
        return
    for reader in (read_experiment, Run.read):
        with pytest.raises(ValueError, match=rf"is not the run of an experiment: .*{reason}"):
            reader(tmp_path)
    assert re.search(rf"{tmp_path}: cannot be read: .*{reason}", listing([tmp_path]))


def test_a_declaration_that_was_edited_is_damaged(tmp_path):
    """Else the records of one run would go by the settings of another."""
    write(tmp_path, record(0))
    file = tmp_path / "run.json"
    file.write_text(file.read_text().replace("0.95", "0.9"))
    for reader in (read_records, opened):
        with pytest.raises(
            ValueError, match=r"run\.json is damaged: its fingerprint is .*, but that"
        ):
            reader(tmp_path)


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_and_repair_takes_it_out(tmp_path, line, reason):
    write(tmp_path, record(0), record(1))
    (file,) = (tmp_path / "records").glob("*.jsonl")
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + line + b"\n" + second)
    for reader in (read_records, opened):
        with pytest.raises(ValueError, match=rf"{file}, line 2: .*({reason})") as error:
            reader(tmp_path)
        assert f"python -m entrgi_ref.paper repair {tmp_path} takes" in str(error.value)
    (said,) = repair(tmp_path)
    assert re.search(rf"^records/{file.name}, line 2: .*({reason})", said)
    assert read_records(tmp_path) == [record(0), record(1)]
    assert (tmp_path / "dropped" / "records" / file.name).read_bytes() == line + b"\n"
    assert repair(tmp_path) == []
    folder = opened(tmp_path)
    folder.write(record(7))
    folder.close()
    assert len(read_records(tmp_path)) == 3


def test_the_line_of_a_later_reading_is_counted_from_the_start(tmp_path):
    write(tmp_path, record(0), record(1))
    folder = opened(tmp_path)
    (file,) = (tmp_path / "records").glob("*.jsonl")
    with file.open("ab") as lines:
        lines.write(json.dumps(record(2)).encode() + b"\nspoilt\n")
    with pytest.raises(ValueError, match=r"jsonl, line 4: "):
        folder.refresh()


def test_a_carriage_return_or_a_separator_spoils_one_line_only(tmp_path):
    write(tmp_path, record(0), record(1))
    (file,) = (tmp_path / "records").glob("*.jsonl")
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b"x\r\x0b\x0c\x1c\n" + second)
    with pytest.raises(ValueError, match="line 2: "):
        read_records(tmp_path)
    assert len(repair(tmp_path)) == 1
    assert len(read_records(tmp_path)) == 2


LINKED = (
    *("records", "records/z.jsonl", "claims"),
    *("dropped", "dropped/records", "judges", "judges/j"),
)


@pytest.mark.parametrize("name", LINKED)
def test_nothing_is_written_through_a_link_within_a_run(tmp_path, name):
    """The folder of the run itself may be one."""
    (tmp_path / "there").mkdir()
    run, link = tmp_path / "run", tmp_path / "there" / name
    run.symlink_to("there")
    write(run, record(0))
    (file,) = (run / "records").glob("*.jsonl")
    file.write_bytes(b"garbage\n" + file.read_bytes())
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        link.rename(tmp_path / "elsewhere")
    elif name.endswith(".jsonl"):
        (tmp_path / "elsewhere").write_text("my notes")
    else:
        for folder in ("elsewhere/j", "elsewhere"):  # so that a judge is found in either
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "run.json").write_text("{}")
    link.symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    readers = (repair, opened) if name.startswith(("records", "claims")) else (repair,)
    for reader in readers:
        message = f"^out: {re.escape(str(run / name))} is a link, expected a f"
        with pytest.raises(ValueError, match=message):
            reader(run)
    assert contents(tmp_path / "elsewhere") == before


def test_repair_and_locks_write_through_no_link_to_a_file(tmp_path):
    write(tmp_path, record(0))
    (file,) = (tmp_path / "records").glob("*.jsonl")
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes")
    file.with_suffix(".repaired").symlink_to(notes)
    file.write_bytes(b"garbage\n" + file.read_bytes())
    assert len(repair(tmp_path)) == 1
    aside = tmp_path / "dropped" / "records" / file.name
    aside.unlink()
    aside.symlink_to(notes)
    file.write_bytes(b"garbage\n" + file.read_bytes())
    with pytest.raises(ValueError, match=f"^out: {aside} is a link, expected a file of the run"):
        repair(tmp_path)
    assert notes.read_text() == "my notes"
    for claim in (tmp_path / "claims").iterdir():
        claim.unlink()
        claim.symlink_to(tmp_path / "new")
    with pytest.raises(ValueError, match=r"^out: cannot write to .* symbolic links"):
        repair(tmp_path)
    assert not (tmp_path / "new").exists()


def contents(path):
    """All below a path, and what is in it."""
    files = [path, *path.rglob("*")]
    return {file: file.is_file() and file.read_bytes() for file in files}


def test_a_run_that_is_written_to_is_not_repaired(tmp_path):
    folder = opened(tmp_path)
    folder.write(record(0))
    with pytest.raises(ValueError, match=r"a process is still writing to .*repair the run when"):
        repair(tmp_path)
    folder.close()
    assert repair(tmp_path) == []
    with pytest.raises(ValueError, match="is no run folder"):
        repair(tmp_path / "nowhere")


def test_a_judge_that_has_only_begun_is_left_alone(tmp_path):
    """Its folder is there before it says what it is."""
    write(tmp_path, record(0))
    begun = tmp_path / "judges" / "begun" / "records"
    begun.mkdir(parents=True)
    assert repair(tmp_path) == []
    assert begun.is_dir()
    (begun / "a.jsonl").write_text("{}\n")  # of nobody knows which run
    (said,) = repair(tmp_path)
    assert "has no run.json" in said


OTHERS = [{"entrgi_ref": "9.9"}, {"commit": "abc"}, {"torch": "1.0"}, {"transformers": "4"}]


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: next(iter(change)))
def test_other_code_is_refused_unless_allowed(tmp_path, monkeypatch, change):
    write(tmp_path, record(0))
    mine = folders.made_with()
    assert read_declaration(tmp_path)["made_with"] == [mine]
    opened(tmp_path)
    monkeypatch.setattr(folders, "made_with", lambda: mine | change)
    ((name, value),) = change.items()
    message = rf"made with other code \({name} {re.escape(str(mine[name]))} there, {value} here\)"
    with pytest.raises(ValueError, match=rf"{message}.*--other-version"):
        opened(tmp_path)
    write(tmp_path, record(1), other_version=True)
    assert read_declaration(tmp_path)["made_with"] == [mine, mine | change]
    opened(tmp_path)  # it is one of those now
    assert len(read_records(tmp_path)) == 2


def test_records_say_what_made_them_where_the_declaration_does_not(tmp_path, monkeypatch):
    """A run.json from before it was written down must not let other code in unasked."""
    mine = folders.made_with()
    versions = {name: version for name, version in mine.items() if name != "commit"}
    theirs = {"commit": "abc", "versions": {**versions, "python": "3.9"}}
    write(tmp_path, record(0, **theirs))
    file = tmp_path / "run.json"
    declaration = json.loads(file.read_text())
    del declaration["made_with"]
    file.write_text(json.dumps(declaration))
    with pytest.raises(
        ValueError, match=rf"other code \(commit abc there, {mine['commit']} here\)"
    ):
        opened(tmp_path)
    opened(tmp_path, other_version=True)
    assert read_declaration(tmp_path)["made_with"] == [versions | {"commit": "abc"}, mine]


@pytest.mark.slow
def test_a_changed_checkout_says_by_which_code(tmp_path):
    """Two changes of one commit are not the same code."""
    copy = tmp_path / "clone"
    shutil.copytree(ROOT / "entrgi_ref", copy / "entrgi_ref")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "ours"]):
        subprocess.run(["git", "-C", str(copy), *author, *words], check=True)
    code = """
from pathlib import Path
from entrgi_ref.commands.provenance import commit
changed = Path("entrgi_ref/draws.py")
there = changed.read_text()
for text in ("", "# one\\n", "# two\\n"):
    changed.write_text(there + text)
    commit.cache_clear()
    print(commit())
"""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=copy)
    clean, *seen = done.stdout.split()
    assert re.fullmatch("[0-9a-f]{12}", clean)
    for found in seen:
        assert re.fullmatch(f"{clean}-dirty-[0-9a-f]{{8}}", found)
    assert len(set(seen)) == 2


def test_a_package_in_somebodys_repository_is_no_checkout(tmp_path, monkeypatch):
    """What git would describe is that repository, not this package, until it is a part of it."""
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]

    def git(*words):
        return subprocess.check_output(["git", "-C", str(tmp_path), *author, *words], text=True)

    file = tmp_path / "site" / "provenance.py"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setattr(provenance, "__file__", str(file))
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    assert provenance.commit.__wrapped__() == "unknown"
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert provenance.commit.__wrapped__() == git("rev-parse", "--short=12", "HEAD").strip()


# What is written where, and what is said, to the letter


def test_fingerprints_and_names_of_locks_are_those_of_earlier_versions(tmp_path):
    """Else a folder that was made by them would be another run, or be written to by two."""
    assert fingerprint({"b": 1, "a": {"d": None, "c": "é"}}) == "fd991a5929625ee4"
    with opened(tmp_path).lock("batch"):
        assert (tmp_path / "claims" / "6b6a20559f24bd4a14c780ee").is_file()


def test_a_declaration_is_written_for_people_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "made_with", lambda: {"commit": "c"})
    path, declaration = tmp_path / "new" / "run", {"experiment": "é", "settings": {"top_p": 1}}
    RunFolder(path, declaration, asked={"seeds": [1]})
    assert (
        (path / "run.json").read_text(encoding="utf-8")
        == f"""{{
 "fingerprint": "{fingerprint(declaration)}",
 "experiment": "é",
 "settings": {{
  "top_p": 1
 }},
 "asked": [
  {{
   "seeds": [
    1
   ]
  }}
 ],
 "made_with": [
  {{
   "commit": "c"
  }}
 ]
}}
"""
    )
    inode = (path / "run.json").stat().st_ino
    RunFolder(path, declaration, asked={"seeds": [1]})
    RunFolder(path, declaration)
    assert (path / "run.json").stat().st_ino == inode  # nothing new: not written again


def test_who_may_write_the_files_of_a_run_is_by_the_umask(tmp_path):
    before = os.umask(0)
    try:
        write(tmp_path, record(0))
    finally:
        os.umask(before)
    (file,) = (tmp_path / "records").iterdir()
    (claim,) = (tmp_path / "claims").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (file, claim)] == [0o666, 0o666]


def test_lines_end_where_json_lines_do(tmp_path):
    for data, start, expected in (
        (b"a\n\nb", 0, [(1, b"a", True), (2, b"", True), (3, b"b", False)]),
        (b"a\n\nb", 2, [(1, b"", True), (2, b"b", False)]),
        (b"a\r\x0b\n", 0, [(1, b"a\r\x0b", True)]),
        (b"\n", 0, [(1, b"", True)]),
        (b"", 0, []),
    ):
        (tmp_path / "a").write_bytes(data)
        assert list(lines_of(tmp_path / "a", start)) == expected
    assert line_of({"é": 1}) == b'{"\\u00e9": 1}\n'


def test_of_all_requests_that_for_the_most_prompts_counts():
    """Whichever came last."""
    cells = {"methods": ["bon"], "variants": [{}], "seeds": [1]}
    for counts in ((2, 5), (5, 2)):
        asked = [{**cells, "prompts": {"b": count}} for count in counts]
        assert required.asked_of({"asked": asked}) == {("b", "bon", "{}", 1): 5}


def test_the_best_answer_is_the_first_of_the_largest_reward():
    assert [best({"rewards": rewards}) for rewards in ([1.0], [0, 2, 2], [-1, -3])] == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", r" \(Expecting property name .*\)"),
        ("null", r" \(it is None, expected an object\)"),
        ('[["a", 1]]', r" \(it is \[\['a', 1\]\], expected an object\)"),
        ("[" * 100_000, r" \(.*\)"),
        (f'{{"fingerprint": "{"x" * 2**24}"}}', r" \(it has more than 16777216 bytes\)"),
        ('{"fingerprint": 5}', r" \(it has no fingerprint\)"),
        ('{"a": {"b": 1, "b": 2}}', r" \(the key 'b' stands there twice\)"),
        (
            '{"a": 1, "fingerprint": "f"}',
            ": its fingerprint is 'f', but that of its contents is '165b44bb3d3e0923'",
        ),
    ],
    ids=["text", "null", "pairs", "deep", "large", "none", "twice", "other"],
)
def test_a_declaration_that_cannot_be_read_is_damaged(tmp_path, text, reason):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=rf"^out: {tmp_path}/run\.json is damaged{reason}$"):
        declared(tmp_path / "run.json")


def test_the_error_of_a_bad_line_says_how_to_go_on():
    said = str(bad_line(Path("out/records/a.jsonl"), 3, "why"))
    assert said == (
        "out: out/records/a.jsonl, line 3: why; python -m entrgi_ref.paper repair out takes such "
        "lines out, and the command of the run computes them again"
    )
    said = str(bad_line(Path("out/judges/j/records/a.jsonl"), 3, "why"))
    assert said == (
        "out: out/judges/j/records/a.jsonl, line 3: why; python -m entrgi_ref.paper repair out "
        "takes such lines out, and the command `judge` computes them again"
    )


def test_a_half_written_line_is_said_of_whoever_reads(tmp_path):
    """And the files after it are read."""
    write(tmp_path, record(0))
    write(tmp_path, record(1))
    first, _ = sorted((tmp_path / "records").iterdir())
    idx = json.loads(first.read_text())["idx"]
    first.write_text(first.read_text() + '{"half')
    with pytest.warns(UserWarning, match=f"^{first}: left out a half-written last line$") as found:
        read_by_key(tmp_path)
    assert [warning.filename for warning in found] == [__file__]
    first.write_text('{"half')
    with pytest.warns(UserWarning, match="half-written"):
        assert [r["idx"] for r in read_by_key(tmp_path).values()] == [1 - idx]


def declare(folder, contents):
    folder.mkdir(parents=True)
    written = {"fingerprint": fingerprint(contents), **contents}
    (folder / "run.json").write_text(json.dumps(written))


JUDGE = {"run": "f", "backend": "b", "model": {"name": "m"}, "unit_tests": []}


def test_two_runs_differ_in_these_fields(tmp_path):
    there = {"a": {"b": 1, "c": 2}, "d": {"e": 1}, "f": 1}
    here = {"a": {"b": 1, "c": 3}, "d": "x", "f": 1, "g": {"h": 1}}
    assert list(differences(there, here)) == [
        ("a.c", 2, 3),
        ("d", {"e": 1}, "x"),
        ("g", None, {"h": 1}),
    ]
    assert list(differences(1, 1)) == []
    RunFolder(tmp_path, there, asked={"seeds": [1]})
    require_same(tmp_path, there)
    message = (
        f"out: {tmp_path} holds another run (a.c: 2 there, 3 here; d: {{'e': 1}} there, 'x' here; "
        "g: None there, {'h': 1} here); give another folder, or the settings of that run"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_same(tmp_path, here)


def test_what_would_be_refused_is_known_without_opening_the_folder(tmp_path):
    options = {"other_version": False, "require": required.require_answers}
    folders.require_resumable(tmp_path, DECLARATION, **options)
    assert not any(tmp_path.iterdir())
    write(tmp_path, record(0))
    folders.require_resumable(tmp_path, DECLARATION, **options)
    with pytest.raises(ValueError, match="holds another run"):
        folders.require_resumable(tmp_path, {}, **options)
    (file,) = (tmp_path / "records").iterdir()
    file.write_text("spoilt\n")
    with pytest.raises(ValueError, match=r"jsonl, line 1: it is not JSON"):
        folders.require_resumable(tmp_path, DECLARATION, **options)


def test_other_code_is_told_from_who_wrote_last(tmp_path, monkeypatch):
    for commit in ("a", "b"):
        monkeypatch.setattr(folders, "made_with", lambda commit=commit: {"commit": commit})
        opened(tmp_path, other_version=True)
    monkeypatch.setattr(folders, "made_with", lambda: {"commit": "a"})
    opened(tmp_path)  # it was allowed once, and both go on
    monkeypatch.setattr(folders, "made_with", lambda: {"commit": "c", "torch": "3"})
    message = (
        f"out: {tmp_path} was made with other code (commit b there, c here; torch None there, 3 "
        "here); go on with that, or allow records of both by --other-version"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        opened(tmp_path)
    declare(tmp_path / "old", {"a": 1})
    RunFolder(tmp_path / "old", {"a": 1})  # nobody knows what made it, and it has no records


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"3", b"{}", b'{"versions": "x"}', b"[" * 100_000],
    ids=["text", "number", "empty", "versions", "deep"],
)
def test_who_made_a_run_is_read_past_lines_that_say_nothing_of_it(tmp_path, line):
    (tmp_path / "records").mkdir(parents=True)
    one = {"commit": "c", "versions": {"torch": "1", "python": "3"}}
    lines = [line, *(json.dumps(made).encode() for made in (one, one, {"versions": {}}))]
    (tmp_path / "records" / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    found = folders._makers(tmp_path, {"fingerprint": "f"})
    assert found == [{"commit": "c", "torch": "1"}, {"commit": "unknown"}]
    assert folders._makers(tmp_path, {"made_with": [{"commit": "d"}]}) == [{"commit": "d"}]
    assert folders._makers(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("change", "how"),
    [({}, None), ({"source": "2"}, "has changed"), ({"module": "b", "source": "2"}, "was a:half")],
    ids=str,
)
def test_a_weight_function_of_yours_stays_what_it_was(tmp_path, change, how):
    own = {"module": "a", "function": "half", "source": "1"}
    there, here = ({"own_weights": {"half": each}} for each in (own, own | change))
    opened(tmp_path, asked=there)
    if how is None:
        opened(tmp_path, asked=here)
        return
    message = (
        f"out: {tmp_path} has answers of half, which {how} since (source 1 there, 2 here); rename "
        "the function, or give another folder"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        opened(tmp_path, asked=here)
    opened(tmp_path, asked={"own_weights": {"other": own | change}})


def test_a_weight_function_of_a_later_request_stays_what_it_was(tmp_path):
    """A folder may have been given it beside methods that it had before."""
    own = {"module": "a", "function": "half", "source": "1"}
    for asked in ({"seeds": [1]}, {"own_weights": {"half": own}}, {"seeds": [1, 2]}):
        opened(tmp_path, asked=asked)
    with pytest.raises(ValueError, match=r"source 1 there, 2 here"):
        opened(tmp_path, asked={"own_weights": {"half": own | {"source": "2"}}})


def test_a_judge_of_another_run_is_taken_out_under_a_name_of_its_own(tmp_path):
    """However often, and whatever comes before it."""
    write(tmp_path, record(0))
    run = read_declaration(tmp_path)["fingerprint"]
    (tmp_path / "judges" / "a" / "records").mkdir(parents=True)  # it has only just begun
    declare(tmp_path / "judges" / "mine", {**JUDGE, "run": run})
    assert read_judge(tmp_path / "judges" / "mine", run)["backend"] == "b"
    for _ in range(3):
        declare(tmp_path / "judges" / "z", JUDGE)
        reason = f"it has judged another run, 'f' instead of {run!r}"
        message = (
            f"out: {tmp_path}/judges/z holds no judgements of this run ({reason}); python -m "
            f"entrgi_ref.paper repair {tmp_path} takes it out"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read_judge(tmp_path / "judges" / "z", run)
        assert repair(tmp_path) == [f"judges/z: {reason}"]
    assert judges_of(tmp_path) == [tmp_path / "judges" / "mine"]
    names = sorted(path.name for path in (tmp_path / "dropped" / "judges").iterdir())
    assert names == ["z", "z-1", "z-2"]
    assert list(earlier_layout(tmp_path)) == []
    (tmp_path / "judge").mkdir()
    assert list(earlier_layout(tmp_path)) == [
        f"{tmp_path}/judge holds judgements in an earlier layout, which are not read."
    ]


def test_a_judgement_is_of_the_best_answer_if_there_is_one():
    identity = {name: record(0)[name] for name in list(record(0))[:5]}
    judged = {"prompt": "", "status": "ok", "fingerprint": "f", "idx": 0, "response": "a"}
    judged |= {**identity, "scores": [1.0], "score": 1.0, "without_digit": 0}
    failed = record(1, status="failed", responses=[], rewards=[])
    passes = of_best([record(0), failed])
    passes(judged)
    passes(judged | {"idx": 1})
    with pytest.raises(ValueError, match=r"^it judges another answer than the best of the run$"):
        passes(judged | {"response": "b"})
    with pytest.raises(ValueError, match=r"^its score is None, expected a number$"):
        passes(judged | {"score": None})


def test_of_judgements_those_of_another_answer_are_taken_out(tmp_path):
    """Into the run's folder, where all else is that was taken out."""
    write(tmp_path, record(0), record(1))
    contents = {**JUDGE, "run": read_declaration(tmp_path)["fingerprint"]}
    declare(tmp_path / "judges" / "mine", contents)
    judged = {name: record(0)[name] for name in ("experiment", "benchmark", "method", "variant")}
    judged |= {"seed": 1, "status": "ok", "fingerprint": fingerprint(contents), "prompt": ""}
    judged |= {"scores": [1.0], "score": 1.0, "without_digit": 0}
    lines = [json.dumps(judged | {"idx": i, "response": r}) + "\n" for i, r in enumerate("ab")]
    file = Path("judges", "mine", "records", "1.jsonl")
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text("".join(lines))
    reason = "it judges another answer than the best of the run"
    assert repair(tmp_path) == [f"{file}, line 2: {reason}"]
    assert (tmp_path / file).read_text() == lines[0]
    assert (tmp_path / "dropped" / file).read_text() == lines[1]


def test_lines_that_are_taken_out_later_join_those_before(tmp_path):
    write(tmp_path, record(0))
    (file,) = (tmp_path / "records").iterdir()
    for text in (b"one", b"two"):
        file.write_bytes(text + b"\n" + file.read_bytes())
        said = [f"records/{file.name}, line 1: it is not JSON (JSONDecodeError)"]
        assert repair(tmp_path) == said
    assert (tmp_path / "dropped" / "records" / file.name).read_bytes() == b"one\ntwo\n"
    assert read_records(tmp_path) == [record(0)]
    assert [path.name for path in (tmp_path / "records").iterdir()] == [file.name]
