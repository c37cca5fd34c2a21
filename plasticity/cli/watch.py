"""Live view of a run: reads its files repeatedly and never modifies them."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.live import Live

from plasticity.cli.frames import BLOCKS, PLAIN_BLOCKS, WIDTH, Arm, Seen, frame
from plasticity.results.read import plan, probes
from plasticity.runs.accounts import (
    LANES,
    LISTINGS,
    MISSING,
    PLAN,
    PROBES,
    Part,
    has_started,
    parts_of_arms,
    phase_of,
    read_status,
    table_parts,
)
from plasticity.runs.checksums import DamagedError, read_table
from plasticity.runs.queue import SchedulerError, queue_of

QUIET_SECONDS = 60.0  # without a new status before the arm counts as silent
QUEUE_SECONDS = 10.0  # between two questions to the scheduler

# The state of an arm is the first one of these that any of its parts has.
PRECEDENCE = ("running", "failed", "silent", "stopped", "waiting", "finished")


class Shown(NamedTuple):
    """State of the part of an arm that one folder holds; the fields are those of :class:`Arm`."""

    folder: Path
    state: str
    silent: float
    done: int
    total: int
    work: int
    speed: float
    reason: str


class Watcher:
    """Reads the state of a run; each part of the tables is read only once.

    ``ValueError`` if the folder is not a run.
    """

    def __init__(self, run: str | Path) -> None:
        self.run = Path(run)
        self._parts: dict[Path, tuple[tuple[int, int], np.ndarray]] = {}
        self._damaged: dict[Path, str] = {}
        self._said, self._asked = "", -math.inf
        plan(self.run)
        self._probes: dict[str, Watcher | None] = dict.fromkeys(probes(self.run))

    def look(self, now: float | None = None) -> Seen:
        """The run's current state according to its files. ``now``: seconds since 1970."""
        about = plan(self.run)
        self._damaged = {path: why for path, why in self._damaged.items() if path in self._parts}
        stream, moment = about["stream"], time.time() if now is None else now
        places = parts_of_arms(self.run, about)
        arms = tuple(self._arm(stream, arm, places[arm["name"]], moment) for arm in about["arms"])
        measured = "episodic return" if stream["episodic"] else stream["reward_name"]
        of_probes = tuple(self._look_at_probes(now))
        damaged = tuple(f"{path} is unreadable ({why}); skipped" for path, why in self._damaged.items())
        name = str(about.get("name", self.run.name))
        return Seen(name, measured, arms, damaged, self._queue(), of_probes)

    def _look_at_probes(self, now: float | None) -> Iterator[tuple[str, Seen | None]]:
        """The state of each probe; None if it has not started."""
        for name, known in self._probes.items():
            place, seen = self.run / PROBES / name, None
            try:
                if known is None and (place / PLAN).exists():
                    known = self._probes[name] = Watcher(place)
                seen = None if known is None else known.look(now)
            except ValueError as error:  # its plan is damaged
                self._damaged[place / PLAN] = str(error)
            yield name, seen

    def _queue(self) -> str:
        """``Slurm: 2 running, 1 pending``, asked every ten seconds; empty without jobs."""
        if time.monotonic() - self._asked > QUEUE_SECONDS:
            try:
                states = Counter(queue_of(self.run, QUEUE_SECONDS).values())
                shown = ", ".join(f"{count} {state.lower()}" for state, count in states.most_common())
                self._said = f"Slurm: {shown}" if shown else ""
            except SchedulerError as error:
                self._said = f"Slurm does not answer: {error}"
            self._asked = time.monotonic()
        return self._said

    def _arm(self, stream: Mapping[str, Any], arm: Mapping[str, Any], places: Sequence[Part], now: float) -> Arm:
        steps = sum(visit["steps"] for visit in stream["visits"])
        parts = [self._part(part, steps, now) for part in places]
        points = self._points([part.folder for part in parts], "episodic_return" if stream["episodic"] else "reward")
        counts = Counter(part.state for part in parts)
        state = min(counts, key=PRECEDENCE.index)
        return Arm(
            name=arm["name"],
            lanes=arm["lanes"],
            diverged=sum(self._diverged(part.folder) for part in parts),
            state=state,
            silent=min(part.silent for part in parts if part.state == state),
            done=sum(part.done for part in parts),
            total=sum(part.total for part in parts),
            work=sum(part.work for part in parts),
            speed=sum(part.speed for part in parts if part.state == state),
            curve=_curve(points, steps),
            now=float(points[-1, 1]) if len(points) else math.nan,
            reason=_reasons(self.run, parts),
            shards=tuple((each, counts[each]) for each in PRECEDENCE if counts[each]),
        )

    def _part(self, part: Part, steps: int, now: float) -> "Shown":
        """What one folder says of an arm."""
        status = self._status(part.folder)
        done = _done(status, list(part.programs), steps)
        silent = max(0.0, now - status["updated"]) if status else 0.0
        return Shown(
            folder=part.folder,
            state=_state(status, len(part.programs), silent),
            silent=silent,
            done=sum(done),
            total=steps * len(done),
            work=sum((steps - each) * lanes for each, lanes in zip(done, part.programs.values(), strict=True)),
            speed=float(status.get("steps_per_second", 0.0)),
            reason=str(status.get("reason", "")),
        )

    def _points(self, folders: Sequence[Path], measure: str) -> np.ndarray:
        """``(step, mean over lanes)`` of each record that has a value, sorted by step, over all programs."""
        sums = [each for folder in folders for each in self._sums_in(folder, measure)]
        joined = np.concatenate([np.zeros((0, 3)), *sums])
        steps, which = np.unique(joined[:, 0], return_inverse=True)
        total, count = (np.bincount(which, joined[:, k], len(steps)) for k in (1, 2))
        return np.stack([steps, total / count], axis=1)

    def _sums_in(self, folder: Path, measure: str) -> list[np.ndarray]:
        """``(step, sum, count)`` of the records of each part in a folder."""
        for _ in range(LISTINGS):
            found = [self._sums(path, measure) for path in table_parts(folder, self._damaged.__setitem__)]
            known = [each for each in found if each is not None]
            if len(known) == len(found):
                break
        return known

    def _sums(self, path: Path, measure: str) -> np.ndarray | None:
        """The sums of a part; None if it has just been removed."""
        try:
            facts = path.stat()
            mark = (facts.st_mtime_ns, facts.st_size)  # a resumed run writes other parts under the same names
            if self._parts.get(path, (None,))[0] != mark:
                self._damaged.pop(path, None)
                self._parts[path] = (mark, self._of_part(path, measure))
        except FileNotFoundError:
            self._parts.pop(path, None)
            return None
        return self._parts[path][1]

    def _of_part(self, path: Path, measure: str) -> np.ndarray:
        """The contents of a part; empty, with the damage recorded, if it is damaged."""
        try:
            return _read_part(path, measure)
        except FileNotFoundError:
            raise
        except (OSError, DamagedError) as error:
            self._damaged[path] = str(error)
            return np.zeros((0, 3))

    def _status(self, arm: Path) -> dict[str, Any]:
        """The arm's status; empty if there is none that can be read."""
        found = read_status(arm, self._damaged.__setitem__)
        return found if {"state", "step", "updated", "finished", "program"} <= set(found) else {}

    def _diverged(self, arm: Path) -> int:
        path = arm / LANES
        try:
            ended = read_table(path, ["diverged_at"])["diverged_at"]
        except KeyError:  # written by an older version
            return 0
        except FileNotFoundError:
            if has_started(arm):
                self._damaged[path] = MISSING
            return 0
        except (OSError, DamagedError) as error:
            self._damaged[path] = str(error)
            return 0
        return len(ended) - ended.null_count


def _read_part(path: Path, measure: str) -> np.ndarray:
    table = read_table(path, ["step", measure])
    if not {"step", measure} <= set(table.column_names):
        return np.zeros((0, 3))
    values = table[measure].cast(pa.float64()).to_numpy()
    known = np.isfinite(values)
    steps, which = np.unique(table["step"].to_numpy()[known], return_inverse=True)
    sums = np.bincount(which, values[known], len(steps)), np.bincount(which, minlength=len(steps))
    return np.stack([steps.astype(float), *sums], axis=1)


def _done(status: Mapping[str, Any], programs: Sequence[int], steps: int) -> list[int]:
    """Env steps done by each program of a folder."""
    finished = set(status.get("finished", ()))
    under_way = {status["program"]: min(status["step"], steps)} if status else {}
    return [steps if number in finished else under_way.get(number, 0) for number in programs]


def _reasons(run: Path, parts: Sequence["Shown"]) -> str:
    """Why the first part that failed did, and how many others failed."""
    failed = [part for part in parts if part.state == "failed"]
    if not failed:
        return ""
    place = failed[0].folder.parent.relative_to(run)
    where = f"{place}: " if place.parts else ""
    return f"{where}{failed[0].reason}" + (f" (and {len(failed) - 1} more shards)" if len(failed) > 1 else "")


def _state(status: Mapping[str, Any], programs: int, silent: float) -> str:
    if not status:
        return "waiting"
    if len(status["finished"]) >= programs:
        return "finished"
    if status["state"] == "interrupted":
        return "stopped"
    if status["state"] == "failed":
        return "failed"
    return "silent" if silent > QUIET_SECONDS else "running"


def _curve(points: np.ndarray, steps: int, width: int = WIDTH) -> np.ndarray:
    """The mean of the points in each of ``width`` equal intervals of the run."""
    which = np.clip(np.ceil(points[:, 0] * width / steps).astype(int) - 1, 0, width - 1)
    count = np.bincount(which, minlength=width)
    return np.bincount(which, points[:, 1], width) / np.where(count, count, np.nan)


def watch(run: str | Path, console: Console, *, once: bool = False, every: float = 1.0) -> None:
    """Show the run until it and its probes are finished, or until Ctrl-C.

    Prints a single frame if ``once`` is set or the output is not a terminal.

    Args:
      run: the run's folder.
      console: output console.
      once: show the current state and return.
      every: seconds between two frames.

    Raises:
      ValueError: the folder is not a run.
    """
    watcher = Watcher(phase_of(Path(run)))
    blocks = BLOCKS if console.encoding.lower().startswith("utf") else PLAIN_BLOCKS
    seen = watcher.look()
    if once or not console.is_terminal:
        console.print(frame(seen, watcher.run, blocks))
        return
    try:
        with Live(frame(seen, watcher.run, blocks), console=console, auto_refresh=False) as live:
            while not (seen.complete and watcher.run == Path(run)):
                time.sleep(every)
                if (place := phase_of(Path(run))) != watcher.run:
                    watcher = Watcher(place)
                seen = watcher.look()
                live.update(frame(seen, watcher.run, blocks), refresh=True)
    except KeyboardInterrupt:
        return
