"""Reports, figures and exports of a run, against numbers computed here."""

import csv
import json
import math
import re
import warnings
import xml.etree.ElementTree as ElementTree
from dataclasses import fields
from itertools import combinations, product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator
from paper_runs import invoke, tiny_run

from entrgi_ref import GuidanceConfig, SamplingConfig
from entrgi_ref.paper.declared import benchmarks, published
from entrgi_ref.paper.declared.experiments import EXPERIMENTS, LABELS
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import key_of
from entrgi_ref.paper.shown import comparable, figures, intervals, report
from entrgi_ref.paper.shown import numbers as shown_numbers
from entrgi_ref.paper.shown.summary import JudgedBy, Run, value

METHODS = ("bon", "bon_equal_compute", "expectation", "aps", "entrgi")
HUB = ("reward-bench-2", "judge-bench", "rm-bench")

THEIRS = {
    name: value
    for name, value in json.loads(SamplingConfig.authors().to_json()).items()
    if name != "seed"
}
PAPER = {
    "experiment": "main",
    "settings": THEIRS,
    "batch_size": 4,
    "testbed": "dream",
    "denoiser": {"name": published.DREAM, "commit": "abc"},
    "rewards": {size: {"name": path, "commit": "d"} for size, path in published.SKYWORK.items()},
    "main_reward": "1.7B",
    "dtype": "bfloat16",
    "unmatched": "eos",
    "benchmarks": {name: f"{benchmarks.HUB[name].hub_id}@abc" for name in HUB},
}


draws = pytest.mark.draws
draws_every_format = pytest.mark.draws("every format")


SEEN = {
    "steps": [{"step": 0, "E": 1.0, "entropy": 0.5, "n": 1}],
    "histogram": {"entropy_edges": [0.0, 2.0], "error_edges": [0.0, 3.0], "counts": [[1]]},
    "log_vocabulary": 2.0,
}
"""What an observer saw of a prompt."""


def reward_of(benchmark, method, seed, idx, k):
    base = HUB.index(benchmark) if benchmark in HUB else 0
    return base + METHODS.index(method) / 7 + math.sin(seed * 31 + idx * 7 + k)


def written(
    folder,
    *,
    declaration=PAPER,
    names=HUB,
    methods=METHODS,
    seeds=(1, 2, 3),
    prompts=4,
    of=64,
    variants=({},),
    asked=(),
):
    """A run folder with made-up rewards of the first prompts, `of` as many as were asked for."""
    wanted = {
        "methods": list(methods),
        "seeds": list(seeds),
        "variants": list(variants),
        "prompts": dict.fromkeys(names, of),
    }
    run = RunFolder(folder, declaration, asked=wanted | dict(asked))
    run.close()
    lines = []
    for benchmark, method, seed, idx, variant in product(
        names, methods, seeds, range(prompts), variants
    ):
        own, rest = declaration["settings"], declaration["settings"]["guidance"]
        K = 7 if method == "bon_equal_compute" else own["trajectories"]
        shift = sum(v if isinstance(v, int) else len(v) for v in variant.values()) / 5
        reward = variant.get("reward", declaration["main_reward"])
        settings = {**own, "trajectories": K, "reward": reward, "seed": seed}
        steps = 0 if method.startswith("bon") else variant.get("gradient_steps", rest["steps"])
        weight = method if steps else rest["weight"]
        settings |= {"guidance": {**rest, "steps": steps, "weight": weight}}
        lines.append(
            {
                "experiment": declaration["experiment"],
                "benchmark": benchmark,
                "method": method,
                "variant": variant,
                "seed": seed,
                "idx": idx,
                "prompt": f"prompt {idx}",
                "responses": [f"answer {k}" for k in range(K)],
                "rewards": [shift + reward_of(benchmark, method, seed, idx, k) for k in range(K)],
                "settings": settings,
                "status": "ok",
                "reason": None,
                "errors": SEEN if EXPERIMENTS[declaration["experiment"]].observed else None,
                "fingerprint": run.fingerprint,
                "commit": "c0ffee",
                "versions": {"entrgi_ref": "0.1.0"},
            }
        )
    file = folder / "records" / f"{'-'.join(methods)}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


FEW = {"names": ["rm-bench"], "methods": ["aps", "entrgi"]}
"""As much as it takes where all prompts must be there: 64 of each cell."""


def cells_of(markdown, title):
    """The table under a title: (method, head) -> cell."""
    block = markdown.partition(f"**{title}")[2].partition("\n\n**")[0]
    lines = [line for line in block.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        (row[0], head): cell for row in rows[2:] for head, cell in zip(rows[0], row, strict=True)
    }


def test_the_table_is_mean_and_standard_error_over_seeds_beside_the_published(tmp_path):
    text = invoke("report", written(tmp_path, prompts=64))
    for benchmark in HUB:
        cells = cells_of(text, benchmark)
        for method in METHODS:
            K = 7 if method == "bon_equal_compute" else 4
            rewards = [
                [[reward_of(benchmark, method, s, i, k) for k in range(K)] for i in range(64)]
                for s in (1, 2, 3)
            ]
            label = LABELS[method]
            for head, per_prompt in (("Top@1", np.max), ("Avg@K", np.mean)):
                per_seed = [np.mean([per_prompt(r) for r in seed]) for seed in rewards]
                error = np.std(per_seed, ddof=1) / 3**0.5
                expected = f"{np.mean(per_seed):.2f} ± {error:.2f}"
                assert cells[label, f"{head} (reward), measured"].replace("−", "-") == expected
            assert cells[label, "K answers"] == str(K)
            assert cells[label, "LMUnit (1 to 5), measured"] == "not measured"
    cells = cells_of(text, "rm-bench")
    assert cells["EntRGi", "Top@1, published"] == "5.70"
    assert cells["Best-of-N", "Top@1, published"] == "5.11"
    assert cells["APS", "Top@1, published"] == "not available"
    assert cells["Best-of-N, equal compute", "Top@1, published"] == "not in the paper"
    assert cells["EntRGi", "Avg@K, published"] == "not available"
    assert "NOT COMPARABLE" not in text
    assert "3 seeds (1, 2, 3)" in text


def test_published_numbers_are_those_of_the_authors_page():
    table = {
        "reward-bench-2": (3.91, 2.99),
        "judge-bench": (2.44, 1.65),
        "rm-bench": (5.70, 5.11),
    }
    for benchmark, numbers in table.items():
        for method, number in zip(("entrgi", "bon"), numbers, strict=True):
            assert published.published(benchmark, method, "top1") == number
    assert len(published.TOP1) == 6
    assert published.published("rm-bench", "entrgi", "average") is None


OTHERWISE = {
    "trajectories": (8, "trajectories 8 instead of 4"),
    "new_tokens": (64, "new_tokens 64 instead of 128"),
    "denoising_steps": (64, "denoising_steps 64 instead of 128"),
    "temperature": (0.1, "temperature 0.1 instead of 0.7"),
    "top_p": (0.9, "top_p 0.9 instead of 0.95"),
    "order": ("anchor", "order anchor instead of entropy"),
    "order_temperature": (0.5, "order_temperature 0.5 instead of 0.0"),
    "eos_last": (False, "eos_last False instead of True"),
    "write_every_id": (False, "write_every_id False instead of True"),
}
GUIDED_OTHERWISE = {
    "steps": (1, "guidance steps 1 instead of 3"),
    "step_size": (1.0, "guidance step_size 1.0 instead of 0.5"),
    "dtype": ("float32", "guidance dtype float32 instead of denoiser"),
    "epsilon": (0.0, "guidance epsilon 0.0 instead of 1e-10"),
    "optimiser": ("sgd", "guidance optimiser sgd instead of adam"),
}
DECLARED_OTHERWISE = {
    "dtype": ("float32", "dtype float32 instead of bfloat16"),
    "denoiser": ({"name": "dream-tiny"}, "denoiser dream-tiny"),
    "rewards": ({"1.7B": {"name": "tiny"}}, "reward tiny"),
    "quantize": (
        {"denoiser": "4bit", "reward": "8bit"},
        "weights rounded (denoiser 4bit, reward 8bit)",
    ),
    "unmatched": ("zero", "unmatched tokens zero instead of eos"),
}


def test_every_setting_decides_whether_a_run_is_comparable():
    assert {*OTHERWISE, "guidance", *comparable.WITHOUT_EFFECT} == {
        f.name for f in fields(SamplingConfig)
    }
    assert {*GUIDED_OTHERWISE, "weight"} == {f.name for f in fields(GuidanceConfig)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({"settings": THEIRS | {n: v}}, words) for n, (v, words) in OTHERWISE.items()),
        *(
            ({"settings": THEIRS | {"guidance": THEIRS["guidance"] | {n: v}}}, words)
            for n, (v, words) in GUIDED_OTHERWISE.items()
        ),
        *(({n: v}, words) for n, (v, words) in DECLARED_OTHERWISE.items()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_comparable_is_said_to_be(tmp_path, change, words):
    """In a note, and at each number."""
    text = invoke("report", written(tmp_path, declaration=PAPER | change, prompts=64, **FEW))
    assert f"NOT COMPARABLE to the published numbers: {words}." in text
    cells = cells_of(text, "rm-bench")
    assert cells["EntRGi", "Top@1, published"] == "5.70 (not comparable)"
    assert cells["APS", "Top@1, published"] == "not available"


def test_the_default_settings_are_not_the_authors(tmp_path):
    settings = json.loads(SamplingConfig().to_json())
    declaration = PAPER | {"settings": settings}
    text = invoke("report", written(tmp_path, declaration=declaration, prompts=1))
    for words in ("write_every_id False", "guidance dtype float32", "guidance epsilon 0.0"):
        assert words in text.partition("NOT COMPARABLE")[2]


def test_a_setting_that_is_not_declared_is_our_default(tmp_path):
    """And not the authors'."""
    defaults = json.loads(SamplingConfig().to_json())
    others = [name for name in OTHERWISE if defaults[name] != THEIRS[name]]
    assert others
    for name in others:
        settings = {n: v for n, v in THEIRS.items() if n != name}
        declaration = PAPER | {"settings": settings}
        run = Run.read(written(tmp_path / name, declaration=declaration, prompts=64, **FEW))
        words = f"{name} {defaults[name]} instead of {THEIRS[name]}"
        assert list(comparable.differences(run)) == [words]


def test_another_number_of_prompts_is_not_comparable(tmp_path):
    text = invoke("report", written(tmp_path, prompts=8, of=8))
    assert "NOT COMPARABLE to the published numbers: 8 prompts instead of 64." in text


def test_what_counts_is_how_many_prompts_are_compared(tmp_path):
    """Not how many were asked for: of one seed the last prompt is not there yet."""
    folder = written(tmp_path, prompts=64, of=64, **FEW)
    (file,) = (folder / "records").glob("*.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    text = invoke("report", folder)
    assert "NOT COMPARABLE to the published numbers: 63 to 64 prompts instead of 64." in text
    assert cells_of(text, "rm-bench")["EntRGi", "Top@1, published"] == "5.70 (not comparable)"


def test_other_seeds_are_not_comparable(tmp_path):
    text = invoke("report", written(tmp_path, prompts=64, seeds=(4, 5, 6), **FEW))
    assert "published numbers: seeds 4, 5, 6 instead of 1, 2, 3." in text


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "main"])
def test_nothing_published_stands_beside_any_other_experiment(tmp_path, experiment):
    declaration = PAPER | {"experiment": experiment}
    run = Run.read(written(tmp_path, declaration=declaration, prompts=1))
    text = "".join(table.markdown() for table in report.tables(run)) + "".join(report._notes(run))
    assert "ublished" not in text
    assert "5.70" not in text
    assert next(comparable.differences(run)) == f"experiment {experiment} instead of main"


@pytest.mark.parametrize("seeds", [(1, 2), (1, 2, 3, 4)])
def test_another_number_of_seeds_is_not_comparable(tmp_path, seeds):
    text = invoke("report", written(tmp_path, seeds=seeds, prompts=64, **FEW))
    assert f"NOT COMPARABLE to the published numbers: {len(seeds)} seeds instead of 3." in text


@draws
def test_one_seed_has_no_error_and_missing_methods_are_named(tmp_path):
    folder = written(tmp_path, seeds=(2,), names=HUB[:1])
    text = invoke("report", folder)
    cells = cells_of(text, HUB[0])
    assert "±" not in cells["EntRGi", "Top@1 (reward), measured"]
    assert "Measured: one seed (2), 64 prompts" in text
    assert "1 seed instead of 3" in text
    assert cells_of(text, HUB[1])["EntRGi", "Top@1 (reward), measured"] == "not measured"


def test_an_unfinished_run_is_said_to_be(tmp_path):
    folder = written(tmp_path, of=4)
    (file,) = (folder / "records").glob("*.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))
    assert "not finished: 2 prompts of 1 cell are missing" in invoke("report", folder)
    file.write_text("")
    with pytest.raises(ValueError, match="no records yet"):
        invoke("report", folder)


@draws
def test_cells_that_were_never_reached_are_missing_too(tmp_path):
    folder = written(tmp_path, methods=["bon"], seeds=[1, 2], of=4)
    assert "not finished" not in invoke("report", folder)
    written(tmp_path, methods=["aps"], seeds=[3], asked={"seeds": [1, 2, 3]}, of=4)
    text = invoke("report", folder)
    assert "not finished: 24 prompts of 6 cells are missing" in text
    assert "Best-of-N has seeds 1, 2 only. APS has seed 3 only." in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"benchmarks": PAPER["benchmarks"] | {"rm-bench": "8 prompts, ab"}},
            "benchmark rm-bench (8 prompts, ab)",
        ),
    ],
)
def test_a_file_that_is_called_like_a_benchmark_is_none_of_the_papers(tmp_path, change, words):
    text = invoke("report", written(tmp_path, declaration=PAPER | change, prompts=64, **FEW))
    assert f"numbers: {words}." in text
    known = cells_of(text, "rm-bench")["EntRGi", "Top@1, published"]
    assert known == "not in the paper"


@draws
def test_nothing_published_stands_beside_other_experiments(tmp_path):
    variants = tuple({"reward": size} for size in published.SKYWORK)
    declaration = PAPER | {"experiment": "reward-size"}
    invoke("report", written(tmp_path, declaration=declaration, variants=variants))
    text = (tmp_path / "report" / "report.md").read_text()
    assert "ublished" not in text
    assert "COMPARABLE" not in text


def test_latex_says_what_the_text_says(tmp_path):
    name = "50%_of ${x}^~\\"
    declaration = PAPER | {"benchmarks": {name: "4 prompts, ab", **PAPER["benchmarks"]}}
    invoke("report", written(tmp_path, declaration=declaration, names=[name, HUB[0]], prompts=1))
    tex = (tmp_path / "report" / "report.tex").read_text()
    escaped = r"50\%\_of \$\{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}"
    assert rf"\caption{{{escaped}, rewards" in tex
    (line,) = {line for line in tex.splitlines() if "NOT COMPARABLE" in line}
    assert line.startswith(r"\par\smallskip\footnotesize Measured: ")
    assert "%" not in line.replace(r"\%", "")


def test_two_reward_models_in_folders_of_one_name_are_exported_apart(tmp_path):
    variants = ({"reward": "A"}, {"reward": "B"})
    rewards = {"A": {"name": "reward"}, "B": {"name": "reward"}}
    declaration = PAPER | {"experiment": "reward-size", "rewards": rewards, "main_reward": "A"}
    folder = written(tmp_path, declaration=declaration, variants=variants, seeds=[1], names=HUB[:1])
    (file,) = (folder / "records").glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:  # as a run writes it
        record["settings"]["reward"] = record["variant"]["reward"]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    invoke("export", folder)
    files = sorted((folder / "export").iterdir())
    assert len(files) == 10
    for path in files:
        results = json.loads(path.read_text())["results"]
        assert [result["idx"] for result in results] == [0, 1, 2, 3]


@draws
def test_latex_holds_the_same_numbers(tmp_path):
    text = invoke("report", written(tmp_path), "--to", tmp_path / "out")
    tex = (tmp_path / "out" / "report.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 6
    for benchmark in HUB:
        for cell in cells_of(text, benchmark).values():
            assert cell.replace("±", r"$\pm$").replace("−", "$-$").replace("_", r"\_") in tex
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {7, 2}  # the differences have fewer
    assert r"\includegraphics[width=\columnwidth]{main.pdf}" in tex
    captions = [line for line in tex.splitlines() if line.startswith(r"\caption{Each")]
    assert r"$\tau$ = 0.7" in captions[0]
    assert captions[0].isascii()


def as_data(folder, *more):
    """A run's table.csv and table.json: the rows of both."""
    text = invoke("report", folder, *more)
    with (folder / "report" / "table.csv").open(newline="") as file:
        in_csv = list(csv.DictReader(file))
    return text, in_csv, json.loads((folder / "report" / "table.json").read_text())


def test_the_table_as_data_holds_the_same_numbers_in_full(tmp_path):
    text, in_csv, in_json = as_data(written(tmp_path, prompts=5))
    assert [(r["benchmark"], r["method"]) for r in in_csv] == list(product(HUB, METHODS))
    assert list(in_json["columns"]) == list(in_csv[0])
    for plain, row in zip(in_csv, in_json["rows"], strict=True):
        assert plain == {k: "" if v is None else str(v) for k, v in row.items()}
        K = 7 if row["method"] == "bon_equal_compute" else 4
        per_seed = [
            np.mean(
                [
                    max(reward_of(row["benchmark"], row["method"], s, i, k) for k in range(K))
                    for i in range(5)
                ]
            )
            for s in (1, 2, 3)
        ]
        assert row["top1_mean_reward"] == pytest.approx(np.mean(per_seed), abs=1e-12)
        error = np.std(per_seed, ddof=1) / 3**0.5
        assert row["top1_standard_error_reward"] == pytest.approx(error, abs=1e-12)
        assert (row["top1_seeds"], row["top1_prompts"]) == (3, 15)
        assert (row["answers_min"], row["answers_max"], row["reward"]) == (K, K, "1.7B")
        assert row["comparable"] is False  # of five prompts
        cell = cells_of(text, row["benchmark"])[row["label"], "Avg@K (reward), measured"]
        mean, error = row["average_mean_reward"], row["average_standard_error_reward"]
        assert cell == f"{mean:.2f} ± {error:.2f}".replace("-", "−")
    published = {(r["benchmark"], r["method"]): r["top1_published_reward"] for r in in_json["rows"]}
    assert published["rm-bench", "entrgi"] == 5.70
    assert published["rm-bench", "bon_equal_compute"] is None
    assert all(note in text for note in in_json["notes"])
    assert in_json["fingerprint"] == json.loads((tmp_path / "run.json").read_text())["fingerprint"]


def test_the_table_as_data_has_a_row_for_each_variant(tmp_path):
    declaration = PAPER | {"experiment": "gradient-steps"}
    variants = [{"reward": "1.7B", "gradient_steps": m} for m in (1, 8)]
    folder = written(
        tmp_path, declaration=declaration, methods=["aps"], variants=variants, seeds=(1,)
    )
    _, in_csv, in_json = as_data(folder)
    found = [(r["benchmark"], r["gradient_steps"]) for r in in_csv]
    assert found == list(product(HUB, ("1", "8")))
    assert {r["top1_standard_error_reward"] for r in in_csv} == {""}  # of one seed
    assert "comparable" not in in_json["columns"]
    lines = (folder / "report" / "report.md").read_text().splitlines()
    assert sum(line.startswith("| APS") for line in lines) == len(in_csv)  # no differences
    assert {r["top1_difference_reward"] for r in in_csv} == {""}


def test_the_table_as_data_shows_what_is_not_measured_as_none(tmp_path):
    _, in_csv, in_json = as_data(written(tmp_path, methods=["entrgi"], prompts=64))
    (bon,) = (r for r in in_json["rows"] if (r["benchmark"], r["method"]) == ("rm-bench", "bon"))
    assert (bon["top1_mean_reward"], bon["top1_published_reward"]) == (None, 5.11)
    assert {r["comparable"] for r in in_csv} == {"True"}


def opens_as_pdf(contents):
    """As wide as a column, its fonts are whole TrueType ones in the file, and it has no date."""
    assert contents.startswith(b"%PDF-")
    assert contents.rstrip().endswith(b"%%EOF")
    assert b"CreationDate" not in contents
    assert b"/FontFile2" in contents
    assert set(re.findall(rb"/Subtype /(Type\w+|TrueType)", contents)) <= {b"Type0", b"Type1"}
    (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", contents)
    assert float(width) == pytest.approx(72 * figures.COLUMN)


def opens(path):
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg")
        return path.read_text()
    if path.suffix == ".pdf":
        opens_as_pdf(path.read_bytes())
        return ""
    assert imread(path).std() > 0.04  # something is drawn on it
    return ""


@draws_every_format
def test_figures_open_and_show_every_method(tmp_path, monkeypatch):
    run = Run.read(written(tmp_path))
    found = figures.draw(run, "main", tmp_path)
    assert [path.name for path in found] == ["main.svg", "main.png", "main.pdf"]
    text = "".join(map(opens, found))
    for label in ("Best-of-N", "equal compute", "Expectation", "APS", "EntRGi", *HUB):
        assert f">{label}<" in text or f"{label}</" in text
    before = found[-1].read_bytes()
    monkeypatch.setattr(figures, "KINDS", {"pdf": figures.KINDS["pdf"]})
    (again,) = figures.draw(run, "main", tmp_path)
    assert again.read_bytes() == before


def one_answer(experiment, benchmark, method, **more):
    """A record of one answer, and a run of it."""
    one = observed(benchmark, method, 1, [(1.0, 0.5, 10)], [[1, 2], [3, 4]])
    one |= {"experiment": experiment} | more
    if not EXPERIMENTS[experiment].observed:
        one["errors"] = None
    declaration = PAPER | {"experiment": experiment, "benchmarks": {benchmark: ""}}
    judge = JudgedBy("a$_$j", "m", "test", ("good?",), {key_of(one): 3.0}, 1, 1, 0)
    return Run(declaration | {"fingerprint": "f"}, [one], [], [judge])


@draws
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_dollar_sign_in_a_name_is_drawn_as_one(tmp_path, experiment):
    """Of a benchmark, a method, a reward model and a judge: it begins no formula."""
    variants = {
        "reward-size": {"reward": "r$_$r"},
        "gradient-steps": {"reward": "r$_$r", "gradient_steps": 1},
    }
    variant = variants.get(experiment, {})
    run = one_answer(experiment, "b_$5_$10", "m$_$m", variant=variant)
    text = "".join(map(opens, figures.draw(run, experiment, tmp_path)))
    shown = ["b_$5_$10", "m$_$m"]
    shown += [] if EXPERIMENTS[experiment].observed else ["a$_$j"]
    shown += ["r$_$r"] if experiment == "reward-size" else []
    for name in shown:
        assert name in text
    assert "\\$" not in text


@draws
def test_figures_do_not_depend_on_a_matplotlibrc(tmp_path, monkeypatch):
    """Which may ask for LaTeX, which there may be none of, and which reads signs in names."""
    run, before = one_answer("main", "50%_&", "aps"), {**matplotlib.rcParams}
    plain = [path.read_bytes() for path in figures.draw(run, "main", tmp_path)]
    asked = {"text.usetex": True, "axes.facecolor": "red", "figure.dpi": 10}
    for name, theirs in asked.items():
        monkeypatch.setitem(matplotlib.rcParams, name, theirs)
    assert [path.read_bytes() for path in figures.draw(run, "main", tmp_path)] == plain
    assert matplotlib.rcParams["text.usetex"]
    monkeypatch.undo()
    assert {**matplotlib.rcParams} == before


@draws
@pytest.mark.parametrize("name", ["基准", "🙂"])
def test_signs_that_the_font_lacks_are_drawn_without_a_warning(tmp_path, name):
    run = one_answer("main", name, "aps")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (path,) = figures.draw(run, "main", tmp_path)
    assert name in opens(path)


def bars_of(axis):
    """Each point with error bars: label, x, y, length of each half of its bar.

    x is that of the nearest tick: points are moved aside.
    """
    for container in axis.containers:
        line, _, (bars,) = container
        moved = isinstance(axis.xaxis.get_major_locator(), FixedLocator)
        for x, y, segment in zip(*line.get_data(), bars.get_segments(), strict=True):
            tick = min(axis.get_xticks(), key=lambda tick: abs(tick - x)) if moved else x
            yield container.get_label(), tick, y, np.ptp(segment, axis=0).max() / 2


def panels_of(figure):
    """The panels by row: those with a title."""
    axes = [axis for axis in figure.axes if axis.get_title()]
    return np.reshape(axes, axes[0].get_subplotspec().get_gridspec().get_geometry())


def test_the_main_figure_shows_mean_and_error_beside_the_methods_name(tmp_path):
    run = Run.read(written(tmp_path))
    for row, benchmark in zip(panels_of(figures.main(run)), HUB, strict=True):
        names = [label.get_text() for label in row[0].get_yticklabels()]
        for axis, measure in zip(row, run.measures, strict=True):
            assert axis.get_title() == benchmark
            points = {names[y]: (x, half) for _, x, y, half in bars_of(axis)}
            for method in METHODS:
                found = run.value(measure, benchmark=benchmark, method=method)
                label, *_ = figures.STYLES[method]
                assert points[label] == pytest.approx((found.mean, found.error))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("error-by-step", marks=[draws, pytest.mark.slow]),
        pytest.param("error-vs-entropy", marks=[draws_every_format, pytest.mark.slow]),
    ],
)
def test_figures_of_errors_open(tmp_path, name):
    tiny_run(tmp_path, experiment=name, methods=["aps", "entrgi"])
    _, files = report.write(tmp_path, tmp_path / "report")
    names = [path.name for path in files]
    # Either experiment records what both figures are drawn from.
    for figure in ("error-by-step", "error-vs-entropy"):
        assert {f"{figure}.{kind}" for kind in figures.KINDS} <= set(names)
    text = "".join(opens(path) for path in files if path.stem in figures.DRAWN)
    assert "log K" not in text
    for label in (
        "APS",
        "EntRGi",
        "log V, V: vocabulary size",
        "K answers",
        "entropy (nats)",
        "denoising step",
    ):
        assert label in text


def test_error_by_step_weighs_positions_alike(tmp_path):
    tiny_run(tmp_path, experiment="error-by-step", methods=["aps", "entrgi"])
    run = Run.read(tmp_path)
    figure = figures.error_by_step(run)
    line = next(l for l in figure.axes[0].lines if l.get_label() == "APS")
    records = [r for r in run.records if r["method"] == "aps"]
    first = [r["errors"]["steps"][0] for r in records]
    mean = sum(s["E"] * s["n"] for s in first) / sum(s["n"] for s in first)
    assert line.get_ydata()[0] == pytest.approx(mean)
    assert line.get_xdata()[0] == first[0]["step"] + 1


def test_both_panels_of_figure_2_and_the_histograms_of_figure_3(tmp_path):
    tiny_run(tmp_path, experiment="error-by-step", methods=["aps", "entrgi"])
    run = Run.read(tmp_path)
    left, right = figures.error_by_step(run).axes
    for axis, name in ((left, "E"), (right, "entropy")):
        for method in ("aps", "entrgi"):
            label, *_ = figures.STYLES[method]
            (line,) = [l for l in axis.lines if l.get_label() == label]
            steps = [s for r in run.select(method=method) for s in r["errors"]["steps"]]
            for x, y in zip(*line.get_data(), strict=True):
                here = [s for s in steps if s["step"] + 1 == x]
                weights = [s["n"] for s in here]
                assert y == pytest.approx(np.average([s[name] for s in here], weights=weights))
    (line,) = [l for l in right.lines if l.get_label() == figures.LOG_V]
    assert set(line.get_ydata()) == {math.log(14)}
    assert figures.LOG_V not in [l.get_label() for l in left.lines]

    panels = [axis for axis in figures.error_vs_entropy(run).axes if axis.get_title()]
    for axis, method in zip(panels, ("aps", "entrgi"), strict=True):
        found = [r["errors"]["histogram"] for r in run.select(method=method)]
        counts = sum(np.array(histogram["counts"]) for histogram in found)  # [entropy, E]
        (image,) = [c for c in axis.collections if hasattr(c, "get_coordinates")]
        assert np.array_equal(image.get_array().filled(0), counts.T)
        x, y = np.moveaxis(image.get_coordinates(), -1, 0)
        assert x[0].tolist() == pytest.approx(found[0]["entropy_edges"])
        assert y[:, 0].tolist() == pytest.approx(found[0]["error_edges"])


@pytest.mark.slow
@draws
def test_figure_5_is_the_change_against_one_step_over_all_sizes(tmp_path):
    variants = [{"reward": r, "gradient_steps": M} for r in ("0.6B", "4B") for M in (1, 2, 8)]
    declaration = PAPER | {"experiment": "gradient-steps"}
    folder = written(tmp_path, declaration=declaration, variants=variants, prompts=2)
    text, files = report.write(folder, tmp_path / "report")
    assert "gradient-steps.svg" in {path.name for path in files}
    axes = figures.gradient_steps(Run.read(folder)).axes
    for axis in axes[:6]:
        assert axis.get_xticks().tolist() == [1, 2, 8]
        for container in axis.containers:
            line = container[0]
            assert line.get_xdata().round().tolist() == [1, 2, 8]
            assert list(line.get_ydata()) == pytest.approx([0, 1 / 5, 7 / 5])  # see `shift`
    assert ("EntRGi", "M") in cells_of(text, "rm-bench")
    # The change is the same at every seed, so its error is none: unlike that of one row.
    assert all(half == pytest.approx(0) for axis in axes[:6] for *_, half in bars_of(axis))
    block = text.partition("**rm-bench**")[2].partition(", less ")[0]
    rows = [re.findall(r"[^|\s]+", row) for row in re.findall(r"\| EntRGi .*", block)]
    run = Run.read(folder)
    assert [row[1:3] for row in rows] == [[r, str(M)] for r in ("0.6B", "4B") for M in (1, 2, 8)]
    for row in rows:
        fields = {"reward": row[1], "gradient_steps": int(row[2])}
        found = run.value("top1", benchmark="rm-bench", method="entrgi", **fields)
        assert row[3] == f"{found.mean:.2f}".replace("-", "−")


@pytest.mark.slow
@draws
def test_figure_4_is_by_size(tmp_path):
    variants = [{"reward": r} for r in ("4B", "0.6B", "1.7B")]
    declaration = PAPER | {"experiment": "reward-size"}
    folder = written(tmp_path, declaration=declaration, variants=variants, prompts=2)
    run = Run.read(folder)
    axes = figures.reward_size(run).axes
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["0.6B", "1.7B", "4B"]
    for axis, (benchmark, measure) in zip(axes, product(HUB, run.measures), strict=True):
        points = {(label, x): (y, half) for label, x, y, half in bars_of(axis)}
        for method, (x, size) in product(METHODS, enumerate(("0.6B", "1.7B", "4B"))):
            found = run.value(measure, benchmark=benchmark, method=method, reward=size)
            label, *_ = figures.STYLES[method]
            assert points[label, x] == pytest.approx((found.mean, found.error))
    report.write(folder, tmp_path / "report")


def test_reward_models_come_in_the_order_of_the_declaration(tmp_path):
    sizes = ("small", "medium", "large")
    rewards = {size: {"name": size} for size in sizes}
    declaration = PAPER | {"experiment": "reward-size", "rewards": rewards, "main_reward": "small"}
    variants = [{"reward": size} for size in sorted(sizes)]
    run = Run.read(written(tmp_path, declaration=declaration, variants=variants, prompts=1))
    assert run.variants("reward") == list(sizes)


def rewritten(folder, change):
    """A run folder whose records are changed."""
    (file,) = (folder / "records").glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(record | change(record)) + "\n" for record in records))
    return folder


def test_the_bars_of_figure_5_are_those_of_the_changes(tmp_path):
    variants = [{"gradient_steps": M} for M in (1, 2)]
    declaration = PAPER | {"experiment": "gradient-steps"}
    folder = written(tmp_path, declaration=declaration, variants=variants, prompts=1)

    def grown(record):
        more = record["seed"] ** 2 * record["variant"]["gradient_steps"]
        return {"rewards": [reward + more for reward in record["rewards"]]}

    axes = figures.gradient_steps(Run.read(rewritten(folder, grown))).axes
    changes = [1 / 5 + seed**2 for seed in (1, 2, 3)]
    last = np.mean(changes), np.std(changes, ddof=1) / 3**0.5
    for axis in axes[:6]:
        for _, x, y, half in bars_of(axis):
            assert (y, half) == pytest.approx((0, 0) if x == 1 else last)


OF_HUB = {n: {name: PAPER["benchmarks"][name] for name in HUB[:n]} for n in (1, 2)}
"""The benchmarks of a run on some of them."""


def test_each_point_of_figure_4_is_that_of_its_size(tmp_path):
    """Of each benchmark and measure, with one standard error over the seeds."""
    variants = [{"reward": r} for r in ("4B", "0.6B")]
    declaration = PAPER | {"experiment": "reward-size", "benchmarks": OF_HUB[2]}
    of = {"names": HUB[:2], "methods": ("bon", "entrgi"), "prompts": 1}
    run = Run.read(written(tmp_path, declaration=declaration, variants=variants, **of))
    panels = panels_of(figures.reward_size(run)).flat
    for axis, (benchmark, measure) in zip(panels, product(HUB[:2], run.measures), strict=True):
        assert axis.get_title() == benchmark
        assert [t.get_text() for t in axis.get_xticklabels()] == ["0.6B", "4B"]
        points = {(label, x): (y, half) for label, x, y, half in bars_of(axis)}
        expected = {}
        for method, (x, size) in product(("bon", "entrgi"), enumerate(("0.6B", "4B"))):
            found = run.value(measure, benchmark=benchmark, method=method, reward=size)
            expected[figures.STYLES[method][0], x] = pytest.approx((found.mean, found.error))
        assert points == expected


def test_a_change_of_figure_5_is_against_one_step_by_the_same_reward_model(tmp_path):
    """Then it is averaged over the models: they have scales of their own."""
    sizes = {"0.6B": (100.0, 1.0), "4B": (-7.0, 5.0)}
    variants = [{"reward": r, "gradient_steps": M} for r in sizes for M in (1, 2, 8)]
    declaration = PAPER | {"experiment": "gradient-steps", "benchmarks": OF_HUB[1]}
    of = {"names": HUB[:1], "methods": ("aps", "entrgi"), "prompts": 1}
    folder = written(tmp_path, declaration=declaration, variants=variants, **of)

    def scaled(record):
        offset, slope = sizes[record["variant"]["reward"]]
        M = record["variant"]["gradient_steps"]
        return {"rewards": [offset + slope * M * record["seed"]] * 4}

    run = Run.read(rewritten(folder, scaled))
    for axis in panels_of(figures.gradient_steps(run)).flat:
        found = {(label, x): (y, half) for label, x, y, half in bars_of(axis)}
        assert found == {
            (figures.STYLES[method][0], M): pytest.approx((3 * 2 * (M - 1), 3 * (M - 1) / 3**0.5))
            for method, M in product(("aps", "entrgi"), (1, 2, 8))
        }


def test_a_change_of_figure_5_needs_the_answers_with_one_step(tmp_path):
    """A method of which these have all failed has no line, and the others have theirs."""
    variants = [{"gradient_steps": M} for M in (1, 2)]
    declaration = PAPER | {"experiment": "gradient-steps", "benchmarks": OF_HUB[1]}
    of = {"names": HUB[:1], "methods": ("aps", "entrgi"), "prompts": 1}
    run = Run.read(written(tmp_path, declaration=declaration, variants=variants, **of))
    gone = ("aps", {"gradient_steps": 1})
    left = [r for r in run.records if (r["method"], r["variant"]) != gone]
    for axis in panels_of(figures.gradient_steps(Run(run.declaration, left, [], []))).flat:
        assert {label for label, *_ in bars_of(axis)} == {"EntRGi"}


def test_a_point_of_figure_5_needs_the_answers_by_all_reward_models(tmp_path):
    """A mean over fewer of them would stand beside one over all."""
    variants = [{"reward": r, "gradient_steps": M} for r in ("0.6B", "4B") for M in (1, 2)]
    declaration = PAPER | {"experiment": "gradient-steps", "benchmarks": OF_HUB[1]}
    of = {"names": HUB[:1], "methods": ("aps", "entrgi"), "prompts": 1}
    run = Run.read(written(tmp_path, declaration=declaration, variants=variants, **of))
    gone = ("aps", {"reward": "4B", "gradient_steps": 2})
    left = [r for r in run.records if (r["method"], r["variant"]) != gone]
    for axis in panels_of(figures.gradient_steps(Run(run.declaration, left, [], []))).flat:
        found = {(label, M) for label, M, *_ in bars_of(axis)}
        assert found == {("APS", 1), ("EntRGi", 1), ("EntRGi", 2)}


def observed(benchmark, method, seed, steps, counts):
    """A record of what an observer saw: (E, entropy, n) at each step."""
    edges = {"entropy_edges": [0.0, 1.0, 2.0], "error_edges": [0.0, 3.0, 6.0]}
    named = [dict(zip(("E", "entropy", "n"), step, strict=True)) for step in steps]
    return {
        "experiment": "error-by-step",
        "benchmark": benchmark,
        "method": method,
        "variant": {},
        "seed": seed,
        "idx": 0,
        "prompt": "p",
        "responses": ["a"],
        "rewards": [1.0],
        "status": "ok",
        "reason": None,
        "errors": {
            "steps": [{"step": i} | one for i, one in enumerate(named)],
            "histogram": {**edges, "counts": counts},
            "log_vocabulary": 2.0 if benchmark == "rm-bench" else 4.0,
        },
    }


@draws
@pytest.mark.parametrize("methods", [["bon"], ["aps"]])
def test_figures_2_and_3_of_methods_that_saw_nothing(methods):
    records = [observed("own", method, 1, [], [[0, 0], [0, 0]]) for method in methods]
    declaration = PAPER | {"experiment": "error-by-step", "benchmarks": {"own": ""}}
    run = Run(declaration | {"fingerprint": "f"}, records, [], [])
    drawn = figures.of(run)
    assert drawn == ["error-by-step", "error-vs-entropy"][: 1 if methods == ["bon"] else 2]
    for name in drawn:
        assert figures.DRAWN[name](run).axes


def test_figures_2_and_3_keep_benchmarks_apart():
    """Lines weigh positions alike and bands prompts; the counts are those of one benchmark."""
    records = [
        observed("rm-bench", "aps", 1, [(1.0, 0.5, 10), (2.0, 0.25, 5)], [[1, 2], [3, 4]]),
        observed("rm-bench", "aps", 2, [(2.0, 1.5, 30)], [[10, 0], [0, 0]]),
        observed("own", "aps", 1, [(5.0, 3.0, 7)], [[0, 0], [0, 100]]),
    ]
    declaration = PAPER | {"experiment": "error-by-step"}
    declaration |= {"benchmarks": {"rm-bench": "", "own": ""}, "fingerprint": "f"}
    run = Run(declaration, records, [], [])
    panels = panels_of(figures.error_by_step(run))
    expected = {
        (0, "E"): ([1, 2], [1.75, 2.0], np.percentile([1.0, 2.0], [10, 90])),
        (0, "entropy"): ([1, 2], [1.25, 0.25], np.percentile([0.5, 1.5], [10, 90])),
        (1, "E"): ([1], [5.0], (5.0, 5.0)),
        (1, "entropy"): ([1], [3.0], (3.0, 3.0)),
    }
    for (row, name), (x, y, band) in expected.items():
        axis = panels[row, 0 if name == "E" else 1]
        assert axis.get_title() == ("rm-bench", "own")[row]
        (line,) = [l for l in axis.lines if l.get_label() == "APS"]
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == (x, pytest.approx(y))
        vertices = axis.collections[0].get_paths()[0].vertices
        first = vertices[vertices[:, 0] == 1, 1]
        assert (first.min(), first.max()) == pytest.approx(tuple(band))
        highest = [l.get_ydata()[0] for l in axis.lines if l.get_label() == figures.LOG_V]
        assert highest == ([] if name == "E" else [2.0, 4.0][row : row + 1])
    panels = [axis for axis in figures.error_vs_entropy(run).axes if axis.get_title()]
    for axis, counts in zip(panels, ([[11, 2], [3, 4]], [[0, 0], [0, 100]]), strict=True):
        (image,) = [c for c in axis.collections if hasattr(c, "get_coordinates")]
        assert image.get_array().filled(0).tolist() == np.transpose(counts).tolist()


def test_all_panels_of_figure_3_have_one_scale():
    """Of the largest count of any, wherever it is; no panel ends below the largest error of any."""
    few, many = [[1, 0], [0, 0]], [[0, 0], [100, 0]]  # [entropy, E]
    one = [(1.0, 1.0, 1)]
    declaration = PAPER | {"experiment": "error-by-step", "fingerprint": "f"}
    declaration |= {"benchmarks": {"rm-bench": "", "own": ""}}
    for counts, bins in (((many, few), 1), ((few, many), 1), (([[0, 1], [0, 0]], many), 2)):
        pairs = zip(declaration["benchmarks"], counts, strict=True)
        records = [observed(name, "aps", 1, one, found) for name, found in pairs]
        figure = figures.error_vs_entropy(Run(declaration, records, [], []))
        edges = records[0]["errors"]["histogram"]["error_edges"]
        for axis in [axis for axis in figure.axes if axis.get_title()]:
            (image,) = [c for c in axis.collections if hasattr(c, "get_coordinates")]
            assert (image.norm.vmin, image.norm.vmax) == (1, 100)
            assert axis.get_ylim() == (0, edges[bins])


@draws
def test_gold_is_that_of_the_answer_with_the_largest_reward(tmp_path):
    folder = written(tmp_path, declaration=PAPER | {"testbed": "toy"}, names=HUB[:1])
    rewritten(folder, lambda record: {"gold": [-reward for reward in record["rewards"]]})
    cells = cells_of(invoke("report", folder), HUB[0])
    run = Run.read(folder)
    for method in METHODS:
        found = run.value("gold", method=method)
        assert found.mean == pytest.approx(-run.value("top1", method=method).mean)
        cell = cells[LABELS[method], "Gold of the best (points), measured"]
        assert cell == found.text()


def test_prompts_that_failed_are_not_missing(tmp_path):
    folder = written(tmp_path, names=HUB[:1], of=4)
    failed = {"status": "failed", "reason": "nan", "rewards": [], "responses": []}
    rewritten(folder, lambda record: failed if record["seed"] == 2 and record["idx"] else {})
    text = invoke("report", folder)
    assert "15 prompts failed and are left out" in text
    assert "not finished" not in text


def test_every_experiment_has_a_figure():
    assert set(figures.DRAWN) == set(EXPERIMENTS)


def test_value_is_the_standard_error():
    found = value([1.0, 2.0, 6.0], prompts=9)
    assert found.mean == 3
    assert found.error == pytest.approx(7**0.5 / 3**0.5)
    assert value([2.0], 4).error is None


def drawn_texts(figure):
    """Every text that is drawn, with its box in the figure's pixels."""
    figure.draw_without_rendering()
    unseen = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in unseen:
            yield text.get_text(), text.get_window_extent()


def assert_readable(figure):
    """No text is cut, small, or over another; a column is as wide as the figure."""
    assert figure.get_figwidth() == pytest.approx(figures.COLUMN)
    found = list(drawn_texts(figure))
    for text, box in found:
        assert figure.bbox.padded(1).contains(box.x0, box.y0), text
        assert figure.bbox.padded(1).contains(box.x1, box.y1), text
    for (one, box), (other, more) in combinations(found, 2):
        assert not box.padded(-1).overlaps(more.padded(-1)), (one, other)
    assert min(text.get_fontsize() for text in figure.findobj(Text)) >= 7


def with_variants(folder, experiment, **of):
    """A run of the four methods of an experiment with all sizes, and with all M of Figure 5."""
    found = EXPERIMENTS[experiment].variants(tuple(published.SKYWORK), "1.7B")
    declaration = PAPER | {"experiment": experiment}
    methods = ("bon", "expectation", "aps", "entrgi")
    return written(folder, declaration=declaration, variants=found, methods=methods, **of)


@pytest.mark.parametrize(
    "experiment", ["reward-size", pytest.param("gradient-steps", marks=pytest.mark.slow)]
)
def test_no_bar_hides_another(tmp_path, experiment):
    """Even if all methods have the same numbers, on the figure as it is drawn."""
    folder = with_variants(tmp_path, experiment, prompts=1)
    run = Run.read(rewritten(folder, lambda r: {"rewards": [r["seed"], 0.0, 0.0, 0.0]}))
    with figures._style():
        figure = figures.DRAWN[experiment](run)
        assert_readable(figure)
    for axis in panels_of(figure).flat:
        assert len(axis.containers) == 4
        x = np.sort(np.concatenate([c[0].get_xdata() for c in axis.containers]))
        pixels = axis.transData.transform(np.stack([x, 0 * x], 1))[:, 0]
        width = axis.containers[0][2][0].get_linewidth()[0] * figure.dpi / 72
        assert np.diff(pixels).min() > 1.2 * width
        assert all(tick == round(tick) for tick in axis.get_xticks())


@pytest.mark.parametrize(
    ("prompts", "label"),
    [
        (64, "published"),
        pytest.param(1, "published, other settings", marks=pytest.mark.slow),
    ],
)
def test_published_numbers_are_marks_of_their_own_where_they_are_known(tmp_path, prompts, label):
    run = Run.read(written(tmp_path, prompts=prompts))
    with figures._style():
        figure = figures.main(run)
        assert_readable(figure)
    panels = panels_of(figure)
    for row, benchmark in zip(panels, HUB, strict=True):
        names = [text.get_text() for text in row[0].get_yticklabels()]
        marks = [line for line in row[0].lines if line.get_label() == label]
        found = {names[line.get_ydata()[0]]: line.get_xdata()[0] for line in marks}
        assert found == {
            figures.STYLES[method][0]: published.TOP1[benchmark, method]
            for method in ("bon", "entrgi")
        }
        assert {line.get_marker() for line in marks} == {"|"}
        assert "|" not in {marker for _, _, marker in figures.STYLES.values()}
        low, high = row[0].get_xlim()
        assert all(low < x < high for x in found.values())
        assert not [line for line in row[1].lines if "published" in line.get_label()]
    assert label in [text for text, _ in drawn_texts(figure)]
    for other in (
        {"testbed": "toy"},
        {"experiment": "reward-size"},
        {"benchmarks": dict.fromkeys(HUB, "4 prompts, ab")},
    ):
        figure = figures.main(Run({**run.declaration, **other}, run.records[:60], [], []))
        assert not any("published" in text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize(("change", "label"), [({}, "published"), ({"dtype": "float32"}, None)])
def test_a_mark_says_that_the_published_number_is_of_other_settings(tmp_path, change, label):
    names = {"benchmarks": {"rm-bench": PAPER["benchmarks"]["rm-bench"]}}
    run = Run.read(written(tmp_path, declaration=PAPER | names | change, prompts=64, **FEW))
    marks = {line.get_label() for axis in figures.main(run).axes for line in axis.lines}
    assert {mark for mark in marks if mark.startswith("published")} == {
        label or "published, other settings"
    }


@pytest.mark.slow
def test_figure_2_has_benchmarks_apart_and_shows_how_far_prompts_differ(tmp_path):
    tiny_run(tmp_path, experiment="error-by-step", methods=["aps", "entrgi"])
    one = Run.read(tmp_path)
    (name,) = one.benchmarks

    def doubled(record):
        steps = [step | {"E": 2 * step["E"]} for step in record["errors"]["steps"]]
        return record | {"benchmark": "twice", "errors": record["errors"] | {"steps": steps}}

    declaration = {**one.declaration, "benchmarks": {name: "", "twice": "", "empty": ""}}
    run = Run(declaration, [*one.records, *map(doubled, one.records)], [], [])
    with figures._style():
        figure = figures.error_by_step(run)
        assert_readable(figure)
    panels = panels_of(figure)
    assert panels.shape == (3, 2)
    for (axis, _), benchmark, factor in zip(panels, run.benchmarks, (1, 2, None), strict=True):
        assert axis.get_title() == benchmark
        bands = axis.collections
        assert len(bands) == (2 if factor else 0)
        for band, method in zip(bands, ("aps", "entrgi"), strict=False):
            first = [r["errors"]["steps"][0] for r in one.select(method=method)]
            expected = np.percentile([factor * step["E"] for step in first], [10, 90])
            vertices = band.get_paths()[0].vertices
            edge = vertices[vertices[:, 0] == first[0]["step"] + 1, 1]
            assert (edge.min(), edge.max()) == pytest.approx(tuple(expected))
        assert all(tick == round(tick) for tick in axis.get_xticks())
    texts = " ".join(text for text, _ in drawn_texts(figure)).replace("\n", " ")
    assert figures.AVERAGED_BY_STEP in texts
    assert "10% to 90% of the prompts" in texts
    with figures._style():
        assert_readable(figures.error_vs_entropy(run))


@pytest.mark.parametrize("experiment", ["main", "reward-size"])
def test_each_figure_has_a_caption(tmp_path, experiment):
    folder = written(tmp_path) if experiment == "main" else with_variants(tmp_path, experiment)
    failed = {"status": "failed", "reason": "nan", "rewards": [], "responses": []}
    bad = ("rm-bench", 2, 0)
    rewritten(folder, lambda r: failed if (r["benchmark"], r["seed"], r["idx"]) == bad else {})
    report.write(folder, folder / "report")
    text = (folder / "report" / "report.md").read_text()
    caption = text.partition(f"![{experiment}]({experiment}.svg)")[2]
    for words in (
        "Bars: one standard error over 3 seeds.",
        "reward-bench-2, judge-bench: 4 prompts × 3 seeds each.",
        "rm-bench: 3 to 4 prompts × 3 seeds.",
        "K = 4 answers, 128 new tokens, T = 128 denoising steps, M = 3 gradient steps of η = 0.5",
        f"({experiment}.pdf)",
    ):
        assert words in caption
    assert ("Best-of-N, equal compute: K = 7 answers." in caption) == (experiment == "main")
    assert ("as published on the authors' page" in caption) == (experiment == "main")


def test_what_an_experiment_varies_has_a_column_though_it_had_one_value(tmp_path):
    for experiment, variant in (
        ("reward-size", {"reward": "4B"}),
        ("gradient-steps", {"reward": "4B", "gradient_steps": 2}),
    ):
        declaration = PAPER | {"experiment": experiment}
        run = Run.read(written(tmp_path / experiment, declaration=declaration, variants=(variant,)))
        (row, *_) = [row for row in shown_numbers.rows(run) if row["method"] == "entrgi"]
        assert shown_numbers.varied(run) == list(variant)
        assert {name: row[name] for name in variant} == variant
        assert row["top1_difference_reward"] is not None


# Differences


def test_differences_are_paired_by_prompt_with_an_interval_over_the_prompts(tmp_path):
    """Of seeds 1 and 3, which have the same prompts here, each prompt is drawn again as a whole."""
    folder = written(tmp_path, names=HUB[:1], prompts=5)
    rewritten(folder, lambda r: {"prompt": f"prompt {r['idx']} of {r['seed'] % 2}"})
    text, _, in_json = as_data(folder)
    rows = {row["method"]: row for row in in_json["rows"] if row["benchmark"] == HUB[0]}
    table = cells_of(text, f"{HUB[0]}, less Best-of-N")
    for method, (name, of) in product(METHODS[1:], (("top1", max), ("average", np.mean))):

        def less(seed, idx, method=method, of=of):
            found = []
            for who in (method, "bon"):
                K = 7 if who == "bon_equal_compute" else 4
                found.append(of([reward_of(HUB[0], who, seed, idx, k) for k in range(K)]))
            return found[0] - found[1]

        units = [[less(1, i), less(3, i)] for i in range(5)] + [[less(2, i)] for i in range(5)]
        sums, sizes = np.array([[sum(unit), len(unit)] for unit in units]).T
        chosen = np.random.default_rng(0).integers(10, size=(10_000, 10))
        resampled = sums[chosen].sum(1) / sizes[chosen].sum(1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        row = rows[method]
        assert row[f"{name}_difference_reward"] == pytest.approx(sums.sum() / 15)
        assert row[f"{name}_difference_low_reward"] == pytest.approx(low)
        assert row[f"{name}_difference_high_reward"] == pytest.approx(high)
        assert row[f"{name}_difference_prompts"] == 10
        head = {"top1": "Top@1 (reward), n = 10", "average": "Avg@K (reward), n = 10"}[name]
        expected = f"{sums.sum() / 15:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        assert table[LABELS[method], head] == expected
        means = [rows[who][f"{name}_mean_reward"] for who in (method, "bon")]
        assert row[f"{name}_difference_reward"] == pytest.approx(means[0] - means[1])
    assert rows["bon"]["top1_difference_reward"] is None
    assert "by a percentile bootstrap over the n different prompts" in text


def test_differences_are_those_of_the_same_variant(tmp_path):
    """And of a single prompt they have no interval."""
    folder = with_variants(tmp_path, "reward-size", prompts=1)
    grown = {"0.6B": 1, "1.7B": 2, "4B": 3}
    rewritten(
        folder,
        lambda r: {"rewards": [grown[r["variant"]["reward"]] * (r["method"] == "entrgi")] * 4},
    )
    _, in_csv, in_json = as_data(folder)
    for plain, row in zip(in_csv, in_json["rows"], strict=True):
        if row["method"] == "entrgi":
            assert row["top1_difference_reward"] == grown[row["reward"]]
            assert plain["top1_difference_low_reward"] == ""
            assert row["top1_difference_prompts"] == 1


def test_resamples_do_not_depend_on_how_many_are_held_at_a_time(monkeypatch):
    values = np.random.default_rng(5).normal(size=(33, 2))
    expected = intervals.bootstraps(values)
    chosen = np.random.default_rng(0).integers(33, size=(intervals.RESAMPLES, 33))
    low, high = np.quantile(values[chosen].mean(1), [0.025, 0.975], axis=0)
    assert [each.low for each in expected] == pytest.approx(low)
    assert [each.high for each in expected] == pytest.approx(high)
    monkeypatch.setattr(intervals, "AT_ONCE", 700)
    assert intervals.bootstraps(values) == [
        intervals.Estimate(*(pytest.approx(x, abs=1e-12) for x in (e.mean, e.low, e.high)))
        for e in expected
    ]


EXPORTED = {
    "config": dict,
    "method": str,
    "metrics": {
        "mean_top1_reward": float,
        "mean_avgN_reward": float,
        "all_top1_rewards": [float],
        "all_avgN_rewards": [float],
    },
    "results": [
        {
            "idx": int,
            "prompt": str,
            "best_response": str,
            "top1_reward": float,
            "all_responses": [str],
            "all_rewards": [float],
            "avgN_reward": float,
        }
    ],
}


def fits(content, schema):
    if isinstance(schema, dict):
        assert set(content) == set(schema)
        for key, inner in schema.items():
            fits(content[key], inner)
    elif isinstance(schema, list):
        assert content
        for one in content:
            fits(one, schema[0])
    else:
        assert isinstance(content, schema)


def test_exports_are_the_authors_layout(tmp_path):
    invoke("export", written(tmp_path, seeds=(1, 2)), "--to", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(names) == 30
    stem = "rm-bench_Skywork-Reward-V2-Qwen3-1.7B_k4_temp0.7_T128"
    assert f"{stem}_M3_entrgi_seed2.json" in names
    assert f"{stem}_bon_seed1.json" in names
    for name in names:
        content = json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))
        fits(content, EXPORTED)
        metrics, results = content["metrics"], content["results"]
        assert metrics["all_top1_rewards"] == [r["top1_reward"] for r in results]
        assert metrics["mean_top1_reward"] == pytest.approx(np.mean(metrics["all_top1_rewards"]))
        assert metrics["mean_avgN_reward"] == pytest.approx(np.mean(metrics["all_avgN_rewards"]))
        for result in results:
            assert result["top1_reward"] == max(result["all_rewards"])
            best = result["all_rewards"].index(result["top1_reward"])
            assert result["best_response"] == result["all_responses"][best]
            assert result["avgN_reward"] == pytest.approx(np.mean(result["all_rewards"]))
    invoke("export", tmp_path, "--to", tmp_path / "named", "--aggregation-names")
    assert all("_MNT128_" in path.name for path in (tmp_path / "named").iterdir())


def test_what_an_export_says_of_its_settings(tmp_path):
    """The authors' names, and beside them everything that is ours."""
    settings = {**PAPER["settings"], "denoising_steps": 64, "order": "anchor", "top_p": 0.9}
    folder = written(tmp_path, declaration=PAPER | {"settings": settings}, prompts=1)
    invoke("export", folder, "--to", tmp_path / "out")
    for method, steps, K in (("entrgi", 3, 4), ("bon_equal_compute", 0, 7)):
        M = f"_M{steps}" if steps else ""
        stem = f"rm-bench_Skywork-Reward-V2-Qwen3-1.7B_k{K}_temp0.7_T64{M}_{method}_seed2"
        content = json.loads((tmp_path / "out" / f"{stem}.json").read_text(encoding="utf-8"))
        assert content["method"] == method
        ours = content["config"].pop("entrgi_ref")
        assert ours["fingerprint"] == Run.read(folder).declaration["fingerprint"]
        assert ours["settings"]["denoising_steps"] == 64
        assert content["config"] == {
            "benchmark": "rm-bench",
            "reward_model": "Skywork-Reward-V2-Qwen3-1.7B",
            "K": K,
            "T": 64,
            "M": steps,
            "eta": 0.5,
            "temperature": 0.7,
            "top_p": 0.9,
            "max_new_tokens": 128,
            "alg": "anchor",
            "seed": 2,
        }


# The same prompts for all methods


def test_methods_are_compared_on_the_prompts_that_all_have_answered(tmp_path):
    """A prompt that failed for one method does not count for the others either."""
    folder = written(tmp_path, names=HUB[:1], of=4)
    failed = {"status": "failed", "reason": "nan", "rewards": [], "responses": []}
    bad = {("aps", 1, 0), ("aps", 2, 3), ("entrgi", 2, 1)}
    rewritten(folder, lambda r: failed if (r["method"], r["seed"], r["idx"]) in bad else {})
    text = invoke("report", folder)
    kept = {1: [1, 2, 3], 2: [0, 2], 3: [0, 1, 2, 3]}
    cells = cells_of(text, HUB[0])
    for method in METHODS:
        K = 7 if method == "bon_equal_compute" else 4
        per_seed = [
            np.mean([max(reward_of(HUB[0], method, s, i, k) for k in range(K)) for i in kept[s]])
            for s in (1, 2, 3)
        ]
        expected = f"{np.mean(per_seed):.2f} ± {np.std(per_seed, ddof=1) / 3**0.5:.2f}"
        found = cells[LABELS[method], "Top@1 (reward), measured"].replace("−", "-")
        assert found == expected
    assert "3 prompts failed and are left out" in text
    assert (
        "compared on the prompts that all of them have answered, 9 of 12: 12 answers to the others "
        "do not count"
    ) in text
    assert "published numbers: 2 to 4 prompts instead of 64; 3 prompts failed." in text
    files = invoke("export", folder).split()
    assert sum(len(json.loads(Path(f).read_text())["results"]) for f in files) == 60 - 3


def test_variants_are_compared_on_the_prompts_that_all_have_answered(tmp_path):
    """A prompt that failed under one reward model does not count under the others either."""
    variants = [{"reward": "0.6B"}, {"reward": "1.7B"}]
    folder = written(
        tmp_path,
        declaration=PAPER | {"experiment": "reward-size"},
        names=HUB[:1],
        methods=("bon", "entrgi"),
        seeds=[1],
        prompts=3,
        variants=variants,
    )
    failed = {"status": "failed", "reason": "nan", "rewards": [], "responses": []}
    bad = ("entrgi", {"reward": "1.7B"}, 0)
    rewritten(folder, lambda r: failed if (r["method"], r["variant"], r["idx"]) == bad else {})
    run = Run.read(folder)
    for method, variant in product(("bon", "entrgi"), variants):
        assert run.value("top1", method=method, **variant).prompts == 2


def test_a_seed_that_failed_for_one_method_counts_for_none(tmp_path):
    """Else one method would be averaged over other prompts than the others."""
    folder = written(tmp_path, names=HUB[:1], of=4)
    failed = {"status": "failed", "reason": "nan", "rewards": [], "responses": []}
    rewritten(folder, lambda r: failed if (r["method"], r["seed"]) == ("aps", 2) else {})
    text = invoke("report", folder)
    cells = cells_of(text, HUB[0])
    for method in METHODS:
        K = 7 if method == "bon_equal_compute" else 4
        per_seed = [
            np.mean([max(reward_of(HUB[0], method, s, i, k) for k in range(K)) for i in range(4)])
            for s in (1, 3)
        ]
        expected = f"{np.mean(per_seed):.2f} ± {np.std(per_seed, ddof=1) / 2**0.5:.2f}"
        found = cells[LABELS[method], "Top@1 (reward), measured"].replace("−", "-")
        assert found == expected
    assert "Measured: mean ± standard error over 2 seeds (1, 3)" in text
    assert "2 seeds instead of 3" in text


@draws
def test_methods_without_a_prompt_in_common_are_not_compared(tmp_path):
    folder = written(tmp_path, methods=["bon"], seeds=[1], names=HUB[:1])
    written(tmp_path, methods=["aps"], seeds=[2], names=HUB[:1])
    text = invoke("report", folder)
    assert cells_of(text, HUB[0])["APS", "Top@1 (reward), measured"] == "not measured"
    assert f"NOTHING IS COMPARED on {HUB[0]}" in text
    assert "Measured: no seed (none)" in text
    assert "Best-of-N has seed 1 only. APS has seed 2 only." in text


@pytest.mark.parametrize("name", ["error-by-step", "error-vs-entropy"])
def test_figures_of_errors_show_the_prompts_that_all_have_answered(tmp_path, name):
    """The rest is drawn as if the failed prompt had not been run at all."""
    none = {"rewards": [], "responses": [], "errors": None, "written": None}
    failed = {"status": "failed", "reason": "nan", **none}
    for folder, gone in (("failed", ("aps",)), ("never", ("aps", "entrgi"))):
        tiny_run(tmp_path / folder, experiment=name, methods=["aps", "entrgi"])
        rewritten(
            tmp_path / folder,
            lambda r, gone=gone: failed if r["idx"] == 1 and r["method"] in gone else {},
        )
    one, other = (
        figures.DRAWN[name](Run.read(tmp_path / folder)) for folder in ("failed", "never")
    )
    for axis, expected in zip(one.axes, other.axes, strict=True):
        for line, same in zip(axis.lines, expected.lines, strict=True):
            assert np.array_equal(line.get_ydata(), same.get_ydata())
        for image, same in zip(axis.collections, expected.collections, strict=True):
            if image.get_array() is not None:
                assert np.array_equal(image.get_array().filled(0), same.get_array().filled(0))


@draws
def test_a_method_without_any_answer_does_not_hide_the_others(tmp_path):
    folder = written(tmp_path, names=HUB[:1], of=4)
    failed = {"status": "failed", "reason": "nan", "rewards": [], "responses": []}
    rewritten(folder, lambda r: failed if r["method"] == "aps" else {})
    text = invoke("report", folder)
    assert "do not count" not in text
    assert cells_of(text, HUB[0])["APS", "Top@1 (reward), measured"] == "not measured"
    assert "±" in cells_of(text, HUB[0])["EntRGi", "Top@1 (reward), measured"]


# Large runs


def test_records_are_found_by_their_cell(tmp_path):
    variants = [{"reward": r, "gradient_steps": M} for r in ("0.6B", "4B") for M in (1, 2)]
    declaration = PAPER | {"experiment": "gradient-steps"}
    run = Run.read(written(tmp_path, declaration=declaration, variants=variants, prompts=2))
    for fields_ in (
        {},
        {"method": "aps"},
        {"seed": 2, "idx": 1},
        {"benchmark": "rm-bench", "reward": "4B", "gradient_steps": 2},
        {"reward": "1.7B"},
    ):
        expected = [
            record
            for record in run.records
            if all({**record, **record["variant"]}.get(k) == v for k, v in fields_.items())
        ]
        found = run.select(**fields_)
        assert sorted(map(id, found)) == sorted(map(id, expected))
    assert len(run.select(method="aps")) == len(run.records) // 5 > 0


def test_a_report_needs_no_texts_and_no_settings(tmp_path):
    folder = written(tmp_path, prompts=3)
    whole, slim = Run.read(folder), Run.read(folder, whole=False)
    assert [t.markdown() for t in report.tables(whole)] == [
        t.markdown() for t in report.tables(slim)
    ]
    assert list(report._notes(whole)) == list(report._notes(slim))
    assert not any({"settings", "responses", "prompt"} & set(record) for record in slim.records)
    assert all(record["responses"] for record in whole.records)


# Writing


@draws
def test_what_cannot_be_written_has_been_shown(tmp_path, monkeypatch):
    """And no half of a figure is left where a whole one was."""
    folder = written(tmp_path / "run", prompts=1)
    said = []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out: cannot write to"):
        report.write(folder, tmp_path / "file", said.append)
    assert "EntRGi" in "".join(said)
    invoke("report", folder)
    before = {path: path.read_bytes() for path in (folder / "report").iterdir()}

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ValueError, match=r"cannot write .*main\.svg: No space left"):
        invoke("report", folder)
    assert {path: path.read_bytes() for path in (folder / "report").iterdir()} == before


def test_a_record_without_settings_is_not_exported(tmp_path):
    folder = written(tmp_path, prompts=1)
    (file,) = (folder / "records").glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    del records[3]["settings"]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(ValueError, match="has records without settings"):
        invoke("export", folder)


# Which code made it


def test_a_report_says_which_code_made_the_records(tmp_path):
    folder = written(tmp_path, prompts=1)
    assert "Made by entrgi_ref 0.1.0 at commit c0ffee." in invoke("report", folder)
    rewritten(folder, lambda r: {"commit": "decaf"} if r["seed"] == 2 else {})
    text = invoke("report", folder)
    assert "MADE BY SEVERAL VERSIONS of entrgi_ref: " in text
    assert "0.1.0 at commit c0ffee (30 records), 0.1.0 at commit decaf (15 records)" in text


def test_records_of_another_run_are_not_averaged_in(tmp_path):
    folder = written(tmp_path / "a", prompts=1)
    other = written(tmp_path / "b", declaration=PAPER | {"dtype": "float32"}, prompts=2)
    (file,) = (other / "records").glob("*.jsonl")
    (folder / "records" / "copied.jsonl").write_bytes(file.read_bytes())
    for command in ("report", "export"):
        with pytest.raises(ValueError, match=r"copied\.jsonl, line 1: it is of another run"):
            invoke(command, folder)
    assert "it is of another run" in invoke("list", folder)
    assert "90 lines taken out" in invoke("repair", folder)
    assert "Made by" in invoke("report", folder)
