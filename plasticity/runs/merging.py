"""Merge folders that hold shards of the same run, for machines that share no file system."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity.core.errors import UserError, shown
from plasticity.runs import folder
from plasticity.runs.accounts import CONFIG, SHARDS, read_plan, read_status, shard_folder, shard_folders
from plasticity.runs.checksums import DamagedError
from plasticity.runs.lock import held

UNDER_WAY = ".merging"  # end of the name of a folder that is being copied


def merge(run: Path, others: Sequence[Path], say: Callable[[str], None]) -> int:
    """Copy into ``run`` every shard of the other folders that it lacks, or that is further there.

    Nothing is removed from the other folders. If a copy is interrupted, the next call makes it again.

    Args:
      run: the folder of a run that is cut into shards; created from the first other one if it does not exist.
      others: folders of the same run, cut in the same way.
      say: receives a line for each shard.

    Returns:
      The number of shards that were copied.

    Raises:
      UserError: a folder is not such a run, or a process works on one of the shards.
    """
    plans = {other: _plan(other) for other in others}
    if not run.exists():
        run.mkdir(parents=True)
        for name in (folder.PLAN, folder.EXPERIMENT):
            shutil.copyfile(others[0] / name, run / name)
    mine = _plan(run)
    for other, plan in plans.items():
        _check_same(run, mine, other, plan)
    with held(run):
        return sum(_take(run, other, say) for other in others)


def _plan(run: Path) -> Mapping[str, Any]:
    _, found = folder.read(run)
    if not found.get(SHARDS):
        raise UserError(f"{run}: this run is not cut into shards")
    return found


def _check_same(run: Path, mine: Mapping[str, Any], other: Path, theirs: Mapping[str, Any]) -> None:
    if mine.get(CONFIG) != theirs.get(CONFIG):
        raise UserError(f"{other}: was made with another config than {run}; `plasticity compare` shows the differences")
    for key, name in (("split", "cut by --split {}"), ("widths", "cut with the widths {} (set placement.width)")):
        if mine[SHARDS][key] != theirs[SHARDS][key]:
            was, wanted = (shown(facts[SHARDS][key]) for facts in (theirs, mine))
            raise UserError(f"{other}: was {name.format(was)}, {run} with {wanted}")


def _take(run: Path, other: Path, say: Callable[[str], None]) -> int:
    """Copy the shards of one folder that are further there; returns their number."""
    taken = 0
    for number, theirs in shard_folders(other).items():
        mine = shard_folder(run, number)
        with held(theirs):
            if _progress(theirs) <= _progress(mine):
                continue
            _replace(theirs, mine)
        say(f"{mine}: from {theirs}")
        taken += 1
    return taken


def _progress(shard: Path) -> int:
    """Env steps done, by the status of its arms; -1 if there is no such shard."""
    try:
        plan = read_plan(shard)
    except (OSError, DamagedError):
        return -1
    steps = sum(visit["steps"] for visit in plan["stream"]["visits"])
    statuses = [read_status(shard / arm["name"]) for arm in plan["arms"]]
    done = [len(status.get("finished", ())) * steps for status in statuses]
    under_way = [
        status.get("step", 0) for status in statuses if status.get("program", -1) not in status.get("finished", ())
    ]
    return sum(done) + sum(under_way)


def _replace(source: Path, target: Path) -> None:
    """Copy a folder to another place, which it has at once or not at all."""
    copied = target.with_name(target.name + UNDER_WAY)
    if copied.exists():
        shutil.rmtree(copied)
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns(".lock*"))
    if target.exists():
        with held(target):
            pass
        shutil.rmtree(target)
    copied.rename(target)
