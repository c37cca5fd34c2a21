"""Verdicts: a row of the summary in one word, based on its intervals alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from plasticity.results.change import Compared, Rule
from plasticity.results.intervals import seeds_to_tell

NEAR = 0.1  # share of the control's level: a smaller loss counts as small
HOLDS = 0.05  # share of the first stage's level: without a control, a change inside this margin counts as none
STAGES = {
    "sequence": ("the first tenth of the visits", "the last tenth"),
    "revisits": ("the first visits to each task", "the last visits to the same task"),
}
NO_VERDICT = (
    "The rewards of these tasks are of several kinds and no task recurs: there is no comparable early stage and no "
    "single number for all tasks, so there is no verdict. Each task is shown separately."
)
SCALES = {
    "human": "random play is 0 and a human 1",
    "control": "the control's level at the end of a visit is 1 and at its beginning 0 (if it rises by less than the "
    "spread over lanes, 0 is one spread below the end)",
    "own": "the arm's own level at the end of its first visits is 1 and at their beginning 0 (if it rises by less than "
    "the spread over lanes, 0 is one spread below the end)",
}


class Verdict(NamedTuple):
    word: str  # keeps, slips, falls, loses, open; control; unfinished, diverged; without a control: holds, falls, rises
    why: str


def meaning(compared: Compared) -> str:
    """Describe what ``first`` and ``last`` of the summary are averaged over, in one or two sentences."""
    kind, scaled = compared.rule.kind, compared.scales
    if kind == "single":
        return "Means over seeds of the visit and of its last tenth."
    if kind != "revisits":
        return "Means over seeds of the first and the last tenth of the visits."
    texts = ["Means over seeds and tasks of the first and the last visits to each task."]
    if scaled is not None:
        known = ", or, if that is unknown, ".join(SCALES[each] for each in scaled.kinds)
        texts = [texts[0], f"Each task has its own scale: {known}."]
    if compared.left_out:
        texts.append(f"Without a scale, left out: {', '.join(compared.left_out)}.")
    return " ".join(texts)


def words(rule: Rule, controls: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """List the verdict words with their meanings; a meaning without a word if there is no verdict."""
    if rule.kind == "single":
        return []
    if rule.kind == "none":
        return [("", NO_VERDICT)]
    early, late = STAGES[rule.kind]
    found, named = [], list(dict.fromkeys(name for name in controls.values() if name))
    if named:
        control = named[0] if len(named) == 1 else "its control"
        share = f"{100 * NEAR:.0f} % of {control}'s level"
        found += [
            ("keeps", f"from {early} to {late}, the arm loses nothing relative to {control}, or less than {share}: "
                      "the interval of the change of the gap lies above that loss and reaches or exceeds zero"),
            ("slips", f"falls behind {control}, but by less than {share}: the whole interval lies between that loss "
                      "and zero"),
            ("loses", f"falls behind {control} by more than that: the whole interval lies below that loss"),
            ("falls", f"falls behind {control}; the interval does not show by how much"),
            ("open", "the interval includes both zero and that loss: more seeds are needed"),
        ]  # fmt: skip
    if any(arm not in named and other is None for arm, other in controls.items()):
        share, own = f"{100 * HOLDS:.0f} % of the level at first", "without a control: " if named else ""
        found += [
            (
                "rises",
                f"{own}from {early} to {late} performance rises, lane by lane: the interval of the own change is above "
                "zero",
            ),
            *([] if named else [("falls", "it falls: the interval is below zero")]),
            ("holds", f"{own}it changes by less than {share}: the whole interval lies in that range and includes zero"),
            *([] if named else [("open", "the interval includes both zero and a larger change")]),
        ]
    return found


def verdict(row: Mapping[str, Any], rule: Rule, controls: Mapping[str, str | None]) -> Verdict:
    """Return the verdict on one row of :func:`plasticity.results.summary`.

    Args:
      row: the row.
      rule: the rule of the run's stream.
      controls: the control of each arm, see :func:`plasticity.results.controls`.
    """
    arm, control = str(row["arm"]), controls.get(str(row["arm"]))
    if not row["seeds"]:
        lost = row["lanes"] > 0 and row["diverged"] == row["lanes"]
        return Verdict("diverged", "no seed is left") if lost else Verdict("unfinished", "")
    if rule.kind == "single":
        return Verdict("", "")
    if arm in controls.values():
        return Verdict("control", "is reset at every switch")
    if rule.kind == "none":
        return Verdict("", "no task recurs: see each task separately")
    if pd.isna(row["last"]):
        return Verdict("", "no task has a scale")
    if control is None:
        return _alone(row)
    return Verdict("", f"no {control} to compare with yet") if pd.isna(row["change"]) else _against(row, control)


def undecided(rows: pd.DataFrame, rule: Rule, controls: Mapping[str, str | None]) -> str:
    """List the arms with an open verdict and the number of seeds needed, as a sentence; empty if there are none."""
    found = [(row["arm"], verdict({**row}, rule, controls)) for _, row in rows.iterrows()]
    listed = dict.fromkeys(f"{arm} ({each.why.partition(';')[0]})" for arm, each in found if each.word == "open")
    return f"Open: {', '.join(listed)}." if listed else ""


def _alone(row: Mapping[str, Any]) -> Verdict:
    """Verdict by the change of the lane itself, paired by seed."""
    mean, low, high, margin = (*_interval(row, "own"), HOLDS * abs(row["first"]))
    if pd.isna(low):
        return Verdict("open", "one seed: no interval")
    if high < 0:
        return Verdict("falls", "below its own start")
    if low > 0:
        return Verdict("rises", "above its own start")
    if -margin < low and high < margin:
        return Verdict("holds", "close to its own start")
    return Verdict("open", _would_tell(row, "own", max(abs(mean), margin - abs(mean))))


def _against(row: Mapping[str, Any], control: str) -> Verdict:
    """Verdict by how far the arm fell behind its control along the stream."""
    mean, low, high = _interval(row, "change")
    margin, why = NEAR * abs(row["last"] - row["gap"]), _at_the_end(row, control)
    if pd.isna(low):
        return Verdict("open", "one seed: no interval")
    if high < -margin:
        return Verdict("loses", why)
    if high < 0 and low > -margin:
        return Verdict("slips", why)
    if high < 0:
        return Verdict("falls", f"{why}; by how much is open: {_would_tell(row, 'change', abs(mean + margin))}")
    if low > -margin:
        return Verdict("keeps", why)
    return Verdict("open", f"{_would_tell(row, 'change', max(-mean, mean + margin))}; {why}")


def _interval(row: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    return float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"])


def _would_tell(row: Mapping[str, Any], name: str, distance: float) -> str:
    """How many seeds would reduce the half width of the interval to ``distance``."""
    _, low, high = _interval(row, name)
    number = seeds_to_tell((high - low) / 2, int(row[f"{name}_seeds"]), distance)
    return "no feasible number of seeds would decide" if number is None else f"about {number:,} seeds would decide"


def _at_the_end(row: Mapping[str, Any], control: str) -> str:
    if row["gap_low"] > 0:
        return f"above {control} at the end"
    if row["gap_high"] >= 0:
        return f"not distinguishable from {control} at the end"
    kept = row["change_high"] >= 0
    return f"behind {control} from the start" if kept else f"behind {control} at the end"
