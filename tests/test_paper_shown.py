"""Tables, notes, captions and files of runs made by hand, compared word for word."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from entrgi_ref import SamplingConfig
from entrgi_ref.commands.shown import as_csv
from entrgi_ref.paper.declared import benchmarks, published
from entrgi_ref.paper.declared.experiments import EXPERIMENTS
from entrgi_ref.paper.judged.judge import UNIT_TESTS
from entrgi_ref.paper.run.records import JUDGES, fingerprint, key_of, read_experiment
from entrgi_ref.paper.shown import (
    browse,
    captions,
    comparable,
    export,
    figures,
    intervals,
    listing,
    numbers,
    report,
    summary,
)
from entrgi_ref.paper.shown.paired import paired
from entrgi_ref.paper.shown.summary import JudgedBy, Run
from entrgi_ref.paper.shown.tables import Table, latex_figure

SETTINGS = {k: v for k, v in json.loads(SamplingConfig.authors().to_json()).items() if k != "seed"}
OF_THE_HUB = f"{benchmarks.HUB['rm-bench'].hub_id}@abc"
DECLARATION = {
    "experiment": "main",
    "testbed": "dream",
    "settings": SETTINGS,
    "denoiser": {"name": published.DREAM},
    "rewards": {size: {"name": path} for size, path in published.SKYWORK.items()},
    "main_reward": "1.7B",
    "dtype": "bfloat16",
    "benchmarks": {"rm-bench": OF_THE_HUB, "own": "2 prompts, ab"},
}


def record(benchmark, method, seed, idx, rewards, variant=None, **more):
    return {
        "experiment": "main",
        "benchmark": benchmark,
        "method": method,
        "variant": variant or {},
        "seed": seed,
        "idx": idx,
        "prompt": f"prompt {idx}",
        "responses": [f"answer {k}" for k in range(len(rewards))],
        "rewards": rewards,
        "status": "ok",
        "reason": None,
        "commit": "c0ffee",
        "versions": {"entrgi_ref": "0.1.0"},
        **more,
    }


def failed(*cell, **more):
    return record(*cell, [], status="failed", reason="nan", **more)


def run_of(records, judges=(), gone=(), **declaration):
    return Run(DECLARATION | declaration, records, list(gone), list(judges))


def folder_of(folder, records, asked=None, **declaration):
    """A run folder, as a run leaves it."""
    declared = DECLARATION | declaration
    own = fingerprint(declared)
    (folder / "records").mkdir(parents=True)
    beside = {"fingerprint": own} | ({} if asked is None else {"asked": asked})
    (folder / "run.json").write_text(json.dumps(declared | beside))
    lines = [json.dumps(one | {"fingerprint": own}) + "\n" for one in records]
    (folder / "records" / "all.jsonl").write_text("".join(lines))
    return folder


GAIN = {"bon": 0, "bon_equal_compute": 1, "entrgi": 2, "smc": 4, "mine": 8}


def rewards_of(method, seed, idx):
    """Top@1 is the method's gain, and 4 more in the second seed; of EntRGi 1 more of the second
    prompt.
    """
    top1 = GAIN[method] + 4.0 * (seed == 2) + (method == "entrgi") * idx
    others = 2 + idx if method == "bon_equal_compute" else 1
    return [*[top1 - 2] * others, top1]


MAIN = [
    *(
        record("rm-bench", method, seed, idx, rewards_of(method, seed, idx))
        for method in GAIN
        for seed in (1, 2)
        for idx in (0, 1)
    ),
    record("own", "bon", 1, 0, [0.0, 1.0]),
    record("own", "entrgi", 1, 0, [1.0, 3.0]),
]
"""Of two benchmarks, with a rival, a method of one's own, and two numbers of answers."""

VARIED = [
    record(
        "rm-bench",
        method,
        seed,
        0,
        [seed + M * gain, 0.0],
        {"reward": reward, "gradient_steps": M},
    )
    for method, gain in (("expectation", 0.0), ("entrgi", 0.5))
    for reward in ("4B", "0.6B")
    for M in (8, 2)
    for seed in (1, 3)
]
"""Of two reward models and numbers of gradient steps."""


# Tables


SIGNS = Table(
    "A & B", ("a|b", "±", "n, %", "x"), (("_", "−1", "1", "–"), ("long", "2 × 3", "#{}", "~^\\$"))
)


def test_a_table_in_markdown():
    assert SIGNS.markdown().splitlines() == [
        "**A & B**",
        "",
        "| a\\|b | ±     | n, % |    x |",
        "| ---- | ----- | ---: | ---: |",
        "| _    | −1    |    1 |    – |",
        "| long | 2 × 3 |  #{} | ~^\\$ |",
    ]
    narrow = Table("t", ("a", "b"), (("c", "d"),), words=1)
    assert narrow.markdown() == "**t**\n\n| a   |   b |\n| --- | --: |\n| c   |   d |"


def test_a_table_and_a_figure_in_latex():
    assert SIGNS.latex("η = 1, τ = 2").splitlines() == [
        r"\begin{table}",
        r"\caption{A \& B}",
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"a|b & $\pm$ & n, \% & x \\",
        r"\midrule",
        r"\_ & $-$1 & 1 & -- \\",
        r"long & 2 $\times$ 3 & \#\{\} & \textasciitilde{}\textasciicircum{}\textbackslash{}\$ \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip\footnotesize $\eta$ = 1, $\tau$ = 2",
        r"\end{table}",
    ]
    assert latex_figure("main", "50% ± 1").splitlines() == [
        r"\begin{figure}",
        r"\centering",
        r"\includegraphics[width=\columnwidth]{main.pdf}",
        r"\caption{50\% $\pm$ 1}",
        r"\end{figure}",
    ]


@pytest.mark.parametrize("sign", ["[1em]", "*"])
def test_a_row_in_latex_is_no_option_of_the_row_above(sign):
    table = Table("t", (sign, "b"), ((sign, "d"), (f"a{sign}", "d")), words=1)
    rows = [line for line in table.latex("").splitlines() if line.endswith(r"\\")]
    assert [row[:3] for row in rows] == [*[f"{{{sign[0]}}}"] * 2, f"a{sign} "[:3]]


EVIL = "a\x1b[2J<img src=x>\n# b ![c](d) \x9b|"
SEEN = "a\N{REPLACEMENT CHARACTER}[2J&lt;img src=x>⏎# b ![c]&#40;d) \N{REPLACEMENT CHARACTER}"


def test_what_a_run_is_called_is_no_markup_and_no_command(tmp_path):
    """Neither of Markdown nor of a terminal."""
    made = {"commit": EVIL, "versions": {"entrgi_ref": EVIL}}
    records = [record("own", method, 1, 0, [1.0]) | made for method in ("bon", "entrgi")]
    rewards = {"1.7B": {"name": EVIL}}
    folder = folder_of(tmp_path / "run", records, testbed=EVIL, rewards=rewards, dtype=EVIL)
    model = {"model": {"name": EVIL}, "backend": EVIL, "unit_tests": [EVIL]}
    judge_of(folder, "j\x1b", [judgement(one, 4.0) for one in records], **model)
    said = []
    report.write(folder, tmp_path / "to", said.append)
    written = (tmp_path / "to" / "report.md").read_text()
    for text in (
        *said,
        written,
        (tmp_path / "to" / "report.tex").read_text(),
        listing.listing([folder]),
    ):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert "\n# b" not in text
    for text in (*said, written):
        assert "<img" not in text
        assert SEEN in text
        assert "](d" not in text


NOT_MEASURED = "not measured"
NOT_IN = "not in the paper"
NONE = "not available"


def test_the_tables_of_the_main_experiment():
    """Each measured number beside the published one, then the differences."""
    heads = (
        *("Method", "K answers", "Top@1 (reward), measured", "Top@1, published"),
        *("Avg@K (reward), measured", "Avg@K, published"),
        *("LMUnit (1 to 5), measured", "LMUnit, published"),
    )
    last = (NOT_MEASURED, NOT_IN)
    known = ("5.11 (not comparable)", "5.70 (not comparable)")
    assert report.tables(run_of(MAIN)) == [
        Table(
            "rm-bench, rewards by 1.7B",
            heads,
            (
                ("Best-of-N", "2", "2.00 ± 2.00", known[0], "1.00 ± 2.00", NONE, last[0], NONE),
                (
                    "Best-of-N, equal compute",
                    "3–4",
                    "3.00 ± 2.00",
                    NOT_IN,
                    "1.58 ± 2.00",
                    NOT_IN,
                    *last,
                ),
                ("Expectation", "–", *(NOT_MEASURED, NONE) * 3),
                ("APS", "–", *(NOT_MEASURED, NONE) * 3),
                ("EntRGi", "2", "4.50 ± 2.00", known[1], "3.50 ± 2.00", NONE, last[0], NONE),
                ("SMC", "2", "6.00 ± 2.00", NOT_IN, "5.00 ± 2.00", NOT_IN, *last),
                ("mine", "2", "10.00 ± 2.00", NOT_IN, "9.00 ± 2.00", NOT_IN, *last),
            ),
            words=2,
        ),
        Table(
            "own, rewards by 1.7B",
            heads,
            (
                ("Best-of-N", "2", "1.00", NOT_IN, "0.50", NOT_IN, *last),
                ("Best-of-N, equal compute", "–", *last * 3),
                ("Expectation", "–", *last * 3),
                ("APS", "–", *last * 3),
                ("EntRGi", "2", "3.00", NOT_IN, "2.00", NOT_IN, *last),
                ("SMC", "–", *last * 3),
                ("mine", "–", *last * 3),
            ),
            words=2,
        ),
        Table(
            "rm-bench, less Best-of-N",
            ("Method", "Top@1 (reward), n = 2", "Avg@K (reward), n = 2"),
            (
                ("Best-of-N, equal compute", "+1.00 [+1.00, +1.00]", "+0.58 [+0.50, +0.67]"),
                ("EntRGi", "+2.50 [+2.00, +3.00]", "+2.50 [+2.00, +3.00]"),
                ("SMC", "+4.00 [+4.00, +4.00]", "+4.00 [+4.00, +4.00]"),
                ("mine", "+8.00 [+8.00, +8.00]", "+8.00 [+8.00, +8.00]"),
            ),
            words=1,
        ),
        Table(
            "own, less Best-of-N",
            ("Method", "Top@1 (reward), n = 1", "Avg@K (reward), n = 1"),
            (("EntRGi", "+2.00", "+1.50"),),
            words=1,
        ),
    ]


def test_the_tables_of_what_is_varied():
    """A row for each reward model, the smallest first, and each M; differences of the same ones."""
    varied = run_of(VARIED, experiment="gradient-steps", benchmarks={"rm-bench": OF_THE_HUB})
    cells = [(size, str(M)) for size in ("0.6B", "4B") for M in (2, 8)]
    none, one, four = "2.00 ± 1.00", "3.00 ± 1.00", "6.00 ± 1.00"
    assert report.tables(varied) == [
        Table(
            "rm-bench",
            ("Method", "Reward model", "M", "Top@1 (reward), measured", "Avg@K (reward), measured"),
            (
                *(("Expectation", *cell, none, "1.00 ± 0.50") for cell in cells),
                ("EntRGi", *cells[0], one, "1.50 ± 0.50"),
                ("EntRGi", *cells[1], four, "3.00 ± 0.50"),
                ("EntRGi", *cells[2], one, "1.50 ± 0.50"),
                ("EntRGi", *cells[3], four, "3.00 ± 0.50"),
            ),
            words=3,
        ),
        Table(
            "rm-bench, less Expectation",
            ("Method", "Reward model", "M", "Top@1 (reward), n = 1", "Avg@K (reward), n = 1"),
            (
                ("EntRGi", *cells[0], "+1.00", "+0.50"),
                ("EntRGi", *cells[1], "+4.00", "+2.00"),
                ("EntRGi", *cells[2], "+1.00", "+0.50"),
                ("EntRGi", *cells[3], "+4.00", "+2.00"),
            ),
            words=3,
        ),
    ]


def judged_by(name, scores, *, tests=UNIT_TESTS, without_digit=0, replies=10):
    return JudgedBy(name, f"org/{name}", "test", tests, scores, len(scores), replies, without_digit)


def test_a_judge_of_the_papers_stands_beside_the_published_and_others_do_not():
    """What no judge says of a method is not measured, also in the differences."""
    bon, entrgi, aps = (record("own", name, 1, 0, [1.0]) for name in ("bon", "entrgi", "aps"))
    scores = {key_of(bon): 2.0, key_of(entrgi): 4.5}
    judges = [judged_by("LMUnit", scores), judged_by("other", scores)]
    run = run_of([bon, entrgi, aps], judges, benchmarks={"own": "ab"})
    table, less = report.tables(run)
    assert table.heads[6:] == (
        *("LMUnit (1 to 5), measured", "LMUnit, published"),
        "other (1 to 5), measured",
    )
    assert [(row[0], *row[6:]) for row in table.rows if row[2] != NOT_MEASURED] == [
        ("Best-of-N", "2.00", NOT_IN, "2.00"),
        ("APS", NOT_MEASURED, NOT_IN, NOT_MEASURED),
        ("EntRGi", "4.50", NOT_IN, "4.50"),
    ]
    measures = ("Top@1 (reward)", "Avg@K (reward)", "LMUnit (1 to 5)", "other (1 to 5)")
    assert less == Table(
        "own, less Best-of-N",
        ("Method", *(f"{measure}, n = 1" for measure in measures)),
        (
            ("APS", "+0.00", "+0.00", NOT_MEASURED, NOT_MEASURED),
            ("EntRGi", "+0.00", "+0.00", "+2.50", "+2.50"),
        ),
        words=1,
    )
    of_a_toy = ("Method", "K answers", "Top@1 (reward), measured", "Avg@K (reward), measured")
    for some, more in ((judges[:1], ("LMUnit (1 to 5), measured",)), ([], ())):
        alone = run_of([bon, entrgi], some, testbed="toy", benchmarks={"own": "ab"})
        assert report.tables(alone)[0].heads == of_a_toy + more


# Notes


HOW = "Measured: {}, 2 prompts per benchmark and seed at most."
LESS = (
    "Less {}: the mean difference over prompts and seeds, prompt by prompt, with its 95% interval "
    "by a percentile bootstrap over the n different prompts, each with all seeds that have drawn "
    "it."
)
MADE = "Made by entrgi_ref 0.1.0 at commit c0ffee."
RIVALS = "Rivals ({}) have the compute of EntRGi, counted as positions x parameters."
PUBLISHED = (
    "Published: Top@1 of the authors' page; the paper's other numbers were not available "
    "(`not available`)."
)
TOY = "Nothing is published for the toy; its gold score takes the place of LMUnit."
ASKED = [
    {
        "methods": ["bon", "entrgi"],
        "variants": [{}],
        "seeds": [1],
        "prompts": {"rm-bench": 1, "own": 2},
    },
    {"methods": ["entrgi"], "variants": [{}], "seeds": [1, 2], "prompts": {"own": 1}},
]
"""Seven prompts in five cells: what is asked twice is one."""


def notes(run):
    return list(report._notes(run))


def test_the_notes_of_the_main_experiment():
    run = run_of(MAIN, gone=[failed("own", "mine", 1, 0)], asked=ASKED)
    assert notes(run) == [
        HOW.format("mean ± standard error over 2 seeds (1, 2)"),
        LESS.format("Best-of-N"),
        "1 prompt failed and is left out.",
        "The run is not finished: 3 prompts of 3 cells are missing.",
        MADE,
        RIVALS.format("SMC"),
        PUBLISHED,
        (
            "NOT COMPARABLE to the published numbers: 0 to 2 prompts instead of 64; 2 seeds "
            "instead of 3; benchmark own (2 prompts, ab); 1 prompt failed."
        ),
    ]


@pytest.mark.parametrize(
    ("records", "changes", "expected"),
    [
        pytest.param(
            [record("own", "bon", 2, idx, [1.0]) for idx in (0, 1)],
            {"gone": [failed("own", "bon", 2, idx) for idx in (2, 3)]},
            [
                HOW.format("one seed (2)"),
                "2 prompts failed and are left out.",
                "The run is not finished: 7 prompts of 5 cells are missing.",
            ],
            id="a seed and a method alone",
        ),
        pytest.param(
            [
                record("own", "bon", 1, 0, [1.0]),
                *(record("own", "entrgi", seed, 0, [1.0]) for seed in (2, 3)),
            ],
            {},
            [
                HOW.format("no seed (none)"),
                (
                    "Methods are compared on the prompts that all of them have answered, 0 of 3: 3 "
                    "answers to the others do not count."
                ),
                "NOTHING IS COMPARED on own: all methods have answered none of its prompts.",
                "The run is not finished: 5 prompts of 4 cells are missing.",
                "Best-of-N has seed 1 only.",
                "EntRGi has seeds 2, 3 only.",
            ],
            id="nothing in common",
        ),
        pytest.param(
            [record("own", name, 1, 0, [1.0]) for name in ("smc", "damped", "bon")],
            {"asked": [ASKED[0] | {"prompts": {"own": 1}, "methods": ["bon"]}]},
            [
                HOW.replace("2 prompts", "1 prompt").format("one seed (1)"),
                LESS.format("Best-of-N"),
                RIVALS.format("EntRGi, damped, SMC"),
            ],
            id="rivals",
        ),
        pytest.param(
            [record("own", "mine", 1, 0, [1.0])],
            {"asked": []},
            [HOW.replace("2 prompts", "0 prompts").format("one seed (1)")],
            id="nothing asked",
        ),
    ],
)
def test_notes_say_what_is_missing_and_what_is_compared(records, changes, expected):
    run = run_of(
        records, **{"asked": ASKED, "testbed": "toy", "benchmarks": {"own": "ab"}} | changes
    )
    found = notes(run)
    assert found.pop() == TOY
    assert found.pop(-2 if any("Rivals" in note for note in found) else -1) == MADE
    assert found == expected


def test_notes_are_of_all_benchmarks_and_of_those_that_have_been_reached():
    """The first has one method alone and the last nothing; one prompt was answered by one method
    alone, under a seed and a number that another benchmark has too.
    """
    records = [
        *(record("own", "bon", seed, 0, [1.0]) for seed in (1, 2)),
        *(record("rm-bench", name, seed, 0, [1.0]) for name in ("bon", "aps") for seed in (1, 2)),
        record("rm-bench", "bon", 1, 1, [1.0]),
    ]
    of = {"own": "ab", "rm-bench": OF_THE_HUB, "judge-bench": "ab"}
    assert notes(run_of(records, benchmarks=of, testbed="toy", asked=[])) == [
        HOW.replace("2 prompts", "0 prompts").format("mean ± standard error over 2 seeds (1, 2)"),
        LESS.format("Best-of-N"),
        (
            "Methods are compared on the prompts that all of them have answered, 4 of 5: 1 answers "
            "to the others do not count."
        ),
        MADE,
        TOY,
    ]


def test_a_seed_of_which_all_has_failed_is_no_seed_that_a_method_lacks():
    records = [record("own", name, 1, 0, [1.0]) for name in ("bon", "aps")]
    gone = [failed("own", name, 2, 0) for name in ("bon", "aps")]
    assert list(report._fewer_seeds(run_of(records, gone=gone))) == []


def test_a_note_says_which_versions_made_the_records():
    old = record("own", "bon", 1, 0, [1.0])
    old = {name: old[name] for name in old if name not in ("commit", "versions")}
    run = run_of([old, record("own", "bon", 1, 1, [1.0])], gone=[failed("own", "bon", 1, 2)])
    assert (
        "MADE BY SEVERAL VERSIONS of entrgi_ref: 0.1.0 at commit c0ffee (2 records), unknown at "
        "commit unknown (1 records)."
    ) in notes(run)
    alone = run_of([old], testbed="toy")
    assert "Made by entrgi_ref unknown at commit unknown." in notes(alone)


@pytest.mark.parametrize(
    ("judges", "expected"),
    [
        (
            [{"without_digit": 10}],
            [
                "j: org/j by test, asked the package's 5 unit tests.",
                "NONE of the 10 replies of j has a digit from 1 to 5: it does not judge.",
            ],
        ),
        (
            [{"without_digit": 1, "replies": 1}],
            [
                "j: org/j by test, asked the package's 5 unit tests.",
                "NONE of the 1 replies of j has a digit from 1 to 5: it does not judge.",
            ],
        ),
        (
            [{"without_digit": 9, "tests": ("Is it?", "Is it so?")}],
            [
                (
                    "j, other unit tests: org/j by test, asked 2 unit tests of its own: “Is it?”; "
                    "“Is it so?”."
                ),
                (
                    "9 of the 10 replies of j, other unit tests have no digit from 1 to 5: their "
                    "score is what these were given instead of what was said."
                ),
            ],
        ),
        (
            [{"replies": 0}, {}],
            [
                "j #1: org/j by test, asked the package's 5 unit tests.",
                "j #2: org/j by test, asked the package's 5 unit tests.",
            ],
        ),
    ],
)
def test_notes_say_how_far_a_judge_can_be_trusted(judges, expected):
    records = [record("own", name, 1, 0, [1.0]) for name in ("bon", "entrgi")]
    scores = dict.fromkeys(map(key_of, records), 3.0)
    run = run_of(records, [judged_by("j", scores, **judge) for judge in judges])
    assert [note for note in notes(run) if "j" in note.split()[0] or " j" in note] == expected


def test_a_note_says_how_many_answers_are_not_judged():
    """Of which the others are left out too, as methods are compared on the same prompts."""
    records = [record("own", name, 1, idx, [1.0]) for name in ("bon", "aps") for idx in range(3)]
    scores = dict.fromkeys(map(key_of, records[:5]), 3.0)
    run = run_of(records, [judged_by("j", scores)])
    assert (
        "1 answers are not judged and are left out of j: by it methods are compared on 2 prompts."
    ) in notes(run)
    assert report.tables(run)[-1].heads == (
        "Method",
        *("Top@1 (reward), n = 3", "Avg@K (reward), n = 3", "j (1 to 5), n = 2"),
    )


def test_an_answer_whose_judgement_has_failed_is_not_judged():
    records = [record("own", "bon", 1, idx, [1.0]) for idx in range(3)]
    judge = replace(judged_by("j", {key_of(records[0]): 3.0}), judged=2)
    assert (
        "2 answers are not judged and are left out of j: by it methods are compared on 1 prompt."
    ) in notes(run_of(records, [judge]))


def test_a_run_that_is_the_papers_is_comparable():
    of = [record("rm-bench", "bon", seed, idx, [1.0]) for seed in (1, 2, 3) for idx in range(64)]
    run = run_of(of, benchmarks={"rm-bench": OF_THE_HUB})
    assert list(comparable.differences(run)) == []
    assert notes(run)[-1] == PUBLISHED
    table = report.tables(run)[0]
    assert table.rows[0][2:4] == ("1.00 ± 0.00", "5.11")
    assert {row["comparable"] for row in numbers.rows(run)} == {True}
    fewer = list(comparable.differences(run_of(of[:-1], benchmarks={"rm-bench": OF_THE_HUB})))
    assert fewer == ["63 to 64 prompts instead of 64"]
    longer = OF_THE_HUB.replace("@", "-2@")
    other = list(comparable.differences(run_of(of, benchmarks={"rm-bench": longer})))
    assert other == [f"benchmark rm-bench ({longer})"]
    others = [one | {"seed": one["seed"] + 1} for one in of]
    assert list(comparable.differences(run_of(others, benchmarks={"rm-bench": OF_THE_HUB}))) == [
        "seeds 2, 3, 4 instead of 1, 2, 3"
    ]


def test_all_that_is_not_comparable_is_named_in_order():
    settings = SETTINGS | {"top_p": 0.5, "skip_empty_steps": None}
    settings["guidance"] = SETTINGS["guidance"] | {"steps": 9, "weight": "aps"}
    run = run_of(
        [record("own", "bon", 1, 0, [1.0])],
        gone=[failed("own", "bon", 1, 1)],
        experiment="reward-size",
        settings=settings,
        denoiser={"name": "d"},
        main_reward="r",
        rewards={"r": {"name": "s"}},
        dtype="float32",
        quantize={"reward": "8bit"},
        unmatched="zero",
        benchmarks={"own": f"{OF_THE_HUB}", "rm-bench": "ab"},
    )
    assert list(comparable.differences(run)) == [
        "experiment reward-size instead of main",
        "top_p 0.5 instead of 0.95",
        "guidance steps 9 instead of 3",
        "denoiser d",
        "reward s",
        "dtype float32 instead of bfloat16",
        "weights rounded (reward 8bit)",
        "unmatched tokens zero instead of eos",
        "1 prompt instead of 64",
        "1 seed instead of 3",
        f"benchmark own ({OF_THE_HUB})",
        "benchmark rm-bench (ab)",
        "1 prompt failed",
    ]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        *(
            ({"dtype": name}, f"dtype {name} instead of bfloat16")
            for name in ("float16", "float32", "float64")
        ),
        *(
            ({"main_reward": size}, f"reward {published.SKYWORK[size]}")
            for size in published.SKYWORK
            if size != "1.7B"
        ),
        ({"denoiser": {"name": published.SMALL}}, f"denoiser {published.SMALL}"),
        ({"unmatched": "mean"}, "unmatched tokens mean instead of eos"),
    ],
    ids=str,
)
def test_only_one_precision_and_one_pair_are_the_papers(change, difference):
    """Another reward model of the paper's is not, nor is what is nearly as precise."""
    of = [record("rm-bench", "bon", seed, idx, [1.0]) for seed in (1, 2, 3) for idx in range(64)]
    run = run_of(of, benchmarks={"rm-bench": OF_THE_HUB}, **change)
    assert list(comparable.differences(run)) == [difference]


# Captions


PAPERS = (
    "Settings: K = 4 answers, 128 new tokens, T = 128 denoising steps, M = 3 gradient steps of "
    "η = 0.5 (adam), τ = 0.7, top-p 0.95, order entropy, reward {}, mask predictor "
    "Dream-org/Dream-v0-Instruct-7B, bfloat16."
)
ANSWERS = "{}: K = {} answers."


def test_the_caption_of_the_main_figure():
    of_methods = [("Best-of-N", 2), ("Best-of-N, equal compute", "3 to 4"), ("EntRGi", 2)]
    of_methods += [("SMC", 2), ("mine", 2)]
    assert captions.caption(run_of(MAIN), "main") == " ".join(
        [
            (
                "Each method's Top@1, Avg@K: mean over the seeds. Bars: one standard error over 2 "
                "seeds. Vertical strokes: Top@1 as published on the authors' page, where it is "
                "known. They are of other settings, which the notes name: not comparable. "
                "rm-bench: 2 prompts × 2 seeds. own: 1 prompt × 1 seed."
            ),
            PAPERS.format(published.SKYWORK["1.7B"]),
            *(ANSWERS.format(*each) for each in of_methods),
        ]
    )


def test_a_caption_says_each_setting_as_what_it_is():
    """The authors' have 128 twice: here no two are alike."""
    settings = SETTINGS | {"trajectories": 2, "new_tokens": 96, "denoising_steps": 48}
    settings |= {"temperature": 0.125, "top_p": 0.75, "order": "anchor"}
    guidance = {"steps": 5, "step_size": 0.25, "optimiser": "sgd"}
    settings["guidance"] = SETTINGS["guidance"] | guidance
    caption = captions.caption(run_of(MAIN[-2:], settings=settings), "main")
    assert (
        "Settings: K = 2 answers, 96 new tokens, T = 48 denoising steps, M = 5 gradient steps of "
        "η = 0.25 (sgd), τ = 0.125, top-p 0.75, order anchor, reward "
    ) in caption


def test_a_caption_counts_the_answers_to_every_benchmark():
    """The first of them has none of this method."""
    names = ("own", "rm-bench", "judge-bench")
    records = [record(name, "bon", 1, 0, [1.0] * 4) for name in names]
    for K, name in enumerate(names[1:], 7):
        records.append(record(name, "bon_equal_compute", 1, 0, [1.0] * K))
    caption = captions.caption(run_of(records, benchmarks=dict.fromkeys(names, "ab")), "main")
    assert caption.endswith(" Best-of-N, equal compute: K = 7 to 8 answers.")


def test_captions_without_published_numbers_and_of_what_is_judged():
    records = [
        record(benchmark, "bon", seed, idx, [1.0] * 4)
        for benchmark in ("own", "two")
        for seed in (1, 2)
        for idx in range(seed)
    ]
    judge = judged_by("j", {key_of(records[0]): 3.0})
    run = run_of(
        records,
        [judge],
        testbed="toy",
        denoiser="the toy's",
        benchmarks=dict.fromkeys(("empty", "own", "two"), "ab"),
    )
    run.declaration.pop("dtype")
    assert captions.caption(run, "main") == (
        "Each method's Top@1, Avg@K, j: mean over the seeds. Bars: one standard error over 2 "
        "seeds. own, two: 1 to 2 prompts × 2 seeds each. j: 1 of these prompts. "
        + PAPERS.format(published.SKYWORK["1.7B"])
        .replace("Dream-org/Dream-v0-Instruct-7B", "the toy's")
        .replace(", bfloat16", "")
    )


def test_a_caption_says_which_weights_are_rounded():
    run = run_of(MAIN, quantize={"denoiser": "4bit", "reward": "8bit"})
    words = ", bfloat16, weights rounded (denoiser 4bit, reward 8bit)."
    assert words in captions.caption(run, "main")
    assert "rounded" not in captions.caption(run_of(MAIN, quantize={}), "main")


def test_captions_of_what_is_varied():
    run = run_of(VARIED, experiment="gradient-steps", settings=SETTINGS | {"trajectories": 2})
    aside = " Methods are moved aside so that each is seen. rm-bench: 1 prompt × 2 seeds. "
    settings = PAPERS.replace("K = 4", "K = 2").replace("M = 3 gradient steps of ", "")
    settings = settings.format(f"{published.SKYWORK['0.6B']}, {published.SKYWORK['4B']}")
    assert captions.caption(run, "gradient-steps") == (
        "Points: change against M = 2, mean over the prompts of a seed, then over the reward "
        "models 0.6B, 4B, then over seeds. Bars: one standard error over 2 seeds."
        + aside
        + settings
    )
    assert captions.caption(run, "reward-size") == (
        "Each measure against the reward model that guides and scores: mean over the seeds. Bars: "
        "one standard error over 2 seeds." + aside + settings
    )
    alone = [r for r in VARIED if r["seed"] == 1 and r["variant"]["reward"] == "4B"]
    assert captions.caption(run_of(alone), "gradient-steps").startswith(
        "Points: change against M = 2, mean over the prompts of a seed, then over seeds. One seed: "
        "no standard errors. Methods"
    )


def test_captions_of_errors():
    run = run_of([record("own", "aps", 1, 0, [1.0] * 4)])
    counted = " own: 1 prompt × 1 seed. " + PAPERS.format(published.SKYWORK["1.7B"])
    assert captions.caption(run, "error-by-step") == (
        "Left: E, the distance of what the reward model reads from the soft embedding. Right: the "
        "entropy of the masked positions, and the most it can be, log V, where V is the size of "
        "the vocabulary. Lines: mean over prompts, seeds, K answers, gradient steps and masked "
        "positions. Bands: from the 10th to the 90th percentile of the means of single prompts, "
        "each prompt of each seed for itself." + counted
    )
    assert captions.caption(run, "error-vs-entropy") == (
        "How often an entropy and an error E occur together, on a logarithmic scale, counted at "
        "each masked position of each answer, at each gradient step of each denoising step. "
        "Nothing is averaged, and there are no bars." + counted
    )


# Numbers


def measured(name, unit, mean, error, seeds, prompts):
    return {
        f"{name}_mean_{unit}": mean,
        f"{name}_standard_error_{unit}": error,
        f"{name}_seeds": seeds,
        f"{name}_prompts": prompts,
    }


def less(name, unit, mean, low, high, prompts):
    return {
        f"{name}_difference_{unit}": mean,
        f"{name}_difference_low_{unit}": low,
        f"{name}_difference_high_{unit}": high,
        f"{name}_difference_prompts": prompts,
    }


OF_A_MEASURE = (
    *("mean_reward", "standard_error_reward", "seeds", "prompts"),
    *("difference_reward", "difference_low_reward", "difference_high_reward"),
    "difference_prompts",
)


def test_the_numbers_of_the_main_experiment():
    """With what is published beside them, where the paper has it."""
    own = [one for one in MAIN if one["benchmark"] == "own"]
    few = [
        *(record("rm-bench", "bon", seed, 0, [1.0] * seed) for seed in (2, 4)),
        *(record("rm-bench", "smc", seed, 0, [3.0]) for seed in (2, 4)),
    ]
    run = run_of(few + own, benchmarks={"rm-bench": OF_THE_HUB, "own": "ab"})
    names = [
        *("benchmark", "method", "label", "reward", "answers_min", "answers_max"),
        *(f"top1_{name}" for name in (*OF_A_MEASURE, "published_reward")),
        *(f"average_{name}" for name in (*OF_A_MEASURE, "published_reward")),
        "comparable",
    ]
    nothing = dict.fromkeys(names) | {"reward": "1.7B", "comparable": False}

    def row(benchmark, method, label, **known):
        return nothing | {"benchmark": benchmark, "method": method, "label": label} | known

    labels = [
        *(("bon", "Best-of-N"), ("bon_equal_compute", "Best-of-N, equal compute")),
        *(("expectation", "Expectation"), ("aps", "APS"), ("entrgi", "EntRGi"), ("smc", "SMC")),
    ]
    expected = {(b, m): row(b, m, label) for b in ("rm-bench", "own") for m, label in labels}
    top1, average, unit = "top1", "average", "reward"
    expected["rm-bench", "bon"] |= {"answers_min": 2, "answers_max": 4}
    expected["rm-bench", "bon"] |= {"top1_published_reward": 5.11}
    expected["rm-bench", "entrgi"] |= {"top1_published_reward": 5.7}
    expected["rm-bench", "smc"] |= {"answers_min": 1, "answers_max": 1}
    for name in (top1, average):
        expected["rm-bench", "bon"] |= measured(name, unit, 1.0, 0.0, 2, 2)
        expected["rm-bench", "smc"] |= measured(name, unit, 3.0, 0.0, 2, 2)
        expected["rm-bench", "smc"] |= less(name, unit, 2.0, None, None, 1)
    expected["own", "bon"] |= {"answers_min": 2, "answers_max": 2}
    expected["own", "bon"] |= measured(top1, unit, 1.0, None, 1, 1)
    expected["own", "bon"] |= measured(average, unit, 0.5, None, 1, 1)
    expected["own", "entrgi"] |= {"answers_min": 2, "answers_max": 2}
    expected["own", "entrgi"] |= measured(top1, unit, 3.0, None, 1, 1)
    expected["own", "entrgi"] |= measured(average, unit, 2.0, None, 1, 1)
    expected["own", "entrgi"] |= less(top1, unit, 2.0, None, None, 1)
    expected["own", "entrgi"] |= less(average, unit, 1.5, None, None, 1)
    found = numbers.rows(run)
    assert found == list(expected.values())
    assert [list(row) for row in found] == [names] * len(found) == [list(numbers.columns(run))] * 12


def test_the_numbers_of_what_is_varied_and_of_gold():
    records = [one | {"gold": [7.0, 9.0]} for one in VARIED]
    run = run_of(records, testbed="toy", benchmarks={"rm-bench": OF_THE_HUB})
    found = numbers.rows(run)
    cells = [(size, M) for size in ("0.6B", "4B") for M in (2, 8)]
    assert [(row["method"], row["reward"], row["gradient_steps"]) for row in found] == [
        (method, *cell) for method in ("expectation", "entrgi") for cell in cells
    ]
    assert found[5] == {
        "benchmark": "rm-bench",
        "method": "entrgi",
        "label": "EntRGi",
        "reward": "0.6B",
        "gradient_steps": 8,
        "answers_min": 2,
        "answers_max": 2,
        **measured("top1", "reward", 6.0, 1.0, 2, 2),
        **less("top1", "reward", 4.0, None, None, 1),
        **measured("average", "reward", 3.0, 0.5, 2, 2),
        **less("average", "reward", 2.0, None, None, 1),
        **measured("gold", "points", 7.0, 0.0, 2, 2),
        **less("gold", "points", 0.0, None, None, 1),
    }


def test_the_number_of_answers_is_that_of_the_variant():
    records = [one | {"rewards": [1.0] * one["variant"]["gradient_steps"]} for one in VARIED]
    found = numbers.rows(run_of(records, benchmarks={"rm-bench": OF_THE_HUB}))
    fields = ("gradient_steps", "answers_min", "answers_max")
    assert {tuple(row[name] for name in fields) for row in found} == {(2, 2, 2), (8, 8, 8)}


def test_columns_say_what_they_hold():
    scores = {key_of(one): 3.0 for one in MAIN}
    columns = numbers.columns(run_of(MAIN, [judged_by("j", scores)]))
    named = {name: what for name, what in columns.items() if name.startswith("judge:j_")}
    measure = "j (1 to 5)"
    assert named == {
        "judge:j_mean_1_to_5": f"{measure}, mean over the seeds",
        "judge:j_standard_error_1_to_5": f"{measure}, standard error over the seeds; none of one "
        "seed",
        "judge:j_seeds": "j, seeds",
        "judge:j_prompts": "j, prompts that count, over all seeds",
        "judge:j_difference_1_to_5": f"{measure} less that of Best-of-N, mean over prompts and "
        "seeds",
        "judge:j_difference_low_1_to_5": f"{measure} less that of Best-of-N, lower end of its 95% "
        "interval",
        "judge:j_difference_high_1_to_5": f"{measure} less that of Best-of-N, upper end of its 95% "
        "interval",
        "judge:j_difference_prompts": f"{measure} less that of Best-of-N, different prompts",
    }
    others = {name: what for name, what in columns.items() if "_" not in name}
    assert others == {
        "benchmark": "name",
        "method": "name, as --methods has it",
        "label": "name, as the tables have it",
        "reward": "name of the reward model",
        "comparable": "whether the run is what the published numbers were made by",
    }
    assert columns["answers_min"] == "K, answers to a prompt at least"
    assert columns["answers_max"] == "K, answers to a prompt at most"
    assert columns["top1_published_reward"] == "Top@1 (reward), published"
    assert numbers.columns(run_of(VARIED))["gradient_steps"] == "M"


@pytest.mark.parametrize("sign", "=+-@\t\r")
def test_no_text_of_a_table_is_a_formula(sign):
    """Numbers stay numbers."""
    text = f"{sign}1+cmd"
    found = list(csv.reader(io.StringIO(as_csv([{text: -1.5, "b": text, "c": f"a{text}"}]))))
    assert found == [[f"'{text}", "b", "c"], ["-1.5", f"'{text}", f"a{text}"]]


def test_rows_as_csv_and_as_json():
    run = run_of([record("own", "bon", 1, 0, [1.0])], testbed="toy", fingerprint="f")
    assert as_csv([{"a": "±, é", "b": None}, {"b": False, "a": 0.1}]) == (
        'a,b\r\n"±, é",\r\n0.1,False\r\n'
    )
    assert list(csv.reader(io.StringIO(as_csv([{"a": 1}])))) == [["a"], ["1"]]
    text = numbers.as_json(run, [{"a": "±", "b": None}], ["n"])
    assert text.startswith('{\n "experiment": "main",\n "testbed": "toy",\n "fingerprint": "f",\n')
    assert text.endswith(
        '"rows": [\n  {\n   "a": "±",\n   "b": null\n  }\n ],\n "notes": [\n  "n"\n ]\n}\n'
    )
    assert json.loads(text)["columns"] == numbers.columns(run)
    with pytest.raises(ValueError, match="JSON compliant"):
        numbers.as_json(run, [{"a": math.nan}], [])


# Differences and intervals


def test_differences_are_those_of_an_independent_computation():
    """Of units that are prompts, however many seeds have drawn each; of what has values at the same
    places together, and of one prompt without an interval.
    """
    rng = np.random.default_rng(3)
    places = [("b", seed, idx) for seed in (1, 2) for idx in range(6)]
    prompts = {place: f"p{place[2] % 4}" if place[1] == 1 else f"p{place[2]}" for place in places}
    pairs = {}
    for name, kept in (("all", 12), ("both", 12), ("two", 2), ("one", 1)):
        values = [dict(zip(places[:kept], rng.normal(size=kept), strict=True)) for _ in range(2)]
        pairs[name, "entrgi", frozenset()] = tuple(values)
    found = paired(pairs, prompts)
    assert set(found) == set(pairs)
    for each, (ours, baseline) in pairs.items():
        units = {}
        for place in ours:
            units.setdefault(prompts[place], []).append(ours[place] - baseline[place])
        sums, sizes = np.array([[sum(unit), len(unit)] for unit in units.values()]).T
        chosen = np.random.default_rng(0).integers(len(units), size=(10_000, len(units)))
        low, high = np.quantile(sums[chosen].sum(1) / sizes[chosen].sum(1), [0.025, 0.975])
        difference = found[each]
        assert (
            difference.prompts == len(units) == {"all": 6, "both": 6, "two": 2, "one": 1}[each[0]]
        )
        assert difference.estimate.mean == pytest.approx(sums.sum() / sizes.sum(), abs=1e-12)
        ends = (difference.estimate.low, difference.estimate.high)
        expected = (math.nan, math.nan) if len(units) == 1 else (low, high)
        assert ends == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("resamples", "at_once"), [(None, None), (300, 41 * 7), (20, 40)])
def test_an_interval_is_that_of_an_independent_computation(monkeypatch, resamples, at_once):
    """Of ten thousand resamples, whether all are held at a time or one; of a number for each unit,
    or of a row.
    """
    if resamples is None:
        resamples = 10_000
    else:
        monkeypatch.setattr(intervals, "RESAMPLES", resamples)
        monkeypatch.setattr(intervals, "AT_ONCE", at_once)
    values = np.random.default_rng(5).normal(size=(41, 2))
    chosen = np.random.default_rng(0).integers(41, size=(resamples, 41))
    means = values[chosen].mean(1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    expected = [pytest.approx([values[:, i].mean(), low[i], high[i]]) for i in range(2)]
    found = intervals.bootstraps(values)
    assert [[one.mean, one.low, one.high] for one in found] == expected
    alone = intervals.bootstrap(values[:, 1])
    assert [alone.mean, alone.low, alone.high] == expected[1]
    ratio = intervals.bootstrap(values, lambda means: means[:, :1] - 2 * means[:, 1:], seed=0)
    ends = np.quantile(means[:, 0] - 2 * means[:, 1], [0.025, 0.975])
    assert [ratio.low, ratio.high] == pytest.approx(list(ends))
    assert intervals.bootstrap(values[:, 1], seed=1) != alone
    one = intervals.bootstrap(values[:1, 1])  # one unit says nothing of others
    assert (one.mean, one.text(2)) == (values[0, 1], f"{values[0, 1]:.2f}".replace("-", "−"))


def test_numbers_are_rounded_as_text():
    estimate = intervals.Estimate(-0.126, -1.0, 2.5)
    assert estimate.text(2) == "−0.13 [−1.00, 2.50]"
    assert estimate.text(1, sign=True) == "−0.1 [−1.0, +2.5]"
    assert replace(estimate, low=math.nan).text(3) == "−0.126"
    assert summary.Value(-1.005, 0.126, 2, 4).text() == "−1.00 ± 0.13"
    assert summary.Value(2.0, None, 1, 4).text(1) == "2.0"
    assert summary.value([1.0, 4.0], prompts=5) == summary.Value(2.5, pytest.approx(1.5), 2, 5)


# Files


def test_the_files_of_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda run, name, to: [to / f"{name}.svg"])
    folder = folder_of(tmp_path / "run", MAIN[-2:], asked=ASKED)
    (folder / "judge").mkdir()
    run = Run.read(folder)
    said = []
    text, files = report.write(folder, tmp_path / "to", said.append)
    names = ("report.md", "report.tex", "table.csv", "table.json", "main.svg")
    assert files == [tmp_path / "to" / name for name in names]
    found = report.tables(run)
    known = [
        *notes(run),
        f"{folder / 'judge'} holds judgements in an earlier layout, which are not read.",
    ]
    tables = "\n\n".join(table.markdown() for table in found)
    assert said == [text] == [f"{tables}\n\n{' '.join(known)}\n"]
    caption = captions.caption(run, "main")
    assert files[0].read_text() == (
        f"# main: dream\n\n{text}\n![main](main.svg)\n\n**The main table.** {caption} "
        "[PDF](main.pdf), [PNG](main.png)\n"
    )
    latex = [*(table.latex(" ".join(known)) for table in found), latex_figure("main", caption)]
    assert files[1].read_text() == "\n\n".join(latex) + "\n"
    assert files[2].read_bytes().decode() == as_csv(numbers.rows(run))
    assert files[3].read_text() == numbers.as_json(run, numbers.rows(run), known)


@pytest.mark.parametrize(
    ("records", "declaration", "message"),
    [
        (
            [record("own", "bon", 1, 0, [1.0], {"reward": "4B"})],
            {},
            (
                "cannot be reported on: it has records of the variant {'reward': '4B'}, expected "
                "one with nothing"
            ),
        ),
        (
            [record("own", "aps", 1, 0, [1.0], {"reward": "4B"}, experiment="gradient-steps")],
            {"experiment": "gradient-steps"},
            (
                "cannot be reported on: it has records of the variant {'reward': '4B'}, expected "
                "one with reward, gradient_steps"
            ),
        ),
        (
            [record("own", "bon", 1, 0, [1.0], experiment="other")],
            {"experiment": "other"},
            "cannot be reported on: experiment: got 'other', expected one of "
            + ", ".join(map(repr, EXPERIMENTS)),
        ),
        ([failed("own", "bon", 1, 0)], {}, "has no records yet, or all have failed"),
    ],
)
def test_what_cannot_be_reported_on_is_named(tmp_path, records, declaration, message):
    folder = folder_of(tmp_path / "run", records, **declaration)
    with pytest.raises(ValueError, match=r".") as error:
        report.write(folder, tmp_path / "to")
    assert str(error.value) == f"out: {folder} {message}"
    assert not (tmp_path / "to").exists()


UNGUIDED = {"steps": 0, "step_size": 0.5}


def with_settings(one, **more):
    guidance = {"steps": 3, "step_size": 0.5}
    settings = {
        "trajectories": 2,
        "new_tokens": 7,
        "denoising_steps": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "order": "anchor",
        "guidance": guidance,
        "reward": "own",
    }
    return one | {"settings": settings | more}


def test_an_export_is_the_authors_file_word_for_word(tmp_path):
    """Half a character as JSON's escape, all others as themselves."""
    one = record("b", "entrgi", 1, 0, [1.0, 4.0], responses=["é\ud800", "±"])
    other = record("b", "entrgi", 1, 1, [2.0, 0.0])
    bon = with_settings(record("b", "bon", 1, 0, [1.0, 1.0]), guidance=UNGUIDED)
    folder = folder_of(
        tmp_path / "run",
        [with_settings(one), with_settings(other), bon],
        rewards={"own": {"name": "here/models/own-reward"}, "1.7B": {"name": "b"}},
        main_reward="own",
        benchmarks={"b": "ab"},
        settings=with_settings(one)["settings"],
    )
    found = export.write(folder, tmp_path / "to")
    stem = "b_own-reward_k2_temp0.7_T5"
    assert [path.name for path in found] == [
        f"{stem}_M3_entrgi_seed1.json",
        f"{stem}_bon_seed1.json",
    ]
    assert (
        found[0].read_text()
        == """{
  "config": {
    "benchmark": "b",
    "reward_model": "own-reward",
    "K": 2,
    "T": 5,
    "M": 3,
    "eta": 0.5,
    "temperature": 0.7,
    "top_p": 0.9,
    "max_new_tokens": 7,
    "alg": "anchor",
    "seed": 1,
    "entrgi_ref": {
      "settings": {
        "trajectories": 2,
        "new_tokens": 7,
        "denoising_steps": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "order": "anchor",
        "guidance": {
          "steps": 3,
          "step_size": 0.5
        },
        "reward": "own"
      },
      "fingerprint": "FINGERPRINT"
    }
  },
  "method": "entrgi",
  "metrics": {
    "mean_top1_reward": 3.0,
    "mean_avgN_reward": 1.75,
    "all_top1_rewards": [
      4.0,
      2.0
    ],
    "all_avgN_rewards": [
      2.5,
      1.0
    ]
  },
  "results": [
    {
      "idx": 0,
      "prompt": "prompt 0",
      "best_response": "±",
      "top1_reward": 4.0,
      "all_responses": [
        "é\\ud800",
        "±"
      ],
      "all_rewards": [
        1.0,
        4.0
      ],
      "avgN_reward": 2.5
    },
    {
      "idx": 1,
      "prompt": "prompt 1",
      "best_response": "answer 0",
      "top1_reward": 2.0,
      "all_responses": [
        "answer 0",
        "answer 1"
      ],
      "all_rewards": [
        2.0,
        0.0
      ],
      "avgN_reward": 1.0
    }
  ]
}
""".replace("FINGERPRINT", Run.read(folder).declaration["fingerprint"])
    )
    named = export.write(folder, tmp_path / "named", aggregation_names=True)
    assert named[1].name == "b_own-reward_k2_temp0.7_T5_MNT7_bon_seed1.json"


def test_reward_models_of_one_name_are_exported_by_what_the_run_calls_them(tmp_path):
    rewards = {"A": {"name": "x/same"}, "B": {"name": "y/same"}, "1.7B": {"name": "org/C"}}
    records = [
        with_settings(record("own", "aps", 1, 0, [1.0, 2.0], {"reward": name}), reward=name)
        for name in rewards
    ]
    for seed, one in enumerate(records):
        one["seed"] = seed
    settings = records[0]["settings"]
    folder = folder_of(tmp_path / "run", records, rewards=rewards, settings=settings)
    found = [path.name.split("_")[1] for path in export.write(folder, tmp_path / "to")]
    assert found == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "has no records yet"),
        ([failed("own", "bon", 1, 0)], "has no records yet"),
        (MAIN[-1:], "has records without settings, which an export names"),
    ],
)
def test_what_cannot_be_exported_is_named(tmp_path, records, message):
    folder = folder_of(tmp_path / "run", records)
    with pytest.raises(ValueError, match=r".") as error:
        export.write(folder, tmp_path / "to")
    assert str(error.value) == f"out: {folder} {message}"


WROTE = {"words": [["a", "b"], ["b", "c"]], "steps": [[0, 3], [1, 1]]}


def test_what_a_page_of_answers_is_made_of():
    first = record("own", "bon", 1, 0, [1.0, 2.0], {"reward": "4B"}, gold=[3.0, 4.0])
    second = record("own", "mine", 1, 0, [1.0, 2.0], {"reward": "0.6B"}, written=WROTE)
    longer = {"settings": {"denoising_steps": 9}, "written": WROTE | {"words": [["c"], ["d"]]}}
    longer["written"]["steps"] = [[0], []]
    third = record("rm-bench", "bon", 2, 5, [0.5, 0.0], {"reward": "4B"}, **longer)
    empty = {"words": [[], []], "steps": [[], []]}
    fourth = record("rm-bench", "bon", 3, 5, [0.5, 0.0], {"reward": "4B"}, written=empty)
    gone = failed("own", "bon", 1, 1, variant={"reward": "4B"})
    silent = failed("own", "bon", 1, 2, variant={"reward": "4B", "gradient_steps": 1})
    silent["reason"] = None
    run = run_of(
        [third, second, first, fourth],
        [
            judged_by("j", {key_of(first): 4.5}),
            judged_by("k", {key_of(first): 2.0, key_of(third): 1.0}),
        ],
        gone=[silent, gone],
        fingerprint="f",
    )
    answers = {"responses": ["answer 0", "answer 1"], "rewards": [1.0, 2.0]}
    expected = {
        "run": {
            "experiment": "main",
            "testbed": "dream",
            "denoiser": published.DREAM,
            "reward model": f"1.7B ({published.SKYWORK['1.7B']})",
            "fingerprint": "f",
        },
        "methods": [["bon", "Best-of-N"], ["mine", "mine"]],
        "variants": [
            {"reward": "0.6B"},
            {"reward": "4B"},
            {"reward": "4B", "gradient_steps": 1},
        ],
        "places": [
            ["own", 1, 2, "prompt 2"],
            ["own", 1, 0, "prompt 0"],
            ["own", 1, 1, "prompt 1"],
            ["rm-bench", 2, 5, "prompt 5"],
            ["rm-bench", 3, 5, "prompt 5"],
        ],
        "records": [
            {"place": 0, "method": 0, "variant": 2, "failed": "no reason was recorded"},
            {"place": 1, "method": 0, "variant": 1, **answers, "gold": [3.0, 4.0]}
            | {"judged": {"j": 4.5, "k": 2.0}},
            {"place": 2, "method": 0, "variant": 1, "failed": "nan"},
            {"place": 1, "method": 1, "variant": 0, **answers}
            | {"words": [[0, 1], [1, 2]], "steps": WROTE["steps"], "of": 4},
            {"place": 3, "method": 0, "variant": 1, **answers, "rewards": [0.5, 0.0]}
            | {"judged": {"k": 1.0}}
            | {"words": [[2], [3]], "steps": [[0], []], "of": 9},
            {"place": 4, "method": 0, "variant": 1, **answers, "rewards": [0.5, 0.0]}
            | {"words": [[], []], "steps": [[], []], "of": 1},
        ],
        "words": ["a", "b", "c", "d"],
    }
    assert browse.contents(run) == expected
    text = browse.page(run)
    assert text.count(json.dumps(expected, separators=(",", ":"))) == 1
    assert "/*STYLE*/" not in text
    assert "/*SCRIPT*/" not in text


def test_a_page_of_answers_holds_json_and_no_end_of_its_script():
    hostile = record("own", "bon", 1, 0, [1.0], prompt='</script>"RUN"/*STYLE*//*SCRIPT*/\ud800é')
    text = browse.page(run_of([hostile], fingerprint="f"))
    assert r"\u003c/script>\"RUN\"/*STYLE*//*SCRIPT*/\ud800\u00e9" in text
    with pytest.raises(ValueError, match="JSON compliant"):
        browse.page(run_of([record("own", "bon", 1, 0, [math.nan])], fingerprint="f"))


def test_a_page_of_a_toy_names_no_network():
    """And variants come by reward model and number of gradient steps, those without one last."""
    variants = [{"gradient_steps": 2}, {}, {"gradient_steps": 1}]
    variants += [{"reward": "4B", "gradient_steps": M} for M in (8, 1)]
    records = [record("own", "bon", 1, 0, [1.0], variant) for variant in variants]
    found = browse.contents(run_of(records, denoiser="the toy's", fingerprint="f"))
    assert "denoiser" not in found["run"]
    assert found["variants"] == [variants[i] for i in (4, 3, 1, 2, 0)]


def test_a_page_has_the_methods_in_the_order_of_the_tables_and_all_steps_of_all_answers():
    """Gold scores of 0 are scores; more steps than the settings say are seen, in each answer."""
    wrote = {"words": [["a", "b"], ["a"]], "steps": [[0, 1], [6]]}
    few = {"settings": {"denoising_steps": 4}, "written": wrote, "gold": [0.0, 0.0]}
    records = [record("own", name, 1, 0, [1.0, 2.0], **few) for name in ("aps", "expectation")]
    found = browse.contents(run_of(records, fingerprint="f"))
    assert found["methods"] == [["expectation", "Expectation"], ["aps", "APS"]]
    assert [(one["method"], one["of"], one["gold"]) for one in found["records"]] == [
        (1, 7, [0.0, 0.0]),
        (0, 7, [0.0, 0.0]),
    ]


def test_a_page_is_written_of_failed_records_but_not_of_none(tmp_path):
    none = folder_of(tmp_path / "none", [])
    with pytest.raises(ValueError, match=r"none has no records yet$"):
        browse.write(none, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    for number, records in enumerate(([failed("own", "bon", 1, 0)], MAIN[:1])):
        folder = folder_of(tmp_path / str(number), records)
        browse.write(folder, tmp_path / "page.html")
        assert (tmp_path / "page.html").read_text() == browse.page(Run.read(folder))


# What is there


def judge_of(folder, name, records, **declaration):
    """A judge's folder in that of a run."""
    own = json.loads((folder / "run.json").read_text())["fingerprint"]
    declared = {"run": own, "backend": "test", "model": {"name": name}, "unit_tests": ["?"]}
    found = folder / JUDGES / name.rsplit("/", 1)[-1]
    (found / "records").mkdir(parents=True)
    declared |= declaration
    declared["fingerprint"] = fingerprint(declared)
    (found / "run.json").write_text(json.dumps(declared))
    lines = [json.dumps(one | {"fingerprint": declared["fingerprint"]}) + "\n" for one in records]
    (found / "records" / "all.jsonl").write_text("".join(lines))
    return found


def judgement(of, score, without_digit=0, tests=1):
    names = ("experiment", "benchmark", "method", "variant", "seed", "idx", "prompt")
    return {
        **{name: of[name] for name in names},
        "response": of["responses"][of["rewards"].index(max(of["rewards"]))],
        "scores": [score] * tests,
        "score": score,
        "without_digit": without_digit,
        "status": "failed" if score is None else "ok",
    } | ({"scores": []} if score is None else {})


def test_the_list_of_experiments_and_runs(tmp_path):
    variant = {"reward": "4B", "gradient_steps": 2}
    records = [
        *(record("own", "bon", 1, idx, [1.0]) for idx in range(3)),
        record("own", "bon", 2, 0, [1.0]),
        failed("own", "aps", 1, 0),
        record("rm-bench", "entrgi", 1, 0, [1.0], variant),
    ]
    asked = [{**ASKED[0], "prompts": {"own": n}} for n in (5, 2)]
    one = {**ASKED[0], "prompts": {"own": 1}}
    asked += [{**one, "methods": ["aps"], "seeds": [1]}, {**one, "methods": ["bon"], "seeds": [2]}]
    folder = folder_of(tmp_path / "run", records, asked=asked)
    judge_of(folder, "one", [judgement(records[0], 3.0), judgement(records[1], None)])
    judge_of(folder, "other", [], run="another")
    judge_of(folder, "zero", [])
    (folder / "judge").mkdir()
    (tmp_path / "damaged").mkdir()
    empty = folder_of(tmp_path / "empty", [])
    lines = listing.listing([tmp_path / "damaged", folder, empty]).splitlines()
    assert lines[:5] == [
        "main              the main table",
        "error-by-step     Figure 2: errors and entropy by step",
        "error-vs-entropy  Figure 3: errors against entropy",
        "reward-size       Figure 4 and appendix",
        "gradient-steps    Figure 5 and appendix",
    ]
    another = lines.pop(14)
    assert another.startswith("  judged by other: cannot be read: out: ")
    assert "(it has judged another run, 'another' instead of " in another
    assert lines[5:] == [
        "",
        (
            f"{tmp_path / 'damaged'}: cannot be read: out: {tmp_path / 'damaged'} is no run "
            "folder, it has no run.json"
        ),
        "",
        f"{folder}: main, 5 prompts done, 1 failed",
        "  own aps, seed 1: 1 of 1",
        "  own bon, seed 1: 3 of 5",
        "  own bon, seed 2: 1 of 1",
        "  rm-bench entrgi gradient_steps=2 reward=4B, seed 1: 1 of 1",
        "  judged by one: 2 of 5",
        "  judged by zero: 0 of 5",
        f"  {folder / 'judge'} holds judgements in an earlier layout, which are not read.",
        "",
        f"{empty}: main, 0 prompts done, 0 failed",
    ]
    assert listing.listing([]).splitlines()[5:] == ["", "No runs yet below results/."]


def test_each_cell_is_listed_with_what_was_asked_of_it(tmp_path):
    """As the report says what is missing: another request may have asked more of other cells."""
    records = [record("own", m, seed, 0, [1.0]) for m, seed in (("bon", 1), ("aps", 1), ("aps", 2))]
    asked = [
        {"methods": ["bon"], "seeds": [1], "variants": [{}], "prompts": {"own": 64}},
        {"methods": ["aps", "bon"], "seeds": [1], "variants": [{}], "prompts": {"own": 1}},
        {"methods": ["aps"], "seeds": [2], "variants": [{}], "prompts": {"own": 1}},
    ]
    folder = folder_of(tmp_path, records, asked=asked)
    assert listing.listing([folder]).splitlines()[7:] == [
        "  own aps, seed 1: 1 of 1",
        "  own aps, seed 2: 1 of 1",
        "  own bon, seed 1: 1 of 64",
    ]
    assert report._unfinished(Run.read(folder)) == "63 prompts of 1 cell are missing"


def test_a_run_and_its_judges_are_read(tmp_path):
    """Of judgements those count that are of an answer of the run."""
    one, other = (record("own", "bon", 1, idx, [1.0, 2.0]) for idx in (0, 1))
    gone = failed("own", "bon", 1, 2)
    folder = folder_of(tmp_path, [other, gone, one])
    stray = record("own", "entrgi", 1, 0, [1.0])
    fine = [judgement(one, 4.0, without_digit=2, tests=3), judgement(other, None)]
    paper = {"name": published.LMUNIT, "commit": "c1"}
    judge_of(
        folder,
        "papers",
        [*fine, judgement(stray, 1.0, 1)],
        model=paper,
        unit_tests=list(UNIT_TESTS),
    )
    judge_of(folder, "a/b/c", [], unit_tests=["x", "y"])
    run = Run.read(folder)
    declared = read_experiment(folder)
    own = {"fingerprint": declared["fingerprint"]}
    assert run.declaration == declared
    assert run.records == [one | own, other | own]
    assert run.failed == [gone | own]
    assert [vars(judge) for judge in run.judges] == [
        {
            "name": "c",
            "model": "a/b/c",
            "backend": "test",
            "unit_tests": ("x", "y"),
            "scores": {},
            "judged": 0,
            "replies": 0,
            "without_digit": 0,
        },
        {
            "name": "LMUnit",
            "model": f"{published.LMUNIT}@c1",
            "backend": "test",
            "unit_tests": UNIT_TESTS,
            "scores": {key_of(one): 4.0},
            "judged": 2,
            "replies": 3,
            "without_digit": 2,
        },
    ]
    assert [judge.is_the_papers for judge in run.judges] == [False, True]
    assert list(run.measures) == ["top1", "average", "judge:c, other unit tests", "lmunit"]
    slim = Run.read(folder, whole=False)
    kept = ("experiment", "benchmark", "method", "variant", "seed", "idx", "status", "reason")
    kept += ("rewards", "commit", "versions", "responses")
    for found, whole in zip(slim.records, run.records, strict=True):
        assert found == {name: whole[name] for name in kept} | {
            "same_prompt": hash(whole["prompt"])
        }


@pytest.mark.parametrize("model", [published.LMUNIT.rsplit("/")[-1], f"b/{published.LMUNIT}"])
def test_what_is_called_like_the_papers_judge_is_not_it(tmp_path, model):
    """Such as a folder, which may hold anything."""
    folder = folder_of(tmp_path, [record("own", "bon", 1, 0, [1.0])])
    judge_of(folder, "one", [], model={"name": model}, unit_tests=list(UNIT_TESTS))
    (judge,) = Run.read(folder).judges
    assert (judge.name, judge.is_the_papers) == (published.LMUNIT.rsplit("/")[-1], False)


def test_a_judges_name_moves_no_cursor(tmp_path):
    folder = folder_of(tmp_path, [record("own", "bon", 1, 0, [1.0])])
    judge_of(folder, "one", [], model={"name": "a/b\x1b[2J", "commit": "\a"}, unit_tests=["x\r"])
    (judge,) = Run.read(folder).judges
    assert (judge.name, judge.model) == ("b\ufffd[2J", "a/b\ufffd[2J@\ufffd")
    assert report._unit_tests(judge) == "1 unit tests of its own: “x\ufffd”"


def test_a_criterion_that_counts_twice_is_none_of_the_papers():
    judge = judged_by("LMUnit", {}, tests=(*UNIT_TESTS, UNIT_TESTS[0]))
    assert not judge.is_the_papers


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variant": {"reward": "9B"}}, "its reward model is '9B', none of the run's"),
        (
            {"experiment": "reward-size", "status": "failed", "rewards": [], "responses": []},
            "it is of the experiment 'reward-size'",
        ),
        (
            {"settings": SETTINGS | {"top_p": 0.5, "reward": "9B"}},
            "its top_p is 0.5, but that of the run 0.95",
        ),
    ],
)
def test_a_record_of_what_the_run_does_not_declare_is_named(tmp_path, change, reason, whole):
    """Also where settings are not kept, as for the tables of a report."""
    folder = folder_of(tmp_path, [record("own", "bon", 1, 0, [1.0]) | change])
    with pytest.raises(ValueError, match=r".") as error:
        Run.read(folder, whole=whole)
    file = folder / "records" / "all.jsonl"
    assert str(error.value).startswith(f"out: {file}, line 1: {reason}; python -m entrgi_ref.paper")


def test_judges_and_measures_have_names_of_their_own():
    """The paper's judge is the only one of its kind, or else one of several."""
    papers, others = judged_by("LMUnit", {}), judged_by("LMUnit", {}, tests=("?",))
    for judges, labels, names in (
        ([papers], ["LMUnit"], ["lmunit"]),
        ([others], ["LMUnit, other unit tests"], ["judge:LMUnit, other unit tests"]),
        ([papers, papers], ["LMUnit #1", "LMUnit #2"], ["judge:LMUnit #1", "judge:LMUnit #2"]),
        (
            [judged_by("j", {}), papers, judged_by("j", {})],
            ["j #1", "LMUnit", "j #3"],
            ["judge:j #1", "lmunit", "judge:j #3"],
        ),
    ):
        run = run_of(MAIN, judges)
        assert list(run.judges_by_label) == labels
        assert list(run.measures) == ["top1", "average", *names]
    gold = [one | {"gold": [1.0] * len(one["rewards"])} for one in MAIN]
    assert list(run_of(gold).measures) == ["top1", "average", "gold"]
    assert list(run_of([*gold[1:], MAIN[0]]).measures) == ["top1", "average"]
    assert list(run_of([]).measures) == ["top1", "average"]


def test_what_is_selected_and_compared_of_a_run():
    run = run_of(MAIN, asked=ASKED)
    assert (run.toy, run.prompts, run.baseline) == (False, 2, "bon")
    assert run.benchmarks == ("rm-bench", "own")
    assert run.methods == tuple(GAIN)
    assert run.select(benchmark="own", method="entrgi") == MAIN[-1:]
    assert run.select(method="smc", seed=2, idx=1) == [MAIN[15]]
    assert run.select(reward="4B") == []
    few = run_of(MAIN[1:])
    assert few.left_out == [one for one in MAIN if (one["seed"], one["idx"]) == (1, 0)][1:-2]
    assert few.common("top1") == {
        *(("rm-bench", *place) for place in ((1, 1), (2, 0), (2, 1))),
        ("own", 1, 0),
    }
    assert few.value("top1", method="entrgi", benchmark="rm-bench") == summary.Value(
        4.75, pytest.approx(1.75), 2, 3
    )
    assert few.value("top1", method="aps") is None
    assert [one["idx"] for one in few.compared(method="mine", seed=1)] == [1]
    varied = run_of(VARIED)
    assert varied.variants("reward") == ["0.6B", "4B"]
    assert varied.variants("gradient_steps") == [2, 8]
    more = [record("own", "aps", 1, 0, [1.0], {"gradient_steps": M}) for M in (12, 1, 8)]
    assert run_of(more).variants("gradient_steps") == [1, 8, 12]
    assert run_of([], asked=[]).prompts == run_of([]).prompts == 0


def test_of_what_is_not_there_nothing_is_said():
    """No row of a variant that a benchmark lacks, and no note on a benchmark without records."""
    declared = {"experiment": "gradient-steps", "benchmarks": {"rm-bench": OF_THE_HUB, "own": ""}}
    more = [record("own", "entrgi", 1, 0, [1.0], {"reward": "4B", "gradient_steps": 2})]
    run = run_of([*VARIED, *more], **declared)
    own = [table for table in report.tables(run) if table.title == "own"]
    assert [table.rows for table in own] == [(("EntRGi", "4B", "2", "1.00", "1.00"),)]
    assert [values for _, values in numbers.cells(run, "own")] == [
        {"reward": "4B", "gradient_steps": 2}
    ]
    assert not any("NOTHING IS COMPARED" in note for note in notes(run_of(VARIED, **declared)))


def test_bars_are_over_the_seeds_that_are_compared():
    """Of the second seed one method has no answer."""
    records = [one for one in MAIN if (one["seed"], one["method"]) != (2, "bon")]
    assert figures.bars(run_of(MAIN)) == "Bars: one standard error over 2 seeds."
    assert figures.bars(run_of(records)) == "One seed: no standard errors."


def test_figures_of_errors_are_drawn_if_any_record_has_them():
    """Both, whichever of the two experiments has seen them."""
    seen = record("own", "entrgi", 1, 0, [1.0], errors={"steps": []})
    for experiment in ("error-by-step", "error-vs-entropy"):
        run = run_of([MAIN[-2] | {"errors": None}, seen], experiment=experiment)
        assert figures.of(run) == ["error-by-step", "error-vs-entropy"]
        assert figures.of(run_of(MAIN, experiment=experiment)) == [experiment]


def test_most_prompts_are_those_of_any_request():
    """A run may be given more of them later, or fewer."""
    for counts in ([1, 64], [64, 1]):
        asked = [ASKED[0] | {"prompts": {"own": n, "rm-bench": 1}} for n in counts]
        assert run_of(MAIN, asked=asked).prompts == 64
        assert "64 prompts per benchmark and seed at most" in notes(run_of(MAIN, asked=asked))[0]


def test_nothing_is_published_of_any_testbed_but_dream():
    """Be it the toy, or one of somebody else."""
    testbeds = ("dream", "toy", "exact toy", "theirs")
    assert [run_of(MAIN, testbed=name).toy for name in testbeds] == [False, True, True, True]
    assert not numbers.beside_the_published(run_of(MAIN, testbed="theirs"))


@pytest.mark.parametrize("whole", [True, False])
def test_a_prompt_is_known_by_its_text_and_not_by_its_place(tmp_path, whole):
    """Seeds shuffle: of these two the prompts are the same, in another order."""
    records = [
        record("own", method, seed, idx, [gain]) | {"prompt": f"prompt {(idx + seed) % 3}"}
        for method, gain in (("bon", 0.0), ("entrgi", 1.0))
        for seed in (1, 2)
        for idx in ((0, 1, 2) if seed == 1 else (0, 1))
    ]
    records[-1]["prompt"] = records[4]["prompt"] = "another prompt"
    (found,) = {
        difference.prompts
        for difference in Run.read(folder_of(tmp_path, records), whole=whole).paired("own").values()
    }
    assert found == 4
