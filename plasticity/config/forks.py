"""Forks: the config of a run in which the learners of another run, and new ones beside them, face one common stream."""

from collections.abc import Mapping, Sequence
from typing import Any

from plasticity.config.experiments import FRESH
from plasticity.config.names import LONGEST
from plasticity.core.errors import UserError, unknown

# What a fork takes from another config; all other keys are those of the forked run.
STREAM_KEYS = (
    "stream", "transforms", "schedule", "monitors", "monitor_every", "record_every", "probe_size", "evaluation",
    "checkpoint_every",
)  # fmt: skip
DROPPED = ("arms", "tune", "reference", "keep_checkpoints", "probes", "name", "interventions", "task_aware")
NEW = f".{FRESH}"  # ends the name of the arm with new learners
RESET = {"kind": "reset", "when": "switch"}


def after(arm: str, visits: int) -> str:
    """The name of the arm whose learners have done so many visits of the forked run."""
    return f"{arm}.after{visits}"


def fork_config(
    source: Mapping[str, Any],
    run: str,
    at: Mapping[int, int],
    *,
    name: str,
    stream: Mapping[str, Any] | None = None,
    arms: Sequence[str] | None = None,
    fresh: bool = True,
) -> dict[str, Any]:
    """The config of a fork.

    Args:
      source: the resolved config of the forked run.
      run: its folder.
      at: numbers of visits after which its learners go on -> the env steps of these visits.
      name: of the fork.
      stream: a config whose stream, transforms, schedule, monitors, evaluation and periods the fork has; None: those of
        the forked run.
      arms: of the forked run; None: all but those that serve as controls.
      fresh: add new learners for each arm, which are its control and are reset at every switch.

    Raises:
      UserError: an arm is unknown, a name becomes too long, or new learners cannot be added (:func:`_check_reset`).
    """
    given = source["arms"]
    chosen = _chosen(given) if arms is None else list(dict.fromkeys(arms))
    for arm in chosen:
        if arm not in given:
            raise UserError(f"arms: {unknown(f'arm `{arm}`', arm, list(given), 'of the run')}")
    found = {key: value for key, value in source.items() if key not in DROPPED}
    if stream is not None:
        found = {key: value for key, value in found.items() if key not in STREAM_KEYS}
        found |= {key: stream[key] for key in STREAM_KEYS if key in stream}
    made: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for arm in chosen:
        changes = _changes(source, given[arm])
        control = f"{arm}{NEW}"
        for visits, steps in at.items():
            start = {"run": run, "arm": arm, "visits": visits, "steps": steps, "earlier": _earlier(given[arm])}
            made[after(arm, visits)] = {**changes, "start": start, **({"control": control} if fresh else {})}
            origins[after(arm, visits)] = arm
        if fresh:
            _check_reset(arm, {**(source.get("sweep") or {}), **(changes.get("sweep") or {})})
            made[control] = {**changes, "interventions": [*changes["interventions"], RESET], "task_aware": True}
            origins[control] = arm
    for arm in made:
        if len(arm) > LONGEST:
            raise UserError(f"arms: {arm} is too long for the name of an arm; at most {LONGEST} characters are allowed")
    tune = source.get("tune")
    if tune:
        found["tune"] = {**tune, "chosen": {arm: tune["chosen"][origins[arm]] for arm in made}}
    return {**found, "name": name, "arms": made}


def _chosen(given: Mapping[str, Any]) -> list[str]:
    """The arms that are no controls; all, if there are no others."""
    controls = {arm.get("control") for arm in given.values()} | {FRESH}
    return [name for name in given if name not in controls] or list(given)


def _check_reset(arm: str, sweep: Mapping[str, Any]) -> None:
    """``UserError`` if the sweep names the arm's own `reset`: beside that of new learners, the name is ambiguous."""
    for path, values in sweep.items():
        if values is not None and path.split(".")[:2] == ["interventions", RESET["kind"]]:
            raise UserError(
                f"arms.{arm}: the run sweeps {path}, and new learners need a second `reset`, so that the name would be "
                "ambiguous; leave them out: --no-fresh, in a probe `fresh: false`"
            )


def _earlier(arm: Mapping[str, Any]) -> list[int] | None:
    """Visits and env steps of an arm's learners before the run; None if its config does not say."""
    start = arm.get("start")
    if not start:
        return [0, 0]
    if start.get("steps") is None or start.get("earlier") is None:
        return None
    return [start["earlier"][0] + start["visits"], start["earlier"][1] + start["steps"]]


def _changes(source: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    """What an arm changes, with its interventions in full and without its own control and start."""
    kept = {key: value for key, value in arm.items() if key not in ("control", "start")}
    return {"interventions": source["interventions"], "task_aware": source["task_aware"], **kept}
