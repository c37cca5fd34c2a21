"""Libraries that take long to import, imported at their first use."""

import functools
from typing import Any

import jax


@functools.cache
def rlax() -> Any:
    """rlax, which takes as long to import as JAX.

    The first use may be inside a trace, in which arrays that the library makes at import must not become tracers.
    """
    with jax.ensure_compile_time_eval():
        import rlax

    return rlax
