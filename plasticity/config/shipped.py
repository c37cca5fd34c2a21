"""The configs shipped with the package, by name: ``quickstart``, ``paper/new_labels``."""

import glob
import importlib
from pathlib import Path

from plasticity.core.errors import UserError, suggestion

SUFFIX = ".yaml"
FINDINGS = "paper"  # the folder of the findings, which `plasticity findings` runs

SCHEMA = Path(__file__).with_name("config.schema.json")  # written by docs/make_reference.py


def schema() -> str:
    """The JSON schema of a config with the built-in members, as text."""
    return SCHEMA.read_text(encoding="utf-8")


def folder() -> Path:
    """Their folder: ``configs/`` of a checkout or of an installed package."""
    return Path(next(iter(importlib.import_module("plasticity.configs").__path__)))


def configs() -> dict[str, Path]:
    """The file of each config, by name, sorted; with the findings."""
    there = folder()
    return {path.relative_to(there).with_suffix("").as_posix(): path for path in sorted(there.rglob(f"*{SUFFIX}"))}


def experiments() -> dict[str, Path]:
    """The configs that can be run as they are, which findings cannot."""
    return {name: path for name, path in configs().items() if not name.startswith(f"{FINDINGS}/")}


def findings() -> dict[str, Path]:
    """The files of the findings, by name without the folder: ``new_labels``."""
    return {path.stem: path for path in sorted((folder() / FINDINGS).glob(f"*{SUFFIX}"))}


def files(beginning: str) -> list[str]:
    """The YAML files whose path begins like this, and those in folders whose path does."""
    start = glob.escape(beginning)
    return sorted({found for pattern in (f"{start}*.y*ml", f"{start}*/*.y*ml") for found in glob.glob(pattern)})


def finding_name(path: Path) -> str:
    """What ``plasticity findings`` calls the finding in this file: its name if it is shipped, otherwise its path."""
    shipped = findings().get(path.stem)
    return path.stem if shipped is not None and path.resolve() == shipped.resolve() else str(path)


def resolve(given: str | Path) -> Path:
    """Resolve a path or name: the file at that path, or else the shipped config of that name.

    ``configs/quickstart.yaml`` and ``quickstart`` are the same config in any working directory. A folder does not hide
    a shipped config of its name. ``UserError`` for a name without suffix that is neither.
    """
    path = Path(given)
    known = configs()
    if path.exists() and not (path.is_dir() and path.as_posix() in known):
        return path
    name = path.as_posix().removesuffix(SUFFIX).removeprefix("configs/")
    if name in known:
        return known[name]
    if path.suffix:
        return path  # reading it reports the problem
    raise UserError(f"{path}: no such file, and no shipped config has that name{_hint(name, known)}")


def _hint(name: str, known: dict[str, Path]) -> str:
    if name in findings():
        return f"; it is a finding; run it with: plasticity findings {name}"
    return f" (see `plasticity list configs`){suggestion(name, known)}"
