"""Tables in LaTeX: whatever stands in a cell is printed as it is, by pdflatex with its own fonts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "*": r"\textasteriskcentered{}",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "×": r"$\times$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    # At the start of a line of a table, a bracket would be an argument of the line before.
    "[": "{[}",
    "]": "{]}",
}


def tabular(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: str,
    bold: Collection[tuple[int, int]] = (),
    rules: Collection[int] = (),
) -> list[str]:
    """Lines of a tabular with booktabs' rules.

    Args:
        header, rows: cells as plain text.
        columns: one letter a column, "l" or "r".
        bold: places (row, column).
        rules: rows with a line above them.
    """
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _row(header), r"\midrule"]
    for number, row in enumerate(rows):
        if number in rules:
            lines.append(r"\midrule")
        lines.append(_row(row, {column for line, column in bold if line == number}))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _row(cells: Sequence[str], bold: Collection[int] = ()) -> str:
    texts = [latex_escaped(cell) for cell in cells]
    return " & ".join(rf"\textbf{{{text}}}" if n in bold else text for n, text in enumerate(texts)) + r" \\"


def latex_escaped(text: str) -> str:
    """Text that LaTeX prints as it is; letters that pdflatex has no sign for become their code point."""
    return "".join(_ESCAPES.get(letter) or _letter(letter) for letter in one_line(text))


def _letter(letter: str) -> str:
    # Latin letters with accents come with the T1 encoding.
    return letter if ord(letter) < 0x180 else rf"\texttt{{U+{ord(letter):04X}}}"


def one_line(text: str) -> str:
    """Without line ends and other control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
