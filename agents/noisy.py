"""Noisy networks: dense layers with parameter noise that is resampled at every use and has learned scales."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.schedules import Number
from plasticity.core.types import Array, Key, ModulePath, Network, Params


def _dense(
    params: Params, change: Callable[[int, Mapping[str, Any]], Mapping[str, Any]], without: frozenset[ModulePath]
) -> Params:
    """Replace every module of ``params`` whose kernel is a matrix by ``change(number, module)``, except these."""
    numbers = iter(range(len(jax.tree.leaves(params))))

    def inside(part: Any, path: ModulePath) -> Any:
        if not isinstance(part, Mapping) or path in without:
            return part
        if "kernel" in part and part["kernel"].ndim == 2:
            return dict(change(next(numbers), part))
        return {name: inside(part[name], (*path, name)) for name in sorted(part)}

    return inside(params, ())


def _cells(network: Network) -> frozenset[ModulePath]:
    """The modules of recurrent cells, whose noise the carry would mix over time."""
    return frozenset(source.path for units in network.units if units.carries for source in units.sources)


def _signed_root(key: Key, size: int) -> Array:
    """``sign(x) sqrt(|x|)`` of standard normal x, ``[size]``."""
    x = jax.random.normal(key, (size,))
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


def noisy(network: Network, scale: Number) -> Network:
    """Add ``noise_kernel`` and ``noise_bias`` to every dense kernel and bias of the network, except in recurrent cells.

    They are initialised to ``scale / sqrt(inputs)``, ``scale`` traced. ``apply`` ignores them; :func:`perturbed` uses
    them.
    """

    cells = _cells(network)

    def init(key: Key) -> Params:
        def spread(number: int, module: Mapping[str, Any]) -> Mapping[str, Any]:
            del number
            start = scale / jnp.sqrt(module["kernel"].shape[0])
            known = {name: module[name] for name in ("kernel", "bias") if name in module}
            return {**module, **{f"noise_{name}": start * jnp.ones_like(x) for name, x in known.items()}}

        return _dense(network.init(key), spread, cells)

    return network._replace(init=init)


def perturbed(key: Key, params: Params) -> Params:
    """``kernel + noise_kernel f(x) f(y)^T`` and ``bias + noise_bias f(y)`` in every dense layer.

    x (inputs) and y (units) are standard normal, ``f(x) = sign(x) sqrt(|x|)``. Kernels are initialised by the network,
    not as in the paper.

    Reference: Fortunato et al. 2018, "Noisy Networks for Exploration" (factorised noise).
    """

    def draw(number: int, module: Mapping[str, Any]) -> Mapping[str, Any]:
        if "noise_kernel" not in module:
            return module
        keys = jax.random.split(jax.random.fold_in(key, number))
        inputs, units = (_signed_root(k, size) for k, size in zip(keys, module["kernel"].shape, strict=True))
        noise: dict[str, Array] = {"kernel": inputs[:, None] * units, "bias": units}
        moved = {name: module[name] + module[f"noise_{name}"] * noise[name] for name in noise if name in module}
        return {**module, **moved}

    return _dense(params, draw, frozenset())
