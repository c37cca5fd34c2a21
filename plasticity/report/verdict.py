"""A row of the summary in plain words: what its intervals say, and no more."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

NEAR = 0.1  # share of the control's level: falling behind by less is a small loss


class Verdict(NamedTuple):
    word: str  # keeps, slips, loses, open; control; unfinished, diverged; without a control: holds, falls, rises
    why: str


def rule(control: str, has_control: bool, comparable: bool) -> list[tuple[str, str]]:
    """How the words are chosen: each with its meaning; a meaning without a word where there is no verdict."""
    if not has_control and not comparable:
        return [("", f"Tasks have scales of their own, and there is no arm {control} to compare with: no verdict.")]
    if not has_control:
        meant = "the last tenth of the visits is {} the first, their 95 % intervals apart"
        return [("rises", meant.format("above")), ("falls", meant.format("below")), ("holds", "the intervals meet")]
    when = "from the first to the last tenth of the visits" if comparable else "on the last tenth of the visits"
    keeps, falls = ("does not fall", "falls behind") if comparable else ("is not", "is behind")
    share = f"{100 * NEAR:.0f} % of {control}'s level"
    return [
        ("keeps", f"{keeps} behind {control} {when}: the interval reaches zero, and less than {share} below it"),
        ("slips", f"{falls} {control} {when}, by less than {share}"),
        ("loses", f"{falls} {control} by more"),
        ("open", "the interval holds zero, but also more than that below: more seeds would tell"),
    ]


def verdict(row: Mapping[str, Any], *, control: str, comparable: bool, several: bool) -> Verdict:
    """The verdict on one row of :func:`plasticity.results.summary`.

    Args:
      row: the row.
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
    return _against(row, control, "change" if comparable else "gap")


def _alone(row: Mapping[str, Any], fell: bool, rose: bool, comparable: bool) -> Verdict:
    if not comparable:
        return Verdict("", "tasks on different scales and no control")
    if pd.isna(row["last_low"]) or pd.isna(row["first_low"]):
        return Verdict("open", "one seed: no interval")
    if fell:
        return Verdict("falls", "below its own beginning")
    return Verdict("rises", "above its own beginning") if rose else Verdict("holds", "about where it began")


def _against(row: Mapping[str, Any], control: str, key: str) -> Verdict:
    """``key``: ``change``, how far it fell behind along the stream, or ``gap``, how far it is behind at the end."""
    low, high, why = row[f"{key}_low"], row[f"{key}_high"], _at_the_end(row, control)
    margin = NEAR * abs(row["last"] - row["gap"])  # of the control's level
    if pd.isna(low):
        return Verdict("open", "one seed: no interval")
    if high < 0:
        return Verdict("slips" if row[key] > -margin else "loses", why)
    return Verdict("keeps", why) if low >= -margin else Verdict("open", f"more seeds would tell; {why}")


def _at_the_end(row: Mapping[str, Any], control: str) -> str:
    if row["gap_low"] > 0:
        return f"above {control} at the end"
    if row["gap_high"] >= 0:
        return f"not told apart from {control} at the end"
    early = row.get("change_high")
    kept = early is not None and not pd.isna(early) and early >= 0
    return f"behind {control} from the beginning on" if kept else f"behind {control} at the end"
