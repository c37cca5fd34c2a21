"""State of a run according to its folder: ``plan.json``, each arm's ``status.json``, and the parts of its tables.

``lanes.parquet`` is written after the parts of every flush, and its footer lists them: under :data:`NOTE`, JSON that
maps each program's number to one character per part of its metrics: ``1`` if a part of the evaluations belongs to it,
else ``0``; ``-`` if the part has been merged, with all earlier ones, into the file named after the next ``m`` or ``M``
(``M``: also in the evaluations). Without this a reader could not detect a missing part at the end of a stopped run, or
a missing part of the evaluations.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.config.tuning import TUNING
from plasticity.runs.checksums import DamagedError, has, is_list, is_number, is_whole, read_json, read_table

EXPERIMENT, PLAN, STATUS, LANES = "experiment.yaml", "plan.json", "status.json", "lanes.parquet"
CONFIG, DATA = "config", "data"  # in PLAN
FREE = (  # may differ in a resumed run, as they change no number
    "recorders", "compilation_cache", "reference", "keep_checkpoints", "probes",
)  # fmt: skip
METRICS, EVALUATIONS = "metrics", "evaluations"  # folders of an arm
PART = "part-{:03d}-{:05d}.parquet"  # program, number
MERGED = "part-{:03d}-00000-{:05d}.parquet"  # program, number of the last part whose rows it holds, with all earlier
SHARDS = "shards"  # the folder of a run's shards, and how it is cut in PLAN
PROBES = "probes"  # the folder of a run's probes
SHARD = "shard"  # in PLAN of a shard: which one it is
NOTE = "parts"  # in the footer of LANES
MISSING = "it is missing"
LISTINGS = 3  # of a folder whose parts vanish between listing and reading, because its run merges them


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_visit(value: Any) -> bool:
    return has(value, task=is_whole, steps=lambda steps: is_whole(steps, 1))


def _is_arm(value: Any) -> bool:
    return has(value, name=_is_text, lanes=is_whole)


def _is_program(value: Any) -> bool:
    return has(value, arm=_is_text, lanes=is_whole)


def _is_stream(value: Any) -> bool:
    facts = {"reward_name": _is_text, "episodic": lambda flag: isinstance(flag, bool), "frames_per_step": is_whole}
    lists = {"tasks": lambda names: is_list(names, _is_text), "visits": lambda visits: is_list(visits, _is_visit)}
    return has(value, **facts, **lists) and all(visit["task"] < len(value["tasks"]) for visit in value["visits"])


def shard_folder(run: Path, number: int) -> Path:
    return run / SHARDS / f"{number:05d}"


def shard_folders(run: Path) -> dict[int, Path]:
    """The folders of the shards that have started, by number."""
    return {int(path.name): path for path in sorted((run / SHARDS).glob("*")) if path.name.isdecimal()}


def probe_folders(run: Path) -> list[Path]:
    """The folders of the run's probes that have started."""
    return sorted(path.parent for path in (run / PROBES).glob(f"*/{PLAN}"))


def phase_of(run: Path) -> Path:
    """The run's folder or, if the run itself has not started yet, that of its tuning runs."""
    tuning = run / TUNING
    return tuning if (tuning / PLAN).exists() and not (run / PLAN).exists() else run


class Part(NamedTuple):
    """The programs of an arm that one folder holds: all, or those of a shard."""

    folder: Path
    programs: Mapping[int, int]  # number -> lanes


def parts_of_arms(run: Path, plan: Mapping[str, Any]) -> dict[str, list[Part]]:
    """Where the programs of each arm are, by the run's plan, whether they have started or not."""
    found: dict[str, dict[Path, dict[int, int]]] = {arm["name"]: {} for arm in plan["arms"]}
    index: Counter[str] = Counter()
    for each in plan.get("programs", ()):
        name = each["arm"]
        place = shard_folder(run, each["shard"]) if "shard" in each else run
        number = each.get("number", index[name])
        found.setdefault(name, {}).setdefault(place / name, {})[number] = each["lanes"]
        index[name] += 1
    for arm in plan["arms"]:  # plans of older versions lack the programs
        found[arm["name"]] = found[arm["name"]] or {run / arm["name"]: {0: arm["lanes"]}}
    return {arm: [Part(folder, held) for folder, held in folders.items()] for arm, folders in found.items()}


def read_plan(run: Path) -> dict[str, Any]:
    """Read the run's plan.

    ``DamagedError`` if the file has changed since it was written or is not a plan; ``OSError`` if there is none.
    """
    found = read_json(run / PLAN)
    if not has(found, arms=lambda arms: is_list(arms, _is_arm), stream=_is_stream):
        raise DamagedError("it does not contain the arms and the stream of a run")
    if not is_list(found.get("programs", []), _is_program) or not isinstance(found.get("versions", {}), dict):
        raise DamagedError("its programs or versions are not those of a run")
    return found


def unchanging(config: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that must not change on resuming.

    Leaves out keys that change no number, and the path of data identified by their content.
    """
    kept = {key: value for key, value in config.items() if key not in FREE}
    if plan.get(DATA) and isinstance(kept.get("stream"), Mapping):
        kept["stream"] = {key: value for key, value in kept["stream"].items() if key != "path"}
    if isinstance(kept.get("arms"), Mapping):
        kept["arms"] = {name: _arm_itself(arm) for name, arm in kept["arms"].items()}
    return kept


def _arm_itself(arm: Any) -> Any:
    """An arm without the place of the run whose learners go on in it."""
    if not (isinstance(arm, Mapping) and isinstance(arm.get("start"), Mapping)):
        return arm
    return {
        **arm,
        "start": {key: value for key, value in arm["start"].items() if key not in ("run", "steps", "earlier")},
    }


def fingerprint(config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Fingerprint of a run's config. ``plan``: the run's plan, which says whether data are identified by content."""
    text = json.dumps(unchanging(config, plan), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_own_config(config: Any, plan: Mapping[str, Any]) -> bool:
    """Whether a run was started with this config, if its plan records that (plans of older versions do not)."""
    return isinstance(config, Mapping) and plan.get(CONFIG, "") in ("", fingerprint(config, plan))


def _few(counts: Iterable[Any]) -> bool:
    return all(is_whole(count) and count < 1_000_000 for count in counts)


KINDS: dict[str, Callable[[Any], bool]] = {
    "state": _is_text,
    "finished": lambda numbers: is_list(numbers, is_whole),
    **dict.fromkeys(("program", "lanes", "steps", "visit", "step"), is_whole),
    **dict.fromkeys(("steps_per_second", "updated"), is_number),
    "parts": lambda counts: isinstance(counts, dict) and all(map(str.isdecimal, counts)) and _few(counts.values()),
}


def read_status(arm: Path, report: Callable[[Path, str], None] = lambda path, why: None) -> dict[str, Any]:
    """The arm's status; empty if it is missing or damaged, since the checkpoints hold the same information.

    ``report`` receives the file and the reason if it is damaged, or missing although the arm has started.
    """
    path = arm / STATUS
    try:
        found = read_json(path)
        if found.keys() & KINDS.keys() and all(kind(found[key]) for key, kind in KINDS.items() if key in found):
            return found
        report(path, "it is not the status of an arm")
    except (FileNotFoundError, NotADirectoryError):
        if has_started(arm):
            report(path, MISSING)
    except (OSError, DamagedError) as error:
        report(path, str(error))
    return {}


def has_started(arm: Path) -> bool:
    """Whether an arm has tables."""
    return (arm / LANES).exists() or any((arm / METRICS).glob("part-*.parquet"))


def note(program: int, parts: int, names: Collection[str]) -> str:
    """The entry of a program under :data:`NOTE`.

    ``parts``: its number of parts. ``names``: its existing files, relative to the arm's folder.
    """
    marks = ["01"[f"{EVALUATIONS}/{PART.format(program, number)}" in names] for number in range(parts)]
    last = max((k for k in range(parts) if f"{METRICS}/{MERGED.format(program, k)}" in names), default=-1)
    if last >= 0:
        mark = "M" if f"{EVALUATIONS}/{MERGED.format(program, last)}" in names else "m"
        marks[: last + 1] = "-" * last + mark
    return "".join(marks)


def to_footer(notes: Mapping[int, str]) -> dict[str, str]:
    """The notes of an arm's programs in the form of a table footer."""
    return {NOTE: json.dumps({str(program): notes[program] for program in sorted(notes)})}


def from_footer(footer: Mapping[bytes, bytes] | None) -> dict[int, str]:
    """Inverse of :func:`to_footer`; empty for tables of older versions."""
    try:
        found = json.loads((footer or {}).get(NOTE.encode(), b"{}"))
    except ValueError:
        return {}
    whole = isinstance(found, dict) and all(map(str.isdecimal, found)) and all(map(_is_text, found.values()))
    return {int(program): marks for program, marks in found.items()} if whole else {}


def _notes(arm: Path) -> dict[int, str]:
    """The notes of an arm; empty if the table of lanes is missing or damaged, which its readers report."""
    try:
        return from_footer(read_table(arm / LANES, ()).schema.metadata)
    except (OSError, DamagedError):
        return {}


def table_parts(arm: Path, report: Callable[[Path, str], None], folder: str = METRICS) -> list[Path]:
    """The existing parts of an arm's table, in order; ``report`` receives each missing part.

    Parts are numbered from 0 within each program. Their number is recorded in the table of lanes, and in the status
    once a program is finished. Evaluations need not be in every part. Parts whose rows a merged one holds are left out.
    """
    notes, counts = _notes(arm), read_status(arm).get("parts", {})  # first: a run in progress writes parts before them
    paths = unmerged((arm / folder).glob("part-*.parquet"))
    wanted = {named for program, marks in notes.items() for named in _noted(program, marks, folder)}
    if folder == METRICS:
        ends = [(int(program), count - 1) for program, count in counts.items()]
        ends += [(found.program, found.last) for found in filter(None, map(number_of, paths))]
        wanted |= {
            Number(program, k, False)
            for program, last in ends
            for k in range(len(notes.get(program, "")), last + 1)
        }  # fmt: skip
    held = _held(filter(None, map(number_of, paths)))
    lost = [each for each in wanted if each.last > held.get(each.program, -1)]
    for path in sorted({arm / folder / each.name for each in lost} - set(paths)):
        report(path, MISSING)
    return paths


class Number(NamedTuple):
    """What a part holds: one part, or all up to ``last``."""

    program: int
    last: int
    merged: bool

    @property
    def name(self) -> str:
        return (MERGED if self.merged else PART).format(self.program, self.last)


def number_of(path: Path) -> Number | None:
    """What the part's name says; None for a file of another name."""
    found = re.fullmatch(r"part-(\d+)(-00000)?-(\d+)\.parquet", path.name)
    return Number(int(found[1]), int(found[3]), found[2] is not None) if found else None


def is_merged(path: Path) -> bool:
    number = number_of(path)
    return number is not None and number.merged


def _held(numbers: Iterable[Number]) -> dict[int, int]:
    """The last part in each program's merged ones."""
    found: dict[int, int] = {}
    for each in numbers:
        if each.merged:
            found[each.program] = max(each.last, found.get(each.program, -1))
    return found


def unmerged(paths: Iterable[Path]) -> list[Path]:
    """The paths in order, without the parts whose rows another part holds."""
    numbers = {path: number_of(path) for path in sorted(paths)}
    held = _held(filter(None, numbers.values()))

    def is_needed(number: Number | None) -> bool:
        last = -1 if number is None else held.get(number.program, -1)
        return number is None or number.last > last or (number.merged and number.last == last)

    return [path for path, number in numbers.items() if is_needed(number)]


def _noted(program: int, marks: str, folder: str) -> list[Number]:
    """The parts of a table that a note names."""
    merged, single = ("mM", "01") if folder == METRICS else ("M", "1")
    return [Number(program, k, mark in "mM") for k, mark in enumerate(marks) if mark in merged or mark in single]
