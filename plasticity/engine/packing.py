"""Packing of metrics into one array: many small transfers to the host are slow, and so are many small writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """Named scalars in one array; names and types are static."""

    bits: Any  # int32[..., metrics], an array of JAX or of NumPy
    names: tuple[str, ...] = field(metadata={"static": True})
    dtypes: tuple[str, ...] = field(metadata={"static": True})  # int32 or float32


def pack(metrics: Metrics) -> Packed:
    """Scalars -> one array of bits; integers become int32, all others float32."""
    values = [jnp.asarray(value) for value in metrics.values()]
    dtypes = tuple("int32" if jnp.issubdtype(value.dtype, jnp.integer) else "float32" for value in values)
    bits = [
        jax.lax.bitcast_convert_type(value.astype(dtype), jnp.int32)
        for value, dtype in zip(values, dtypes, strict=True)
    ]
    return Packed(jnp.stack(bits) if bits else jnp.zeros(0, jnp.int32), tuple(metrics), dtypes)


def by_name(packed: Packed) -> dict[str, jax.Array]:
    """The inverse of :func:`pack` in traced code: bits ``[..., metrics]`` -> ``[...]`` for each name."""
    return {
        name: jax.lax.bitcast_convert_type(packed.bits[..., i], jnp.dtype(dtype))
        for i, (name, dtype) in enumerate(zip(packed.names, packed.dtypes, strict=True))
    }


def unpack(packed: Packed) -> Mapping[str, np.ndarray]:
    """The metrics of many lanes, ``[lanes]`` each; ``packed.bits`` is a NumPy array ``int32[lanes, metrics]``."""
    columns = np.ascontiguousarray(np.asarray(packed.bits).T)
    return {name: column.view(dtype) for name, dtype, column in zip(packed.names, packed.dtypes, columns, strict=True)}
