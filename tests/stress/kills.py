"""Kills runs at random moments, resumes them, and compares every table with that of an undisturbed run.

    python tests/stress/kills.py --kills 100

Each case is a tiny experiment that the command line runs in a process of its own. A round starts one, ends the process
at one to four random moments (SIGKILL, or to its whole group one of the signals that Ctrl-C and schedulers send),
resumes it each time, lets it come to its end and reads its tables. Programs come from a compilation cache, so that a
start takes seconds. The moments follow from ``--seed``, as far as time repeats itself. Exit code 1 where a table
differs, a traceback was printed, a process of the run was left over, or a run did not come to its end.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from plasticity.runs.accounts import unmerged

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0  # seconds for one process
SIGNALS = (*[signal.SIGKILL] * 4, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
BEFORE, NO_CHECKPOINT, CHUNK, SAVING, DRAWING = (
    "before the run exists", "before a checkpoint", "in a chunk", "while saving", "after the last step"
)  # fmt: skip
MOMENTS = (BEFORE, NO_CHECKPOINT, CHUNK, SAVING, DRAWING)

SMALL = {"kind": "mlp", "widths": [8]}
RELABELLED = {
    "kind": "relabelled", "inputs": "gaussian", "samples": 16, "dimensions": 4, "classes": 3,
    "tasks": 20, "steps_per_task": 40, "envs": 4,
}  # fmt: skip
CATCH = {"kind": "catch", "change": "action", "tasks": 8, "steps_per_task": 200}
COMMON: dict[str, Any] = {"monitors": ["weight_norm"], "seeds": 2, "probe_size": 16}
REPLAY = {
    "kind": "dqn", "network": SMALL, "optimizer": "adam", "epsilon": {"duration": 500},
    "replay": {"capacity": 400, "minimum": 32}, "batch_size": 8, "update_period": 2, "target_period": 10,
}  # fmt: skip
FRESH = {"baseline": {}, "fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}
CASES: dict[str, dict[str, Any]] = {
    "classifier": {
        "stream": RELABELLED,
        "agent": {"kind": "classifier", "network": SMALL, "optimizer": "adam"},
        "arms": FRESH,
        "record_every": 10,
        "checkpoint_every": 20,
    },
    "stream_q": {
        "stream": CATCH,
        "agent": {"kind": "stream_q", "network": SMALL, "epsilon": {"duration": 500}},
        "record_every": 20,
        "checkpoint_every": 40,
    },
    "dqn": {"stream": CATCH, "agent": REPLAY, "record_every": 20, "checkpoint_every": 40},
    "ppo": {
        "stream": {**CATCH, "envs": 2, "steps_per_task": 160},
        "agent": {"kind": "ppo", "network": SMALL, "rollout_length": 16, "minibatches": 2, "epochs": 2},
        "record_every": 20,
        "checkpoint_every": 40,
    },
    "sweep": {
        "stream": CATCH,
        "transforms": [{"kind": "scale_reward", "factor": 2.0}, {"kind": "observation_noise", "deviation": 0.1}],
        "agent": REPLAY,
        "evaluation": {"every": 200, "tasks": "seen", "episodes": 2},
        "sweep": {"agent.optimizer.learning_rate": [1.0e-3, 1.0e-2]},
        "record_every": 40,
        "checkpoint_every": 80,
    },
    "atari": {
        "stream": {"kind": "atari", "games": ["Breakout", "Pong"], "frames_per_visit": 1600},
        "agent": REPLAY,
        "seeds": 1,
        "record_every": 20,
        "checkpoint_every": 40,
    },
    "workers": {
        "stream": {
            "kind": "gym", "id": "CartPole-v1", "workers": True, "envs": 2, "cycles": 3, "steps_per_visit": 320,
            "variations": [{"max_episode_steps": 50}, {"max_episode_steps": 200}],
        },
        "agent": {"kind": "ppo", "network": SMALL, "rollout_length": 16, "minibatches": 2, "epochs": 2},
        "seeds": 1,
        "record_every": 20,
        "checkpoint_every": 40,
    },
}  # fmt: skip

Tables = dict[str, pa.Table]


class Timing(NamedTuple):
    """Of an undisturbed run with a warm cache, in seconds since its process began."""

    begun: float  # the run's folder is a run
    ended: float


class Found(NamedTuple):
    """The outcome of one case."""

    case: str
    kills: int
    rounds: int
    moments: dict[str, int]
    signals: dict[str, int]
    equal: int  # rounds whose every table is equal to the undisturbed run's
    unequal: list[str]
    tracebacks: list[str]
    left_over: int  # processes of a run that outlived it
    failed: list[str]  # runs that did not come to their end
    seconds: float


def command(config: Path, run: Path) -> list[str]:
    words = [sys.executable, "-m", "plasticity", "run", str(config), "--out", str(run)]
    return [*words, "--resume"] if (run / "experiment.yaml").exists() else words


@contextlib.contextmanager
def started(config: Path, run: Path, cache: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the command line, leader of a group of its own; none of the group outlives the block."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(ROOT),
    }
    with open(log, "wb") as told:
        child = subprocess.Popen(
            command(config, run), env=environment, cwd=ROOT, stdout=told, stderr=told, start_new_session=True
        )
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def group_is_gone(group: int, patience: float = 10.0) -> bool:
    """Whether every process of the group has ended within the time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def tables(run: Path) -> Tables:
    """Every table of every arm, rows in the order of its files, columns by name."""
    found = {}
    for arm in sorted(path.parent for path in run.glob("*/lanes.parquet")):
        found[f"{arm.name}/lanes"] = pq.read_table(arm / "lanes.parquet")
        for kind in ("metrics", "evaluations"):
            parts = [pq.read_table(path) for path in unmerged((arm / kind).glob("*.parquet"))]
            if parts:
                found[f"{arm.name}/{kind}"] = pa.concat_tables(parts, promote_options="permissive")
    return {name: table.select(sorted(table.column_names)).combine_chunks() for name, table in found.items()}


def differences(found: Tables, expected: Tables) -> list[str]:
    """Names of the tables that are not equal in every value and type."""
    names = sorted(set(found) | set(expected))
    return [
        name for name in names if name not in found or name not in expected or not found[name].equals(expected[name])
    ]


def moment(run: Path) -> str:
    """Where the process was, from what it left."""
    if not (run / "experiment.yaml").exists():
        return BEFORE
    checkpoints = list(run.glob("*/checkpoints/*/*.npz"))
    if not checkpoints:
        return NO_CHECKPOINT
    states = [json.loads(path.read_text(encoding="utf-8"))["state"] for path in run.glob("*/status.json")]
    arms = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))["arms"]
    if states == ["finished"] * len(arms):
        return DRAWING
    newest = max(path.stat().st_mtime_ns for path in checkpoints)
    parts = [path.stat().st_mtime_ns for path in run.glob("*/metrics/*.parquet")]
    return SAVING if list(run.rglob("*.tmp")) or max(parts, default=0) > newest else CHUNK


def snapshot(run: Path) -> frozenset[str]:
    """Names of the files that come and go while a run is saved."""
    with contextlib.suppress(OSError):
        return frozenset(str(path) for path in run.rglob("*") if path.suffix in (".tmp", ".npz", ".parquet"))
    return frozenset()


class Assassin:
    """Ends one process at one moment, which ``chance`` chooses."""

    def __init__(self, chance: random.Random, timing: Timing, several: int) -> None:
        life = max(timing.ended - timing.begun, 0.1)
        self.early = chance.random() < 0.15
        self.at_save = not self.early and chance.random() < 0.5
        self.delay = timing.begun * chance.random() if self.early else life * chance.random() / several
        self.number = chance.choice(SIGNALS)
        self.whole_group = self.number != signal.SIGKILL or chance.random() < 0.5

    def __call__(self, child: subprocess.Popen[bytes], run: Path) -> bool:
        """Whether the process still existed."""
        resumed = (run / "plan.json").exists()
        since = (run / "plan.json").stat().st_mtime_ns if resumed else 0
        if not self.early and not resumed:
            self._until(child, lambda: (run / "experiment.yaml").exists())
        elif not self.early:
            self._until(child, lambda: any(path.stat().st_mtime_ns > since for path in run.glob("*/status.json")))
        time.sleep(self.delay)
        if self.at_save:
            before = snapshot(run)
            self._until(child, lambda: snapshot(run) != before, patience=3.0, pause=0.0)
        if child.poll() is not None:
            return False
        (os.killpg if self.whole_group else os.kill)(child.pid, self.number)
        return True

    @staticmethod
    def _until(child: subprocess.Popen[bytes], done: Any, patience: float = PATIENCE, pause: float = 0.005) -> None:
        deadline = time.monotonic() + patience
        while child.poll() is None and time.monotonic() < deadline and not done():
            time.sleep(pause)


class Case:
    """One experiment, its undisturbed run, and its rounds."""

    def __init__(self, name: str, place: Path, cache: Path, seed: int) -> None:
        self.name, self.place, self.cache, self.seed = name, place / name, cache, seed
        self.place.mkdir(parents=True)
        self.config = self.place / "config.yaml"
        text = yaml.safe_dump({**COMMON, "name": name, **CASES[name]}, sort_keys=False)
        self.config.write_text(text, encoding="utf-8")
        self.moments: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.tracebacks: list[str] = []
        self.failed: list[str] = []
        self.left_over = 0

    def undisturbed(self) -> tuple[Tables, Timing]:
        """The run's tables, made twice: without a cache, then with it, for the time it takes."""
        first = self.place / "undisturbed"
        self._to_its_end(first, "undisturbed")
        again = self.place / "again"
        timing = self._to_its_end(again, "again")
        if self.failed:
            raise SystemExit(f"{self.name}: {self.failed[0]}")
        odd = differences(tables(again), tables(first))
        if odd:
            raise SystemExit(f"{self.name}: two undisturbed runs differ in {', '.join(odd)}")
        return tables(first), timing

    def _to_its_end(self, run: Path, label: str) -> Timing:
        begun, first = time.monotonic(), 0.0
        log = self.place / f"{label}.log"
        with started(self.config, run, self.cache, log) as child:
            while child.poll() is None and time.monotonic() - begun < PATIENCE:
                if not first and (run / "experiment.yaml").exists():
                    first = time.monotonic() - begun
                time.sleep(0.01)
            code = child.poll()
            self._look(log, label)
            self.left_over += code is not None and not group_is_gone(child.pid)
        if code != 0:
            self.failed.append(f"{label}: exit code {code}: {log.read_text(errors='replace').strip()[-300:]}")
        return Timing(first, time.monotonic() - begun)

    def _look(self, log: Path, label: str) -> None:
        text = log.read_text(encoding="utf-8", errors="replace")
        if "Traceback (most recent call last)" in text:
            self.tracebacks.append(f"{self.name}/{label}: {text.strip().splitlines()[-1][:200]}")

    def kill(self, run: Path, label: str, assassin: Assassin) -> bool:
        """Kill one process. False if it had already ended."""
        log = self.place / f"{label}.log"
        with started(self.config, run, self.cache, log) as child:
            hit = assassin(child, run)
            try:
                code = child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.failed.append(f"{label}: did not end after {assassin.number.name}")
                return False
            self._look(log, label)
            self.left_over += not group_is_gone(child.pid)
        if hit and code not in (0, -assassin.number, 128 + assassin.number):
            self.failed.append(f"{label}: exit code {code} after {assassin.number.name}")
        if hit and code != 0:
            self.moments[moment(run)] += 1
            self.signals[assassin.number.name] += 1
        return hit and code != 0

    def rounds(self, kills: int) -> Found:
        """Rounds until ``kills`` processes were ended."""
        begun = time.monotonic()
        expected, timing = self.undisturbed()
        equal, unequal, number = 0, [], 0
        while sum(self.moments.values()) < kills and number < 3 * kills + 3:
            chance = random.Random(f"{self.seed}/{self.name}/{number}")
            run, several = self.place / f"round-{number}", chance.randint(1, 4)
            for each in range(min(several, kills - sum(self.moments.values()))):
                if not self.kill(run, f"round-{number}-{each}", Assassin(chance, timing, several)):
                    break
            self._to_its_end(run, f"round-{number}-end")
            odd = differences(tables(run), expected)
            equal += not odd
            unequal += [f"{self.name}/round-{number}: {', '.join(odd)}"] if odd else []
            number += 1
        seconds = round(time.monotonic() - begun, 1)
        done = sum(self.moments.values())
        moments, signals = dict(self.moments), dict(self.signals)
        return Found(
            self.name,
            done,
            number,
            moments,
            signals,
            equal,
            unequal,
            self.tracebacks,
            self.left_over,
            self.failed,
            seconds,
        )


def shown(results: Sequence[Found]) -> str:
    """The results as a table, and what went wrong line by line."""
    heads = ["case", "kills", *MOMENTS, "runs", "equal", "tracebacks", "left over", "failed"]
    rows = []
    for each in results:
        hit = [each.moments.get(name, 0) for name in MOMENTS]
        faults = [len(each.tracebacks), each.left_over, len(each.failed)]
        rows.append([each.kills, *hit, each.rounds, each.equal, *faults])
    named = [[each.case, *row] for each, row in zip(results, rows, strict=True)]
    named.append(["all", *map(sum, zip(*rows, strict=True))])
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [heads, ["---"] * len(heads), *named]]
    told = Counter[str]()
    for each in results:
        told.update(each.signals)
    lines.append(", ".join(f"{name}: {count}" for name, count in sorted(told.items())))
    for each in results:
        lines += [*each.unequal, *each.tracebacks, *each.failed]
    return "\n".join(lines)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="how many, of all cases together (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="chooses moments and signals (default 0)")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--jobs", type=int, default=1, help="cases that run at the same time (default 1)")
    parser.add_argument("--keep", type=Path, help="a new folder for runs and logs, which stays")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Runs the cases, prints the table. 0 where nothing went wrong, else 1."""
    options = arguments(given)
    names = options.case or list(CASES)
    shares = [options.kills // len(names) + (i < options.kills % len(names)) for i in range(len(names))]
    with contextlib.ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or place / "cache")

        def one(name: str, share: int) -> Found:
            found = Case(name, place, cache, options.seed).rounds(share)
            print(f"{name}: {found.kills} kills, {found.equal} of {found.rounds} equal, {found.seconds} s", flush=True)
            return found

        with ThreadPoolExecutor(options.jobs) as pool:
            results = list(pool.map(one, names, shares))
    print(shown(results))
    if options.json:
        options.json.write_text(json.dumps([each._asdict() for each in results], indent=1), encoding="utf-8")
    good = all(not (each.unequal or each.tracebacks or each.left_over or each.failed) for each in results)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
