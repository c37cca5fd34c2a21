"""Many arms, each compared with the baseline in its own small panel."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.plots.legend import grid, label_lowest, page
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.style import CONTROL_COLOUR, UNBOUNDED, Bounds, draw_curve, intervals, look, series, styled

COLUMNS = 5


@styled
def against_baseline(
    visits: pd.DataFrame,
    *,
    baseline: str = "baseline",
    measure: str = "performance",
    label: str = "performance",
    bounds: Bounds = UNBOUNDED,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
) -> Figure:
    """Draw every arm's performance by visit, mean over seeds, each in its own panel.

    The baseline is grey and the same in all panels; bands are 95 % t intervals clipped to ``bounds``. ``visits`` is a
    table of :func:`plasticity.results.visits` without a sweep. ``ValueError`` if it has no such baseline.
    """
    arms = {line.rows["arm"].iloc[0]: line for line in series(visits, [], controls)}
    if baseline not in arms:
        raise ValueError(f"baseline: {baseline!r} is not an arm of the table; its arms: {', '.join(arms)}")
    plain = arms[baseline]._replace(look={"color": "#909090", "linestyle": "-", "marker": ""})
    lines = [line for line in series(visits, [], controls, options) if line.rows["arm"].iloc[0] != baseline]
    rows, columns = grid(len(lines), COLUMNS, options.width)
    figure = page(options, 0.3 + 1.25 * rows, rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, line in zip(axes.flat, lines, strict=False):
        shown = CONTROL_COLOUR if line.rows["arm"].iloc[0] in controls else look(0)["color"]
        for each in (plain, line._replace(look={"color": shown, "linestyle": "-", "marker": ""})):
            found = intervals(each.rows, measure, "visit", bounds)
            draw_curve(panel, each, found, found.index.to_numpy() + 1, 1, 0)
        panel.set_title(line.label, fontsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    label_lowest(axes, len(lines), "")
    figure.supxlabel("visit", fontsize=9)
    figure.supylabel(label, fontsize=9)
    return figure
