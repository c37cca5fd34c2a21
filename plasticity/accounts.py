"""``plan.json`` and each arm's ``status.json``, what a folder says of its run: read, and types checked."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from plasticity.stored import DamagedError, has, is_list, is_number, is_whole, read_json

PLAN, STATUS = "plan.json", "status.json"
PART = "part-{:03d}-{:05d}.parquet"  # program, number


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_visit(value: Any) -> bool:
    return has(value, task=is_whole, steps=lambda steps: is_whole(steps, 1))


def _is_arm(value: Any) -> bool:
    return has(value, name=_is_text, lanes=is_whole)


def _is_program(value: Any) -> bool:
    return has(value, arm=_is_text, lanes=is_whole)


def _is_stream(value: Any) -> bool:
    facts = {"reward_name": _is_text, "episodic": lambda flag: isinstance(flag, bool), "frames_per_step": is_whole}
    lists = {"tasks": lambda names: is_list(names, _is_text), "visits": lambda visits: is_list(visits, _is_visit)}
    return has(value, **facts, **lists) and all(visit["task"] < len(value["tasks"]) for visit in value["visits"])


def read_plan(run: Path) -> dict[str, Any]:
    """What the run set out to do.

    ``DamagedError`` where the file is not as it was written, or is no plan; ``OSError`` where there is none.
    """
    found = read_json(run / PLAN)
    if not has(found, arms=lambda arms: is_list(arms, _is_arm), stream=_is_stream):
        raise DamagedError("it does not hold the arms and the stream of a run")
    if not is_list(found.get("programs", []), _is_program) or not isinstance(found.get("versions", {}), dict):
        raise DamagedError("its programs or versions are not those of a run")
    return found


def _few(counts: Iterable[Any]) -> bool:
    return all(is_whole(count) and count < 1_000_000 for count in counts)


KINDS: dict[str, Callable[[Any], bool]] = {
    "state": _is_text,
    "finished": lambda numbers: is_list(numbers, is_whole),
    **dict.fromkeys(("program", "lanes", "steps", "visit", "step"), is_whole),
    **dict.fromkeys(("steps_per_second", "updated"), is_number),
    "parts": lambda counts: isinstance(counts, dict) and all(map(str.isdecimal, counts)) and _few(counts.values()),
}


def read_status(arm: Path, told: Callable[[Path, str], None] = lambda path, why: None) -> dict[str, Any]:
    """What the arm does; nothing where its status is missing or damaged, since the checkpoints know as much.

    ``told`` receives the file, and why it is left out, where it is damaged.
    """
    path = arm / STATUS
    try:
        found = read_json(path)
        if found.keys() & KINDS.keys() and all(kind(found[key]) for key, kind in KINDS.items() if key in found):
            return found
        told(path, "it does not hold the facts of a status")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, DamagedError) as error:
        told(path, str(error))
    return {}


def table_parts(arm: Path, told: Callable[[Path, str], None], folder: str = "metrics") -> list[Path]:
    """The parts of an arm's table that are there, in order; ``told`` receives each that is missing among them.

    Parts are numbered from 0 within each program; how many a finished program has is in the status. Evaluations need
    not be in every part.
    """
    paths = sorted((arm / folder).glob("part-*.parquet"))
    if folder != "metrics":
        return paths
    counts = {int(program): count for program, count in read_status(arm).get("parts", {}).items()}
    for program, number in filter(None, map(_numbers, paths)):
        counts[program] = max(counts.get(program, 0), number + 1)
    wanted = (arm / folder / PART.format(program, k) for program, count in counts.items() for k in range(count))
    for path in sorted(set(wanted) - set(paths)):
        told(path, "it is missing")
    return paths


def _numbers(path: Path) -> tuple[int, int] | None:
    """Program and number of a part."""
    found = re.fullmatch(r"part-(\d+)-(\d+)\.parquet", path.name)
    return (int(found[1]), int(found[2])) if found else None
