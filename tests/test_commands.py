"""What the command lines share, piece by piece: texts as a user reads them, and borders."""

import csv
import hashlib
import io
import json
import os
import sys
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st

import entrgi_ref
from entrgi_ref import DenoisingRecord, Generation, GuidanceConfig, SamplingConfig, generate
from entrgi_ref.commands import answering as answers
from entrgi_ref.commands import asked as asking
from entrgi_ref.commands import files, options, pairs, progress, provenance
from entrgi_ref.commands.answering import Answering, Case, Networks, panel, what_to_lower
from entrgi_ref.commands.asked import Asked, asked
from entrgi_ref.commands.memory import memory
from entrgi_ref.commands.shown import Answered, alone, counted, means, side_by_side, write_table
from entrgi_ref.relaxation import entropy_weight
from entrgi_ref.watching import (
    Recorder,
    TerminalView,
    terminal,
    trace_page,
    trace_pages,
    weight_colour,
)
from tiny import TinyDenoiser, TinyReward

# Answers in a terminal and in a table


def answered(rewards, responses, method="entrgi", prompt="why", steps=3, template=None, parts=()):
    config = SamplingConfig(GuidanceConfig(steps=steps), trajectories=len(rewards))
    tokens = torch.zeros(1, len(rewards), 1, dtype=torch.long)
    generation = Generation((prompt,), tokens, [list(responses)], torch.tensor([rewards]), config)
    return Answered(prompt, template, method, generation, dict(parts))


LINE = "x" * 90
BOTH = answered(
    [-1.5, 12.25, 0.0], [f"{LINE}y", "two\nlines\x1b", LINE], parts={"a": [1, 2, 3], "b": [4, 5, 6]}
)
PLAIN = answered([1.0, -3.0], ["good", "bad"], "bon", steps=0)


def test_one_is_not_several():
    assert counted(1, "prompt") == counted(1, "prompt", 1) == "1 prompt"
    assert counted(0, "prompt") == "0 prompts"
    assert (counted(1, "seed", 2), counted(0, "seed", 1)) == ("1 to 2 seeds", "0 to 1 seed")
    assert [counted(n, "batch") for n in (1, 2)] == ["1 batch", "2 batches"]


def test_one_method_is_a_line_for_each_answer_and_the_best_in_full():
    assert alone(BOTH) == [
        "reward  answer",
        f" -1.50  {LINE}...",
        "+12.25* two⏎lines\N{REPLACEMENT CHARACTER}",
        f" +0.00  {LINE}",
        "",
        "Top@1 +12.25, Avg@K +3.58 over 3 trajectories (entrgi)",
        "its reward, before weighting: a +2.00, b +5.00",
        "",
        "two",
        "lines\N{REPLACEMENT CHARACTER}",
    ]
    assert alone(PLAIN)[3:] == [
        *("", "Top@1 +1.00, Avg@K -1.00 over 2 trajectories (no guidance)", "", "good")
    ]


def test_several_methods_are_a_row_for_each_and_the_best_of_the_best_in_full():
    assert side_by_side([PLAIN, BOTH]) == [
        "method   Top@1   Avg@K  best answer",
        "bon      +1.00   -1.00  good",
        "entrgi  +12.25*  +3.58  two⏎lines\N{REPLACEMENT CHARACTER}",
        "",
        "the best of entrgi:",
        "its reward, before weighting: a +2.00, b +5.00",
        "",
        "two",
        "lines\N{REPLACEMENT CHARACTER}",
    ]
    long = replace(PLAIN, method="entrgi_tempered")
    assert side_by_side([long])[:2] == [
        "method            Top@1   Avg@K  best answer",
        "entrgi_tempered   +1.00*  -1.00  good",
    ]


def test_of_several_that_are_as_good_the_first_is_the_best():
    """Of methods as of answers."""
    some = [answered([1.0, 2.0, 2.0], ["a", f"b{n}", "c"], f"method{n}") for n in (1, 2)]
    lines = side_by_side(some)
    assert [line for line in lines if "*" in line] == ["method1   +2.00*  +1.67  b1"]
    assert lines[-3:] == ["the best of method1:", "", "b1"]


def test_means_are_over_prompts_and_a_template_makes_another():
    again = answered([3.0, 4.0], ["c", "d"], "bon", "how")
    other = answered([5.0, 3.0], ["c", "d"], "entrgi_tempered", "how", template="a _")
    assert means([PLAIN, again, other]) == [
        "mean of 3 prompts",
        "method            Top@1   Avg@K",
        "bon               +2.50   +1.25",
        "entrgi_tempered   +5.00   +4.00",
    ]
    assert means([PLAIN, BOTH])[:2] == ["mean of 1 prompt", "method   Top@1   Avg@K"]
    assert means([PLAIN, PLAIN])[0] == "mean of 2 prompts"


def test_a_table_has_a_row_for_each_answer(tmp_path):
    some = [answered([1.0, 2.5], ["é", 'two\r\nlines, "x"'], prompt="où", template="a _")]
    write_table(tmp_path / "t.json", some)
    first, second = {"reward": 1.0, "best": False}, {"reward": 2.5, "best": True}
    common = {"prompt": "où", "template": "a _", "method": "entrgi"}
    rows = [
        common | {"trajectory": 0} | first | {"answer": "é"},
        common | {"trajectory": 1} | second | {"answer": 'two\r\nlines, "x"'},
    ]
    text = (tmp_path / "t.json").read_text(encoding="utf-8")
    assert json.loads(text) == rows
    assert text == json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    write_table(tmp_path / "t.csv", [*some, *some])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{name: str(value) for name, value in row.items()} for row in rows] * 2
    assert list(BOTH.rows()[2].items())[5:7] == [("reward of a", 3), ("reward of b", 6)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_table(tmp_path / "nan.json", [answered([torch.nan], ["a"])])


def test_one_answer_is_a_table_too(tmp_path):
    write_table(tmp_path / "t.csv", [answered([1.0], ["a"])])
    assert (tmp_path / "t.csv").read_bytes().splitlines() == [
        b"prompt,template,method,trajectory,reward,best,answer",
        b"why,,entrgi,0,1.0,True,a",
    ]


# How far a run is


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.6, "1 s"), (89, "89 s"), (89.4, "89 s")),
        *((90, "2 min"), (150.1, "3 min"), (5340, "89 min"), (5399, "90 min")),
        *((5400, "1.5 h"), (5401, "1.5 h"), (3_600_000, "1000.0 h")),
    ],
)
def test_durations_in_words(seconds, text):
    assert progress.duration(seconds) == text


def record(rewards, method="bon", seed=1, benchmark="questions", variant=None):
    found = {"benchmark": benchmark, "method": method, "variant": variant or {}, "seed": seed}
    return found | {"rewards": rewards}


def ticking(monkeypatch, *times):
    clock = iter(times)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))


def test_a_line_for_each_cell_says_its_means_and_the_time_left(monkeypatch, capfd):
    ticking(monkeypatch, 100.0, 104.0, 109.0, 110.0, 111.0)
    done = [4]
    with progress.Progress(10, lambda: done[0], loud=True) as line:
        for one in (
            *(record([1.0, 5.0]), record([]), record([2.0])),
            record([-1.0], seed=2),
            record([], "aps", seed=2),
            record([0.5], "aps", seed=2, variant={"reward": "4B"}),
        ):
            done[0] += 1
            line(one)
        line.say("a word between")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "4 of 10 prompts are done already",
        "7 of 10 prompts: questions bon seed 1, Top@1 3.50, 4 s left",
        "8 of 10 prompts: questions bon seed 2, Top@1 -1.00, 4 s left",
        "9 of 10 prompts: questions aps seed 2, 2 s left",
        "a word between",
        "10 of 10 prompts: questions aps seed 2, Top@1 0.50",
    ]


def test_less_than_a_second_left_is_said_and_none_is_not(monkeypatch, capfd):
    ticking(monkeypatch, 0.0, 0.6, 0.8)
    done = iter([0, 1, 2])
    with progress.Progress(2, lambda: next(done), loud=True) as line:
        line(record([1.0]))
        line(record([1.0], seed=2))
    assert capfd.readouterr().err == (
        "1 of 2 prompts: questions bon seed 1, Top@1 1.00, 1 s left\n"
        "2 of 2 prompts: questions bon seed 2, Top@1 1.00\n"
    )


def test_before_anything_is_counted_the_time_left_is_that_of_one(monkeypatch, capfd):
    ticking(monkeypatch, 0.0, 5.0)
    with progress.Progress(3, lambda: 1, loud=True) as line:
        line(record([1.0]))
    assert capfd.readouterr().err.endswith(
        "1 of 3 prompts: questions bon seed 1, Top@1 1.00, 10 s left\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_who_is_not_asked_to_speak_is_silent(terminal, monkeypatch, capfd):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    done = iter([2, 3])
    with progress.Progress(4, lambda: next(done), loud=False) as line:
        assert line.bar is None
        line(record([1.0]))
    assert capfd.readouterr() == ("", "")


def test_a_bar_begins_at_what_is_done_and_has_no_lines(monkeypatch, capfd):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    done = iter([2, 5, 6])
    with progress.Progress(8, lambda: next(done), loud=True) as bar:
        assert (bar.bar.total, bar.bar.n, bar.bar.initial) == (8, 2, 2)
        bar(record([1.0, 5.0]))
        assert bar.bar.n == 5
        bar(record([2.0]))
        assert bar.bar.n == 6
        assert bar.bar.postfix == "questions bon seed 1, Top@1 3.50"
        bar.say("a word between")
    said = capfd.readouterr()
    assert said.out == ""
    assert "a word between\n" in said.err
    assert "done already" not in said.err
    assert "6 of 8 prompts" not in said.err


# Files


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_a_new_file_has_the_modes_that_the_system_gives(umask, tmp_path):
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "a" / "b" / "new", "é\n")
        files.write_text(tmp_path / "a" / "b" / "new", "ü\n")
    finally:
        assert os.umask(before) == umask
    assert (tmp_path / "a" / "b" / "new").read_bytes() == "ü\n".encode()
    assert (tmp_path / "a" / "b" / "new").stat().st_mode & 0o7777 == 0o666 & ~umask
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["new"]


def test_what_a_file_holds_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """It is written beside it: a name can be moved in one step only within a file system."""
    synced, replace = {}, os.replace

    def sync(descriptor):
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    def checked(source, target):
        assert synced == {str(source): 4}
        assert source.parent == target.parent
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", checked)
    files.write_text(tmp_path / "file", "text")
    assert str(tmp_path) in synced


def test_no_folder_or_pipe_is_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=f"^out: cannot write {place}: it is no file$"):
            files.write_text(place, "text")


def test_ctrl_c_while_a_file_is_written_is_ctrl_c_and_leaves_nothing(tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", pressed)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "file", "text")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_made_to_be_written_in_and_nothing_stays_in_it(tmp_path):
    for _ in range(2):
        files.require_writable(tmp_path / "a" / "b")
        assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match=r"^out: cannot write to .*file: File exists$"):
        files.require_writable(tmp_path / "file")


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (b"1234567\n12345678", ["1234567", "12345678"]),
        (b"12345678\n", "its line 1 has more than 8 bytes"),
        (b"a\n123456789", "its line 2 has more than 8 bytes"),
        (b"a\n\nb\r\n\n", ["a", "", "b\r", ""]),
        (b"a\x0bb\xc2\x85", ["a\x0bb\x85"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        (b"a\nb\n\xff", "it is not UTF-8, in line 3"),
        (b"", []),
    ],
)
def test_lines_are_those_of_a_text_up_to_a_length(contents, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 8)
    (tmp_path / "text").write_bytes(contents)
    if isinstance(expected, list):
        assert list(files.read_lines(tmp_path / "text")) == expected
    else:
        with pytest.raises(ValueError, match=f"^{expected}$"):
            list(files.read_lines(tmp_path / "text"))


def test_a_name_is_as_long_as_its_bytes(tmp_path):
    files.require_file("json", tmp_path / ("名" * 80))
    with pytest.raises(ValueError, match=r"^json: got '.*, expected a shorter name$"):
        files.require_file("json", tmp_path / ("名" * 81))


# What is asked


def test_standard_input_is_read_up_to_a_length(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=" ".__mul__))
    with pytest.raises(ValueError, match=r"^prompt: standard input has more than 16777216 char"):
        asked(["-"], None, [])
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\u2028b\x85c\x0cd\r\ne\x1cf"))
    assert asked(["-"], None, []) == [Asked("a\u2028b\x85c\x0cd"), Asked("e\x1cf")]
    monkeypatch.setattr(asking, "LONGEST_LINE", 8)
    monkeypatch.setattr(sys, "stdin", io.StringIO("why\n\nhow"))
    assert asked(["-"], None, []) == [Asked("why"), Asked("how")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("why\n\nhow "))
    with pytest.raises(ValueError, match=r"^prompt: standard input has more than 8 characters$"):
        asked(["-"], None, [])


def test_prompts_are_those_of_words_then_of_the_file(monkeypatch, tmp_path):
    (tmp_path / "p.jsonl").write_text('\n{"prompt": "c"}\n\n{"prompt": "d", "template": null}\n')
    (tmp_path / "p.txt").write_text("\ufeff c \n\nd\n", encoding="utf-8")
    for name in ("p.jsonl", "p.txt"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeff\n b \r\n"))
        found = asked(["a", "-"], str(tmp_path / name), ["x _"])
        assert found == [Asked(prompt, "x _") for prompt in "abcd"]
    found = asked(["a", "b"], None, ["x _", "y _"])
    assert found == [Asked("a", "x _"), Asked("b", "y _")]
    assert asked(["a"], None, ["x _"]) == [Asked("a", "x _")]


def test_a_pipe_that_nobody_may_write_to_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is a pipe to which nobody may write; give --from -"):
        asked([], str(tmp_path / "pipe"), [])
    end, other = os.pipe()
    os.write(other, b"why\nhow\n")
    os.close(other)
    assert asked([], f"/dev/fd/{end}", []) == [Asked("why"), Asked("how")]  # as of <(...)
    os.close(end)


def test_too_many_lines_of_prompts(monkeypatch, tmp_path):
    """All of them would be looked at before the first is answered."""
    monkeypatch.setattr(asking, "MOST_LINES", 3)
    for name, line in (("p.jsonl", '{"prompt": "a"}\n'), ("p.txt", "a\n")):
        file = tmp_path / name
        file.write_text(f"{line}\n{line}")
        assert asked([], str(file), []) == [Asked("a")] * 2
        file.write_text(line * 3 + "\n")
        with pytest.raises(ValueError, match=rf"^prompt: '{file}' has more than 3 lines, exp"):
            asked([], str(file), [])
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n" * 3))
    assert asked(["-"], None, []) == [Asked("a")] * 3
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n" * 4))
    with pytest.raises(ValueError, match=r"^prompt: standard input has more than 3 lines, exp"):
        asked(["-"], None, [])


DEEP = "a list in lists, deeper than can be read"


@pytest.mark.parametrize(
    ("words", "contents", "templates", "message"),
    [
        (["-", "-"], None, [], "prompt: got - twice, expected standard input once"),
        ([" \t"], None, [], r"prompt: got ' \t', expected some text"),
        (["a"] * 3, None, ["x _"] * 2, "template: got 2 for 3 prompts, expected one for all, or "),
        (["a"], None, ["x _"] * 2, "template: got 2 for 1 prompt, expected one for all, or "),
        ([], "\n", [], "prompt: '{file}' is empty, expected an object in each line"),
        ([], "\n[1]", [], "from: line 2 of '{file}' is [1], expected an object with a text"),
        ([], "{", [], "from: line 1 of '{file}' is no JSON"),
        (
            *([], '{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}', []),
            "from: line 2 of '{file}': the key 'prompt' stands there twice",
        ),
        ([], DEEP, [], "from: line 1 of '{file}' is no JSON"),
        ([], '{"prompt": "a", "template": 1}', [], "from: line 1 of '{file}' is {'{'}"),
        (
            *([], '{"prompt": "a"}\n{"prompt": "b", "template": "_"}', ["_"]),
            "template: got one beside those of the file, expected one or the other",
        ),
    ],
)
def test_what_is_no_question_is_refused_in_words(words, contents, templates, message, tmp_path):
    file = None if contents is None else str(tmp_path / "p.jsonl")
    if file is not None:
        Path(file).write_text("[" * 100_000 if contents == DEEP else contents)
    with pytest.raises(ValueError, match=":") as error:
        asked(words, file, templates)
    expected = message.replace("{file}", str(file)).replace("{'{'}", "{")
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


# Memory


def test_running_out_of_memory_is_advice_and_other_errors_stay():
    for error in (
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        with pytest.raises(ValueError, match=r"^out of memory: take less$"), memory("take less"):
            raise error
    for error in (RuntimeError("shapes"), KeyError("can't allocate memory")):
        with pytest.raises(type(error)) as caught, memory("take less"):
            raise error
        assert caught.value is error


# Options


def test_lists_with_commas():
    assert options.names_list(" bon,entrgi ,, ") == ["bon", "entrgi"]
    assert options.names_list("") == []
    with pytest.raises(ValueError, match=r"^methods: got ' , ', expected names with commas$"):
        options.names_list(" , ")  # not all that there are
    assert options.seed_list("1, 2,3") == [1, 2, 3]
    for text in ("1,,2", "1.5", "", "١,٢", "1_0", "9" * 5000):
        with pytest.raises(ValueError, match=r"^seeds: got '.*', expected integers with commas"):
            options.seed_list(text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (None, {}),
        ([], {}),
        (["8bit"], {"denoiser": "8bit", "reward": "8bit"}),
        (["reward=4bit"], {"reward": "4bit"}),
        (["8bit", "reward=4bit"], {"denoiser": "8bit", "reward": "4bit"}),
        (["denoiser=4bit", "8bit"], {"denoiser": "4bit", "reward": "8bit"}),
        (["8bit", "4bit"], "quantize: that of both networks is given twice"),
        (["reward=8bit", "reward=8bit"], "quantize: reward is given twice"),
        (["=8bit"], "quantize: got '', expected one of 'denoiser', 'reward'"),
        (["reward="], "quantize: got '', expected one of '8bit', '4bit'"),
    ],
)
def test_which_weights_are_rounded(words, expected):
    if isinstance(expected, dict):
        assert options.quantization(words) == expected
    else:
        with pytest.raises(ValueError, match=f"^{expected}$"):
            options.quantization(words)


@pytest.mark.parametrize("option", ["--out", "--to", "--table", "--json", "--unit-tests"])
def test_an_empty_path_is_named(option):
    for words in ([f"{option}="], ["x", option, ""]):
        with pytest.raises(ValueError, match=f"^{option[2:]}: got '', expected a path"):
            options.require_paths(words)
    options.require_paths(["", option, "x", "", f"{option}=x"])


LACK = "out of memory, or of what numbers can hold"
FULL = "can't allocate memory"
NOTHING = "stopped: nothing new has been written\n"


def raises(error, cause=None):
    def does():
        raise error from cause

    return does


def while_handling(first, second):
    def does():
        try:
            raise first
        except BaseException:
            raise second  # noqa: B904, as a library that does not say why

    return does


ENDS = [
    (lambda: None, 0, ""),
    (lambda: "text", 0, ""),
    (lambda: 3, 3, ""),
    (lambda: 130, 130, NOTHING),
    (raises(options.StoppedError("all is kept")), 130, "\nstopped: all is kept\n"),
    (raises(ValueError("x"), cause=KeyboardInterrupt()), 130, f"\n{NOTHING}"),
    (while_handling(KeyboardInterrupt(), RuntimeError("x")), 130, f"\n{NOTHING}"),
    (while_handling(KeyError("x"), ValueError("y")), 2, "error: y\n"),
    (raises(ValueError("two\n  lines")), 2, "error: two lines\n"),
    (raises(OSError(2, "gone")), 2, "error: [Errno 2] gone\n"),
    (raises(OSError(28, "full")), 2, "error: cannot write what is to be shown: full\n"),
    (raises(OSError(28, "full", "file")), 2, "error: [Errno 28] full: 'file'\n"),
    (raises(UserWarning("odd\nthing")), 2, "error: a warning is to be an error: odd thing\n"),
    (raises(ValueError("\x1b[2J\u202e'")), 2, "error: \\x1b[2J\\u202e'\n"),
    (raises(ValueError("")), 2, ""),
    (raises(ValueError("x" * 1000)), 2, f"error: {'x' * 1000}\n"),
    (raises(ValueError("x" * 1001)), 2, f"error: {'x' * 1000} ...\n"),
    (raises(ValueError("\x1b" * 251)), 2, "error: " + "\\x1b" * 250 + " ...\n"),
    (raises(typer.BadParameter("not\nso")), 2, "error: Invalid value: not so\n"),
    (raises(MemoryError("x")), 2, f"error: {LACK}: MemoryError: x\n"),
    (raises(RecursionError("x")), 2, f"error: {LACK}: RecursionError: x\n"),
    (raises(RuntimeError(FULL)), 2, f"error: {LACK}: RuntimeError: {FULL}\n"),
]


@pytest.mark.parametrize(("does", "code", "said"), ENDS, ids=range(len(ENDS)))
def test_how_a_command_ends(does, code, said, monkeypatch, capfd):
    def app(standalone_mode):
        assert standalone_mode is False  # else the library would print and leave
        return does()

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "argv", ["--out=", "--seed", "1"])
    with pytest.raises(SystemExit) as stop:
        options.run_app(app)
    assert stop.value.code == code
    assert capfd.readouterr() == ("", said)
    monkeypatch.setattr(sys, "argv", ["entrgi", "--out="])
    with pytest.raises(SystemExit) as stop:
        options.run_app(app)
    assert stop.value.code == 2
    assert capfd.readouterr().err.startswith("error: out: got '', expected a path")


def test_a_bug_has_a_traceback(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "argv", ["entrgi"])
    with pytest.raises(KeyError, match="x"):
        options.run_app(lambda standalone_mode: {}["x"])
    assert warnings.formatwarning("said", UserWarning, "file", 1) == "warning: said\n"
    # What a checkpoint calls its tokens may be long, or hold what moves the cursor of a terminal.
    said = UserWarning("two\nlines \x1b[2J" + "x" * 1000)
    shown = warnings.formatwarning(said, UserWarning, "file", 1)
    assert shown == f"warning: two lines \\x1b[2J{'x' * 983} ...\n"


def kept_and(kept, press):
    kept[1:] = ["two"]
    press()


def test_ctrl_c_says_what_is_kept_by_then():
    kept = ["one"]
    for press in (raises(KeyboardInterrupt()), while_handling(KeyboardInterrupt(), OSError("x"))):
        with (
            pytest.raises(options.StoppedError, match=r"^one, two$"),
            options.stopping(lambda: ", ".join(kept)),
        ):
            kept_and(kept, press)
    for error in (options.StoppedError("before"), ValueError("x")):
        with pytest.raises(type(error)) as caught, options.stopping(lambda: "after"):
            raise error
        assert caught.value is error
    circle = ValueError("x")
    circle.__context__ = OSError("y")
    circle.__context__.__context__ = circle
    assert not options.interrupted(circle)
    assert not options.interrupted(None)


def test_sizes_and_paths_as_options():
    """And whether one was given, even if its default was."""
    app, seen = typer.Typer(), []

    @app.command()
    def command(
        context: typer.Context,
        steps: options.OwnDenoisingSteps = None,
        micro: options.MicroBatch = None,
        rows: options.VocabularyBatch = None,
        size: options.Size = "small",
    ) -> None:
        seen.append((steps, micro, rows, size, options.given(context, "size")))

    names = ("--denoising-steps", "--reward-micro-batch", "--vocabulary-batch")
    app([], standalone_mode=False)
    app([word for name in names for word in (name, "1")] + ["--size=small"], standalone_mode=False)
    assert seen == [(None, None, None, "small", False), (1, 1, 1, "small", True)]
    for name in names:
        with pytest.raises(Exception, match=r"(x>=|equal to )1\b"):
            app([name, "0"], standalone_mode=False)


def test_the_guidance_of_each_method():
    found = options.guidances(["bon", "aps"], 0, 0.25, "sgd", "float64")
    base = GuidanceConfig(steps=0, step_size=0.25, optimiser="sgd", dtype="float64")
    assert found == {"bon": base, "aps": replace(base, weight="aps")}
    found = options.guidances(["bon", "entrgi"], 2, 0.5, "adam", "bfloat16")
    assert found == {"bon": GuidanceConfig(steps=0), "entrgi": GuidanceConfig(steps=2)}
    with pytest.raises(
        ValueError, match=r"^gradient_steps: got -1, expected an integer of at least 0"
    ):
        options.guidances(["bon"], -1, 0.5, "adam", "auto")
    with pytest.raises(ValueError, match=r"^method: got 'damped', expected one of 'bon', 'expect"):
        options.guidances(["damped"], 1, 0.5, "adam", "auto")


@pytest.mark.parametrize(
    "fits", [("float16", True, 0), ("float16", False, 1), ("bfloat16", True, 1), ("auto", True, 1)]
)
def test_float16_is_refused_where_the_authors_would_guide_in_it_alone(fits):
    options.require_precision(*fits)
    with pytest.raises(ValueError, match=r"^dtype: got 'float16' with --authors"):
        options.require_precision("float16", authors=True, gradient_steps=1)


# Networks that go together


def test_what_is_fetched_is_said_with_its_size(tmp_path, monkeypatch):
    sizes = {
        "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1": "1.5 GB",
        "Dream-org/Dream-v0-Instruct-7B": "15.2 GB",
        "Skywork/Skywork-Reward-V2-Qwen3-0.6B": "1.2 GB",
        "Skywork/Skywork-Reward-V2-Qwen3-1.7B": "3.4 GB",
        "Skywork/Skywork-Reward-V2-Qwen3-4B": "8 GB",
    }
    said = " and ".join(f"{name} (about {size})" for name, size in sizes.items())
    found = pairs.announced([f"{name}@main" for name in sizes])
    assert found == f"{said}: fetched from the hub, unless done before"
    monkeypatch.chdir(tmp_path)
    (tmp_path / pairs.SMALL).mkdir(parents=True)
    assert pairs.announced([pairs.SMALL, "somebody/network"]) == ""


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("denoiser", [None, "d"])
@pytest.mark.parametrize("rewards", [[], ["r"]])
def test_a_size_that_decides_nothing_is_refused(given, denoiser, rewards):
    if given and denoiser and rewards:
        with pytest.raises(ValueError, match=r"^size: got 'paper' beside --denoiser and --reward"):
            pairs.pair_of("paper", given, denoiser, rewards)
    else:
        pair = pairs.pair_of("paper", given, denoiser, rewards)
        assert pair == pairs.Pair(
            "Dream-org/Dream-v0-Instruct-7B", "Skywork/Skywork-Reward-V2-Qwen3-1.7B"
        )
    with pytest.raises(ValueError, match=r"^size: got 'large', expected one of 'small', 'paper'"):
        pairs.pair_of("large", given, denoiser, rewards)


# Where numbers come from


def test_records_say_the_commit_and_the_versions_but_not_pythons():
    found = provenance.made_with()
    assert found == {
        "commit": provenance.commit(),
        "entrgi_ref": entrgi_ref.__version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    assert {name: provenance.versions()[name] for name in list(found)[1:]} | {
        "python": ".".join(map(str, sys.version_info[:3]))
    } == provenance.versions()


@pytest.mark.parametrize(
    ("listed", "described", "expected"),
    [
        (0, "echo 0123456789ab", "0123456789ab"),
        (0, "echo 0123456789ab-dirty", "0123456789ab-dirty-{hash}"),
        (0, "echo 0123456789ab; exit 1", "unknown"),
        (1, "echo 0123456789ab", "unknown"),
        (None, "", "unknown"),
    ],
)
def test_the_commit_is_as_git_says(listed, described, expected, tmp_path, monkeypatch, capfd):
    """A stand-in for git, or none; what it prints is not seen."""
    (tmp_path / "bin").mkdir()
    if listed is not None:
        script = f'#!/bin/sh\necho noise >&2\ncase "$*" in *ls-files*) echo it; exit {listed};;'
        asked = '*"describe --always --dirty --abbrev=12"'
        (tmp_path / "bin" / "git").write_text(f"{script} {asked}) {described};; esac\n")
        (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    if "{hash}" in expected:
        root, digest = Path(entrgi_ref.__file__).parents[1], hashlib.blake2b(digest_size=4)
        for file in sorted([*root.glob("entrgi_ref/**/*.py"), *root.glob("toy/**/*.py")]):
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
        expected = expected.replace("{hash}", digest.hexdigest())
    provenance.commit.cache_clear()
    try:
        assert provenance.commit() == expected
    finally:
        provenance.commit.cache_clear()
    assert capfd.readouterr() == ("", "")


def test_of_equal_answers_the_first_is_the_best_of_a_table_and_no_template_is_none():
    tokens, rewards = torch.zeros(1, 3, 2, dtype=torch.int64), torch.tensor([[1.0, 2.0, 2.0]])
    made = Generation(("a",), tokens, [["b", "c", "d"]], rewards, SamplingConfig())
    for template in (None, ""):
        rows = Answered("a", template, "aps", made, {"x": [0.5, 1.5, 2.5]}).rows()
        assert [row["best"] for row in rows] == [False, True, False]
        assert [row["template"] for row in rows] == [template] * 3
        assert [row["reward of x"] for row in rows] == [0.5, 1.5, 2.5]
    several = [Answered("a", None, method, made, {}) for method in ("bon", "aps", "bon")]
    assert [line.split()[0] for line in means(several)[2:]] == ["bon", "aps"]  # as asked


# A trajectory to look at

WIDE = {0.0: (0, 34, 78), 0.25: (58, 77, 107), 0.5: (124, 123, 120), 0.75: (185, 172, 112)}
POINTS = np.array([*WIDE.values(), (254, 232, 56)])


@given(st.floats(-1, 2))
def test_colours_are_between_five_points(weight):
    place = np.clip(weight, 0, 1) * 4
    expected = [np.interp(place, np.arange(5), channel) for channel in POINTS.T]
    assert np.abs(np.array(weight_colour(weight)) - expected).max() <= 0.5 + 1e-4


def observed(**changes):
    """Two trajectories of four tokens: of the first, two are masked and one of them committed."""
    nothing = torch.zeros(0)
    found = {
        "step": 8,
        "t": 0.123456,
        "masked": torch.tensor([[True, False, True, False], [False, True, False, True]]),
        "entropy": torch.tensor([[9.0] * 4, [1.23456, 2.0, 3.0, 4.0]]),
        "weight": torch.tensor([[0.9] * 4, [0.0, 0.16, 0.46, 1.0]]),
        "E": torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.5]]),
        "D": torch.tensor([[0.5, 1.0, 1.5, 2.0], [2.5, 3.0, 3.5, 0.00006]]),
        "rewards": torch.tensor([[1.0, -2.0], [1.5, 0.006]]),
        "logits": torch.zeros(4, 5),
        "guided_logits": torch.zeros(4, 5),
        "candidates": torch.tensor([3, 4, 5, 6]),
        "confidence": nothing,
        "committed": torch.tensor([[False, False, True, False], [False, False, False, True]]),
        "tokens": torch.tensor([[13, 1, 4, 2], [7, 13, 8, 6]]),
    } | changes
    return DenoisingRecord(**found)


NAMES = SimpleNamespace(
    eos_id=2, decode=lambda tokens: ["" if i in (2, 13) else f"w{i}" for i in tokens[:, 0].tolist()]
)
UNGUIDED = {
    **{name: torch.zeros(0, 4) for name in ("entropy", "weight", "E", "D")},
    "rewards": torch.zeros(0, 2),
}


def test_a_step_in_the_terminal(as_users_run_it, capsys):
    plain = [TerminalView(NAMES, k, colour=False, separator="|") for k in (0, 1)]
    for view in (*plain, TerminalView(NAMES), TerminalView(NAMES, 1, separator="")):
        view(observed())
    plain[0](observed(**UNGUIDED))

    def painted(colour, ink, text):
        return f"\x1b[48;2;{';'.join(map(str, colour))}m\x1b[38;5;{ink}m{text}\x1b[0m"

    soft = (painted((0, 34, 78), 15, "  "), painted((37, 62, 97), 15, "w4"))
    hard = (painted((113, 116, 118), 15, "  "), painted((254, 232, 56), 16, "w6"))
    assert capsys.readouterr().out.splitlines() == [
        "   9  t 0.12  .0|w1|[w4]|⟨end⟩   R +1.00 → +1.50",
        "   9  t 0.12  w7|.5|w8|[w6]   R -2.00 → +0.01",
        f"   9  t 0.12  {soft[0]} w1 {soft[1]} ⟨end⟩   R +1.00 → +1.50",
        f"   9  t 0.12  w7{hard[0]}w8{hard[1]}   R -2.00 → +0.01",
        "   9  t 0.12  1.0|w1|[w4]|⟨end⟩   R unguided",
    ]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.47, 0.48, 0.5, 0.7, 1.0])
def test_letters_are_white_on_dark_colours_alone(weight):
    """By the luma of the colour, a little darker than the middle."""
    r, g, b = weight_colour(weight)
    luma = np.dot((r, g, b), (0.299, 0.587, 0.114))
    ink = 15 if luma < 118 else 16
    assert terminal._paint("x", weight, colour=True) == (
        f"\x1b[48;2;{r};{g};{b}m\x1b[38;5;{ink}mx\x1b[0m"
    )
    assert terminal._paint("x", weight, colour=False) == "x"
    assert terminal._paint("x", None, colour=True) == "x"


def test_the_ink_changes_at_one_luma(monkeypatch):
    """Of grey, and of each primary colour as bright as that grey."""
    for colour, ink in (
        *(((117, 117, 117), 15), ((25, 151, 192), 16), ((119, 119, 119), 16)),
        *(((255, 70, 5), 15), ((255, 73, 0), 16), ((0, 201, 0), 15), ((0, 202, 0), 16)),
        *(((255, 21, 255), 15), ((255, 22, 255), 16), ((0, 150, 255), 15), ((0, 152, 255), 16)),
    ):
        monkeypatch.setattr(terminal, "weight_colour", lambda weight, colour=colour: colour)
        assert f"38;5;{ink}m" in terminal._paint("x", 0.5, colour=True), colour


def test_the_frames_of_a_trajectory(as_users_run_it):
    recorder = Recorder(NAMES)
    recorder(observed())
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    later = {"step": 9, "t": 0.05, "masked": nobody, "committed": nobody}
    none = {name: torch.zeros(2, 0) for name in ("entropy", "weight", "E", "D")}
    recorder(
        observed(
            **later, **none, candidates=torch.zeros(0, dtype=torch.long), logits=torch.zeros(0, 5)
        )
    )
    numbers = {
        "weight": [0.46, 1.0],
        "entropy": [3.0, 4.0],
        "E": [7.0, 8.5],
        "D": [3.5, 0.0001],
        "rewards": [-2.0, 0.006],
        "mean_E": [3.5, 7.75],
        "mean_D": [1.75, 1.75],
    }
    first, second, answer = recorder.frames(1)
    assert first == {
        "step": 8,
        "t": 0.1235,
        "tokens": ["w7", None, "w8", None],
        "positions": [1, 3],
        "candidates": ["w5", "w6"],
        "committed": [3],
        **numbers,
    }
    words = ["w7", "⟨special⟩", "w8", "w6"]
    assert second == {
        "step": 9,
        "t": 0.05,
        "tokens": words,
        "positions": [],
        "candidates": [],
        **{key: [] for key in numbers},
        "committed": [],
        "rewards": [-2.0, 0.006],
    }
    assert answer == {"step": None, "t": 0, "tokens": words, "positions": [], "committed": []}
    assert recorder.frames(0)[0]["entropy"] == [1.2346, 2.0]
    assert recorder.frames(0)[-1]["tokens"] == ["⟨special⟩", "w1", "w4", "⟨end⟩"]
    assert len(observed().tokens) == 2
    for wrong in (-1, True, 0.0, 2, 3):  # not the last, nor the second
        with pytest.raises(ValueError, match=f"^trajectory: got {wrong}, expected an integer"):
            recorder.frames(wrong)


def test_a_run_that_begins_at_a_later_step_is_another_one(as_users_run_it):
    """Its first steps have committed nothing, and were skipped."""
    recorder = Recorder(NAMES)
    nothing = torch.zeros_like(observed().committed)
    recorder(observed())
    recorder(observed(step=61, committed=nothing))  # what was committed is masked again
    assert [step["step"] for step in recorder.steps] == [61]
    recorder(observed(step=62))
    assert [step["step"] for step in recorder.steps] == [61, 62]


def test_one_gradient_step_is_guidance_and_none_shows_what_the_weight_would_be(as_users_run_it):
    logits = torch.tensor([[0.0, 1.0, 2.0]] * 4)
    once = {name: getattr(observed(), name)[1:] for name in UNGUIDED}
    for record, weights in (
        (observed(**once, logits=logits), [0.0, 0.16]),
        (observed(**UNGUIDED, logits=logits), entropy_weight(logits[:2]).tolist()),
    ):
        recorder = Recorder(NAMES)
        recorder(record)
        frame = recorder.frames(0)[0]
        assert frame["weight"] == pytest.approx(weights, abs=1e-4)
        guided = weights[0] == 0
        assert frame["E"] == ([5.0, 6.0] if guided else [])
        assert frame["mean_E"] == ([5.5] if guided else [])
        assert frame["rewards"] == ([1.5] if guided else [])


def test_a_page_is_one_trace_or_several():
    frames = [{"title": "é", "frames": [{"t": 0.5, "tokens": ["</script>", '"TRACE"']}]}]
    held = (
        '"panels":[{"title":"é","frames":[{"t":0.5,"tokens":["\\u003c/script>","\\"TRACE\\""]}]}]}'
    )
    assert '= {"prompt":"/*STYLE*//*SCRIPT*/",' in trace_page("/*STYLE*//*SCRIPT*/", frames)
    page = trace_page("why", frames)
    assert f'= {{"prompt":"why",{held};' in page
    assert page == trace_pages([("why", frames)])
    assert "/*STYLE*/" not in page
    assert "/*SCRIPT*/" not in page
    both = trace_pages([("why", frames), ("how", frames)])
    assert f'= {{"traces":[{{"prompt":"why",{held},{{"prompt":"how",{held}]}};' in both
    with pytest.raises(ValueError, match="not JSON compliant"):
        trace_page("why", [{"frames": [{"t": torch.nan}]}])


# Prompts, answered


def config(steps=1, **changes):
    guidance = GuidanceConfig(steps=steps, dtype="float64")
    return SamplingConfig(guidance, trajectories=2, new_tokens=3, denoising_steps=3, **changes)


def answering(cases, **given):
    options = {"watch": False, "out": None, "table": None, "vocabulary_batch": None}
    return Answering(cases, checkpoints={"name": "tiny"}, **options | given)


@pytest.fixture
def tiny():
    """Networks of a vocabulary that the reward has all of."""
    reward = TinyReward(50)
    reward.vocabulary = SimpleNamespace(unmatched=())
    return Networks(TinyDenoiser(0), reward, {"tiny": reward})


@pytest.mark.parametrize(
    ("out", "written", "said"),
    [
        (None, [], "nothing new has been written"),
        ("o", [], "nothing new has been written"),
        (None, ["t.csv"], "t.csv is written"),
        ("o", ["o/answers.json"], "o/answers.json is written, the page is not"),
        ("o", ["t.csv", "o/a.json"], "t.csv, o/a.json is written, the page is not"),
        ("o", ["t.csv", "o/a.json", "o/trace.html"], "t.csv, o/a.json, o/trace.html is written"),
    ],
)
def test_what_is_kept_after_ctrl_c(out, written, said):
    run = answering([], out=out and Path(out))
    run.written.update(dict.fromkeys(map(Path, written)))
    assert run.kept() == said


@pytest.mark.parametrize(
    ("trajectories", "tokens", "said"),
    [
        (5, 1, "lower --trajectories from 5 to 2, which halves what the batch takes"),
        (2, 9, "lower --trajectories from 2 to 1, which halves what the batch takes"),
        (1, 9, "lower --new-tokens from 9 to 4, or take a smaller reward model"),
        (1, 2, "lower --new-tokens from 2 to 1, or take a smaller reward model"),
        (1, 1, "lower --new-tokens from 1 to 1, or take a smaller reward model"),
    ],
)
def test_what_memory_grows_with_is_named(trajectories, tokens, said):
    assert what_to_lower(SamplingConfig(trajectories=trajectories, new_tokens=tokens)) == said


def test_a_panel_is_the_best_trajectory():
    recorder = SimpleNamespace(frames=lambda row: [row])
    for one, title, steps in ((BOTH, "Guided: aps", 3), (PLAIN, "Unguided", 0)):
        assert panel("aps", one.generation, recorder) == {
            "title": title,
            "subtitle": f"the best of {len(one.rewards)} trajectories, {steps} gradient steps per "
            "denoising step",
            "frames": [one.best],
            "results": {"reward of the answer": f"{one.top1:.2f}"},
        }
    assert (
        panel("aps", answered([1.0, 2.0], "ab", steps=1).generation, recorder)["title"]
        != "Unguided"
    )


def test_one_prompt_by_one_method_is_shown_and_written(tiny, tmp_path, capsys):
    found = generate(tiny.denoiser, tiny.reward, ["12"], config())
    run = answering(
        [Case("12", None, None, {"aps": config()})], out=tmp_path, table=tmp_path / "t.csv"
    )
    run.run(tiny)
    one = Answered("12", None, "aps", found, {})
    names = [tmp_path / name for name in ("t.csv", "answers.json", "trace.html")]
    assert capsys.readouterr().out.splitlines() == [
        *("", *alone(one), "", "Written:"),
        *(f"  {name}" for name in names),
    ]
    text = (tmp_path / "answers.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "prompt": "12",
        "template": None,
        "method": "aps",
        "responses": found.responses[0],
        "rewards": found.rewards[0].tolist(),
        "settings": json.loads(config().to_json()),
        "checkpoints": {"name": "tiny"},
        "made_with": provenance.made_with(),
    }
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    assert page.index('"Unguided"') < page.index('"Guided: aps"')


@pytest.mark.parametrize(("method", "steps", "runs"), [("bon", 0, 1), ("aps", 2, 2)])
def test_a_page_brings_the_unguided_run_beside_a_guided_one(
    method, steps, runs, tiny, tmp_path, capsys, monkeypatch
):
    """In parts as large, and not watched."""
    batches, original = [], entrgi_ref.denoising.generate

    def noted(*networks, **options):
        batches.append(options["vocabulary_batch"])
        return original(*networks, **options)

    monkeypatch.setattr(entrgi_ref.denoising, "generate", noted)
    run = answering([Case("12", None, None, {method: config(steps)})], out=tmp_path)
    run.watch, run.vocabulary_batch = True, 5
    run.run(tiny)
    assert batches == [5] * runs
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    assert page.count('"title":') == runs
    watched = [line for line in capsys.readouterr().out.splitlines() if "  t " in line]
    assert len(watched) == 2
    assert all(line.endswith("unguided") == (steps == 0) for line in watched)


def test_prompts_by_methods_are_shown_one_after_another(tiny, tmp_path, capsys, monkeypatch):
    """On a terminal each says how far it is, and is not watched."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    configs = {"bon": config(0), "aps": config(2)}
    run = answering([Case(prompt, None, None, configs) for prompt in ("12", "407")], out=tmp_path)
    run.run(tiny)
    rows = [
        [
            Answered(p, None, m, generate(tiny.denoiser, tiny.reward, [p], c), {})
            for m, c in configs.items()
        ]
        for p in ("12", "407")
    ]
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        *("", "1 of 2: 12", "", *side_by_side(rows[0])),
        *("", "2 of 2: 407", "", *side_by_side(rows[1])),
        *("", *means([*rows[0], *rows[1]]), "", "Written:"),
        *(f"  {tmp_path / name}" for name in ("answers.json", "trace.html")),
    ]
    steps = "".join(f"\r{{m}}: denoising step {k} of 3" for k in (2, 3)) + "\n"
    assert said.err == "".join(steps.replace("{m}", method) for method in ("bon", "aps") * 2)
    found = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert [(one["prompt"], one["method"]) for one in found["answers"]] == [
        *(("12", "bon"), ("12", "aps"), ("407", "bon"), ("407", "aps")),
    ]
    assert '"Guided: aps"' in (tmp_path / "trace.html").read_text(encoding="utf-8")


def test_of_several_guided_methods_a_page_shows_these_alone(tiny, tmp_path):
    """And each answer has the template of its own prompt, from the first that is written on."""
    configs = {"aps": config(), "entrgi": config()}
    some = [Case("12", None, None, {"aps": config()}), Case("407", "_" * 4, None, configs)]
    run, written = answering(some, out=tmp_path), []

    def noted(file, text, write=run._write):
        write(file, text)
        written.append(json.loads(text) if file.suffix == ".json" else text)

    run._write = noted
    run.run(tiny)
    answers, page = written[2:]
    assert [one["template"] for one in answers["answers"]] == [None, "_" * 4, "_" * 4]
    assert [row["template"] for one in run.answered for row in one.rows()[:1]] == [
        *(None, "_" * 4, "_" * 4)
    ]
    assert written[0] == {"answers": answers["answers"][:1]}  # one of several is no other file
    assert page.count('"Unguided"') == 1  # of the first prompt, which has one method
    assert page.count('"Guided: aps"') == 2


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_trajectory_is_watched_in_colour_on_a_terminal(on_terminal, tiny, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: on_terminal, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    view = TerminalView(tiny.denoiser, separator="" if on_terminal else "|", colour=on_terminal)
    shown = {}
    for name, steps in (("bon", 0), ("aps", 1)):
        one = generate(tiny.denoiser, tiny.reward, ["12"], config(steps), observe=view)
        shown[name] = (one, capsys.readouterr().out.splitlines())
    for methods in (["aps"], ["bon", "aps"]):
        configs = {name: config(int(name == "aps")) for name in methods}
        answering([Case("12", None, None, configs)], watch=True).run(tiny)
        rows = [Answered("12", None, name, shown[name][0], {}) for name in methods]
        several = len(methods) > 1
        expected = [
            line for name in methods for line in (*(["", name] if several else []), *shown[name][1])
        ]
        expected += ["", *(side_by_side(rows) if several else alone(rows[0]))]
        assert capsys.readouterr() == ("\n".join(expected) + "\n", "")


def test_what_each_part_of_a_sum_gives_is_told(tiny):
    found = generate(tiny.denoiser, tiny.reward, ["12"], config())
    other = TinyReward(60)
    parts = {"a": tiny.reward, "b": other}
    assert answers._by_model(replace(tiny, parts=parts), "12", found) == {}
    sums = Networks(tiny.denoiser, object(), parts)
    scores = {n: part.score(["12"] * 2, found.responses[0]).tolist() for n, part in parts.items()}
    assert answers._by_model(sums, "12", found) == scores


def test_what_a_reward_lacks_is_weighed_where_the_answer_begins(tiny):
    """By the probability of the ids that may be written, at the blanks."""
    lacks = torch.zeros(14, dtype=torch.bool)
    lacks[[3, 13]] = True  # the last may not be written
    vocabulary = SimpleNamespace(
        unmatched=(1,),
        report=lambda: "12 of 14",
        unmatched_mass=lambda q: (q * lacks).sum(-1),
    )
    parts = {"all": tiny.reward, "some": SimpleNamespace(vocabulary=vocabulary)}
    networks_ = replace(tiny, parts=parts)
    for start in (None, torch.tensor([[13, 5, 13]])):
        case = Case("12", None, start, {"aps": config()})
        board = torch.full((1, 3), 13) if start is None else start
        tokens = torch.cat([torch.tensor([[1, 2]]), board], 1)
        logits = tiny.denoiser(tokens, torch.ones(1, 5, dtype=torch.bool), board == 13).float()
        q = logits[:, :13].softmax(-1)
        assert answers.lacking(networks_, case) == [
            (
                "\nvocabulary of some: 12 of 14; where the answer begins, what it lacks has a "
                f"probability of {q[:, 3].mean():.1e} under the mask predictor"
            )
        ]
