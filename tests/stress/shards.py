"""Write a run of many shards as their processes would leave it, then time and weigh every reader of it.

    python tests/stress/shards.py /tmp/many --arms 100 --seeds 100
    python tests/stress/shards.py /tmp/many --read

The plan and the first shard are real; the others are copies of it with their own arm, lane, seed and rewards, written
by the project's own writers. Checkpoints, which no reader opens, are links to those of the first shard. Of every tenth
shard (``--unfinished``), only the first half is written. Each reader runs in a process of its own.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plasticity.runs import launch
from plasticity.runs.accounts import LANES, METRICS, PART, PLAN, SHARD, STATUS, note, read_plan, shard_folder, to_footer
from plasticity.runs.checksums import read_json, table_bytes, to_json

RATE = 0.001
READERS = {
    "results.lanes": "results.lanes(run)",
    "results.load": "results.load(run)",
    "results.load of one metric": "results.load(run, metrics=['reward'])",
    "results.visits": "results.visits(run)",
    "results.summary": "results.summary(run)",
    "plasticity watch --once": "cli('watch', run, '--once')",
    "plasticity plot": "cli('plot', run)",
    "plasticity report": "cli('report', run)",
}
PROLOGUE = """
import atexit, contextlib, io, re, sys, time
def cost():
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    print(f"{time.process_time():.1f} s of CPU, {peak / 2**20:.2f} GiB", flush=True)
atexit.register(cost)
from plasticity import results
from plasticity.cli import main
def cli(*words):
    sys.argv = ["plasticity", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main.main()
run = sys.argv[1]
"""


def config(arms: int, seeds: int, visits: int) -> dict:
    """Arms that differ in their step size, on a small stream."""
    stream = {"kind": "relabelled", "inputs": "gaussian", "samples": 64, "dimensions": 8, "classes": 3}
    agent = {"kind": "classifier", "network": {"kind": "mlp", "widths": [16]}, "optimizer": "adam"}
    rates = {f"arm{i}": {"agent": {"optimizer": {"learning_rate": RATE * (1 + i)}}} for i in range(arms)}
    return {
        "name": "many", "stream": {**stream, "tasks": visits, "steps_per_task": 40, "envs": 4}, "agent": agent,
        "monitors": ["weight_norm", "effective_rank", "dormant_units"], "monitor_every": 40, "seeds": seeds,
        "arms": {"fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}, **rates},
    }  # fmt: skip


class Shards:
    """Copies of the first shard of a run."""

    def __init__(self, run: Path, parts: int) -> None:
        self.run, self.parts = run, parts
        self.programs = read_plan(run)["programs"]
        self.first = shard_folder(run, 1)
        arm = self.first / self.programs[0]["arm"]
        self.arm, self.plan, self.status = arm, read_json(self.first / PLAN), read_json(arm / STATUS)
        paths = sorted((arm / METRICS).glob("*.parquet"))
        self.rows = pa.concat_tables([pq.read_table(path) for path in paths], promote_options="default")
        self.lanes = pq.read_table(arm / LANES)
        self.checkpoints = sorted((arm / "checkpoints").rglob("*.npz"))

    def write(self, number: int, seed: int, share: float) -> None:
        """The shard ``number``; ``share``: of its rows that are there."""
        name = self.programs[number - 1]["arm"]
        place = shard_folder(self.run, number)
        arm = place / name
        (arm / METRICS).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.first / "experiment.yaml", place / "experiment.yaml")
        arms = [{**self.plan["arms"][0], "name": name}]
        facts = {**self.plan[SHARD], "number": number}
        programs = [{**self.plan["programs"][0], "arm": name}]
        (place / PLAN).write_text(to_json({**self.plan, "arms": arms, SHARD: facts, "programs": programs}))
        rows = self._named(self.rows.slice(0, int(share * len(self.rows))), name, seed)
        cuts = np.linspace(0, len(rows), self.parts + 1).astype(int)
        for part, (start, end) in enumerate(itertools.pairwise(cuts)):
            (arm / METRICS / PART.format(0, part)).write_bytes(table_bytes(rows.slice(start, end - start)))
        lanes = self.lanes.set_column(0, "lane", pa.array([seed], self.lanes["lane"].type))
        lanes = lanes.set_column(1, "seed", pa.array([seed], self.lanes["seed"].type))
        footer = to_footer({0: note(0, self.parts, ())})
        (arm / LANES).write_bytes(table_bytes(lanes.replace_schema_metadata(footer)))
        (arm / STATUS).write_text(to_json(self._status(share)))
        for path in self.checkpoints:
            link = arm / path.relative_to(self.arm)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)

    def _status(self, share: float) -> dict:
        ended = {"state": "finished", "finished": [0], "parts": {"0": self.parts}}
        begun = {"state": "interrupted", "finished": [], "parts": {}, "step": int(share * self.status["steps"])}
        return {**self.status, **(ended if share == 1 else begun)}

    def _named(self, rows: pa.Table, arm: str, seed: int) -> pa.Table:
        noise = np.random.default_rng(seed).normal(0, 0.02, len(rows)).astype(np.float32)
        columns = {
            "arm": pa.array([arm] * len(rows)),
            "lane": pa.array(np.full(len(rows), seed, np.int32)),
            "seed": pa.array(np.full(len(rows), seed, np.int32)),
            "reward": pa.array(rows["reward"].to_numpy() + noise),
        }
        for name, column in columns.items():
            rows = rows.set_column(rows.column_names.index(name), name, column)
        return rows


def write(run: Path, arms: int, seeds: int, visits: int, parts: int, unfinished: float) -> None:
    began = time.monotonic()
    experiment = launch.experiment_of(config(arms - 1, seeds, visits))
    launch.run(experiment, run, split="arms,seeds=1", shard=f"1/{arms * seeds}")
    print(f"laid out, and the first shard run: {time.monotonic() - began:.0f} s", flush=True)
    shards = Shards(run, parts)
    every = round(1 / unfinished) if unfinished else 0
    for number in range(2, arms * seeds + 1):
        shards.write(number, (number - 1) % seeds, 0.5 if every and number % every == 0 else 1.0)
    print(f"{arms * seeds:,} shards written: {time.monotonic() - began:.0f} s", flush=True)


def size(run: Path) -> str:
    """Files, folders and bytes."""
    files = folders = total = 0
    for _, inner, names in os.walk(run):
        files, folders = files + len(names), folders + len(inner)
    total = int(subprocess.run(["du", "-s", "-B1", run], capture_output=True, text=True, check=True).stdout.split()[0])
    return f"{files:,} files in {folders:,} folders, {total / 2**20:,.0f} MiB"


def read(run: Path, only: str) -> None:
    print(size(run))
    for name, expression in READERS.items():
        if only in name:
            began = time.monotonic()
            command = [sys.executable, "-W", "ignore", "-c", PROLOGUE + expression, str(run)]
            cost = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
            print(f"{name}: {time.monotonic() - began:.1f} s, {cost}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--read", action="store_true", help="read a run that is there")
    parser.add_argument("--only", default="", help="the readers whose names contain this")
    parser.add_argument("--unfinished", type=float, default=0.1)
    for name, usual in (("arms", 100), ("seeds", 100), ("visits", 20), ("parts", 1)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    if not given.read:
        write(given.run, given.arms, given.seeds, given.visits, given.parts, given.unfinished)
    read(given.run, given.only)


if __name__ == "__main__":
    main()
