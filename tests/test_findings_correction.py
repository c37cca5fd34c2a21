"""Corrections for several clauses, and the values by seed, on tables made by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_findings_compared import ABC, criterion, interval, numbers
from test_findings_judge import NOISE, SEEDS, clause, constant, of, table

from plasticity.findings import values
from plasticity.findings.correction import corrected, p_value
from plasticity.findings.judge import judge, judge_clause
from plasticity.findings.samples import samples

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
