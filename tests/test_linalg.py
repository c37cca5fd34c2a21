"""Decompositions: their numbers, and that a CPU never gets a batch of them (see the module's docstring)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core import linalg
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec

STACK = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)


def test_numbers_are_those_of_numpy():
    for i, found in enumerate(jax.jit(jax.vmap(linalg.singular_values))(STACK)):
        np.testing.assert_allclose(found, np.linalg.svd(np.asarray(STACK[i]), compute_uv=False), rtol=1e-5)
    squares = jnp.einsum("bij,bik->bjk", STACK, STACK)
    for i, found in enumerate(jax.jit(jax.vmap(linalg.eigenvalues))(squares)):
        np.testing.assert_allclose(found, np.linalg.eigvalsh(np.asarray(squares[i])), rtol=1e-4, atol=1e-4)
    for i, (q, r) in enumerate(zip(*jax.jit(jax.vmap(linalg.qr))(STACK), strict=True)):
        np.testing.assert_allclose(q @ r, STACK[i], atol=1e-5)
        np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 5)])
def test_orthogonal_is_that_of_jax(shape):
    key = jax.random.key(2)
    expected = jax.nn.initializers.orthogonal(1.5)(key, shape)
    np.testing.assert_allclose(linalg.orthogonal(key, shape, 1.5), expected, atol=1e-6)


def batched_calls(function, *args):
    """The LAPACK calls of a compiled program on more than one matrix."""
    text = jax.jit(function).lower(*args).as_text()
    calls = [line for line in text.splitlines() if "lapack" in line]
    assert calls
    return [line for line in calls if "tensor<3x" in line]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="LAPACK")
def test_a_cpu_gets_one_matrix_at_a_time():
    assert batched_calls(jax.vmap(lambda m: jnp.linalg.svd(m, compute_uv=False)), STACK)  # what is to be avoided
    assert not batched_calls(jax.vmap(linalg.singular_values), STACK)
    assert not batched_calls(jax.vmap(linalg.qr), STACK)
    assert not batched_calls(jax.vmap(linalg.eigenvalues), STACK[:, :4])
    network = build(NetworkSpec((5,), 2, widths=(4,), initialiser="orthogonal"))
    assert not batched_calls(jax.vmap(network.init), jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 2, 3, 2)])
def test_newton_schulz_gives_the_polar_factor(shape):
    matrices = np.random.default_rng(3).normal(size=shape)
    u, s, v = np.linalg.svd(matrices, full_matrices=False)
    found = linalg.newton_schulz(jnp.asarray(matrices, jnp.float32), 60)
    np.testing.assert_allclose(found, u @ v, atol=1e-5)
    s = s / np.sqrt(np.square(s).sum(-1, keepdims=True))
    for _ in range(4):
        s = s * (3 - s**2) / 2
    early = linalg.newton_schulz(jnp.asarray(matrices, jnp.float32), 4)
    np.testing.assert_allclose(early, (u * s[..., None, :]) @ v, atol=1e-5)
    np.testing.assert_array_equal(linalg.newton_schulz(jnp.zeros(shape), 5), np.zeros(shape))
