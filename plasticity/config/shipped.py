"""The configs shipped with the package, by name: ``quickstart``, ``paper/new_labels``."""

import importlib
from pathlib import Path

from plasticity.core.errors import UserError, suggestion

SUFFIX = ".yaml"


def folder() -> Path:
    """Their folder: ``configs/`` of a checkout or of an installed package."""
    return Path(next(iter(importlib.import_module("plasticity.configs").__path__)))


def configs() -> dict[str, Path]:
    """The file of each config, by name, sorted."""
    there = folder()
    return {path.relative_to(there).with_suffix("").as_posix(): path for path in sorted(there.rglob(f"*{SUFFIX}"))}


def resolve(given: str | Path) -> Path:
    """Resolve a path or name: the file at that path, or else the shipped config of that name.

    ``configs/quickstart.yaml`` and ``quickstart`` are the same config in any working directory. ``UserError`` for a
    name without suffix that is neither.
    """
    path = Path(given)
    if path.exists():
        return path
    known = configs()
    name = path.as_posix().removesuffix(SUFFIX).removeprefix("configs/")
    if name in known:
        return known[name]
    if path.suffix:
        return path  # reading it reports the problem
    raise UserError(
        f"{path}: no such file, and no shipped config has that name (see `plasticity list configs`)"
        f"{suggestion(name, known)}"
    )
