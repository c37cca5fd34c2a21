"""Long names in the room there is: broken into lines, never cut off."""

import re

from plasticity.plots.style import text_width

NARROW = 4.5  # inches; a narrower figure is one column of a paper
LINE = 0.13  # inches that one more line of a label takes


def fitted(text: str, width: float, size: float = 8.0) -> str:
    """The text in lines of at most ``width`` inches, broken after ``_``, ``-``, ``/``, ``,``, ``:`` or a space.

    Only a part that is wider than a line by itself is broken between other letters. A formula stays as it is.
    """
    if "$" in text or text_width(text, size) <= width:
        return text
    lines = [""]
    for part in _parts(text, width, size):
        if lines[-1] and text_width((lines[-1] + part).rstrip(), size) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines if line.strip())


def _parts(text: str, width: float, size: float) -> list[str]:
    found = []
    for part in re.split(r"(?<=[ _/,:-])(?!$)", text):
        start = 0
        for end in range(1, len(part) + 1):
            if part[start:end].strip() and text_width(part[start:end].strip(), size) > width and end - start > 1:
                found.append(part[start : end - 1])
                start = end - 1
        found.append(part[start:])
    return found
