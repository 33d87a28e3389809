"""What the README says is what the run records hold."""

import json
import math
import subprocess

import numpy as np
import pytest

from building import facts, records
from building.records import RECORDS, ROOT
from toy import dial
from toy.laboratory import claims, distribution, infilling, rivals
from toy.statistics import student

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDED = ("expectation", "aps", "entrgi")


def test_tables_of_the_readme_are_the_records():
    assert len(records.BLOCK.findall(README)) == 4
    assert records.filled(README) == README


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_records_say_where_they_come_from(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].startswith("python -m ")
    assert "-dirty" not in record["commit"]
    assert record["commit"] != "unknown"
    for field in ("machine", "versions", "settings", "seeds"):
        assert record[field]
    found = subprocess.run(
        ["git", "-C", ROOT, "cat-file", "-t", record["commit"]], capture_output=True, text=True
    )
    if "not a git repository" in found.stderr:
        pytest.skip("no checkout")
    shallow = ["git", "-C", ROOT, "rev-parse", "--is-shallow-repository"]
    if found.returncode and subprocess.check_output(shallow, text=True).strip() == "true":
        pytest.skip("a shallow clone does not hold the commit")
    assert found.stdout.strip() == "commit"


def test_regimes_are_what_their_labels_say():
    for name, label in records.REGIMES.items():
        record = records.read(name)
        steps = int(label[4]) if label.startswith("M = ") else 3
        assert record["settings"]["guidance"]["steps"] == steps
        assert ("--reward small" in record["command"]) == label.startswith("a smaller reward model")
        assert ("--embedding-std 3" in record["command"]) == label.endswith("three times as large")
    for table, measure in (("regimes", "gold_mean"), ("regimes-top1", "top1")):
        lines = records.TABLES[table]().splitlines()[2:]
        for line, (name, label) in zip(lines, records.REGIMES.items(), strict=True):
            first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert first == label
            for method, cell in zip(GUIDED, cells, strict=True):
                mean = np.mean(records.read(name)["rows"][method][measure])
                assert cell.split()[0].replace("−", "-") == f"{mean:+.2f}"


def test_demo_is_the_size_that_the_readme_says():
    demo, pairs = records.read("demo"), records.read("spread")
    for record in (demo, pairs):
        assert (record["prompts"], len(record["seeds"])) == (64, 3)
    assert all(len(v) == 5 for ms in pairs["rows"].values() for v in ms.values())


def test_claims_about_the_demo():
    """Each sentence of the README's list."""
    rows = {row.method: row.measures for row in records.rows("demo")}
    pairs = records.read("spread")["rows"]
    intervals = {
        method: {m: student(np.array(v)) for m, v in ms.items()} for method, ms in pairs.items()
    }

    for method in GUIDED:
        assert min(pairs[method]["top1"]) > 0
        assert min(pairs[method]["average"]) > 0

    def highest(measure, of):
        return max(of, key=lambda method: of[method][measure].mean)

    for table in (rows, intervals):
        assert highest("top1", table) == "bon_equal_compute"
        assert highest("average", table) == "entrgi"
        assert highest("gold_mean", table) == "entrgi"
    assert rows["bon_equal_compute"]["average"].mean < rows["bon"]["average"].mean
    always = [method for method in pairs if min(pairs[method]["gold_mean"]) > 0]
    assert always == ["entrgi"]

    assert min(rows, key=lambda method: rows[method]["gold_best"].mean) == "entrgi"
    for method, measures in intervals.items():
        assert measures["gold_best"].low < 0 < measures["gold_best"].high, method
    for method in GUIDED:
        assert intervals[method]["gold_best"].mean < 0
        assert rows[method]["gold_best"].mean <= rows["bon"]["gold_best"].mean

    weak, many, one = (records.read(f"spread-{name}")["rows"] for name in ("small", "m8", "m1"))
    for method in GUIDED:
        for rows in (weak, many):
            assert min(rows[method]["top1"]) > 0
            assert max(rows[method]["gold_mean"]) < 0
            assert max(rows[method]["gold_best"]) < 0
        assert np.mean(one[method]["gold_mean"]) > 0
        assert np.mean(many[method]["top1"]) > np.mean(one[method]["top1"])

    cosines = {m: r["cosine_of_mean"]["mean"] for m, r in records.read("gradients")["rows"].items()}
    assert cosines["w = 0.5"] >= cosines["entrgi"]


def test_what_guidance_costs_on_the_toy():
    ratio = facts.cost_of_guidance()
    assert f"costs {ratio:.1f} times as much" in README
    equal = {row["method"]: row["trajectories"] for row in records.read("demo")["rows"]}
    assert equal["bon_equal_compute"] == math.ceil(4 * ratio)


def test_claims_about_the_dial():
    """Each sentence of the page's remark."""
    rows = records.read("dial")["rows"]
    at = {(r["w"], r["M"]): {m: e["mean"] for m, e in r["measures"].items()} for r in rows}
    intervals = {(r["w"], r["M"]): r["measures"] for r in rows}
    places = dial.WEIGHTS
    for measure in ("top1", "gold_mean"):  # with one step, all intervals have a point in common
        ones = [intervals[w, 1][measure] for w in places]
        assert max(e["low"] for e in ones) < min(e["high"] for e in ones)
    middle = [max(at[w, 8]["top1"] for w in (0.4, 0.6)), at["entropy", 8]["top1"]]
    assert max(at[0.0, 8]["top1"], at[1.0, 8]["top1"]) < min(middle)
    assert at[0.0, 8]["top1"] < at[0.0, 3]["top1"]
    for w in places:
        assert at[w, 8]["gold_mean"] < at[w, 6]["gold_mean"] < at[w, 4]["gold_mean"]
        assert at[w, 8]["valid"] < at[w, 4]["valid"]
    assert min(places, key=lambda w: at[w, 8]["gold_mean"]) == 0
    for measure in ("top1", "gold_mean"):
        best = max((w for w in places if w != "entropy"), key=lambda w: at[w, 3][measure])
        mine, other = intervals["entropy", 3][measure], intervals[best, 3][measure]
        assert mine["low"] < other["high"]
        assert mine["mean"] <= other["mean"]
    assert at["entropy", 8]["top1"] > at["entropy", 3]["top1"] > at["entropy", 1]["top1"]


def test_claims_about_the_shift():
    """What the page of models says below its table."""
    record = records.read("shift")
    assert record["seeds"] == [1, 2, 3]
    assert record["settings"]["trajectories"] == 4
    assert len(record["answers"]) == 3
    rows = record["rows"]
    for name in ("one off", "one off, guided"):
        assert rows[name]["valid"]["high"] == 0
        assert rows[name]["gold_mean"]["high"] < rows["own"]["gold_mean"]["low"]
    assert rows["one off, guided"]["average"]["low"] > rows["one off"]["average"]["high"] + 0.2
    step = record["step"]
    assert step["one off"][1:] == step["own"][:-1]


def test_claims_about_the_exact_gradient():
    """Each sentence of the page's list."""
    rows = records.read("exact-gradient")["rows"]
    small, wide = (
        rows[family]["rewards"]["base"]["estimators"] for family in ("enumerable", "wide")
    )
    languages = {family: rows[family]["languages"] for family in rows}

    def mean(estimators, name, measure="cosine_of_mean"):
        return estimators[name][measure]["mean"]

    constants = [name for name in small if name.startswith("w = ")]
    best = max(constants, key=lambda name: mean(small, name))
    assert best in ("w = 0.375", "w = 0.5", "w = 0.625")
    for name in ("w = 0.5", "matched"):
        assert small[name]["entrgi_ahead_mean"] < languages["enumerable"] / 2
        assert small[name]["entrgi_ahead_one"] < languages["enumerable"] / 2
    for name in ("w = 0", "matched"):
        assert wide[name]["entrgi_ahead_mean"] == languages["wide"]
        assert wide[name]["entrgi_ahead_one"] <= languages["wide"] / 2
    for name in ("w = 0.25", "w = 0.375"):
        assert mean(wide, name) >= mean(wide, "entrgi")
    for estimators in (small, wide):
        relaxations = [*constants, "entrgi", "matched", "nucleus", "sqrt", "square"]
        assert min(relaxations, key=lambda n: mean(estimators, n, "cosine_of_one")) == "w = 1"
        assert mean(estimators, "entrgi x 4", "cosine_of_one") > mean(
            estimators, "entrgi", "cosine_of_one"
        )
    easy = rows["wide"]["rewards"]["small embeddings"]["estimators"]
    assert mean(easy, "w = 0", "cosine_of_one") > max(
        mean(wide, name, "cosine_of_one") for name in relaxations
    )
    assert easy["w = 0"]["entrgi_ahead_one"] < languages["wide"] / 2
    assert mean(small, "loo", "bias") == pytest.approx(0, abs=1e-6)
    asked = mean(small, "words asked", "cosine_of_one")
    assert asked == max(mean(small, name, "cosine_of_one") for name in small)


def test_claims_about_what_samplers_draw():
    """Each sentence of the page's answers."""
    rows = records.read("exact-distribution")["rows"]
    of = rows["enumerable"]
    middle = of["curves"]["entrgi"]["M = 3, eta = 0.5"]
    assert middle["excess"]["mean"] > 0.5 * middle["kl"]["mean"]  # about twice the least
    at_one = {
        name: row["difference"]["mean"] for name, row in of["at_matched_kl"]["1"]["reward"].items()
    }
    assert min(at_one["smc"], at_one["lookahead"]) > 0.2
    assert at_one["smc"] > at_one["lookahead"]
    for name in ("expectation", "aps"):
        assert of["at_matched_kl"]["1"]["reward"][name]["difference"]["high"] < 0
    for name in ("smc", "lookahead"):  # nearer to the frontier, at a like reward
        near = min(
            of["curves"][name].values(),
            key=lambda p: abs(p["reward"]["mean"] - middle["reward"]["mean"]),
        )
        assert near["excess"]["high"] < middle["excess"]["low"]
    eight = of["best_of"]["8"]
    assert eight["excess"]["mean"] < middle["excess"]["low"]
    assert eight["reward"]["mean"] > middle["reward"]["mean"]

    found = {(a.question, a.family, a.first, a.other): a for a in distribution.answers(rows)}
    matched = found["a", "enumerable", "entrgi", "matched"]
    assert not matched.is_ahead
    assert matched.difference.mean < 0
    for rival in ("lookahead", "loo"):
        assert found["b", "enumerable", rival, "entrgi"].is_ahead
    assert found["b", "enumerable", "loo", "entrgi"].languages == 3
    half = of["at_matched_kl"]["0.5"]["reward"]["loo"]
    assert half["difference"]["low"] > 0
    assert found["c", "enumerable", "fading", "entrgi"].difference.high < 0
    damped = found["c", "enumerable", "damped", "entrgi"].difference
    assert damped.low < 0 < damped.high
    assert distribution.unreliability(rows)[0] > distribution.ENOUGH_RHO
    assert rows["wide"]["unguided"]["kl"]["low"] > max(distribution.LEVELS)
    assert {a.languages for a in found.values() if a.family == "wide"} == {0}


def test_claims_about_samplers_between_given_words():
    rows = records.read("exact-infilling")["rows"]
    for answer in distribution.answers(rows, infilling.COMPARED):
        assert not answer.is_ahead
        assert answer.difference.low < 0 < answer.difference.high
    curves = rows["infilling"]["curves"]
    smc, ours = curves["smc"]["beta = 0.5"], curves["entrgi"]["M = 3, eta = 0.5"]
    assert smc["reward"]["mean"] >= ours["reward"]["mean"]
    assert smc["kl"]["mean"] < ours["kl"]["mean"] / 2
    assert rows["infilling"]["w"]["high"] < 0.35


def test_claims_about_the_rivals():
    """Each sentence of the page's answer and of its reasons."""
    rows = records.read("rivals")["rows"]
    assert rivals.winners(rows, "gold_mean") == ["self_smc", "smc", "lookahead"]
    assert rivals.winners(rows, "gold_best") == ["self_smc"]
    guided = ("expectation", "aps", "entrgi", "damped")
    for measure in ("gold_mean", "gold_best"):
        assert max(rows, key=lambda name: rows[name]["measures"][measure]["mean"]) == "self_smc"
        assert not set(guided) & set(rivals.winners(rows, measure))
        best = max(guided, key=lambda name: rows[name]["measures"][measure]["mean"])
        assert best == "damped"
        difference = rows["damped"]["differences"][measure]
        assert difference["low"] < 0 < difference["high"]
    best = rows["entrgi"]["differences"]["gold_best"]
    assert best["low"] < 0 < best["high"]
    assert rows["entrgi"]["differences"]["average"]["low"] > 0
    assert len(records.read("rivals")["seeds"]) == 5


def test_claims_about_the_claims():
    """Each sentence of the page's lists, and what it says of the map."""
    rows = records.read("claims")["rows"]
    judged = rows["claims"]
    verdicts = {name: claim["verdict"] for name, claim in judged.items()}
    assert [name for name in verdicts if verdicts[name] == "holds"] == ["bon", "size", "early"]
    assert verdicts["soft"] == "depends on words"
    apart = [name for name in verdicts if verdicts[name] == "not told apart"]
    assert apart == ["expectation", "aps", "moderate", "collapse", "equal", "constant"]
    assert len(rows["languages"]) == 12
    assert judged["expectation"]["above"] == 0
    assert judged["moderate"]["mean"]["low"] > 0
    assert round(judged["moderate"]["share"] * 12) == 9
    assert 0.05 / 3 < judged["collapse"]["covariates"]["words"]["p"] < 0.05
    assert judged["collapse"]["covariates"]["words"]["rho"] < -0.6
    for size in ("medium", "large"):
        gold = {m: rows["methods"][f"{m}, {size}"]["gold_best"]["mean"] for m in claims.GUIDED}
        assert max(gold, key=gold.get) == "constant"

    places = {(p["size"], p["M"], p["step_size"], p["T"]): p for p in rows["map"]}
    paid = [(at, r) for at, p in places.items() for r in p["at_cost_ratio"] if claims.pays(p, r)]
    assert {ratio for _, ratio in paid} == {"0.03"}
    assert len(paid) == 6
    assert {size for (size, *_), _ in paid} == {"medium", "large"}
    assert {M for (_, M, *_), _ in paid} == {2, 3, 4}
    own = {at: p["at_cost_ratio"]["the toy's"]["gain"]["mean"] for at, p in places.items()}
    level = {at for at, gain in own.items() if gain > 0}
    assert level == {("medium", 3, 0.5, 8), ("medium", 2, 0.5, 16), ("medium", 4, 0.5, 16)}
