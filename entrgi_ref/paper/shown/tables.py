"""Tables of text, in Markdown and in LaTeX, and figures in LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

from ...watching import printable


@dataclass(frozen=True)
class Table:
    """A table of text: its title, its heads, its rows. The first `words` columns are words."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 2

    def markdown(self) -> str:
        """As a pipe table, padded so that it can be read as plain text too."""
        columns = [
            [in_markdown(cell).replace("|", "\\|") for cell in column]
            for column in zip(self.heads, *self.rows, strict=True)
        ]
        widths = [max(3, *map(len, column)) for column in columns]
        rule = [
            "-" * width if i < self.words else "-" * (width - 1) + ":"
            for i, width in enumerate(widths)
        ]
        heads, *rows = zip(*columns, strict=True)
        lines = [
            " | ".join(
                cell.ljust(width) if i < self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (heads, rule, *rows)
        ]
        return f"**{in_markdown(self.title)}**\n\n" + "\n".join(f"| {line} |" for line in lines)

    def latex(self, note: str) -> str:
        """As a `table` for the package booktabs, with a note below."""
        align = "l" * self.words + "r" * (len(self.heads) - self.words)
        rows = [_tex_row(row) for row in (self.heads, *self.rows)]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{_tex(self.title)}}}",
                rf"\begin{{tabular}}{{{align}}}",
                r"\toprule",
                rows[0],
                r"\midrule",
                *rows[1:],
                r"\bottomrule",
                r"\end{tabular}",
                rf"\par\smallskip\footnotesize {_tex(note)}",
                r"\end{table}",
            ]
        )


def latex_figure(name: str, caption: str) -> str:
    """The figure in the file `name`.pdf, for the package graphicx."""
    return "\n".join(
        [
            r"\begin{figure}",
            r"\centering",
            rf"\includegraphics[width=\columnwidth]{{{name}.pdf}}",
            rf"\caption{{{_tex(caption)}}}",
            r"\end{figure}",
        ]
    )


def in_markdown(text: str) -> str:
    """`text` in one line, with nothing that would be a tag, a link or a picture, nor a command to a
    terminal.
    """
    return printable(text).replace("<", "&lt;").replace("](", "]&#40;")


def _tex_row(cells: tuple[str, ...]) -> str:
    row = " & ".join(map(_tex, cells)) + r" \\"
    # The end of the row above would take these for its own options.
    return f"{{{row[0]}}}{row[1:]}" if row[0] in "[*" else row


def _tex(text: str) -> str:
    return "".join(TEX.get(sign, sign) for sign in printable(text))


TEX = {sign: f"\\{sign}" for sign in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "η": r"$\eta$",
    "τ": r"$\tau$",
}
"""Characters that mean something to LaTeX, or that it lacks."""
