"""HTML report on one or more runs: interactive figures, the summary in plain words, and provenance.

Reads files only. The report is a single file that loads no external libraries, fonts or images.
"""

from plasticity.report.data import collect
from plasticity.report.page import page, save

__all__ = ["collect", "page", "save"]
