"""Performance profiles and the probability of improvement: by hand and against rliable."""

import numpy as np
import pandas as pd
import pytest
import reference_rliable
from scipy import stats

from plasticity import results

NAN = np.nan


def scores_of(arms, *, seeds=None, **columns):
    """Of a table of visits, one to each task; ``arms``: arm -> [seeds, tasks]."""
    rows = [
        (arm, lane, (seeds or range(len(values)))[lane], task, f"t{task}", value)
        for arm, values in arms.items()
        for lane, of_lane in enumerate(values)
        for task, value in enumerate(of_lane)
    ]
    table = pd.DataFrame(rows, columns=["arm", "lane", "seed", "visit", "task", "performance"])
    table["arm"] = pd.Categorical(table["arm"], categories=list(arms), ordered=True)
    return results.task_scores(table.assign(**columns), hyper=list(columns))


def drawn(shape, seed, shift=0.0):
    """Scores with ties."""
    return np.round(np.random.default_rng(seed).normal(shift, 1.0, shape), 1)


def test_a_profile_by_hand():
    found = results.performance_profiles(scores_of({"a": [[0.0, 1.0], [2.0, 5.0]]}), [-1.0, 0.0, 1.5, 5.0])
    assert found["threshold"].tolist() == [-1.0, 0.0, 1.5, 5.0]
    assert found["share"].tolist() == [1.0, 0.75, 0.5, 0.0]  # above, not at
    assert found["share_low"].tolist()[0] == found["share_high"].tolist()[0] == 1.0
    averaged = results.performance_profiles(scores_of({"a": [[0.0, 1.0], [2.0, 5.0]]}), [0.5, 1.0, 3.5], averaged=True)
    assert averaged["share"].tolist() == [1.0, 0.5, 0.0]  # the means are 1 and 3


def test_a_band_by_hand():
    # Of two scores, one above: 0, 1/2 or 1 of a resample are, with probability 1/4, 1/2, 1/4.
    arms = {"a": [[0.0], [1.0]]}
    wide = results.performance_profiles(scores_of(arms), [0.5], confidence=0.9).iloc[0]
    assert wide[["share", "share_low", "share_high"]].tolist() == [0.5, 0.0, 1.0]
    narrow = results.performance_profiles(scores_of(arms), [0.5], confidence=0.4).iloc[0]
    assert narrow[["share_low", "share_high"]].tolist() == [0.5, 0.5]


def test_thresholds_span_the_scores_of_all_arms():
    found = results.performance_profiles(scores_of({"a": [[0.0], [1.0]], "b": [[3.0], [NAN]]}))
    assert len(found) == 2 * 101
    of_b = found[found["arm"] == "b"]
    assert (of_b["threshold"].iloc[0], of_b["threshold"].iloc[-1]) == (0.0, 3.0)
    assert set(of_b["share"]) == {0.0, 1.0}  # of the one score that there is
    assert of_b["share_low"].isna().all()
    assert results.performance_profiles([]).empty


@pytest.mark.parametrize("averaged", [False, True])
def test_the_profile_decreases_and_its_band_holds_it(averaged):
    found = results.performance_profiles(scores_of({"a": drawn((9, 4), 0)}), averaged=averaged)
    assert (np.diff(found["share"]) <= 0).all()
    assert (np.diff(found["share_low"]) <= 0).all()
    assert ((found["share_low"] <= found["share"]) & (found["share"] <= found["share_high"])).mean() > 0.9


def test_a_task_without_a_score_leaves_no_profile():
    found = results.performance_profiles(scores_of({"a": [[0.0, 1.0]], "b": [[0.0, NAN]]}), [0.5])
    np.testing.assert_array_equal(found["share"], [0.5, NAN])


def test_profiles_agree_with_rliable():
    library = reference_rliable.library()
    values, taus = drawn((7, 5), 1), np.linspace(-2, 2, 23)
    one, mean = (
        results.performance_profiles(scores_of({"a": values}), taus, averaged=averaged, resample="scores")
        for averaged in (False, True)
    )
    np.testing.assert_array_equal(one["share"], library.score_distributions(values, taus))
    np.testing.assert_array_equal(mean["share"], library.average_score_distributions(values, taus))
    np.random.seed(0)
    _, bands = library.create_performance_profile({"a": values}, taus, reps=1000)
    np.testing.assert_allclose(one[["share_low", "share_high"]].to_numpy().T, bands["a"], atol=1.01 / 35)  # one score


@pytest.mark.parametrize("thresholds", [[[0.0]], [np.inf], 3.0])
def test_bad_thresholds_are_refused(thresholds):
    with pytest.raises(ValueError, match=r"thresholds: .* is not allowed; must be a one-dimensional array of finite"):
        results.performance_profiles(scores_of({"a": [[0.0]]}), thresholds)


def test_an_improvement_by_hand():
    # task 0: of 4 pairs 2 > 1, 2 = 2, 3 > 1, 3 > 2; task 1: 0 < 1, 0 < 4, 9 > 1, 9 > 4
    scores = scores_of({"a": [[2.0, 0.0], [3.0, 9.0]], "base": [[1.0, 1.0], [2.0, 4.0]]})
    (row,) = results.probability_of_improvement(scores, "base").to_dict("records")
    assert row["probability"] == (3.5 / 4 + 2 / 4) / 2
    assert (row["arm"], row["control"], row["seeds"], row["control_seeds"]) == ("a", "base", 2, 2)
    assert 0 <= row["probability_low"] <= row["probability"] <= row["probability_high"] <= 1
    (turned,) = results.probability_of_improvement(scores, "a").to_dict("records")
    assert turned["probability"] == pytest.approx(1 - row["probability"])


def test_an_interval_of_improvement_by_hand():
    # Of one arm {0, 2} against {1, 1}: half of a resample's scores are 0 or 2 with probability 1/4, 1/2, 1/4.
    scores = scores_of({"a": [[0.0], [2.0]], "base": [[1.0], [1.0]]})
    wide = results.probability_of_improvement(scores, "base", confidence=0.9).iloc[0]
    assert wide[["probability", "probability_low", "probability_high"]].tolist() == [0.5, 0.0, 1.0]
    narrow = results.probability_of_improvement(scores, "base", confidence=0.4).iloc[0]
    assert narrow[["probability_low", "probability_high"]].tolist() == [0.5, 0.5]


def test_the_two_arms_are_drawn_independently():
    # The same two scores in both: 1/16 of the pairs of resamples are all won, and 1/16 all lost.
    scores = scores_of({"a": [[0.0], [1.0]], "base": [[0.0], [1.0]]})
    row = results.probability_of_improvement(scores, "base").iloc[0]
    assert row[["probability", "probability_low", "probability_high"]].tolist() == [0.5, 0.0, 1.0]


def test_missing_scores_are_no_games():
    scores = scores_of({"a": [[2.0], [NAN], [0.0]], "base": [[1.0], [1.0], [NAN]]})
    assert results.probability_of_improvement(scores, "base")["probability"].tolist() == [0.5]
    none = scores_of({"a": [[2.0, 1.0]], "base": [[1.0, NAN]]})
    assert results.probability_of_improvement(none, "base")["probability"].isna().all()


@pytest.mark.parametrize("shapes", [((5, 3), (5, 3)), ((4, 6), (9, 6)), ((10, 1), (3, 1))])
def test_improvement_agrees_with_rliable(shapes):
    metrics = pytest.importorskip("rliable.metrics")
    x, y = drawn(shapes[0], 2, shift=0.4), drawn(shapes[1], 3)
    found = results.probability_of_improvement(scores_of({"x": x, "y": y}), "y", resamples=10)["probability"][0]
    assert found == pytest.approx(metrics.probability_of_improvement(x, y), abs=1e-15)
    by_task = [stats.mannwhitneyu(x[:, k], y[:, k]).statistic / (len(x) * len(y)) for k in range(x.shape[1])]
    assert found == pytest.approx(np.mean(by_task), abs=1e-15)


def test_intervals_of_improvement_agree_with_rliable():
    library, metrics = reference_rliable.library(), pytest.importorskip("rliable.metrics")
    x, y = drawn((6, 3), 4, shift=0.5), drawn((5, 3), 5)
    row = results.probability_of_improvement(scores_of({"x": x, "y": y}), "y", resamples=6000).iloc[0]
    np.random.seed(2)
    value = lambda *pair: np.array([metrics.probability_of_improvement(*pair)])  # noqa: E731
    _, expected = library.get_interval_estimates({"x,y": [x, y]}, value, reps=800)
    # A quantile at 2.5 % of 800 draws has a standard error of 0.094 of a standard deviation, here 0.1: four of them.
    np.testing.assert_allclose(
        row[["probability_low", "probability_high"]].astype(float), expected["x,y"][:, 0], atol=0.04
    )


def test_points_of_a_sweep_meet_the_controls_point():
    arms = {"a": [[1.0], [5.0]], "base": [[2.0], [4.0]]}
    found = results.probability_of_improvement(scores_of(arms, seeds=[0, 0], rate=[0.1, 0.2, 0.1, 0.2]), "base")
    assert found["rate"].tolist() == [0.1, 0.2]
    assert found["probability"].tolist() == [0.0, 1.0]
    assert found["probability_low"].isna().all()  # one seed each
    alone = results.probability_of_improvement(scores_of(arms, seeds=[0, 0], rate=[0.1, 0.2, 0.1, 0.3]), "base")
    np.testing.assert_array_equal(alone["probability"], [0.0, NAN])
    with pytest.raises(ValueError, match=r"control: 'bse' is not an arm of the scores; their arms: a, base"):
        results.probability_of_improvement(scores_of(arms), "bse")
