"""``plasticity bench``: how fast it is here, as tables and as JSON. Measuring is apart from printing.

The benchmarks are imported, with JAX, when one of the names is used: what conducts the check of a GPU needs neither.
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
