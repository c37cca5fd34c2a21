"""The command line: ``plasticity run``, ``watch``, ``plot`` and the other commands in ``plasticity --help``."""

import _thread
import re
import signal
import sys
import threading
import warnings
from typing import Annotated, Any

import typer
from rich.text import Text

from plasticity.cli.display import never_fail
from plasticity.cli.forking import fork
from plasticity.cli.launching import launch
from plasticity.cli.listing import list_members, schema
from plasticity.cli.measuring import NamesBenchmarks, bench, dataset, findings, measure
from plasticity.cli.reading import compare, plot, report, watch
from plasticity.cli.running import merge, plan, run
from plasticity.cli.terminal import console, errors
from plasticity.core.errors import LINE, StorageError, UserError, cut, printable, why
from plasticity.version import __version__

app = typer.Typer(
    help="A testbed for loss of plasticity and continual reinforcement learning.",
    epilog="Exit codes: 0 success; 2 invalid input; 74 a file could not be written or read; "
    "128 + N stopped by signal N.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        console.print(Text(f"plasticity {__version__}"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Options before a command."""
    del version


# In the order of `plasticity --help`.
app.command()(run)
app.command()(plan)
app.command()(launch)
app.command()(merge)
app.command(name="list")(list_members)
app.command()(watch)
app.command()(compare)
app.command()(plot)
app.command()(report)
app.command()(fork)
app.command()(measure)
app.command()(dataset)
app.command(cls=NamesBenchmarks)(bench)
app.command()(findings)
app.command()(schema)

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # some libraries colour their warnings


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Print a ``UserWarning`` in one line, without a location in our code."""
    if issubclass(category, UserWarning):
        for line in COLOURS.sub("", f"warning: {message}").splitlines():
            errors.print(Text(printable(line)))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


USAGE: Any = typer.BadParameter.__base__  # raised for a malformed command; typer does not export it


def _misused(error: Any) -> None:
    """Report a malformed command in two lines; print the help if there were no arguments."""
    if error.ctx is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())  # with rich it prints by itself and returns nothing
        return
    errors.print(Text(cut(" ".join(error.format_message().split()), LINE)))
    if error.ctx is not None:
        errors.print(Text(f"see: {error.ctx.command_path} --help"))


def _interrupt_later(unraisable: Any) -> None:
    """Act on Ctrl-C inside a library's callback once the callback ends; Python would print and ignore it."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Run the command line. User errors take one to three lines (exit code 2); file errors exit with 74.

    Modules in the current folder can be imported, as with ``python -m plasticity``; installed ones take precedence.
    """
    never_fail()
    sys.unraisablehook = _interrupt_later
    if "" not in sys.path:
        sys.path.append("")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = app(standalone_mode=False, prog_name="plasticity")
            sys.exit(code if isinstance(code, int) else 0)
    except USAGE as error:
        _misused(error)
        sys.exit(UserError.code)
    except UserError as error:
        for line in str(error).splitlines():
            errors.print(Text(line))
        sys.exit(error.code)
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        errors.print(Text(why(error)))
        sys.exit(StorageError.code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
