"""The leading axis of lanes: there for several, absent for one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def enter(tree: Any, width: int) -> Any:
    """Arrays ``[width, ...]`` as :func:`across` takes them: a single lane has no lane axis."""
    return tree if width != 1 else jax.tree.map(lambda x: jnp.squeeze(x, 0), tree)


def leave(tree: Any, width: int) -> Any:
    """The inverse of :func:`enter`: the lane axis is back."""
    return tree if width != 1 else jax.tree.map(lambda x: jnp.expand_dims(x, 0), tree)


def across(function: Callable[..., Any], width: int) -> Callable[..., Any]:
    """``function`` of one lane -> of ``width`` lanes: vmap over the leading axis, and nothing at all for one lane.

    Vmapped gathers and scatters are slow on a CPU, and a vmap of width 1 still pays for them.
    """
    return function if width == 1 else jax.vmap(function)


def over(function: Callable[..., Any], width: int) -> Callable[..., Any]:
    """:func:`across` for arrays that keep their leading axis, ``[width, ...]``, whatever the width."""
    return lambda *args: leave(across(function, width)(*enter(args, width)), width)
