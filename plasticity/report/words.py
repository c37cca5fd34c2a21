"""Numbers formatted for readers."""

import math
from html import escape

MISSING = '<span class="none">\u2013</span>'
MINUS, TIMES = "\u2212", "\u00d7"


def number(value: float, sign: str = "") -> str:
    """At least three significant digits, no exponent in the usual range, and a proper minus sign."""
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        text = f"{value:{sign}.1e}"
    else:
        digits = 2 if value == 0 else 2 - math.floor(math.log10(abs(value)))
        text = f"{value:{sign},.{min(max(digits, 0), 3)}f}"
    return text.replace("-", MINUS)


def breakable(name: str) -> str:
    """A name as HTML that may break after each underscore."""
    return escape(name).replace("_", "_<wbr>")


def amount(value: int) -> str:
    return f"{value:,}"


def plural(count: int, noun: str) -> str:
    """``1 visit``, ``2 visits``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """At most two units: ``41 s``, ``3 min 20 s``, ``5 h 2 min``, ``2 d 3 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for below, large, unit, small, rest in ((3600, 60, "min", 1, "s"), (86400, 3600, "h", 60, "min")):
        if whole < below:
            return f"{whole // large} {unit} {whole % large // small} {rest}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float) -> str:
    """``1536 -> 1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
