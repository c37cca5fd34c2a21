"""Areas, thresholds, relative learning speed and revisits, by hand."""

import numpy as np
import pytest
import synthetic_run as made

from plasticity import results
from plasticity.results import intervals


def write(folder, rewards, *, visits=((0, 20), (1, 20)), every=10, hyper=None, diverged=None, episodic=False, **others):
    plan = made.plan(list(rewards), tasks=["a", "b"], visits=visits, episodic=episodic)
    seeds = range(len(next(iter(rewards.values()))))
    metrics = {
        arm: made.records(
            arm, plan, seeds, every=every, rewards=values, **{name: each[arm] for name, each in others.items()}
        )
        for arm, values in rewards.items()
    }
    known = {arm: made.lane_table(list(seeds), hyper=hyper, diverged=(diverged or {}).get(arm)) for arm in rewards}
    return made.write(folder, plan, known, metrics)


# Two lanes; areas of the first lane 0.4 and 0.2, of the second 0.6 and 0.4; of the control 0.5 and 0.7, 0.5 and 0.6.
CONTINUED = [[0.2, 0.6, 0.1, 0.3], [0.4, 0.8, 0.3, 0.5]]
FRESH = [[0.4, 0.6, 0.6, 0.8], [0.4, 0.6, 0.5, 0.7]]


@pytest.fixture
def run(tmp_path):
    return write(tmp_path / "run", {"base": CONTINUED, "fresh": FRESH})


def test_the_area_is_the_performance_where_there_are_no_episodes(run):
    table, known = results.learning_curves_area(run), results.visits(run)
    np.testing.assert_allclose(table["area"], known["performance"])
    np.testing.assert_allclose(table["area"][:4], [0.4, 0.2, 0.6, 0.4])


def test_with_episodes_the_area_goes_by_time_and_not_by_episodes(tmp_path):
    returns = {"base": [[1.0, 5.0, np.nan, 3.0]]}
    folder = write(
        tmp_path / "run", {"base": np.zeros((1, 4))}, episodic=True, returns=returns, episodes={"base": [[3, 1, 0, 1]]}
    )
    np.testing.assert_allclose(results.learning_curves_area(folder)["area"], [3.0, 3.0])
    np.testing.assert_allclose(results.visits(folder)["performance"], [2.0, 3.0])


def test_steps_to_a_threshold(run):
    table = results.steps_to_threshold(run, threshold=0.5)
    np.testing.assert_array_equal(table["steps"], [20, np.nan, 20, 20, 20, 10, 20, 10])


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_a_number(run, threshold):
    with pytest.raises(ValueError, match=f"threshold: {threshold} is not allowed; must be a finite number"):
        results.steps_to_threshold(run, threshold=threshold)


def test_relative_learning_speed(run):
    found = results.relative_learning_speed(run, auc_max=1.0)
    np.testing.assert_allclose(found.lanes["difference"], [-0.1, -0.5, 0.1, -0.2])
    np.testing.assert_allclose(found.lanes["relative_speed"], [-0.2, -5 / 3, 0.2, -0.5])
    assert list(found.means["visit"]) == [0, 1]
    np.testing.assert_allclose(found.means["difference"], [0.0, -0.35], atol=1e-12)
    expected = intervals.mean_interval([-0.5, -0.2])
    second = found.means.iloc[1]
    np.testing.assert_allclose(second[["difference", "difference_low", "difference_high"]].astype(float), expected)
    np.testing.assert_allclose(found.overall["relative_speed"], [(-0.2 - 5 / 3 + 0.2 - 0.5) / 4])
    assert list(found.overall["seeds"]) == [2]


def test_the_largest_area_of_the_run_is_the_default_bound_and_gives_no_ratio_at_itself(run):
    speed = results.relative_learning_speed(run).lanes["relative_speed"]  # the largest area: 0.7
    np.testing.assert_allclose(speed, [-0.5, np.nan, 0.5, -2.0])


def test_controls_are_paired_at_their_point(tmp_path):
    rewards = {"base": CONTINUED, "fresh": FRESH}
    folder = write(tmp_path / "run", rewards, hyper={"agent.rate": [0.1, 0.2]})
    found = results.relative_learning_speed(folder, auc_max=1.0)
    np.testing.assert_allclose(found.lanes["difference"], [-0.1, -0.5, 0.1, -0.2])
    assert list(found.overall["agent.rate"]) == [0.1, 0.2]
    assert found.overall["difference_low"].isna().all()  # one seed each


def test_a_diverged_lane_drops_out(tmp_path):
    rewards = {"base": [[0.2, 0.6, np.nan, np.nan], CONTINUED[1]], "fresh": FRESH}
    folder = write(tmp_path / "run", rewards, diverged={"base": {0: 25}})
    found = results.relative_learning_speed(folder, auc_max=1.0)
    assert list(found.means["seeds"]) == [2, 1]
    assert list(found.overall["seeds"]) == [1]
    np.testing.assert_allclose(found.overall["difference"], [-0.05])
    assert np.isnan(results.steps_to_threshold(folder, threshold=0.0)["steps"][1])


def test_several_runs(run, tmp_path):
    other = write(tmp_path / "other", {"base": FRESH, "fresh": FRESH})
    found = results.relative_learning_speed(run, other, auc_max=1.0)
    overall = found.overall.set_index("run")["difference"]
    np.testing.assert_allclose(overall[["run", "other"]], [-0.175, 0.0], atol=1e-12)
    assert set(results.learning_curves_area(run, other)["run"]) == {"run", "other"}


def test_an_unknown_control_is_refused_with_the_arms(run):
    with pytest.raises(ValueError, match=r"control: 'frehs' is not an arm of .*run; its arms: base, fresh$"):
        results.relative_learning_speed(run, control="frehs")


def test_revisits(tmp_path):
    visits = ((0, 10), (1, 10), (0, 10), (1, 10), (0, 10))
    rewards = {"base": [[0.9, 0.5, 0.7, 0.6, 0.3], [0.8, 0.4, 0.8, 0.2, 0.8]]}
    found = results.revisits(write(tmp_path / "run", rewards, visits=visits))
    assert list(found.lanes["occasion"]) == [2, 2, 3] * 2
    np.testing.assert_allclose(found.lanes["difference"], [-0.2, 0.1, -0.6, 0.0, -0.2, 0.0], atol=1e-12)
    assert found.means.set_index("task")["difference"].to_dict() == pytest.approx({"a": -0.2, "b": -0.05})
    np.testing.assert_allclose(found.overall["difference"], [-0.125])  # (-0.4 + 0.1) / 2 and (0 - 0.2) / 2


def test_no_task_twice_is_no_row(run):
    assert all(table.empty for table in results.revisits(run))


def test_a_run_without_records_gives_empty_tables(tmp_path):
    plan = made.plan(["base", "fresh"], tasks=["a"], visits=[(0, 20)])
    folder = made.write(tmp_path / "run", plan)
    assert results.learning_curves_area(folder).empty
    assert results.steps_to_threshold(folder, threshold=0.0).empty
    assert all(table.empty for table in (*results.revisits(folder), *results.relative_learning_speed(folder)))


def test_a_visit_that_an_arm_has_not_finished_is_missing(tmp_path):
    plan = made.plan(["base", "fresh"], tasks=["a", "b"], visits=[(0, 20), (1, 20)])
    folder = made.invented(tmp_path / "run", plan, [0, 1], until={"base": 30})
    found = results.relative_learning_speed(folder)
    assert list(found.means["seeds"]) == [2, 0]
    assert list(found.overall["seeds"]) == [0]
