"""Options of Slurm: from the command line, and from the profiles of a site."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from plasticity.config.documents import read_file
from plasticity.core.errors import UserError, shown, unknown
from plasticity.runs import shards

PROFILES = "clusters.yaml"
DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
FLAGS = {  # options of sbatch without a value
    "contiguous", "exclusive", "get_user_env", "hold", "ignore_pbs", "no_kill", "no_requeue", "overcommit",
    "oversubscribe", "parsable", "quiet", "reboot", "requeue", "spread_job", "use_min_nodes", "verbose",
}  # fmt: skip
FORM = "OPTION=VALUE, with an option of sbatch"
NAME = re.compile(r"[a-z][a-z_]*")
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
            raise UserError(f"{there[0]}: {name}: {unknown(f'key {shown(key)}', str(key), Profile._fields, 'allowed')}")
    if not isinstance(raw, Mapping):
        raise UserError(f"{there[0]}: {name} must be a mapping with the keys {', '.join(Profile._fields)}")
    at = f"{there[0]}: {name}"
    slurm = raw.get("slurm") or {}
    if not isinstance(slurm, Mapping):
        raise UserError(f"{at}.slurm: {shown(slurm)} is not allowed; must be a mapping of options of sbatch")
    options = {_key(key, f"{at}.slurm"): _value(value, f"{at}.slurm.{key}") for key, value in slurm.items()}
    most = raw.get("max_jobs")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise UserError(f"{at}.max_jobs: {shown(most)} is not allowed; must be an integer of at least 1")
    kept = {key: value for key, value in options.items() if value is not None}
    return Profile(kept, _split(raw.get("split"), f"{at}.split"), most)


def _key(key: Any, at: str) -> str:
    """The name of an option with underscores; ``UserError`` if it is none, or one that is not for the user."""
    name = str(key).strip().lstrip("-").replace("-", "_")
    if not NAME.fullmatch(name):
        raise UserError(f"{at}: {shown(key)} is not allowed; must be {FORM}")
    if name in SET_BY_US:
        raise UserError(f"{at}: {name} is not allowed; each shard is one process and one job of an array")
    return name


def _value(value: Any, at: str) -> Any:
    """An option's value from a profile: true for a flag, or text; None if it is left out."""
    if value is None or isinstance(value, bool):
        return value or None
    text = str(value)
    if not isinstance(value, str | int | float) or not text.isprintable() or not text:
        raise UserError(f"{at}: {shown(value)} is not allowed; must be text, a number, true, false or null")
    return text


def _split(value: Any, at: str) -> str | None:
    try:
        if value is not None:
            shards.parse(value if isinstance(value, str) else "")
    except UserError:
        ways = ", ".join(shards.WAYS)
        raise UserError(f"{at}: {shown(value)} is not allowed; must be one of {ways}") from None
    return value


def parse_options(text: Iterable[str]) -> dict[str, Any]:
    """Read ``partition=gpu,time=4:00:00``, the long options of ``sbatch``.

    A part without ``=`` belongs to the value before it (``partition=gpu,long``), unless it is a flag or comes first.
    """
    found: dict[str, Any] = {}
    for each in text:
        last = ""  # the option whose value may go on
        for part in filter(None, map(str.strip, each.split(","))):
            name, given, value = part.partition("=")
            if last and not given and part.lstrip("-").replace("-", "_") not in FLAGS:
                found[last] += f",{part}"
                continue
            if given and not value:
                raise UserError(f"--slurm: {shown(part)} is not allowed; must be {FORM}")
            key = _key(name, "--slurm")
            found[key] = value if given else True
            last = key if given else ""
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
