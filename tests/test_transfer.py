"""Forgetting and transfer of hand-made matrices of three tasks."""

import numpy as np
import pandas as pd
import pytest
import synthetic_run as made

from plasticity import results
from plasticity.results import Matrix, mean_interval

ONE = [[0.8, 0.2, 0.1], [0.6, 0.9, 0.3], [0.5, 0.4, 0.7]]  # row i: after visit i
TWO = [[0.6, 0.0, 0.1], [0.7, 0.5, 0.0], [0.6, 0.5, 0.9]]
FRESH = [[0.8, 0, 0], [0, 1.0, 0], [0, 0, 0.9]]


def matrix(*values, arms=("base", "base"), seeds=(0, 1)):
    return Matrix(pd.DataFrame({"arm": arms, "lane": seeds, "seed": seeds}), ("a", "b", "c"), np.array(values, float))


TWO_LANES = matrix(ONE, TWO)


@pytest.mark.parametrize(
    ("measure", "name", "lanes", "overall"),
    [
        # P after each visit
        (results.average_performance, "average_performance", [1.1, 1.8, 1.6, 0.7, 1.2, 2.0], None),
        (results.forgetting, "forgetting", [0.3, 0.5, 0.0, 0.0, 0.0, 0.0], [0.8 / 3, 0.0]),
        (results.forgetting_from_best, "forgetting_from_best", [0.3, 0.5, 0.1, 0.0], [0.4, 0.05]),
        (results.backward_transfer, "backward_transfer", [-0.3, -0.5, 0.0, 0.0], [-0.4, 0.0]),
        # pairs (visit, task): (1, 0), (2, 0), (2, 1); the largest values are 0.8, 0.9 | 0.7, 0.5
        (
            results.isolated_forgetting,
            "isolated_forgetting",
            [0.2 / 0.8, 0.1 / 0.8, 0.5 / 0.9, -0.1 / 0.7, 0.1 / 0.7, 0.0],
            None,
        ),
        # pair (1, 2); the largest values are 0.7 | 0.9
        (results.isolated_forward_transfer, "isolated_forward_transfer", [0.2 / 0.7, -0.1 / 0.9], None),
    ],
)
def test_measures(measure, name, lanes, overall):
    found = measure(TWO_LANES)
    lanes = np.array(lanes) / (3 if name == "average_performance" else 1)
    np.testing.assert_allclose(found.lanes[name], lanes, atol=1e-12)
    per_lane = lanes.reshape(2, -1).mean(1) if overall is None else overall
    for bound, value in zip(("", "_low", "_high"), mean_interval(per_lane), strict=True):
        np.testing.assert_allclose(found.overall[f"{name}{bound}"], [value], atol=1e-12)
    np.testing.assert_allclose(found.means[name], lanes.reshape(2, -1).mean(0), atol=1e-12)


def test_forward_transfer_over_a_baseline():
    # R[0, 1] - b_1 and R[1, 2] - b_2
    found = results.forward_transfer(TWO_LANES, [0.5, 0.1, 0.2])
    np.testing.assert_allclose(found.lanes["forward_transfer"], [0.1, 0.1, -0.1, -0.2], atol=1e-12)
    np.testing.assert_allclose(results.forward_transfer(TWO_LANES, 0.1).overall["forward_transfer"], [0.025])
    with pytest.raises(ValueError, match=r"baseline has shape \(2,\); must be one number or 3, one for each visit"):
        results.forward_transfer(TWO_LANES, [0.1, 0.2])


def test_intransigence():
    table = matrix(ONE, FRESH, arms=("base", "fresh"), seeds=(4, 4))
    found = results.intransigence(table)
    np.testing.assert_allclose(found.lanes["intransigence"], [0.0, 0.1, 0.2], atol=1e-12)
    with pytest.raises(ValueError, match=r"control: 'new' is not an arm of the matrix; its arms: base, fresh"):
        results.intransigence(table, control="new")


def test_visits_to_the_task_itself_are_not_isolated():
    """Of tasks a, b, a only the pairs (1, 0) and (2, 1) remain, and no later task is another than an earlier one."""
    recurring = TWO_LANES._replace(tasks=("a", "b", "a"))
    found = results.isolated_forgetting(recurring).lanes
    np.testing.assert_allclose(found["difference"], [0.2, 0.5, -0.1, 0.0], atol=1e-12)
    found = results.isolated_forward_transfer(recurring).lanes
    np.testing.assert_allclose(found["difference"], [0.2, -0.1], atol=1e-12)


def test_no_ratio_without_a_scale():
    found = results.isolated_forgetting(matrix(np.zeros((3, 3)), TWO)).lanes
    assert found["isolated_forgetting"][:3].isna().all()
    assert (found["difference"][:3] == 0).all()


def test_what_a_lane_did_not_reach_is_missing():
    short = np.array(TWO)
    short[2] = np.nan
    found = results.forgetting(matrix(ONE, short))
    assert found.lanes["forgetting"][3:].isna().all()
    assert list(found.overall["seeds"]) == [1]
    np.testing.assert_allclose(found.overall["forgetting"], [0.8 / 3])


def test_tasks_that_were_not_evaluated():
    seen = np.tril(np.ones((3, 3)))
    seen[seen == 0] = np.nan
    np.testing.assert_allclose(results.forgetting(matrix(seen, seen)).overall["forgetting"], [0.0])
    with pytest.raises(ValueError, match=r"coming tasks were not evaluated; set evaluation.tasks: all in the config"):
        results.forward_transfer(matrix(seen, seen), 0.0)
    current = np.where(np.eye(3) > 0, 1.0, np.nan)
    with pytest.raises(ValueError, match=r"earlier tasks were not evaluated; set evaluation.tasks: seen or all"):
        results.forgetting(matrix(current, current))


@pytest.fixture
def run(tmp_path):
    """Three visits, the third to the first task again; evaluated at the middle (-1) and the end of each."""
    plan = made.plan(["base", "fresh"], tasks=["a", "b"], visits=[(0, 20), (1, 20), (0, 20)])
    arms = {
        arm: made.records(arm, plan, [7], every=10, rewards=np.full((1, 6), level))
        for arm, level in (("base", 0.25), ("fresh", 0.5))
    }
    folder = made.write(tmp_path / "run", plan, {arm: made.lane_table([7]) for arm in arms}, arms)
    for arm, table in arms.items():
        rows = table.drop(columns=["reward", "update", "episodes", "episodic_return"])
        parts = [rows.assign(evaluated_task=task, evaluated_visit=visit) for visit, task in enumerate("ab")]
        for part, values in zip(parts, ([1, 2, 3], [4, 5, 6]), strict=True):
            part["reward"] = np.stack([np.full(3, -1.0), values], 1).ravel() + (100 if arm == "fresh" else 0)
        (folder / arm / "evaluations").mkdir()
        pd.concat(parts).to_parquet(folder / arm / "evaluations" / "part-00000.parquet", index=False)
    return folder


def test_the_matrix_of_a_run(run):
    found = results.performance_matrix(run)
    assert found.tasks == ("a", "b", "a")
    expected = [[1, 4, 1], [2, 5, 2], [3, 6, 3]]
    np.testing.assert_array_equal(found.values, [expected, np.array(expected) + 100])
    only = results.performance_matrix(run, arm="fresh")
    assert list(only.lanes["arm"]) == ["fresh"]
    np.testing.assert_array_equal(only.values[0, 0], [101, 104, 101])
    np.testing.assert_allclose(results.intransigence(found).lanes["intransigence"], [100.0] * 3)


def test_forward_transfer_of_areas(run):
    found = results.forward_transfer_of_areas(run, auc_max=1.0)
    np.testing.assert_allclose(found.lanes["forward_transfer"], [-0.5] * 3)
    np.testing.assert_allclose(found.lanes["difference"], [-0.25] * 3)


def test_several_runs_make_one_matrix(run, tmp_path):
    (tmp_path / "again").symlink_to(run)
    found = results.performance_matrix(run, tmp_path / "again")
    assert list(found.lanes["run"]) == ["run", "run", "again", "again"]
    assert list(results.forgetting(found).overall["run"]) == ["run", "run", "again", "again"]
    other = made.write(tmp_path / "other", made.plan(["base"], tasks=["a"], visits=[(0, 20)]))
    with pytest.raises(ValueError, match="the runs have different visits"):
        results.performance_matrix(run, other)


def test_what_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"arm: 'bse' is not an arm of .*; its arms: base, fresh"):
        results.performance_matrix(run, arm="bse")
    empty = made.write(tmp_path / "empty", made.plan(["base"], tasks=["a"], visits=[(0, 20)]))
    with pytest.raises(ValueError, match=r"empty has no evaluations; set evaluation: \{every: visit, tasks: all\}"):
        results.performance_matrix(empty)
    for path in run.glob("*/evaluations/*"):
        pd.read_parquet(path).query("step_in_visit < 20").to_parquet(path, index=False)
    with pytest.raises(ValueError, match=r"no evaluation at the end of a visit; set evaluation.every: visit"):
        results.performance_matrix(run)


def test_one_visit_has_nothing_to_forget():
    one = Matrix(pd.DataFrame({"arm": ["base"], "lane": [0], "seed": [0]}), ("a",), np.ones((1, 1, 1)))
    for measure in (results.forgetting_from_best, results.backward_transfer, results.isolated_forgetting):
        assert all(table.empty for table in measure(one))
    np.testing.assert_array_equal(results.forgetting(one).overall["forgetting"], [0.0])
