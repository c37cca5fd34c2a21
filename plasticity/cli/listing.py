"""``plasticity list``: the members of the families, their settings, and the shipped configs; ``plasticity schema``."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from plasticity.cli import completion, tables
from plasticity.cli.completion import LISTED
from plasticity.cli.terminal import console, errors, say_broken
from plasticity.config import shipped
from plasticity.config.registry import FAMILIES
from plasticity.core.errors import UserError, shown, unknown


def list_members(
    family: Annotated[
        str | None, typer.Argument(help=f"{', '.join(LISTED)}; default: all", autocompletion=completion.family)
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="a member, to show its settings", autocompletion=completion.member)
    ] = None,
) -> None:
    """List all members and shipped configs, those of one family, or the settings of one member; plug-ins are marked."""
    if family is not None and family not in LISTED:
        raise UserError(unknown(f"family `{family}`", family, LISTED))
    if family == "configs":
        if name is not None:
            raise UserError(f"list configs takes no name, got {shown(name)}; to show a config: plasticity plan NAME")
        _print_configs()
        return
    chosen = FAMILIES if family is None else (family,)
    if name is None and not any(map(completion.plugins, FAMILIES)):
        for each in chosen:
            console.print(tables.two_columns(each, completion.built_in(each)))
        if family is None:
            _print_configs()
        return
    from plasticity.runs import launch  # imports JAX, which takes seconds

    if family is None:
        for line in launch.broken_plugins():
            errors.print(Text(line))
        for each in FAMILIES:
            console.print(tables.family_table(launch.registry(), each))
        _print_configs()
    elif name is None:
        say_broken()
        console.print(tables.family_table(launch.registry(), family))
    else:
        tables.print_member(launch.registry(), family, name, console)


def schema() -> None:
    """Print the JSON schema of a config, with which editors complete and check it."""
    sys.stdout.write(shipped.schema())


def _print_configs() -> None:
    """The shipped configs, and where the findings are listed, which cannot be run as configs."""
    found = {name: _first_comment(path) for name, path in shipped.experiments().items()}
    console.print(tables.two_columns("configs", found))
    console.print(Text("Published findings are listed by `plasticity findings --list`."))


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""
