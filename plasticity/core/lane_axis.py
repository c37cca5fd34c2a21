"""The leading lane axis: present for several lanes, absent for one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def enter(tree: Any, width: int) -> Any:
    """Convert arrays ``[width, ...]`` to the form :func:`across` expects: a single lane has no lane axis."""
    return tree if width != 1 else jax.tree.map(lambda x: jnp.squeeze(x, 0), tree)


def leave(tree: Any, width: int) -> Any:
    """The inverse of :func:`enter`: restore the lane axis."""
    return tree if width != 1 else jax.tree.map(lambda x: jnp.expand_dims(x, 0), tree)


def across(function: Callable[..., Any], width: int) -> Callable[..., Any]:
    """``function`` of one lane -> of ``width`` lanes: vmap over the leading axis; unchanged for one lane.

    Vmapped gathers and scatters are slow on a CPU, and a vmap of width 1 still pays for them.
    """
    return function if width == 1 else jax.vmap(function)


def over(function: Callable[..., Any], width: int) -> Callable[..., Any]:
    """:func:`across` for arrays that keep their leading axis, ``[width, ...]``, at any width."""
    return lambda *args: leave(across(function, width)(*enter(args, width)), width)
