"""Answer one prompt by Dream, guided by a reward model: `python -m entrgi_ref PROMPT ...`."""

from __future__ import annotations

from .commands.answer import app
from .commands.options import run_app


def main() -> None:
    """Run the command line; what goes wrong is one line, not a traceback."""
    run_app(app)


if __name__ == "__main__":
    main()
