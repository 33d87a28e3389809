"""What the documentation says is so: examples run, ids and names exist, numbers have a source."""

import ast
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from matplotlib.colors import rgb_to_hsv, to_rgb
from paper_runs import benchmark_file
from typer.testing import CliRunner

from building import (
    examples,
    facts,
    figures,
    hooks,
    notebooks,
    recordings,
    records,
    sources,
    symbols,
)
from building.records import ROOT
from entrgi_ref import (
    EQUATIONS,
    IMPLEMENTATIONS,
    GuidanceConfig,
    KeyedDraws,
    SamplingConfig,
    denoising,
)
from entrgi_ref.paper.declared.benchmarks import HUB
from entrgi_ref.paper.declared.published import TOP1
from entrgi_ref.paper.shown import numbers
from entrgi_ref.paper.shown.figures import STYLES
from entrgi_ref.protocols import BoundReward, Denoiser, Reward, Template
from entrgi_ref.relaxation import __doc__ as LETTERS
from toy import demo, testbed
from toy import figures as toy_figures
from toy.studies import FIRST_TRAINING_SEED

DOCS = ROOT / "docs"
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.glob("**/*.md"))


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == PAGES


def test_every_page_has_a_list_of_its_contents():
    """At its side, or where that is hidden, on the page."""
    for page in PAGES:
        front = re.match(r"---\n(.*?)^---\n", text_of(page), re.MULTILINE | re.DOTALL)
        hidden = yaml.safe_load(front[1]).get("hide", []) if front else []
        assert ("toc" in hidden) == bool(re.search(r"^\[TOC\]$", text_of(page), re.MULTILINE)), page


def test_a_method_has_one_colour_everywhere():
    """Its light and its dark shade have one hue; no other method has either, on any page."""
    light, dark = figures.PALETTES["light"].method, figures.PALETTES["dark"].method
    assert set(STYLES) < set(light) == set(dark)
    shades = [colour.lower() for colour in (*light.values(), *dark.values())]
    assert len(set(shades)) == len(shades)
    for method, (_, colour, marker) in STYLES.items():
        assert light[method] == colour
        assert toy_figures.MARKERS[method] == marker

    def hue(colour):
        h, _, saturation = rgb_to_hsv(to_rgb(colour))
        return h if saturation > 0.2 else None  # a grey has none

    for method in light:
        a, b = hue(light[method]), hue(dark[method])
        if a is not None and b is not None:
            assert abs(a - b) < 0.06, method


# Python and shell


SLOWLY = ("extending.md", "index.md", "notebooks/first_steps.md", "toy.md")
"""Pages whose blocks `make test-slow` runs."""


def _run(page, *command):
    return pytest.param(page, *command, marks=pytest.mark.slow if page in SLOWLY else ())


def hardly_training(load):
    def loaded(recipe, track):
        first = recipe.seed == FIRST_TRAINING_SEED
        return load(recipe if first else replace(recipe, steps=40, examples=500), track)

    return loaded


def as_pinned(package):
    """Whether it is the version that the pages were made with."""
    pinned = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version(package).partition("+")[0] == pinned[1]


@pytest.mark.xdist_group("quick")  # its networks are trained once
@pytest.mark.parametrize("page", [_run(p.relative_to(DOCS).as_posix()) for p in examples.pages()])
def test_python_blocks_print_what_stands_below_them(page, monkeypatch):
    """Those of notebooks with quick networks, few prompts and few steps. Pairs of networks after
    the first are hardly trained: a page says nothing of theirs.
    """
    for name in ("load_denoiser", "load_reward"):
        monkeypatch.setattr(testbed, name, hardly_training(getattr(testbed, name)))
    monkeypatch.chdir(ROOT)
    if page.startswith("notebooks/"):
        few = testbed.held_out_prompts(2)
        monkeypatch.setattr(testbed, "held_out_prompts", lambda count: few)
        monkeypatch.setattr(testbed.Testbed, "load", partial(testbed.Testbed.load, quick=True))
        monkeypatch.setattr(demo, "BASE", replace(demo.BASE, denoising_steps=4))
    for example, output in examples.printed(DOCS / page):
        where = f"{page}, line {example.line}"
        found, expected = example.comparable(output), example.comparable(example.output)
        if not as_pinned("torch"):  # which pads the numbers of a tensor otherwise
            found, expected = (re.sub(r"(?<=\[) +| +(?= )", "", text) for text in (found, expected))
        assert found == expected, where


@pytest.mark.parametrize("page", notebooks.sources(), ids=lambda page: page.stem)
def test_notebooks_are_made_of_their_pages(page):
    """As of now: `python docs/building/notebooks.py` writes them anew."""
    written = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == notebooks.notebook(page)
    book = json.loads(written)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    cells = book["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(re.fullmatch(r"[\w-]{1,64}", cell["id"]) for cell in cells)
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert [f"{each}\n" for each in code] == [each.code for each in examples.examples(page)]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert "## 5." in text
    assert not re.search(r"\{\{|\]\((?!https?:)|```", text), "what a notebook cannot show"


def test_the_first_cell_of_a_notebook_finds_the_package_or_says_what_to_do(tmp_path, monkeypatch):
    (page,) = notebooks.sources()
    cell = next(examples.examples(page)).code
    called = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: called.append(words))
    exec(cell, {})
    assert called == []  # it is installed here
    monkeypatch.setitem(sys.modules, "toy.testbed", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="put the repository's folder beside this notebook"):
        exec(cell, {})
    exec(cell.replace('REPOSITORY = ""', 'REPOSITORY = "https://x"'), {})
    cloned, installed = called
    assert cloned[:2] == ["git", "clone"]
    assert installed[:4] == [sys.executable, "-m", "pip", "install"]
    (tmp_path / "copy" / "toy").mkdir(parents=True)
    (tmp_path / "copy" / "toy" / "testbed.py").touch()
    exec(cell, {})
    assert called[2][-1] == sys.path[0] == str(tmp_path / "copy")


def test_all_python_blocks_are_found():
    for page in PAGES:
        fences = re.findall(r"^``` ?(?:python|py)\b", text_of(page), re.MULTILINE)
        assert len(fences) == len(list(examples.examples(DOCS / page))), page


def test_examples_of_extending_are_short():
    for example in examples.examples(DOCS / "extending.md"):
        assert example.code.count("\n") < 30


RUNNABLE = [
    (page, command)
    for page in PAGES
    for command in re.findall(r"<!-- run: (.*?) -->\n```sh\n", text_of(page))
]


def test_markers_of_runnable_blocks_stand_above_one():
    for page in PAGES:
        markers = text_of(page).count("<!-- run:")
        assert markers == sum(found == page for found, _ in RUNNABLE), page


@pytest.mark.xdist_group("quick")
@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("page", "command"), [_run(*each) for each in RUNNABLE])
def test_shell_blocks_run(page, command, tmp_path, monkeypatch):
    """In their quick variants, which stand beside them, as `python -m` runs a module."""
    command = command.format(tmp=tmp_path, benchmark=benchmark_file(tmp_path))
    python, *words = shlex.split(command)
    assert python == "python"
    if words[0] != "-m":
        run = [sys.executable, *words]
        done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, timeout=240)
        assert done.returncode == 0, done.stderr
        return
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)  # stays at one, as elsewhere
    monkeypatch.delitem(sys.modules, f"{words[1]}.__main__", raising=False)  # as a process has it
    with pytest.raises(SystemExit) as end:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    assert not end.value.code


def test_commands_and_options_of_shell_blocks_exist():
    """Of all blocks, also of those that would take hours."""
    help_texts = {}
    for page in [*PAGES, "../README.md"]:
        for block in re.findall(r"^```sh\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"-m (toy|entrgi_ref(?:\.paper)?)\b(.*)", line.partition("#")[0])
                if found is None or "pip install" in line:
                    continue
                words = [w for w in re.split(r"\s+", found[2].strip()) if w]
                command = words[:1] if words and re.fullmatch("[a-z]+", words[0]) else []
                command = words[:2] if command == ["exact"] else command
                key = (found[1], *command)
                if key not in help_texts:
                    app = importlib.import_module(f"{found[1]}.__main__").app
                    help_texts[key] = CliRunner().invoke(
                        app, [*command, "--help"], terminal_width=200, env={"COLUMNS": "200"}
                    )
                shown = help_texts[key]
                assert shown.exit_code == 0, (page, line)
                for option in [w for w in words if w.startswith("--")]:
                    assert option in shown.stdout, (page, line, option)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in [*PAGES, "../README.md"]:
        for target in re.findall(r"^make ([\w-]+)", text_of(page), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)


# Equations and symbols


def anchors(text):
    return re.findall(r"\{ #((?:eq|alg):[\w-]+) \}|id=\"((?:eq|alg):[\w-]+)\"", text)


def test_every_equation_has_its_place_and_its_code_on_the_page():
    text = text_of("algorithm.md")
    placed = [first or second for first, second in anchors(text)]
    assert sorted(placed) == sorted(EQUATIONS)
    shown = re.findall(r"\{\{ (?:code|listing) ((?:eq|alg):[\w-]+) \}\}", text)
    assert sorted(shown) == sorted(EQUATIONS)
    stated = re.findall(r"\{\{ statement ((?:eq|alg):[\w-]+) \}\}", text)
    assert set(stated) >= {e for e, equation in EQUATIONS.items() if "Eq." in equation.number}


def test_equations_come_in_the_papers_order():
    text = text_of("algorithm.md")
    numbers_shown = [int(n) for n in re.findall(r"^### Eq\. (\d)", text, re.MULTILINE)]
    assert numbers_shown == list(range(1, 9))


def test_every_equation_of_the_page_links_its_live_state():
    linked = re.findall(r"\{\{ state ((?:eq|alg):[\w-]+) \}\}", text_of("algorithm.md"))
    assert sorted(linked) == sorted(EQUATIONS)


def test_the_playground_stands_where_its_symbols_are_known():
    text = text_of("algorithm.md")
    place = text.index('class="interactive playground"')
    assert text.index("#eq:guidance-step }") < place < text.index("#alg:generate }")


PARTS = (SamplingConfig, GuidanceConfig, Template, KeyedDraws, Denoiser, Reward, BoundReward)


def test_all_that_generate_calls_is_shown_or_linked():
    """But the checks, which compute nothing, and what torch and Python have."""
    calls = [
        call.func
        for call in ast.walk(ast.parse(sources.of("alg:generate").text))
        if isinstance(call, ast.Call)
    ]
    names = {f.id for f in calls if isinstance(f, ast.Name)}
    ours = (names & vars(denoising).keys()) - {"equation"}
    ours |= {
        f.attr
        for f in calls
        if isinstance(f, ast.Attribute) and any(hasattr(part, f.attr) for part in PARTS)
    }
    assert {"how_many", "predict", "_scored", "guided_steps", "at"} <= ours
    text = text_of("algorithm.md")
    shown = {
        IMPLEMENTATIONS.get(target, target).split(":")[-1].split(".")[-1]
        for target in re.findall(r"\{\{ (?:code|listing|fold) (\S+) ", text)
    }
    told = text[text.index("**What it calls.**") :].partition("\n\n")[0]
    shown |= set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", told))))
    assert ours - shown == set()


def test_no_two_equations_carry_the_same_number():
    tags = re.findall(r"\\tag\{(.*?)\}", "".join(map(hooks.statement, EQUATIONS)))
    assert {"1", "4a", "4b", "7", "8a", "8b"} <= set(tags)
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("identifier", sorted(IMPLEMENTATIONS))
def test_code_is_read_from_the_source(identifier):
    source = sources.of(identifier)
    lines = (ROOT / source.file).read_text(encoding="utf-8").splitlines()
    assert lines[source.line - 1].strip() == f'@equation("{identifier}")'
    shown = source.code.splitlines()
    assert shown[0].strip() == lines[source.first_line - 1].strip()
    assert '"""' not in source.code
    assert [line for line in shown if line not in "\n".join(lines)] == []


def test_lines_of_the_stepper_are_found_once():
    assert len(sources.lines_of("alg:generate", *(s for _, s in hooks.TRACE_LINES))) == 4
    with pytest.raises(KeyError, match="begins 0 lines"):
        sources.lines_of("alg:generate", "no such line")


@pytest.mark.parametrize("symbol", symbols.SYMBOLS, ids=lambda s: s.name)
def test_symbols_are_those_of_the_signatures(symbol):
    assert symbol.signatures
    for place in symbol.signatures:
        assert annotated(place)[symbol.name] == symbol.shape, place


def annotated(place):
    """Name -> shape of the parameters of a function, or of the fields of a class, in the source."""
    owner, _, field = place.partition(":")[2].partition(".")
    (node,) = ast.parse(sources.of(f"{place.partition(':')[0]}:{owner}").text).body
    if field:
        found = {n.target.id: n.annotation for n in node.body if isinstance(n, ast.AnnAssign)}
    else:
        found = {a.arg: a.annotation for a in (*node.args.args, *node.args.kwonlyargs)}
    shapes = {name: re.search(r"Tensor, '([^']+)'", ast.unparse(a)) for name, a in found.items()}
    return {name: shape[1] if shape else "" for name, shape in shapes.items()}


def test_letters_are_those_of_the_core():
    assert f"{LETTERS}".count("\n    P  prompts\n") == 1
    for letter, meaning in symbols.LETTERS.items():
        assert re.search(rf"^    {letter}  {re.escape(meaning)}$", LETTERS, re.MULTILINE), letter


def test_hover_texts_reach_identifiers_only():
    page = hooks.hovered("<p><code>weight</code> <code>weights</code> <b>weight</b></p>")
    assert page.count("title=") == 1
    assert '<code title="w [n]: The weight of the hard embedding.' in page


# Numbers


@pytest.mark.parametrize("page", sorted(facts.listed()))
def test_every_number_of_the_text_has_a_source(page):
    """A number that was edited, or is new: `python docs/building/facts.py` lists it."""
    listed = facts.listed()[page]
    assert facts.pages()[page] == [number for number, _ in listed]
    for number, source in listed:
        assert source not in ("", "?"), number
        if source.startswith("="):
            digits = len(number.partition(".")[2]) if "e" not in number else 12
            value = facts.computed(source)
            assert round(value, digits) == pytest.approx(facts.as_number(number)), source
        for file, function in re.findall(r"(test_\w+\.py)(?:::(\w+))?", source):
            tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert not function or f"def {function}(" in tests, source


def test_all_pages_with_numbers_are_listed():
    assert set(facts.pages()) == set(facts.listed())


def test_macros_take_numbers_from_the_records():
    text = hooks.expand("{{ estimate spread rows.entrgi.average 2 sign }} {{ value demo prompts }}")
    expected = records.estimate("spread", "rows.entrgi.average").text(2, sign=True)
    assert text == f"{expected} 64"
    rows = records.read("spread")["rows"]
    pairs = zip(rows["entrgi"]["top1"], rows["aps"]["top1"], strict=True)
    each = [a - b for a, b in pairs]
    for part, value in (("least", min(each)), ("most", max(each))):
        text = hooks.expand(f"{{{{ difference spread entrgi aps top1 {part} }}}}")
        assert text == f"{value:+.2f}".replace("-", "−")
    with pytest.raises(KeyError):
        hooks.expand("{{ value demo nothing }}")
    with pytest.raises(KeyError, match="no macro"):
        hooks.expand("{{ nothing here }}")


@pytest.mark.parametrize("page", PAGES)
def test_macros_of_every_page_work(page):
    expanded = hooks.expand(text_of(page))
    assert "{{" not in expanded
    assert "?" not in re.findall(r"\[\?\]", expanded)


def test_the_main_table_is_what_was_published():
    rows = [
        [cell.strip() for cell in r.strip("|").split("|")] for r in hooks.published().split("\n")
    ]
    found = {(benchmark, method): known for benchmark, method, known, _ in rows[2:]}
    assert {measured for *_, measured in rows[2:]} == {"not measured"}
    expected = {
        (benchmark, label): "not in the paper" if method in numbers.OURS else "not available"
        for benchmark in HUB
        for method, label in numbers.LABELS.items()
        if method in numbers.METHODS
    }
    for (benchmark, method), number in TOP1.items():
        expected[benchmark, numbers.LABELS[method]] = f"{number:.2f}"
    assert found == expected
    assert set(numbers.OURS) == {"bon_equal_compute", *numbers.RIVALS}


@pytest.mark.skipif("not as_pinned('matplotlib')", reason="another version draws otherwise")
def test_the_pictures_of_the_readme_are_the_records(tmp_path):
    from toy import figures as toy_figures

    paths = tmp_path / "light.svg", tmp_path / "dark.svg"
    toy_figures.draw_demo(records.rows("demo"), records.read("demo")["errors_by_step"], *paths)
    for path, name in zip(paths, ("demo.svg", "demo-dark.svg"), strict=True):
        assert path.read_text() == (DOCS / "assets" / name).read_text(), name


def test_pictures_say_what_they_show_and_fail_loudly(monkeypatch):
    for name, drawing in figures.DRAWN.items():
        assert len(drawing.alt) > 40, name
    used = {
        name for page in PAGES for name in re.findall(r"\{\{ figure ([\w-]+) \}\}", text_of(page))
    }
    assert used == set(figures.DRAWN)
    with pytest.raises(ZeroDivisionError):
        figures.Drawing("words", "caption", (), lambda palette: 1 / 0).draw()


def test_captions_name_the_records_that_pictures_are_drawn_from(monkeypatch):
    read, found = records.read, set()
    monkeypatch.setattr(records, "read", lambda name: found.add(name) or read(name))
    for name in figures.DRAWN.keys() - {"climb", "misread"}:  # those run networks
        found.clear()
        figures.DRAWN[name].paint(figures.PALETTES["light"])
        assert found == set(figures.DRAWN[name].recorded), name
        for record in found if "3 seeds" in figures.DRAWN[name].caption else ():
            assert len(read(record)["seeds"]) == 3, name


def test_what_is_said_of_constant_weights_and_of_the_best_answer():
    """On the pages of the dial and of the toy, from the records."""
    gold = {
        (row["w"], row["M"]): row["measures"].get("gold_mean")
        for row in records.read("dial")["rows"]
    }
    for M in (1, 2, 3, 4, 6, 8):
        constant, entropy = gold[0.6, M], gold["entropy", M]
        assert entropy["mean"] < constant["mean"], M
        assert constant["low"] < entropy["high"], M
    assert {M for w, M in gold if w == 0.6} == {1, 2, 3, 4, 6, 8}
    assert gold[1.0, 8]["mean"] > gold[0.4, 8]["mean"] > gold[0.0, 8]["mean"]
    for method in ("expectation", "aps", "entrgi"):
        best = records.estimate("spread", f"rows.{method}.gold_best")
        assert best.mean < 0 < best.high, method
        assert max(records.value("spread-m8", f"rows.{method}.gold_mean")) < 0, method
    bias = {name: row["bias"]["mean"] for name, row in records.read("gradients")["rows"].items()}
    assert sorted(bias, key=bias.get) == ["aps", "w = 0.5", "entrgi", "expectation"]


def test_what_is_said_of_constant_weights_over_pairs():
    """On the toy's page and in the README: these five pairs tell another story than the others."""
    for other in ("w = 0.6", "w = EntRGi's mean"):
        assert records.told_apart("constants", "entrgi", other) == "cannot tell"
        for measure in ("gold_mean", "average"):
            found = records.difference("constants", "entrgi", other, measure)
            assert min(found) < 0 < max(found), (other, measure)
    here, there = (records.read(name)["rows"]["entrgi"] for name in ("constants", "spread"))
    assert sum(value > 0 for value in here["gold_mean"]) == 2
    assert min(there["gold_mean"]) > 0
    text = records.estimate("constants", "rows.entrgi.gold_mean").text(2, sign=True)
    assert f"it does not: {text}," in " ".join((ROOT / "README.md").read_text().split())


def test_what_is_said_of_bias_on_wide_languages():
    """On the page of the gradient, from its record."""
    found = records.value("exact-gradient", "rows.wide.rewards.base.estimators")
    entrgi = found["entrgi"]["bias"]["mean"]
    constants = [f"w = {eighth / 8:g}" for eighth in range(9)]
    assert [name for name in constants if found[name]["bias"]["mean"] < entrgi] == constants[2:]
    for other in ("w = 0", "matched"):
        assert entrgi < found[other]["bias"]["mean"], other
        assert found["entrgi"]["deviation"]["mean"] > found[other]["deviation"]["mean"], other
    for cosine in ("cosine_of_mean", "cosine_of_one"):
        weights = {name: found[name][cosine]["mean"] for name in (*constants, "entrgi", "matched")}
        assert min(weights, key=weights.get) == "w = 1"


def test_what_is_said_of_readings_with_the_wrong_shift():
    """On the page of models and in its picture, from the recordings."""
    found = recordings.readings()
    assert {name for name, each in found.items() if each.shifted} == {
        "dream-tiny",
        "open-dcoder-tiny",
    }
    assert max(each.right for each in found.values()) < 2e-5 < recordings.TOLERANCE
    wrong = [each.wrong for each in found.values()]
    assert (round(min(wrong), 1), round(max(wrong), 1)) == (5.0, 7.4)
    for name, decode in recordings.decodes().items():
        assert decode.right == decode.recorded, name
        assert decode.wrong[0] != decode.recorded[0], name


def test_the_trace_on_the_site_is_the_packages():
    made = hooks.generated()
    for kind in ("js", "css"):
        source = ROOT / "entrgi_ref" / "watching" / f"page.{kind}"
        assert made[f"assets/trace/trace.{kind}"] == source.read_text(encoding="utf-8")
    assert '"label":"predict"' in made["assets/data/trajectory.js"]


def test_nothing_is_asked_of_a_server():
    """No fonts, no analytics, no repository whose stars are counted."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["theme"]["font"] is False
    assert not {"repo_url", "extra", "google_analytics"} & set(config)
    assert set(map(str, config["plugins"][:1])) == {"search"}
    for file in [*(DOCS / "assets").rglob("*.css"), *(DOCS / "assets" / "js").rglob("*.js")]:
        found = re.sub(r"http://www\.w3\.org/\S+", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"https?://", found), file


def test_the_site_is_published_by_a_workflow():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert any("make docs" in step.get("run", "") for step in steps)
    assert any("deploy-pages" in step.get("uses", "") for step in steps)
    assert Path(ROOT / "mkdocs.yml").is_file()
