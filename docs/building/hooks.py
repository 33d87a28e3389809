"""What mkdocs calls while it builds the site.

A page may hold macros, `{{ name argument ... }}`, each of which becomes Markdown:

    {{ statement eq:ID }}           the equation, as the registry states it
    {{ state eq:ID }}               a link to the live page at that equation
    {{ code eq:ID }}                the function that computes it, from the source
    {{ fold module:name TITLE }}    a function, folded
    {{ test file.py::name }}        a test, folded
    {{ value RECORD PATH FORMAT }}  a number of a run record
    {{ estimate RECORD PATH DIGITS [sign] }}   a number with its interval
    {{ difference RECORD METHOD OTHER MEASURE [least|most|half] }}
                                    over pairs of networks, with its interval; or the least, the
                                    most, or half the interval's width
    {{ table NAME }}                a table made from run records
    {{ wall RECORD }}               how long a run took
    {{ figure NAME }}               a picture that is drawn at every build
    {{ symbols }} {{ letters }}     the table of symbols, and of dimension letters
    {{ published }}                 the paper's main table, as far as it is known
    {{ provenance }}                all run records, with their commands
    {{ ledger }}                    the rows of the ledger, with links
    {{ notebook NAME }}             where the notebook of a page is, and how to open it

A macro that fails, fails the build.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for folder in (HERE.parent.parent, HERE.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from building import figures, mutants, records, sources, symbols  # noqa: E402
from entrgi_ref import EQUATIONS  # noqa: E402
from entrgi_ref.paper.declared.benchmarks import HUB  # noqa: E402
from entrgi_ref.paper.declared.experiments import LABELS, METHODS  # noqa: E402
from entrgi_ref.paper.declared.published import TOP1  # noqa: E402
from entrgi_ref.paper.shown import numbers  # noqa: E402
from toy.statistics import student  # noqa: E402

WIDE = (
    *("demo", "overoptimisation", "idea", "gradients", "climb", "weight", "commit", "temperature"),
    *("shift", "misread"),
)
"""Pictures that small screens scroll instead of shrinking."""
MACRO = re.compile(r"\{\{ *([a-z]+)((?: [^}]*)?) *\}\}")
TRACE_LINES = (
    ("predict", "logits = predict("),
    ("guide", "guided_logits = climb("),
    ("draw", "drawn = draw_candidates("),
    ("commit", "committed = commit("),
)
"""Where in `generate` a frame of the stepper stands."""


def statement(identifier: str) -> str:
    """An equation with its number."""
    formula, number = EQUATIONS[identifier].statement, numbered(identifier)
    tag = rf" \tag{{{number.removeprefix('Eq. ')}}}" if number.startswith("Eq. ") else ""
    return f"$$\n{formula}{tag}\n$$"


def numbered(identifier: str) -> str:
    """The number of an equation; where several have one number, with a letter behind it."""
    number = EQUATIONS[identifier].number
    same = [name for name, equation in EQUATIONS.items() if equation.number == number]
    several = len(same) > 1 and number.startswith("Eq. ")
    return number + ("abc"[same.index(identifier)] if several else "")


def state(identifier: str) -> str:
    """A link to the state of a run at an equation."""
    name = identifier.partition(":")[2]
    label = f"live state at {numbered(identifier)}: {name.replace('-', ' ')}"
    return f'[live state](live.md#run:eq={name}){{ .state aria-label="{label}" }}'


def code(name: str) -> str:
    """A function, with the numbers of its lines in the file."""
    source = sources.of(name)
    anchor = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return (
        f'``` {{ .python #{anchor} title="{source.file}, line {source.line}" }}\n{source.code}\n```'
    )


def fold(name: str, title: str) -> str:
    """A function that would interrupt, folded."""
    return _folded("code", title, sources.of(name))


def listing(name: str) -> str:
    """A function in full, every line with its number and an anchor that ends with it."""
    source = sources.of(name)
    return (
        f'``` {{ .python .listing title="{source.file}" linenums="{source.line}" }}\n'
        f"{source.text}\n```"
    )


def test(name: str) -> str:
    """A test, folded, under its name in words."""
    words = name.partition("::")[2].removeprefix("test_").replace("_", " ")
    return _folded("test", f"Test: {words}", sources.test(name))


def _folded(kind: str, title: str, source: sources.Source) -> str:
    body = "\n".join(f"    {line}" for line in source.text.splitlines())
    return (
        f'??? {kind} "{title}"\n\n    ``` {{ .python title="{source.file}, line {source.line}" }}\n'
        f"{body}\n    ```\n"
    )


def value(record: str, path: str, form: str = "") -> str:
    """A number of a run record, or a text."""
    found = records.value(record, path)
    return format(found, form).replace("-", "−") if isinstance(found, int | float) else str(found)


def estimate(record: str, path: str, digits: str = "2", sign: str = "") -> str:
    """A number with its interval."""
    return records.estimate(record, path).text(int(digits), sign=bool(sign))


def difference(record: str, method: str, other: str, measure: str, part: str = "") -> str:
    """A method less another over the pairs of networks of a record of `spread`."""
    found = records.difference(record, method, other, measure)
    mean = student(found)
    text = {
        "": mean.text(2, sign=True),
        "least": f"{found.min():+.2f}",
        "most": f"{found.max():+.2f}",
        "half": f"{(mean.high - mean.low) / 2:.2f}",
    }[part]
    return text.replace("-", "−")


def table(name: str) -> str:
    """A table from run records."""
    return records.TABLES[name]()


def wall(record: str) -> str:
    """How long a run took, and on what."""
    found = records.read(record)
    minutes = round(found["seconds"] / 60)
    return f"{minutes} minutes on {found['machine'].replace('1 threads', '1 thread')}"


def figure(name: str) -> str:
    """A drawn picture, in its light and its dark version, with its caption."""
    drawn = figures.DRAWN[name]
    alt = html.escape(drawn.alt, quote=True)
    pictures = "\n".join(
        f"![{alt}](assets/drawn/{name}-{mode}.svg#only-{mode})" for mode in ("light", "dark")
    )
    if name in WIDE:
        pictures = f'<div class="scroll" tabindex="0" markdown>\n\n{pictures}\n\n</div>'
    sources = ", ".join(f"[{record}](records/{record}.json)" for record in drawn.recorded)
    source = {0: "", 1: f" Record: {sources}."}.get(len(drawn.recorded), f" Records: {sources}.")
    return (
        f'<figure class="drawn" markdown>\n\n{pictures}\n\n<figcaption markdown="span">'
        f"{expand(drawn.caption)}{source}</figcaption>\n</figure>"
    )


def published() -> str:
    """The main table: published beside measured. What has been measured is in docs/records."""
    lines = [
        "| benchmark | method | Top@1, published | Top@1, measured |",
        "| --- | --- | ---: | ---: |",
    ]
    for benchmark in HUB:
        for method in METHODS:
            known = TOP1.get((benchmark, method))
            beside = "not in the paper" if method in numbers.OURS else "not available"
            number = beside if known is None else f"{known:.2f}"
            lines.append(f"| {benchmark} | {LABELS[method]} | {number} | not measured |")
    return "\n".join(lines)


def provenance() -> str:
    """The run records."""
    lines = ["| record | command | commit | run on |", "| --- | --- | --- | --- |"]
    for path in sorted(records.RECORDS.glob("*.json")):
        record = records.read(path.stem)
        lines.append(
            f"| [{path.stem}](records/{path.name}) | `{record['command']}` | {record['commit']} "
            f"| {record.get('testbed', 'languages by seed')} |"
        )
    return "\n".join(lines)


LEDGER_ROW = re.compile(
    r"^### (?P<row>\d+b?)\. (?P<name>.*?) \{ #row-(?P=row) \}\n(?P<text>.*?)(?=^##|\Z)",
    re.MULTILINE | re.DOTALL,
)


def notebook(name: str) -> str:
    """Where the notebook of a page is. The notebook itself leaves this out."""
    return (
        f'**[Download this page as a notebook]({name}.ipynb){{ download="{name}.ipynb" }}.** '
        "It is made for Jupyter, for Colab (*File, Upload notebook*), for Kaggle (*File, Import "
        "notebook*, with the internet on) and for Binder (of the repository: "
        f"`docs/notebooks/{name}.ipynb`). It was run in Jupyter's kernel, and not tried in the "
        "hosted services. Its figure is drawn when it is run, and not shown here."
    )


MENTIONED = re.compile(
    r"<(?P<tag>a|code|pre|script|style)\b.*?</(?P=tag)>|<[^>]*>"  # left as they are
    r"|\b[Rr]ows?\s+(?P<rows>\d+b?(?:(?:,|\s+and|\s+to)\s+\d+b?)*)\b"
    r"|(?<=<td>)(?P<cell>\d+b?)(?=: )",  # in the table of what was measured
    re.DOTALL,
)
"""Rows of the ledger that HTML speaks of: no other table has numbered rows here."""
TEXTS = ("differs", "says less", "silent", "agrees")
"""How the paper's text stands to the authors' code in a row of the ledger."""


def ledger() -> str:
    """The rows of the ledger, with links to them."""
    lines = ["| row | what | text | here |", "| ---: | --- | --- | --- |"]
    page = (records.ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    for found in LEDGER_ROW.finditer(page):
        row, name, text = found["row"], found["name"], found["text"]
        (stands,) = [
            kind for kind in TEXTS if re.search(rf"^- Text:? {kind}\b", text, re.MULTILINE)
        ]
        same = "as the authors' code" if "\n- Ours: the same" in text else "otherwise"
        option = "" if same != "otherwise" or "\n- Option: " not in text else ", with an option"
        option = "" if "\n- Option: none" in text else option
        lines.append(f"| [{row}](#row-{row}) | {name} | {stands} | {same}{option} |")
    return "\n".join(lines)


def with_links_to_rows(page: str, up: str) -> str:
    """HTML with a link at every row of the ledger that is spoken of; `up` leads to the root of the
    site. `KeyError` for a row that is not there.
    """
    text = (records.ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    known = {found["row"] for found in LEDGER_ROW.finditer(text)}

    def link(row: str, shown: str) -> str:
        if row not in known:
            raise KeyError(f"there is no row {row} in the ledger")
        return f'<a href="{up}ledger.html#row-{row}">{shown}</a>'

    def replaced(match: re.Match[str]) -> str:
        whole, rows = match[0], match["rows"] or match["cell"]
        if not rows:
            return whole
        if rows.isalnum():
            return link(rows, whole)
        return re.sub(r"\d+b?", lambda row: link(row[0], row[0]), whole)

    return MENTIONED.sub(replaced, page)


MACROS: dict[str, Callable[..., str]] = {
    "statement": statement,
    "state": state,
    "code": code,
    "fold": fold,
    "listing": listing,
    "test": test,
    "value": value,
    "estimate": estimate,
    "difference": difference,
    "table": table,
    "wall": wall,
    "figure": figure,
    "published": published,
    "provenance": provenance,
    "ledger": ledger,
    "notebook": notebook,
    "mistakes": mutants.mistakes,
    "score": mutants.score,
    "written": mutants.written,
    "survivors": mutants.survivors,
    "symbols": symbols.table,
    "letters": symbols.letters,
}


def expand(markdown: str) -> str:
    """A page's Markdown with its macros replaced."""

    def replaced(match: re.Match[str]) -> str:
        name, words = match[1], shlex.split(match[2])
        if name not in MACROS:
            raise KeyError(f"there is no macro {name!r}")
        return MACROS[name](*words)

    return MACRO.sub(replaced, markdown)


def hovered(page: str) -> str:
    """HTML with a hover text on every identifier of the table of symbols."""
    texts = symbols.hover_texts()

    def replaced(match: re.Match[str]) -> str:
        text = texts.get(match[1])
        return f'<code title="{html.escape(text)}">{match[1]}</code>' if text else match[0]

    return re.sub(r"<code>(\w+)</code>", replaced, page)


def counted(page: str) -> str:
    """HTML in which no two lines of code have one id: the listings of each docstring start at 0."""
    listings = re.split(r'(?=<div class="[^"]*\bhighlight\b)', page)
    return "".join(
        re.sub(r"(__(?:span|codelineno)-)\d+(?=-)", rf"\g<1>{i}", listing)
        for i, listing in enumerate(listings)
    )


def generated() -> dict[str, str]:
    """Files that are made at every build: path on the site -> contents."""
    package = HERE.parent.parent / "entrgi_ref"
    made = {
        f"assets/trace/trace.{kind}": (package / "watching" / f"page.{kind}").read_text(
            encoding="utf-8"
        )
        for kind in ("js", "css")
    }
    trace = records.read("trajectory")
    numbers = sources.lines_of("alg:generate", *(start for _, start in TRACE_LINES))
    lines: list[dict[str, Any]] = [
        {"label": label, "line": number}
        for (label, _), number in zip(TRACE_LINES, numbers, strict=True)
    ]
    (end,) = sources.lines_of("alg:generate", "return _scored(")
    lines.append({"label": "score", "line": end, "answer": True})
    recorded = {
        "trajectory": {"prompt": trace["prompt"], "panels": trace["panels"], "lines": lines},
        "dial": records.read("dial")["rows"],
        "equations": {
            name: {"number": numbered(name), "statement": found.statement}
            for name, found in EQUATIONS.items()
        },
    }
    for name, data in recorded.items():
        # A script, as a page that is opened from a folder may not read JSON.
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        made[f"assets/data/{name}.js"] = f"(window.RECORDED ??= {{}}).{name} = {text};\n"
    return made


def above(page: Any) -> str:
    """The way from a page up to the root of the site."""
    return "../" * page.file.src_uri.count("/")


# What mkdocs calls.


def on_config(config: Any) -> Any:
    """Take the address where the site is published, if it is known: page 404 has links to it."""
    config.site_url = os.environ.get("SITE_URL", "")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what is made at every build."""
    from mkdocs.structure.files import File

    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    for name, drawing in figures.DRAWN.items():
        for mode, picture in drawing.draw().items():
            path = f"assets/drawn/{name}-{mode}.svg"
            files.append(File.generated(config, path, content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replace a page's macros."""
    up = above(page)
    try:
        return re.sub(r"\]\((?=assets/drawn/|records/)", f"]({up}", expand(markdown))
    except Exception as error:
        raise RuntimeError(f"{page.file.src_uri}: {error}") from error


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Add links to the ledger and hover texts, let tables be scrolled by keyboard, keep an interval
    on one line, and count the listings.
    """
    content = with_links_to_rows(content, above(page))
    content = content.replace("<table>", '<table tabindex="0">')
    content = re.sub(
        r"<td.*?</td>",
        lambda cell: re.sub(r"(\[[−+\d.]+), (?=[−+\d.]+\])", r"\1,&nbsp;", cell[0]),
        content,
        flags=re.DOTALL,
    )
    return counted(hovered(content))
