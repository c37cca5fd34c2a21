"""Metrics are packed into one array and unpacked unchanged."""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.engine.packing import by_name, pack, unpack


def test_values_and_types_survive_bit_for_bit():
    big = np.array([2**31 - 1, -(2**31), 2**24 + 1], np.int32)  # no float32 holds these
    small = np.array([np.nan, -np.inf, 1e-42], np.float32)
    packed = jax.jit(jax.vmap(lambda a, b: pack({"count": a, "value": b})))(big, small)
    found = unpack(jax.device_get(packed))
    assert list(found) == ["count", "value"]
    for name, values in (("count", big), ("value", small)):
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_flags_and_python_numbers_become_floats_and_nothing_is_nothing():
    found = unpack(jax.device_get(jax.vmap(lambda x: pack({"flag": x > 0, "half": 0.5}))(jnp.array([1.0, -1.0]))))
    assert found["flag"].tolist() == [1.0, 0.0]
    assert found["half"].tolist() == [0.5, 0.5]
    assert unpack(jax.device_get(jax.vmap(lambda x: pack({}))(jnp.zeros(2)))) == {}


def test_traced_code_unpacks_what_a_scan_has_packed():
    def step(total: jax.Array, i: jax.Array) -> tuple[jax.Array, object]:
        return total + i, pack({"count": i, "value": jnp.float32(1) / total})

    packed = jax.lax.scan(step, jnp.int32(0), jnp.arange(3))[1]
    found = jax.jit(by_name)(packed)
    assert found["count"].dtype == jnp.int32
    assert found["count"].tolist() == [0, 1, 2]
    assert found["value"].tolist() == [np.inf, np.inf, 1.0]
