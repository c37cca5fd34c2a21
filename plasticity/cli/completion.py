"""Tab completion: names of configs, members, findings and figures, without importing JAX."""

import importlib.metadata
import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import typer

from plasticity.config import shipped
from plasticity.config.registry import FAMILIES

LISTED = (*FAMILIES, "configs")
# As in plasticity.plots.run_figures, which takes a second to import.
FIGURES = (
    "performance", "learning_curve", "aggregates", "profiles", "sensitivity", "revisits", "learning_speed", "matrix",
    "monitors", "mechanisms", "layers", "hessian_density",
)  # fmt: skip


@cache
def built_in(family: str) -> dict[str, str]:
    """The built-in members of a family and what they are, by the schema of a config."""
    definitions = json.loads(shipped.schema())["$defs"].items()
    split = ((key.split(" "), value) for key, value in definitions)
    return {words[1]: value["description"] for words, value in split if words[0] == family and len(words) == 2}


def plugins(family: str) -> set[str]:
    """The members of other packages, by the metadata of these."""
    return {entry.name for entry in importlib.metadata.entry_points(group=f"plasticity.{family}")}


@cache
def members(family: str) -> tuple[str, ...]:
    """The members of a family."""
    return tuple(sorted(plugins(family).union(built_in(family))))


def starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def in_a_list(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completion of the last of several names separated by commas; names that are there already are not offered."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in starting(last, names()) if name not in before.split(",")]

    return complete


def config(incomplete: str) -> list[str]:
    """Shipped configs, and YAML files at the path so far."""
    return starting(incomplete, shipped.experiments()) + shipped.files(incomplete)


def family(incomplete: str) -> list[str]:
    return starting(incomplete, LISTED)


def member(ctx: typer.Context, incomplete: str) -> list[str]:
    chosen: Any = ctx.params.get("family")
    return starting(incomplete, members(chosen)) if chosen in FAMILIES else []


def finding(incomplete: str) -> list[str]:
    return starting(incomplete, shipped.findings())


monitors = in_a_list(lambda: members("monitors"))
figures = in_a_list(lambda: FIGURES)
