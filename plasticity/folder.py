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

from plasticity import lock
from plasticity.documents import read_file, to_yaml
from plasticity.errors import UserError, shown
from plasticity.files import TEMPORARY, sweep, write_text
from plasticity.memory import readable
from plasticity.record import EVALUATIONS, METRICS

EXPERIMENT, PLAN = "experiment.yaml", "plan.json"
CHECKPOINTS = "checkpoints"  # of an arm
REPLACED = ".replaced"  # in a folder: a run that is being removed
FREE = ("recorders",)  # what a resumed run may have otherwise: it changes no number
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


def check(folder: Path, resolved: Mapping[str, Any], *, resume: bool, force: bool) -> bool:
    """Whether a run may use this folder; touches nothing.

    Returns whether it goes on with the run that is there: with ``resume``, where there is one; with ``resume`` and
    nothing there yet the run begins. ``UserError`` where the folder holds anything else, or a run that is in the way.
    """
    if resume and force:
        raise UserError("--resume continues a run and --force replaces it; give one of them")
    if _is_free(folder):
        return False
    if resume:
        _check_same(folder, resolved)
        return True
    _check_replaceable(folder, force)
    return False


def _is_free(folder: Path) -> bool:
    """Whether there is nothing but what a run leaves that ended before ``EXPERIMENT`` made the folder a run."""
    if not folder.is_dir():
        return not folder.exists()
    return all(_is_beginning(path.name) for path in folder.iterdir())


def _is_beginning(name: str) -> bool:
    ours = name.startswith((PLAN, EXPERIMENT, *lock.FILES))
    return name in (PLAN, *lock.FILES) or (ours and name.endswith(TEMPORARY))


def has_begun(folder: Path) -> bool:
    """Whether a run is in the folder, or a process that will make one."""
    return any((folder / name).exists() for name in (EXPERIMENT, REPLACED, *lock.FILES))


def is_finished(folder: Path) -> bool:
    """Whether every program of the run there says that it has come to its end."""
    try:
        programs = [each["arm"] for each in json.loads((folder / PLAN).read_text(encoding="utf-8"))["programs"]]
        texts = {arm: (folder / arm / "status.json").read_text(encoding="utf-8") for arm in set(programs)}
        return all(len(json.loads(texts[arm])["finished"]) >= programs.count(arm) for arm in texts)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _check_same(folder: Path, resolved: Mapping[str, Any]) -> None:
    if not (folder / EXPERIMENT).exists():
        if (folder / REPLACED).exists():
            raise UserError(f"{folder}: there is no run to resume, as --force was removing it; begin anew with --force")
        raise UserError(
            f"{folder} is not a run (it has no {EXPERIMENT}): there is no run to resume; choose another --out"
        )
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


def check_writable(folder: Path) -> None:
    """``UserError`` where the folder cannot be made or written; touches nothing."""
    there = _nearest(folder)
    if not there.is_dir():
        raise UserError(f"{folder}: cannot be written: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written: no permission in {there}")


def check_space(folder: Path, needed: int) -> None:
    """``UserError`` where the file system has fewer than ``needed`` bytes left."""
    try:
        free = shutil.disk_usage(_nearest(folder)).free
    except OSError:
        return
    if free < needed:
        raise UserError(f"{folder}: checkpoints take {readable(needed)}; {readable(free)} are free there")


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))


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

    The caller holds the folder's lock. Killed at any moment it leaves a folder that ``check`` takes for no run, for the
    earlier one, or for the new one.
    """
    if resume:
        _sweep(folder, plan)
        return
    made_with = versions()
    comment = ", ".join(f"{name} {version}" for name, version in made_with.items())
    plan_text, text = json.dumps({**plan, "versions": made_with}, indent=1), to_yaml(resolved, comment)
    try:
        _clear(folder)
        write_text(folder / PLAN, plan_text)
        write_text(folder / EXPERIMENT, text)
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
        elif path.name not in (REPLACED, *lock.FILES):
            path.unlink()


def _sweep(folder: Path, plan: Mapping[str, Any]) -> None:
    """Removes the temporary files that killed processes left. What another command may be writing now stays."""
    sweep(folder)
    for arm in (folder / each["name"] for each in plan.get("arms", ())):
        for place in (arm, arm / METRICS, arm / EVALUATIONS, *(arm / CHECKPOINTS).glob("*")):
            sweep(place, older=0.0)
