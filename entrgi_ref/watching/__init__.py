"""A denoising trajectory to look at: as one self-contained web page, and live in the terminal.

    recorder.py   an observer of `generate` that keeps what is shown
    page.py       the page, made of page.html, page.css and page.js
    terminal.py   an observer that prints
    words.py      tokens as words, and text that a terminal may be given

The algorithm knows nothing of them.
"""

from .page import trace_page, trace_pages
from .recorder import Recorder
from .terminal import TerminalView, weight_colour
from .words import printable, words

__all__ = [
    "Recorder",
    "TerminalView",
    "printable",
    "trace_page",
    "trace_pages",
    "weight_colour",
    "words",
]
