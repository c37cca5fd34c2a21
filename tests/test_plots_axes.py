"""Curves over updates and FLOPs, of which arms and lanes have different numbers at the same step."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny

from plasticity import plots
from plasticity.core.errors import UserError
from plasticity.plots.streams import stays
from plasticity.plots.thin import thinned
from plasticity.runs import launch


def table(costs: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Two visits of two records: FLOPs of a step of each of two lanes, by arm."""
    rows = [
        {"arm": arm, "lane": lane, "seed": lane, "step": step, "visit": (step - 1) // 2, "flops": cost * step,
         "task": "a", "reward": 1.0 * step}
        for arm, lanes in costs.items() for lane, cost in enumerate(lanes) for step in (1, 2, 3, 4)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"arm": "category"})


def test_lanes_of_a_line_share_the_mean_of_their_flops() -> None:
    found = thinned(table({"cheap": (1.0, 3.0), "dear": (10.0, 10.0)}), "flops", hyper=())
    cheap = found[found["arm"] == "cheap"]
    assert cheap["flops"].tolist() == [2.0, 4.0, 6.0, 8.0] * 2
    assert found[found["arm"] == "dear"]["flops"].tolist() == [10.0, 20.0, 30.0, 40.0] * 2


def test_arms_that_switch_elsewhere_have_no_common_switches() -> None:
    equal, other = table({"a": (2.0, 2.0), "b": (2.0, 2.0)}), table({"a": (2.0, 2.0), "b": (4.0, 4.0)})
    assert [(stay.start, stay.end) for stay in stays(equal, "flops")] == [(0, 4), (4, 8)]
    assert [(stay.start, stay.end) for stay in stays(other, "flops")] == [(0, 16)]
    assert len(stays(other, "step")) == 2
    axes = plots.learning_curve(other, x="flops").axes[0]
    ends = {line.get_label(): np.nanmax(line.get_xdata()) for line in axes.get_lines()}
    assert (ends["a"], ends["b"], axes.get_xlabel()) == (8.0, 16.0, "FLOPs")


def test_the_figures_of_a_run_over_flops(tmp_path: Any) -> None:
    arms = {"baseline": {}, "wide": {"agent": {"network": {"widths": [16]}}}}
    run = launch.run(tiny.experiment(arms=arms, seeds=2), tmp_path / "run")
    drawn = plots.figures(run, names=["learning_curve", "monitors"], options=plots.Options(x="flops"))
    assert {name: drawn[name].axes[-1].get_xlabel() for name in drawn} == {
        "learning_curve": "FLOPs",
        "monitors": "FLOPs",
    }
    with pytest.raises(UserError, match=r"^x: unknown axis `time`; known: flops, frames, step, update"):
        plots.figures(run, options=plots.Options(x="time"))


def test_a_run_without_the_column_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from plasticity.engine import flops

    def refuse(function: Any, shapes: Any) -> float:
        raise flops.NotCountedError("there is no analysis")

    monkeypatch.setattr(flops, "_analysed", refuse)
    run = launch.run(tiny.experiment(seeds=1), tmp_path / "run")
    with pytest.raises(UserError, match=r"^x: flops is not allowed; .*run has no such column: there is no analysis$"):
        plots.figures(run, names=["learning_curve"], options=plots.Options(x="flops"))
