"""The version of the package, which is recorded in the folder of every run."""

__version__ = "0.2.0"
