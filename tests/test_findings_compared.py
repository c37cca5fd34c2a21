"""Comparisons of arms, times to a threshold, tasks and corrections, on tables made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_findings_judge import NOISE, SEEDS, clause, constant, of, table

from plasticity.core.errors import UserError
from plasticity.findings.criterion import Crossing, parse_criterion
from plasticity.findings.judge import judge_clause, passes
from plasticity.findings.lanes import time_to, visits_to
from plasticity.findings.samples import samples
from plasticity.findings.show import by_task, number, outcome
from plasticity.findings.wording import clause_text

ABC = ["a", "b", "c"]


def interval(sample, confidence=0.95):
    """An independent computation of the t interval."""
    test = stats.ttest_1samp(sample, 0.0)
    ends = test.confidence_interval(confidence)
    return pytest.approx((np.mean(sample), ends.low, ends.high))


def numbers(found):
    return found.number, found.low, found.high


# ------------------------------------------------------------------------------------------------ comparisons


def test_contrasts_are_of_each_arm_with_the_one_before_it():
    """b - a = 2 + noise / 10, c - b = 1 - noise / 5: the second is further from holding."""
    a = constant(1.0, noise=1.0)
    made = of(table({"a": a, "b": a + constant(2.0, noise=0.1), "c": a + constant(3.0, noise=-0.1)}))
    found = judge_clause(clause(arms=ABC, compare="contrasts"), made)
    assert found.holds
    assert numbers(found) == interval(1 - NOISE / 5)
    assert found.contrasts[0] == interval(2 + NOISE / 10)
    assert found.contrasts[1] == numbers(found)
    assert clause_text(clause(arms=ABC, compare="contrasts")) == "performance, last tenth: b - a, c - b > 0"
    low = numbers(found)[1]
    assert judge_clause(clause(arms=ABC, compare="contrasts", bound=low - 1e-9), made).holds
    assert not judge_clause(clause(arms=ABC, compare="contrasts", bound=low + 1e-9), made).holds


def test_a_dose_that_is_not_monotone_fails_the_contrasts_and_passes_the_correlation():
    """Ranks 1 3 2 have a correlation of 0.5 with the levels in every seed, so that its interval has no width."""
    made = of(table({"a": constant(1.0), "b": constant(3.0), "c": constant(2.0)}))
    rank = judge_clause(clause(arms=ABC, compare="correlation", levels=[0.01, 0.1, 1]), made)
    assert rank.holds
    assert numbers(rank) == (0.5, 0.5, 0.5)
    steps = clause(arms=ABC, compare="contrasts")
    found = judge_clause(steps, made)
    assert not found.holds
    assert found.contrasts == ((2.0, 2.0, 2.0), (-1.0, -1.0, -1.0))
    row = {**found._asdict(), "contrasts": [list(pair) for pair in found.contrasts]}
    assert number(row) == "2, -1"
    assert outcome(steps, row) == "does not hold"


@pytest.mark.parametrize(
    ("direction", "bound", "holds"),
    [("below", 3.5, True), ("below", 2.5, False), ("within", [0.5, 3.5], True), ("within", [1.5, 3.5], False)],
)
def test_contrasts_below_and_within(direction, bound, holds):
    made = of(table({"a": constant(0.0), "b": constant(1.0), "c": constant(4.0)}))
    assert judge_clause(clause(arms=ABC, compare="contrasts", direction=direction, bound=bound), made).holds == holds


def test_one_contrast_on_the_wrong_side_is_evidence_against_all():
    """The widest interval decides whether the clause holds; another one may show that it does not."""
    steps = clause(arms=ABC, compare="contrasts")
    row = {"holds": False, "number": 0.0, "low": -5.0, "high": 5.0, "contrasts": [[0.0, -5.0, 5.0], [-1.0, -2.0, -0.5]]}
    assert outcome(steps, row) == "does not hold"
    assert outcome(steps, {**row, "contrasts": [[0.0, -5.0, 5.0], [None, None, None]]}) == "inconclusive"


def test_a_missing_seed_of_one_contrast_counts():
    lost = constant(2.0)
    lost[3, 9] = np.nan
    made = of(table({"a": constant(1.0), "b": lost, "c": constant(3.0)}))
    found = judge_clause(clause(arms=ABC, compare="contrasts"), made)
    assert found.seeds == 7
    assert not found.holds


def test_a_difference_of_differences_is_paired_by_seed():
    """(a - b) - (c - d) = 2 - 1 + noise - noise / 2, whatever the arms of a seed share."""
    shared = 100 * NOISE[:, None]
    arms = {"a": constant(3.0, noise=1.0), "b": constant(1.0), "c": constant(1.0, noise=0.5), "d": constant(0.0)}
    made = of(table({arm: shared + values for arm, values in arms.items()}))
    asked = clause(arms=[*"abcd"], compare="difference_of_differences", bound=0)
    found = judge_clause(asked, made)
    assert numbers(found) == interval(1 + NOISE / 2)
    assert found.holds == (found.low > 0)
    assert clause_text(asked) == "performance, last tenth: (a - b) - (c - d) > 0"
    swapped = judge_clause(clause(arms=[*"acbd"], compare="difference_of_differences"), made)
    assert numbers(swapped) == pytest.approx(numbers(found))  # the interaction of two factors is symmetric in them


def test_a_slope_over_levels_is_the_least_squares_slope_of_each_seed():
    levels = [0.0, 1.0, 5.0]
    arms = {"a": constant(1.0, noise=0.3), "b": constant(2.0, noise=-0.2), "c": constant(-1.0, noise=0.7)}
    made = of(table(arms))
    asked = clause(arms=ABC, compare="slope", levels=levels, direction="below", bound=0.5)
    expected = [stats.linregress(levels, [arms[arm][seed, -1] for arm in ABC]).slope for seed in range(SEEDS)]
    found = judge_clause(asked, made)
    assert numbers(found) == interval(expected)
    assert clause_text(asked) == "slope of (performance, last tenth) by the level over a, b, c < 0.5"
    # by hand, for a seed without noise: levels - mean = -2, -1, 3; (-2 * 1 - 1 * 2 + 3 * -1) / 14 = -0.5
    assert dict(samples(asked, made).tested[0].values)[3] == pytest.approx(-0.5)


def test_a_slope_needs_every_arm_of_a_seed():
    gap = constant(2.0)
    gap[2, 9] = np.nan
    made = of(table({"a": constant(1.0), "b": gap, "c": constant(3.0)}))
    assert judge_clause(clause(arms=ABC, compare="slope", levels=[1, 2, 3]), made).seeds == 7


# ------------------------------------------------------------------------------------------------------ times


def lane(values, lost=()):
    rows = pd.DataFrame({"visit": range(len(values)), "value": np.asarray(values, float), "lost": False})
    rows.loc[list(lost), "lost"] = True
    return rows


@pytest.mark.parametrize(
    ("numbers", "way", "lost", "diverged", "expected"),
    [
        ([0.1, 0.5, 0.2, 0.9], "up", (), None, 2),  # at the threshold is enough, and the first time counts
        ([0.1, 0.2, 0.3, 0.9], "up", (), None, 4),
        ([0.1, 0.2, 0.3, 0.4], "up", (), None, 4),  # never: censored at the number of visits
        ([0.9, 0.8, 0.4, 0.9], "down", (), None, 3),
        ([0.4, 0.8, 0.4, 0.9], "down", (), None, 1),
        ([np.nan, 0.2, np.nan, 0.9], "up", (), None, 4),  # visits without a value cannot cross
        ([np.nan] * 4, "up", (), None, np.nan),
        ([0.1, 0.6, np.nan, np.nan], "up", (2, 3), None, 2),  # it diverged after it had crossed
        ([0.1, 0.2, np.nan, np.nan], "up", (2, 3), None, np.nan),
        ([0.1, 0.2, np.nan, np.nan], "up", (2, 3), 0.0, 4),
        ([0.9, 0.8, np.nan, np.nan], "down", (2, 3), 0.0, 3),  # with the value 0, diverging crosses
    ],
)
def test_the_time_to_a_threshold_in_visits(numbers, way, lost, diverged, expected):
    found = time_to(lane(numbers, lost), Crossing(0.5, way), 4, diverged)
    assert found == pytest.approx(expected, nan_ok=True)


def test_two_arms_are_compared_by_their_times():
    """Seeds of a fall below 0.5 in visit 3 to 6, those of b in visit 5 to 8, or never."""
    falls_a, falls_b = np.array([3, 4, 5, 6] * 2), np.array([5, 6, 7, 8, 10, 11, 12, 13])
    curves = {arm: (np.arange(1, 11) < falls[:, None]) * 1.0 for arm, falls in (("a", falls_a), ("b", falls_b))}
    asked = clause(arms=["b", "a"], compare="difference", at="time", threshold=0.5, crossing="down", bound=1)
    found = judge_clause(asked, of(table(curves)))
    assert numbers(found) == interval(np.minimum(falls_b, 10) - falls_a)
    assert found.holds
    assert found.never == 4 - 1  # falling in visit 10, the last one, is not never
    assert number(found._asdict()).endswith("] (3 lanes never)")
    assert clause_text(asked) == "visits until performance <= 0.5: b - a > 1"


def test_times_in_steps_are_read_as_a_quantity_of_visits():
    asked = clause(within="time", threshold=0.9, crossing="up", direction="below", bound=50)
    steps = table({"a": constant(40.0, noise=1.0)})
    found = judge_clause(asked, lambda what, record: steps if record == Crossing(0.9, "up") else pytest.fail(record))
    assert numbers(found) == interval(40 + NOISE)
    assert clause_text(asked) == "steps until performance >= 0.9, last tenth: a < 50"


# ------------------------------------------------------------------------------------------------------ tasks


def of_tasks():
    """Three visits to x and two to y; each seed has its own order."""
    orders = [["x", "y", "x", "y", "x"], ["y", "x", "x", "x", "y"]]
    made = table({"a": np.arange(5.0) + np.zeros((SEEDS, 5))}, visits=5)
    made["task"] = [orders[seed % 2][visit] for seed, visit in zip(made["seed"], made["visit"], strict=True)]
    return made


def test_visits_to_a_task_are_numbered_by_lane():
    rows = visits_to("y", of_tasks()).set_index(["seed", "visit"])["value"]
    assert [rows[0, 0], rows[0, 1], rows[1, 0], rows[1, 1]] == [1, 3, 0, 4]


@pytest.mark.parametrize(
    ("stage", "even", "odd"),
    [
        ({"at": "end"}, 3, 4),
        ({"at": 0}, 1, 0),
        ({"at": "all"}, 2, 2),
        ({"at": "slope"}, 2, 4),
        ({"at": "last", "less": "first"}, 2, 4),
        ({"at": "time", "threshold": 3, "crossing": "up"}, 2, 2),
        ({"at": "time", "threshold": 4, "crossing": "up"}, 2, 2),  # never in the even seeds: their two visits
        ({"at": "time", "threshold": 1, "crossing": "up"}, 1, 2),
    ],
)
def test_stages_are_those_of_the_visits_to_the_task(stage, even, odd):
    asked = clause(task="y", **stage)
    assert list(samples(asked, of(of_tasks())).tested[0].values) == pytest.approx([even, odd] * 4)


def test_a_task_in_words():
    assert clause_text(clause(task="pong")) == "performance in pong, last tenth: a > 0"
    asked = clause(task="pong", at="time", threshold=1, crossing="up")
    assert clause_text(asked) == "visits to pong until performance >= 1: a > 0"


def criterion(*parts, needs="all"):
    return parse_criterion({"needs": needs, "clauses": list(parts)}, "c")


def test_a_verdict_for_each_task_that_clauses_name():
    def on(**key):
        return {"what": "evaluation", "arms": "a", "direction": "above", "bound": 0, **key}

    whole = criterion(
        on(task="x"), on(what="evaluation/y"), on(), {"needs": "any", "clauses": [on(task="x"), on(task="y")]}
    )
    finding = SimpleNamespace(criterion=whole)

    def verdicts(*holds):
        return by_task(finding, {"clauses": [{"holds": each} for each in holds]})

    assert verdicts(True, True, False, True, False) == {"x": "PASS", "y": "FAIL"}
    assert verdicts(True, True, False, False, True) == {"x": "FAIL", "y": "PASS"}
    assert by_task(finding, None) == {}
    assert not passes(whole, [True, True, False, True, True])
    assert passes(whole, [True, True, True, False, True])


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compare": "contrasts", "arms": ["a", "b"]}, "arms: `contrasts` takes 3 or more, got 2"),
        ({"compare": "difference_of_differences", "arms": ["a", "b"]}, "`difference_of_differences` takes 4, got 2"),
        ({"compare": "contrast", "arms": ABC}, "did you mean `contrasts`"),
        ({"compare": "slope", "arms": ["a", "b"]}, "a slope takes `levels`"),
        ({"compare": "slope", "arms": ["a", "b"], "levels": [1, 1]}, "at least two of them different"),
        ({"compare": "slope", "arms": ["a", "b"], "levels": [1, 2, 3]}, "3 levels for 2 arms"),
        ({"compare": "slope", "levels": [1]}, "`slope` takes 2 or more, got 1"),
        ({"compare": "contrasts", "arms": ABC, "levels": [1, 2, 3]}, "`levels` belong to"),
        ({"compare": "slope", "arms": ["a", "b"], "levels": [1, 2], "against": "y"}, "`against` belongs to"),
        ({"at": "time"}, r"`at: time` takes `threshold` \(a number\)"),
        ({"at": "time", "threshold": 1}, r"`at: time` takes `crossing` \(up or down\)"),
        ({"within": "time", "threshold": 1, "crossing": "upp"}, "crossing: .*did you mean `up`"),
        ({"within": "time", "at": "time", "threshold": 1, "crossing": "up"}, "choose one"),
        ({"at": "time", "threshold": "x", "crossing": "up"}, "threshold: .*must be a number"),
        ({"at": "time", "threshold": 1, "crossing": "up", "less": "first"}, "less: nothing can be subtracted"),
        ({"less": "time"}, "less: nothing can be subtracted"),
        ({"threshold": 1}, "threshold: belongs to `at: time`"),
        ({"crossing": "up"}, "crossing: belongs to `at: time`"),
        ({"what": "area", "within": "time", "threshold": 1, "crossing": "up"}, "`area` has one number per visit"),
        ({"task": ["x"]}, "task: .*must be the name of a task"),
    ],
)
def test_mistakes_in_a_clause(settings, message):
    with pytest.raises(UserError, match=message):
        clause(**settings)
