"""Options of Slurm: from the command line, and from the profiles of a site."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from plasticity.config.documents import read_file
from plasticity.core.errors import UserError, shown, unknown

PROFILES = "clusters.yaml"
DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
SET_BY_US = {"array", "nodes", "ntasks", "ntasks_per_node", "signal", "output", "error", "wrap"}


class Profile(NamedTuple):
    """Settings of a site, from a file."""

    slurm: Mapping[str, Any]
    split: str | None = None
    max_jobs: int | None = None


def profile_of(name: str, near: Path) -> Profile:
    """The profile ``name`` of ``clusters.yaml`` beside the config, or else in the user's folder of settings.

    Raises:
      UserError: there is no such file, profile or key.
    """
    places = [near.absolute().parent / PROFILES, Path(platformdirs.user_config_dir("plasticity")) / PROFILES]
    there = [place for place in places if place.exists()]
    if not there:
        raise UserError(f"--profile: there is no {' and no '.join(map(str, places))}")
    known = read_file(there[0])
    if not isinstance(known, Mapping) or name not in known:
        raise UserError(f"{there[0]}: {unknown(f'profile {shown(name)}', name, list(known or ()))}")
    raw = known[name]
    for key in raw if isinstance(raw, Mapping) else ():
        if key not in Profile._fields:
            raise UserError(f"{there[0]}: {name}.{unknown(f'key {shown(key)}', str(key), Profile._fields, 'allowed')}")
    if not isinstance(raw, Mapping) or not isinstance(raw.get("slurm", {}), Mapping):
        raise UserError(f"{there[0]}: {name} must be a mapping with the keys {', '.join(Profile._fields)}")
    options = [key if value is True else f"{key}={value}" for key, value in raw.get("slurm", {}).items()]
    return Profile(parse_options(options), raw.get("split"), raw.get("max_jobs"))


def parse_options(text: Iterable[str]) -> dict[str, Any]:
    """Read ``partition=gpu,time=4:00:00``, the long options of ``sbatch``; a part without ``=`` is a flag."""
    found: dict[str, Any] = {}
    for part in (part.strip() for each in text for part in each.split(",") if part.strip()):
        key, given, value = part.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not re.fullmatch(r"[a-z][a-z_]*", key) or (given and not value):
            raise UserError(f"--slurm: {shown(part)} is not allowed; must be OPTION=VALUE, with an option of sbatch")
        found[key] = value if given else True
    for key in SET_BY_US & found.keys():
        raise UserError(f"--slurm: {key} is not allowed; each shard is one process and one job of an array")
    return found


def minutes(text: str) -> int:
    """A time limit in the forms of Slurm: ``30``, ``30:00``, ``4:00:00``, ``2-12``; rounded up to whole minutes."""
    found = DURATION.fullmatch(text)
    if not found:
        raise UserError(f"--slurm: time={text} is not allowed; must be MINUTES, H:MM:SS or D-HH:MM:SS")
    days, *rest = (int(part) if part else None for part in found.groups())
    first, second, third = (part or 0 for part in rest)
    if days is not None:
        seconds = ((days * 24 + first) * 60 + second) * 60 + third
    elif rest[2] is not None:
        seconds = (first * 60 + second) * 60 + third
    else:
        seconds = first * 60 + second
    if not seconds:
        raise UserError(f"--slurm: time={text} is not allowed; must be more than 0")
    return -(-seconds // 60)
