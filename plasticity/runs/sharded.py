"""A run that is cut into shards: its folder holds the plan, and each shard is a run of its own in ``shards/NUMBER``.

Processes on any machines that share the folder may run different shards at the same time. Each locks its own shard; the
run's folder is locked only while it is laid out.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.config.experiments import Experiment
from plasticity.config.programs import programs
from plasticity.core.errors import UserError
from plasticity.runs import folder, shards
from plasticity.runs.accounts import SHARD, SHARDS, read_plan, shard_folder, shard_folders
from plasticity.runs.checksums import DamagedError
from plasticity.runs.estimates import within_hours
from plasticity.runs.execution import check_learners, current, execute, located
from plasticity.runs.lock import InUseError, held
from plasticity.runs.planning import Plan, plan, widths_of
from plasticity.runs.session import Progress
from plasticity.runs.shards import Shard

WAIT_SECONDS, POLL_SECONDS = 900.0, 0.5  # for another process that lays the run out


class Layout(NamedTuple):
    """How a run is cut."""

    shards: list[Shard]
    split: str
    widths: list[int]  # of each program


def is_cut(place: Path) -> bool:
    """Whether the folder holds a run that is cut into shards."""
    return bool(_facts(place))


def is_finished(place: Path) -> bool:
    """Whether every program of the run has finished, or every shard, if it is cut."""
    facts = _facts(place)
    if not facts:
        return folder.is_finished(place)
    return all(folder.is_finished(shard_folder(place, number)) for number in range(1, facts["count"] + 1))


def check_force(shard: str | None, force: bool) -> None:
    """``UserError`` if a part of a run is to replace the whole."""
    if shard is not None and force:
        raise UserError("--force replaces a whole run, and --shard runs a part of one; give one of them")


def _facts(place: Path, key: str = SHARDS) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_plan(place).get(key) or {}
    except (OSError, DamagedError):
        return {}
    return found


def shard_in(place: Path, experiment: Experiment) -> tuple[Shard | None, list[int]]:
    """The shard whose folder this is, and the widths of all programs; None and no widths for any other folder."""
    found = _facts(place, SHARD)
    if not found:
        return None, []
    return _cut(experiment, found).shards[found["number"] - 1], list(found["widths"])


def _cut(experiment: Experiment, facts: Mapping[str, Any]) -> Layout:
    asked = programs(experiment)
    return Layout(shards.cut(asked, shards.parse(facts["split"])), facts["split"], list(facts["widths"]))


def run(
    experiment: Experiment,
    place: Path,
    split: str | None,
    shard: str | None,
    *,
    resume: bool,
    force: bool,
    progress: Progress,
) -> None:
    """Run one shard, or all that no other process runs; see :func:`plasticity.runs.launch.run`."""
    check_force(shard, force)
    wanted = shards.parse_number(shard) if shard else None
    layout = lay_out(experiment, place, split or (f"jobs={wanted[1]}" if wanted and not is_cut(place) else None),
                     resume=resume or shard is not None, force=force,
                     again=("run", f"--shard {shard}" if shard else "--resume"))  # fmt: skip
    if shard is not None:
        number, _ = shards.parse_number(shard, len(layout.shards))
        _run_one(experiment, place, layout, layout.shards[number - 1], progress)
        return
    for each in layout.shards:
        try:
            _run_one(experiment, place, layout, each, progress)
        except InUseError as error:
            progress.say(f"{error}; skipped")


def run_here(experiment: Experiment, place: Path, *, resume: bool, force: bool, progress: Progress) -> None:
    """Run everything in one folder, or the shard whose folder it is."""

    def make_plan() -> Plan:
        shard, widths = shard_in(place, experiment) if resume else (None, [])
        return plan(experiment, shard, widths)._replace(cut={SHARD: _facts(place, SHARD)} if shard else {})

    execute(experiment, place, make_plan, resume=resume, force=force, progress=progress)


def _run_one(experiment: Experiment, place: Path, layout: Layout, shard: Shard, progress: Progress) -> None:
    facts = {SHARD: {"number": shard.number, "split": layout.split, "widths": layout.widths}}

    def make_plan() -> Plan:
        return plan(experiment, shard, layout.widths)._replace(cut=facts)

    where = shard_folder(place, shard.number)
    if folder.is_finished(where):
        progress.say(f"{where}: already finished")
        return
    execute(experiment, where, make_plan, resume=True, force=False, progress=progress)


def lay_out(
    experiment: Experiment,
    place: Path,
    split: str | None,
    *,
    resume: bool,
    force: bool,
    gpu: bool = False,
    again: tuple[str, str] = ("run", "--resume"),
    dry: bool = False,
) -> Layout:
    """The shards of the run in the folder, which is created if it is not there.

    ``gpu``: a new run is laid out for machines with a GPU, whatever this machine has. ``again``: see
    :func:`plasticity.runs.folder.check`. ``dry``: nothing is written.

    Raises:
      UserError: the folder holds another run, one that is cut otherwise or not cut, or (without ``resume``) any.
    """
    resolved = experiment.resolve()
    given = shards.parse(split) if split else None
    until = time.monotonic() + WAIT_SECONDS
    while True:
        if folder.check(place, resolved, resume=resume, force=force, current=current, again=again):
            return _existing(experiment, place, given)
        if dry:
            return _created(experiment, place, resolved, given, gpu, dry)
        try:
            with held(place):
                if not folder.check(place, resolved, resume=resume, force=force, current=current):
                    return _created(experiment, place, resolved, given, gpu)
        except InUseError:  # another process lays it out
            if not resume or time.monotonic() > until:
                raise
            time.sleep(POLL_SECONDS)


def _existing(experiment: Experiment, place: Path, given: shards.Split | None) -> Layout:
    found = _facts(place)
    if not found:
        raise UserError(f"{place}: this run is not cut into shards; choose another --out")
    if given is not None and str(given) not in (found["split"], found.get("asked")):
        raise UserError(f"{place}: this run is cut by --split {found['split']}, not {given}")
    return _cut(experiment, found)


def _created(
    experiment: Experiment,
    place: Path,
    resolved: dict[str, Any],
    given: shards.Split | None,
    gpu: bool,
    dry: bool = False,
) -> Layout:
    assert given is not None
    check_free(place)
    asked = programs(experiment)
    whole = plan(experiment)
    check_learners(whole.jobs)
    split = within_hours(whole, given) if given.hours else given
    layout = shards.cut(asked, split)
    widths = widths_of(experiment, layout, gpu)
    if dry:
        return Layout(layout, str(split), widths)
    facts = {
        SHARDS: {"split": str(split), "asked": str(given), "count": len(layout), "widths": widths},
        "programs": [
            {"arm": asked[index].arm, "number": asked[index].index, "lanes": len(rows), "shard": shard.number}
            for shard in layout
            for index, rows in shard.parts
        ],
    }
    folder.open_folder(place, located(resolved, whole.spec), whole._replace(cut=facts).describe(), resume=False)
    return Layout(layout, str(split), widths)


def check_free(place: Path) -> None:
    """``UserError`` if a process still runs a shard of the run that is replaced."""
    for path in shard_folders(place).values():
        with held(path):
            pass
