"""``plasticity bench``: how fast it is here, as tables and as JSON. Measuring is apart from printing."""

from plasticity.bench.report import BENCHMARKS, Report, Result, as_json, machine, run, show, write

__all__ = ["BENCHMARKS", "Report", "Result", "as_json", "machine", "run", "show", "write"]
