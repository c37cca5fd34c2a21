"""Names in a config that are also names of folders."""

import re
from collections.abc import Iterable, Sequence

from plasticity.config.settings import Parser
from plasticity.core.errors import Location, shown

LONGEST = 100  # characters of a name, which is also a folder name
NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LONGEST - 1}}}")
# Names in a run's folder besides those of its arms.
RESERVED = (  # in lower case: macOS and Windows do not distinguish `Figures` from `figures`
    "figures", "experiment.yaml", "plan.json", "report.html", "shards", "logs", "jobs.json", "tensorboard", "wandb",
)  # fmt: skip
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # reserved by Windows


def check_name(parser: Parser, name: str, at: Location, reserved: Sequence[str] = ()) -> None:
    if not NAME.fullmatch(name):
        text = (
            f"{shown(name)} is not a valid name; use up to {LONGEST} letters, digits, `.`, `_` and `-`, "
            "starting with a letter, a digit or `_`"
        )
        parser.refuse(at, text)
    elif name.lower() in reserved:
        parser.refuse(at, "is a reserved name in the run's folder; choose another name")
    elif DEVICE.fullmatch(name) or name.endswith("."):
        parser.refuse(at, f"{shown(name)} is not a valid folder name on Windows; choose another name")


def check_distinct(parser: Parser, key: str, names: Iterable[str]) -> None:
    """Refuse names below ``key`` that differ only in case."""
    folders: dict[str, str] = {}
    for name in names:
        if folders.setdefault(name.lower(), name) != name:
            twin = shown(folders[name.lower()])
            text = f"differs from {twin} only in case: the same folder on macOS and Windows; rename it"
            parser.refuse((key, name), text)
