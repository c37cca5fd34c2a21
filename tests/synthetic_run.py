"""Writes run folders as the recorder does, with made-up numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

IDENTITY = ["arm", "lane", "seed", "step", "frames", "update", "visit", "task", "step_in_visit"]


def plan(arms, *, tasks, visits, episodic=False, reward_name="accuracy", name="made", lanes=1, frames_per_step=1):
    """``visits``: pairs (task index, steps)."""
    stream = {
        "reward_name": reward_name,
        "episodic": episodic,
        "frames_per_step": frames_per_step,
        "envs": 2,
        "tasks": list(tasks),
        "visits": [{"task": task, "steps": steps} for task, steps in visits],
    }
    return {"name": name, "arms": [{"name": arm, "lanes": lanes} for arm in arms], "stream": stream}


def write(folder, plan, lanes=None, metrics=None, parts=1):
    """``lanes`` and ``metrics``: arm -> DataFrame; ``parts``: into how many files the metrics are cut."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "experiment.yaml").write_text(f"name: {plan['name']}\n")
    for arm, table in (lanes or {}).items():
        (folder / arm).mkdir(exist_ok=True)
        table.to_parquet(folder / arm / "lanes.parquet", index=False)
        (folder / arm / "status.json").write_text('{"finished": []}')
    for arm, table in (metrics or {}).items():
        (folder / arm / "metrics").mkdir(parents=True, exist_ok=True)
        for part, rows in enumerate(np.array_split(np.arange(len(table)), parts)):
            table.iloc[rows].to_parquet(folder / arm / "metrics" / f"part-{part:05d}.parquet", index=False)
    return folder


def lane_table(seeds, *, hyper=None, diverged=None):
    """One lane for each seed; ``hyper``: column -> one value for each lane; ``diverged``: lane -> env step."""
    count = len(seeds)
    ended = pd.array([(diverged or {}).get(lane) for lane in range(count)], dtype="Int64")
    columns = {"lane": range(count), "seed": seeds, "program": 0, **(hyper or {})}
    return pd.DataFrame(columns).assign(diverged_at=ended)


def records(arm, plan, seeds, *, rewards, every=None, returns=None, episodes=None, **metrics):
    """The metrics of an arm; the numbers are arrays ``[lanes, records]``, the visits cut into records of ``every``."""
    stream, rows, step = plan["stream"], [], 0
    for index, visit in enumerate(stream["visits"]):
        length = every or max(1, visit["steps"] // 10)
        done = [*range(length, visit["steps"], length), visit["steps"]]
        rows += [(step + each, index, stream["tasks"][visit["task"]], each) for each in done]
        step += visit["steps"]
    table = pd.DataFrame(rows, columns=["step", "visit", "task", "step_in_visit"])
    values = {"reward": rewards, "episodic_return": returns, "episodes": episodes, **metrics}
    lanes = []
    for lane, seed in enumerate(seeds):
        one = table.assign(arm=arm, lane=lane, seed=seed, update=table["step"])
        one["frames"] = one["step"] * stream["frames_per_step"]
        for name, value in values.items():
            one[name] = np.nan if value is None else np.asarray(value, float)[lane]
        lanes.append(one)
    joined = pd.concat(lanes).sort_values(["step", "lane"], kind="stable")
    return joined[[*IDENTITY, *values]].reset_index(drop=True)


def number_of_records(plan):
    return sum(len(range(0, v["steps"], max(1, v["steps"] // 10))) for v in plan["stream"]["visits"])


def invented(folder, plan, seeds, *, monitors=("effective_rank",), hyper=None, diverged=None, until=None, parts=2):
    """A run with plausible curves; ``diverged``: arm -> {lane: step}; ``until``: arm -> last env step written."""
    stream, count, lanes, metrics = plan["stream"], number_of_records(plan), {}, {}
    for number, arm in enumerate(entry["name"] for entry in plan["arms"]):
        noise = np.random.default_rng(number)
        shape = (len(seeds), count)
        table = records(arm, plan, seeds, rewards=np.zeros(shape))
        slope = 0.0 if arm == "fresh" else 0.4 * (number + 1) / len(plan["arms"])
        life = table["step"] / table["step"].max()
        length = table["visit"].map(lambda visit: stream["visits"][visit]["steps"])
        level = 0.9 - slope * life - 0.3 * np.exp(-4 * table["step_in_visit"] / length)
        table["reward"] = level + noise.normal(0, 0.02, len(table))
        if stream["episodic"]:
            table["episodes"] = noise.integers(0, 4, len(table)).astype(float)
            scale = table["task"].map({task: 20.0 * 7**k for k, task in enumerate(stream["tasks"])})
            table["episodic_return"] = (table["reward"] * scale).where(table["episodes"] > 0)
        for k, monitor in enumerate(monitors):
            value = 10.0 ** (k * level) * np.exp(noise.normal(0, 0.05, len(table)))
            table[monitor] = value.where(table["step_in_visit"] == length)
        ended = (diverged or {}).get(arm, {})
        lost = table["step"] > table["lane"].map(ended).fillna(np.inf)
        table.loc[lost, [c for c in table if c not in IDENTITY]] = np.nan
        lanes[arm] = lane_table(seeds, hyper=hyper, diverged=ended)
        limit = (until or {}).get(arm, np.inf)
        if limit > 0:
            metrics[arm] = table[table["step"] <= limit]
    return write(folder, plan, {arm: lanes[arm] for arm in metrics}, metrics, parts)
