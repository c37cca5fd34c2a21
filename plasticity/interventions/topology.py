"""Which connections of a network exist: masks over its kernels, and how many each kernel has at first."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key


def erdos_renyi(shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[int]:
    """How many weights of each kernel exist in an Erdos-Renyi network of the given sparsity over all kernels.

    The density of a kernel is in proportion to ``sum(shape) / prod(shape)``: large kernels are sparser. A kernel whose
    density would exceed 1 is dense, and the others share the rest. The number of missing weights is rounded down.

    Args:
        shapes: of the kernels.
        sparsity: the share of all weights that are missing, in [0, 1).

    Reference: Mocanu et al. 2018, "Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity
    inspired by Network Science"; for convolutions: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners".
    """
    sizes = [_product(shape) for shape in shapes]
    degrees = [sum(shape) for shape in shapes]
    sparse = list(range(len(shapes)))
    while sparse:
        left = (1 - sparsity) * sum(sizes) - sum(size for i, size in enumerate(sizes) if i not in sparse)
        scale = left / sum(degrees[i] for i in sparse)
        top = max(degrees[i] / sizes[i] for i in sparse)
        if scale * top <= 1:
            break
        sparse = [i for i in sparse if degrees[i] / sizes[i] < top]
    missing = {i: int((1 - scale * degrees[i] / sizes[i]) * sizes[i]) for i in sparse}
    return [size - missing.get(i, 0) for i, size in enumerate(sizes)]


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def largest(key: Key, scores: Array, among: Array, count: Array | int) -> Array:
    """bool: the ``count`` largest of the scores where ``among`` holds, all of those if they are fewer.

    Equal scores are in random order. ``scores`` and ``among`` have one shape; ``count`` (int32[]) may be traced.
    """
    first = jnp.where(among, -scores, jnp.inf).reshape(-1)
    order = jnp.lexsort((jax.random.uniform(key, first.shape), first))
    places = jnp.arange(first.size, dtype=jnp.int32)
    rank = jnp.zeros(first.size, jnp.int32).at[order].set(places, unique_indices=True)
    return among & (rank.reshape(scores.shape) < count)
