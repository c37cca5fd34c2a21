"""The table of docs/networks.md: every intervention on every built-in network; and numbers of parameters.

The verdicts come from building an agent with each pair and tracing its updates (``tests/network_table.py``).
"""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.interventions import INTERVENTIONS
from plasticity.networks.build import build
from plasticity.networks.catalogue import NETWORKS

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"torso": partial(NETWORKS["mlp"], widths=(64,))} for name in ("gru", "lstm", "rtu")
}
# Observation and outputs for which the number of parameters is given.
MEASURED: dict[str, tuple[tuple[int, ...], int]] = {
    "minatar": ((10, 10, 4), 6),
    "nature": ((84, 84, 4), 18),
    "streaming": ((4, 84, 84), 18),
    "resnet18": ((32, 32, 3), 100),
    "impala": ((64, 64, 3), 16),
    "vit": ((32, 32, 3), 100),
}


def parameters(name: str) -> str:
    """A sentence with the number of parameters at the defaults."""
    shape, outputs = MEASURED.get(name, ((30,), 6))
    network = build(NETWORKS[name](jax.ShapeDtypeStruct(shape, jnp.float32), outputs, **DEFAULTS.get(name, {})))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0))))
    sides = "x".join(map(str, shape))
    return f"{count:,} parameters with the defaults, for observations of size {sides} and {outputs} outputs."


def without_label(why: str, method: str) -> str:
    return why.removeprefix(f"{method}: ").removeprefix(f"{method} ")


def entry(cell: Any, method: str) -> str:
    """What the table's note says, empty for a method that works at its defaults."""
    if not cell.why:
        return ""
    setting = ", ".join(f"`{key}: {str(value).lower()}`" for key, value in cell.settings.items())
    works = f" It works with {setting}." if cell.works else ""
    return f"`{method}`: {without_label(cell.why, method)}.{works}"


def table() -> str:
    """The table and its notes."""
    from network_table import cell

    notes: dict[str, int] = {}
    lines = [f"| intervention | {' | '.join(f'`{name}`' for name in NETWORKS)} |", "|---|" + "---|" * len(NETWORKS)]
    for method in INTERVENTIONS:
        cells = []
        for network in NETWORKS:
            found = cell(network, method)
            note = entry(found, method)
            number = notes.setdefault(note, len(notes) + 1) if note else 0
            cells.append(("yes" if found.works else "no") + (f" ({number})" if note else ""))
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    numbered = [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join([*lines, "", *numbered]) + "\n\n"


def written(page: str) -> dict[tuple[str, str], str]:
    """(network, method) -> the cell of the page's table."""
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count(" | ") == len(NETWORKS)]
    found = {}
    for row in rows:
        method, *cells = (part.strip().strip("`") for part in row.strip("|").split("|"))
        found |= {(network, method): cell for network, cell in zip(NETWORKS, cells, strict=True)}
    return found
