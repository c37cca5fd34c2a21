"""``plan.json`` and each arm's ``status.json``, what a folder says of its run: read, and types checked."""

from pathlib import Path
from typing import Any

from plasticity.stored import DamagedError, has, is_list, is_number, is_whole, read_json

PLAN, STATUS = "plan.json", "status.json"


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
        raise DamagedError("its programs or versions are none")
    return found


KINDS = {
    "state": _is_text,
    "finished": lambda numbers: is_list(numbers, is_whole),
    **dict.fromkeys(("program", "lanes", "steps", "visit", "step"), is_whole),
    **dict.fromkeys(("steps_per_second", "updated"), is_number),
}


def read_status(arm: Path) -> dict[str, Any]:
    """What the arm does; nothing where its status is missing or damaged, since the checkpoints know as much."""
    try:
        found = read_json(arm / STATUS)
    except (OSError, DamagedError):
        return {}
    return found if all(KINDS[key](value) for key, value in found.items() if key in KINDS) else {}
