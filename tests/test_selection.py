"""The best point of a sweep on seeds that are not reported, and curves of sensitivity."""

import numpy as np
import pandas as pd
import pytest

from plasticity import results

NAN = np.nan
RATE, DECAY = "agent.rate", "agent.decay"


def sweep(arms, *, missing=None):
    """``arms``: arm -> {(rate, decay): the score of seeds 0, 1, ... on a single task}."""
    rows = []
    for arm, cells in arms.items():
        lane = 0
        for (rate, decay), values in cells.items():
            for seed, value in enumerate(values):
                rows.append((arm, lane, seed, 0, "t", value, rate, decay))
                lane += 1
    table = pd.DataFrame(rows, columns=["arm", "lane", "seed", "visit", "task", "performance", RATE, DECAY])
    table["arm"] = pd.Categorical(table["arm"], categories=list(arms), ordered=True)
    return results.task_scores(table, hyper=[RATE, DECAY], missing=missing)


SWEEP = {
    "a": {(0.1, 0.0): [1.0, 2.0, 9.0, 9.0], (0.2, 0.0): [3.0, 4.0, 5.0, 7.0], (0.3, 0.0): [2.0, 2.0, 8.0, 8.0]},
    "b": {(0.1, 0.0): [7.0, 6.0, 1.0, 2.0], (0.2, 0.0): [3.0, 4.0, 5.0, 6.0]},
}


def test_the_best_point_on_some_seeds_is_reported_on_the_others():
    found = results.select(sweep(SWEEP), [0, 1])
    assert found.chosen["arm"].tolist() == ["a", "b"]
    assert found.chosen[RATE].tolist() == [0.2, 0.1]
    assert found.chosen["mean"].tolist() == [3.5, 6.5]
    assert found.chosen["points"].tolist() == [3, 2]
    assert [each.seeds for each in found.report] == [(2, 3), (2, 3)]
    assert results.aggregates(found.report)["mean"].tolist() == [6.0, 1.5]
    turned = results.select(sweep(SWEEP), [2, 3], [1, 0])
    assert turned.chosen[RATE].tolist() == [0.1, 0.2]
    np.testing.assert_array_equal(turned.report[0].values[:, 0], [2.0, 1.0])


def test_low_may_be_best():
    found = results.select(sweep(SWEEP), [0, 1], best="lowest")
    assert found.chosen[RATE].tolist() == [0.1, 0.2]
    gap = results.select(sweep(SWEEP), [0, 1], by="optimality_gap", gamma=3.0)
    assert gap.chosen[RATE].tolist() == [0.2, 0.1]
    assert gap.chosen["optimality_gap"].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="best: 'lowest' is not allowed with optimality_gap"):
        results.select(sweep(SWEEP), [0, 1], by="optimality_gap", best="lowest")


def test_the_end_of_a_range_is_reported():
    cells = {(rate, 0.0): [rate] * 4 for rate in (0.1, 0.2, 0.3)}
    found = results.select(sweep({"a": cells, "b": SWEEP["a"], "c": SWEEP["b"]}), [0, 1]).chosen
    assert found["at_edge"].tolist() == [RATE, "", ""]  # of two values each is an end


def test_the_first_of_equal_points_is_chosen():
    found = results.select(sweep({"a": {(0.2, 0.0): [1.0] * 4, (0.1, 0.0): [1.0] * 4}}), [0, 1])
    assert found.chosen[RATE].tolist() == [0.2]


def test_a_point_at_which_a_lane_diverged_is_not_chosen_for_its_survivors():
    cells = {(0.1, 0.0): [1.0, 1.0, 1.0, 1.0], (0.9, 0.0): [5.0, NAN, 5.0, 5.0]}
    found = results.select(sweep({"a": cells}), [0, 1])
    assert found.chosen[[RATE, "points", "eligible"]].iloc[0].tolist() == [0.1, 2, 1]
    filled = results.select(sweep({"a": cells}, missing=-4.0), [0, 1])
    assert filled.chosen[RATE].tolist() == [0.1]
    assert filled.chosen["eligible"].tolist() == [2]
    assert results.select(sweep({"a": cells}, missing=0.0), [0, 1]).chosen["mean"].tolist() == [2.5]
    with pytest.raises(
        ValueError, match=r"arm 'a' has no point at which seeds 0, 1 are all complete; pass `missing` to task_scores"
    ):
        results.select(sweep({"a": {(0.9, 0.0): [5.0, NAN, 5.0, 5.0]}}), [0, 1])


@pytest.mark.parametrize(
    ("selection", "report", "message"),
    [
        ([0, 1], [1, 2], r"selection_seeds and report_seeds share 1; must be disjoint"),
        ([0], None, r"selection_seeds: \[0\] is not allowed; must be at least 2 seeds"),
        ([0, 0], None, r"selection_seeds: \[0\] is not allowed"),
        ([0, 1, 2], None, r"report_seeds of a, rate=0.1: \[3\] is not allowed"),
        ([0, 1], [2], r"report_seeds of a, rate=0.2: \[2\] is not allowed"),
        ([0, 7], None, r"a, rate=0.1 has no seed 7; its seeds: 0, 1, 2, 3"),
        ([0, 1], [2, 9], r"a, rate=0.2 has no seed 9; its seeds"),
    ],
)
def test_bad_seeds_are_refused(selection, report, message):
    with pytest.raises(ValueError, match=message):
        results.select(sweep(SWEEP), selection, report)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="best: 'most' is not allowed; must be one of highest, lowest"):
        results.select(sweep(SWEEP), [0, 1], best="most")
    with pytest.raises(ValueError, match="statistic: 'max' is not allowed"):
        results.select(sweep(SWEEP), [0, 1], by="max")
    with pytest.raises(ValueError, match=r"name: 'rate' is not swept; there are agent.decay, agent.rate"):
        results.sensitivity(sweep(SWEEP), "rate")
    with pytest.raises(ValueError, match="others: 'best' is not allowed; must be one of fixed, averaged"):
        results.sensitivity(sweep(SWEEP), RATE, others="best")


def test_seeds_apart_take_away_the_bias_of_choosing():
    # All 20 points are equally good: their mean is 0, whatever the best of them looks like.
    rng = np.random.default_rng(0)
    points = sweep({"a": {(rate, 0.0): np.zeros(6) for rate in range(20)}})
    seen, reported = [], []
    for _ in range(100):
        found = results.select([each._replace(values=rng.normal(size=(6, 1))) for each in points], [0, 1, 2])
        seen.append(found.chosen["mean"][0])
        reported.append(found.report[0].values.mean())
    assert np.mean(seen) > 0.9  # the expected largest of 20 means, 1.87 / sqrt(3), is 1.08
    assert abs(np.mean(reported)) < 0.18  # three standard errors of 1 / sqrt(3 * 100)


GRID = {
    "a": {
        (0.2, 0.0): [1.0, 3.0, 1.0, 2.0],
        (0.1, 0.0): [4.0, 6.0, 2.0, 4.0],
        (0.2, 0.5): [5.0, 7.0, 9.0, 9.0],
        (0.1, 0.5): [0.0, 0.0, 6.0, 8.0],
    }
}


def test_sensitivity_with_the_others_at_their_best():
    found = results.sensitivity(sweep(GRID), RATE)  # the best point: rate 0.2, decay 0.5
    assert found[RATE].tolist() == [0.1, 0.2]
    assert found[DECAY].tolist() == [0.5, 0.5]
    assert found["mean"].tolist() == [3.5, 7.5]
    assert found["seeds"].tolist() == [4, 4]
    assert (found["mean_low"] < found["mean"]).all()
    lowest = results.sensitivity(sweep(GRID), RATE, best="lowest", by="median", resamples=50)  # rate 0.2, decay 0
    assert lowest["median"].tolist() == [4.0, 1.75]


def test_sensitivity_on_other_seeds_than_those_of_the_choice():
    found = results.sensitivity(sweep(GRID), RATE, selection_seeds=[0, 1])
    assert found[DECAY].tolist() == [0.5, 0.5]
    assert found["mean"].tolist() == [7.0, 9.0]
    assert found["seeds"].tolist() == [2, 2]


def test_sensitivity_averaged_over_the_others():
    found = results.sensitivity(sweep(GRID), RATE, others="averaged")
    assert DECAY not in found
    assert found[RATE].tolist() == [0.1, 0.2]
    np.testing.assert_allclose(found["mean"], [3.75, 4.625])
    per_seed = np.array([[2.0, 3.0, 4.0, 6.0], [3.0, 5.0, 5.0, 5.5]])  # its spread is of averages
    assert (found["mean_low"] >= per_seed.min(1)).all()
    assert (found["mean_high"] <= per_seed.max(1)).all()


def test_sensitivity_of_arms_that_have_it():
    plain = sweep({"a": SWEEP["a"], "plain": {(NAN, NAN): [1.0, 2.0, 3.0, 4.0]}})
    found = results.sensitivity(plain, RATE)
    assert found["arm"].tolist() == ["a"] * 3
    assert found[RATE].tolist() == [0.1, 0.2, 0.3]


def test_values_that_are_no_numbers_stay_in_their_order():
    cells = {("relu", 0.0): [1.0, 2.0], ("adam", 0.0): [3.0, 4.0]}
    assert results.sensitivity(sweep({"a": cells}), RATE)[RATE].tolist() == ["relu", "adam"]
    assert (
        results.select(sweep({"a": {key: [*each, *each] for key, each in cells.items()}}), [0, 1]).chosen["at_edge"][0]
        == ""
    )


def test_sensitivity_of_one_seed_has_no_bounds():
    found = results.sensitivity(sweep({"a": {(0.1, 0.0): [1.0], (0.2, 0.0): [2.0]}}), RATE)
    assert found["mean"].tolist() == [1.0, 2.0]
    assert found[["mean_low", "mean_high"]].isna().all(axis=None)


def test_an_average_misses_what_one_of_its_points_misses():
    cells = {(0.1, 0.0): [1.0, NAN, 3.0], (0.1, 0.5): [3.0, 9.0, 5.0]}
    found = results.sensitivity(sweep({"a": cells}), RATE, others="averaged").iloc[0]
    assert (found["mean"], found["incomplete"], found["missing"]) == (3.0, 1, 1)
