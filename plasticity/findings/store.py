"""The files of findings: their configs, and their results next to the runs."""

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from plasticity.config import shipped
from plasticity.config.documents import read_file
from plasticity.core.errors import UserError, unknown
from plasticity.findings.document import Finding, parse_finding
from plasticity.runs.checksums import DamagedError, is_list, is_number, read_json, to_json
from plasticity.runs.files import write_text
from plasticity.runs.lock import held

PLACE = Path("runs/findings")
RESULT, TIME = "result.json", "seconds.json"
TABLES = ("values", "visits")  # NAME.csv each


def place_of(finding: Finding, root: Path = PLACE, full: bool = False) -> Path:
    """The folder of the finding's runs and its result."""
    return root / (f"{finding.name}-full" if full else finding.name)


def load_findings(names: Sequence[str], exact: Sequence[str], folder: Path | None = None) -> list[Finding]:
    """Load the findings with these names, ids (``F5``) or paths; without any, all in the folder, sorted by id.

    ``folder``: by default the package's own.
    ``UserError`` for an unknown name (suggesting the nearest one) and for an invalid file.
    """
    folder = folder or shipped.folder() / shipped.FINDINGS
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder.is_dir() else {}
    if not names:
        if not paths:
            raise UserError(f"{folder}: no findings in this folder; run this in a checkout, or name a finding's file")
        return sorted((_load(path, exact) for path in paths.values()), key=_order)
    ids: dict[str, str] = {}
    if any(name not in paths and not _is_path(name) for name in names):
        ids = {_load(path, exact).id.lower(): stem for stem, path in paths.items()}
    found = []
    for name in names:
        stem = ids.get(name.lower(), name)
        if stem not in paths and not _is_path(name):
            known = ids if re.fullmatch(r"f[0-9]\w*", name.lower()) else paths
            raise UserError(unknown(f"finding `{name}`", name, known))
        found.append(_load(paths.get(stem, Path(name)), exact))
    return found


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _load(path: Path, exact: Sequence[str]) -> Finding:
    return parse_finding(read_file(path), path.stem, str(path), exact)


def _order(finding: Finding) -> tuple[bool, int, str]:
    number = re.search(r"\d+", finding.id)
    return number is None, int(number.group()) if number else 0, finding.id


def has_run(folder: Path) -> bool:
    """Whether there is a run to resume."""
    return (folder / "experiment.yaml").exists()


def clear(folder: Path) -> None:
    """Remove a finding's earlier runs; ``UserError`` if the folder is not a finding's or a run is active."""
    if not folder.exists():
        return
    ours = [path for path in folder.rglob("*") if path.name in ("experiment.yaml", RESULT, TIME)]
    if not ours and any(folder.iterdir()):
        raise UserError(f"{folder} contains no finding; --force will not remove it")
    with contextlib.ExitStack() as locks:
        for path in {each.parent for each in ours if each.name == "experiment.yaml"}:
            locks.enter_context(held(path))
        shutil.rmtree(folder)


def save_result(folder: Path, result: Mapping[str, Any], tables: Mapping[str, str] = MappingProxyType({})) -> None:
    """Save the result; ``tables``: those of :data:`TABLES` that it has, as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tables(folder, tables)
    write_text(folder / RESULT, to_json(result))


def lacks_tables(folder: Path) -> bool:
    return not all((folder / f"{name}.csv").exists() for name in TABLES)


def save_tables(folder: Path, tables: Mapping[str, str]) -> None:
    for name, text in tables.items():
        write_text(folder / f"{name}.csv", text)


def read_result(folder: Path) -> dict[str, Any] | None:
    found = _json(folder / RESULT)
    return found if found and _is_result(found) else None


def _is_result(found: Mapping[str, Any]) -> bool:
    """Whether the result can be shown: it has a verdict, a time and the numbers of its clauses."""
    verdict, clauses = found.get("passed"), found.get("clauses")
    return verdict in (True, False, None) and is_number(found.get("minutes")) and is_list(clauses, _is_mapping)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def seconds(folder: Path) -> float:
    """Run time of the finding so far, in seconds."""
    found = (_json(folder / TIME) or {}).get("seconds", 0.0)
    return float(found) if is_number(found) else 0.0


def add_seconds(folder: Path, more: float) -> None:
    total = to_json({"seconds": seconds(folder) + more}, None)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TIME, total)


def _json(path: Path) -> dict[str, Any] | None:
    """The contents of the file; None if it is missing or damaged, in which case it is rewritten."""
    try:
        return read_json(path)
    except (OSError, DamagedError):
        return None
