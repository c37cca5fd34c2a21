"""Which outputs of a function depend on its first argument."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal


def depend_on(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Trace ``function(first, *others)``: its output with True in place of each array that may depend on ``first``.

    A primitive, or a call of another function, passes a dependence of any of its inputs on to all of its outputs, so
    that True may be too cautious, but False never wrong.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(first, *others)
    reached = set(closed.jaxpr.invars[: len(jax.tree.leaves(first))])
    for equation in closed.jaxpr.eqns:
        if any(not isinstance(atom, Literal) and atom in reached for atom in equation.invars):
            reached.update(equation.outvars)
    marks = [not isinstance(atom, Literal) and atom in reached for atom in closed.jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(shapes), marks)
