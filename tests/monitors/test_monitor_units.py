import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.errors import shown
from plasticity.core.types import Activation
from plasticity.monitors import (
    activation_sparsity,
    constant_units,
    dead_units,
    dormant_units,
    linearised_units,
    saturated_units,
)

FACTORIES = (dormant_units, dead_units, constant_units, activation_sparsity, linearised_units, saturated_units)


def test_dormant_by_hand(probes):
    """Mean sizes 0, 0.1, 1.9, 2 and mean 1: the scores are the sizes themselves."""
    post = jnp.asarray([[0.0, 0.2, -1.8, 3.0], [0.0, 0.0, 2.0, -1.0]])
    for tau, dormant in [(0.0, 1), (0.05, 1), (0.11, 2), (1.95, 3), (2.01, 4)]:
        found = probes.measured(dormant_units(tau=tau), probes.written({"hidden_0": post}))
        assert found == pytest.approx({"dormant_units": dormant / 4, "dormant_units/hidden_0": dormant / 4})


def test_a_unit_at_the_threshold_is_dormant(probes):
    post = jnp.asarray([[0.5, 1.5]])  # scores 0.5 and 1.5, exact in binary
    found = probes.measured(dormant_units(tau=0.5), probes.written({"hidden_0": post}))
    assert found["dormant_units"] == 0.5


def test_the_score_is_relative_to_its_own_layer(probes):
    """Layer 1 is a thousandth of layer 0, and not dormant; the fraction is over all five units."""
    probe = probes.written({"hidden_0": jnp.asarray([[1.0, 1.0, 0.0]]), "hidden_1": jnp.asarray([[1e-3, 1e-3]])})
    found = probes.measured(dormant_units(), probe)
    expected = {"dormant_units": 1 / 5, "dormant_units/hidden_0": 1 / 3, "dormant_units/hidden_1": 0}
    assert found == pytest.approx(expected)


def test_the_default_threshold_is_that_of_redo(probes):
    """Sizes 0.02, 0.03 and 98 ones: the mean is 0.98, the scores 0.0203 and 0.0306."""
    post = jnp.concatenate([jnp.asarray([0.02, 0.03]), jnp.ones(98)])[None]
    assert probes.measured(dormant_units(), probes.written({"hidden_0": post}))["dormant_units"] == pytest.approx(0.01)


def test_a_channel_of_a_map_is_one_unit(probes):
    """[B=2, H=2, W=1, C=3]: channel 0 fires at one position of one sample, channel 1 never, channel 2 always."""
    maps = jnp.zeros((2, 2, 1, 3)).at[1, 0, 0, 0].set(0.4).at[..., 2].set(2.0)
    probe = probes.written({"hidden_0": maps})  # mean sizes 0.1, 0, 2: mean 0.7, scores 1/7, 0, 20/7
    assert probes.measured(dormant_units(tau=0.1), probe)["dormant_units"] == pytest.approx(1 / 3)
    assert probes.measured(dormant_units(tau=0.15), probe)["dormant_units"] == pytest.approx(2 / 3)
    assert probes.measured(dead_units(), probe)["dead_units"] == pytest.approx(1 / 3)
    assert probes.measured(constant_units(), probe)["constant_units"] == pytest.approx(2 / 3)
    assert probes.measured(linearised_units(), probe)["linearised_units"] == pytest.approx(1 / 3)


def test_dead_is_zero_on_the_whole_batch(probes):
    post = jnp.asarray([[0.0, 0.0, -1.0, 1.0], [0.0, 1e-6, 1.0, 1.0]])
    found = probes.measured(dead_units(), probes.written({"hidden_0": post}))
    assert found == pytest.approx({"dead_units": 1 / 4, "dead_units/hidden_0": 1 / 4})


def test_constant_is_dead_or_saturated(probes):
    """Standard deviations 0, 0, 5e-4, 1: threshold 1e-3, in the activation's own scale."""
    post = jnp.asarray([[0.0, 1.0, 0.999, 1.0], [0.0, 1.0, 1.0, -1.0]])
    probe = probes.written({"hidden_0": post})
    assert probes.measured(constant_units(), probe)["constant_units"] == pytest.approx(3 / 4)
    assert probes.measured(constant_units(threshold=1e-4), probe)["constant_units"] == pytest.approx(2 / 4)


def test_linearised_looks_at_the_pre_activation(probes):
    pre = jnp.asarray([[0.1, 0.0, 2.0], [3.0, 1.0, -1.0]])
    found = probes.measured(linearised_units(), probes.written({"hidden_0": Activation(pre, jnp.ones((2, 3)))}))
    assert found == pytest.approx({"linearised_units": 1 / 3, "linearised_units/hidden_0": 1 / 3})


def test_the_units_of_crelu_are_the_channels_of_what_is_looked_at(probes):
    """Two pre-activations, always positive and always negative: of the four channels two are dead."""
    pre = jnp.asarray([[1.0, -1.0], [2.0, -2.0]])
    post = jnp.concatenate([jnp.maximum(pre, 0), jnp.maximum(-pre, 0)], axis=-1)
    probe = probes.written({"hidden_0": Activation(pre, post)})
    assert probes.measured(dead_units(), probe)["dead_units"] == pytest.approx(2 / 4)
    assert probes.measured(linearised_units(), probe)["linearised_units"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(("factory", "expected"), list(zip(FACTORIES, (1, 1, 1, 1, 0, 0), strict=True)))
def test_a_layer_of_zeros(probes, factory, expected):
    found = probes.measured(factory(), probes.written({"hidden_0": jnp.zeros((4, 3))}))
    assert set(found.values()) == {expected}


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_layer_has_no_fraction_and_the_others_keep_theirs(probes, factory, bad):
    """Comparisons with NaN are False, so a diverged network could look healthy."""
    probe = probes.written({"hidden_0": jnp.ones((4, 3)), "hidden_1": jnp.ones((4, 3)).at[1, 2].set(bad)})
    found = probes.measured(factory(), probe)
    name = factory.__name__
    assert np.isfinite(found[f"{name}/hidden_0"])
    assert np.isnan(found[f"{name}/hidden_1"])
    assert np.isnan(found[name])


def test_a_network_without_hidden_layers_has_no_fraction(probes):
    assert probes.measured(dead_units(), probes.written({})) == {}


def test_further_thresholds_of_dormancy(probes):
    """Mean sizes 0, 0.1, 1.9, 2 and mean 1, in two layers of which the second has no dormant unit."""
    probe = probes.written({"hidden_0": jnp.asarray([[0.0, 0.1, 1.9, 2.0]]), "hidden_1": jnp.ones((1, 4))})
    found = probes.measured(dormant_units(taus=(0, 0.11, 1.0)), probe)
    expected = {"dormant_units/tau_0": 1 / 8, "dormant_units/tau_0.11": 2 / 8, "dormant_units/tau_1": 6 / 8}
    headline = {"dormant_units": 1 / 8, "dormant_units/hidden_0": 1 / 4, "dormant_units/hidden_1": 0}
    assert found == pytest.approx(expected | headline)
    assert probes.measured(dormant_units(taus=(0.1,)), probes.written({})) == {}


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_thresholds_outside_the_range_are_refused(bad):
    with pytest.raises(ValueError, match=rf"dormant_units: taus: {shown(bad)} is not allowed; must be in \[0, 1\]"):
        dormant_units(taus=(0.1, bad))


def test_a_threshold_given_twice_is_refused(probes):
    with pytest.raises(ValueError, match=r"dormant_units: taus must be distinct, got 0\.1, 0\.5, 0\.1"):
        probes.measured(dormant_units(taus=(0.1, 0.5, 0.1)), probes.written({"hidden_0": jnp.ones((1, 2))}))


def test_saturated_by_hand(probes):
    """At one end, at both ends, at neither, at the end but once; the threshold itself is not above the threshold."""
    post = jnp.asarray([[0.999, -0.995, 0.1, 1.0, 0.75], [0.995, 0.999, -0.2, 0.5, 0.75]])
    probe = probes.written({"hidden_0": post})
    assert probes.measured(saturated_units(), probe) == pytest.approx(
        {"saturated_units": 2 / 5, "saturated_units/hidden_0": 2 / 5}
    )
    assert probes.measured(saturated_units(threshold=0.75), probe)["saturated_units"] == pytest.approx(2 / 5)
    assert probes.measured(saturated_units(threshold=0.4), probe)["saturated_units"] == pytest.approx(4 / 5)


def test_a_channel_is_saturated_where_all_its_positions_are(probes):
    maps = jnp.ones((2, 2, 1, 3)).at[1, 0, 0, 0].set(0.4).at[0, 1, 0, 1].set(-1.0)
    found = probes.measured(saturated_units(), probes.written({"hidden_0": maps}))
    assert found["saturated_units"] == pytest.approx(2 / 3)


def test_sparsity_counts_entries(probes):
    """No unit is dead; 2 of 4 entries of the dense layer and 1 of 12 of the map are zero."""
    maps = jnp.ones((2, 2, 1, 3)).at[1, 0, 0, 0].set(0.0).at[0, 0, 0, 0].set(-0.005)
    probe = probes.written({"hidden_0": maps, "hidden_1": jnp.asarray([[0.0, 1.0], [2.0, 0.0]])})
    found = probes.measured(activation_sparsity(), probe)
    expected = {"": 3 / 16, "/hidden_0": 1 / 12, "/hidden_1": 2 / 4}
    assert found == pytest.approx({f"activation_sparsity{name}": value for name, value in expected.items()})
    assert probes.measured(activation_sparsity(threshold=0.01), probe)["activation_sparsity"] == pytest.approx(4 / 16)
    assert probes.measured(dead_units(), probe)["dead_units"] == 0
