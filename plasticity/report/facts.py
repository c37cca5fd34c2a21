"""Facts about a run besides its tables: config, versions, progress, speed, memory, diverged lanes."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasticity import results
from plasticity.results.best import tuned_text
from plasticity.results.read import RunPath, config_if_whole, probes
from plasticity.results.stored import leave_out
from plasticity.runs.accounts import EXPERIMENT, PLAN, Part, parts_of_arms, read_status

PAGE = "report.html"  # in the folder of a run


def facts(run: RunPath) -> dict[str, Any]:
    """``name, folder, path, finished, share, versions, seeds, arms, diverged, command, tuned, config, stream, agent``,
    and ``probes``.

    Raises:
      ValueError: ``run`` is not the folder of a run.
    """
    plan, folder = results.plan(run), Path(run)
    config = config_if_whole(run)
    text = _text(folder / EXPERIMENT) if config else ""
    arms = _arms(folder, plan)
    finished = all(arm["state"] == "finished" for arm in arms)
    known = results.lanes(run)
    seeds = [int(seed) for seed in np.unique(known["seed"])] if len(known) else []
    return {
        "name": str(plan.get("name", folder.absolute().name)),
        "folder": folder.absolute().name,
        "path": str(folder),
        "finished": finished,
        "share": _share(arms),
        "versions": dict(plan.get("versions", {})),
        "seeds": seeds,
        "arms": arms,
        "diverged": _diverged(run),
        "command": _command(folder, finished),
        "probes": [_probe(name, place) for name, place in probes(run).items()],
        "tuned": tuned_text(run),
        "config": text.partition("\n")[2] if text.startswith("#") else text,
        **_kinds(config),
    }


def _arms(folder: Path, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = parts_of_arms(folder, plan)
    return [_arm(plan, arm["name"], parts[arm["name"]]) for arm in plan["arms"]]


def _share(arms: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([arm["share"] for arm in arms])) if arms else 0.0


def _probe(name: str, place: Path) -> dict[str, Any]:
    """``name, path, started, share`` of a probe, and ``page``: its report, or its folder while it has none."""
    found = {"name": name, "path": str(place), "started": (place / PLAN).exists(), "share": 0.0}
    if found["started"]:
        try:
            found["share"] = _share(_arms(place, results.plan(place)))
        except ValueError as error:
            leave_out(place / PLAN, str(error))
    return found | {"page": str(place / PAGE if (place / PAGE).exists() else place)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kinds(config: Mapping[str, Any]) -> dict[str, str]:
    """The kinds of the stream and of the agents; empty if the config does not give them."""
    arms = config.get("arms")
    own = [arm.get("agent") for arm in (arms.values() if isinstance(arms, Mapping) else ()) if isinstance(arm, Mapping)]
    default = config.get("agent") if None in own or not own else None
    agents = dict.fromkeys(_kind(agent) for agent in (default, *own))
    return {"stream": _kind(config.get("stream")), "agent": ", ".join(filter(None, agents))}


def _kind(section: Any) -> str:
    return str(section.get("kind", "")) if isinstance(section, Mapping) else ""


def _arm(plan: Mapping[str, Any], name: str, places: Sequence[Part]) -> dict[str, Any]:
    """Progress, speed, placement and memory of an arm; None for anything that the folder does not record."""
    programs = [program for program in plan.get("programs", ()) if program["arm"] == name]
    arm = next(arm for arm in plan["arms"] if arm["name"] == name)
    steps = sum(visit["steps"] for visit in plan["stream"]["visits"])
    parts = [(part, read_status(part.folder, leave_out)) for part in places]
    states = ["finished" if _is_finished(part, status) else str(status.get("state", "not started"))
              for part, status in parts]  # fmt: skip
    speeds = [status.get("steps_per_second") or 0.0 for _, status in parts]
    finished = all(state == "finished" for state in states)
    return {
        "name": name,
        "lanes": arm["lanes"],
        "task_aware": arm["task_aware"],
        "reads_task": arm["reads_task"],
        "state": "finished" if finished else next(state for state in states if state != "finished"),
        "share": sum(_done(part, status, steps) for part, status in parts) / (len(programs) or 1),
        "speed": float(np.mean(speeds)) if all(speeds) else None,
        "seconds": _seconds(parts, steps) if finished and all(speeds) else None,
        "updated": max((status["updated"] for _, status in parts if "updated" in status), default=None),
        "placements": [program["placement"] for program in programs if "placement" in program],
        "bytes": [sum(program["bytes_per_device"].values()) for program in programs if "bytes_per_device" in program],
    }


def _is_finished(part: Part, status: Mapping[str, Any]) -> bool:
    return len(status.get("finished", ())) >= len(part.programs)


def _done(part: Part, status: Mapping[str, Any], steps: int) -> float:
    """How many programs of a folder are done; the one that is under way counts by its share."""
    finished = status.get("finished", ())
    under_way = 0.0 if status.get("program") in finished else status.get("step", 0) / max(steps, 1)
    return min(float(len(part.programs)), len(finished) + under_way)


def _seconds(parts: Sequence[tuple[Part, Mapping[str, Any]]], steps: int) -> float:
    """The time of all programs, one after another."""
    return sum(sum(part.programs.values()) * steps / status["steps_per_second"] for part, status in parts)


def _diverged(run: RunPath) -> list[dict[str, Any]]:
    """The diverged lanes: ``arm, lane, seed, step, settings``."""
    table, hyper = results.lanes(run), results.hyper_parameters(run)
    if table.empty or "diverged_at" not in table:
        return []
    found = []
    for point in results.points(table, hyper):
        for row in point.rows[point.rows["diverged_at"].notna()].to_dict("records"):
            lane, seed, step = int(row["lane"]), int(row["seed"]), int(row["diverged_at"])
            found.append({"arm": point.label, "lane": lane, "seed": seed, "step": step})
    return found


def _command(folder: Path, finished: bool) -> str:
    """The command that runs the experiment again, or resumes it."""
    config = str(folder / EXPERIMENT)
    out = ["--out", f"{folder}-again"] if finished else ["--out", str(folder), "--resume"]
    return shlex.join(["plasticity", "run", config, *out])
