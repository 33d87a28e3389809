"""The judge: scores against an independent computation, on a tiny random causal model."""

import contextlib
import itertools
import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paper_runs import invoke, lines, tiny_run
from transformers import (
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from checkpoints import DREAM, causal
from entrgi_ref.commands.options import StoppedError
from entrgi_ref.models import checkpoints, tokenizers
from entrgi_ref.paper import __main__ as paper
from entrgi_ref.paper.judged import backends, judge, judging
from entrgi_ref.paper.run import folder as folders
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import (
    JUDGES,
    judges_of,
    key_of,
    read_declaration,
    read_records,
    require_judgement,
)
from entrgi_ref.paper.shown.summary import Run
from tiny_testbed import FailingReward, TinyTestbed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random causal model that speaks in digits now and then."""
    return random_model(tmp_path_factory.mktemp("model") / "tiny-judge", digits_louder=1.5)


def random_model(folder, digits_louder):
    shutil.copytree(DREAM, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=385,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=None,
        bos_token_id=None,
    )
    network = Qwen2ForCausalLM(config)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    digits = [tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]
    with torch.no_grad():
        network.lm_head.weight.mul_(20)
        network.lm_head.weight[digits] *= digits_louder
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny_run(folder, methods=["bon", "entrgi"], seeds=[1, 2], prompts=3)
    return folder


@pytest.fixture
def run(made, tmp_path):
    """One that a test may change."""
    return shutil.copytree(made, tmp_path / "run")


def only_judge(run):
    """The folder of the one judge of a run."""
    (folder,) = judges_of(run)
    return folder


def judgements_of(run):
    return read_records(only_judge(run), require_judgement)


def slow_score(folder, query, response, test):
    """Token by token, one sequence, no cache: greedy until a digit comes."""
    network = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    text = f"Query: {query}\n\nResponse: {response}\n\nUnit Test: {test}"
    turns = [{"role": "user", "content": text}]
    words = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    first = found = None
    for _ in range(10):
        with torch.no_grad():
            p = network(torch.tensor([ids])).logits[0, -1].softmax(-1)
        first = p if first is None else first
        ids.append(int(p.argmax()))
        if tokenizer.decode(ids[-1:]).strip() in tuple("0123456789"):
            found = p
            break
    p = first if found is None else found
    probability = [float(p[tokenizer.convert_tokens_to_ids(str(k))]) for k in range(1, 6)]
    total = sum(k * q for k, q in enumerate(probability, 1)) / sum(probability)
    return total, found is not None


@pytest.mark.parametrize("louder", [1.5, pytest.param(0.2, marks=pytest.mark.slow)])
def test_scores_are_those_of_an_independent_computation(run, tmp_path, louder):
    model = random_model(tmp_path / "tiny-judge", louder)
    said = invoke("judge", run, "--backend", "transformers", "--model", model, "--dtype", "float64")
    judgements, records = judgements_of(run), read_records(run)
    assert len(judgements) == len(records) == 12
    digits = set()
    for judgement, record in zip(judgements[:4], records[:4], strict=True):
        best = record["responses"][record["rewards"].index(max(record["rewards"]))]
        assert judgement["response"] == best
        expected = [slow_score(model, record["prompt"], best, t) for t in judge.UNIT_TESTS]
        assert judgement["scores"] == pytest.approx([score for score, _ in expected], abs=1e-5)
        assert judgement["score"] == pytest.approx(sum(judgement["scores"]) / 5)
        digits |= {digit for _, digit in expected}
    assert digits == {louder > 1}  # a digit is generated, or none
    text = invoke("report", run)
    assert "tiny-judge (1 to 5), measured" in text
    assert "LMUnit (" not in text
    assert "tiny-judge: tiny-judge by transformers, asked the package's 5 unit tests." in text
    without = sum(j["without_digit"] for j in judgements)
    first = [re.search("[0-9]", answer) for j in judgements for answer in j["answers"]]
    assert without == sum(digit is None or digit[0] not in "12345" for digit in first)
    if louder < 1:
        assert without == 60
        assert "60 of its 60 replies have no digit from 1 to 5" in said
        assert "NONE of the 60 replies of tiny-judge has a digit from 1 to 5: it does" in text
    scores = {
        s: [j["score"] for j in judgements if j["seed"] == s and j["method"] == "bon"]
        for s in (1, 2)
    }
    found = Run.read(run).value("judge:tiny-judge", method="bon")
    assert found.mean == pytest.approx(sum(sum(v) / 3 for v in scores.values()) / 2)


@pytest.mark.slow
def test_batches_do_not_change_scores(run, model, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    words = ("--backend", "transformers", "--model", model, "--dtype", "float64")
    invoke("judge", run, *words, "--batch-size", "1")
    invoke("judge", copy, *words, "--batch-size", "16")
    for one, other in zip(judgements_of(run), judgements_of(copy), strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
        assert one["answers"] == other["answers"]


def test_judging_is_resumable(run, model):
    words = ("--backend", "transformers", "--model", model)
    invoke("judge", run, *words)
    (file,) = (only_judge(run) / "records").glob("*.jsonl")
    whole = lines(only_judge(run))
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(rows[:5]) + rows[5][:40])
    with pytest.warns(UserWarning, match="half-written"):
        invoke("judge", run, *words)
    key = "benchmark method seed idx".split()
    ordered = sorted(lines(only_judge(run)), key=lambda r: [r[k] for k in key])
    assert ordered == sorted(whole, key=lambda r: [r[k] for k in key])


def test_unit_tests_of_a_file_are_asked_instead(run, model, tmp_path):
    (tmp_path / "tests.txt").write_text("Is it short?\n\n  Is it kind?  \n")
    words = ("--backend", "transformers", "--model", model, "--unit-tests", tmp_path / "tests.txt")
    invoke("judge", run, *words, "--dtype", "float64")
    judgement = judgements_of(run)[0]
    expected = [
        slow_score(model, judgement["prompt"], judgement["response"], test)[0]
        for test in ("Is it short?", "Is it kind?")
    ]
    assert judgement["scores"] == pytest.approx(expected, abs=1e-5)
    declared = read_declaration(only_judge(run))
    assert declared["unit_tests"] == ["Is it short?", "Is it kind?"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"unit_tests: .* is empty"):
        judge.read_unit_tests(tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="there is no file"):
        judge.read_unit_tests(tmp_path / "none.txt")
    (tmp_path / "mark.txt").write_bytes("Is it brief?\r\n".encode("utf-8-sig"))
    assert judge.read_unit_tests(tmp_path / "mark.txt") == ("Is it brief?",)
    (tmp_path / "twice.txt").write_text("Is it so?\nB?\nIs it so?\nA?\n")  # which then counts twice
    assert judge.read_unit_tests(tmp_path / "twice.txt") == ("Is it so?", "B?", "Is it so?", "A?")
    (tmp_path / "many.txt").write_text("Is it so?\n" * (judge.MOST_TESTS + 1))
    with pytest.raises(
        ValueError, match=rf"^unit_tests: .*many.txt has more than {judge.MOST_TESTS} "
    ):
        judge.read_unit_tests(tmp_path / "many.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"unit_tests: .*bytes.txt is not text"):
        judge.read_unit_tests(tmp_path / "bytes.txt")


def test_there_are_five_tests_of_our_own():
    assert len(set(judge.UNIT_TESTS)) == 5
    assert all(test.endswith("?") for test in judge.UNIT_TESTS)


probabilities = st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5)


@given(probabilities)
def test_score_is_the_weighted_digit(p):
    choices = {str(k): math.log(q) for k, q in enumerate(p, 1)} | {"0": 0.0, "6": 0.0, "the": 0.0}
    expected = sum(k * q for k, q in enumerate(p, 1)) / sum(p)
    assert judge.score([("4", choices)]) == pytest.approx(expected)
    assert 1 <= judge.score([("4", choices)]) <= 5 + 1e-9


def test_the_spellings_of_a_digit_count_together():
    choices = {"4": math.log(0.1), " 4": math.log(0.3), "4 ": math.log(0.2), "1": math.log(0.4)}
    assert judge.score([("4", choices)]) == pytest.approx(0.6 * 4 + 0.4)


def test_the_digit_is_the_one_after_score():
    def place(token, digit):
        return token, {str(digit): 0.0}

    words = [place("1", 1), place('{"', 2), place("score", 3), place('":', 4), place(' "', 4)]
    assert judge.score([*words, place("4", 5), place("2", 2)]) == 5
    assert judge.score([place("well", 1), place(" 3", 3), place("5", 5)]) == 3
    assert judge.score([place("no", 2), place("digit", 3)]) == 2
    assert judge.score([place("score", 2), place("0", 4)]) == 4  # out of range, but the place
    with pytest.raises(ValueError, match="gave no digit"):
        judge.score([("4", {"four": 0.0})])


def test_lmunit_is_asked_through_its_chat_template_and_weighed_by_us(run, monkeypatch):
    """With stand-ins for lmunit and vllm, which need GPUs."""
    seen = {}

    class Model:
        def __init__(self, path, gpus):
            seen["model"] = (path, gpus)
            self.tokenizer = tokenizers.load_tokenizer(DREAM, "Qwen2Tokenizer")
            self.tokenizer.chat_template = "<{{ messages[0].content }}>"
            spelt = {1: '{"', 2: "score", 3: '":', 4: ' "', 5: "4"}
            self.tokenizer.decode = lambda ids: spelt[ids[0]]
            self.llm = SimpleNamespace(generate=self.generate)

        def generate(self, texts, parameters):
            seen.setdefault("texts", []).extend(texts)
            seen["parameters"] = parameters
            digits = {
                20 + d: SimpleNamespace(decoded_token=str(d), logprob=math.log(p))
                for d, p in ((0, 0.4), (3, 0.1), (4, 0.2), (5, 0.3))
            }
            output = SimpleNamespace(token_ids=[1, 2, 3, 4, 5], logprobs=[{}] * 4 + [digits])
            return [SimpleNamespace(outputs=[output]) for _ in texts]

    monkeypatch.setitem(sys.modules, "lmunit", SimpleNamespace(LMUnit=Model))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    invoke("judge", run, "--model", DREAM, "--gpus", "2")
    assert seen["model"] == (str(DREAM), 2)
    assert seen["parameters"] == {"temperature": 0.0, "max_tokens": 10, "logprobs": 20}
    assert len(seen["texts"]) == 12 * 5
    assert seen["texts"][0].startswith("<Query: ")
    expected = (3 * 0.1 + 4 * 0.2 + 5 * 0.3) / 0.6
    assert {round(r["score"], 9) for r in judgements_of(run)} == {round(expected, 9)}


def test_an_answer_that_cannot_be_judged_is_counted(run, monkeypatch):
    class Silent:
        declaration = {"backend": "test", "model": {"name": "silent"}}  # noqa: RUF012

        def answer(self, questions):
            return [[("no", {} if "Query: 22\n" in q else {"3": 0.0})] for q in questions]

    said = []
    expected = sum(r["prompt"] == "22" for r in read_records(run))
    assert judging.run(run, Silent(), judge.UNIT_TESTS, said.append) == expected > 0
    assert f"{expected} failed, mean score 3.000" in "\n".join(said)
    assert f"{expected} answers are not judged" in invoke("report", run)


class Steady:
    """Gives every answer a 3; counts the questions."""

    declaration = {"backend": "test", "model": {"name": "steady"}}  # noqa: RUF012

    def __init__(self):
        self.questions = 0

    def answer(self, questions):
        self.questions += len(questions)
        return [[("3", {"3": 0.0})] for _ in questions]


def test_a_judge_waits_for_what_another_holds(run, monkeypatch):
    """And takes it over, if the other is gone without having written it."""
    declaration = {"run": Run.read(run).declaration["fingerprint"]}
    declaration |= {"unit_tests": list(judge.UNIT_TESTS), **Steady.declaration}
    other = RunFolder(judging.folder_of(run, declaration), declaration, require=require_judgement)
    records = read_records(run)
    held = contextlib.ExitStack()
    held.enter_context(other.lock(repr([key_of(r) for r in records[: judging.AT_A_TIME]])))
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        held.close()

    monkeypatch.setattr(judging.time, "sleep", sleep)
    steady = Steady()
    assert judging.run(run, steady, judge.UNIT_TESTS, lambda said: None) == 0
    assert waits == [judging.POLL_SECONDS]
    assert len(lines(only_judge(run))) == len(records) == 12
    assert steady.questions == 12 * 5
    judging.run(run, steady, judge.UNIT_TESTS, lambda said: None)
    assert steady.questions == 12 * 5


def test_a_question_that_is_too_long_fails_alone(run, model, tmp_path):
    short = shutil.copytree(model, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    for limit, failed in ((20, 12), (4096, 0)):
        (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": limit}))
        shutil.rmtree(run / JUDGES, ignore_errors=True)
        words = ("--backend", "transformers", "--model", short)
        output = invoke("judge", run, *words, code=int(failed > 0))
        assert f"{failed} failed" in output
    steady = Steady()

    def answer(questions):
        if any("Query: 22\n" in q for q in questions):
            raise ValueError("too long")
        return Steady.answer(steady, questions)

    shutil.rmtree(run / JUDGES)
    steady.answer = answer
    found = judging.run(run, steady, judge.UNIT_TESTS, lambda said: None)
    assert found == sum(r["prompt"] == "22" for r in read_records(run)) > 0
    reasons = {r["prompt"]: r["reason"] for r in judgements_of(run)}
    assert {p for p, reason in reasons.items() if reason == "too long"} == {"22"}


def test_a_tokenizer_with_more_tokens_than_the_judge_is_no_traceback(run, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "small")
    network = Qwen2ForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(50)
    network.save_pretrained(folder)
    output = invoke("judge", run, "--backend", "transformers", "--model", folder, code=1)
    assert "12 failed" in output
    assert "the judge has 50 tokens, its tokenizer more" in output


def test_code_of_a_judge_never_runs(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asks whether to run code"))
    for name, change in (
        ("other", {"model_type": "evil"}),
        ("known", {"model_type": "t5"}),
    ):
        folder = shutil.copytree(model, tmp_path / name)
        config = json.loads((folder / "config.json").read_text()) | change
        config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text("raise SystemExit('run')")
        with pytest.raises(ValueError, match=f"model_type: got '{change['model_type']}'"):
            invoke("judge", run, "--backend", "transformers", "--model", folder)


def test_the_run_is_looked_for_before_the_judge_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "examine_judge", lambda *a: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="no run folder"):
        invoke("judge", tmp_path)


class Spoken:
    """A judge that likes everything, and counts how often it is asked."""

    def __init__(self, name):
        self.declaration = {"backend": "test", "model": {"name": name}}
        self.asked = 0

    def answer(self, questions):
        self.asked += len(questions)
        return [[("5", {"5": 0.0})] for _ in questions]


def test_a_judge_is_not_repaired_as_a_run(run):
    """Its lines are no answers, and none would be left."""
    judging.run(run, Spoken("one"), judge.UNIT_TESTS, print)
    (folder,) = judges_of(run)
    before = {file: file.read_bytes() for file in folder.rglob("*.jsonl")}
    with pytest.raises(
        ValueError, match=f"^out: {folder} holds judgements of a run; repair {run}$"
    ):
        invoke("repair", folder)
    assert {file: file.read_bytes() for file in folder.rglob("*.jsonl")} == before


def test_judgements_without_a_declaration_are_not_left_out_silently(run):
    judging.run(run, Spoken("one"), judge.UNIT_TESTS, print)
    (folder,) = judges_of(run)
    (folder / "run.json").unlink()
    reason = f"{folder} holds no judgements of this run .*it has no run.json"
    for command in ("report", "browse"):
        with pytest.raises(ValueError, match=reason):
            invoke(command, run)
    assert f"judged by {folder.name}: cannot be read" in invoke("list", run)
    assert "it has no run.json" in invoke("repair", run)
    assert judges_of(run) == []


def test_a_link_is_no_second_judge(run):
    judging.run(run, Spoken("one"), judge.UNIT_TESTS, print)
    (folder,) = judges_of(run)
    (folder.parent / "again").symlink_to(folder.name)
    reason = "again is a link, expected a folder of the run itself"
    with pytest.raises(ValueError, match=reason):
        invoke("report", run)
    assert re.search(f"{run}: cannot be read: .*{reason}", invoke("list", run))


def test_a_file_in_the_place_of_the_judges_is_named(run):
    (run / JUDGES).write_text("")
    with pytest.raises(ValueError, match=f"{run / JUDGES} is no folder; move it elsewhere"):
        invoke("report", run)


def test_judges_live_side_by_side(run):
    """Each judge, and each set of unit tests, has a folder and a column."""
    one, other, own = Spoken("one"), Spoken("o/ther"), ("Is it kind?", "Is it short?")
    assert judging.run(run, one, judge.UNIT_TESTS, print) == 0
    assert one.asked == 12 * 5
    assert judging.run(run, other, judge.UNIT_TESTS, print) == 0
    judging.run(run, one, judge.UNIT_TESTS, print)
    assert one.asked == 12 * 5  # what is judged is not asked again
    assert judging.run(run, one, own, print) == 0
    assert one.asked == 12 * 5 + 12 * 2
    assert len(judges_of(run)) == 3
    for folder in judges_of(run):
        assert read_declaration(folder)["run"] == read_declaration(run)["fingerprint"]
    text = invoke("report", run)
    for label in ("one", "ther", "one, other unit tests"):
        assert f"| {label} (1 to 5), measured" in text
    assert (
        "one, other unit tests: one by test, asked 2 unit tests of its own: “Is it kind?”; “Is it"
        in text
    )
    assert "judged by one-" in invoke("list", run)


@pytest.mark.parametrize(
    ("model", "tests", "label", "published"),
    [
        ("ContextualAI/LMUnit-qwen2.5-72b", judge.UNIT_TESTS, "LMUnit", True),
        ("ContextualAI/LMUnit-qwen2.5-72b", ("Is it?",), "LMUnit, other unit tests", False),
        ("someone/LMUnit-qwen2.5-72b", judge.UNIT_TESTS, "LMUnit-qwen2.5-72b", False),
        ("another", judge.UNIT_TESTS, "another", False),
    ],
)
def test_lmunit_is_called_so_and_nothing_else_is(run, model, tests, label, published):
    judging.run(run, Spoken(model), tests, print)
    found = Run.read(run)
    assert list(found.judges_by_label) == [label]
    assert ("lmunit" in found.measures) == published
    assert f"{label} (1 to 5), measured" in invoke("report", run)


def test_two_lmunits_have_a_column_each(run):
    """Of two commits, say: then neither may stand for the paper's."""
    for commit in ("a" * 40, "b" * 40):
        spoken = Spoken("ContextualAI/LMUnit-qwen2.5-72b")
        spoken.declaration["model"]["commit"] = commit
        judging.run(run, spoken, judge.UNIT_TESTS, print)
    found = Run.read(run)
    assert list(found.measures)[2:] == ["judge:LMUnit #1", "judge:LMUnit #2"]
    text = invoke("report", run)
    for commit in ("a" * 40, "b" * 40):
        assert re.search(rf"LMUnit #\d: ContextualAI/LMUnit-qwen2.5-72b@{commit} by test", text)


def test_a_judge_of_another_run_is_no_judge_of_this_one(run, tmp_path):
    other = tmp_path / "other"
    tiny_run(other, methods=["bon", "entrgi"], seeds=[1], prompts=3, batch_size=3)
    judging.run(other, Spoken("one"), judge.UNIT_TESTS, print)
    judging.run(run, Spoken("two"), judge.UNIT_TESTS, print)
    (mine,), (copied,) = judges_of(run), judges_of(other)
    shutil.copytree(copied, run / JUDGES / copied.name)
    (run / JUDGES / "damaged" / "records").mkdir(parents=True)
    (run / JUDGES / "damaged" / "run.json").write_text("{")
    reason = r"no judgements of this run \(it has judged another run, .*repair"
    with pytest.raises(ValueError, match=r"damaged holds no judgements|" + reason):
        invoke("report", run)
    said = invoke("list", run)
    assert re.search(rf"judged by {copied.name}: cannot be read: .*{reason}", said)
    assert "judged by damaged: cannot be read" in said
    assert f"judged by {mine.name}: 12 of 12" in said
    said = invoke("repair", run)
    assert f"judges/{copied.name}: it has judged another run" in said
    assert "judges/damaged: " in said
    assert judges_of(run) == [mine]
    assert (run / "dropped" / JUDGES / copied.name / "run.json").is_file()
    assert "two (1 to 5), measured" in invoke("report", run)
    shutil.copytree(copied, run / JUDGES / copied.name)
    invoke("repair", run)
    assert len(list((run / "dropped" / JUDGES).iterdir())) == 3


def test_a_judgement_of_another_answer_does_not_count(run):
    """As when the records were computed again after the judge had been there."""
    judging.run(run, Spoken("one"), judge.UNIT_TESTS, print)
    (file,) = (only_judge(run) / "records").glob("*.jsonl")
    rows = file.read_text().splitlines(keepends=True)
    stale = json.loads(rows[3]) | {"response": "another"}
    file.write_text("".join([*rows[:3], json.dumps(stale) + "\n", *rows[4:]]))
    reason = "line 4: it judges another answer than the best of the run"
    with pytest.raises(ValueError, match=rf"{reason}.*command `judge` computes them again"):
        invoke("report", run)
    with pytest.raises(ValueError, match=reason):
        judging.run(run, Spoken("one"), judge.UNIT_TESTS, print)
    assert reason in invoke("list", run)
    assert reason in invoke("repair", run)
    again = Spoken("one")
    judging.run(run, again, judge.UNIT_TESTS, print)
    assert again.asked == 8 * 5
    assert "one (1 to 5), measured" in invoke("report", run)


def test_what_is_wrong_with_a_folder_is_known_before_the_judge_is_loaded(run, model, monkeypatch):
    words = ("judge", run, "--backend", "transformers", "--model", model)
    invoke(*words)
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    mine = folders.made_with()
    monkeypatch.setattr(folders, "made_with", lambda: mine | {"commit": "other"})
    with pytest.raises(ValueError, match="made with other code"):
        invoke(*words)
    monkeypatch.setattr(folders, "made_with", lambda: mine)
    for folder in (only_judge(run), run):
        (file,) = (folder / "records").glob("*.jsonl")
        before = file.read_bytes()
        file.write_bytes(b"garbage\n" + before)
        with pytest.raises(ValueError, match=rf"{file}, line 1: it is not JSON"):
            invoke(*words)
        file.write_bytes(before)


def test_a_judge_is_pinned_to_the_commit_that_it_began_with(run, model, tmp_path, monkeypatch):
    newest, asked = ["a" * 40], []

    def fetch(hub_id, revision, allow_patterns):
        commit = revision if revision and len(revision) == 40 else newest[0]
        asked.append(commit)
        folder = tmp_path / f"models--{hub_id.replace('/', '--')}" / "snapshots" / commit
        if not folder.exists():
            shutil.copytree(model, folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    words = ("judge", run, "--backend", "transformers", "--model")
    invoke(*words, "o/judge")
    newest[0] = "b" * 40
    asked.clear()
    said = invoke(*words, "o/judge@main")
    assert set(asked) == {"a" * 40}
    assert f"o/judge: going on with the commit {'a' * 40}, as begun" in said
    assert len(judges_of(run)) == 1
    invoke(*words, f"o/judge@{'b' * 40}")  # another one on purpose
    assert len(judges_of(run)) == 2


def test_a_judge_in_another_precision_is_another_judge(model):
    """Its judgements differ: they are not to be gone on with."""
    found = [
        backends.examine_judge("transformers", str(model), "cpu", name, 2, 1).declaration
        for name in ("float32", "bfloat16")
    ]
    assert [declared["dtype"] for declared in found] == ["float32", "bfloat16"]
    one, other = (judging.folder_of(Path("run"), declared) for declared in found)
    assert one != other


def test_ctrl_c_while_a_judge_is_loaded_is_one_line(run, model, monkeypatch, capfd):
    def stops(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "load", stops)
    words = ["judge", run, "--backend", "transformers", "--model", model]
    monkeypatch.setattr(sys, "argv", ["entrgi_ref.paper", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        paper.main()
    assert stop.value.code == 130
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"stopped: nothing new has been written to {run}"


def test_judgements_where_earlier_code_put_them_are_mentioned(run):
    (run / "judge").mkdir()
    for command in ("report", "list"):
        assert f"{run / 'judge'} holds judgements in an earlier layout" in invoke(command, run)


def test_replies_without_a_digit_are_counted_and_shown(run):
    class Hesitant(Spoken):
        def answer(self, questions):
            fine = super().answer(questions)
            return [[("well", {"3": 0.0})], [("0", {"3": 0.0})], *fine[2:]]

    said = []
    judging.run(run, Hesitant("hesitant"), judge.UNIT_TESTS, said.append)
    assert any(
        "4 of its 60 replies have no digit from 1 to 5" in line for line in said
    )  # two a part
    assert sum(j["without_digit"] for j in judgements_of(run)) == 4
    assert "4 of the 60 replies of hesitant have no digit" in invoke("report", run)


def test_a_judge_that_generates_nothing_fails(run):
    class Mute(Spoken):
        def answer(self, questions):
            return [[] for _ in questions]

    assert judging.run(run, Mute("mute"), judge.UNIT_TESTS, print) == 12
    assert {j["reason"] for j in judgements_of(run)} == {"the judge generated nothing"}


def test_methods_are_compared_on_the_answers_that_are_judged_for_all(run):
    class Partial(Spoken):
        def answer(self, questions):
            return [[("4", {} if "Query: 22\n" in q and len(q) % 2 else {"4": 0.0})]
                    for q in questions]  # fmt: skip

    judging.run(run, Partial("partial"), judge.UNIT_TESTS, print)
    found = Run.read(run)
    scored = {key_of(j) for j in judgements_of(run) if j["status"] == "ok"}
    for benchmark, seed, idx in found.common("judge:partial"):
        for record in found.select(benchmark=benchmark, seed=seed, idx=idx):
            assert key_of(record) in scored


def test_ctrl_c_says_how_many_are_judged(run):
    class Stops(Spoken):
        def answer(self, questions):
            if self.asked:
                raise KeyboardInterrupt
            return super().answer(questions)

    with pytest.raises(StoppedError, match=r"8 of 12 judgements are kept in .*; the same"):
        judging.run(run, Stops("stops"), judge.UNIT_TESTS, print)
    assert len(judgements_of(run)) == 8


def test_prompts_that_failed_are_not_judged(tmp_path):
    tiny_run(tmp_path, TinyTestbed(judge=FailingReward(2, dislikes=("22",))))
    failed = [record for record in read_records(tmp_path) if record["status"] == "failed"]
    assert len(failed) == 2
    assert judging.run(tmp_path, Spoken("one"), judge.UNIT_TESTS, print) == 0
    assert len(judgements_of(tmp_path)) == len(read_records(tmp_path)) - 2


def test_lmunit_without_its_package_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmunit", None)
    with pytest.raises(ValueError, match="extra `judge`"):
        invoke("judge", run)


# Without a network


def spoken(*tokens):
    """What a judge generates: each token, chosen from itself alone."""
    return [(token, {token: 0.0}) for token in tokens]


@pytest.mark.parametrize(
    ("tokens", "place", "fine"),
    [
        (["3"], 0, True),
        ([" 5 ", "1"], 0, True),
        (["well", "4", "2"], 1, True),
        (["0"], 0, False),
        (["6", "1"], 0, False),
        (["well", "9"], 1, False),
        (["no"], None, False),
        ([], None, False),
        (["42", "3"], 1, True),
        (["1", "score", ":", "2", "3"], 3, True),
        (["1", "score"], None, False),
        ([" score ", "5"], 1, True),
        (["score", "4", "score", "5"], 1, True),
    ],
)
def test_where_a_digit_stands_and_whether_it_is_one(tokens, place, fine):
    generated = spoken(*tokens)
    assert judge.digit_place(generated) == place
    assert judge.has_digit(generated) == fine


def test_what_a_judge_is_asked():
    assert judge.question("Why?", "So.", "Is it?") == (
        "Query: Why?\n\nResponse: So.\n\nUnit Test: Is it?"
    )
    with pytest.raises(ValueError, match=r".") as error:
        judge.score(spoken("a", "0"))
    assert str(error.value) == "the judge gave no digit from 1 to 5 a probability: 'a0'"


def answers_of(folder, prompts, status="ok"):
    """A run folder by hand: an answer to each prompt, of which the second is the best."""
    declaration = {
        "experiment": "main",
        "testbed": "none",
        "settings": {"guidance": {}},
        "rewards": {"r": {"name": "r"}},
        "main_reward": "r",
        "benchmarks": {"b": "ab"},
    }
    opened = RunFolder(folder, declaration)
    for idx, prompt in enumerate(prompts):
        opened.write(
            {
                "experiment": "main",
                "benchmark": "b",
                "method": "bon",
                "variant": {},
                "seed": 1,
                "idx": idx,
                "prompt": prompt,
                "status": status,
                "fingerprint": opened.fingerprint,
                "responses": ["worse", f"best {idx}"],
                "rewards": [0.0, 1.0],
            }
        )
    opened.close()
    return folder


class Picky(Spoken):
    """It cannot read long questions, and gives short ones no digit; it counts what it is asked."""

    def __init__(self, name="some/org/picky one"):
        super().__init__(name)
        self.parts = []

    def answer(self, questions):
        self.parts.append(len(questions))
        for question in questions:
            if "long" in question:
                raise ValueError(f"too  long:\n{question.split()[1]}")
        return [spoken("x") if "short" in question else spoken("4") for question in questions]


def judged(folder, own, tests=("A?", "B?"), **options):
    """What a judge says of a run, and the records."""
    said = []
    failed = judging.run(folder, own, tests, said.append, **options)
    place = judging.folder_of(folder, judging.declare(folder, own.declaration, tests))
    return failed, said, place, read_records(place, require_judgement)


def test_judgements_are_not_written_through_a_link(tmp_path):
    run = answers_of(tmp_path, ["fine"])
    _, _, place, _ = judged(run, Picky())
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"^out: {place} is a link, expected a folder of the run"):
        judging.run(run, Picky(), ("A?", "B?"), print)


def test_a_judgement_holds_what_was_said(tmp_path, monkeypatch):
    """A question that fails alone spoils no other; the first reason is said."""
    monkeypatch.setattr(judging, "commit", lambda: "c0ffee")
    monkeypatch.setattr(judging, "versions", lambda: {"entrgi_ref": "1"})
    run = answers_of(tmp_path, ["fine", "long1", "short", "long2"])
    own = Picky()
    failed, said, place, found = judged(run, own)
    assert own.parts == [8, 2, 2, 2, 2]
    assert failed == 3
    assert said == [
        "4 of 4 answers judged",
        f"4 answers judged in {place}, 3 failed, mean score 4.000",
        "  the first: too long: long1",
    ]
    mine = read_declaration(place)["fingerprint"]
    assert place == run / JUDGES / f"picky-one-{mine[:8]}"
    assert found[0] == {
        "experiment": "main",
        "benchmark": "b",
        "method": "bon",
        "variant": {},
        "seed": 1,
        "idx": 0,
        "prompt": "fine",
        "response": "best 0",
        "scores": [4.0, 4.0],
        "score": 4.0,
        "answers": ["4", "4"],
        "without_digit": 0,
        "status": "ok",
        "reason": None,
        "fingerprint": mine,
        "commit": "c0ffee",
        "versions": {"entrgi_ref": "1"},
        "timing": {},
    }
    shown = ("scores", "score", "answers", "without_digit", "status", "reason")
    nothing = "the judge gave no digit from 1 to 5 a probability: 'x'"
    assert [[one[name] for name in shown] for one in found[1:]] == [
        [[], None, [], 0, "failed", "too long: long1"],
        [[], None, ["x", "x"], 2, "failed", nothing],
        [[], None, [], 0, "failed", "too long: long2"],
    ]


class Halting(Picky):
    """It gives the second unit test no digit."""

    def answer(self, questions):
        return [spoken("x" if "B?" in question else "4") for question in questions]


def test_an_answer_is_judged_by_all_unit_tests_or_by_none(tmp_path):
    failed, _, _, (only,) = judged(answers_of(tmp_path, ["p"]), Halting())
    assert failed == 1
    assert (only["scores"], only["score"], only["answers"]) == ([], None, ["4", "x"])
    assert (only["without_digit"], only["status"]) == (1, "failed")


class Graded(Picky):
    """It gives the digit that is asked about."""

    def answer(self, questions):
        return [spoken(question.split()[1]) for question in questions]


def test_the_mean_score_is_that_of_all_answers(tmp_path):
    _, said, place, _ = judged(answers_of(tmp_path, ["1", "1", "4"]), Graded())
    assert said[1:] == [f"3 answers judged in {place}, 0 failed, mean score 2.000"]


class Hesitant(Picky):
    """It says 0 where it hesitates, with half a mind for 2."""

    def answer(self, questions):
        return [[("0", {"2": math.log(0.5)})] if "hm" in q else spoken("4") for q in questions]


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (["fine", "fine"], []),
        (
            ["fine", "hm"],
            [
                (
                    "  2 of its 4 replies have no digit from 1 to 5: their score is what these "
                    "were given instead of what was said"
                )
            ],
        ),
        (
            ["hm"],
            [
                (
                    "  2 of its 2 replies have no digit from 1 to 5: their score is what these "
                    "were given instead of what was said, so it does not judge at all"
                )
            ],
        ),
    ],
)
def test_a_judge_that_names_no_digit_is_named(tmp_path, prompts, expected):
    mean = 4.0 - 2 * prompts.count("hm") / len(prompts)
    failed, said, place, _ = judged(answers_of(tmp_path, prompts), Hesitant())
    assert failed == 0
    n = len(prompts)
    summed = f"{n} answers judged in {place}, 0 failed, mean score {mean:.3f}"
    assert said == [f"{n} of {n} answers judged", summed, *expected]


def test_of_a_run_without_answers_nothing_is_judged(tmp_path):
    failed, said, place, found = judged(answers_of(tmp_path, []), Picky())
    assert (failed, found) == (0, [])
    assert said == [f"0 answers judged in {place}, 0 failed"]


def test_a_judgement_without_an_answer_is_not_counted(tmp_path):
    """Such as one of an answer that has been taken out of the run since."""
    run = answers_of(tmp_path, ["fine", "good"])
    _, _, place, (first, _) = judged(run, Picky())
    (file,) = (place / "records").glob("*.jsonl")
    stray = first | {"idx": 7, "score": 1.0, "scores": [1.0, 1.0], "without_digit": 2}
    file.write_text(file.read_text() + json.dumps(stray) + "\n")
    failed, said, _, found = judged(run, Picky())
    assert (failed, len(found)) == (0, 3)
    assert said == [f"2 answers judged in {place}, 0 failed, mean score 4.000"]
    file.write_text(json.dumps(first) + "\n" + json.dumps(stray) + "\n")
    assert judged(run, Picky())[1][0] == "2 of 2 answers judged"


def test_questions_are_asked_of_eight_prompts_at_a_time(tmp_path):
    own = Picky()
    _, said, _, found = judged(answers_of(tmp_path, [f"p{i}" for i in range(17)]), own)
    assert own.parts == [16, 16, 2]
    assert said[:3] == [f"{n} of 17 answers judged" for n in (8, 16, 17)]
    assert [one["response"] for one in found] == [f"best {i}" for i in range(17)]


def test_a_judge_goes_on_beside_another_and_asks_nothing_that_is_judged(tmp_path, monkeypatch):
    """What the other holds it leaves, and judges the rest before it waits; what the other has
    written while a lock was waited for is not asked again.
    """
    run = answers_of(tmp_path, [f"p{i}" for i in range(20)])
    judged(run, other := Picky("other"), ("?",))
    assert other.parts == [8, 8, 4]
    template = read_records(judging.folder_of(run, judging.declare(run, other.declaration, ("?",))),
                            require_judgement)  # fmt: skip
    own, held, asleep = Picky(), [0], []
    keys = [repr([key_of(one) for one in template[i : i + 8]]) for i in (0, 8, 16)]
    lock = RunFolder.lock

    @contextlib.contextmanager
    def locked(self, name, **options):
        with lock(self, name, **options) as ours:
            if name == keys[1]:  # another process has done it meanwhile
                mine = {"fingerprint": self.fingerprint}
                file = self.path / "records" / "another.jsonl"
                file.write_text("".join(json.dumps(r | mine) + "\n" for r in template[8:16]))
            yield ours and not (held and name == keys[0])

    def sleep(seconds):
        asleep.append((seconds, [*own.parts]))
        held.clear()

    monkeypatch.setattr(RunFolder, "lock", locked)
    monkeypatch.setattr(judging.time, "sleep", sleep)
    _, said, _, found = judged(run, own, ("?",))
    assert asleep == [(judging.POLL_SECONDS, [4])]
    assert own.parts == [4, 8]
    assert said[:2] == ["12 of 20 answers judged", "20 of 20 answers judged"]
    assert len(found) == 20


def test_other_code_does_not_go_on_judging_unless_it_is_allowed(tmp_path, monkeypatch):
    run = answers_of(tmp_path, ["p"])
    judged(run, Picky())
    mine = folders.made_with()
    monkeypatch.setattr(folders, "made_with", lambda: mine | {"commit": "other"})
    with pytest.raises(ValueError, match="made with other code"):
        judged(run, Picky())
    assert judged(run, Picky(), other_version=True)[0] == 0


def test_the_commit_that_a_judge_began_with_is_that_of_the_same_judge(tmp_path):
    """Of the same backend, the same unit tests and the same model; of two commits, neither."""
    run = answers_of(tmp_path, ["p"])
    own = Picky()
    for model in ({"name": "o/m", "commit": "c1"}, {"name": "o/other", "commit": "c2"},
                  {"name": "o/bare"}):  # fmt: skip
        own.declaration = {"backend": "test", "model": model}
        judged(run, own)
    own.declaration = {"backend": "test", "model": {"name": "o/twice", "commit": "c3"}}
    judged(run, own)
    own.declaration = {"backend": "test", "model": {"name": "o/twice", "commit": "c4"}}
    judged(run, own)

    def pinned(backend, model, tests=("A?", "B?")):
        return judging.pinned_judge(run, backend, model, tests)

    assert pinned("test", "o/m") == pinned("test", "o/m@main") == {"o/m": "c1"}
    assert pinned("test", "o/other") == {"o/other": "c2"}
    for none in (
        pinned("lmunit", "o/m"),
        pinned("test", "o/m", ("A?",)),
        pinned("test", "o/new"),
        pinned("test", "o/bare"),
        pinned("test", "o/twice"),
    ):
        assert none == {}


class Words(PreTrainedTokenizerBase):
    """A tokenizer of texts that are ids, with spaces; some of them are spelt as digits."""

    def __init__(self, end, spelt):
        self.__dict__.update(end=end, spelt=spelt)

    @property
    def eos_token_id(self):
        return self.end

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [int(word) for word in text.split()]}

    def get_vocab(self):
        return {f"<{i}>": i for i in range(12)}

    def decode(self, ids):
        (only,) = ids
        return self.spelt.get(only, f"<{only}>")


class Network:
    """One of ten tokens, which answers by a question's last token, and notes what it is given."""

    device = torch.device("cpu")
    config = PretrainedConfig(max_position_embeddings=13)

    def __init__(self, answers, logits):
        self.answers, self.logits, self.given = answers, logits, []

    def get_input_embeddings(self):
        return SimpleNamespace(weight=torch.zeros(10, 1))

    def generate(self, tokens, attention_mask, **options):
        self.given.append((tokens.tolist(), attention_mask.tolist(), options))
        last = tokens[:, -1].tolist()
        return SimpleNamespace(
            sequences=torch.cat([tokens, torch.tensor([self.answers[i] for i in last])], 1),
            logits=torch.stack([self.logits[i] for i in last], 1).unbind(),
        )


def test_a_causal_model_answers_greedily_up_to_its_end(monkeypatch):
    """In batches, with the log-probabilities of the tokens that it has and that are digits."""
    monkeypatch.setattr(tokenizers, "conversation", lambda tokenizer, text: f"1 {text}")
    answers = {2: [5, 9, 7], 3: [7, 8, 6], 4: [9, 9, 9]}
    generator = torch.Generator().manual_seed(0)
    logits = {last: torch.randn(3, 10, generator=generator) for last in answers}
    spelt = {5: " 3", 6: "4", 7: "12", 8: "0", 10: "5", 11: "1"}
    for end, lengths in ((9, [2, 3, 1]), (None, [3, 3, 3])):
        network = Network(answers, logits)
        own = backends.TransformersJudge({}, network, Words(end, spelt), 2)
        found = own.answer(["1 2", "3", "4"])
        options = {
            "max_new_tokens": 10,
            "do_sample": False,
            "eos_token_id": end,
            "pad_token_id": 9 if end else 0,
            "return_dict_in_generate": True,
            "output_logits": True,
        }
        assert network.given == [
            ([[1, 1, 2], [0, 1, 3]], [[1, 1, 1], [0, 1, 1]], options),
            ([[1, 4]], [[1, 1]], options),
        ]
        for generated, last, length in zip(found, answers, lengths, strict=True):
            words = [spelt.get(i, f"<{i}>") for i in answers[last][:length]]
            assert [word for word, _ in generated] == words
            for (_, choices), p in zip(generated, logits[last].softmax(-1), strict=False):
                expected = {" 3": float(p[5].log()), "4": float(p[6].log())}
                assert choices == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="it takes 14 positions, the judge has 13;"):
        own.answer(["1 1 2"])


def test_lmunit_answers_with_its_first_output(monkeypatch):
    """From its own chat template, with the likeliest tokens of each place."""

    def place(**likely):
        return {
            i: SimpleNamespace(decoded_token=t, logprob=p)
            for i, (t, p) in enumerate(likely.items())
        }

    first = SimpleNamespace(token_ids=[5, 6], logprobs=[place(a=-1.0, b=-2.0), place(c=-3.0)])
    other = SimpleNamespace(token_ids=[6], logprobs=[place(d=0.0)])
    asked = []

    def generate(texts, parameters):
        asked.append((texts, parameters))
        return [SimpleNamespace(outputs=[first, other]), SimpleNamespace(outputs=[other, first])]

    monkeypatch.setattr(tokenizers, "conversation", lambda tokenizer, text: f"1 {text}")
    model = SimpleNamespace(tokenizer=Words(9, {5: "4"}), llm=SimpleNamespace(generate=generate))
    own = backends.LMUnitJudge({}, model, "parameters")
    assert own.answer(["2 3", "4"]) == [
        [("4", {"a": -1.0, "b": -2.0}), ("<6>", {"c": -3.0})],
        [("<6>", {"d": 0.0})],
    ]
    assert asked == [(["1 2 3", "1 4"], "parameters")]


def test_a_judge_has_a_backend_a_batch_and_gpus(monkeypatch):
    """Each at least one, and known before anything of it is loaded."""
    loaded = []
    unit = SimpleNamespace(LMUnit=lambda *given: loaded.append(given) or "model")
    monkeypatch.setitem(sys.modules, "lmunit", unit)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))

    def examine(backend="lmunit", batch_size=1, gpus=1):
        return backends.examine_judge(backend, str(DREAM), "cpu", "auto", batch_size, gpus)

    for wrong, message in (
        ({"backend": "vllm"}, "backend: got 'vllm', expected one of 'lmunit', 'transformers'"),
        ({"batch_size": 0}, "batch_size: got 0, expected an integer of at least 1"),
        ({"gpus": 0}, "gpus: got 0, expected an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            examine(**wrong)
    examined = examine()
    model = checkpoints.identity(str(DREAM))
    assert examined.declaration == {"backend": "lmunit", "model": model}
    assert loaded == []
    own = examined.load()
    assert loaded == [(str(DREAM), 1)]
    assert (own.declaration, own.model) == (examined.declaration, "model")
    assert own.parameters == {"temperature": 0.0, "max_tokens": 10, "logprobs": 20}


def test_tokens_that_are_written_alike_are_one_choice():
    """Such as a letter and the byte that it is, in whatever order the vocabulary has them."""
    alike = [("4", math.log(0.5)), ("5", math.log(0.25)), ("4", math.log(0.125)), (" 4", -9.0)]
    for tokens in itertools.permutations(alike):
        found = {text: math.exp(log_p) for text, log_p in backends.by_text(tokens).items()}
        assert found == pytest.approx({"4": 0.625, "5": 0.25, " 4": math.exp(-9)})
    words = Words(None, {5: "3", 6: "4", 7: "3"})
    words.get_vocab = lambda: {f"<{i}>": i for i in reversed(range(10))}
    judge = backends.TransformersJudge({}, Network({}, {}), words, 1)
    assert list(judge._digits()) == [5, 6, 7]


def test_a_checkpoint_does_not_say_how_it_judges(tmp_path):
    """As generation_config.json would: what is never written, when to stop, in how many beams."""
    questions = ["is 3 more than 2? 0 to 9", "and 4?"]

    def answers():
        judge = backends.examine_judge("transformers", str(tmp_path), "cpu", "float32", 2, 1).load()
        return judge.answer(questions)

    causal(tmp_path)
    expected = answers()
    first = [words[0][0] for words in expected]
    tokens = tokenizers.load_tokenizer(tmp_path).encode("".join(first))
    for said in ({"suppress_tokens": tokens}, {"max_time": 1e-9}, {"num_beams": 3}):
        (tmp_path / "generation_config.json").write_text(json.dumps(said))
        assert answers() == expected, said
