"""Runs that end at a chosen moment, in process, and the tables they leave; every program is compiled once."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from plasticity.config.experiments import Experiment
from plasticity.engine import runner
from plasticity.runs import folder, launch, session, sharded
from plasticity.runs.accounts import unmerged

Tables = dict[str, tuple[pd.DataFrame, pd.DataFrame]]


def two_arms() -> Experiment:
    """Two programs in one arm, lanes that diverge in another; two visits of ten steps, chunks of five."""
    agent = {"kind": "classifier", "network": {"kind": "mlp", "widths": [8]}, "optimizer": "adam"}
    stream = {**tiny.document()["stream"], "tasks": 2, "steps_per_task": 10}
    widths = {"agent.network.widths": [[4], [8]]}
    rates = {"agent.optimizer.learning_rate": [0.01, 1e30]}
    arms = {"wide": {"sweep": widths}, "hot": {"sweep": rates}}
    return tiny.experiment(agent=agent, stream=stream, arms=arms, seeds=2, placement={"width": 1})


class Killed(BaseException):
    """Simulates the end of the process; nothing catches it."""


def tables(run: Path) -> Tables:
    """Metrics and lanes of every arm, rows in the order of the files, columns sorted by name."""
    found = {}
    for arm in sorted(path.parent for path in run.glob("*/lanes.parquet")):
        parts = [pq.read_table(path) for path in unmerged((arm / "metrics").glob("*.parquet"))]
        metrics = pa.concat_tables(parts, promote_options="permissive")
        frames = [table.select(sorted(table.column_names)) for table in (metrics, pq.read_table(arm / "lanes.parquet"))]
        found[arm.name] = (frames[0].to_pandas(), frames[1].to_pandas())
    return found


def assert_same(run: Path, expected: Tables, note: str = "") -> None:
    """Value for value, types included; and nothing half-written is left."""
    found = tables(run)
    assert set(found) == set(expected), note
    for arm in expected:
        for mine, theirs in zip(found[arm], expected[arm], strict=True):
            pd.testing.assert_frame_equal(mine, theirs, check_exact=True, obj=f"{note} {arm}")
    assert not list(run.rglob("*.tmp")), note


class Fate:
    """Counts the moments at which a process could end, and ends it at one of them.

    Moments: before and after each file gets its name, before each file is removed, after each chunk.
    """

    def __init__(self) -> None:
        self.moments, self.end = 0, -1

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.end:
            raise Killed

    def replace(self, *args: Any) -> None:
        self.moment()
        self._replace(*args)
        self.moment()

    def unlink(self, path: Any, **kwargs: Any) -> None:
        self.moment()
        self._unlink(path, **kwargs)

    @contextlib.contextmanager
    def ending_at(self, end: int) -> Iterator[None]:
        """The process ends at this moment, counted from 1 and from here."""
        self.moments, self.end = 0, end
        self._replace, self._unlink = os.replace, os.unlink
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", self.replace)
            patch.setattr(os, "unlink", self.unlink)
            yield


class Watcher(session.NoProgress):
    """Records messages, and calls ``at_chunk`` with the number of chunks so far."""

    def __init__(self, at_chunk: Any = lambda count: None) -> None:
        self.lines: list[str] = []
        self.positions: list[runner.Position] = []
        self.jobs: list[tuple[str, int, int]] = []
        self.at_chunk = at_chunk

    def job(self, job: session.Job, position: runner.Position) -> None:
        self.jobs.append((job.arm, job.number, position.step))

    def chunk(self, chunk: runner.Chunk) -> None:
        self.positions.append(chunk.position)
        self.at_chunk(len(self.positions))

    def say(self, line: str) -> None:
        self.lines.append(line)


class Laboratory:
    """One experiment whose plan and programs are made once; :meth:`run` is ``launch.run`` of it."""

    versions: Any = dict  # none; the real ones are asked of git, every time

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.fate, self.plan = experiment, Fate(), launch.plan(experiment)
        self._compiled: dict[int, runner.Compiled] = {}
        self._compile = runner.compile_program

    def _compile_once(self, program: runner.Program, *args: Any) -> runner.Compiled:
        if id(program) not in self._compiled:
            self._compiled[id(program)] = self._compile(program, *args)
        return self._compiled[id(program)]

    def run(self, out: Path, *, progress: Watcher | None = None, **options: Any) -> Watcher:
        watcher = progress or Watcher()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runner, "compile_program", self._compile_once)
            patch.setattr(sharded, "plan", lambda experiment, *shard: self.plan)
            patch.setattr(folder, "versions", self.versions)
            patch.setattr(os, "fsync", lambda handle: None)  # for the case that the machine dies, which is not tested
            patch.setattr(session, "STATUS_SECONDS", -1.0)  # a status file after every chunk: always the same moments
            launch.run(self.experiment, out, progress=watcher, **options)
        return watcher

    def killed(self, out: Path, moment: int, **options: Any) -> bool:
        """Whether the run was killed at that moment; False if it finished before."""
        watcher = Watcher(lambda count: self.fate.moment())
        with self.fate.ending_at(moment):
            try:
                self.run(out, progress=watcher, **options)
            except Killed:
                return True
        return False

    def resume(self, out: Path) -> Watcher:
        """Continue as a user would: with ``--resume`` if there is a run to resume, else without."""
        return self.run(out, resume=(out / folder.EXPERIMENT).exists())
