"""Convert the command-line options of `plasticity plot` to figure options."""

import re

from plasticity.core.errors import UserError, shown
from plasticity.plots import Options

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*[x,]\s*(\d+(?:\.\d+)?)")


def options(arms: str, labels: list[str], size: str, smooth: int, x: str = "") -> Options:
    """The figure options. ``UserError`` in one line if they cannot be parsed.

    Whether they fit the runs is checked when the figures are drawn.
    """
    chosen = listed("arms", arms)
    return Options(arms=chosen, labels=_labels(labels), size=_size(size), smooth=smooth, x=x or None)


def listed(key: str, words: str) -> list[str] | None:
    """Names separated by commas; None if there are none."""
    names = [name.strip() for name in words.split(",")]
    if not words:
        return None
    if not all(names):
        raise UserError(f"{key}: {shown(words)} is not allowed; must be names separated by commas, such as a,b,c")
    return names


def _labels(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        arm, equals, label = pair.partition("=")
        if not equals or not arm:
            raise UserError(f"label: {shown(pair)} is not allowed; must be ARM=NAME, such as layer_norm=LayerNorm")
        if arm in found:
            raise UserError(f"label: {shown(arm)} is given twice; name each arm once")
        found[arm] = label
    return found


def _size(text: str) -> tuple[float, float] | None:
    match = SIZE.fullmatch(text.strip())
    if text and not match:
        raise UserError(f"size: {shown(text)} is not allowed; must be width x height in inches, such as 6x4")
    return (float(match[1]), float(match[2])) if match else None
