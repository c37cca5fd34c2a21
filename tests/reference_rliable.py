"""rliable, to compare with."""

import functools
import importlib.util
import sys
import types
from typing import Any
from unittest import mock

import pytest


@functools.cache
def library() -> Any:
    """``rliable.library``, which needs one module of the package ``arch``; the whole of that fails with pandas 3."""
    pytest.importorskip("rliable.metrics")
    found = importlib.util.find_spec("arch")
    if found is None:
        pytest.skip("no arch")
    package = types.ModuleType("arch")
    package.__path__ = list(found.submodule_search_locations or [])
    with mock.patch.dict(sys.modules, {"arch": package}):  # what is imported within is forgotten again
        return importlib.import_module("rliable.library")
