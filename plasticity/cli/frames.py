"""One frame of the live view of a run: what it shows, and how."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plasticity.cli.tables import duration
from plasticity.runs.accounts import PROBES

WIDTH = 16  # of a sparkline
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
STYLES = {
    "finished": "green", "running": "cyan", "stopped": "yellow", "failed": "red", "waiting": "dim", "silent": "red"
}  # fmt: skip


class Arm(NamedTuple):
    """State of an arm according to its files. Steps are env steps, summed over the arm's programs."""

    name: str
    lanes: int
    diverged: int
    state: str  # finished, running, stopped (by a signal), failed, silent (no recent status), waiting
    silent: float  # seconds since the last status; 0 if there is none
    done: int
    total: int
    work: int  # lane steps still to do
    speed: float  # lane steps per second; 0: unknown
    curve: np.ndarray  # float[WIDTH]: mean performance along the run, NaN if there is none yet
    now: float  # latest performance, mean over lanes
    reason: str = ""  # why it failed
    shards: tuple[tuple[str, int], ...] = ()  # how many are in each state, if the run is cut

    @property
    def states(self) -> str:
        """The state, or the states of the shards with their numbers where they differ."""
        return ", ".join(f"{count} {state}" for state, count in self.shards) if len(self.shards) > 1 else self.state


class Seen(NamedTuple):
    """State of a run at one moment."""

    name: str
    measured: str  # name of the performance measure
    arms: tuple[Arm, ...]
    damaged: tuple[str, ...] = ()  # files that were skipped, and why
    queue: str = ""  # what the scheduler says of the run's jobs
    probes: "tuple[tuple[str, Seen | None], ...]" = ()  # name and state; None: not started

    @property
    def finished(self) -> bool:
        """Whether its arms are finished; its probes may not be."""
        return all(arm.state == "finished" for arm in self.arms)

    @property
    def complete(self) -> bool:
        return self.finished and all(probe is not None and probe.finished for _, probe in self.probes)

    @property
    def left(self) -> float:
        """Seconds until the last arm is done at the current speed; NaN if no speed is known."""
        known = [arm.speed for arm in self.arms if arm.speed > 0]
        usual = known[-1] if known else math.nan
        return sum(arm.work / (arm.speed or usual) for arm in self.arms if arm.work)


def sparkline(values: Sequence[float] | np.ndarray, low: float, high: float, blocks: str = BLOCKS) -> str:
    """One character per value: the lowest block at ``low``, the highest at ``high``, a blank for a missing value."""
    span, last = (high - low) or 1.0, len(blocks) - 1

    def block(value: float) -> str:
        return blocks[min(max(round((value - low) / span * last), 0), last)] if math.isfinite(value) else " "

    return "".join(map(block, values)).rstrip()


def short(number: float) -> str:
    """``950``, ``12.5k``, ``3.2M``: three significant digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 999.5 * size else f"{number / size:.0f}{unit}"
    return f"{number:.0f}"


def frame(seen: Seen, run: str | Path, blocks: str = BLOCKS) -> RenderableType:
    """The run as a table, with a heading above and remarks on any problems below."""
    values = np.concatenate([arm.curve for arm in seen.arms])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)
    below = (*_remarks(seen, run, low, high), *_probes(seen, run), *_resuming(seen, run))
    return Group(_heading(seen, seen.name), _table(seen, low, high, blocks), *below)


def _heading(seen: Seen, name: str) -> Text:
    done, total = (sum(getattr(arm, name) for arm in seen.arms) for name in ("done", "total"))
    states = [arm.state for arm in seen.arms]
    state = next((each for each in ("running", "silent", "failed", "stopped") if each in states), "waiting")
    state = "finished" if seen.finished else state
    left = f", {duration(seen.left)} left" if state == "running" and math.isfinite(seen.left) else ""
    counted = f"{states.count('finished')} of {len(states)} arms"
    return Text.assemble(f"{name}: ", (state, STYLES[state]), f", {100 * done / max(total, 1):.0f} % ({counted}){left}")


def _table(seen: Seen, low: float, high: float, blocks: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("arm", overflow="fold")
    for name in ("steps", "steps/s", "left", "now"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(Text(seen.measured), no_wrap=True, min_width=WIDTH)
    table.add_column("state")
    for arm in seen.arms:
        active = arm.state == "running"
        table.add_row(
            Text(arm.name),
            f"{short(arm.done)}/{short(arm.total)}",
            short(arm.speed) if arm.speed else "-",
            duration(arm.work / arm.speed) if active and arm.speed else "-",
            f"{arm.now:.3g}" if math.isfinite(arm.now) else "-",
            sparkline(arm.curve, low, high, blocks),
            Text(arm.states, STYLES[arm.state]),
        )
    return table


def _remarks(seen: Seen, run: str | Path, low: float, high: float) -> list[Text]:
    lines = []
    if math.isfinite(low):
        lines.append(Text(f"curves: from {low:.3g} to {high:.3g}; the width is the whole run", "dim"))
    lines += [Text(seen.queue)] if seen.queue else []
    return lines + _troubles(seen)


def _troubles(seen: Seen) -> list[Text]:
    """What is wrong with the run, or what it waits for."""
    lines = [Text(line, "red") for line in seen.damaged]
    for arm in seen.arms:
        if arm.diverged:
            lines.append(Text(f"{arm.name}: {arm.diverged} of {arm.lanes} lanes diverged", "red"))
        if arm.reason:
            lines.append(Text(f"{arm.name}: failed: {arm.reason}", "red"))
        if arm.state == "silent":
            compiling = "" if arm.done else ": compiling, or dead"
            lines.append(Text(f"{arm.name}: no status update for {duration(arm.silent)}{compiling}", "red"))
        elif arm.state == "running" and not arm.speed and not math.isfinite(arm.now):
            lines.append(Text(f"{arm.name}: compiling", "dim"))
    return lines


def _probes(seen: Seen, run: str | Path) -> list[Text]:
    """A line for each probe, and what is wrong with it."""
    lines: list[Text] = []
    for name, probe in seen.probes:
        if probe is None:
            lines.append(Text.assemble(f"probe {name}: ", ("waiting", STYLES["waiting"])))
        else:
            lines += [_heading(probe, f"probe {name}"), *_troubles(probe)]
    started = [name for name, probe in seen.probes if probe is not None]
    if started:
        lines.append(Text(f"a probe in full: plasticity watch {Path(run) / PROBES / started[-1]}", "dim"))
    return lines


def _resuming(seen: Seen, run: str | Path) -> list[Text]:
    """How to go on, if the run or one of its probes has stopped or may have."""
    every = [arm for each in (seen, *(probe for _, probe in seen.probes if probe)) for arm in each.arms]
    left = seen.finished and any(probe is None for _, probe in seen.probes)
    if not left and not any(arm.state in ("silent", "stopped", "failed") for arm in every):
        return []
    again = f"plasticity run {Path(run) / 'experiment.yaml'} --out {run} --resume"
    return [Text(f"to resume it if it has stopped: {again}")]
