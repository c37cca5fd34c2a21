"""What a user is told when a config, a name or a file is wrong: a few lines, each naming the place and the way out."""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Location = tuple[str | int, ...]

SHOWN = 3  # problems in one message
NAMES, WIDTH = 8, 72  # of a list of known names


class UserError(Exception):
    """A mistake the user can mend; the message is one to three lines and is shown without a traceback."""

    code = 2  # the process ends with this one


class StorageError(UserError):
    """A file could not be written or read while a run was under way; what was saved before is still there."""

    code = 74  # EX_IOERR of sysexits.h


def why(error: OSError) -> str:
    """The file, where it is known, and the system's words: ``runs/a/plan.json: No space left on device``."""
    reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    return ": ".join(filter(None, (os.fsdecode(error.filename) if error.filename else "", cut(reason, 200))))


class Problem(NamedTuple):
    """One thing that is wrong at one place of a config."""

    at: Location
    text: str
    arm: str = ""  # where the place belongs to all arms and the problem came up in this one


class NoSuchPlaceError(Exception):
    """A dotted path leads nowhere; the message says why."""


def dotted(location: Location) -> str:
    """``("arms", "ln", "interventions", 0)`` -> ``arms.ln.interventions[0]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")


def shown(value: Any, width: int = 48) -> str:
    """The value as one short line, written as in YAML."""
    return cut(" ".join(json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).split()), width)


def cut(text: str, width: int) -> str:
    """The text, or its beginning and ``...``."""
    return text if len(text) <= width else text[: width - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like the word; None where none is."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def listed(names: Sequence[str]) -> str:
    """The names, cut to a line's length: ``adam, obgd, ... (12 in all)``."""
    kept: list[str] = []
    for name in names[:NAMES]:
        if kept and len(", ".join([*kept, name])) > WIDTH:
            break
        kept.append(name[:WIDTH])
    return ", ".join(kept) + (f", ... ({len(names)} in all)" if len(kept) < len(names) else "")


def unknown(what: str, word: str, known: Iterable[str], heading: str = "known") -> str:
    """``unknown WHAT; known: a, b, c; did you mean `b`?``"""
    names = sorted(known)
    if not names:
        return f"unknown {what}; there is none"
    close = nearest(word, names)
    return f"unknown {what}; {heading}: {listed(names)}" + (f"; did you mean `{close}`?" if close else "")


def report(problems: Sequence[Problem], source: Callable[[Location], str]) -> UserError:
    """The first three problems as one error; ``source`` names the file (or the command line) a place was written in."""
    lines = list(dict.fromkeys(": ".join(filter(None, (source(p.at), dotted(p.at), p.text))) for p in problems))
    more = len(lines) - SHOWN
    if more > 0:
        lines = [*lines[: SHOWN - 1], f"{lines[SHOWN - 1]} (and {more} more)"]
    return UserError("\n".join(lines))
