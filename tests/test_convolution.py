"""The convolution by patches against ``lax`` and against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.networks.convolution import convolve, patches_conv, same

# kernel, stride, height, width
CASES = [(8, 4, 28, 29), (4, 2, 11, 12), (3, 1, 9, 7), (8, 5, 23, 18), (4, 3, 17, 13), (3, 2, 8, 9), (2, 3, 8, 7)]


def draw(kernel: int, height: int, width: int, lanes: tuple[int, ...] = ()) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(kernel * height)
    x = rng.normal(size=(*lanes, 2, height, width, 3))
    k = rng.normal(size=(*lanes, kernel, kernel, 3, 4)) / kernel
    return jnp.asarray(x, jnp.float32), jnp.asarray(k, jnp.float32)


def close(found, expected) -> None:
    """Equal to 1e-5 of the largest entry."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()), rtol=0)


def derivatives(stride: int, padding: str, method: str):
    """Value, gradient and Hessian-vector product (reverse over reverse) of a scalar of the convolution."""

    def value(x, k):
        return jnp.sum(jnp.sin(convolve(x, k, stride, padding, method)))

    def along(x, k, v):
        gx, gk = jax.grad(value, (0, 1))(x, k)
        return jnp.vdot(gx, v[0]) + jnp.vdot(gk, v[1])

    def all_of_them(x, k, v):
        return convolve(x, k, stride, padding, method), jax.grad(value, (0, 1))(x, k), jax.grad(along, (0, 1))(x, k, v)

    return jax.jit(all_of_them)


@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width", "padding"),
    [(*case, "VALID") for case in CASES] + [(*case, "SAME") for case in CASES[1:4]],
)
def test_value_gradient_and_hessian_equal_lax(kernel, stride, height, width, padding):
    x, k = draw(kernel, height, width)
    v = draw(kernel, height, width)[0][::-1], jnp.flip(k, 0)
    close(derivatives(stride, padding, "patches")(x, k, v), derivatives(stride, padding, "lax")(x, k, v))


def test_against_the_sum_written_out():
    x, k = draw(3, 6, 7)
    expected = np.zeros((2, 2, 3, 4))
    for i in range(2):
        for j in range(3):
            window = np.asarray(x)[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, i, j] = np.tensordot(window, np.asarray(k), ([1, 2, 3], [0, 1, 2]))
    np.testing.assert_allclose(patches_conv(x, k, 2), expected, atol=1e-5)


def test_same_padding_by_hand():
    assert same(5, 3, 1) == (1, 1)
    assert same(5, 4, 1) == (1, 2)  # the odd zero comes after
    assert same(6, 3, 2) == (0, 1)
    assert same(4, 1, 2) == (0, 0)


def test_forward_mode_equals_the_hessian_by_reverse_mode():
    x, k = draw(4, 9, 8)

    def gradient(k):
        return jax.grad(lambda k: jnp.sum(jnp.tanh(patches_conv(x, k, 2))))(k)

    forward = jax.jvp(gradient, (k,), (k,))[1]
    reverse = jax.vjp(gradient, k)[1](k)[0]  # the Hessian is symmetric
    close(forward, reverse)


@pytest.mark.parametrize("lanes_of", ["both", "kernel", "x"])
def test_lanes_by_vmap_equal_lanes_by_loop(lanes_of):
    x, k = draw(3, 8, 9, lanes=(3,))
    axes = {"both": (0, 0), "kernel": (None, 0), "x": (0, None)}[lanes_of]
    x, k = (x if axes[0] == 0 else x[0]), (k if axes[1] == 0 else k[0])
    together = jax.vmap(lambda x, k: patches_conv(x, k, 2), axes)(x, k)
    for lane in range(3):
        alone = patches_conv(x[lane] if axes[0] == 0 else x, k[lane] if axes[1] == 0 else k, 2)
        close(together[lane], alone)


@pytest.mark.parametrize("method", ["patches", "lax"])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_bytes_are_converted_after_the_patches_are_made(method, padding):
    """The same numbers as converting first, and no copy of the image in floats."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)), jnp.uint8)
    k, scale = draw(3, 9, 8)[1], 1 / 255

    def value(x, k):
        return convolve(x, k, 2, padding, method, scale)

    def before(x, k):
        return convolve(x.astype(jnp.float32) * scale, k, 2, padding, method)

    np.testing.assert_array_equal(value(x, k), before(x, k))
    close(jax.grad(lambda k: jnp.sum(jnp.sin(value(x, k))))(k), jax.grad(lambda k: jnp.sum(jnp.sin(before(x, k))))(k))
    assert ("f32[2,9,8,3]" in str(jax.make_jaxpr(value)(x, k))) == (method == "lax")


@pytest.mark.parametrize(("filters", "barriers"), [(4, 1), (64, 0)])
def test_the_kernels_gradient_is_the_product_that_is_fast_on_a_cpu(filters, barriers):
    """JAX writes it with the filters first; XLA must keep it so if a patch (27 numbers) is larger than the outputs."""
    x, k = draw(3, 8, 9)[0], jnp.ones((3, 3, 3, filters))
    made = str(jax.make_jaxpr(jax.grad(lambda k: jnp.sum(jnp.sin(patches_conv(x, k, 1)))))(k))
    assert f"f32[{filters},27] = dot_general" in made
    assert made.count("optimization_barrier") == barriers


def count(method: str) -> int:
    x, k = draw(3, 8, 8)
    return str(jax.make_jaxpr(lambda x, k: convolve(x, k, 1, "VALID", method))(x, k)).count("conv_general_dilated")


def test_auto_takes_patches_on_a_cpu_only(monkeypatch):
    assert (count("lax"), count("patches")) == (1, 0)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert count("auto") == 0
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert count("auto") == 1
