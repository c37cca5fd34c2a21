"""Error messages for an invalid config, name or file: a few lines, each naming the place and the fix."""

import itertools
import json
import numbers
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Location = tuple[str | int, ...]

SHOWN = 3  # problems in one message
NAMES, WIDTH = 8, 72  # of a list of known names
LINE = 600  # characters of one line of a message, at most
KEY, KEYS = 60, 160  # characters of one key and of a dotted path
LONGEST, CANDIDATES = 64, 5_000  # of a name, and how many of them, for a suggestion
SEPARATORS = str.maketrans("", "", "_- ")


class UserError(Exception):
    """An error the user can fix; the message is one to three lines and is shown without a traceback.

    Every line is printable and of bounded length, including any quoted text.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(bounded(str(message)))

    code = 2  # the exit code of the process


class StorageError(UserError):
    """A file could not be written or read during a run; what was saved before is intact."""

    code = 74  # EX_IOERR of sysexits.h


class Interrupted(Exception):  # noqa: N818 (not an error: the run was asked to stop)
    """The run stopped at a checkpoint because of a signal; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def why(error: OSError) -> str:
    """The file, if known, and the system's message: ``runs/a/plan.json: No space left on device``."""
    reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
    return ": ".join(filter(None, (os.fsdecode(error.filename) if error.filename else "", cut(reason, 200))))


class ConfigProblem(NamedTuple):
    """One thing that is wrong at one place of a config."""

    at: Location
    text: str
    arm: str = ""  # if the place belongs to all arms, the arm in which the problem occurred


class NoSuchPlaceError(Exception):
    """A dotted path that does not exist; the message says why."""


def dotted(location: Location) -> str:
    """``("arms", "ln", "interventions", 0)`` -> ``arms.ln.interventions[0]``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{cut(step, KEY)}" for step in location)
    return cut("".join(steps).removeprefix("."), KEYS)


def printable(text: str) -> str:
    """The text with all characters that a terminal may interpret escaped.

    These are line breaks, control characters, marks that change the writing direction, and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def bounded(message: str) -> str:
    """At most ``SHOWN`` printable lines of at most ``LINE`` characters; further lines are joined to the last one."""
    lines = message[: 4 * SHOWN * LINE].split("\n", SHOWN - 1)
    return "\n".join(cut(line, LINE) for line in lines)


def placed(place: str, text: str) -> str:
    """The place, then the text, without a leading member name that the place already contains (``monitors.srank``)."""
    return ": ".join(filter(None, (place, text.removeprefix(f"{place.rpartition('.')[2]}: "))))


def refused(key: str, value: Any, allowed: str, user: str = "") -> ValueError:
    """The error ``user: key: value is not allowed; must be ...``, for the caller to raise."""
    return ValueError(f"{user and f'{user}: '}{key}: {shown(value)} is not allowed; must be {allowed}")


def check(key: str, value: Any, known: Iterable[str], user: str = "") -> None:
    """Raise a ``ValueError`` that lists the known names if ``value`` is not one of them."""
    names = tuple(known)
    if value not in names:
        raise refused(key, value, f"one of {', '.join(names)}", user)


def check_least(key: str, value: Any, least: int, user: str = "") -> None:
    """Raise a ``ValueError`` if ``value`` is not an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise refused(key, value, f"an integer of at least {least}", user)


def shown(value: Any, width: int = 48) -> str:
    """The value as one short line, written as in YAML."""
    return cut(" ".join(_written(value, 4 * width).split()), width)


def _written(value: Any, enough: int) -> str:
    """The value as JSON, up to about ``enough`` characters; circular references are safe."""
    if isinstance(value, str):
        value = value[:enough]
    encoder = json.JSONEncoder(ensure_ascii=False, default=_other, skipkeys=True, check_circular=False)
    text = ""
    try:
        for piece in encoder.iterencode(value):
            text += piece
            if len(text) > enough:
                break
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return text + "..."
    return text


def _other(value: Any) -> str:
    return str(value)[:1000]


def contrasted(one: Any, other: Any, width: int = 60) -> tuple[str, str]:
    """Two values as short lines that show where they differ; long ones are cut around their first difference."""
    a, b = (" ".join(_written(value, 1_000_000).split()) for value in (one, other))
    if max(len(a), len(b)) <= width:
        return printable(a), printable(b)
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, same - width // 3)
    opening = "..." if start else ""
    return tuple(cut(opening + text[start : start + width + 1], width) for text in (a, b))  # type: ignore[return-value]


def cut(text: str, width: int) -> str:
    """The text, printable, or its beginning and ``...``."""
    text = printable(text[: width + 1])
    return text if len(text) <= width else text[: width - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to the word; None if none is near.

    Near means at most one typo (an extra, missing, wrong or swapped letter) for every three letters of the longer word,
    and at most three in all. Case, underscores, hyphens and spaces do not count.
    """
    if len(word) > LONGEST:
        return None
    given = _plain(word)
    best, least = None, 4
    for name in itertools.islice(known, CANDIDATES):
        plain = _plain(name)
        found = _slips(given, plain, min(3, least - 1, max(len(given), len(plain)) // 3))
        if found is not None:
            best, least = name, found
    return best


def _plain(word: str) -> str:
    return word.lower().translate(SEPARATORS)


def _slips(a: str, b: str, most: int) -> int | None:
    """The optimal string alignment distance of two words; None if it exceeds ``most``."""
    if abs(len(a) - len(b)) > most or most < 0:
        return None
    far = most + 1
    before, row = [far] * (len(b) + 1), [min(j, far) for j in range(len(b) + 1)]
    for i, letter in enumerate(a, 1):
        new = [min(i, far)] + [far] * len(b)
        for j in range(max(1, i - most), min(len(b), i + most) + 1):
            new[j] = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (letter != b[j - 1]), far)
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == b[j - 1]:
                new[j] = min(new[j], before[j - 2] + 1)
        if min(new) > most:
            return None
        before, row = row, new
    return row[-1] if row[-1] <= most else None


def listed(names: Sequence[str]) -> str:
    """The names, cut to a line's length: ``adam, obgd, ... (12 in all)``."""
    kept: list[str] = []
    for name in (cut(str(name), WIDTH) for name in names[:NAMES]):
        if kept and len(", ".join([*kept, name])) > WIDTH:
            break
        kept.append(name)
    return ", ".join(kept) + (f", ... ({len(names)} in all)" if len(kept) < len(names) else "")


def unknown(what: str, word: str, known: Iterable[str], heading: str = "known") -> str:
    """``unknown WHAT; known: a, b, c; did you mean `b`?``"""
    names = sorted(known)
    what = cut(what, 2 * KEY)
    if not names:
        return f"unknown {what}; there is none"
    return f"unknown {what}; {heading}: {listed(names)}{suggestion(word, names)}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean `b`?``, or an empty string if no known name is near (see :func:`nearest`)."""
    close = nearest(word, known)
    return f"; did you mean `{cut(close, KEY)}`?" if close else ""


def report(problems: Sequence[ConfigProblem], source: Callable[[Location], str]) -> UserError:
    """The first three problems as one error; ``source`` names the file (or command line) of a place."""
    lines = list(dict.fromkeys(": ".join(filter(None, (source(p.at), dotted(p.at), p.text))) for p in problems))
    more = len(lines) - SHOWN
    if more > 0:
        lines = [*lines[: SHOWN - 1], f"{lines[SHOWN - 1]} (and {more} more)"]
    return UserError("\n".join(lines))
