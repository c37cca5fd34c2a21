"""The version of the package; a run's folder records it."""

__version__ = "0.2.0"
