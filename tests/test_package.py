"""What the package costs to import, what it ships, and rules that hold in all its sources."""

import ast
import itertools
import pkgutil
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
import typer

from entrgi_ref.commands import answer, options
from entrgi_ref.paper import __main__ as paper
from toy import __main__ as toy

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "entrgi_ref").rglob("*.py"), *(ROOT / "toy").rglob("*.py")])


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_the_package_loads_torch_and_nothing_heavy():
    modules = set(python("import entrgi_ref, sys; print(*sys.modules)").split())
    assert "torch" in modules
    assert not modules & {
        *("transformers", "datasets", "matplotlib", "tokenizers", "accelerate", "toy"),
        *("typer", "rich", "pandas", "scipy", "hypothesis", "beartype"),
    }


COMMANDS = (
    *("entrgi_ref", "entrgi_ref.paper"),
    *(
        f"entrgi_ref.paper {c}"
        for c in ("list", "plan", "run", "judge", "report", "browse", "export")
    ),
    *("toy", "toy watch", "toy train", "toy spread", "toy gradients", "toy ledger", "toy run"),
    *("toy exact gradient", "toy exact distribution", "toy rivals"),
)
TIMED = """
import contextlib, io, itertools, os, runpy, sys, time
before = time.process_time()
import torch
allowed = max(0.5, 0.4 * (time.process_time() - before))  # on a slow machine

def seconds(command):
    start = time.process_time()
    module, *_ = sys.argv = [*command.split(), "--help"]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        assert not end.code
    return time.process_time() - start

for module, commands in itertools.groupby({commands!r}, lambda command: command.split()[0]):
    if os.fork():  # a process that has torch and nothing else
        assert os.wait()[1] == 0, module
        continue
    of_all = seconds(module)  # what any of its commands loads
    for command in commands:
        if os.fork():  # and what is this command's own
            assert os.wait()[1] == 0, command
            continue
        if of_all + (command != module) * seconds(command) > allowed:
            print(command, flush=True)
        os._exit(0)
    os._exit(0)
"""


@pytest.mark.slow
def test_help_costs_no_more_than_importing_torch_and_half_a_second():
    """The processor's time after torch is imported: others may keep the processor busy."""
    slow = COMMANDS
    for _ in range(3):
        slow = python(TIMED.format(commands=slow)).splitlines()
        if not slow:
            return
    pytest.fail(f"slow each time: {slow}")


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, also those of functions, by their full names."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{name.name}" for name in node.names} | {module}
    return found


MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
CORE = (
    *("checks", "equations", "protocols", "relaxation", "draws", "orders", "schedule", "errors"),
    *("guidance", "config", "parts", "denoising"),
)
"""The root of the package, each file above those that it may import."""
ROOMS = (
    *("entrgi_ref.checks", "entrgi_ref.equations", "entrgi_ref.fast"),
    *(f"entrgi_ref.{name}" for name in CORE[2:]),
    *("entrgi_ref.models", "entrgi_ref.rivals", "entrgi_ref.watching", "entrgi_ref.commands"),
    *(f"entrgi_ref.paper.{room}" for room in ("declared", "run", "judged", "shown", "measured")),
    *("entrgi_ref.paper", "entrgi_ref.__main__", "toy"),
)
"""Every room above those that it may import, as CONTRIBUTING.md draws them."""


def room_of(module: str) -> str:
    """The most particular room of a module."""
    names = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(names, key=len, default=module)


def arrows():
    """(Module, module that it imports), of our own; a package stands for its `__init__`."""
    for name, path in MODULES.items():
        for imported in imports(path):
            for module in (imported, f"{imported}.__init__"):
                if module in MODULES and module != name:
                    yield name, module


def test_every_module_is_in_a_room():
    for module in MODULES:
        assert room_of(module) in ROOMS or module == "entrgi_ref.__init__", module


def test_arrows_point_one_way():
    """No room imports one that is above it, and the package does not know the toy."""
    for importing, imported in arrows():
        if imported == "entrgi_ref.__init__" or importing == "entrgi_ref.__init__":
            continue  # the public names, of the core alone
        assert ROOMS.index(room_of(importing)) >= ROOMS.index(room_of(imported)), (
            f"{importing} imports {imported}"
        )
    public = {imported for name, imported in arrows() if name == "entrgi_ref.__init__"}
    assert {room_of(imported) for imported in public} <= {f"entrgi_ref.{name}" for name in CORE}


def test_the_core_needs_torch_alone():
    for name in CORE:
        for imported in imports(ROOT / "entrgi_ref" / f"{name}.py"):
            top = imported.split(".")[0]
            known = {"torch", "jaxtyping", "entrgi_ref"} | sys.stdlib_module_names
            assert top in known, (name, imported)
    relaxation = {name for name in arrows() if name[0] == "entrgi_ref.relaxation"}
    assert {imported for _, imported in relaxation} - {"entrgi_ref.__init__"} == {
        "entrgi_ref.checks",
        "entrgi_ref.equations",
        "entrgi_ref.fast.rows",
    }


def test_contributing_draws_the_same_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = [part.split(", ") for part in re.search(r"`(paper → .*?)`", text)[1].split(" → ")]
    place = {room.removeprefix("entrgi_ref."): i for i, room in enumerate(ROOMS)}
    for above, below in itertools.pairwise(drawn):
        assert min(place[room] for room in above) > max(place[room] for room in below)
    named = {room for part in drawn for room in part}
    assert named >= set(CORE) - {"protocols"}


def test_no_modules_import_each_other_in_a_circle():
    below: dict[str, set[str]] = {}
    for importing, imported in arrows():
        if not imported.endswith("__init__"):
            below.setdefault(importing, set()).add(imported)

    def reach(module, seen):
        for other in below.get(module, ()):
            if other not in seen:
                seen.add(other)
                reach(other, seen)
        return seen

    for module in below:
        assert module not in reach(module, set()), module


def test_transformers_is_imported_by_models_alone():
    for module, path in MODULES.items():
        if any(name.split(".")[0] == "transformers" for name in imports(path)):
            assert room_of(module) in (
                "entrgi_ref.models",
                "entrgi_ref.paper.judged",
                "entrgi_ref.paper.measured",
            ), module


def test_the_root_is_the_paper():
    """A stranger who opens the folder sees the method and its helpers, and nothing else."""
    root = ROOT / "entrgi_ref"
    files = {path.stem for path in root.glob("*.py")} - {"__init__", "__main__"}
    assert files == set(CORE)
    assert len(files) <= 12
    others = {path.name for path in root.iterdir() if path.is_file() and path.suffix != ".py"}
    assert others == {"py.typed"}


def test_nothing_loads_remote_code_or_unpickles():
    """By what the sources say: a docstring may speak of pickles."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                if node.arg == "trust_remote_code":  # it is named to refuse it alone
                    assert ast.unparse(node.value) == "False", path
            elif isinstance(node, ast.Constant):
                assert node.value != "trust_remote_code", path
            elif isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in FORBIDDEN_CALLS, (path, ast.unparse(node))
        modules = {name.partition(".")[0] for name in imports(path)}
        assert not modules & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, path


FORBIDDEN_CALLS = {
    "torch.load",
    "torch.hub.load",
    "load_state_dict_from_url",
    "eval",
    "exec",
    "__import__",
}


def test_no_loops_over_rows_and_no_reads_from_the_device_in_the_inner_loops():
    """In the loops themselves, and in what they call."""
    files = {
        "relaxation.py": None,
        "guidance.py": None,
        "denoising.py": ["generate", "predict", "draw_candidates"],
        "errors.py": None,
        "schedule.py": ["how_many", "floor_share"],
        "orders.py": None,
        "draws.py": None,
    }
    for name, functions in files.items():
        for node in ast.walk(ast.parse((ROOT / "entrgi_ref" / name).read_text())):
            if not isinstance(node, ast.FunctionDef) or (functions and node.name not in functions):
                continue
            loops = [n for n in ast.walk(node) if isinstance(n, ast.For | ast.While)]
            assert len(loops) == (node.name in ("guide", "generate")), node.name
            source = ast.unparse(loops[0] if loops else node)
            assert not re.search(r"\.item\(|\.tolist\(|\.cpu\(|\.numpy\(", source), node.name


def test_the_core_can_be_read_in_one_sitting():
    lines = {
        name: len((ROOT / "entrgi_ref" / f"{name}.py").read_text().splitlines())
        for name in ("relaxation", "guidance", "denoising", "errors")
    }
    assert sum(lines.values()) <= 600, lines


def test_constraints_pin_every_dependency():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in itertools.chain(
        project["dependencies"], *project["optional-dependencies"].values()
    ):
        name = re.match(r"[A-Za-z0-9-]+", requirement)[0].lower()
        assert name in pins, f"{name} is not pinned"


def test_every_declared_python_is_tested():
    """By a session of noxfile.py on the pinned versions, and no other is declared."""
    sessions = {
        node.name: ast.literal_eval(node.decorator_list[0].keywords[0].value)
        for node in ast.parse((ROOT / "noxfile.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = "".join(project["classifiers"])
    assert sessions["pinned"] == re.findall(r"Python :: (3\.\d+)", pythons)
    first, last = sessions["pinned"][0], sessions["pinned"][-1]
    after = f"3.{int(last.removeprefix('3.')) + 1}"
    assert project["requires-python"] == f">={first},<{after}"
    assert sessions["oldest"] == first
    assert sessions["newest"] == [first, last]


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    assert hatch["wheel"]["packages"] == ["entrgi_ref"]


def test_no_file_names_a_place_on_one_machine():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".html", ".json", "") and path.is_file():
            text = path.read_text(errors="ignore")
            assert not re.search(r"(?<![\w.])/(work|root|home|tmp)/", text), name


def test_the_number_of_examples_follows_the_profile():
    found = {p.name for p in (ROOT / "tests").glob("*.py") if "max_examples=" in p.read_text()}
    assert found == {"properties.py", Path(__file__).name}


@pytest.mark.xdist_group("quick")
def test_tests_of_a_group_go_to_one_worker(request):
    """Where pytest and pytest-xdist do not fit, what a group makes once is made twice."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not shared by workers")
    assert request.node.nodeid.endswith("@quick")


@pytest.mark.parametrize(
    ("script", "shown"),
    [("entrgi", "Answer prompts"), ("entrgi-paper", "The paper's experiments")],
)
def test_the_commands_have_names_of_their_own(script, shown, monkeypatch, capsys):
    """What the installer makes of them is a file of that name, which calls the function."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"entrgi", "entrgi-paper"}
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{script}", "--help"])
    # As in a script: under `python -m pytest` click would take the name of pytest's.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    with pytest.raises(SystemExit) as end:
        pkgutil.resolve_name(scripts[script])()
    assert not end.value.code
    help_text = capsys.readouterr().out
    assert f"Usage: {script} " in help_text
    assert shown in help_text


def options_with_paths(app):
    """The options of a command line, as they are typed, that take a file or a folder."""
    apps = [app, *(group.typer_instance for group in app.registered_groups)]
    found = [command for each in apps for command in each.registered_commands]
    found += [each.registered_callback for each in apps if each.registered_callback]
    for callback in (command.callback for command in found):
        names = vars(sys.modules[callback.__module__])
        for name, kind in typing.get_type_hints(callback, names, include_extras=True).items():
            for info in getattr(kind, "__metadata__", ()):
                if isinstance(info, typer.models.OptionInfo) and "Path" in str(kind.__origin__):
                    words = (str(word) for word in (info.default, *(info.param_decls or ())))
                    named = [word for word in words if word.startswith("--")]
                    yield from named or [f"--{name.replace('_', '-')}"]


def test_an_empty_path_is_refused_in_one_line(monkeypatch, capsys):
    """It is not the current folder, which it would be for Python."""
    apps = (answer.app, paper.app, toy.app)
    assert {option for app in apps for option in options_with_paths(app)} == set(options.PATHS)
    for main, words in (
        (toy.main, ["--quick", "--out", ""]),
        (toy.main, ["dial", "--out="]),
        (paper.main, ["report", "run", "--to", ""]),
    ):
        monkeypatch.setattr(sys, "argv", ["command", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        name = next(word for word in words if word in ("--out", "--out=", "--to")).strip("-=")
        expected = f"error: {name}: got '', expected a path (. is the current folder)\n"
        assert capsys.readouterr().err == expected
