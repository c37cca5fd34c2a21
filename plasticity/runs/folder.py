"""A run's folder: creating, resuming or replacing it, and the files about the run as a whole."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity.config.documents import read_file, to_yaml
from plasticity.config.tuning import TUNING
from plasticity.core.errors import UserError, contrasted, cut
from plasticity.engine.memory import readable
from plasticity.runs import lock
from plasticity.runs.accounts import (
    CONFIG,
    DATA,
    EVALUATIONS,
    EXPERIMENT,
    LANES,
    METRICS,
    PLAN,
    STATUS,
    fingerprint,
    is_own_config,
    read_plan,
    read_status,
    unchanging,
)
from plasticity.runs.checksums import DamagedError, to_json
from plasticity.runs.files import TEMPORARY, sweep, write_text
from plasticity.version import __version__

CHECKPOINTS = "checkpoints"  # of an arm
REPLACED = ".replaced"  # in a folder: a run that is being removed
VERSIONS, RESUMED = "versions", "resumed_with"  # in PLAN
PACKAGES = ("jax", "jaxlib", "flax", "optax", "rlax", "flashbax", "envpool", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on, and this checkout's git revision, if any."""
    found = {"python": platform.python_version(), "plasticity": __version__}
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


Config = Mapping[str, Any]


def check(
    folder: Path,
    resolved: Config,
    *,
    resume: bool,
    force: bool,
    current: Callable[[Config], Config] = dict,
    again: tuple[str, str] = ("run", "--resume"),
) -> bool:
    """Check that a run may use this folder; modifies nothing.

    ``again``: the command, and its last options, that continue the run with its own config.
    ``current`` translates the config of a run that an older version made into the names of this one.

    Returns whether the run resumes an existing one, which needs ``resume``. With ``resume`` and no existing run, a new
    run starts. ``UserError`` if the folder contains anything else, or a run that may not be replaced.
    """
    if resume and force:
        raise UserError("--resume continues a run and --force replaces it; give one of them")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another --out")
    if _is_free(folder, resolved):
        return False
    if resume:
        _check_same(folder, resolved, current, again)
        return True
    _check_replaceable(folder, force)
    return False


def _is_free(folder: Path, resolved: Config) -> bool:
    """Whether the folder is empty or holds only the leftovers of a run that ended before ``EXPERIMENT`` was written.

    The tuning runs of a run that has any precede it.
    """
    if not folder.is_dir():
        return not folder.exists()
    return all(_is_beginning(path.name) or path.name in _kept(resolved) for path in folder.iterdir())


def _kept(resolved: Config) -> tuple[str, ...]:
    """What may be in the folder before the run, and stays there."""
    return (TUNING,) if resolved.get("tune") else ()


def _is_beginning(name: str) -> bool:
    ours = name.startswith((PLAN, EXPERIMENT, *lock.FILES))
    return name in (PLAN, *lock.FILES) or (ours and name.endswith(TEMPORARY))


def has_started(folder: Path) -> bool:
    """Whether the folder contains a run, or a process is creating one there."""
    return any((folder / name).exists() for name in (EXPERIMENT, REPLACED, *lock.FILES))


def is_finished(folder: Path) -> bool:
    """Whether every program of the run has finished according to its status."""
    try:
        programs = [each["arm"] for each in read_plan(folder)["programs"]]
    except (OSError, LookupError, DamagedError):
        return False
    finished = {arm: read_status(folder / arm).get("finished", ()) for arm in programs}
    return all(len(finished[arm]) >= programs.count(arm) for arm in finished)


def _check_same(folder: Path, resolved: Config, current: Callable[[Config], Config], again: tuple[str, str]) -> None:
    if not (folder / EXPERIMENT).exists():
        if (folder / REPLACED).exists():
            raise UserError(f"{folder}: there is no run to resume (--force was removing it); start again with --force")
        raise UserError(
            f"{folder} is not a run (it has no {EXPERIMENT}): there is no run to resume; choose another --out"
        )
    plan = _plan(folder)
    _check_kinds(folder, plan)
    was_made = current(_config(folder, resolved, plan))
    before, now_wanted = (unchanging(each, plan) for each in (was_made, resolved))
    for key in {**before, **now_wanted}:
        if before.get(key) != now_wanted.get(key):
            was, now = contrasted(before.get(key), resolved.get(key))
            raise UserError(
                f"{folder}: was made with another config: `{key}` was {was}, now {now}\n"
                f"resume it with its own config: plasticity {again[0]} {folder / EXPERIMENT} --out {folder} {again[1]}"
            )


def _check_kinds(folder: Path, plan: Mapping[str, Any]) -> None:
    """``UserError`` if one of the run's files is a folder, or one of its folders is a file."""
    arms = [folder / each["name"] for each in plan.get("arms", ())]
    for path in (folder / PLAN, *(arm / name for arm in arms for name in (STATUS, LANES))):
        if path.is_dir():
            raise UserError(f"{path} is a folder but must be a file; move it away, then resume")
    parts = (arm / name for arm in arms for name in (METRICS, EVALUATIONS, CHECKPOINTS))
    for path in (*arms, *parts):
        if path.is_file():
            raise UserError(f"{path} is a file but must be a folder; move it away, then resume")


def _plan(folder: Path) -> dict[str, Any]:
    """The run's plan; empty if it is missing or damaged."""
    try:
        return read_plan(folder)
    except (OSError, DamagedError):
        return {}


def _config(folder: Path, resolved: Mapping[str, Any], plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config in the folder; ``resolved`` if that is damaged and ``resolved`` matches the plan.

    ``UserError``, one line, if it is damaged and ``resolved`` does not match the plan.
    """
    try:
        found = read_file(folder / EXPERIMENT)
        why = "" if isinstance(found, Mapping) and found else "it contains no config"
    except UserError as error:
        found, why = {}, cut(" ".join(str(error).split()).removeprefix(f"{folder / EXPERIMENT}").lstrip(":, "), 80)
    if not why and plan.get(CONFIG, fingerprint(found, plan)) != fingerprint(found, plan):
        why = "it is not the config that the run was started with"
    if why and plan.get(CONFIG) == fingerprint(resolved, plan):
        return resolved
    if why:
        raise UserError(f"{folder / EXPERIMENT} is damaged ({why}); resume the run with the config it was made from")
    return dict(found)


def _check_replaceable(folder: Path, force: bool) -> None:
    if not (folder / EXPERIMENT).exists() and not (folder / REPLACED).exists():
        kept = "--force will not remove it" if force else "choose another --out"
        raise UserError(f"{folder} exists and is not a run (it has no {EXPERIMENT}); {kept}")
    if not force:
        ways = "continue it with --resume (resume=True), replace it with --force (force=True), or choose another --out"
        raise UserError(f"{folder} exists; {ways}")


def check_writable(folder: Path) -> None:
    """``UserError`` if the folder cannot be created or written; leaves nothing behind."""
    there = _nearest(folder)
    if not there.is_dir():
        raise UserError(f"{folder}: cannot be written: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written: no permission in {there}")
    if there != folder:
        try:  # root has every permission, but some file systems still refuse folders
            tempfile.TemporaryDirectory(dir=there).cleanup()
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None


def check_space(folder: Path, needed: int) -> None:
    """``UserError`` if the file system has fewer than ``needed`` bytes free."""
    try:
        free = shutil.disk_usage(_nearest(folder)).free
    except OSError:
        return
    if free < needed:
        raise UserError(f"{folder}: the run needs {readable(needed)}; only {readable(free)} are free")


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest existing ancestor."""
    return next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's config and its plan, as plain data. ``UserError`` if the folder is not a run."""
    for name in (EXPERIMENT, PLAN):
        if not (folder / name).exists():
            outside = "it is a file" if folder.exists() else "there is no such folder"
            what = f"it has no {name}" if folder.is_dir() else outside
            raise UserError(f"{folder} is not a run: {what}")
    try:
        plan = read_plan(folder)
    except (OSError, DamagedError) as error:
        raise UserError(f"{folder / PLAN} is damaged ({error}); `plasticity run ... --resume` rewrites it") from None
    config = read_file(folder / EXPERIMENT)
    if not is_own_config(config, plan):
        raise UserError(f"{folder / EXPERIMENT} is damaged: it is not the config that the run was started with")
    return dict(config), plan


def open_folder(folder: Path, resolved: Mapping[str, Any], plan: Mapping[str, Any], *, resume: bool) -> list[str]:
    """Create the folder with its config and plan; an earlier run there is removed (``check`` has allowed it).

    The caller holds the folder's lock. If this is killed at any moment, ``check`` sees the earlier run, the new run, or
    no run. A resumed run keeps its files; missing or damaged ones are rewritten. Returns a
    line for each rewritten file, and one if versions have changed. ``UserError`` if the contents of its data have
    changed.
    """
    plan = {**plan, CONFIG: fingerprint(resolved, plan)}
    try:
        if resume:
            _sweep(folder, plan)
            return _repair(folder, resolved, plan)
        made_with = versions()
        comment = ", ".join(f"{name} {version}" for name, version in made_with.items())
        plan_text, text = to_json({**plan, VERSIONS: made_with}), to_yaml(resolved, comment)
        _clear(folder, _kept(resolved))
        write_text(folder / PLAN, plan_text)
        write_text(folder / EXPERIMENT, text)
        (folder / REPLACED).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return []


def _repair(folder: Path, resolved: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """Rewrite a resumed run's config and plan if missing or damaged; returns a line for each change."""
    lines: list[str] = []
    now = versions()
    try:
        before = read_plan(folder)
        _check_data(before.get(DATA) or (), plan.get(DATA) or ())
        why = "" if _fits(before, plan) else "does not fit the config"
    except (OSError, DamagedError) as error:
        before, why = {}, f"is damaged ({error})" if (folder / PLAN).exists() else "is missing"
    if why:
        lines.append(f"{folder / PLAN} {why}; rewritten")
        before = {**plan, VERSIONS: _versions_in_config(folder) or now}
    changed = _changed_versions(before, now)
    if changed:
        lines.append(f"warning: earlier parts were made with other versions; numbers may differ: {changed}")
        before = {**before, RESUMED: [*before.get(RESUMED, []), now]}
    if lines:
        write_text(folder / PLAN, to_json(before))
    if _config_is_damaged(folder, before):
        comment = ", ".join(f"{name} {version}" for name, version in before.get(VERSIONS, {}).items())
        write_text(folder / EXPERIMENT, to_yaml(resolved, comment))
        lines.append(f"{folder / EXPERIMENT} was damaged; rewritten")
    return lines


def _config_is_damaged(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether the config must be rewritten. ``check`` has ensured that the current config is the run's own."""
    try:
        found = read_file(folder / EXPERIMENT)
    except UserError:
        return True
    return not is_own_config(found, plan)


def _fits(before: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    """Whether two plans have the same arms and, in the keys both have, the same stream."""
    arms = [{key: arm[key] for key in ("name", "lanes")} for each in (before, plan) for arm in each.get("arms", [])]
    half = len(arms) // 2
    streams = [json.loads(json.dumps(each.get("stream", {}))) for each in (before, plan)]
    same = all(streams[0][key] == streams[1][key] for key in streams[0] if key in streams[1])
    return arms[:half] == arms[half:] and same


def _check_data(before: Any, now: Any) -> None:
    """``UserError`` if the contents of the run's data files have changed; their paths may differ."""
    for was, found in zip(before, now, strict=False):
        if was["sha256"] != found["sha256"]:
            raise UserError(
                f"{found['path']} is not the file that the run was started with ({was['path']}): its SHA-256 was "
                f"{was['sha256'][:12]}..., now {found['sha256'][:12]}..."
            )
    if before and len(before) != len(now):
        raise UserError(f"the run was started with {len(before)} data files, now there are {len(now)}")


def _versions_in_config(folder: Path) -> dict[str, str]:
    """The versions in the first line of the config, for when the plan is lost."""
    try:
        first = (folder / EXPERIMENT).read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return {}
    pairs = [part.strip().split(" ") for part in first.removeprefix("#").split(",")] if first.startswith("# ") else []
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _changed_versions(plan: Mapping[str, Any], now: Mapping[str, str]) -> str:
    """``jax 0.4.1 -> 0.5.0, ...``, compared with the run's last start."""
    last = (plan.get(RESUMED) or [plan.get(VERSIONS, {})])[-1]
    changed = [name for name in {**last, **now} if last.get(name) != now.get(name)] if last else []
    shown_now = [f"{name} {last.get(name, 'none')} -> {now.get(name, 'none')}" for name in changed]
    return cut(", ".join(shown_now), 160)


def made_otherwise(folder: Path) -> str:
    """``the run was made with other versions (git 1a -> 2b); `` for a run that does not fit; empty if none differ."""
    plan, now = _plan(folder), versions()
    starts = [plan.get(VERSIONS) or _versions_in_config(folder), *plan.get(RESUMED, [])]
    others = [each for each in starts if each != now]  # this start is already recorded
    changed = _changed_versions({VERSIONS: others[-1]}, now) if others else ""
    return f"the run was made with other versions ({changed}); " if changed else ""


def remove(folder: Path) -> None:
    """Remove a run with its tuning runs; the caller holds the folder's lock, and ``check`` has allowed it."""
    _clear(folder)
    (folder / REPLACED).unlink(missing_ok=True)


def _clear(folder: Path, kept: Sequence[str] = ()) -> None:
    """Create or empty the folder. The config is removed first, so that a half-removed run cannot be resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / EXPERIMENT).exists():
        os.replace(folder / EXPERIMENT, folder / REPLACED)
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (REPLACED, *lock.FILES):
            path.unlink()


def _sweep(folder: Path, plan: Mapping[str, Any]) -> None:
    """Remove temporary files of killed processes, but not those that another command may be writing."""
    sweep(folder)
    for arm in (folder / each["name"] for each in plan.get("arms", ())):
        for place in (arm, arm / METRICS, arm / EVALUATIONS, *(arm / CHECKPOINTS).glob("**/")):
            sweep(place, older=0.0)
