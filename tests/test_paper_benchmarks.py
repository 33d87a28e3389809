"""The prompts of the benchmarks, drawn as the authors draw them."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entrgi_ref import models
from entrgi_ref.models import loading
from entrgi_ref.paper.declared import benchmarks, published
from entrgi_ref.paper.declared.costs import Costs
from entrgi_ref.paper.declared.testbed import DreamTestbed, reward_paths
from entrgi_ref.paper.run.records import fingerprint
from entrgi_ref.paper.run.start import pinned

PROMPTS = [f"prompt {i}" for i in range(50)]


@given(st.integers(0, 2**31), st.integers(1, 60))
def test_the_shuffle_is_that_of_datasets(seed, count):
    """The authors' code shuffles a `Dataset` by the seed and takes the first rows."""
    expected = datasets.Dataset.from_dict({"prompt": PROMPTS}).shuffle(seed=seed)["prompt"]
    benchmark = benchmarks.Benchmark("b", tuple(PROMPTS), "source")
    assert benchmark.drawn(seed, count) == list(expected)[:count]


@pytest.mark.parametrize("field", ["prompt", "question"])
def test_local_files(tmp_path, field):
    rows = [{"id": i, field: prompt} for i, prompt in enumerate(PROMPTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "b.parquet")
    found = benchmarks.named([str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")])
    assert [b.name for b in found] == ["a", "b"]
    assert found[0].prompts == found[1].prompts == tuple(PROMPTS)
    assert found[0].source == found[1].source
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows[1:])))
    assert benchmarks.load(str(tmp_path / "a.jsonl")).source != found[0].source


def test_other_prompts_or_another_order_are_another_source(tmp_path):
    sources = set()
    ordinary = (["a", "bc"], ["ab", "c"], ["bc", "a"], ["a", "bc", "a"])
    alike = (["a\0b", "c"], ["a", "b\0c"], ['["a\\u0000b"]'], ["a\0b"])
    for i, prompts in enumerate((*ordinary, *alike)):
        path = tmp_path / str(i) / "same.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        sources.add(benchmarks.load(str(path)).source)
    assert len(sources) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{"prompt": ', r"line 2: not JSON"),
        (
            '{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}',
            r"line 2: the key 'prompt'",
        ),
        ('{"text": "a"}', r"row 1: has no text in 'prompt' or 'question'"),
        ('["prompt"]', r"row 1: has no text"),
        ('{"prompt": "a"}\n{"prompt": ""}', r"bad\.jsonl, row 2: got '', expected some text"),
        ('{"question": " \\t\\n"}', r"row 1: got ' \\t\\n', expected some text"),
        ('{"prompt": 3}', r"row 1: has no text"),
        ("\n\n", r"holds no prompts"),
        ('{"prompt": "\\ud800"}', r"row 1: half a character"),
        ("[" * 100_000, r"line 1: not JSON"),
        ('{"prompt": "\xe9"}', r"bad.jsonl is not text in UTF-8"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        benchmarks.load(str(tmp_path / "bad.jsonl"))
    (tmp_path / "bad.parquet").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"bad.parquet is no parquet file"):
        benchmarks.load(str(tmp_path / "bad.parquet"))


def parquet_file(path, names=("prompt",), columns=(["a", "b"],)):
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(list(columns), list(names)), path)
    return str(path)


def test_only_the_prompts_of_a_parquet_file_are_read(tmp_path):
    """Other columns may hold what Python cannot. A row without a prompt may have a question."""
    dates = pyarrow.array([2**60] * 2, pyarrow.timestamp("us"))
    columns = (dates, pyarrow.array(["a", None]), pyarrow.array([["c"], ["d"]]))
    questions = pyarrow.array(["no", "b"], pyarrow.large_string()).dictionary_encode()
    names = ("when", "prompt", "more", "question")
    file = parquet_file(tmp_path / "a.parquet", names, (*columns, questions))
    assert benchmarks.load(file).prompts == ("a", "b")
    numbers = parquet_file(tmp_path / "b.parquet", ("prompt", "question"), ([1, 2], ["a", "b"]))
    assert benchmarks.load(numbers).prompts == ("a", "b")


@pytest.mark.parametrize(
    ("names", "columns", "message"),
    [
        (("prompt", "prompt"), (["a"], ["b"]), "two columns are called 'prompt'"),
        (("prompt",), ([1],), "it has no column of texts called 'prompt' or 'question'"),
        (("prompt",), (["x"] * 5,), "it has 5 rows, expected at most 4"),
        (("question",), (["xyz"] * 4,), "its prompts have 12 bytes or more, expected at most 10"),
        (("prompt",), (["x" * 11],), "its prompts have 11 bytes or more, expected at most 10"),
    ],
)
def test_of_a_parquet_file_no_more_is_read_than_fits(
    tmp_path, monkeypatch, names, columns, message
):
    """A text that occurs often is held once: a small file may stand for a very large one."""
    monkeypatch.setattr(benchmarks, "MOST_ROWS", 4)
    monkeypatch.setattr(benchmarks, "MOST_BYTES", 10)
    file = parquet_file(tmp_path / "a.parquet", names, columns)
    message = f"benchmark: {file} is no parquet file that can be read: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        benchmarks.load(file)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if len(rows) > 4:
        with pytest.raises(ValueError, match=r"a\.jsonl has more than 4 rows$"):
            benchmarks.load(str(tmp_path / "a.jsonl"))


def test_the_bytes_of_all_parts_of_a_parquet_file_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "MOST_BYTES", 10)
    table = pyarrow.Table.from_arrays([["abcd", "efgh", "ijkl"]], ["prompt"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    with pytest.raises(ValueError, match="its prompts have 12 bytes or more, expected at most 10"):
        benchmarks.load(str(tmp_path / "a.parquet"))


def test_a_parquet_file_that_is_cut_is_one_line(tmp_path):
    file = Path(parquet_file(tmp_path / "a.parquet"))
    whole = file.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"^benchmark: [^\n]* that can be read: [^\n]*$"):
            benchmarks.load(str(file))


def test_lines_end_where_those_of_json_do(tmp_path):
    """Other separators may stand in a text, and some programs begin a file with a mark."""
    prompts = ["one\u2028two\x85three", "four"]
    rows = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    (tmp_path / "a.jsonl").write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    assert benchmarks.load(str(tmp_path / "a.jsonl")).prompts == tuple(prompts)


def test_two_benchmarks_of_one_name_are_refused(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text('{"prompt": "a"}')
    with pytest.raises(ValueError, match="a is given twice"):
        benchmarks.named([str(tmp_path / f / "a.jsonl") for f in ("x", "y")])


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub: what is asked of it, and what it gives."""
    asked = []

    class Api:
        def dataset_info(self, hub_id, revision):
            asked.append(("info", hub_id, revision))
            return SimpleNamespace(sha=COMMIT)

    def load_dataset(hub_id, split, revision):
        asked.append(("load", hub_id, split, revision))
        rows = {source.hub_id: source for source in benchmarks.HUB.values()}[hub_id]
        return {rows.field: [f"{hub_id} {i}" for i in range(rows.rows)]}

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_the_papers_benchmarks_are_those_of_its_authors():
    """Hub id, split, field and number of rows."""
    assert {name: tuple(vars(source).values()) for name, source in benchmarks.HUB.items()} == {
        "reward-bench-2": ("allenai/reward-bench-2", "test", "prompt", 1865),
        "judge-bench": ("ScalerLab/JudgeBench", "gpt", "question", 350),
        "rm-bench": ("THU-KEG/RM-Bench", "train", "prompt", 1327),
    }


def test_the_hubs_are_read_at_a_commit_that_is_written_down(hub):
    found = benchmarks.load("judge-bench")
    assert hub == [
        ("info", "ScalerLab/JudgeBench", "main"),
        ("load", "ScalerLab/JudgeBench", "gpt", COMMIT),
    ]
    assert found.source == f"ScalerLab/JudgeBench@{COMMIT}"
    assert len(found.prompts) == 350


def test_a_pinned_commit_needs_no_question(hub):
    benchmarks.load(f"rm-bench@{COMMIT}")
    benchmarks.load("reward-bench-2", {"reward-bench-2": COMMIT})
    assert [one[0] for one in hub] == ["load", "load"]
    assert hub[1] == ("load", "allenai/reward-bench-2", "test", COMMIT)
    other = COMMIT[::-1]
    benchmarks.load(f"rm-bench@{other}", {"rm-bench": COMMIT})
    assert hub[2] == ("load", "THU-KEG/RM-Bench", "train", other)  # what is asked for by name


def test_a_run_goes_on_with_the_commits_that_it_began_with(tmp_path):
    assert pinned(tmp_path) == {}
    declared = {
        "experiment": "main",
        "testbed": "toy",
        "settings": {"guidance": {}},
        "rewards": {"a": {"name": "a"}},
        "main_reward": "a",
        "benchmarks": {"rm-bench": f"THU-KEG/RM-Bench@{COMMIT}", "mine": "3 prompts, ab"},
    }
    written = {"fingerprint": fingerprint(declared), **declared}
    (tmp_path / "run.json").write_text(json.dumps(written))
    assert pinned(tmp_path) == {"rm-bench": COMMIT}


def test_another_number_of_rows_is_refused(hub, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: {"prompt": ["one"]})
    with pytest.raises(ValueError, match="has 1 rows, expected 1327"):
        benchmarks.load("rm-bench")
    more = {"prompt": ["one"] * 1328}
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: more)
    with pytest.raises(ValueError, match="has 1328 rows, expected 1327"):
        benchmarks.load("rm-bench")


def test_no_network_is_one_clear_line(monkeypatch):
    class Api:
        def dataset_info(self, hub_id, revision):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ValueError, match=r"could not be fetched \(ConnectionError: no route\)"):
        benchmarks.load("rm-bench")


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_text("")
    for name in ("rm-bench", str(tmp_path / "a.parquet")):
        with pytest.raises(ValueError, match="extra `paper`"):
            benchmarks.load(name)


def test_names_of_reward_models(tmp_path, monkeypatch):
    assert list(reward_paths([])) == ["0.6B", "1.7B", "4B"]
    given = ["Skywork/Skywork-Reward-V2-Qwen3-4B@main", "mine=some/where", "folder/tiny"]
    assert reward_paths(given) == {
        "4B": "Skywork/Skywork-Reward-V2-Qwen3-4B@main",
        "mine": "some/where",
        "tiny": "folder/tiny",
    }
    (tmp_path / "lr=1" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lr=1" / "tiny")
    assert reward_paths(["."]) == {"tiny": "."}
    monkeypatch.chdir(tmp_path)
    assert reward_paths(["lr=1/tiny", "a=lr=1/tiny"]) == {"tiny": "lr=1/tiny", "a": "lr=1/tiny"}
    with pytest.raises(ValueError, match="'tiny' is given twice"):
        reward_paths(["a/tiny", "b/tiny"])


@pytest.mark.parametrize("given", ["a/b=x", "=x", "a\nb=x", f"{'x' * 201}=x", "x" * 201])
def test_a_reward_model_is_named_by_what_files_can_be_named_by(given):
    expected = "of at most 200 bytes" if "xx" in given else "without /"
    with pytest.raises(ValueError, match=rf"^reward: got the name .* expected one {expected}$"):
        reward_paths([given])


def test_the_numbers_are_those_that_were_published():
    """Of the authors' project page."""
    assert published.TOP1 == {
        ("reward-bench-2", "entrgi"): 3.91,
        ("reward-bench-2", "bon"): 2.99,
        ("judge-bench", "entrgi"): 2.44,
        ("judge-bench", "bon"): 1.65,
        ("rm-bench", "entrgi"): 5.70,
        ("rm-bench", "bon"): 5.11,
    }
    assert published.published("rm-bench", "bon", "top1") == 5.11
    assert published.published("rm-bench", "aps", "top1") is None
    assert published.published("rm-bench", "bon", "avg4") is None
    assert (published.PROMPTS, published.SEEDS) == (64, (1, 2, 3))


class Network:
    """Of three weights, of which the first is a table of embeddings; one is packed."""

    def __init__(self, rows, tied=None):
        self.tied = tied
        self.table = SimpleNamespace(weight=torch.zeros(100, 3))
        packed = torch.zeros(2)
        packed.quant_state = SimpleNamespace(shape=(rows, 5))
        self.weights = [self.table.weight, torch.zeros(7), packed]

    def get_input_embeddings(self):
        return self.table

    def get_output_embeddings(self):
        return self.table if self.tied else self.tied

    def parameters(self):
        return iter(self.weights)


def test_costs_are_tokens_times_parameters():
    """Also of packed weights, and of all rewards of a sum."""
    testbed = DreamTestbed("dream", {"a": "b"}, [])
    lengths = {"short": 2, "longer": 5}
    testbed._denoiser = SimpleNamespace(
        network=Network(10),
        encode=lambda prompts: SimpleNamespace(
            valid=torch.arange(5) < torch.tensor([[lengths[prompt]] for prompt in prompts])
        ),
    )
    testbed._reward = ("a", "the reward", [Network(2), Network(4)])
    length, judged = 3.5 + 6, (7 + 2 * 5) + (7 + 4 * 5)
    found = testbed.costs("a", ["short", "longer"], 6)
    assert found == Costs(length * (7 + 50), 6 * judged, length * judged)


def test_costs_are_those_of_the_reward_model_that_is_asked_about(monkeypatch):
    """Whichever is the main one, and whichever is held."""
    load = lambda self, name: SimpleNamespace(network=networks[name])  # noqa: E731
    networks = {"1.7B": Network(2), "4B": Network(4)}
    monkeypatch.setattr(DreamTestbed, "_loaded", load)
    testbed = DreamTestbed("dream", {"1.7B": "x", "4B": "y"}, [])
    encode = lambda prompts: SimpleNamespace(valid=torch.ones(1, 4).bool())  # noqa: E731
    testbed._denoiser = SimpleNamespace(network=Network(1), encode=encode)
    found = [testbed.costs(name, ["x"], 1).reward for name in ("4B", "1.7B", "4B")]
    assert found == [7 + 4 * 5, 7 + 2 * 5, 7 + 4 * 5]


def test_a_table_that_is_the_output_layer_too_costs_what_an_output_layer_costs():
    testbed = DreamTestbed("dream", {"a": "b"}, [])
    encode = lambda prompts: SimpleNamespace(valid=torch.ones(1, 4).bool())  # noqa: E731
    for tied, parameters in ((True, 300 + 7 + 50), (None, 7 + 50)):
        testbed._denoiser = SimpleNamespace(network=Network(10, tied), encode=encode)
        testbed._reward = ("a", "the reward", [Network(2)])
        assert testbed.costs("a", ["x"], 6).denoiser == 10 * parameters


@pytest.mark.parametrize(
    ("gpu", "dtype", "declared"),
    [
        (False, "auto", "float32"),
        (True, "auto", "bfloat16"),
        (True, "float32", "float32"),
        (False, "bfloat16", "bfloat16"),
    ],
)
def test_a_run_declares_the_precision_that_auto_stands_for(monkeypatch, gpu, dtype, declared):
    """On another device it is another run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(models.checkpoints, "identity", lambda path: {"name": path})
    testbed = DreamTestbed("dream", {"1.7B": "b"}, [], dtype, unmatched="zero")
    assert testbed.declaration == {
        "testbed": "dream",
        "denoiser": {"name": "dream"},
        "rewards": {"1.7B": {"name": "b"}},
        "main_reward": "1.7B",
        "dtype": declared,
        "unmatched": "zero",
        "benchmarks": {},
    }


def test_a_testbed_of_dream_is_loaded_as_it_is_unless_something_is_said():
    testbed = DreamTestbed("dream", {"0.6B": "a", "1.7B": "b"}, [])
    assert testbed.__getstate__() == {
        "path": "dream",
        "reward_paths": {"0.6B": "a", "1.7B": "b"},
        "benchmarks": [],
        "dtype": "auto",
        "requested_device": "auto",
        "unmatched": "eos",
        "compiled": False,
        "cuda_graphs": False,
        "micro_batch": None,
        "vocabulary_batch": None,
        "reward_device": None,
        "offload": False,
        "attention": "sdpa",
        "quantize": {},
        "reward_weights": (),
    }
    assert (testbed.rewards, testbed.main_reward) == (("0.6B", "1.7B"), "1.7B")
    assert testbed != DreamTestbed("dream", {"0.6B": "a", "1.7B": "b"}, [])
    assert testbed.gold("a", "b") is None
    summed = DreamTestbed("dream", {"a": "x", "b": "y"}, [], reward_weights=(0.5, -1))
    assert (summed.rewards, summed.main_reward) == (("sum",), "sum")


OF_THE_MACHINE = {
    "dtype": "float64",
    "requested_device": "cpu",
    "reward_device": "cuda:1",
    "unmatched": "zero",
    "compiled": "compiled",
    "cuda_graphs": "graphs",
    "micro_batch": 3,
    "offload": "offloaded",
    "attention": "eager",
    "quantize": {"reward": "8bit"},
}


def test_all_options_of_a_testbed_reach_what_is_loaded(monkeypatch):
    """Each as what it is; of the networks one has those of the denoiser, the other the reward's."""
    asked, loaded = [], []

    def together(*given, **how):
        asked.append((given, how))
        one, other = (SimpleNamespace(options={"own": name}) for name in ("denoiser", "reward"))
        return SimpleNamespace(denoiser=one, reward=other)

    def load(self, *given, **how):
        loaded.append((self.of, given, how))
        return SimpleNamespace(network="network")

    def examined(path, **how):
        return type("Examined", (), {"of": (path, how), "load": load})()

    monkeypatch.setattr(loading.Together, "of", together)
    monkeypatch.setattr(models.DenoiserCheckpoint, "examine", examined)
    monkeypatch.setattr(models, "examine_reward", examined)
    testbed = DreamTestbed("dream", {"a": "x"}, [], **OF_THE_MACHINE)
    testbed.reward("a")
    assert asked == [
        (
            ("float64", "cpu", "cuda:1"),
            {
                "quantize": {"reward": "8bit"},
                "offload": "offloaded",
                "attention": "eager",
                "compiled": "compiled",
                "cuda_graphs": "graphs",
            },
        )
    ]
    assert loaded == [
        (("dream", {}), (), {"compiled": "compiled", "own": "denoiser"}),
        (
            ("x", {"unmatched": "zero"}),
            (testbed.denoiser(),),
            {"cuda_graphs": "graphs", "micro_batch": 3, "own": "reward"},
        ),
    ]


def test_all_networks_of_a_testbed_are_examined_before_any_is_loaded(monkeypatch):
    """Whether it can be loaded, has room for the answers, and knows what tokens are read as."""
    asked = []

    class Examined:
        tokens = ("a", "b")

        def __init__(self, path, unmatched=None):
            self.path = path
            asked.append((path, unmatched))

        def require_room(self, prompts, new_tokens):
            asked.append((self.path, prompts, new_tokens))

        def vocabulary(self, tokens):
            asked.append((self.path, tokens))

    one = SimpleNamespace(require_steps=lambda *given: asked.append(given))
    how = loading.Together(one, one)
    monkeypatch.setattr(loading.Together, "of", lambda *given, **_: asked.append(given) or how)
    monkeypatch.setattr(models.DenoiserCheckpoint, "examine", Examined)
    monkeypatch.setattr(models, "examine_reward", Examined)
    rewards = {"small": "x", "large": "y"}
    options = {"unmatched": "zero", "requested_device": "cpu", "micro_batch": 3}
    DreamTestbed("dream", rewards, [], cuda_graphs=True, **options).examine(9)
    assert asked == [
        *(("auto", "cpu", None), (True, 3)),
        *(("dream", None), ("dream", ["?"], 9)),
        *(("x", "zero"), ("x", ("a", "b")), ("x", ["?"], 9)),
        *(("y", "zero"), ("y", ("a", "b")), ("y", ["?"], 9)),
    ]


def test_one_reward_is_held_until_another_is_wanted(monkeypatch):
    loaded = []

    def load(self, name):
        loaded.append((name, self._reward))
        return SimpleNamespace(network=f"network of {name}")

    monkeypatch.setattr(DreamTestbed, "_loaded", load)
    testbed = DreamTestbed("dream", {"a": "x", "b": "y"}, [])
    testbed._denoiser = "denoiser"
    first = testbed.reward("a")
    assert testbed.reward("a") is first
    assert testbed.reward("b") is not first
    assert loaded == [("a", None), ("b", None)]  # the one before has left by then
    assert testbed._reward[2] == ["network of b"]
    with pytest.raises(ValueError, match="reward: got 'c', expected one of 'a', 'b'"):
        testbed.reward("c")

    def full(self, name):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DreamTestbed, "_loaded", full)
    with pytest.raises(ValueError, match="out of memory: the networks do not fit; load them by"):
        testbed.reward("a")


def test_a_surrogate_is_refused_and_its_neighbours_are_read(tmp_path):
    file = tmp_path / "a.jsonl"
    for code, good in ((0xD7FF, True), (0xD800, False), (0xDFFF, False), (0xE000, True)):
        file.write_text(json.dumps({"prompt": f"a{chr(code)}"}))
        if good:
            assert benchmarks.load(str(file)).prompts == (f"a{chr(code)}",)
        else:
            with pytest.raises(ValueError, match=r"a\.jsonl, row 1: half a character \(a surr"):
                benchmarks.load(str(file))


def test_a_row_is_counted_from_one_and_a_file_is_known_by_its_prompts(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"prompt": "b", "question": "c"}\n')
    found = benchmarks.load(str(file))
    assert found == benchmarks.Benchmark("mine", ("a", "b"), "2 prompts, ffc151170352baa3")
    assert repr(found) == "Benchmark(name='mine', source='2 prompts, ffc151170352baa3')"
    file.write_text('{"prompt": "a"}\n{"answer": "b"}\n')
    with pytest.raises(ValueError, match=r"mine\.jsonl, row 2: has no text in"):
        benchmarks.load(str(file))
    with pytest.raises(ValueError, match=r"^benchmark: there is no file"):
        benchmarks.load(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match=r"^benchmark \(or a .*\): got 'rm', expected one of 'rew"):
        benchmarks.load("rm")


def test_more_benchmarks_than_a_figure_has_room_for_are_refused_unread():
    with pytest.raises(ValueError, match=r"^benchmark: 65 are given, expected at most 64$"):
        benchmarks.named(["nowhere.jsonl"] * 65)
