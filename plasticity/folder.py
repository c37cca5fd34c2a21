"""A run's folder: made, continued or replaced; what it says of the run as a whole."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity.documents import read_file, to_yaml
from plasticity.errors import UserError, shown
from plasticity.record import write_atomically

EXPERIMENT, PLAN = "experiment.yaml", "plan.json"
REPLACED = ".replaced"  # in a folder: a run that is being removed
FREE = ("recorders",)  # what a resumed run may have otherwise: it changes no number
BEGUN = {PLAN, f"{PLAN}.tmp", f"{EXPERIMENT}.tmp"}  # what is there before EXPERIMENT makes a folder a run
PACKAGES = ("plasticity", "jax", "jaxlib", "flax", "optax", "rlax", "flashbax", "envpool", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of what the numbers depend on, and this checkout's git revision where there is one."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    revision = _git_revision()
    return found | ({"git": revision} if revision else {})


def _git_revision() -> str | None:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def check(folder: Path, resolved: Mapping[str, Any], *, resume: bool, force: bool) -> None:
    """Whether a run may use this folder; touches nothing. ``UserError`` if not."""
    if resume and force:
        raise UserError("--resume continues a run and --force replaces it; give one of them")
    if resume:
        _check_same(folder, resolved)
    elif folder.exists() and not (folder.is_dir() and BEGUN.issuperset(path.name for path in folder.iterdir())):
        _check_replaceable(folder, force)


def _check_same(folder: Path, resolved: Mapping[str, Any]) -> None:
    if not (folder / EXPERIMENT).exists():
        raise UserError(f"{folder}: there is no run to resume; leave --resume out to start it")
    before = read_file(folder / EXPERIMENT)
    for key in (key for key in {**before, **resolved} if key not in FREE):
        if before.get(key) != resolved.get(key):
            was, now = shown(before.get(key), 60), shown(resolved.get(key), 60)
            raise UserError(
                f"{folder}: was made with another config: `{key}` was {was}, now {now}\n"
                f"resume it with its own: plasticity run {folder / EXPERIMENT} --out {folder} --resume"
            )


def _check_replaceable(folder: Path, force: bool) -> None:
    if not force:
        raise UserError(f"{folder} exists; continue it with --resume, replace it with --force, or choose another --out")
    if not (folder / EXPERIMENT).exists() and not (folder / REPLACED).exists():
        raise UserError(f"{folder} is not a run (it has no {EXPERIMENT}); --force will not remove it")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's config and its plan, as plain data. ``UserError`` where the folder is no run."""
    for name in (EXPERIMENT, PLAN):
        if not (folder / name).exists():
            what = f"it has no {name}" if folder.is_dir() else "there is no such folder"
            raise UserError(f"{folder} is no run: {what}")
    try:
        return dict(read_file(folder / EXPERIMENT)), dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder} is no run: {' '.join(str(error).split())[:120]}") from None


def open_folder(folder: Path, resolved: Mapping[str, Any], plan: Mapping[str, Any], *, resume: bool) -> None:
    """Makes the folder and writes what it is; an earlier run there goes (``check`` has allowed it).

    Killed at any moment it leaves a folder that ``check`` takes for no run, for the earlier one, or for the new one.
    """
    if resume:
        return
    made_with = versions()
    comment = ", ".join(f"{name} {version}" for name, version in made_with.items())
    plan_text, text = json.dumps({**plan, "versions": made_with}, indent=1), to_yaml(resolved, comment)
    try:
        _clear(folder)
        write_atomically(folder / PLAN, lambda path: path.write_text(plan_text, encoding="utf-8"))
        write_atomically(folder / EXPERIMENT, lambda path: path.write_text(text, encoding="utf-8"))
        (folder / REPLACED).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error


def _clear(folder: Path) -> None:
    """Makes the folder, or empties it; its config goes first, so that nobody resumes what is half removed."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / EXPERIMENT).exists():
        os.replace(folder / EXPERIMENT, folder / REPLACED)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != REPLACED:
            path.unlink()
