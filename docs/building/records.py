"""Numbers and tables from the run records in docs/records.

`python docs/building/records.py` writes the tables of README.md and docs/ledger.md anew.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from entrgi_ref.commands.pairs import SKYWORK  # noqa: E402
from entrgi_ref.paper.declared.experiments import LABELS  # noqa: E402
from entrgi_ref.paper.run import dry  # noqa: E402
from toy import dial, ledger, shift, spread  # noqa: E402
from toy.laboratory import claims, distribution, infilling, rivals  # noqa: E402
from toy.laboratory import gradient as exact_gradient  # noqa: E402
from toy.leading import markdown as leading_table  # noqa: E402
from toy.statistics import Estimate, Numbers, student  # noqa: E402
from toy.table import DECIDES, REWARD_AND_GOLD, Row, Size, decided, means  # noqa: E402

RECORDS = ROOT / "docs" / "records"


def read(name: str) -> dict[str, Any]:
    """A run record."""
    return dict(json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8")))


def value(name: str, path: str) -> Any:
    """What a record holds at a path of keys and indices with dots between, such as
    `rows.entrgi.average.0`. In a list of rows a method's name is an index too. A dot inside of a
    key is written ~.
    """
    found: Any = read(name)
    for key in (part.replace("~", ".") for part in path.split(".")):
        if isinstance(found, list) and not key.lstrip("-").isdigit():
            (found,) = [row for row in found if row.get("method") == key]
        else:
            found = found[int(key) if isinstance(found, list) else key]
    return found


def estimate(name: str, path: str) -> Estimate:
    """A number with its interval; of a list of repeats the mean with Student's interval."""
    found = value(name, path)
    return student(np.array(found)) if isinstance(found, list) else Estimate(**found)


def difference(name: str, method: str, other: str, measure: str) -> Numbers:
    """A method less another on each pair of networks, of a record of `spread`."""
    found = read(name)["rows"]
    return np.array(found[method][measure]) - np.array(found[other][measure])


def told_apart(name: str, method: str, other: str) -> str:
    """What the rule says of a method against another, of a record of `spread`."""
    record, each = read(name), difference(name, method, other, DECIDES)
    size = Size(record["prompts"], len(record["seeds"]), len(each))
    return decided(student(each), list(each), size)


def rows(name: str) -> list[Row]:
    """The rows of a demo's record."""
    record = read(name)

    def estimates(written: Mapping[str, Any]) -> dict[str, Estimate]:
        return {measure: Estimate(**numbers) for measure, numbers in written.items()}

    return [
        Row(
            method=row["method"],
            trajectories=row["trajectories"],
            measures=estimates(row["measures"]),
            differences=estimates(row["differences"]),
            by_pair={},
            seconds=Estimate(**row["timing"]["seconds_per_prompt"]),
            time_ratio=row["timing"]["ratio_to_entrgi"],
            size=Size(record["prompts"], len(record["seeds"])),
        )
        for row in record["rows"]
    ]


def gradients(name: str) -> str:
    """The cosines to the exact gradient."""
    cosines = {
        LABELS.get(method, method): Estimate(**found["cosine_of_mean"])
        for method, found in read(name)["rows"].items()
    }
    lines = [f"| {' | '.join(cosines)} |", f"| {' | '.join(['---:'] * len(cosines))} |"]
    return "\n".join([*lines, f"| {' | '.join(c.text(2) for c in cosines.values())} |"])


REGIMES = {
    "spread-m1": "M = 1",
    "spread": "M = 3, as above",
    "spread-m8": "M = 8",
    "spread-small": "a smaller reward model (2 layers)",
    "spread-std3": "embeddings started three times as large",
}


def regimes(measure: str) -> str:
    """The difference to Best-of-N in other settings and with other reward models."""
    spreads = {label: read(name)["rows"] for name, label in REGIMES.items()}
    methods = ("expectation", "aps", "entrgi")
    heads = " | ".join(LABELS[method] for method in methods)
    lines = [f"| regime | {heads} |", f"| --- |{' ---: |' * len(methods)}"]
    for label, found in spreads.items():
        cells = (student(np.array(found[m][measure])).text(2, sign=True) for m in methods)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def memory(reward: str) -> str:
    """The memory that is predicted with a reward model, by prompts and new tokens."""
    found = read("memory")["tables"][reward]["rows"]
    lengths = sorted({row["new_tokens"] for row in found})
    lines = [f"| prompts x K | {' | '.join(f'N = {N}' for N in lengths)} | step at N = 128 |"]
    lines.append(f"| --- |{' ---: |' * (len(lengths) + 1)}")
    for start in range(0, len(found), len(lengths)):
        row = found[start : start + len(lengths)]
        (seconds,) = [one["seconds_per_step"] for one in row if one["new_tokens"] == 128]
        name = f"{row[0]['prompts']} x {row[0]['trajectories']}"
        lines.append(f"| {name} | {' | '.join(map(dry.cell, row))} | {seconds:.1f} s |")
    return "\n".join(lines)


SIZES = {
    "S": "S, trajectories",
    "N": "N, tokens of an answer",
    "V": "V, vocabulary",
    "prompt": "tokens of a prompt",
    "M": "M, gradient steps",
    "T": "T, denoising steps",
}


def scaling() -> str:
    """How the time of a run grows with each size, expected and measured."""
    lines = [
        "| size | values | seconds | slope expected | slope measured |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for line in read("bench-wide")["scaling"]:
        values = ", ".join(f"{each:,}" for each in line["values"])
        seconds = ", ".join(f"{each:.1f}" for each in line["seconds"])
        slopes = f"{line['expected']:.2f} | {line['measured']:.2f}"
        lines.append(f"| {SIZES[line['size']]} | {values} | {seconds} | {slopes} |")
    return "\n".join(lines)


TRICKS = {
    "nucleus": "the nucleus without a sort of tokens",
    "draw": "draws in two levels",
    "rows": "a few rows at a time",
    "gradient": "the gradient written out",
    "adam": "Adam in one pass",
}


def tricks() -> str:
    """What a run takes without each trick, over what it takes with all."""
    lines = ["| without | time, over that with all |", "| --- | ---: |"]
    without = read("bench-wide")["without"]
    lines += [f"| {TRICKS[name]} | {ratio:.2f} |" for name, ratio in without.items()]
    return "\n".join(lines)


PARTS = {
    "denoiser": "the mask predictor",
    "reward_forward": "the reward model, forward",
    "reward_backward": "the reward model, backward",
    "softmax": "softmax",
    "nucleus": "nucleus",
    "draw": "draws",
    "entropy": "entropy",
    "gradient": "gradient of the logits",
    "adam": "Adam",
    "rest": "rest",
}


def parts() -> str:
    """Milliseconds of each part of a denoising step of the paper's shape on a GPU."""
    found = {name: read(name) for name in ("bench-paper", "bench-paper-faster", "bench-paper-4b")}
    lines = [
        "| ms of a denoising step, each part timed by itself | 1.7B | 1.7B, `--faster` | 4B |",
        "| --- | ---: | ---: | ---: |",
    ]
    for part, words in PARTS.items():
        cells = " | ".join(f"{1000 * record['parts'][part]:.0f}" for record in found.values())
        lines.append(f"| {words} | {cells} |")
    whole = " | ".join(f"{1000 * record['seconds_per_step']:.0f}" for record in found.values())
    lines.append(f"| **the step as a whole** | {whole} |")
    ratios = " | ".join(f"{record['overhead_over_networks']:.2f}" for record in found.values())
    lines.append(f"| ours / networks | {ratios} |")
    floors = " | ".join(f"{record['overhead_over_floor']:.2f}" for record in found.values())
    lines.append(f"| ours / (networks + unavoidable) | {floors} |")
    for words, kind in (("networks alone", "networks"), ("ours", "ours")):
        rates = " | ".join(f"{of_matrix_rate(record, kind):.2f}" for record in found.values())
        lines.append(f"| {words}, share of the matrix rate | {rates} |")
    most = " | ".join(f"{peak_gib(record):.1f}" for record in found.values())
    lines.append(f"| peak memory, weights included, GiB | {most} |")
    waits = " | ".join(f"{record['host_waits']['gradient_step']:.0f}" for record in found.values())
    lines.append(f"| times that the host waits, per gradient step | {waits} |")
    return "\n".join(lines)


def of_matrix_rate(record: Mapping[str, Any], kind: str) -> float:
    """The networks' operations over the time of a run, as a share of a large matrix product's."""
    seconds = statistics.median(record["seconds"][kind])
    return float(record["network_operations"] / seconds / record["matrix_rate"])


def peak_gib(record: Mapping[str, Any]) -> float:
    """The most memory that was held at once, weights included."""
    return float(record["held_before_bytes"] + record["peak_memory_bytes"]) / 2**30


def leading() -> str:
    """The committed run at the start of an answer, under each order."""
    rows = read("leading")["rows"]
    return leading_table(
        {
            order: {name: Estimate(**each) for name, each in found.items()}
            for order, found in rows.items()
        }
    )


def readings() -> str:
    """What the toy's mask predictor writes, read as it was trained and one off."""
    rows = read("shift")["rows"]
    return shift.markdown(
        {name: {m: Estimate(**e) for m, e in each.items()} for name, each in rows.items()}
    )


def effects() -> dict[str, dict[str, Estimate]]:
    """The rows of the ledger's record."""
    return {
        name: {measure: Estimate(**numbers) for measure, numbers in effect.items()}
        for name, effect in read("ledger")["rows"].items()
    }


TABLES: dict[str, Callable[[], str]] = {
    "ledger": lambda: ledger.markdown(effects()),
    "regimes": lambda: regimes("gold_mean"),
    "regimes-top1": lambda: regimes("top1"),
    "demo": lambda: means(rows("demo"), REWARD_AND_GOLD),
    "spread": lambda: spread.markdown(read("spread")["rows"]),
    "constants": lambda: spread.markdown(read("constants")["rows"]),
    "gradients": lambda: gradients("gradients"),
    **{f"memory-{size}": partial(memory, size) for size in SKYWORK},
    "dial": lambda: dial.markdown(read("dial")["rows"]),
    "scaling": scaling,
    "tricks": tricks,
    "parts": parts,
    "leading": leading,
    "shift": readings,
    "shift-answers": lambda: shift.answers_table(read("shift")["answers"]),
    "exact-gradient": lambda: exact_gradient.markdown(read("exact-gradient")["rows"]),
    "answers": lambda: distribution.answers_table(read("exact-distribution")["rows"]),
    "matched-kl": lambda: distribution.matched_table(read("exact-distribution")["rows"]),
    "answers-infilling": lambda: infilling.answers_table(read("exact-infilling")["rows"]),
    "matched-infilling": lambda: distribution.matched_table(read("exact-infilling")["rows"]),
    "rivals": lambda: rivals.means_table(read("rivals")["rows"]),
    "rivals-differences": lambda: rivals.differences_table(read("rivals")["rows"]),
    "rivals-costs": lambda: rivals.costs_table(read("rivals")["rows"]),
    "claims": lambda: claims.claims_table(read("claims")["rows"]),
    "claims-methods": lambda: claims.methods_table(read("claims")["rows"]),
    "claims-steps": lambda: claims.steps_table(read("claims")["rows"]),
    "claims-map": lambda: claims.map_table(read("claims")["rows"]),
}
BLOCK = re.compile(r"(<!-- record: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """`text` with every block between markers made from its record."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


if __name__ == "__main__":
    for page in (ROOT / "README.md", ROOT / "docs" / "ledger.md"):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
