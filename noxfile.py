"""Every combination of Python and libraries that is declared in pyproject.toml: `make test-matrix`.

This is the only list of them: .github/workflows/tests.yml runs the same sessions, one a job. A
session whose Python is not on the machine is skipped, by name. What follows `--` goes to pytest:
`nox -s pinned-3.12 -- tests/test_parity.py`. The environments lie in .venv-matrix/.
"""

import nox

PINNED = ("--constraint", "constraints.txt")

nox.needs_version = ">=2025.10"
nox.options.default_venv_backend = "uv"  # pip cannot ask for the oldest versions
nox.options.download_python = "never"
nox.options.envdir = ".venv-matrix"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


def run_tests(session: nox.Session, *versions: str) -> None:
    """Installs the package with its tests' libraries in the versions that are asked for."""
    session.install(*versions, "--upgrade", "--editable", ".[dev]")
    session.run("pytest", "-n", "2", "--dist", "loadgroup", *(session.posargs or NO_BROWSER))


NO_BROWSER = [f"--ignore=tests/test_{name}.py" for name in ("browse", "live", "site")]


@nox.session(python=["3.11", "3.12", "3.13"])
def pinned(session: nox.Session) -> None:
    """The versions of constraints.txt."""
    run_tests(session, *PINNED)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The lower bounds of pyproject.toml, and the newest of what they need in turn."""
    run_tests(session, "--resolution", "lowest-direct")


@nox.session(python=["3.11", "3.13"])
def newest(session: nox.Session) -> None:
    """The newest that pyproject.toml admits."""
    run_tests(session)
