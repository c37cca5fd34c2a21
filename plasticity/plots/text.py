"""Long names in the room there is: broken into lines, never cut off."""

import re

from plasticity.plots.style import text_width

NARROW = 4.5  # inches; a narrower figure is one column of a paper
LINE = 0.13  # inches that one more line of a label takes


def fitted(text: str, width: float, size: float = 8.0) -> str:
    """The text in lines of at most ``width`` inches, broken after a comma, or where need be ``_``, ``-``, ``/``, ``:``.

    Only a part that is wider than a line by itself is broken between other letters. A formula stays as it is.
    """
    if "$" in text or not text.strip() or text_width(text, size) <= width:
        return text
    lines: list[str] = []
    for segment in re.split(r"(?<=, )", text):
        if lines and text_width(lines[-1] + segment.rstrip(), size) <= width:
            lines[-1] += segment
            continue
        lines.append("")
        for part in _parts(segment, width, size):
            if lines[-1] and text_width(lines[-1] + part.rstrip(), size) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def _parts(text: str, width: float, size: float) -> list[str]:
    """The pieces between which a text may be broken, each at most as wide as a line."""
    found = []
    for part in re.split(r"(?<=[ _/:-])(?!$)", text):
        start = 0
        for end in range(2, len(part) + 1):
            if end - start > 1 and text_width(part[start:end], size) > width:
                found.append(part[start : end - 1])
                start = end - 1
        found.append(part[start:])
    return found
