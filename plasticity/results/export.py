"""Export of tables as CSV and LaTeX."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

MISSING = "--"
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def csv_text(table: pd.DataFrame) -> str:
    """Format the table as CSV: full precision, empty fields for missing values, lines ending with a line feed."""
    return str(table.to_csv(index=False, lineterminator="\n"))


def latex_text(
    table: pd.DataFrame,
    *,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    digits: int = 3,
    caption: str = "",
    label: str = "",
) -> str:
    r"""Format the table as a LaTeX ``tabular`` with rules from the package booktabs.

    A column ``x`` with its bounds ``x_low`` and ``x_high`` becomes one column: ``0.512 [0.480, 0.547]``. Missing
    bounds are omitted. Names and texts are escaped; integers are exact; missing values are ``--``.

    Args:
      table: any table of this package.
      columns: the columns to show, in this order, or a mapping from column to heading. Headings are inserted
        verbatim, so they may contain LaTeX. None: all columns except bounds.
      digits: significant digits of non-integers, at least 1.
      caption: inserted verbatim. If this or ``label`` is given, the ``tabular`` is wrapped in a ``table``.
      label: for ``\ref``.

    Raises:
      ValueError: a column that the table does not have; ``digits`` below 1.
    """
    if digits < 1:
        raise ValueError(f"digits: {digits} is not allowed; must be at least 1")
    names = [str(name) for name in table]
    ends = {f"{name}{end}" for name in names for end in ("_low", "_high") if _has_bounds(table, name)}
    shown = [name for name in names if name not in ends] if columns is None else list(columns)
    absent = [name for name in shown if name not in names]
    if absent:
        raise ValueError(f"the table has no column {', '.join(absent)}; its columns: {', '.join(names)}")
    headings = [columns[name] if isinstance(columns, Mapping) else _escaped(name) for name in shown]
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in shown]
    lines = [r"\toprule", _line(headings), r"\midrule"]
    lines += [_line([_cell(row, name, digits) for name in shown]) for row in table.to_dict("records")]
    layout = "".join("r" if each else "l" for each in numeric)
    body = [rf"\begin{{tabular}}{{{layout}}}", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(_framed(body, caption, label)) + "\n"


def _framed(body: list[str], caption: str, label: str) -> list[str]:
    if not (caption or label):
        return body
    about = [rf"\caption{{{caption}}}"] * bool(caption) + [rf"\label{{{label}}}"] * bool(label)
    return [r"\begin{table}", r"\centering", *about, *body, r"\end{table}"]


def _has_bounds(table: pd.DataFrame, name: str) -> bool:
    return f"{name}_low" in table and f"{name}_high" in table


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)


def _cell(row: Mapping[Any, Any], name: str, digits: int) -> str:
    value = row[name]
    if pd.isna(value):
        return MISSING
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    text = _text(value, digits)
    return text if pd.isna(low) or pd.isna(high) else f"{text} [{_text(low, digits)}, {_text(high, digits)}]"


def _text(value: Any, digits: int) -> str:
    if not isinstance(value, float):
        return _escaped(str(value))
    if not math.isfinite(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    power = math.floor(math.log10(abs(value))) if value else 0
    if not -4 <= power < 7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return rf"${mantissa} \cdot 10^{{{int(exponent)}}}$"
    text = f"{value:.{max(0, digits - 1 - power)}f}"
    return f"$-${text[1:]}" if text.startswith("-") else text


def save_table(table: pd.DataFrame, path: str | Path, **options: Any) -> Path:
    """Write :func:`csv_text` (``.csv``) or :func:`latex_text` (``.tex``); create the folder if necessary.

    Raises:
      ValueError: another file extension, or an option that the format does not have.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".tex") or (options and path.suffix == ".csv"):
        allowed = "must end with .csv (without options) or .tex"
        raise ValueError(f"path: {path} with options {sorted(options)} is not allowed; {allowed}")
    text = csv_text(table) if path.suffix == ".csv" else latex_text(table, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
