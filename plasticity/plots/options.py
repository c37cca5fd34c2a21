"""Options of every figure: size, arms, labels, smoothing and the axis of curves."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from matplotlib.textpath import TextPath

from plasticity.core.errors import UserError, cut, shown, unknown
from plasticity.results import Point

WIDTH = 8.5  # inches, by default
SIDES = (2.0, 40.0)  # inches
MOST_SMOOTHED = 100_000  # records
AXES = ("step", "frames", "update", "flops")


class Options(NamedTuple):
    """Options of every figure; by default, all arms under their own names, unsmoothed, at the figure's own size.

    A figure with several rows of panels or a long legend below may be taller than requested, but never wider.
    """

    arms: Sequence[str] | None = None  # the arms to draw, in this order; None: all, in the order of the config
    labels: Mapping[str, str] = MappingProxyType({})  # arm -> its label in the figure
    size: tuple[float, float] | None = None  # in inches; None: as needed
    smooth: int = 1  # window of the running mean of curves, in records
    x: str | None = None  # horizontal axis of curves, one of AXES; None: frames if a step has several, else steps

    @property
    def width(self) -> float:
        """The width of the figure, in inches."""
        return self.size[0] if self.size else WIDTH

    def label(self, cell: Point) -> str:
        """The label of a line: its arm, with the run and the swept settings if there are several."""
        name = self.labels.get(cell.arm, cell.arm)
        return ", ".join([f"{cell.run}: {name}" if cell.run else name, *cell.settings])

    def places(self, cells: Sequence[Point]) -> list[int]:
        """Indices of the cells to draw, in order: run by run, each with the selected arms."""
        if self.arms is None:
            return list(range(len(cells)))
        runs, order = list(dict.fromkeys(cell.run for cell in cells)), list(self.arms)
        kept = [place for place, cell in enumerate(cells) if cell.arm in order]
        return sorted(kept, key=lambda place: (runs.index(cells[place].run), order.index(cells[place].arm)))


PLAIN = Options()


def checked(options: Options, arms: Sequence[str] | None = None) -> Options:
    """Return ``options`` if they are valid; otherwise raise a one-line ``UserError``.

    ``arms``: the existing arms; None: check only what does not depend on a run.
    """
    _check_size(options.size)
    _check_whole("smooth", options.smooth, 1, MOST_SMOOTHED)
    if options.x is not None and options.x not in AXES:
        raise UserError(f"x: {unknown(f'axis `{cut(str(options.x), 60)}`', str(options.x), AXES)}")
    _check_arms("arms", options.arms, arms)
    _check_arms("labels", list(options.labels), arms if options.labels else None)
    for arm, label in options.labels.items():
        _check_label(arm, label)
    names = [options.labels.get(arm, arm) for arm in (options.arms or arms or options.labels)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"labels: {shown(name)} is not allowed for several arms; each needs its own label")
    return options


def _check_size(size: Any) -> None:
    if size is None:
        return
    low, high = SIDES
    sides = tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int | float) and low <= side <= high for side in sides):
        allowed = f"width and height between {low:g} and {high:g} inches, such as 6x4"
        raise UserError(f"size: {shown(size)} is not allowed; must be {allowed}")


def _check_whole(key: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(f"{key}: {shown(value)} is not allowed; must be an integer from {least} to {most} (records)")


def _check_arms(key: str, chosen: Sequence[str] | None, arms: Sequence[str] | None) -> None:
    if chosen is None:
        return
    if isinstance(chosen, str) or (key == "arms" and not chosen):
        raise UserError(f"{key}: {shown(chosen)} is not allowed; must be a list of at least one arm")
    for arm in chosen:
        if list(chosen).count(arm) > 1:
            raise UserError(f"{key}: {shown(arm)} is given twice; name each arm once")
        if arms is not None and arm not in arms:
            raise UserError(f"{key}: {unknown(f'arm `{cut(str(arm), 60)}`', str(arm), arms, 'arms')}")


def _check_label(arm: str, label: Any) -> None:
    if not isinstance(label, str) or not label.strip() or label.startswith("_"):
        raise UserError(f"labels.{arm}: {shown(label)} is not allowed; must be text that does not begin with _")
    try:
        TextPath((0, 0), label)
    except ValueError:
        raise UserError(f"labels.{arm}: {shown(label)} is not allowed; the formula between $ is not valid") from None


def check_names(key: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ``UserError`` that lists the known names if one of ``names`` is unknown."""
    if isinstance(names, str) or not names:
        raise UserError(f"{key}: {shown(names)} is not allowed; must be a list of names from {', '.join(known)}")
    for name in names:
        if name not in known:
            raise UserError(f"{key}: {unknown(f'figure `{cut(str(name), 60)}`', str(name), known)}")
