"""Chromium, for the tests of pages. Without it, or without playwright, they are skipped."""

import os
import shutil
from pathlib import Path

import pytest

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
LAYOUT = (Path(__file__).parent / "layout.js").read_text(encoding="utf-8")
SAME_IDS = """
    () => {
        const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
        return ids.filter((id, i) => ids.indexOf(id) !== i);
    }
"""
browsing = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    """A running one. Each test opens pages of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with playwright.sync_playwright() as p:
        running = p.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--headless=new"]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def axe():
    """The script that looks for what keeps people out."""
    axe_playwright = pytest.importorskip("axe_playwright_python", reason="no axe")
    (script,) = Path(axe_playwright.__file__).parent.rglob("axe.min.js")
    return script.read_text(encoding="utf-8")


def unseen(page):
    """What a reader cannot see of an open page: what is cut, covered, or too wide."""
    return page.evaluate(LAYOUT)


def same_ids(page):
    """Ids that several elements have, scripts' elements too."""
    return page.evaluate(SAME_IDS)
