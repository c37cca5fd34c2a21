"""A row of the summary in plain words: what its intervals say, and no more."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

NEAR = 0.1  # share of the control's level that an interval around zero may reach below it


class Verdict(NamedTuple):
    word: str  # keeps, loses, slows, open; control; unfinished, diverged; without a control: holds, falls, rises
    why: str


def rule(control: str, has_control: bool, comparable: bool) -> list[tuple[str, str]]:
    """How the words are chosen: each with its meaning; a meaning without a word where there is no verdict."""
    if not has_control and not comparable:
        return [("", f"Tasks have scales of their own, and there is no arm {control} to compare with: no verdict.")]
    if not has_control:
        meant = "the last tenth of the visits is {} the first, their 95 % intervals apart"
        return [("rises", meant.format("above")), ("falls", meant.format("below")), ("holds", "the intervals meet")]
    near = f"not behind {control} on the last tenth: the interval reaches zero and, below it, at most "
    near += f"{100 * NEAR:.0f} % of {control}'s level"
    slows = [("slows", f"behind {control}, but not below its own beginning")] if comparable else []
    loses = f"behind {control}" + (" and below its own beginning" if comparable else "")
    return [
        ("keeps", near),
        *slows,
        ("loses", loses),
        ("open", "the interval holds zero, but also more than that below: more seeds would tell"),
    ]


def verdict(row: Mapping[str, Any], early: float, *, control: str, comparable: bool, several: bool) -> Verdict:
    """The verdict on one row of :func:`plasticity.results.summary`.

    Args:
      row: the row.
      early: the lower bound of the control on the first tenth; NaN where it is not known.
      control: the name of the control arm.
      comparable: performance on different visits is on one scale.
      several: the stream has more than one visit.
    """
    if pd.isna(row["last"]):
        lost = row["lanes"] > 0 and row["diverged"] == row["lanes"]
        return Verdict("diverged", "no seed is left") if lost else Verdict("unfinished", "")
    if not several:
        return Verdict("", "")
    if row["arm"] == control:
        return Verdict("control", "starts anew at every switch")
    fell = comparable and row["last_high"] < row["first_low"]
    rose = comparable and row["last_low"] > row["first_high"]
    if "gap" in row and pd.isna(row["gap"]):
        return Verdict("", f"no {control} to compare with yet")
    if "gap" not in row:
        return _alone(row, fell, rose, comparable)
    return _against(row, early, control, fell, comparable)


def _alone(row: Mapping[str, Any], fell: bool, rose: bool, comparable: bool) -> Verdict:
    if not comparable:
        return Verdict("", "tasks on different scales and no control")
    if pd.isna(row["last_low"]) or pd.isna(row["first_low"]):
        return Verdict("open", "one seed: no interval")
    if fell:
        return Verdict("falls", "below its own beginning")
    return Verdict("rises", "above its own beginning") if rose else Verdict("holds", "about where it began")


def _against(row: Mapping[str, Any], early: float, control: str, fell: bool, comparable: bool) -> Verdict:
    low, high = row["gap_low"], row["gap_high"]
    if pd.isna(low):
        return Verdict("open", "one seed: no interval")
    if low > 0:
        return Verdict("keeps", f"above {control}")
    if high >= 0:
        level = row["last"] - row["gap"]  # the control's
        if low >= -NEAR * abs(level):
            return Verdict("keeps", f"not told apart from {control}")
        return Verdict("open", "more seeds would tell")
    if not comparable:
        return Verdict("loses", f"behind {control}")
    if fell:
        return Verdict("loses", f"behind {control} and its own beginning")
    slow = row["first_high"] < early
    return Verdict("slows", f"behind {control}" + (" from the start on" if slow else ", not its own beginning"))
