"""Long, damaged and differing runs: reading, averaging and errors before anything is drawn."""

import os

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made

from plasticity import plots, results
from plasticity.plots.thin import MOST_POINTS


def long_table(visits, records, lanes=2):
    """A row for each lane and record; ``reward`` is the place, ``rare`` is measured at every tenth place."""
    place = np.tile(np.arange(visits * records), lanes)
    table = pd.DataFrame({"arm": "one", "lane": np.repeat(np.arange(lanes), visits * records), "step": place + 1})
    table = table.assign(seed=table["lane"], visit=place // records, task="t", reward=place.astype(float))
    return table.assign(rare=np.where(place % 10 == 9, place, np.nan))


def test_groups_hold_neighbours_of_one_lane_and_visit_and_leave_missing_values_out():
    table = long_table(visits=2, records=1001)  # 2002 places: groups of 3 places, cut at the switch
    found = plots.thinned(table)
    groups = {(lane, visit, place // 3): [] for lane, visit, place in
              zip(table["lane"], table["visit"], table["step"] - 1, strict=True)}  # fmt: skip
    for row in table.itertuples():
        groups[row.lane, row.visit, (row.step - 1) // 3].append(row)
    assert len(found) == len(groups)
    for row, members in zip(found.itertuples(), groups.values(), strict=True):
        assert (row.lane, row.visit, row.step) == (members[-1].lane, members[-1].visit, members[-1].step)
        assert row.reward == pytest.approx(np.mean([each.reward for each in members]))
        measured = [each.rare for each in members if not np.isnan(each.rare)]
        assert row.rare == pytest.approx(np.mean(measured)) if measured else np.isnan(row.rare)


def test_rows_in_any_order_give_the_same():
    table = long_table(visits=3, records=400)
    shuffled = table.sample(frac=1.0, random_state=0)
    pd.testing.assert_frame_equal(plots.thinned(shuffled), plots.thinned(table))


def test_of_very_many_visits_whole_ones_are_averaged():
    found = plots.thinned(long_table(visits=1000, records=3, lanes=1))
    np.testing.assert_array_equal(found["step"], np.arange(6, 3001, 6))  # pairs of visits
    np.testing.assert_allclose(found["reward"], np.arange(2.5, 3000, 6))


def test_a_short_table_is_left_as_it_is():
    table = long_table(visits=2, records=MOST_POINTS // 2)
    pd.testing.assert_frame_equal(plots.thinned(table, names=["reward"]), table.drop(columns="rare"))


@pytest.mark.parametrize("visits", [1, 30, 2000])
def test_the_number_of_points_drawn_does_not_grow_with_the_run(visits):
    table = long_table(visits, 12_000 // visits)
    for axes in (*plots.learning_curve(table).axes, *plots.monitors(table, names=["reward", "rare"]).axes):
        (line,) = (each for each in axes.get_lines() if each.get_label() == "one")
        assert 10 < len(line.get_xdata()) <= MOST_POINTS + 2 * min(visits, MOST_POINTS // 2)


def test_losses_of_many_visits_are_drawn_at_their_ends():
    table = long_table(visits=20, records=10)
    (axes,) = plots.monitors(table.assign(loss=-table["reward"]), names=["loss"]).axes
    x, y = next(line for line in axes.get_lines() if line.get_label() == "one").get_data()
    np.testing.assert_array_equal(x, np.arange(10, 201, 10))
    np.testing.assert_array_equal(y, -np.arange(9, 200, 10))
    assert axes.get_title() == "loss\n(end of visit)"


# ---------------------------------------------------------------------------------------------- reading


@pytest.fixture
def run(tmp_path):
    plan = made.plan(["one", "two"], tasks=["t"], visits=[(0, 10)] * 4)
    return made.invented(tmp_path / "run", plan, [0, 1], parts=4)


def damage(path):
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])


def test_a_damaged_part_is_named_and_left_out(run):
    whole, part = results.load(run), run / "one" / "metrics" / "part-00002.parquet"
    lost = pd.read_parquet(part)
    damage(part)
    with pytest.warns(UserWarning, match=r"one/metrics/part-00002\.parquet is unreadable .* left out"):
        found = results.load(run)
    assert len(found) == len(whole) - len(lost)
    assert set(found.loc[found["arm"] == "one", "step"]).isdisjoint(set(lost["step"]) - {10})
    with pytest.warns(UserWarning, match="is unreadable") as told:
        assert {"performance", "learning_curve", "monitors"} <= set(plots.figures(run))
    assert len(told) == 1


def test_a_damaged_table_of_lanes_is_named(run):
    damage(run / "two" / "lanes.parquet")
    with pytest.warns(UserWarning, match=r"two/lanes\.parquet is unreadable"):
        assert list(results.lanes(run)["arm"].unique()) == ["one"]


def test_visits_are_read_again_when_the_run_has_gone_on(tmp_path):
    plan = made.plan(["one"], tasks=["t"], visits=[(0, 10)] * 4)
    folder = made.invented(tmp_path / "run", plan, [0], until={"one": 20}, parts=1)
    assert len(results.visits(folder)) == 2
    first = results.visits(folder)
    first["performance"] = 0.0  # a caller's own copy
    assert (results.visits(folder)["performance"] > 0).all()
    made.invented(folder, plan, [0], parts=1)
    assert len(results.visits(folder)) == 4


def test_only_the_metrics_asked_for_are_read(run):
    found, whole = results.load(run, metrics=["effective_rank"]), results.load(run)
    assert "reward" not in found
    pd.testing.assert_series_equal(found["effective_rank"], whole["effective_rank"])


# ---------------------------------------------------------------------------------------------- mistakes


def test_an_unknown_metric_is_reported_with_the_known_ones(run):
    message = r'"effective_rnk"; there are .*reward; did you mean `effective_rank`\?'
    with pytest.raises(ValueError, match=message):
        results.load(run, metrics=["effective_rnk"])
    metrics = results.load(run)
    for draw in (
        lambda: plots.learning_curve(metrics, value="effective_rnk"),
        lambda: plots.monitors(metrics, names=["effective_rnk"]),
        lambda: plots.mechanisms(metrics, results.visits(run), names=["effective_rnk"]),
    ):
        with pytest.raises(ValueError, match=message):
            draw()
    with pytest.raises(ValueError, match=r".perf.; there are performance, performance_end"):
        plots.performance(results.visits(run), measure="perf")


def test_runs_of_different_streams_are_refused_in_one_figure(tmp_path):
    for name, tasks, steps in (("a", ["t"], 10), ("b", ["u"], 10), ("c", ["t"], 20)):
        made.invented(tmp_path / name, made.plan(["one"], tasks=tasks, visits=[(0, steps)]), [0])
    with pytest.raises(ValueError, match=r"a and .*b are runs of different streams: `tasks` is \[.t.\] and \[.u.\]"):
        plots.figures(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="different streams: `visits`"):
        plots.figures(tmp_path / "a", tmp_path / "c")
    both = results.load(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="a and b are runs of different streams: visit 1 is to 't' and to 'u'"):
        plots.learning_curve(both)


def test_lanes_with_tasks_of_their_own_have_no_common_name(tmp_path):
    plan = made.plan(["one"], tasks=["t", "u"], visits=[(0, 10), (1, 10)])
    metrics = results.load(made.invented(tmp_path / "run", plan, [0, 1]))
    own = metrics.assign(task=np.where(metrics["lane"] == 1, "t", metrics["task"].astype(str)))
    (axes,) = plots.learning_curve(own).axes
    assert [text.get_text() for text in axes.texts] == ["t", "various"]
