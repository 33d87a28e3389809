"""Every combination of Python and libraries that is declared in pyproject.toml: `make test-matrix`.

This is the only list of them: .github/workflows/tests.yml runs the same sessions, one a job. A
session whose Python is not on the machine is skipped, by name. What follows `--` goes to pytest:
`nox -s pinned-3.12 -- tests/test_parity.py`. The environments lie in .venv-matrix/.
"""

import nox

LOWEST = ("--upgrade", "--resolution", "lowest-direct", "--requirements", "pyproject.toml")

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv"  # pip cannot ask for the oldest versions
nox.options.download_python = "never"
nox.options.envdir = ".venv-matrix"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


ALL = ["-n", "2", "--dist", "loadgroup"]
ALL += [f"--ignore=tests/test_{name}.py" for name in ("browse", "live", "site")]


def run_tests(session: nox.Session) -> None:
    """All, or what is asked for. The GPU's kernels by an interpreter, where there is a Triton."""
    session.run("pytest", *(session.posargs or ALL))
    if not session.posargs:
        kernels, none = {"TRITON_INTERPRET": "1"}, 5
        session.run("pytest", "tests/test_fast_kernel.py", env=kernels, success_codes=[0, none])


@nox.session(python=["3.11", "3.12", "3.13"])
def pinned(session: nox.Session) -> None:
    """All tests on the versions of constraints.txt."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]")
    run_tests(session)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """All tests on the lower bounds of pyproject.toml, and the newest of what those ask for."""
    session.install(*LOWEST, "--extra", "dev")
    session.run("uv", "pip", "uninstall", "torchao")  # it needs a newer torch, as `quantize` says
    session.install("--no-deps", "--editable", ".")
    run_tests(session)


@nox.session(python="3.11")
def oldest_quantize(session: nox.Session) -> None:
    """Tests of rounded weights on the lower bounds of the extra `quantize`."""
    session.install(*LOWEST, "--extra", "dev", "--extra", "quantize")
    session.install("--no-deps", "--editable", ".")
    session.run("pytest", *(session.posargs or ["tests/test_loading.py", "tests/test_answer.py"]))


@nox.session(python=["3.11", "3.13"])
def newest(session: nox.Session) -> None:
    """All tests on the newest versions that pyproject.toml admits."""
    session.install("--upgrade", "--editable", ".[dev]")
    run_tests(session)
