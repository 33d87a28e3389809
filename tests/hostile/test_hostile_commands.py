"""Command lines with values that are none, odd paths, and files that are no benchmarks."""

import io
import json
import os
from pathlib import Path

import pytest
from paper_runs import tiny_run

import entrgi_ref.__main__ as answers
import entrgi_ref.paper.__main__ as paper
import toy.__main__ as toy
from checkpoints import DREAM, REWARD
from corpus import TEXTS, command, tree
from entrgi_ref.commands import options, shown
from entrgi_ref.commands.asked import asked
from entrgi_ref.commands.files import require_readable
from entrgi_ref.paper.declared import benchmarks
from entrgi_ref.paper.judged.backends import examine_judge
from entrgi_ref.paper.judged.judge import read_unit_tests
from entrgi_ref.paper.measured import command as measured

NETWORKS = ("--dream", DREAM, "--reward", REWARD, "--device", "cpu", "--trajectories", "1")
SHORT = ("--new-tokens", "4", "--denoising-steps", "4")
HUGE = "9" * 30


pytestmark = pytest.mark.filterwarnings("ignore:.*read as special tokens")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


REAL = ("nan", "inf", "-inf", "1e400", "-1", "0", HUGE, "", "x")
WHOLE = ("-1", HUGE, "nan", "1e3", "")
FEW = ("-1", "0", HUGE, "1000000000", "nan")
MANY = (*FEW, "65536")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        *((option, REAL) for option in ("--temperature", "--top-p", "--step-size")),
        *((option, WHOLE) for option in ("--gradient-steps", "--seed", "--vocabulary-batch")),
        *((option, MANY) for option in ("--new-tokens", "--denoising-steps")),
        ("--trajectories", FEW),
    ],
)
def test_values_that_are_none_are_refused(option, values, tmp_path):
    for value in values:
        code, said, _ = command(answers.main, "hi", *NETWORKS, *SHORT, option, value)
        assert (code, said) == (2, ""), value
    assert not tree(tmp_path)


def test_values_that_are_none_are_refused_by_the_experiments(tmp_path):
    small = ("--quick", "--prompts", "1", "--method", "bon")
    for option, values in {
        "--seeds": ("", "1,1", "-1", HUGE, "x", "nan", "1.5"),
        "--prompts": ("0", "-1"),
        "--batch-size": ("0", "-1", "x"),
        "--training-seed": ("-1", HUGE),
        "--language": ("-1",),
        "--threads": ("0", "257", HUGE),
        "--temperature": REAL,
        "--method": ("x", ":", ".:x", "os:system", "a/b:c"),
    }.items():
        for value in values:
            code, _, _ = command(toy.main, "run", "main", *small, option, value, "--out", "run")
            assert code == 2, (option, value)
    for option, values in {
        "--prompt-tokens": ("-5", "0", HUGE),
        "--tflops": ("nan", "0", "1e400"),
        "--bandwidth": ("0", "-1"),
        "--reward-weight": ("nan", "inf"),
    }.items():
        for value in values:
            words = (*NETWORKS[:4], "--dry", option, value)
            assert command(paper.main, "plan", "main", *words)[0] == 2, (option, value)
    assert not [path for path in tree(tmp_path) if path.is_file()]


def test_what_this_machine_cannot_do_is_refused_before_a_folder_is_made(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"prompt": "x"}')
    parts = ("--reward-micro-batch", HUGE)
    for more in (("--cuda-graphs",), parts, (*parts, "--cuda-graphs")):
        code, said, error = run_on("b.jsonl", *more)
        assert (code, said) == (2, "")
        assert error.startswith(("error: cuda_graphs: ", "error: micro_batch: "))
        assert not (tmp_path / "run").exists()
    code, said, _ = command(answers.main, "hi", *NETWORKS, *SHORT, *parts, "--out", "run")
    assert (code, said) == (2, "")
    assert not (tmp_path / "run").exists()


TOY = {
    "": {"--reward": ("", "x", "\ud800"), "--embedding-std": ("nan", "-1", "1e-300", "1e300")},
    "gradients": {"--draws": ("-1", "0", HUGE, "1000000000"), "--states": ("0", "97", HUGE)},
    "spread": {"--seeds": ("x", "1,1", "-1"), "--methods": ("x", ":"), "--constants": ("nan", "2")},
    "run": {"--language": (HUGE, "9223372036854775808")},
}


@pytest.mark.parametrize("name", TOY)
def test_values_that_are_none_are_refused_by_the_toy(name, tmp_path):
    """Before networks are trained; and no folder is made for nothing."""
    words = [*filter(None, [name]), *(["main"] if name == "run" else []), "--quick"]
    for option, values in TOY[name].items():
        for value in values:
            code, said, _ = command(toy.main, *words, option, value, "--out", "new/folder")
            assert (code, said) == (2, ""), (option, value)
            assert not tree(tmp_path), (option, value)


def test_a_judge_that_is_refused_leaves_nothing(tmp_path):
    tiny_run(tmp_path / "run", prompts=1)
    before = tree(tmp_path)
    for option, value in (("--model", "x"), ("--model", "x" * 300), ("--batch-size", HUGE)):
        words = ("judge", "run", "--backend", "transformers", "--model", REWARD, option, value)
        assert command(paper.main, *words)[0] == 2
        assert tree(tmp_path) == before


def test_a_file_of_results_that_cannot_be_is_refused_first(tmp_path, monkeypatch):
    """Before anything is measured or answered, which would be lost."""
    for module in (measured, shown):
        monkeypatch.setattr(module, "write_text", lambda *_: pytest.fail("it was measured"))
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "file").write_text("x")
    before = tree(tmp_path)
    bench = ("bench", "--shape", "tiny", "--rounds", "1", "--device", "cpu")
    for path in ("pipe.csv", "x" * 250 + ".csv", "file/below.csv", "/dev/full"):
        code, said, _ = command(paper.main, *bench, "--json", path)
        assert (code, said) == (2, ""), path
        code, said, _ = command(answers.main, "hi", *NETWORKS, *SHORT, "--table", path)
        assert (code, said) == (2, ""), path
        assert tree(tmp_path) == before
    assert command(paper.main, *bench, "--rounds", HUGE)[0] == 2


@pytest.fixture
def odd(tmp_path):
    """Paths that are no folders."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    return ("", "file", "file/below", "loop", "pipe", "a\0b", "x" * 300, "/dev/full", "/proc/x")


def test_odd_paths_are_refused(odd, tmp_path):
    before = tree(tmp_path)
    for path in odd:
        code, said, _ = command(answers.main, "hi", *NETWORKS, *SHORT, "--out", path)
        assert (code, said) == (2, ""), path
        words = ("--quick", "--prompts", "1", "--method", "bon", "--out", path)
        assert command(toy.main, "run", "main", *words)[0] == 2, path
        for name in ("report", "browse", "export", "repair", "judge"):
            assert command(paper.main, name, path)[0] == 2, (name, path)
        assert command(paper.main, "list", path)[0] in (0, 2), path
    assert tree(tmp_path) == before


def test_what_is_made_of_a_run_goes_where_it_can_or_nowhere(odd, tmp_path):
    tiny_run(tmp_path / "run", prompts=1)
    before = tree(tmp_path)
    for path in odd:
        assert command(paper.main, "export", tmp_path / "run", "--to", path)[0] == 2, path
        assert command(paper.main, "browse", tmp_path / "run", "--to", path)[0] == 2, path
    assert tree(tmp_path) == before


def test_a_page_goes_where_it_can_or_nowhere(odd, tmp_path):
    tiny_run(tmp_path / "run", prompts=1)
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "folder.html").mkdir()
    before = tree(tmp_path)
    for path in ("file/below", "pipe", "folder", "a\0b", "x" * 300, "/dev/full/x", "/proc/x"):
        words = ("browse", tmp_path / "run", "--to", f"{path}.html")
        assert command(paper.main, *words)[0] == 2, path
    assert tree(tmp_path) == before


def test_a_link_is_followed_and_dots_are_meant(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for path in ("link", "link/../other"):
        assert command(answers.main, "hi", *NETWORKS, *SHORT, "--out", path)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link", "other"}


def test_a_field_of_prompts_that_is_almost_a_template_is_named(tmp_path):
    """It would be answered freely."""
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"prompt": "a", "template": null, "id": 3}\n{"prompt": "a", "tempalte": "a _"}\n'
    )
    code, _, error = command(answers.main, "--from", file, *NETWORKS, *SHORT)
    said = f"error: from: line 2 of {str(file)!r} has a field 'tempalte'; did you mean 'template'?"
    assert (code, error) == (2, said)


def test_an_ending_may_be_in_capitals(tmp_path):
    (tmp_path / "P.JSONL").write_text('{"prompt": "a"}\n')
    assert benchmarks.load(str(tmp_path / "P.JSONL")).prompts == ("a",)
    options = ("--from", tmp_path / "P.JSONL", "--table", tmp_path / "T.JSON")
    assert command(answers.main, *options, *NETWORKS, *SHORT)[0] == 0
    assert json.loads((tmp_path / "T.JSON").read_text())[0]["prompt"] == "a"


@pytest.mark.parametrize("options", [["--from", ""], ["--from="]])
def test_a_file_of_prompts_has_a_name(options):
    code, _, error = command(answers.main, *options, *NETWORKS, *SHORT)
    assert (code, error) == (2, "error: from: got '', expected a file of prompts")


@pytest.mark.parametrize("act", [(paper.main, "run"), (toy.main, "run")])
def test_commas_alone_are_not_all_methods(act, tmp_path):
    main, run = act
    code, _, error = command(main, run, "main", "--methods", ",", "--out", tmp_path / "run")
    assert (code, error) == (2, "error: methods: got ',', expected names with commas")


def test_the_toy_watches_a_guided_method():
    code, _, error = command(toy.main, "watch", "--quick", "--method", "bon")
    assert (code, error[:27]) == (2, "error: method: got 'bon', e")


def test_a_link_to_a_file_can_be_read(tmp_path):
    (tmp_path / "real.txt").write_text("hi\n")
    (tmp_path / "link.txt").symlink_to("real.txt")
    require_readable("benchmark", tmp_path / "link.txt")
    code, _, error = command(answers.main, "--from", tmp_path / "link.txt", *NETWORKS, *SHORT)
    assert (code, error) == (0, "")


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_answered(name):
    code, said, _ = command(answers.main, TEXTS[name], *NETWORKS, *SHORT, "--method", "bon")
    assert code == 0
    assert "reward  answer" in said


PROMPTS = {
    "half": ("\ud800", "is not valid text"),
    "empty": ("", "expected some text"),
    "blank": ("\u2028", "expected some text"),
    "long": ("x" * 100_000, "it takes 100051 positions, Dream has 512"),
    "too long": ("x" * (2**20 + 1), "expected at most 1048576"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_what_is_no_prompt_is_refused(name):
    prompt, reason = PROMPTS[name]
    code, said, error = command(answers.main, prompt, *NETWORKS, *SHORT)
    assert (code, said) == (2, "")
    assert reason in error


def test_what_never_ends_is_not_read_to_its_end():
    for words, typed, reason in (
        (("--from", "/dev/zero"), "", "its line 1 has more than 16777216 bytes"),
        (("-",), "x" * (2**24 + 1), "standard input has more than 16777216 characters"),
    ):
        code, _, error = command(answers.main, *words, *NETWORKS, *SHORT, typed=typed)
        assert code == 2
        assert reason in error


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        *((o, "a folder, or an id on the hub") for o in ("--denoiser", "--dream", "--reward")),
        *((o, "a folder, or an id on the hub") for o in ("--reward-adapter", "--model")),
        *((o, "names with commas") for o in ("--method", "--methods")),
    ],
)
def test_an_empty_word_is_not_taken_for_the_default(option, expected, tmp_path):
    """Such as a variable of the shell that is not set."""
    for main in (answers.main, paper.main, toy.main):
        for words in ((option, ""), (f"{option}=",)):
            code, _, error = command(main, "run", "main", *words)
            assert (code, error) == (2, f"error: {option[2:]}: got '', expected {expected}")
    assert not tree(tmp_path)


@pytest.mark.parametrize(
    ("contents", "encoding", "expected"),
    [
        (b"\xe9\n", "utf-8", "standard input is not UTF-8, in line 1"),
        (b"a\n" * 9000 + b"\xff\n", "utf-8", "standard input is not UTF-8, in line 9001"),
        (b"a\ncaf\xc3", "utf-8", "standard input is not UTF-8, in line 2"),
        (b"a\n\xff\n", "ascii", "standard input is not ASCII, in line 2"),
        ("é\n".encode("latin-1"), "latin-1", ["é"]),
        (b"\xef\xbb\xbfhello\rbye\r", "utf-8", ["hello", "bye"]),
        (b"a\r\nb\r\n", "utf-8", ["a", "b"]),
        (b"x" * (2**26 + 1), "utf-8", "standard input has more than 16777216 characters"),
    ],
    ids=["first", "later", "half", "ascii", "latin", "CR", "CRLF", "long"],
)
def test_the_bytes_of_standard_input(contents, encoding, expected, monkeypatch, tmp_path):
    """As a file with the same bytes, where that is one."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(contents), encoding))
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=f"^prompt: {expected}$"):
            asked(["-"], None, [])
        return
    assert [one.prompt for one in asked(["-"], None, [])] == expected
    if encoding == "utf-8":
        (tmp_path / "p.txt").write_bytes(contents)
        assert [one.prompt for one in asked([], str(tmp_path / "p.txt"), [])] == expected


def test_criteria_that_are_in_no_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        (tmp_path, "is a folder, expected a file"),
        (tmp_path / "pipe", "is no file that can be read"),
        ("/dev/null", "is no file that can be read"),
    ):
        with pytest.raises(ValueError, match=f"^unit_tests: {name} {reason}$"):
            read_unit_tests(Path(name))


@pytest.mark.parametrize("backend", ["transformers", "lmunit"])
def test_a_judge_takes_one_gpu_or_more(backend):
    with pytest.raises(ValueError, match=r"^gpus: got -1, expected"):
        examine_judge(backend, "none", "cpu", "auto", 1, -1)


BENCHMARKS = {
    "lists": (b"[" * 100_000, "not JSON"),
    "a list": (b'{"prompt": [1]}', "has no text"),
    "a switch": (b'{"prompt": true}', "has no text"),
    "a number": (b"1e400", "has no text"),
    "half a character": (b'{"prompt": "\\ud800"}', "half a character"),
    "empty": (b"", "holds no prompts"),
    "bytes": (b"\xff\xfe\x00", "not text in UTF-8"),
    "a long prompt": (b'{"prompt": "' + b"x" * (2**20 + 1) + b'"}', "expected at most 1048576"),
    "a long line": (b'{"prompt": "' + b"x" * 2**24 + b'"}', "its line 1 has more than 16777216"),
    "digits": (b'{"prompt": ' + b"1" * 5000 + b"}", "not JSON"),
}


def run_on(benchmark, *more):
    small = ("--prompts", "1", "--seeds", "1", "--method", "bon", "--batch-size", "1")
    words = (
        "run",
        "main",
        "--benchmark",
        benchmark,
        *small,
        *NETWORKS,
        *SHORT,
        "--out",
        "run",
        *more,
    )
    return command(paper.main, *words)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_that_are_none_are_refused(name, tmp_path):
    content, reason = BENCHMARKS[name]
    (tmp_path / "b.jsonl").write_bytes(content)
    code, _, error = run_on("b.jsonl")
    assert code == 2
    assert reason in error
    assert not (tmp_path / "run").exists()


def test_benchmarks_of_other_kinds_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "two\nlines.jsonl").write_text('{"prompt": "x"}')
    (tmp_path / f"{'x' * 240}.jsonl").write_text('{"prompt": "x"}')
    (tmp_path / "bytes.parquet").write_bytes(b"PAR1" + bytes(range(256)) + b"PAR1")
    for name, reason in (
        ("pipe.jsonl", "pipe.jsonl is no file that can be read"),
        ("folder.jsonl", "folder.jsonl is a folder, expected a file"),
        ("none.jsonl", "there is no file none.jsonl"),
        (f"{'x' * 240}.jsonl", "expected a name of at most 100 bytes"),
        ("two\nlines.jsonl", "characters that are not seen"),
        ("bytes.parquet", "no parquet file"),
    ):
        code, _, error = run_on(name)
        assert code == 2
        assert reason in error


def test_any_text_is_a_benchmark(tmp_path):
    rows = [json.dumps({"prompt": text}) + "\n" for text in TEXTS.values()]
    (tmp_path / "$\\frac{.jsonl").write_text("".join(rows))
    small = ("--seeds", "1", "--method", "bon", "--batch-size", "4", "--out", "run")
    words = ("--benchmark", "$\\frac{.jsonl", *small, *NETWORKS, *SHORT)
    assert command(paper.main, "run", "main", *words)[0] == 0
    for name in ("list", "browse", "export"):
        assert command(paper.main, name, *(() if name == "list" else ("run",)))[0] == 0


@pytest.mark.deep
def test_a_line_of_a_gigabyte(tmp_path):
    with (tmp_path / "b.jsonl").open("wb") as file:
        file.write(b'{"prompt": "')
        for _ in range(1000):
            file.write(b"x" * 10**6)
        file.write(b'"}\n')
    code, _, error = run_on("b.jsonl")
    assert code == 2
    assert "its line 1 has more than 16777216 bytes" in error


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("int"), RecursionError("deep")])
def test_sizes_of_which_nobody_has_thought_are_one_line(error, monkeypatch):
    """Other errors are defects of ours, and show where."""

    def fail(*_):
        raise error

    monkeypatch.setattr(options, "require_paths", fail)
    code, _, said = command(paper.main, "list")
    assert code == 2
    assert type(error).__name__ in said


def test_a_message_is_short_and_moves_no_cursor(monkeypatch):
    def fail(*_):
        raise ValueError(f"got '\x1b[2J\u202e' in {'x' * 10**6}")

    monkeypatch.setattr(options, "require_paths", fail)
    _, _, said = command(paper.main, "list")
    assert said.startswith("error: got '\\x1b[2J\\u202e' in xxx")
    assert said.endswith("xxx ...")
    assert len(said) < 1100


def test_an_output_that_is_closed_is_no_terminal():
    """Python has None in its place."""
    assert not shown.is_terminal(None)
    assert not shown.is_terminal(io.StringIO())


def _ended(capsys):
    with pytest.raises(SystemExit) as end:
        options.run_app(lambda standalone_mode: print("h\u00e9"))
    return end.value.code, capsys.readouterr().err


def test_an_answer_is_not_lost_for_a_letter_that_the_output_lacks(monkeypatch, capsys):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert _ended(capsys)[0] == 0
    options.sys.stdout.flush()
    assert written.getvalue() == b"h\\xe9\n"
