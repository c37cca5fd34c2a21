import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Activation
from plasticity.monitors import (
    approximate_rank,
    effective_rank,
    feature_norm,
    feature_rank,
    numerical_rank,
    participation_ratio,
    srank,
    stable_rank,
)
from plasticity.monitors.representation import singular_values

FACTORIES = (effective_rank, srank, approximate_rank, feature_rank, numerical_rank, stable_rank, participation_ratio)
SCALE_FREE = tuple(factory for factory in FACTORIES if factory is not feature_rank)


@pytest.fixture(scope="module")
def ranks(probes):
    """Features [n, d] -> all ranks, jitted."""

    @jax.jit
    def all_ranks(features):
        probe = probes.written({"hidden_0": features})
        found = {}
        for factory in FACTORIES:
            found |= factory().measure(jax.random.key(0), (), probe)[1]
        return found

    def of(features):
        found = all_ranks(jnp.asarray(features, jnp.float32))
        return {k: float(v) for k, v in found.items() if not k.endswith("/samples_below_features")}

    return of


def with_spectrum(spectrum, samples, features, seed=0):
    """A matrix [samples, features] with these singular values, float64."""
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(samples, samples)))[0][:, : len(spectrum)]
    v = np.linalg.qr(rng.normal(size=(features, features)))[0][:, : len(spectrum)]
    return (u * np.asarray(spectrum, np.float64)) @ v.T


def reference(spectrum, samples, features):
    """The table of definitions in NumPy, float64."""
    s = np.sort(np.asarray(spectrum, np.float64))[::-1]
    p = s[s > 0] / s.sum()
    heads, heads2 = np.cumsum(s) / s.sum(), np.cumsum(s**2) / np.sum(s**2)
    return {
        "effective_rank": np.exp(-np.sum(p * np.log(p))),
        "srank": 1 + np.argmax(heads >= 0.99),
        "approximate_rank": 1 + np.argmax(heads2 >= 0.99),
        "feature_rank": np.sum(s / np.sqrt(samples) > 0.01),
        "numerical_rank": np.sum(s > s[0] * max(samples, features) * np.finfo(np.float32).eps),
        "stable_rank": np.sum(s**2) / s[0] ** 2,
        "participation_ratio": np.sum(s**2) ** 2 / np.sum(s**4),
    }


def test_identity_has_full_rank(ranks):
    found = ranks(np.eye(50))
    assert found == pytest.approx(dict.fromkeys(found, 50), rel=1e-5)


def test_rank_one(ranks):
    found = ranks(np.outer(np.arange(1, 31), np.arange(1, 21)))
    assert found == pytest.approx(dict.fromkeys(found, 1), rel=1e-4)


def test_equal_singular_values_count_themselves_with_fewer_samples_than_features(ranks):
    found = ranks(with_spectrum([3.0] * 5, samples=6, features=40))
    assert found == pytest.approx(dict.fromkeys(found, 5), rel=1e-4)


def test_a_wide_spectrum_by_hand(ranks):
    """Singular values 8, 1, 1: sum 10, squares 66, fourth powers 4098."""
    found = ranks(with_spectrum([8, 1, 1], 7, 5))
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    assert found["effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-5)
    assert found["srank"] == 3
    assert found["approximate_rank"] == 3  # 64/66 and 65/66 are below 0.99
    assert found["stable_rank"] == pytest.approx(66 / 64, rel=1e-5)
    assert found["participation_ratio"] == pytest.approx(66**2 / 4098, rel=1e-5)
    assert found["numerical_rank"] == 3


def test_the_stable_rank_is_not_srank(ranks):
    found = ranks(np.diag(1.0 / np.arange(1, 33)))
    assert found["stable_rank"] < 2
    assert found["srank"] > 25


@pytest.mark.parametrize(("samples", "features"), [(40, 12), (12, 40)])
@pytest.mark.parametrize("decay", [0.0, 0.3, 1.5])
def test_against_numpy(ranks, samples, features, decay):
    spectrum = 5 * np.exp(-decay * np.arange(12))
    expected = reference(spectrum, samples, features)
    assert ranks(with_spectrum(spectrum, samples, features)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("centred", [False, True])
def test_a_random_matrix_and_its_centred_form_against_numpys_svd(probes, centred):
    matrix = np.random.default_rng(5).normal(size=(9, 6)) * 3.0 ** -np.arange(6) + 2.0
    compared = matrix - matrix.mean(axis=0) if centred else matrix
    expected = reference(np.linalg.svd(compared, compute_uv=False), 9, 6)
    probe, found = probes.written({"hidden_0": jnp.asarray(matrix, jnp.float32)}), {}
    for factory in FACTORIES:
        found |= factory(centred=centred).measure(jax.random.key(0), (), probe)[1]
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-3)


def test_srank_meets_the_threshold_exactly_where_the_definition_does(probes):
    """For 100 equal values the first 99 hold 0.99 of the sum."""
    probe = probes.written({"hidden_0": jnp.eye(100)})
    assert probes.measured(srank(), probe)["srank"] == 99
    assert probes.measured(srank(delta=0.5), probe)["srank"] == 50
    assert probes.measured(srank(delta=0.0), probe)["srank"] == 100


def test_the_order_of_the_ranks(probes):
    rng = np.random.default_rng(1)
    spectra = [np.exp(-rng.exponential(rng.uniform(0.01, 3), size=8)) for _ in range(150)]
    matrices = jnp.asarray(np.stack([with_spectrum(s, 10, 8, i) for i, s in enumerate(spectra)]), jnp.float32)

    @jax.jit
    @jax.vmap
    def all_ranks(features):
        probe = probes.written({"hidden_0": features})
        parts = [factory().measure(jax.random.key(0), (), probe)[1] for factory in FACTORIES]
        return {name: value for part in parts for name, value in part.items()}

    found = {name: np.asarray(value, np.float64) for name, value in all_ranks(matrices).items()}
    slack = 1 + 1e-5
    assert (found["stable_rank"] <= slack * found["participation_ratio"]).all()
    assert (found["participation_ratio"] <= slack * found["effective_rank"]).all()
    assert (found["effective_rank"] <= slack * found["numerical_rank"]).all()
    assert (found["approximate_rank"] <= found["srank"]).all()
    assert np.ptp(found["srank"]) > 1


@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e12])
def test_all_but_the_feature_rank_are_scale_free(ranks, scale):
    features = np.random.default_rng(2).normal(size=(9, 6))
    before, after = ranks(features), ranks(scale * features)
    for factory in SCALE_FREE:
        assert after[factory.__name__] == pytest.approx(before[factory.__name__], rel=1e-4)


def test_the_feature_rank_depends_on_the_scale_and_the_number_of_samples(probes):
    """Singular values 1 and 0.1 on 4 samples: 0.5 and 0.05 after division by sqrt(n)."""
    features = jnp.zeros((4, 2)).at[0, 0].set(1.0).at[1, 1].set(0.1)
    probe = probes.written({"hidden_0": features})
    for epsilon, expected in [(0.01, 2), (0.06, 1), (0.4, 1), (0.6, 0)]:
        assert probes.measured(feature_rank(epsilon=epsilon), probe)["feature_rank"] == expected


def test_zero_features_have_rank_zero(ranks):
    found = ranks(np.zeros((5, 7)))
    assert found == dict.fromkeys(found, 0)


def test_features_that_are_not_finite_have_no_rank(ranks):
    found = ranks(np.full((5, 7), np.nan))
    assert all(np.isnan(value) for value in found.values())
    assert all(np.isnan(value) for value in ranks(np.full((5, 7), np.inf)).values())


def test_centring_removes_the_mean_feature(probes):
    rows = jnp.tile(jnp.asarray([[3.0, 1.0, 2.0]]), (6, 1))
    varied = rows.at[0, 0].add(1.0)  # centred: one direction
    assert probes.measured(stable_rank(), probes.written({"hidden_0": rows}))["stable_rank"] == pytest.approx(1)
    assert probes.measured(numerical_rank(centred=True), probes.written({"hidden_0": rows}))["numerical_rank"] == 0
    assert probes.measured(numerical_rank(), probes.written({"hidden_0": varied}))["numerical_rank"] == 2
    assert probes.measured(numerical_rank(centred=True), probes.written({"hidden_0": varied}))["numerical_rank"] == 1


def test_small_singular_values_survive(probes):
    """What the eigenvalues of a float32 Gram matrix would lose: 1e-5 of the largest."""
    found = singular_values(jnp.asarray(with_spectrum([1.0, 1e-5], 30, 20), jnp.float32))
    assert float(found[1]) == pytest.approx(1e-5, rel=1e-2)
    assert float(found[2]) < 1e-6


def test_a_map_is_flattened(probes):
    """[2 samples, 2, 2, 1]: two independent maps."""
    maps = jnp.zeros((2, 2, 2, 1)).at[0, 0, 0, 0].set(1.0).at[1, 1, 1, 0].set(1.0)
    found = probes.measured(effective_rank(), probes.written({"hidden_0": maps}))
    assert found == pytest.approx({"effective_rank": 2, "effective_rank/samples_below_features": 1})


def test_fewer_samples_than_features_are_flagged(probes):
    """2 samples of 2 features are enough; of 3 features they are not, and a diverged layer has no flag."""
    layers = {"hidden_0": jnp.ones((2, 3)), "hidden_1": jnp.ones((2, 2)), "hidden_2": jnp.full((2, 3), jnp.nan)}
    found = probes.measured(srank(layer="all"), probes.written(layers))
    flags = {name: value for name, value in found.items() if name.endswith("/samples_below_features")}
    assert flags.pop("srank/hidden_0/samples_below_features") == 1
    assert np.isnan(flags.pop("srank/hidden_2/samples_below_features"))
    assert flags == {}


def test_the_length_of_the_features_by_hand(probes):
    """Rows 3-4-0 and 0-0-1 before, 0-4-0 and 0-0-1 behind the non-linearity, in the last layer."""
    pre, post = jnp.asarray([[-3.0, 4, 0], [0, 0, 1]]), jnp.asarray([[0.0, 4, 0], [0, 0, 1]])
    probe = probes.written({"hidden_0": jnp.full((2, 2, 1, 1), 2.0), "hidden_1": Activation(pre, post)})
    expected = {
        "feature_norm": 2.5,
        "feature_norm/pre": 3,
        "feature_norm/hidden_1": 2.5,
        "feature_norm/hidden_1/pre": 3,
        "feature_norm/hidden_1/pre_mean": 1 / 3,
        "feature_norm/hidden_1/pre_std": np.sqrt(26 / 6 - 1 / 9),
        "feature_norm/hidden_0": np.sqrt(8),
        "feature_norm/hidden_0/pre": np.sqrt(8),
        "feature_norm/hidden_0/pre_mean": 2,
        "feature_norm/hidden_0/pre_std": 0,
    }
    assert probes.measured(feature_norm(), probe) == pytest.approx(expected)


def test_the_length_of_features_that_are_not_finite(probes):
    found = probes.measured(feature_norm(), probes.written({"hidden_0": jnp.full((2, 2), jnp.nan)}))
    assert np.isnan(list(found.values())).all()
    assert probes.measured(feature_norm(), probes.written({})) == {}


def test_layers_by_name(probes):
    """hidden_10 comes after hidden_2, whatever the mapping's order."""
    probe = probes.written({f"hidden_{i}": jnp.eye(i + 1) for i in (0, 2, 3, 10)})
    probe = probe._replace(activations=dict(sorted(probe.activations.items())))
    assert probes.measured(stable_rank(), probe) == pytest.approx({"stable_rank": 11})
    assert probes.measured(stable_rank(layer="hidden_3"), probe) == pytest.approx({"stable_rank": 4})
    expected = {f"stable_rank/hidden_{i}": i + 1 for i in (0, 2, 3, 10)}
    assert probes.measured(stable_rank(layer="all"), probe) == pytest.approx(expected)


def test_an_unknown_layer_lists_the_known_ones(probes):
    probe = probes.written({"hidden_0": jnp.eye(2), "hidden_1": jnp.eye(2)})
    with pytest.raises(
        ValueError, match=r"srank: layer: .middle. is not allowed; must be last, all or one of hidden_0, hidden_1"
    ):
        probes.measured(srank(layer="middle"), probe)
