"""``plasticity bench``: speed on this machine, as tables and as JSON. Measuring is separate from printing.

Benchmarks and JAX are imported on first use, since the driver of the GPU check needs neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plasticity.bench.report import BENCHMARKS, Report, Result, as_json, machine, run, show, write

__all__ = ["BENCHMARKS", "Report", "Result", "as_json", "machine", "run", "show", "write"]


def __getattr__(name: str) -> Any:
    if name not in __all__ and name != "report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    report = importlib.import_module("plasticity.bench.report")
    return report if name == "report" else getattr(report, name)
