"""Broken configs, many of them: each is planned, or refused in at most three printable lines.

Usage::

    python tests/stress/configs.py --configs 1000 --seed 0 --json configs.json

Every case takes a shipped config (those of findings included), changes it at one to three places or adds overrides,
then reads and plans it in a child process, as ``plasticity plan`` would. A case fails with a traceback, with a message
that is longer than three lines or holds what a terminal may act upon, after 20 seconds of processor time, or with more
than 2 GB. Arms beyond the first two are left out first, so that the time is that of the change and not that of thirty
programs.
"""

import argparse
import copy
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from plasticity.config.documents import read_file, to_yaml  # noqa: E402 (this checkout's, whatever is installed)

SECONDS, BYTES, LINES, LONGEST = 20.0, 2 * 10**9, 3, 620
RECYCLED = 60  # cases of one child, and ...
HEAVY = 1_200_000_000  # ... what it may hold between two cases: JAX keeps what it has traced
NUMBERS = (-1, 0, 10**9, 2**31, 2**31 - 1, 10**18, 10**400, -(10**9), 1e300, 1e-300, float("inf"), float("nan"), 0.5)
WORDS = (
    "",
    " ",
    "null",
    "adam",
    "ünï",
    "\u202eabc",
    "a\nb",
    "\x1b[31mred",
    "\x00",
    "x" * 5000,
    "\uff11\uff12",
    "²",
    "a.b",
    "..",
    "🙂",
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"kind": 1}, {"kind": []}, {"": 1}, "1", "1e-3")
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


class Case(NamedTuple):
    name: str
    text: str
    overrides: tuple[str, ...]
    change: str  # in words


class Result(NamedTuple):
    outcome: str  # accepted, refused, traceback, message, time, memory, died
    detail: str
    seconds: float
    peak: int


# Configs and their changes.


def shipped() -> dict[str, dict[str, Any]]:
    """Every config and every part of every finding, by name."""
    found = {}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        raw = read_file(path)
        if "finding" not in raw:
            found[str(path.relative_to(ROOT))] = raw
        elif "experiment" in raw:
            found[str(path.relative_to(ROOT))] = raw["experiment"]
    return {name: shortened(raw) for name, raw in found.items()}


def shortened(raw: dict[str, Any]) -> dict[str, Any]:
    arms = raw.get("arms")
    return {**raw, "arms": dict(list(arms.items())[:2])} if isinstance(arms, dict) else raw


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*at, key)
        yield from places(value, (*at, key))


def found(data: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        data = data[key]
    return data


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def changed(raw: dict[str, Any], draw: random.Random) -> tuple[dict[str, Any], str]:
    """The config with one change of its data."""
    raw = copy.deepcopy(raw)
    at = draw.choice(list(places(raw)))
    if draw.random() < 0.5:  # a number, so that what is planned is not only what was shipped
        at = draw.choice([way for way in places(raw) if isinstance(found(raw, way), int | float)] or [at])
    holder, key = found(raw, at[:-1]), at[-1]
    if isinstance(holder[key], int | float) and draw.random() < 0.7:
        factor = draw.choice((0, 0.5, 2, 10, 1000, 10**6, -1, 2**31))
        holder[key] = int(holder[key] * factor) if isinstance(holder[key], int) else holder[key] * factor
        return raw, f"{factor} times {'.'.join(map(str, at))[:60]}"
    what = draw.choice(("delete", "rename", "number", "number", "word", "type", "deep", "list", "copy"))
    if what == "delete":
        del holder[key]
    elif what == "rename" and isinstance(holder, dict):
        new = draw.choice([*WORDS, str(key) + "s", str(key)[:-1], str(key).upper()])
        holder[new] = holder.pop(key)
    elif what == "copy":
        other = draw.choice(list(places(raw)))
        holder[key] = copy.deepcopy(found(raw, other))
    elif what == "deep":
        holder[key] = nested(draw.choice((5, 40, 80)))
    elif what == "list":
        holder[key] = [copy.deepcopy(holder[key])] * draw.choice((1, 2, 200))
    else:
        holder[key] = draw.choice({"number": NUMBERS, "word": WORDS, "type": OTHERS}.get(what, OTHERS))
    return raw, f"{what} at {'.'.join(map(str, at))[:60]}"


def mangled(text: str, draw: random.Random) -> tuple[str, str]:
    """The text with one change that only text can have."""
    what = draw.choice(("tag", "bomb", "cut", "byte", "twice", "merge", "own", "long", "brackets", "alias key"))
    lines = text.splitlines(keepends=True)
    line = draw.randrange(len(lines))
    if what == "tag":
        tag = draw.choice(
            ("!!bool foo", '!!int ""', "!!python/object/apply:os.getcwd []", "!x 1", "!!float x", "!!null 1")
        )
        lines[line] = lines[line].split(":")[0].rstrip("\n") + f": {tag}\n"
    elif what == "bomb":
        lines.append(BOMB)
    elif what == "cut":
        return text[: draw.randrange(len(text))], what
    elif what == "byte":
        place = draw.randrange(len(text))
        return text[:place] + draw.choice("\x00\x1b\u202e\u2028\t{}[]:&*!|>%@`\"'#-") + text[place:], what
    elif what == "twice":
        lines.insert(line, lines[line])
    elif what == "merge":
        lines.append("<<: [1, {a: 2}]\n")
    elif what == "own":
        lines.append("extra: &e {a: [*e]}\n")
    elif what == "long":
        lines.append(f"{'k' * draw.choice((900, 5000))}: 1\n")
    elif what == "brackets":
        lines.append("extra: " + "[" * 3000 + "\n")
    else:
        lines.append("? &k [1]\n: *k\n")
    return "".join(lines), what


def override(raw: dict[str, Any], draw: random.Random) -> str:
    at = draw.choice(list(places(raw)) or [("name",)])
    path = ".".join(map(str, at)) + draw.choice(("", "", "", ".x", "..", ".0", "." + "a." * 200, "\x1b[0m"))
    value = draw.choice([*map(str, NUMBERS), *WORDS, "{a: [", "!!int 1", "[1, 2]", "{}", "&a [*a]", "null"])
    return f"{path}{draw.choice(('=', '=', '=', '', '=='))}{value}"


def cases(count: int, seed: int) -> Iterator[Case]:
    sys.setrecursionlimit(20_000)  # of this process alone, which writes what is nested deeply
    draw = random.Random(seed)
    configs = shipped()
    for _ in range(count):
        name = draw.choice(list(configs))
        raw: dict[str, Any] = configs[name]
        told: list[str] = []
        kind = draw.random()
        for _ in range(draw.choice((1, 1, 2, 3)) if kind < 0.65 else 0):
            if not raw:
                break
            raw, what = changed(raw, draw)
            told.append(what)
        text = to_yaml(raw)
        if 0.65 <= kind < 0.85:
            text, what = mangled(text, draw)
            told.append(what)
        overrides = [override(raw, draw) for _ in range(draw.choice((1, 2)))] if kind >= 0.85 else []
        yield Case(name, text, tuple(overrides), "; ".join([*told, *(f"override {o[:60]!r}" for o in overrides)]))


# Running them.


def child(pipe: Any, folder: str) -> None:
    """Plans what it is sent, until it is sent None."""
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    from plasticity.core.errors import UserError
    from plasticity.runs import launch

    launch.registry()
    launch.devices()
    pipe.send("ready")
    while (case := pipe.recv()) is not None:
        path = Path(folder) / "case.yaml"
        path.write_text(case.text, encoding="utf-8", errors="surrogatepass")
        try:
            launch.plan(launch.load_config(path, case.overrides))
            pipe.send(("accepted", ""))
        except UserError as error:
            pipe.send(("refused", str(error)))
        except BaseException:
            pipe.send(("traceback", traceback.format_exc()))


class Worker:
    """One child at a time, replaced when it is full, too slow or dead."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._process: Any = None

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=child, args=(other, self._folder.name), daemon=True)
        self._process.start()
        other.close()
        self._usage, self._done = psutil.Process(self._process.pid), 0
        if not self._pipe.poll(300):
            raise SystemExit("a child did not start within 300 seconds")
        self._pipe.recv()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def run(self, case: Case) -> Result:
        if self._process is not None and (self._done >= RECYCLED or self._usage.memory_info().rss > HEAVY):
            self.close()
        if self._process is None:
            self._start()
        self._done += 1
        start, used, peak = time.monotonic(), sum(self._usage.cpu_times()[:2]), 0
        self._pipe.send(case)
        outcome = None
        while outcome is None:
            try:
                if self._pipe.poll(0.05):
                    outcome, detail = self._pipe.recv()
                peak = max(peak, self._usage.memory_info().rss)
                spent = sum(self._usage.cpu_times()[:2]) - used
            except (EOFError, psutil.Error):
                outcome, detail = "died", ""
            if outcome is None and (spent > SECONDS or time.monotonic() - start > 10 * SECONDS):
                outcome, detail = "time", ""
            if peak > BYTES:
                outcome, detail = "memory", f"{peak / 1e9:.1f} GB"
        if outcome in ("time", "memory", "died"):
            self.close()
        if outcome == "refused" and (problem := unfit(detail)):
            outcome, detail = "message", f"{problem}: {detail}"
        return Result(outcome, detail, spent, peak)


def unfit(message: str) -> str:
    """What is wrong with a message; nothing where it is fit to be shown."""
    lines = message.split("\n")
    if len(lines) > LINES:
        return f"{len(lines)} lines"
    if not all(line.isprintable() for line in lines):
        return "not printable"
    return "too long" if max(map(len, lines)) > LONGEST else "empty" if not message.strip() else ""


def run(count: int, seed: int, say: Any = print) -> dict[str, Any]:
    """Runs the cases; the summary as plain data."""
    worker, counts, failures = Worker(), Counter[str](), []
    slowest, peak = 0.0, 0
    try:
        for number, case in enumerate(cases(count, seed)):
            result = worker.run(case)
            counts[result.outcome] += 1
            slowest, peak = max(slowest, result.seconds), max(peak, result.peak)
            if result.outcome not in ("accepted", "refused"):
                failures.append({"number": number, **case._asdict(), **result._asdict()})
                say(f"{number}: {case.name}: {case.change!r}: {result.outcome}: {result.detail[-600:]}")
            elif number % 50 == 49:
                say(f"{number + 1} of {count}: {dict(counts)}, slowest {slowest:.1f} s, peak {peak / 1e9:.2f} GB")
    finally:
        worker.close()
    return {
        "configs": count,
        "seed": seed,
        **{each: counts[each] for each in ("accepted", "refused", "traceback", "message", "time", "memory", "died")},
        "slowest_seconds": round(slowest, 1),
        "peak_bytes": peak,
        "failures": failures,
    }


def main() -> int:
    options = argparse.ArgumentParser(description="Plan many broken configs.")
    options.add_argument("--configs", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path, help="write the summary and the failures here")
    given = options.parse_args()
    summary = run(given.configs, given.seed, lambda line: print(line, flush=True))
    if given.json:
        given.json.write_text(json.dumps(summary, indent=1, default=str))
    print(", ".join(f"{key} {value}" for key, value in summary.items() if key != "failures"))
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
