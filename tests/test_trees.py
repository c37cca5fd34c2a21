"""Tree arithmetic against sums by hand, schedules against their end points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core import schedules, trees

A = {"hidden": {"kernel": jnp.array([[1.0, 2.0], [0.0, -2.0]]), "bias": jnp.array([4.0, 0.0])}}
B = {"hidden": {"kernel": jnp.array([[0.0, 1.0], [2.0, 0.0]]), "bias": jnp.array([0.0, 0.0])}}


def test_get_and_put() -> None:
    new = trees.put(A, ("hidden", "bias"), jnp.array([7.0, 7.0]))
    np.testing.assert_array_equal(trees.get(new, ("hidden", "bias")), [7.0, 7.0])
    assert trees.get(new, ("hidden", "kernel")) is A["hidden"]["kernel"]
    np.testing.assert_array_equal(A["hidden"]["bias"], [4.0, 0.0])
    assert trees.put(A, (), B) is B
    with pytest.raises(KeyError):
        trees.put(A, ("hidden", "scale"), jnp.zeros(2))


def test_paths_in_leaf_order() -> None:
    assert trees.paths(A) == [("hidden", "bias"), ("hidden", "kernel")]


def test_norms_and_products() -> None:
    assert float(trees.squared_norm(A)) == 1 + 4 + 4 + 16
    assert float(trees.norm(A)) == 5.0
    assert float(trees.inner(A, B)) == 2.0


def test_cosine_of_each_leaf() -> None:
    angles = trees.cosine(A, B)
    np.testing.assert_allclose(angles["hidden"]["kernel"], 2.0 / (3.0 * np.sqrt(5.0)), rtol=1e-6)
    assert float(angles["hidden"]["bias"]) == 0.0  # one side is zero


def test_where_broadcasts_its_masks() -> None:
    masks = {"hidden": {"kernel": jnp.array([True, False]), "bias": jnp.array(False)}}
    mixed = trees.where(masks, B, A)
    np.testing.assert_array_equal(mixed["hidden"]["kernel"], [[0.0, 2.0], [2.0, -2.0]])
    np.testing.assert_array_equal(mixed["hidden"]["bias"], A["hidden"]["bias"])


def test_select_takes_one_tree_whole_also_with_keys() -> None:
    yes, no = {"x": A, "key": jax.random.key(1)}, {"x": B, "key": jax.random.key(2)}
    got = jax.vmap(lambda p: trees.select(p, yes, no))(jnp.array([True, False]))
    np.testing.assert_array_equal(got["x"]["hidden"]["kernel"][1], B["hidden"]["kernel"])
    np.testing.assert_array_equal(jax.random.key_data(got["key"])[0], jax.random.key_data(jax.random.key(1)))


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (jnp.inf, False), (jnp.nan, False)])
def test_is_finite(value: float, finite: bool) -> None:
    tree = {"a": jnp.array([0.0, value]), "count": jnp.array(3), "key": jax.random.key(0)}
    assert bool(trees.is_finite(tree)) is finite
    assert bool(trees.is_finite({"count": jnp.array(3)}))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (schedules.constant(2.0), [2.0, 2.0, 2.0, 2.0, 2.0]),
        (schedules.linear(1.0, 0.2, 4), [1.0, 0.8, 0.6, 0.4, 0.2]),
        (schedules.cosine(1.0, 0.0, 2), [1.0, 0.5, 0.0, 0.0, 0.0]),
        (schedules.piecewise([1, 3], [1.0, 0.0]), [1.0, 1.0, 0.5, 0.0, 0.0]),
        (schedules.piecewise([2], [0.5]), [0.5, 0.5, 0.5, 0.5, 0.5]),
        (schedules.warm_up(schedules.linear(4.0, 0.0, 2), 2), [2.0, 4.0, 4.0, 2.0, 0.0]),
        (schedules.warm_up(schedules.linear(4.0, 0.0, 2), 0), [4.0, 2.0, 0.0, 0.0, 0.0]),
    ],
)
def test_schedules_by_hand(schedule: schedules.Schedule, expected: list[float]) -> None:
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.arange(5)), expected, atol=1e-6)


def test_the_largest_count_is_no_beginning() -> None:
    """At a saturated count, 2^31 - 1, the step size is that of the end, not 0."""
    last = jnp.int32(2**31 - 1)
    for steps in (0, 5):
        assert float(schedules.warm_up(schedules.constant(0.25), steps)(last)) == 0.25
        assert float(schedules.warm_up(schedules.linear(4.0, 0.5, 100), steps)(last)) == 0.5
    np.testing.assert_allclose(schedules.linear(1.0, 0.0, 2e9)(jnp.int32(1_500_000_000)), 0.25, rtol=1e-6)


def test_schedules_take_traced_numbers() -> None:
    def value(start: jax.Array, steps: jax.Array) -> jax.Array:
        return schedules.warm_up(schedules.linear(start, 0.0, steps), steps)(jnp.array(3))

    got = jax.jit(jax.vmap(value))(jnp.array([1.0, 2.0]), jnp.array([2, 4]))
    np.testing.assert_allclose(got, [0.5, 2.0])  # count 3: one step of two into the fall; the rise is at its end


def test_linear_ends_exactly() -> None:
    schedule = schedules.linear(1.0, 0.1, 3)
    assert float(schedule(jnp.array(3))) == float(jnp.float32(0.1)) == float(schedule(jnp.array(1000)))
