"""Command line of the check and of its sections."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity.bench.gpu.plan import NAMES, SECTIONS, Settings


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m plasticity.bench.gpu", description="Check and time one GPU.")
    parser.add_argument("--out", type=Path, required=True, help="JSON output file; rewritten after every result")
    parser.add_argument("--seconds", type=float, default=450.0, help="time limit of the whole check (default 450)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that everything runs")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--workers", type=int, default=None, help="sections to prepare in parallel (default: cores - 2)"
    )
    parser.add_argument("--section", nargs="+", help=argparse.SUPPRESS)  # module, function, arguments
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = parsed(arguments)
    settings = Settings(given.quick, given.seconds)
    if given.section:
        from plasticity.bench.gpu import section

        module, function, *words = given.section
        code = section.main(module, function, words, settings, given.out)
        os._exit(code)  # even if threads remain
    from plasticity.bench.gpu import conductor

    wanted = [section for section in SECTIONS if section.name in given.only]
    return conductor.conduct(wanted, settings, given.out, given.workers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
