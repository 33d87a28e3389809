"""`python -m entrgi_ref`: several prompts, methods and rewards, templates, tables."""

import csv
import inspect
import json
import re
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from checkpoints import DREAM, LONG, REWARD, SHORT, causal, changed, other_tokenizer, pair
from entrgi_ref import GuidanceConfig, SamplingConfig, __main__, generate
from entrgi_ref.__main__ import app
from entrgi_ref.commands import answer as answering
from entrgi_ref.commands.asked import Asked
from entrgi_ref.models import (
    LikelihoodReward,
    SequenceReward,
    SumOfRewards,
    checkpoints,
    load_denoiser,
)
from entrgi_ref.models.checkpoints import identity

TINY = ["--denoiser", str(DREAM), "--device", "cpu", "--dtype", "float64"]
FEW = [*TINY, "--reward", str(REWARD), "--new-tokens", "6", "--trajectories", "2"]


def invoke(*arguments, stdin=None):
    done = CliRunner().invoke(app, [*map(str, arguments)], input=stdin, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def read(folder):
    return json.loads((folder / "answers.json").read_text(encoding="utf-8"))


def config(method="entrgi", **changes):
    guidance = GuidanceConfig(steps=0, dtype="float64")
    if method != "bon":
        guidance = GuidanceConfig(method, dtype="float64")
    return replace(SamplingConfig(guidance, 2, 6, denoising_steps=6), **changes)


@pytest.fixture(scope="module")
def likelihood(tmp_path_factory):
    return causal(tmp_path_factory.mktemp("causal"))


@cache
def expected_answers(prompt):
    return generate(*pair("float64"), [prompt], config())


@pytest.mark.parametrize(
    "source",
    [
        "-",
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in ("arguments", "file", "--from -", "jsonl")
        ),
    ],
)
def test_prompts_as_words_from_a_file_and_from_standard_input(source, tmp_path):
    """Wherever they come from: the answers of `generate`, prompt by prompt."""
    lines = f"{SHORT}\n\n  {LONG}  \r\n"
    (tmp_path / "prompts.txt").write_text(lines)
    objects = [json.dumps({"prompt": prompt}) for prompt in (SHORT, LONG)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(objects) + "\n")
    words, stdin = {
        "arguments": ([SHORT, LONG], None),
        "-": (["-"], lines),
        "file": (["--from", tmp_path / "prompts.txt"], None),
        "--from -": (["--from", "-"], lines),
        "jsonl": (["--from", tmp_path / "prompts.jsonl"], None),
    }[source]
    output = invoke(*words, *FEW, "--out", tmp_path / "out", stdin=stdin)
    found = read(tmp_path / "out")["answers"]
    assert [one["prompt"] for one in found] == [SHORT, LONG]
    top1 = []
    for one in found:
        expected = expected_answers(one["prompt"])
        assert one["responses"] == expected.responses[0]
        assert one["rewards"] == expected.rewards[0].tolist()
        top1.append(expected.top1.item())
    assert f"2 of 2: {LONG}" in output
    assert re.search(rf"mean of 2 prompts\n.*\nentrgi +{sum(top1) / 2:+.2f} ", output)


def test_methods_side_by_side_and_what_is_written_of_them(tmp_path):
    """One table, one page with a panel for each, answers.json and a table of all answers."""
    files = ["--out", tmp_path / "out", "--table", tmp_path / "t.csv"]
    output = invoke(SHORT, *FEW, "--method", "bon,entrgi,aps", *files)
    found = read(tmp_path / "out")["answers"]
    denoiser, reward = pair("float64")
    methods = ["bon", "entrgi", "aps"]
    assert [one["method"] for one in found] == methods
    expected = {m: generate(denoiser, reward, [SHORT], config(m)) for m in methods}
    for one in found:
        right = expected[one["method"]]
        assert one["responses"] == right.responses[0]
        assert one["settings"] == json.loads(right.config.to_json())
        line = re.search(
            rf"^{one['method']} +([+-][\d.]+)[* ] +([+-][\d.]+) ", output, re.MULTILINE
        )
        assert line.groups() == (f"{right.top1.item():+.2f}", f"{right.average.item():+.2f}")
        assert one["checkpoints"]["denoiser"] == identity(DREAM)
        assert one["checkpoints"]["rewards"] == [identity(REWARD) | {"weight": 1.0}]
        assert one["made_with"]["torch"] == torch.__version__
    best = max(methods, key=lambda m: expected[m].top1.item())
    assert f"the best of {best}:" in output
    page = (tmp_path / "out" / "trace.html").read_text(encoding="utf-8")
    panels = json.loads(re.search(r"= (\{\"prompt\".*\});", page)[1])["panels"]
    assert [one["title"] for one in panels] == ["Unguided", "Guided: entrgi", "Guided: aps"]
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        right, k = expected[row["method"]], int(row["trajectory"])
        assert float(row["reward"]) == right.rewards[0, k].item()
        assert row["answer"] == right.responses[0][k]
        assert row["best"] == str(k == int(right.rewards[0].argmax()))


def test_a_page_of_several_prompts_holds_each(tmp_path):
    invoke(SHORT, LONG, *FEW, "--out", tmp_path, "--table", tmp_path / "t.json")
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    traces = json.loads(re.search(r"= (\{\"traces\".*\});", page)[1])["traces"]
    assert [trace["prompt"] for trace in traces] == [SHORT, LONG]
    for trace in traces:
        assert [one["title"] for one in trace["panels"]] == ["Unguided", "Guided: entrgi"]
        answers = ["".join(panel["frames"][-1]["tokens"]) for panel in trace["panels"]]
        assert all(answers)
    rows = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert [(row["prompt"], row["trajectory"]) for row in rows] == [
        (prompt, k) for prompt in (SHORT, LONG) for k in (0, 1)
    ]


def test_watch_shows_every_prompt_and_method():
    output = invoke(SHORT, LONG, *FEW, "--method", "bon,entrgi", "--watch")
    assert len(re.findall(r"^ +\d+  t [\d.]+  .*   R unguided$", output, re.MULTILINE)) == 2 * 5
    assert len(re.findall(r"^ +\d+  t [\d.]+  .*   R [+-]", output, re.MULTILINE)) == 2 * 5


def test_templates_one_for_all_or_one_for_each(tmp_path):
    for name, templates in (("all", ["a __ home"]), ("each", ["a __ home", "the ____"])):
        words = [word for text in templates for word in ("--template", text)]
        few = [*TINY, "--reward", REWARD, "--trajectories", "2"]
        invoke(SHORT, LONG, *few, *words, "--out", tmp_path / name)
        found = read(tmp_path / name)["answers"]
        assert [one["template"] for one in found] == [templates[0], templates[-1]]
        denoiser, reward = pair("float64")
        for one in found:
            start = denoiser.template(one["template"])
            blanks = int((start == denoiser.mask_id).sum())
            settings = config(new_tokens=len(start), denoising_steps=blanks)
            expected = generate(denoiser, reward, [one["prompt"]], settings, start=start[None])
            assert one["responses"] == expected.responses[0]
            assert one["settings"] == json.loads(settings.to_json())


def test_a_page_shows_the_template_in_the_unguided_answers_too(tmp_path):
    few = [*TINY, "--reward", REWARD, "--trajectories", "1"]
    invoke(SHORT, *few, "--template", "so it is __ or __", "--out", tmp_path)
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    panels = json.loads(re.search(r"= (\{\"prompt\".*\});", page)[1])["panels"]
    unguided, guided = (panel["frames"][0]["tokens"] for panel in panels)
    assert unguided == guided
    assert "so it is" in "".join(token or "" for token in unguided)


def test_a_file_may_bring_its_templates(tmp_path):
    objects = [{"prompt": SHORT, "template": "a __ home"}, {"prompt": LONG}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, objects)))
    few = [*TINY, "--reward", REWARD, "--trajectories", "1", "--new-tokens", "5"]
    invoke("--from", tmp_path / "p.jsonl", *few, "--out", tmp_path)
    found = read(tmp_path)["answers"]
    assert [one["template"] for one in found] == ["a __ home", None]
    assert found[1]["settings"]["new_tokens"] == 5  # of prompts without a template


def test_an_ordinary_causal_model_is_a_reward_by_its_likelihood(likelihood, tmp_path):
    words = [*TINY, "--reward", likelihood, "--new-tokens", "6", "--trajectories", "2"]
    invoke(SHORT, *words, "--out", tmp_path)
    denoiser = load_denoiser(DREAM, dtype="float64", device="cpu")
    reward = LikelihoodReward.from_pretrained(likelihood, denoiser, dtype="float64")
    expected = generate(denoiser, reward, [SHORT], config())
    found = read(tmp_path)
    assert found["responses"] == expected.responses[0]
    assert found["rewards"] == pytest.approx(expected.rewards[0].tolist())
    assert max(found["rewards"]) < 0


def test_weighted_sums_of_rewards(likelihood, tmp_path):
    words = ["--reward", likelihood, "--reward", REWARD]
    weighted = ["--reward-weight", "2", "--reward-weight=-0.5"]
    few = ["--new-tokens", "6", "--trajectories", "2", "--table", tmp_path / "t.json"]
    output = invoke(SHORT, *TINY, *words, *weighted, *few, "--out", tmp_path)
    denoiser, sequence = pair("float64")
    other = LikelihoodReward.from_pretrained(likelihood, denoiser, dtype="float64")
    total = SumOfRewards.of([other, sequence], [2, -0.5])
    expected = generate(denoiser, total, [SHORT], config())
    found = read(tmp_path)
    assert found["responses"] == expected.responses[0]
    assert found["rewards"] == pytest.approx(expected.rewards[0].tolist())
    assert [one["weight"] for one in found["checkpoints"]["rewards"]] == [2, -0.5]
    parts = found["rewards_by_model"]
    assert list(parts) == [str(likelihood), str(REWARD)]
    for k, reward in enumerate(found["rewards"]):
        own = [values[k] for values in parts.values()]
        assert reward == pytest.approx(2 * own[0] - 0.5 * own[1])
    assert "its reward, before weighting:" in output
    assert f"reward of {REWARD}" in json.loads((tmp_path / "t.json").read_text())[0]
    invoke(SHORT, *TINY, *words, *few, "--out", tmp_path / "equal")
    equal = read(tmp_path / "equal")
    assert [one["weight"] for one in equal["checkpoints"]["rewards"]] == [1, 1]


def test_the_weight_of_a_single_reward_counts(tmp_path):
    """One below 0 turns the reward round, which decides what is the best."""
    words = ["--method", "bon", "--reward-weight", "-2", "--unmatched", "zero"]
    invoke(SHORT, *FEW, *words, "--out", tmp_path)
    plain = generate(*pair("float64"), [SHORT], config("bon"))
    written = read(tmp_path)
    assert written["responses"] == plain.responses[0]
    assert written["rewards"] == pytest.approx([-2 * r for r in plain.rewards[0].tolist()])
    assert written["checkpoints"]["rewards"][0]["weight"] == -2
    assert written["checkpoints"]["unmatched"] == "zero"


def test_what_the_reward_lacks_is_weighed_by_the_mask_predictor():
    output = invoke(SHORT, *FEW)
    denoiser, reward = pair("float64")
    prompt = denoiser.encode([SHORT])
    response = torch.full((1, 6), denoiser.mask_id)
    tokens = torch.cat([prompt.tokens, response], 1)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        logits = denoiser(tokens, valid, torch.ones(1, 6, dtype=torch.bool)).float()
    q = logits.masked_fill(~denoiser.writable, -torch.inf).softmax(-1)
    lacking = [i for i, there in enumerate(reward.vocabulary.matched) if not there]
    assert len(lacking) == 2
    mass = sum(float(q[:, i].mean()) for i in lacking)
    assert f"what it lacks has a probability of {mass:.1e} under" in output


CLOSED = object()


@pytest.mark.parametrize(
    ("words", "stdin", "pattern"),
    [
        ([], None, "prompt: got none, expected some text, a file by --from, or - to read"),
        (["-"], "", "prompt: standard input is empty, expected a prompt in each line"),
        (["-"], " \n\n", "prompt: standard input is empty"),
        (["--from", "-"], "", "prompt: standard input is empty"),
        (["-", "--from", "-"], "x", "prompt: got - twice"),
        (["--from", "/nowhere"], None, "from: cannot read '/nowhere': No such file"),
        (["--from", "{bad}"], None, "from: line 2 of .* is .*, expected an object with a text"),
        (["--from", "{cut}"], None, "from: line 1 of .* is no JSON"),
        (["--from", "{whole}"], None, "from: got .*whole.json', expected a text with a prompt in"),
        (["--from", "{upper}"], None, "from: line 2 of .* is .*, expected an object with a text"),
        (["-"], CLOSED, "prompt: standard input is closed"),
        (["--from", "-"], CLOSED, "prompt: standard input is closed"),
        (["--from", "{binary}"], None, "from: cannot read .*: it is not UTF-8"),
        (["x", "y", *(["--template", "a _"] * 3)], None, "template: got 3 for 2 prompts"),
        (["--from", "{with}", "--template", "a _"], None, "template: got one beside those of the"),
        (["x", "--template", "none"], None, "template: got 'none', expected at least one blank"),
        (["x", "--method", "bon,bon"], None, "method: got 'bon,bon', expected names with commas"),
        (["x", "--method", "bon,entrgy"], None, "did you mean 'entrgi'"),
        (["x", "--method", ","], None, "method: got ','"),
        (["x", "--size", "paper"], None, "size: got 'paper' beside --denoiser and --reward"),
        (["x", "--reward-weight", "1", "--reward-weight", "2"], None, "reward_weight: got 2 for 1"),
        (["x", "--reward-weight", "0"], None, "reward_weight: got 0.0, expected a finite number"),
        (["x", "--reward-weight", "nan"], None, "reward_weight: got nan, expected a finite"),
        (["x", "--reward", "{other}"], None, "vocabulary: the reward model has .* must match"),
        (["x", "--reward", str(REWARD)], None, "reward: got .* twice, expected each once"),
        (["x", "--reward", "{other}", "--reward-revision", "a"], None, "reward_revision: got one"),
        (["x", "--quantize", "4bit"], None, "quantize: got '4bit' on a CPU"),
        (["x", "--quantize", "2bit"], None, "quantize: got '2bit'"),
        pytest.param(
            *(
                ["x", "--quantize", "reward=8bit", "--dtype", "float64"],
                None,
                "dtype: got 'float64'",
            ),
            marks=pytest.mark.skipif(not find_spec("torchao"), reason="torchao is not installed"),
        ),
        (["x", "--reward-device", "cuda:1"], None, "reward_device: got 'cuda:1', but this machine"),
        (["x", "--offload"], None, "offload: got True on cpu, expected a GPU"),
        (["x", "--attention", "flash_attention_2"], None, "attention: got 'flash_attention_2'"),
        (["x", "--table", "t.txt"], None, "table: got 't.txt', expected a name that ends in .csv"),
        (["x", "--table", "{folder}"], None, "table: got .*, which is a folder"),
        (
            *(["x", "--out", "{folder}", "--table", "{folder}/../folder.csv/answers.json"], None),
            "table: got .*, which --out writes",
        ),
        (["x", "--vocabulary-batch", str(2**63)], None, "vocabulary_batch: got .* below 2.63"),
        (["x", "--table", "/proc/none/t.csv"], None, "out: cannot write to /proc/none"),
        (["x", "-"], "cake " * 2**15, "prompt: .*positions"),
    ],
)
def test_what_does_not_fit_is_one_line_before_weights_are_loaded(
    words, stdin, pattern, likelihood, monkeypatch, capfd, tmp_path
):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}\n{"prompt": 1}\n')
    (tmp_path / "cut.jsonl").write_text('{"prompt": ')
    (tmp_path / "with.jsonl").write_text('{"prompt": "x", "template": "a _"}\n')
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    names = {name: tmp_path / f"{name}.jsonl" for name in ("bad", "cut", "with")}
    (tmp_path / "upper.JSONL").write_text('{"prompt": "x"}\n{"prompt": 1}\n')
    names |= {"whole": tmp_path / "whole.json", "upper": tmp_path / "upper.JSONL"}
    names |= {"binary": tmp_path / "binary.txt", "folder": tmp_path / "folder.csv"}
    names["folder"].mkdir()
    if "{other}" in words:
        names["other"] = other_tokenizer(likelihood, tmp_path / "other")
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    given = [str(word).format(**names) for word in words]
    monkeypatch.setattr(sys, "argv", ["entrgi_ref", *given, *TINY, "--reward", str(REWARD)])
    if stdin is not None:
        import io

        monkeypatch.setattr(sys, "stdin", None if stdin is CLOSED else io.StringIO(stdin))
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    said = capfd.readouterr()
    assert stop.value.code == 2
    assert re.fullmatch(r"error: .*\n", said.err), said.err
    assert re.search(pattern, said.err), said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("denoiser", "reward", "which"), [(300, 512, "Dream"), (512, 300, "the reward model")]
)
def test_a_template_needs_its_own_room_in_both_networks(
    denoiser, reward, which, monkeypatch, tmp_path
):
    """The 128 tokens of an answer without one would fit."""
    monkeypatch.setattr(checkpoints, "load", lambda *a, **k: pytest.fail("weights are loaded"))
    template = "cake " * 90 + "_"
    folders = [
        changed(source, tmp_path / name, {"max_position_embeddings": room})
        for source, name, room in ((DREAM, "denoiser", denoiser), (REWARD, "reward", reward))
    ]
    words = ["x", "--denoiser", folders[0], "--reward", folders[1], "--template", template]
    with pytest.raises(ValueError, match=rf"^prompt: .* positions, {which} has 300;"):
        invoke(*words, "--device", "cpu")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
def test_rounded_weights_and_the_kind_of_attention(tmp_path):
    """They reach the networks: answers of rounded ones, and of a reward model alone rounded."""
    few = ["--denoiser", DREAM, "--reward", REWARD, "--device", "cpu", "--dtype", "float32"]
    few += ["--new-tokens", "6", "--trajectories", "2"]
    for name, words, expected in (
        ("both", ["--quantize", "8bit"], {"denoiser": "8bit", "reward": "8bit"}),
        ("one", ["--quantize", "reward=8bit", "--attention", "eager"], {"reward": "8bit"}),
    ):
        invoke(SHORT, *few, *words, "--out", tmp_path / name)
        found = read(tmp_path / name)
        assert found["checkpoints"]["quantize"] == expected
        attention = "eager" if "eager" in words else "sdpa"
        denoiser = load_denoiser(
            DREAM, device="cpu", quantize=expected.get("denoiser"), attention=attention
        )
        reward = SequenceReward.from_pretrained(
            REWARD, denoiser, quantize="8bit", attention=attention
        )
        settings = SamplingConfig(GuidanceConfig(), 2, 6, denoising_steps=6)
        right = generate(denoiser, reward, [SHORT], settings)
        assert found["responses"] == right.responses[0]
        assert found["rewards"] == pytest.approx(right.rewards[0].tolist(), abs=1e-5)


def test_prompts_that_would_command_a_terminal_or_break_a_table(tmp_path):
    """They are shown with signs in place of controls, and a table holds them as they are."""
    prompts = ["a\x1b]0;title\x07", "b\rc", 'd,"e"']
    file = tmp_path / "p.jsonl"
    lines = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
    file.write_text(lines, encoding="utf-8-sig")  # some programs begin files so
    output = invoke("--from", file, *FEW, "--method", "bon", "--table", tmp_path / "t.csv")
    assert "\x1b" not in output
    assert "\x07" not in output
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as table:
        assert [row["prompt"] for row in csv.DictReader(table)] == [
            p for p in prompts for _ in "kk"
        ]


def test_a_mark_at_the_start_of_standard_input_is_no_prompt(tmp_path):
    invoke("-", *FEW, "--method", "bon", "--out", tmp_path, stdin=f"\ufeff{SHORT}\n")
    assert read(tmp_path)["prompt"] == SHORT


# What is decided before anything is loaded


def test_what_is_taken_where_nothing_is_said_is_what_generate_takes():
    """And a bug is shown as Python shows it."""
    parameters = inspect.signature(answering.answer).parameters.values()
    found = {one.name: one.default for one in parameters if one.default is not None}
    del found["context"]
    settings = SamplingConfig()
    assert found == {
        "size": "small",
        "method": settings.guidance.weight,
        "device": "auto",
        "dtype": "auto",
        "gradient_steps": settings.guidance.steps,
        "step_size": settings.guidance.step_size,
        "optimiser": settings.guidance.optimiser,
        **{
            name: getattr(settings, name)
            for name in ("new_tokens", "temperature", "top_p", "trajectories", "order", "seed")
        },
        "unmatched": "eos",
        "attention": "sdpa",
        "offload": False,
        "authors": False,
        "watch": False,
    }
    assert not app.pretty_exceptions_enable


def test_weights_of_rewards():
    weights = answering._weights
    assert weights(["a"], None, None, None) == [1]
    assert weights(["a", "b"], None, None, None) == [1, 1]
    assert weights(["a"], [2.0], "main", "adapter") == [2]
    for words, name in (((None, "x"), "reward_adapter"), (("x", None), "reward_revision")):
        with pytest.raises(ValueError, match=f"^{name}: got one for 2 rewards, expected a single"):
            weights(["a", "b"], None, *words)
    with pytest.raises(ValueError, match=r"^reward: got one of them twice, expected each once"):
        weights(["a", "b", "a"], [1.0, 2.0, 3.0], None, None)


def test_the_guidance_of_methods_with_commas():
    found = answering._guidances("bon, aps", 2, 0.25, "sgd", "float64", False)
    base = GuidanceConfig("aps", 2, 0.25, dtype="float64", optimiser="sgd")
    assert found == {"aps": base, "bon": replace(base, weight="entrgi", steps=0)}
    assert list(found) == ["bon", "aps"]
    for methods in ("", ",", "aps,aps"):
        with pytest.raises(ValueError, match=f"^method: got '{methods}', expected names with comm"):
            answering._guidances(methods, 2, 0.5, "adam", "auto", False)
    assert list(answering._guidances("bon", 2, 0.5, "adam", "float16", True)) == ["bon"]
    for methods in ("bon,aps", "aps"):
        with pytest.raises(ValueError, match=r"^dtype: got 'float16' with --authors"):
            answering._guidances(methods, 2, 0.5, "adam", "float16", True)


@pytest.mark.parametrize(("own_steps", "steps"), [(False, 2), (True, 6)])
def test_a_template_has_its_own_length_and_steps(own_steps, steps):
    row = torch.tensor([9, 1, 9, 2, 3])
    checkpoint = SimpleNamespace(template=lambda text: row, mask_id=9)
    guidances = {"bon": GuidanceConfig(steps=0), "aps": GuidanceConfig("aps")}
    base = config(new_tokens=4)
    plain = answering._case(Asked("why"), checkpoint, base, guidances, False, own_steps)
    assert plain.start is None
    assert plain.configs == {name: replace(base, guidance=g) for name, g in guidances.items()}
    case = answering._case(Asked("why", "a _"), checkpoint, base, guidances, True, own_steps)
    assert (case.prompt, case.template, case.start.tolist()) == ("why", "a _", [row.tolist()])
    base = replace(base, new_tokens=5, denoising_steps=steps)
    assert case.configs == {
        name: replace(base, guidance=g).authors() for name, g in guidances.items()
    }
