"""The record of a non-linearity, which may have parameters of its own."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax

from plasticity.core.types import Array, Key, Params

Settings = ParamSpec("Settings")
OWN = "activation"  # the name of its parameters inside a layer's module


def own_activation(node: str) -> str:
    """The name of its parameters if it follows no layer: it is then a node whose module is the normalisation."""
    return f"{node}_{OWN}"


class NonLinearity(NamedTuple):
    """``function(parameters, z)`` maps ``z[..., units]`` to ``[..., copies * units]``, copy after copy.

    ``initial(key, units)``, if there is one, returns its parameters: a dictionary of arrays with one number for each
    unit, ``[units]``, or with a single number for the whole layer, ``[]``, if they are ``shared``. More axes are not
    allowed, because a parameter with two or more is a kernel to methods. Without ``initial``, ``parameters`` is empty.
    """

    function: Callable[[Params, Array], Array]
    copies: int = 1
    initial: Callable[[Key, int], Params] | None = None
    shared: bool = False

    @property
    def learns_units(self) -> bool:
        """Whether each unit has parameters of its own."""
        return self.initial is not None and not self.shared

    @property
    def learns_layer(self) -> bool:
        """Whether all units of a layer share parameters."""
        return self.initial is not None and self.shared


def one_for_equal_settings(factory: Callable[Settings, NonLinearity]) -> Callable[Settings, NonLinearity]:
    """The factory, which then returns the same record for the same settings, so that two of them compare equal."""
    signature = inspect.signature(factory)

    @functools.cache
    def made(settings: tuple[tuple[str, Any], ...]) -> NonLinearity:
        return factory(**dict(settings))  # type: ignore[call-arg]

    @functools.wraps(factory)
    def make(*args: Settings.args, **settings: Settings.kwargs) -> NonLinearity:
        bound = signature.bind(*args, **settings)
        bound.apply_defaults()
        return made(tuple(bound.arguments.items()))

    return make


def without_parameters(function: Callable[[Array], Array], copies: int = 1) -> NonLinearity:
    """A fixed function of ``z``."""
    return NonLinearity(lambda parameters, z: function(z), copies)


def checked_initial(kind: NonLinearity) -> Callable[[Key, int], Params]:
    """``kind.initial``, with a ``ValueError`` (while a network is initialised) for another shape."""

    def initial(key: Key, units: int) -> Params:
        assert kind.initial is not None
        made: Any = kind.initial(key, units)
        wanted = () if kind.shared else (units,)
        for path, leaf in jax.tree_util.tree_leaves_with_path(made):
            if leaf.shape != wanted:
                name, of = jax.tree_util.keystr(path), "layer" if kind.shared else "unit"
                raise ValueError(
                    f"activation: its parameters{name} have shape {leaf.shape}; must be {wanted}, one for each {of}"
                )
        return made

    return initial
