"""Comparisons of arms, times to a threshold, tasks and corrections, on tables made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_findings_judge import NOISE, SEEDS, clause, constant, of, table

from plasticity.core.errors import UserError
from plasticity.findings import values
from plasticity.findings.correction import corrected, p_value
from plasticity.findings.criterion import Crossing, parse_criterion
from plasticity.findings.judge import judge, judge_clause, passes
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


# ------------------------------------------------------------------------------------------------ corrections


def test_a_p_value_is_that_of_the_t_test():
    made = of(table({"a": constant(1.0, noise=1.0), "b": constant(0.0, noise=-0.4)}))
    a, difference = 1 + NOISE, 1 + 1.4 * NOISE
    one = clause(bound=-0.5)
    assert p_value(one, samples(one, made)) == pytest.approx(stats.ttest_1samp(a, -0.5).pvalue)
    two = clause(arms=["a", "b"], compare="difference", direction="below", bound=3)
    assert p_value(two, samples(two, made)) == pytest.approx(stats.ttest_1samp(difference, 3).pvalue)
    paired = clause(arms=["a", "b"], compare="difference")
    assert p_value(paired, samples(paired, made)) == pytest.approx(stats.ttest_rel(a, -0.4 * NOISE).pvalue)
    inside = clause(direction="within", bound=[-4, 3])
    assert p_value(inside, samples(inside, made)) == pytest.approx(stats.ttest_1samp(a, 3).pvalue)
    above = clause(bound=1.5)  # the mean is on the other side
    assert p_value(above, samples(above, made)) == 1.0
    flat = clause(arms="c")
    assert p_value(flat, samples(flat, of(table({"c": constant(1.0)})))) == 0.0


@pytest.mark.parametrize("compare", ["value", "difference", "ratio", "contrasts", "slope", "correlation"])
def test_an_interval_of_one_minus_the_p_value_touches_the_bound(compare):
    noisy = {"a": constant(1.0, noise=0.7), "b": constant(2.0, noise=-0.5), "c": constant(3.0, noise=1.5)}
    made = of(table({**noisy, "b": noisy["b"] + 0.9 * np.roll(NOISE, 3)[:, None]}))
    arms = {"value": ["c"], "difference": ["c", "a"], "ratio": ["c", "a"]}.get(compare, ABC)
    levels = {"levels": [1, 2, 3]} if compare in ("slope", "correlation") else {}
    settings = {"arms": arms, "compare": compare, "bound": 0.1, **levels}
    p = p_value(clause(**settings), samples(clause(**settings), made))
    assert 0 < p < 1
    assert judge_clause(clause(**settings, confidence=1 - 1.001 * p), made).holds
    assert not judge_clause(clause(**settings, confidence=1 - 0.999 * p), made).holds


def with_p(*wanted):
    """Clauses whose p-values are these: the mean of seeds with the spread 1 is moved."""
    rows, parts = {}, []
    unit = NOISE / NOISE.std(ddof=1)
    for place, p in enumerate(wanted):
        arm = f"arm{place}"
        rows[arm] = (unit + stats.t.isf(p / 2, SEEDS - 1) / np.sqrt(SEEDS))[:, None] + np.zeros((SEEDS, 10))
        parts.append({"what": "performance", "arms": [arm], "direction": "above", "bound": 0})
    return criterion(*parts, needs="any"), of(table(rows))


@pytest.mark.parametrize(
    ("correction", "wanted", "holds", "alphas"),
    [
        ("none", (0.04, 0.03, 0.02, 0.01), (1, 1, 1, 1), (0.05,) * 4),
        ("bonferroni", (0.04, 0.03, 0.02, 0.01), (0, 0, 0, 1), (0.0125,) * 4),
        # Holm: 0.01 < 0.05 / 4, then 0.02 > 0.05 / 3, which all others have too
        ("holm", (0.04, 0.03, 0.02, 0.01), (0, 0, 0, 1), (0.05 / 3, 0.05 / 3, 0.05 / 3, 0.0125)),
        # 0.01 < 0.05 / 4, 0.015 < 0.05 / 3, 0.02 < 0.05 / 2, 0.04 < 0.05: Holm finds all, Bonferroni one
        ("holm", (0.01, 0.04, 0.015, 0.02), (1, 1, 1, 1), (0.0125, 0.05, 0.05 / 3, 0.025)),
        ("bonferroni", (0.01, 0.04, 0.015, 0.02), (1, 0, 0, 0), (0.0125,) * 4),
        # 0.04 would hold by itself, but 0.2 stops at 0.05 / 1 only after it: 0.001 < 0.05 / 3, 0.04 > 0.05 / 2
        ("holm", (0.2, 0.001, 0.04), (0, 1, 0), (0.025, 0.05 / 3, 0.025)),
    ],
)
def test_corrections_by_hand(correction, wanted, holds, alphas):
    asked, tables = with_p(*wanted)
    verdict = judge(asked, tables, correction=correction)
    assert [each.holds for each in verdict.judged] == [bool(each) for each in holds]
    assert [1 - each.confidence for each in verdict.judged] == pytest.approx(alphas)
    for each in verdict.judged:  # the interval shown is the one that decides
        assert each.holds == (each.low > 0)


def test_a_corrected_interval_is_the_t_interval_of_its_confidence():
    asked, tables = with_p(0.001, 0.02)
    first, second = judge(asked, tables, correction="bonferroni").judged
    unit = NOISE / NOISE.std(ddof=1)
    assert numbers(first) == interval(unit + first.number, 0.975)
    assert numbers(second) == interval(unit + second.number, 0.975)


def test_clauses_of_other_confidence_keep_their_share():
    asked, tables = with_p(0.03, 0.03)
    one, two = asked.clauses
    wide = [one, clause(arms=two.arms, confidence=0.8)]
    found = [samples(each, tables) for each in wide]
    assert corrected("bonferroni", wide, found) == pytest.approx([0.975, 0.9])
    assert corrected("holm", wide, found) == pytest.approx([0.95, 0.9])  # 0.03 / 0.2 is the smaller


def test_too_few_seeds_never_hold():
    asked, tables = with_p(1e-6, 1e-6)
    verdict = judge(asked, tables, least=9, correction="holm")
    assert not any(each.holds for each in verdict.judged)


# ----------------------------------------------------------------------------------------------------- values


def rows_of(judged):
    lines = [line.split(",") for line in values.table("made", judged).splitlines()]
    assert tuple(lines[0]) == values.COLUMNS
    return pd.DataFrame(lines[1:], columns=lines[0])


def test_values_are_those_that_were_judged():
    """From the rows of a clause's statistic, the reader gets its number and interval."""
    levels, noise = zip("abcd", (4, 2, 7, 5), strict=True), iter((1.0, -0.5, 0.25, -0.125))
    noisy = {arm: constant(level, noise=next(noise)) for arm, level in levels}
    of_x = {"what": "x", "direction": "above", "bound": 0}
    parts: list[tuple[dict[str, Any], str, int]] = [
        ({"arms": "a"}, "a", 1),
        ({"arms": ["a", "b"], "compare": "difference"}, "a - b", 3),
        ({"arms": [*"abc"], "compare": "contrasts"}, "b - a", 5),
        ({"arms": [*"abcd"], "compare": "difference_of_differences"}, "(a - b) - (c - d)", 5),
        ({"arms": [*"abcd"], "compare": "slope", "levels": [1, 2, 3, 4]}, "slope", 5),
        ({"arms": [*"abcd"], "compare": "correlation", "levels": [1, 2, 3, 4]}, "Spearman", 5),
        ({"arms": ["a", "b"], "compare": "ratio", "bound": 1.5}, "a - 1.5 b", 3),
    ]
    verdict = judge(criterion(*({**of_x, **part} for part, _, _ in parts)), of(table(noisy)))
    rows = rows_of(verdict.judged)
    assert set(rows["finding"]) == {"made"}
    for place, (part, label, count) in enumerate(parts):
        mine = rows[rows["clause"] == str(place + 1)]
        assert len(mine) == count * SEEDS
        assert list(dict.fromkeys(mine["seed"])) == list(map(str, range(SEEDS)))
        sample = mine.loc[mine["arm"] == label, "value"].astype(float).to_numpy()
        judged = verdict.judged[place]
        expected = judged.contrasts[0] if judged.contrasts else numbers(judged)
        if part.get("compare") == "ratio":
            np.testing.assert_allclose(sample, 4 + NOISE - 1.5 * (2 - 0.5 * NOISE), rtol=1e-5)
        elif np.ptp(sample) > 0:
            assert expected == interval(sample)
        else:
            assert expected == pytest.approx((sample[0],) * 3)


def test_six_digits_and_empty_where_data_are_missing():
    made = constant(1 / 3)
    made[1] = np.nan
    made[2] = 1234567.0
    rows = rows_of([judge_clause(clause(), of(table({"a": made})))])
    assert list(rows["value"][:4]) == ["0.333333", "", "1.23457e+06", "0.333333"]


def test_arms_with_a_sweep_have_only_their_correlation():
    points = np.stack([constant(level) for level in (1.0, 2.0, 4.0)])
    asked = clause(arms=["a"], compare="correlation", against="y")
    rows = rows_of([judge_clause(asked, of(table({"a": points}), y=table({"a": points})))])
    assert list(rows["arm"]) == ["Spearman"] * SEEDS


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
