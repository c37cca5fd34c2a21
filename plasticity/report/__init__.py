"""Run folders to one HTML page: figures to look into, the summary in plain words, and what it was made with.

Reads files only. The page is one file that loads nothing: no library, no font, no image from elsewhere.
"""

from plasticity.report.data import collect
from plasticity.report.page import page, save

__all__ = ["collect", "page", "save"]
