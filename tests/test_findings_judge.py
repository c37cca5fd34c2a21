"""Criteria judged on tables made by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from plasticity.core.errors import UserError
from plasticity.findings.criterion import clauses, parse_criterion
from plasticity.findings.judge import fieller, judge, judge_clause
from plasticity.findings.lanes import lane_values, stage_visits
from plasticity.findings.wording import clause_text

SEEDS = 8
NOISE = np.array([-3.0, -2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 3.0])


def clause(**settings):
    raw = {"what": "performance", "arms": ["a"], "direction": "above", "bound": 0, **settings}
    return next(clauses(parse_criterion({"clauses": [raw]}, "criterion")))


def table(arms, visits=10, lost=()):
    """``arms``: arm -> numbers [seeds, visits], or [points, seeds, visits]; ``lost``: (arm, seed, visit)."""
    rows = []
    for arm, numbers in arms.items():
        numbers = np.asarray(numbers, float)
        for point, of_point in enumerate(numbers if numbers.ndim == 3 else numbers[None]):
            for seed, lane in enumerate(of_point):
                rows += [
                    (arm, point, seed, visit, value, (arm, seed, visit) in lost) for visit, value in enumerate(lane)
                ]
    found = pd.DataFrame(rows, columns=["arm", "point", "seed", "visit", "value", "lost"])
    found.attrs["visits"] = visits
    return found


def of(made, **others):
    return lambda what, within: others.get(what, made)


def constant(level, visits=10, noise=0.0):
    return level + noise * NOISE[:, None] + np.zeros((SEEDS, visits))


def test_stages():
    assert stage_visits("first", 40) == range(4)
    assert stage_visits("last", 40) == range(36, 40)
    assert stage_visits("last", 5) == range(4, 5)
    assert stage_visits("all", 3) == range(3)
    assert stage_visits((0.05, 0.1), 40) == range(2, 4)
    assert stage_visits((0.5, 0.51), 4) == range(2, 3)
    assert stage_visits(-1, 4) == stage_visits("end", 4) == range(3, 4)


def test_a_paired_difference_and_its_interval():
    seeds = NOISE[:, None]
    made = table({"a": 5 + 100 * seeds + seeds + np.zeros((SEEDS, 10)), "b": 100 * seeds + np.zeros((SEEDS, 10))})
    found = judge_clause(clause(arms=["a", "b"], compare="difference", bound=3), of(made))
    half = stats.t.ppf(0.975, 7) * np.std(NOISE, ddof=1) / np.sqrt(8)
    assert (found.number, found.low, found.high) == pytest.approx((5, 5 - half, 5 + half))
    assert found.holds
    assert found.seeds == 8
    assert not judge_clause(clause(arms=["a", "b"], compare="difference", bound=5 - half + 0.01), of(made)).holds


@pytest.mark.parametrize(
    ("direction", "bound", "holds"),
    [("above", 0.9, True), ("above", 1, False), ("below", 1.1, True), ("below", 1, False), ("within", [0.9, 1.1], True),
     ("within", [1, 1.1], False), ("within", [0.9, 1], False)],
)  # fmt: skip
def test_the_interval_must_lie_on_the_right_side(direction, bound, holds):
    made = table({"a": constant(1.0)})
    assert judge_clause(clause(direction=direction, bound=bound), of(made)).holds == holds


def test_change_and_slope():
    rising = np.arange(10.0) * 2 + np.zeros((SEEDS, 10))
    made = table({"a": rising})
    assert judge_clause(clause(at="last", less="first"), of(made)).number == 18
    assert judge_clause(clause(at="slope"), of(made)).number == pytest.approx(2)
    assert judge_clause(clause(at=[0.2, 0.4]), of(made)).number == 5


def test_visits_without_a_value_are_left_out_and_diverged_lanes_are_missing():
    sparse = np.full((SEEDS, 10), np.nan)
    sparse[:, [4, 9]] = [2.0, 4.0]
    made = table({"a": sparse}, lost={("a", 3, 9)})
    found = judge_clause(clause(at="all"), of(made))
    assert found.number == 3
    assert found.seeds == 7
    assert not found.holds
    counted = judge_clause(clause(at="all", diverged=-8), of(made))
    assert counted.seeds == 8
    assert counted.number == pytest.approx((7 * 3 + (2 - 8) / 2) / 8)
    assert judge_clause(clause(at="first"), of(made)).seeds == 0


def test_a_ratio_is_that_of_the_means_with_fiellers_interval():
    made = table({"a": constant(4.0, noise=0.01), "b": constant(2.0, noise=-0.02)})
    found = judge_clause(clause(arms=["a", "b"], compare="ratio", bound=1.8), of(made))
    assert found.number == pytest.approx(2)
    assert found.low < 2 < found.high
    assert found.holds
    a, b = 4 + 0.01 * NOISE, 2 - 0.02 * NOISE
    for bound in fieller(a, b, 0.95):  # at its ends the interval of a - r b just touches 0
        rest = a - bound * b
        assert abs(rest.mean()) == pytest.approx(stats.t.ppf(0.975, 7) * rest.std(ddof=1) / np.sqrt(8))
    assert judge_clause(clause(arms=["a", "b"], compare="ratio", bound=found.low - 1e-6), of(made)).holds
    assert not judge_clause(clause(arms=["a", "b"], compare="ratio", bound=found.low + 1e-6), of(made)).holds


def test_a_ratio_to_nothing_holds_without_dividing():
    made = table({"a": constant(0.5, noise=0.01), "b": constant(0.0)})
    assert judge_clause(clause(arms=["a", "b"], compare="ratio", bound=2), of(made)).holds
    assert not judge_clause(clause(arms=["b", "a"], compare="ratio", bound=2), of(made)).holds


def test_correlation_with_levels():
    made = table({"a": constant(1.0), "b": constant(3.0), "c": constant(2.0)})
    found = judge_clause(
        clause(arms=["a", "b", "c"], compare="correlation", levels=[0, 10, 100], bound=0.4), of(made)
    )  # ranks 1 3 2 against 1 2 3
    assert found.number == pytest.approx(0.5)
    assert found.holds


def test_correlation_with_another_quantity_goes_over_points_and_arms():
    points = np.stack([constant(level) for level in (1.0, 2.0, 4.0)])
    one, other = table({"a": points, "b": constant(8.0)}), table({"a": -points, "b": constant(-8.0)})
    found = judge_clause(
        clause(arms=[], compare="correlation", against="y", direction="below", bound=-0.9), of(one, y=other)
    )
    assert found.number == pytest.approx(-1)
    assert found.holds
    flat = table({"a": 0 * points, "b": constant(0.0)})
    assert judge_clause(clause(arms=[], compare="correlation", against="y"), of(one, y=flat)).seeds == 0


def test_a_correlation_passes_over_a_few_missing_lanes():
    points = np.stack([constant(level) for level in (1.0, 2.0, 4.0, 5.0)])
    points[0, 3] = np.nan
    other = table({"a": points**2})
    settings = {"arms": ["a"], "compare": "correlation", "against": "y"}
    assert judge_clause(clause(**settings), of(table({"a": points}), y=other)).seeds == 8
    points[1, 3] = np.nan
    assert judge_clause(clause(**settings), of(table({"a": points}), y=other)).seeds == 7


def test_groups():
    good, bad = {"what": "x", "arms": "a", "direction": "above", "bound": 0}, {
        "what": "x", "arms": "a", "direction": "below", "bound": 0
    }  # fmt: skip
    made = of(table({"a": constant(1.0)}))
    for needs, parts, passes in (("all", [good, bad], False), ("any", [good, bad], True), ("all", [good, good], True)):
        verdict = judge(parse_criterion({"needs": needs, "clauses": parts}, "c"), made)
        assert verdict.passed == passes
        assert len(verdict.judged) == 2
    nested = {"needs": "any", "clauses": [bad, {"needs": "all", "clauses": [good, good]}]}
    assert judge(parse_criterion(nested, "c"), made).passed


def test_lane_values_take_only_the_arms_of_the_clause():
    made = table({"a": constant(1.0), "b": constant(2.0)})
    assert set(lane_values(clause(arms=["b"]), made)["arm"]) == {"b"}


def test_told():
    assert (
        clause_text(clause(arms=["a", "b"], compare="difference", bound=0.2)) == "performance, last tenth: a - b > 0.2"
    )
    rise = clause(direction="within", bound=[-1, 1], less="first")
    assert clause_text(rise) == "performance, last tenth minus first tenth: a in [-1, 1]"
    text = clause_text(clause(arms=["a", "b"], compare="correlation", levels=[1, 2], at=[0.05, 0.1], within="max"))
    assert text == "Spearman of (max performance of a visit, 5-10 % of the visits) with the level over a, b > 0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whta": 1}, "unknown key `whta`.*did you mean `what`"),
        ({"compare": "diference"}, "criterion.clauses.0..compare: .*did you mean `difference`"),
        ({"direction": "up"}, "direction: unknown"),
        ({"bound": [0, 1]}, "with direction `above`, must be one number"),
        ({"direction": "within", "bound": 1}, "must be .LOW, HIGH."),
        ({"bound": "0"}, "must be a number"),
        ({"at": "lst"}, "did you mean `last`"),
        ({"at": [0.5, 0.2]}, "must be two fractions in .0, 1., the smaller one first"),
        ({"compare": "difference"}, "`difference` takes 2, got 1"),
        ({"compare": "correlation"}, "takes `against`"),
        ({"compare": "correlation", "levels": [1, 2]}, "2 levels for 1 arms"),
        ({"levels": [1]}, "belong to `compare: correlation`"),
        ({"compare": "ratio", "arms": ["a", "b"], "direction": "within", "bound": [0, 1]}, "write two clauses"),
        ({"confidence": 1.5}, r"must be in \(0, 1\)"),
    ],
)
def test_mistakes_in_a_clause(settings, message):
    with pytest.raises(UserError, match=message):
        clause(**settings)


def test_mistakes_in_a_group():
    for raw in (None, {}, {"clauses": []}, {"needs": "some", "clauses": [{}]}, {"clauses": {"what": "x"}}):
        with pytest.raises(UserError, match=r"^here"):
            parse_criterion(raw, "here")
