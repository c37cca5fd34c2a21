"""Quantities of a finding's runs: times within visits, and the visits to one task."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic_run as made
import tiny
from test_change import BASE, CYCLES, FRESH, GAMES, SCALES, games
from test_findings_judge import clause

from plasticity import results
from plasticity.core.errors import UserError
from plasticity.findings import parse_criterion
from plasticity.findings.criterion import Crossing
from plasticity.findings.figure import figure
from plasticity.findings.judge import judge_clause
from plasticity.findings.quantities import check_comparable, of_run, tables
from plasticity.findings.samples import samples
from plasticity.runs import launch

ORDERS = np.array([[0, 1, 2, 0, 1, 2], [2, 0, 1, 2, 0, 1], [1, 0, 2, 1, 0, 2]])


@pytest.fixture
def curves(tmp_path):
    """Two lanes, two visits of 40 steps, four records in each; the second lane diverges in the second visit."""
    plan = made.plan(["a"], tasks=["x"], visits=[(0, 40), (0, 40)], lanes=2)
    rewards = np.array([[0.1, 0.6, 0.2, 0.9, 0.3, 0.4, 0.4, 0.2], [0.2, 0.2, 0.5, 0.9, 0.9, np.nan, np.nan, np.nan]])
    dead = np.array([[np.nan, 0.1, np.nan, 0.3, np.nan, 0.3, np.nan, 0.7], [np.nan] * 8])
    table = made.records("a", plan, [5, 6], every=10, rewards=rewards, dead_units=dead)
    return made.write(tmp_path / "run", plan, {"a": made.lane_table([5, 6], diverged={1: 50})}, {"a": table})


def times(run, what, threshold, way):
    table = of_run(run, what, Crossing(threshold, way))
    return table.sort_values(["seed", "visit"])["value"].tolist()


@pytest.mark.parametrize(
    ("what", "threshold", "way", "expected"),
    [
        ("performance", 0.5, "up", [20, 40, 30, 10]),  # never in the first lane's second visit: its 40 steps
        ("performance", 0.15, "down", [10, 40, 40, 40]),
        ("dead_units", 0.3, "up", [40, 20, np.nan, np.nan]),  # records without a measurement cannot cross
        ("dead_units", 0.9, "up", [40, 40, np.nan, np.nan]),
    ],
)
def test_steps_to_a_threshold_in_a_visit(curves, what, threshold, way, expected):
    assert times(curves, what, threshold, way) == pytest.approx(expected, nan_ok=True)


def test_steps_to_a_threshold_are_those_of_the_results(curves):
    """Where the threshold is reached; the visit in which a lane diverged is missing here when a stage is taken."""
    found = results.steps_to_threshold(curves, threshold=0.5).sort_values(["seed", "visit"])["steps"].to_numpy()
    np.testing.assert_array_equal(found, [20, np.nan, 30, np.nan])
    asked = clause(at="end", within="time", threshold=0.5, crossing="up")
    ours = samples(asked, tables({"": curves})).tested[0].values
    np.testing.assert_array_equal(ours, [40, np.nan])
    assert samples(asked, tables({"": curves})).never == 1
    assert samples(clause(at="all", within="time", threshold=0.7, crossing="up"), tables({"": curves})).never == 1
    assert samples(clause(at=0, within="time", threshold=0.7, crossing="up"), tables({"": curves})).never == 0
    kept = samples(clause(at="end", within="time", threshold=0.5, crossing="up", diverged=99), tables({"": curves}))
    np.testing.assert_array_equal(kept.tested[0].values, [40, 99])


def test_steps_until_an_evaluation_crosses(tmp_path):
    """Three visits of 20 steps with two evaluations each: at every threshold the first that is beyond it."""
    changes = {"evaluation": {"every": 10, "tasks": "seen", "steps": 5}, "seeds": 2}
    run = launch.run(tiny.experiment(**changes), tmp_path / "run")
    table = results.evaluations(run)
    own = table[table["evaluated_visit"] == table["visit"]].sort_values(["lane", "step"])
    rewards = own["reward"].to_numpy().reshape(2, 3, 2)
    threshold = float(np.median(rewards))
    expected = np.where(rewards[..., 0] >= threshold, 10, 20)
    assert times(run, "evaluation", threshold, "up") == expected.ravel().tolist()


def test_transfer_between_tasks_is_that_of_the_evaluations(tmp_path):
    """Worked out from the table of evaluations: R[i, j] after visit i on the task of visit j."""
    experiment = tiny.experiment(evaluation={"every": "visit", "tasks": "seen", "steps": 5}, seeds=2)
    run = launch.run(experiment, tmp_path / "run")
    after = results.evaluations(run).set_index(["lane", "visit", "evaluated_visit"])["reward"]
    backward, forgotten, average = (
        of_run(run, what).pivot(index="visit", columns="seed", values="value").to_numpy()
        for what in ("backward_transfer", "forgetting", "average_performance")
    )
    for lane in range(2):
        r = np.array([[after.get((lane, i, j), np.nan) for j in range(3)] for i in range(3)])
        np.testing.assert_allclose(backward[:, lane], (r[2, 0] - r[0, 0] + r[2, 1] - r[1, 1]) / 2, rtol=1e-6)
        np.testing.assert_allclose(forgotten[:, lane], (r[0, 0] - r[2, 0] + r[1, 1] - r[2, 1]) / 3, rtol=1e-6)
        np.testing.assert_allclose(average[:, lane], [np.nan, np.nan, r[2].mean()], rtol=1e-6)


def test_values_of_one_task(tmp_path):
    """Half of BASE at the scale of the game; in the last of two visits, whatever the place of the game in an order."""
    run = games(tmp_path / "run", {"baseline": BASE, "fresh": FRESH}, order=ORDERS)
    for task, name in enumerate(GAMES):
        asked = clause(arms=["baseline"], task=name, at="end")
        place = [3 + np.flatnonzero(order[3:] == task)[0] for order in ORDERS]
        expected = BASE[np.arange(3), place] / 2 * SCALES[name]
        assert samples(asked, tables({"": run})).tested[0].values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("order", [None, ORDERS])
def test_the_change_of_one_task_is_that_of_the_results(tmp_path, order):
    run = games(tmp_path / "run", {"baseline": BASE, "fresh": FRESH}, order=order)
    expected = results.task_changes(run).set_index(["arm", "task"])
    for name in GAMES:
        for arm, column in (("baseline", "change"), ("fresh", "own")):
            found = judge_clause(clause(what="change", arms=[arm], task=name), tables({"": run}))
            row = expected.loc[(arm, name), [column, f"{column}_low", f"{column}_high"]].astype(float)
            assert (found.number, found.low, found.high) == pytest.approx(tuple(row))
            assert found.seeds == 3


def test_the_figure_of_one_task_and_of_a_time(tmp_path):
    """Curves over the visits to the task, with the threshold; steps to a threshold by visit."""
    run = games(tmp_path / "run", {"baseline": BASE, "fresh": FRESH}, order=ORDERS)
    of_arm = {"what": "performance", "arms": ["baseline"], "direction": "above", "bound": 0}
    until = {"threshold": 30, "crossing": "up"}
    parts = [{**of_arm, "task": "sling", "at": "time", **until}, {**of_arm, "within": "time", "at": "all", **until}]
    drawn = figure(SimpleNamespace(criterion=parse_criterion({"clauses": parts}, "c")), {"": run})
    curves, steps = drawn.axes
    assert (curves.get_title(), curves.get_xlabel()) == ("performance in sling", "visit to sling")
    assert steps.get_title() == "steps until performance >= 30"
    (line,) = [each for each in curves.get_lines() if each.get_label() == "baseline"]
    levels = [[BASE[lane, visit] for visit in np.flatnonzero(order == 1)] for lane, order in enumerate(ORDERS)]
    np.testing.assert_allclose(line.get_ydata(), np.mean(levels, axis=0) / 2 * SCALES["sling"])
    assert [each.get_ydata()[0] for each in curves.get_lines() if each.get_linestyle() == ":"] == [30]


def test_what_is_taken_of_a_task_must_be_there(tmp_path):
    run = games(tmp_path / "run", {"baseline": BASE, "fresh": FRESH})
    stream = results.plan(run)["stream"]

    def check(streams=stream, **settings):
        raw = {"what": "performance", "arms": ["baseline"], "direction": "above", "bound": 0, **settings}
        check_comparable("x", parse_criterion({"clauses": [raw]}, "c"), {"": streams})

    check(task="sling", at="all")  # returns of one game may be averaged
    check(task="sling", what="change")
    with pytest.raises(UserError, match=r"x: criterion: unknown task `slng`.*did you mean `sling`"):
        check(task="slng")
    with pytest.raises(UserError, match="use `change`, one `task`, or a single visit"):
        check(at="all")
    once = copy.deepcopy(stream)
    once["visits"] = once["visits"][: len(CYCLES) // 2]
    with pytest.raises(UserError, match="`change` needs a task that is repeated; sling is visited once"):
        check(once, task="sling", what="change")
