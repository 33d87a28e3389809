"""Run folders that somebody edited: each command that reads them, on each field."""

import copy
import hashlib
import json
import os
import re
import shutil

import pytest
from paper_runs import tiny_run

from checkpoints import DREAM, REWARD
from corpus import VALUES, command, tree
from entrgi_ref.paper.__main__ import main
from entrgi_ref.paper.run.records import fingerprint, of_run, read_records
from entrgi_ref.paper.run.required import require_experiment, require_judge, require_own
from entrgi_ref.paper.shown import figures
from entrgi_ref.paper.shown.tables import Table

LOCK = f"claims/{hashlib.blake2b(b'declaration', digest_size=12).hexdigest()}"
COMMANDS = ("list", "report", "browse", "export", "repair")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The declaration of a run, and its records."""
    folder = tmp_path_factory.mktemp("made")
    tiny_run(folder, asked=True, prompts=2)
    lines = [line for file in folder.glob("records/*") for line in file.read_text().splitlines()]
    return json.loads((folder / "run.json").read_text()), [json.loads(line) for line in lines]


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda *_: [])


def write(folder, declaration, records):
    """A run whose fingerprints fit, whatever is in it."""
    contents = {k: v for k, v in declaration.items() if k not in ("asked", "made_with")}
    contents.pop("fingerprint", None)
    own = fingerprint(contents)
    (folder / "records").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**declaration, "fingerprint": own}))
    lines = [json.dumps({**record, "fingerprint": own}) + "\n" for record in records]
    (folder / "records" / "a.jsonl").write_text("".join(lines))
    return folder


def read_by_all(folder, commands=COMMANDS):
    """Each command ends well or with one line, and writes nothing outside of the run."""
    before = tree(folder.parent)
    for name in commands:
        command(main, name, folder)
    new = tree(folder.parent) - before
    assert all(path.is_relative_to(folder) for path in new), new


def places(value, path=()):
    """All places in JSON, by their fields."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:1])
        if isinstance(value, list)
        else ()
    )
    for name, one in inner:
        yield from places(one, (*path, name))


def put(value, path, new):
    changed = copy.deepcopy(value)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = new
    return changed


SOME = (None, -1, int("9" * 400), float("nan"), 1e308, "../../evil", "\ud800", [1], {"a": 1})
"""Of the values, in the usual run."""


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.deep)])
@pytest.mark.parametrize("part", ["run.json", "records"])
def test_any_value_in_any_field(part, everything, made, tmp_path, without_figures):
    declaration, records = made
    edited = declaration if part == "run.json" else records[0]
    paths = [path for path in places(edited) if path[0] != "fingerprint"]
    values = VALUES if everything else SOME
    for i, path in enumerate(paths):
        for j, value in enumerate(values):
            # One value each, another for each place, and of a third of the places.
            if not everything and (i % 3 or (i // 3 + j) % len(values)):
                continue
            folder = tmp_path / f"{i}-{j}" / "run"
            if part == "run.json":
                write(folder, put(declaration, path, value), records)
            else:
                write(folder, declaration, [put(record, path, value) for record in records])
            read_by_all(folder, COMMANDS if everything else ("report", "export"))


@pytest.mark.parametrize("own", [*SOME, {"mine": {}}, {"mine": {"module": "x", "function": 5}}])
def test_own_weights_that_are_none_are_refused(own, made):
    """Of a run and of a judge: what is asked for next is compared with them."""
    declaration, _ = made
    judge = {"run": "x", "backend": "x", "model": {"name": "x"}, "unit_tests": ["x"]}
    request = {**declaration["asked"][0], "own_weights": own}
    for value in ([request], own):
        if value is not None:
            with pytest.raises(ValueError, match="asked"):
                require_judge({**judge, "asked": value})
            with pytest.raises(ValueError, match="asked"):
                require_experiment({**declaration, "asked": value})


IDENTITY = ("experiment", "benchmark", "method", "variant", "seed", "idx", "prompt")


@pytest.mark.parametrize("field", IDENTITY)
def test_any_value_in_what_a_record_is_of(field, made, tmp_path, without_figures):
    declaration, records = made
    for j, value in enumerate(SOME):
        folder = tmp_path / str(j) / "run"
        write(folder, declaration, [{**record, field: value} for record in records])
        read_by_all(folder, ("report", "export"))


def test_no_file_is_written_outside_by_a_name(made, tmp_path, without_figures):
    declaration, records = made
    for name in ("../../evil", "/nowhere/evil", "a/b", "..", ".", ""):
        folder = tmp_path / f"{len(tree(tmp_path))}" / "run"
        new = [{**record, "benchmark": name} for record in records]
        write(folder, {**declaration, "benchmarks": {name: "x"}}, new)
        read_by_all(folder)
        code, _, error = command(main, "export", folder)
        assert (code, "expected a name without /" in error) == (
            (0, False) if name in (".", "..") else (2, True)
        )


@pytest.mark.parametrize("name", ["report", "export"])
def test_no_file_is_written_outside_by_a_link(name, made, tmp_path, without_figures):
    """But where `--to` says so."""
    folder = write(tmp_path / "in" / "run", *made)
    (tmp_path / "elsewhere").mkdir()
    (folder / name).symlink_to(tmp_path / "elsewhere")
    code, _, error = command(main, name, folder)
    assert (code, f"{name} is a link, expected a folder of the run" in error) == (2, True)
    assert not tree(tmp_path / "elsewhere")
    assert command(main, name, folder, "--to", folder / name)[0] == 0
    assert tree(tmp_path / "elsewhere")


def edited(record, **changes):
    """A record with other values, of its settings and their guidance too."""
    record = copy.deepcopy(record)
    for name, value in changes.items():
        inner = record
        *to, last = name.split("__")
        for one in to:
            inner = inner[one]
        inner[last] = value
    return record


EDITS = {
    "its top_p is 0.5, but that of the run 0.95": {"settings__top_p": 0.5},
    "its order is 'origin', but that of the run 'entropy'": {"settings__order": "origin"},
    "its temperature is 7, but that of the run 0.7": {"settings__temperature": 7},
    "its settings.seed is 2, expected 1": {"settings__seed": 2},
    "its guidance.steps is 2, expected 1": {"settings__guidance__steps": 2},
    "its guidance.weight is 'aps', expected 'entrgi'": {"settings__guidance__weight": "aps"},
    "its guidance.optimiser is 'sgd', expected 'adam'": {"settings__guidance__optimiser": "sgd"},
    "its guidance.dtype is 'float32', expected 'float64'": {"settings__guidance__dtype": "float32"},
    "its guidance.step_size is 0.25, expected 0.5": {"settings__guidance__step_size": 0.25},
    "its rewards[0] is 1e+300, expected a number between -1e100 and 1e100": {
        "rewards": [1e300, 1.0]
    },
    f"its idx is {10**20}, expected an integer between -(2^63 - 1) and (2^63 - 1)": {"idx": 10**20},
    "its method is 'aps', none that was asked for": {
        "method": "aps",
        "settings__guidance__weight": "aps",
    },
    "its settings.seed is 1, expected 2": {"seed": 2},
}


@pytest.mark.parametrize("reason", EDITS)
def test_a_line_that_was_edited_is_one_to_nobody_and_computed_again(
    reason, made, tmp_path, without_figures
):
    declaration, records = made
    ours = next(i for i, record in enumerate(records) if record["method"] == "entrgi")
    records = [edited(r, **EDITS[reason]) if i == ours else r for i, r in enumerate(records)]
    folder = write(tmp_path / "run", declaration, records)
    file = folder / "records" / "a.jsonl"
    expected = f"out: {file}, line {ours + 1}: {reason}; python -m entrgi_ref.paper repair {folder}"
    for one in ("report", "browse", "export", "judge"):
        code, _, error = command(main, one, folder)
        assert (code, error[: len(expected) + 7]) == (2, f"error: {expected}"), one
    assert expected in command(main, "list", folder)[1]
    with pytest.raises(ValueError, match=re.escape(expected)):
        tiny_run(folder, asked=True, prompts=2)
    assert f"records/a.jsonl, line {ours + 1}: {reason}\n" in command(main, "repair", folder)[1]
    tiny_run(folder, asked=True, prompts=2)
    assert command(main, "report", folder)[0] == 0
    assert len(read_records(folder)) == 4


def test_who_knows_the_prompts_looks_at_the_settings_too(made, tmp_path):
    declaration, records = made
    require = of_run(write(tmp_path / "run", declaration, records), lambda record: record["prompt"])
    require(records[0])
    with pytest.raises(ValueError, match="its temperature is 7, but that of the run"):
        require(edited(records[0], settings__temperature=7))


@pytest.mark.parametrize("method", ["bon", "smc"])
def test_the_weight_of_a_method_without_guidance_is_the_runs(method, made, tmp_path):
    declaration, records = made
    weight = declaration["settings"]["guidance"]["weight"]
    record = edited(records[0], method=method, settings__guidance__steps=0)
    record = edited(record, settings__guidance__weight=weight)
    require_own(declaration, record)
    with pytest.raises(ValueError, match=f"its guidance.weight is 'aps', expected {weight!r}"):
        require_own(declaration, edited(record, settings__guidance__weight="aps"))


def test_methods_under_each_others_names_are_refused(tmp_path):
    tiny_run(tmp_path, asked=True, prompts=2, methods=["expectation", "entrgi"])
    (file,) = tmp_path.glob("records/*")
    other = {"expectation": "entrgi", "entrgi": "expectation"}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [{**line, "method": other[line["method"]]} for line in lines]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"line 1: its guidance\.weight is '[a-z]*', expected '"):
        read_records(tmp_path)


RUNS = {
    "another": {"settings": {"guidance": {}}},
    "of other methods": {"asked": {"methods": ["aps"]}},
}


@pytest.mark.parametrize("damaged", [b"", b"{half a line\n"])
@pytest.mark.parametrize("name", RUNS)
def test_a_declaration_that_no_record_fits_is_to_blame(
    name, damaged, made, tmp_path, without_figures
):
    declaration, records = made
    folder = write(tmp_path / "in" / "run", declaration, records)
    change = dict(RUNS[name])
    if "asked" in change:
        change["asked"] = [{**declaration["asked"][0], **change["asked"]}]
    write(tmp_path / "other", {**declaration, **change}, [])
    shutil.copy(tmp_path / "other" / "run.json", folder / "run.json")
    before = damaged + (folder / "records" / "a.jsonl").read_bytes()
    (folder / "records" / "a.jsonl").write_bytes(before)
    for one in ("report", "browse", "export", "repair"):
        code, _, error = command(main, one, folder)
        expected = f"error: out: {folder / 'run.json'} is that of another run: no record fits it; "
        assert (code, error[: len(expected)]) == (2, expected), one
    assert (folder / "records" / "a.jsonl").read_bytes() == before


@pytest.mark.parametrize("count", [0, -1])
def test_a_run_was_asked_for_a_prompt_or_more(count, made, tmp_path, without_figures):
    declaration, records = made
    asked = [{**declaration["asked"][0], "prompts": {"digits": count}}]
    folder = write(tmp_path / "in" / "run", {**declaration, "asked": asked}, records)
    for one in ("report", "browse", "export", "repair"):
        code, _, error = command(main, one, folder)
        reason = f"its asked[0].prompts.digits is {count}, expected 1 or more"
        assert (code, "run.json" in error, reason in error) == (2, True, True), (one, error)


def begin(folder, tmp_path, *more, act="run"):
    """A run, or the same again, on the tiny checkpoints."""
    (tmp_path / "b.jsonl").write_text('{"prompt": "hello"}\n{"prompt": "bye"}\n')
    small = ("--new-tokens", 2, "--denoising-steps", 2, "--trajectories", 1, "--prompts", 2)
    networks = ("--dream", DREAM, "--reward", REWARD, "--device", "cpu", "--seeds", 1)
    return command(
        *(main, act, "main", *networks, *small, "--methods", "bon", "--out", folder),
        *("--benchmark", tmp_path / "b.jsonl", *more),
    )


PROMPTS = {
    "another text": lambda records: [{**r, "prompt": r["prompt"] + "!"} for r in records],
    "another index": lambda records: [{**r, "idx": 1 - r["idx"]} for r in records],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_records_of_other_prompts_are_none_that_are_done(name, tmp_path):
    folder = tmp_path / "run"
    assert begin(folder, tmp_path)[0] == 0
    (file,) = folder.glob("records/*")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    edited_lines = PROMPTS[name](lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in edited_lines))
    reason = f"its prompt is {edited_lines[0]['prompt']!r}, expected "
    for act in ("run", "plan"):
        code, _, error = begin(folder, tmp_path, act=act)
        assert code == 2
        assert error.startswith(f"error: out: {file}, line 1: {reason}")
        assert error.endswith("; delete the line or move the file elsewhere, and run it again")
    file.rename(tmp_path / "aside.jsonl")
    assert begin(folder, tmp_path)[0] == 0
    assert [r["prompt"] for r in read_records(folder)] == [line["prompt"] for line in lines]


HOSTILE = {
    "another reward": {"variant": {"reward": "none"}},
    "numbers and texts": {"variant": {"gradient_steps": "three"}},
    "a list": {"variant": {"reward": ["large"]}},
    "steps that are not varied": {"variant": {"gradient_steps": 3}},
    "a method of theirs": {"method": "zzz"},
    "the end of a script": {
        "prompt": "</script><script>alert(1)</script>",
        "responses": ["</script>", "x"],
    },
    "a long prompt": {"prompt": "x" * 100_000},
    "right to left": {"prompt": "\u202eabc\u2066", "responses": ["\0", "\ud800"]},
    "nothing but zeros": {"errors": {"steps": [{"step": 0, "E": 0, "entropy": 0, "n": 0}]}},
    "no reason": {"status": "failed", "reason": "\x1b[2J\n\ud800", "responses": [], "rewards": []},
    "a late step": {"written": {"words": [["a"], ["b"]], "steps": [[10**18], [0]]}},
    "sums that are none": {"rewards": [1e308, 1e308]},
    "large sums": {"rewards": [1e99, -1e99], "gold": [1e99, 1e99]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_records_that_fit_nothing(name, made, tmp_path, without_figures):
    declaration, records = made
    folder = tmp_path / "in" / "run"
    new = [{**record, "written": None, **HOSTILE[name]} for record in records]
    read_by_all(write(folder, declaration, new))


@pytest.mark.draws
def test_figures_of_a_name_that_is_mathematics(made, tmp_path):
    declaration, records = made
    name = "$\\frac{ <b>|`*_"
    folder = tmp_path / "in" / "run"
    new = [{**record, "benchmark": name} for record in records]
    write(folder, {**declaration, "benchmarks": {name: "x"}}, new)
    read_by_all(folder, ("report",))
    assert command(main, "report", folder)[0] == 0


def test_a_bar_in_a_name_is_no_column():
    table = Table("title", ("head",), (("a|b",),), words=1)
    assert table.markdown().splitlines()[-1] == "| a\\|b |"


LINES = {
    "zeros": b"\0" * 1000 + b"\n",
    "lists": b"[" * 100_000 + b"\n",
    "objects": b'{"a":' * 100_000 + b"\n",
    "no text": b"\xff\xfe\n",
    "a number": b"1\n",
    "null": b"null\n",
    "nan": b"NaN\n",
    "a fraction": b'{"fingerprint": 1e400}\n',
    "digits": b"1" * 5000 + b"\n",
    "blank": b"\n\n\n",
    "pairs": b'[["fingerprint", "x"]]\n',
    "one long line": b'"' + b"x" * 10**7 + b'"\n',
}


@pytest.mark.parametrize("file", ["run.json", "records/a.jsonl"])
@pytest.mark.parametrize("name", LINES)
def test_files_that_are_no_records(name, file, made, tmp_path, without_figures):
    folder = write(tmp_path / "in" / "run", *made)
    (folder / file).write_bytes(LINES[name])
    read_by_all(folder)
    assert command(main, "report", folder)[0] == 2


NO_FILES = {
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "nowhere": lambda file: file.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_records_that_are_no_files_are_refused(name, made, tmp_path, without_figures):
    """A pipe or a device would be read without end."""
    folder = write(tmp_path / "in" / "run", *made)
    NO_FILES[name](folder / "records" / "z.jsonl")
    for one in ("report", "browse", "export", "repair"):
        code, _, error = command(main, one, folder)
        assert (code, "z.jsonl is no file that can be read" in error) == (2, True), one
    code, said, _ = command(main, "list", folder)
    assert code == 0
    assert "cannot be read: out: " in said


def test_records_that_are_no_folder_are_refused(made, tmp_path, without_figures):
    folder = write(tmp_path / "in" / "run", *made)
    shutil.rmtree(folder / "records")
    (folder / "records").write_text("")
    for one in ("report", "repair"):
        code, _, error = command(main, one, folder)
        assert (code, "records is no folder" in error) == (2, True), one


IN_THE_WAY = {
    "a file for the records": ("records", lambda path: path.write_text("")),
    "a file for the locks": ("claims", lambda path: path.write_text("")),
    "a folder for a lock": (LOCK, lambda path: path.mkdir(parents=True)),
    "a link for a lock": (LOCK, lambda path: (path.parent.mkdir(), path.symlink_to("x"))),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_the_way_is_named(name, made, tmp_path):
    """And nothing is said of a disk that is full."""
    folder = write(tmp_path / "run", *made)
    place, put_there = IN_THE_WAY[name]
    if (folder / place).is_dir():
        shutil.rmtree(folder / place)
    put_there(folder / place)
    reason = f"out: cannot write to {folder}: {folder / place} is in the way ("
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}.*; move it elsewhere$"):
        tiny_run(folder, asked=True, prompts=2)


SAID = {
    "asked": [None, 5, "x", {}, [1], [None], "seeds", "own_weights"],
    "made_with": [None, 5, "x", [1], ["x"], {"commit": "x"}],
}


@pytest.mark.parametrize(
    ("field", "bad"), [(f, bad) for f, values in SAID.items() for bad in values]
)
def test_what_stands_beside_a_declaration_is_read_before_a_run_goes_on(field, bad, made, tmp_path):
    """As whoever reads the run reads it."""
    declaration, records = made
    if bad in ("seeds", "own_weights"):
        other = [2**70] if bad == "seeds" else {"entrgi": 1}
        bad = [{**declaration["asked"][0], bad: other}]
    folder = write(tmp_path / "run", {**declaration, field: bad}, records)
    reason = f"out: {folder / 'run.json'}: its {field}"
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        tiny_run(folder, asked=True, prompts=2)


@pytest.mark.parametrize("name", ["x" * 201, "x" * 5000, "名" * 67], ids=["few", "many", "bytes"])
def test_a_name_is_as_long_as_a_file_can_be_called(name, made, tmp_path, without_figures):
    declaration, records = made
    folder = write(tmp_path / "run", declaration, [*records, {**records[0], "method": name}])
    code, _, error = command(main, "report", folder)
    assert (code, f"line 5: its method is '{name[:3]}" in error) == (2, True)
    assert "expected a name of at most 200 bytes; python -m" in error


@pytest.mark.parametrize("name", NO_FILES)
def test_lines_are_not_dropped_into_what_is_no_file(name, made, tmp_path):
    folder = write(tmp_path / "in" / "run", *made)
    with (folder / "records" / "a.jsonl").open("a") as file:
        file.write("{}\n")
    (folder / "dropped" / "records").mkdir(parents=True)
    NO_FILES[name](folder / "dropped" / "records" / "a.jsonl")
    before = (folder / "records" / "a.jsonl").read_bytes()
    code, _, error = command(main, "repair", folder)
    assert (code, "a.jsonl is " in error) == (2, True)
    assert (folder / "records" / "a.jsonl").read_bytes() == before


def test_a_line_without_end_is_not_read_to_its_end(made, tmp_path, without_figures):
    """Of a file with a hole, which takes no disk: all of it would not fit the memory."""
    folder = write(tmp_path / "in" / "run", *made)
    with (folder / "records" / "a.jsonl").open("ab") as file:
        file.truncate(2**36)
    for one in ("report", "browse", "export", "repair"):
        code, _, error = command(main, one, folder)
        assert (code, "a.jsonl has a line of more than 134217728 bytes" in error) == (2, True), one
    code, said, _ = command(main, "list", folder)
    assert (code, "a line of more than" in said) == (0, True)


@pytest.mark.deep
def test_a_line_of_a_gigabyte(made, tmp_path, without_figures):
    folder = write(tmp_path / "in" / "run", *made)
    with (folder / "records" / "a.jsonl").open("ab") as file:
        file.write(b'{"prompt": "')
        for _ in range(1000):
            file.write(b"x" * 10**6)
        file.write(b'"}\n')
    code, _, error = command(main, "report", folder)
    assert code == 2
    assert "a.jsonl has a line of more than 134217728 bytes" in error
