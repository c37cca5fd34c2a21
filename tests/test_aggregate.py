"""Scores of seeds and tasks and their aggregates: by hand, against rliable, and the coverage of the intervals."""

import numpy as np
import pandas as pd
import pytest
import reference_rliable
import synthetic_run as made
from documented import agree, page, sentence
from scipy import stats

from plasticity import results
from plasticity.results import aggregate
from plasticity.results.aggregate import STATISTICS

NAN = np.nan


def table_of(arms, *, seeds=None, tasks=None, visits=1, **columns):
    """A table of visits: ``arms``: arm -> [seeds, tasks] or [seeds, tasks, visits]."""
    rows = []
    for arm, values in arms.items():
        values = np.asarray(values, float)
        values = values if values.ndim == 3 else values[:, :, None]
        for lane, of_lane in enumerate(values):
            for visit in range(of_lane.size):
                k, t = divmod(visit, of_lane.shape[0])
                name = (tasks or "abcdefghij")[t]
                seed = (seeds or range(len(values)))[lane]
                rows.append((arm, lane, seed, visit, name, of_lane[t, k]))
    table = pd.DataFrame(rows, columns=["arm", "lane", "seed", "visit", "task", "performance"])
    table["arm"] = pd.Categorical(table["arm"], categories=list(arms), ordered=True)
    return table.assign(**columns)


def scores_of(arms, **options):
    return results.task_scores(table_of(arms, **options))


# ---------------------------------------------------------------------------------------------- scores


def test_a_score_is_the_mean_over_the_visits_to_a_task():
    values = [[[1, 3], [2, 6]], [[5, 5], [0, 1]]]
    (found,) = scores_of({"a": values}, seeds=[7, 3])
    assert (found.seeds, found.tasks, found.point.arm) == ((7, 3), ("a", "b"), "a")
    np.testing.assert_array_equal(found.values, [[2, 4], [5, 0.5]])
    assert found.whole.all()
    (last,) = results.task_scores(table_of({"a": values}), last_tenth=True)
    np.testing.assert_array_equal(last.values, [[3, 6], [5, 1]])


def test_the_last_tenth_of_twenty_visits_is_two():
    (found,) = results.task_scores(table_of({"a": np.arange(20.0).reshape(1, 1, 20)}), last_tenth=True)
    assert found.values == [[18.5]]


def test_scores_of_a_run(tmp_path):
    plan = made.plan(["base", "fresh"], tasks=["a", "b"], visits=[(0, 20), (1, 20), (0, 20)])
    run = made.invented(tmp_path / "run", plan, [4, 9], diverged={"base": {1: 35}})
    visits = results.visits(run)
    base, fresh = results.task_scores(visits)
    own = visits[(visits["arm"] == "base") & (visits["seed"] == 4)]["performance"].to_numpy()
    np.testing.assert_allclose(base.values[0], [(own[0] + own[2]) / 2, own[1]])
    assert np.isnan(base.values[1, 1])  # it diverged in the visit to b
    assert np.isfinite(base.values[1, 0])  # what it had recorded of a
    assert list(base.whole) == [True, False]
    assert fresh.whole.all()
    filled, _ = results.task_scores(visits, missing=0.0)
    np.testing.assert_allclose(filled.values[1], [base.values[1, 0] / 2, 0.0])  # of two visits to a, one was lost
    assert filled.whole.all()


def test_what_was_not_measured_is_not_missing(tmp_path):
    plan = made.plan(["base"], tasks=["a", "b"], visits=[(0, 20), (1, 20)])
    run = made.invented(tmp_path / "run", plan, [0, 1], diverged={"base": {1: 25}})
    records = results.load(run)  # the monitor is taken at the end of a visit only
    (found,) = results.task_scores(records, metric="effective_rank", missing=-1.0)
    ends = records[records["step_in_visit"] == 20]["effective_rank"].to_numpy()
    np.testing.assert_allclose(found.values[0], ends[:2])
    np.testing.assert_allclose(found.values[1], [ends[2], -1.0])


def test_scores_of_evaluations():
    """After each of ten visits both tasks are evaluated; the last tenth is the performance at the end."""
    rows = [
        ("a", 0, 5, 10 * (v + 1), v, "x", task, v + shift) for v in range(10) for task, shift in (("x", 0), ("y", 50))
    ]
    columns = ["arm", "lane", "seed", "step", "visit", "task", "evaluated_task", "reward"]
    table = pd.DataFrame(rows, columns=columns)
    (found,) = results.task_scores(table, metric="reward", task="evaluated_task")
    assert found.tasks == ("x", "y")
    np.testing.assert_array_equal(found.values, [[4.5, 54.5]])
    (found,) = results.task_scores(table, metric="reward", task="evaluated_task", last_tenth=True)
    np.testing.assert_array_equal(found.values, [[9.0, 59.0]])
    last = results.task_scores(table.assign(reward=table["reward"].mask(table["visit"] == 9)), metric="reward",
                               task="evaluated_task", last_tenth=True)  # fmt: skip
    assert np.isnan(last[0].values).all()  # it diverged before
    assert not last[0].whole.any()


def test_a_visit_under_way_is_never_filled_in():
    table = table_of({"a": [[0.5, 0.6], [0.7, 0.8]], "b": [[0.1, 0.2], [0.3, 0.4]]})
    begun = table[(table["arm"] == "a") | (table["visit"] == 0)]
    _, found = results.task_scores(begun, missing=0.0)
    np.testing.assert_array_equal(found.values, [[0.1, NAN], [0.3, NAN]])
    assert not found.whole.any()
    row = results.aggregates([found]).iloc[0]
    assert (row["seeds"], row["tasks"], row["incomplete"], row["missing"]) == (2, 2, 2, 2)
    assert row[[f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")]].isna().all()


def test_an_arm_of_which_only_the_last_tenth_is_wanted_has_no_row_of_it():
    table = table_of({"a": [[[1.0, 2.0]]], "b": [[[3.0, 4.0]]]})
    _, found = results.task_scores(table[(table["arm"] == "a") | (table["visit"] == 0)], last_tenth=True)
    np.testing.assert_array_equal(found.values, [[NAN]])


def test_points_of_a_sweep_are_distinguished():
    table = table_of({"a": [[1.0], [2.0]]}, seeds=[0, 0])
    with pytest.raises(ValueError, match=r"arm 'a' has several lanes with seed 0; distinguish them: by `hyper`"):
        results.task_scores(table)
    found = results.task_scores(table.assign(rate=[0.1, 0.2]), hyper=["rate"])
    assert [each.point.values for each in found] == [{"rate": 0.1}, {"rate": 0.2}]
    again = pd.concat([table_of({"a": [[1.0]]}), table_of({"a": [[3.0]]})])
    with pytest.raises(ValueError, match=r"several lanes with seed 0"):
        results.task_scores(again)
    two_runs = again.assign(run=["x", "y"])
    assert [each.point.run for each in results.task_scores(two_runs)] == ["x", "y"]


def test_what_is_refused():
    table = table_of({"a": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match=r"metric: 'rank' is not a column of the table; there are visit"):
        results.task_scores(table, metric="rank")
    with pytest.raises(ValueError, match=r"the table has no column rate; its columns: arm, lane"):
        results.task_scores(table, hyper=["rate"])
    with pytest.raises(ValueError, match=r"missing: nan is not allowed"):
        results.task_scores(table, missing=NAN)
    found = results.task_scores(table)
    for options, message in (
        ({"statistics": ["iqr"]}, r"statistic: 'iqr' is not allowed; must be one of iqm, mean, median, optimality_gap"),
        ({"confidence": 95}, r"confidence: 95 is not allowed; must be in \(0, 1\)"),
        ({"resamples": 0}, r"resamples: 0 is not allowed"),
        ({"gamma": np.inf}, r"gamma: inf is not allowed"),
    ):
        with pytest.raises(ValueError, match=message):
            results.aggregates(found, **options)
    with pytest.raises(ValueError, match=r"resample: 'seeds' is not allowed; must be one of scores, lanes"):
        results.aggregates(scores_of({"a": [[1.0], [2.0]]}), resample="seeds")


def test_streams_are_not_mixed():
    one, other = table_of({"a": [[1.0, 2.0]]}), table_of({"a": [[1.0, 2.0]]}, tasks="ac")
    both = pd.concat([one.assign(run="x"), other.assign(run="y")])
    with pytest.raises(ValueError, match=r"different streams.*: task 'b' has 1 visits in x and 0 in y; aggregate each"):
        results.task_scores(both)
    twice = table_of({"a": [[[1.0, 2.0], [2.0, 3.0]]]})
    with pytest.raises(ValueError, match=r"task 'a' has 1 visits in x and 2 in z"):
        results.task_scores(pd.concat([one.assign(run="x"), twice.assign(run="z")]))
    with pytest.raises(ValueError, match=r"the table mixes streams: none of its lanes has all of its 3 tasks"):
        results.task_scores(pd.concat([one, other.assign(arm="b")]))
    with pytest.raises(ValueError, match=r"a and a are from different streams: they do not share task b, c"):
        results.aggregates([*results.task_scores(one), *results.task_scores(other)])


def test_normalised_scores():
    (found,) = results.normalise(scores_of({"a": [[10.0, 3.0]]}), {"a": 0.0, "b": 1.0}, {"a": 20.0, "b": 2.0})
    np.testing.assert_array_equal(found.values, [[0.5, 2.0]])
    (found,) = results.normalise(scores_of({"a": [[10.0, 3.0]]}), 0, 5.0)
    np.testing.assert_array_equal(found.values, [[2.0, 0.6]])
    with pytest.raises(ValueError, match="high has no number for task b"):
        results.normalise(scores_of({"a": [[10.0, 3.0]]}), 0.0, {"a": 1.0})
    with pytest.raises(ValueError, match="high: 1 is not allowed for task 'a'; must be above low, 1"):
        results.normalise(scores_of({"a": [[10.0, 3.0]]}), 1.0, 1.0)


def test_differences_are_paired_by_seed():
    table = pd.concat([
        table_of({"base": [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]]}, seeds=[0, 1, 2]),
        table_of({"fresh": [[10.0, 30.0], [20.0, NAN], [7.0, 7.0]]}, seeds=[1, 0, 5]),
    ])  # fmt: skip
    (found,) = results.differences(results.task_scores(table), "fresh")
    assert found.seeds == (0, 1)
    np.testing.assert_array_equal(found.values, [[1 - 20, NAN], [3 - 10, 4 - 30]])
    assert list(found.whole) == [False, True]
    row = results.aggregates([found], ["mean"]).iloc[0]
    assert row["mean"] == (-13 - 26) / 2
    with pytest.raises(ValueError, match=r"control: 'frehs' is not an arm of the scores; their arms: base, fresh"):
        results.differences(results.task_scores(table), "frehs")


def test_differences_are_of_the_same_task_whatever_the_order():
    base = results.task_scores(table_of({"base": [[1.0, 2.0]]}, tasks="ab"))
    fresh = results.task_scores(table_of({"fresh": [[10.0, 30.0]]}, tasks="ba"))
    (found,) = results.differences([*base, *fresh], "fresh")
    assert found.tasks == ("a", "b")
    np.testing.assert_array_equal(found.values, [[1 - 30, 2 - 10]])


def test_a_control_with_several_points_that_agree_has_no_difference():
    table = table_of({"base": [[1.0], [2.0]], "fresh": [[3.0], [4.0], [5.0], [6.0]]}, seeds=[0, 1, 0, 1])
    table["rate"] = [NAN, NAN, 0.1, 0.1, 0.2, 0.2]
    (found,) = results.differences(results.task_scores(table, hyper=["rate"]), "fresh")
    assert found.values.shape == (0, 1)
    assert np.isnan(results.aggregates([found])["iqm"][0])
    turned = results.differences(results.task_scores(table, hyper=["rate"]), "base")
    np.testing.assert_array_equal([each.values[:, 0] for each in turned], [[2.0, 2.0], [4.0, 4.0]])


# ---------------------------------------------------------------------------------------------- statistics


def test_statistics_by_hand():
    # in order: 0 1 2 3 4 5 6 7, the middle half 2 3 4 5
    values = np.array([[0.0, 1.0, 2.0, 3.0], [7.0, 6.0, 5.0, 4.0]])
    row = results.aggregates(scores_of({"a": values}), gamma=4.0).iloc[0]
    assert row["iqm"] == 3.5
    assert row["mean"] == 3.5
    assert row["median"] == 3.5
    assert row["optimality_gap"] == 4 - (0 + 1 + 2 + 3 + 4 * 4) / 8
    uneven = np.array([[0.0, 10.0, 1.0], [2.0, 20.0, 3.0], [1.0, 60.0, 5.0]])  # c = floor(9 / 4): 2 3 5 1 of the middle
    row = results.aggregates(scores_of({"a": uneven})).iloc[0]
    assert row["iqm"] == pytest.approx((1 + 2 + 3 + 5 + 10) / 5)  # in order: 0 1 | 1 2 3 5 10 | 20 60
    assert row["mean"] == pytest.approx((1 + 30 + 3) / 3)
    assert row["median"] == 3.0
    assert row["optimality_gap"] == pytest.approx(1 / 9)


def test_a_missing_score_is_left_out():
    values = np.array([[0.0, NAN], [4.0, 6.0], [8.0, NAN]])
    row = results.aggregates(scores_of({"a": values}), gamma=10.0).iloc[0]
    assert row["mean"] == (4 + 6) / 2  # each task weighs the same
    assert row["iqm"] == 5.0  # of 0 4 6 8
    assert row["optimality_gap"] == 10 - 18 / 4
    assert (row["missing"], row["incomplete"]) == (2, 2)
    assert np.isnan(row["mean_low"])  # one score of a task has no spread


def test_a_single_seed_has_no_bounds_and_no_arm_no_row():
    row = results.aggregates(scores_of({"a": [[1.0, 2.0]]})).iloc[0]
    assert row["mean"] == 1.5
    assert np.isnan([row["mean_low"], row["iqm_high"]]).all()
    assert results.aggregates([]).empty


@pytest.mark.parametrize("shape", [(2, 1), (5, 1), (3, 7), (10, 26)])
def test_rliable_agrees(shape):
    metrics = pytest.importorskip("rliable.metrics")
    values = np.random.default_rng(shape[0]).normal(0.6, 1.0, shape)
    expected = {
        "iqm": metrics.aggregate_iqm(values),
        "mean": metrics.aggregate_mean(values),
        "median": metrics.aggregate_median(values),
        "optimality_gap": metrics.aggregate_optimality_gap(values),
    }
    found = {name: float(aggregate.statistic(name)(values)) for name in STATISTICS}
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert found["iqm"] == pytest.approx(stats.trim_mean(values, 0.25, axis=None), rel=1e-12)


def test_rliables_intervals_agree():
    library, metrics = reference_rliable.library(), pytest.importorskip("rliable.metrics")
    tasks = [f"t{k}" for k in range(6)]
    values = np.random.default_rng(0).normal(0.5, 1.0, (8, 6)) + np.arange(6)
    np.random.seed(1)
    both = lambda x: np.array([metrics.aggregate_iqm(x), metrics.aggregate_mean(x)])  # noqa: E731
    _, expected = library.get_interval_estimates({"a": values}, both, reps=2000)
    row = results.aggregates(scores_of({"a": values}, tasks=tasks), resample="scores", resamples=8000).iloc[0]
    # A quantile at 2.5 % of 2000 draws has a standard error of 0.06 of a standard deviation: 0.06 * 0.14.
    np.testing.assert_allclose([row["iqm_low"], row["mean_low"]], expected["a"][0], atol=0.03)
    np.testing.assert_allclose([row["iqm_high"], row["mean_high"]], expected["a"][1], atol=0.03)


# ---------------------------------------------------------------------------------------------- the bootstrap


def test_scores_are_drawn_within_their_task():
    values = np.array([[0.0, 10.0], [1.0, 11.0], [2.0, NAN]])
    draws = np.concatenate(list(aggregate.resampled(values, 400, np.random.default_rng(0), chunk=37)))
    assert draws.shape == (400, 3, 2)
    assert set(np.unique(draws[..., 0])) == {0.0, 1.0, 2.0}
    assert set(np.unique(draws[:, :2, 1])) == {10.0, 11.0}
    assert np.isnan(draws[:, 2, 1]).all()  # a task is drawn as often as it has scores
    assert (draws[:, 0, 0] + 10 != draws[:, 0, 1]).any()  # each task separately
    whole = np.concatenate(list(aggregate.resampled(values[:2], 50, np.random.default_rng(0), "lanes")))
    np.testing.assert_array_equal(whole[..., 0] + 10, whole[..., 1])


def test_the_standard_deviation_of_the_bootstrap():
    # The variance of a resampled mean is (1 - 1/n) s^2 / n for each task.
    values = np.random.default_rng(3).normal(size=(5, 4)) * [1, 2, 3, 4]
    draws = np.concatenate(list(aggregate.resampled(values, 20_000, np.random.default_rng(0))))
    expected = np.sqrt((values.var(0) / 5).sum()) / 4
    assert draws.mean((1, 2)).std() == pytest.approx(expected, rel=0.03)
    lanes = np.concatenate(list(aggregate.resampled(values, 20_000, np.random.default_rng(0), "lanes")))
    assert lanes.mean((1, 2)).std() == pytest.approx(values.mean(1).std() / np.sqrt(5), rel=0.03)


def test_an_interval_is_the_same_whatever_else_is_in_the_table():
    rng = np.random.default_rng(5)
    arms = {"a": rng.normal(size=(9, 3)), "b": rng.normal(size=(9, 3))}
    both, alone = results.aggregates(scores_of(arms)), results.aggregates(scores_of({"b": arms["b"]}))
    pd.testing.assert_frame_equal(both[both["arm"] == "b"].reset_index(drop=True), alone)
    other = results.aggregates(scores_of(arms), seed=1)
    assert (other["iqm_low"] != both["iqm_low"]).all()
    narrow = results.aggregates(scores_of(arms), confidence=0.5)
    assert (narrow["mean_low"] > both["mean_low"]).all()


def coverage(seeds, tasks, *, shared=0.0, draws=500, resamples=400, unit="scores", statistics=("mean", "iqm")):
    """The share of intervals that hold 0, the mean and the interquartile mean of what is drawn."""
    rng, held = np.random.default_rng(11), np.zeros(len(statistics))
    chosen = [aggregate.statistic(name) for name in statistics]
    for draw in range(draws):
        values = rng.normal(size=(seeds, tasks)) + shared * rng.normal(size=(seeds, 1))
        (sample,) = aggregate.resampled(values, resamples, np.random.default_rng(draw), unit, resamples)
        bounds = [np.quantile(function(sample), [0.025, 0.975]) for function in chosen]
        held += [low <= 0 <= high for low, high in bounds]
    return held / draws


def test_intervals_of_many_seeds_hold_the_truth():
    found = coverage(20, 5)
    assert ((found >= 0.93) & (found <= 0.97)).all()


def test_intervals_of_few_seeds_are_too_narrow():
    """Of one task, as docs/statistics.md says."""
    text = sentence(page("statistics.md"), "interval of the mean covered the true value in ", " with ten")
    agree(text, [100 * coverage(seeds, 1, statistics=["mean"])[0] for seeds in (5, 10)])


def test_lanes_that_do_well_in_all_tasks_have_to_be_drawn_whole():
    (apart,), (whole,) = (coverage(40, 4, shared=1.0, unit=unit, statistics=["mean"]) for unit in ("scores", "lanes"))
    assert apart < 0.8
    assert 0.93 <= whole <= 0.97
