"""Tables of the README and the ledger, made from the run records.

`python tests/records.py` writes them anew.
"""

import json
import re
from pathlib import Path

import numpy as np

from toy import ledger, spread
from toy.statistics import Estimate, student
from toy.table import LABELS, REWARD_AND_GOLD, Row, means

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "records"


def read(name):
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def rows(name):
    def estimates(written):
        return {measure: Estimate(**numbers) for measure, numbers in written.items()}

    return [
        Row(
            method=row["method"],
            trajectories=row["trajectories"],
            measures=estimates(row["measures"]),
            differences=estimates(row["differences"]),
            seconds=Estimate(**row["timing"]["seconds_per_prompt"]),
            time_ratio=row["timing"]["ratio_to_entrgi"],
        )
        for row in read(name)["rows"]
    ]


def gradients(name):
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


def regimes(measure):
    """The difference to Best-of-N in other settings and with other reward models."""
    spreads = {label: read(name)["rows"] for name, label in REGIMES.items()}
    methods = ("expectation", "aps", "entrgi")
    heads = " | ".join(LABELS[method] for method in methods)
    lines = [f"| regime | {heads} |", f"| --- |{' ---: |' * len(methods)}"]
    for label, found in spreads.items():
        cells = (student(np.array(found[m][measure])).text(2, sign=True) for m in methods)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def effects():
    return {
        name: {measure: Estimate(**numbers) for measure, numbers in effect.items()}
        for name, effect in read("ledger")["rows"].items()
    }


TABLES = {
    "ledger": lambda: ledger.markdown(effects()),
    "regimes": lambda: regimes("gold_mean"),
    "demo": lambda: means(rows("demo"), REWARD_AND_GOLD),
    "spread": lambda: spread.markdown(read("spread")["rows"]),
    "gradients": lambda: gradients("gradients"),
}
BLOCK = re.compile(r"(<!-- record: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text):
    """`text` with every block between markers made from its record."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n\n{m[3]}", text)


if __name__ == "__main__":
    for page in (ROOT / "README.md", ROOT / "docs" / "ledger.md"):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
