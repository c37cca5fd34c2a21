"""Permuted inputs against the images they come from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, visit_of
from sklearn.datasets import load_digits

from plasticity.envs.base import PARAMS
from plasticity.envs.permuted import permuted_inputs
from plasticity.envs.supervised import TARGETS

PIXELS, LABELS = load_digits(return_X_y=True)


def openings(**settings: Any) -> tuple[list[np.ndarray], list[Any]]:
    """Orders and first samples of a lane in tasks 0 ... 3."""
    reset = jax.jit(permuted_inputs(**settings).make(1).reset)
    found = [reset(lane_keys(0), visit_of(v), jnp.int32(0)) for v in range(4)]
    samples = [jax.tree.map(lambda leaf: np.asarray(leaf[0]), opening.observation) for _, opening in found]
    return [np.asarray(state.params.order[0]) for state, _ in found], samples


@pytest.fixture(scope="module", params=["cumulative", "fresh"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def seen(kind: str) -> tuple[list[np.ndarray], list[Any]]:
    return openings(samples=200, envs=30, permutations=kind)


def test_orders_are_those_of_a_loop(kind: str, seen: Any) -> None:
    key = jax.random.fold_in(jax.random.fold_in(lane_keys(0)[0], PARAMS), TARGETS)
    order = np.arange(64)
    np.testing.assert_array_equal(seen[0][0], order)
    for task in (1, 2, 3):
        drawn = np.asarray(jax.random.permutation(jax.random.fold_in(key, task), 64))
        order = order[drawn] if kind == "cumulative" else drawn
        np.testing.assert_array_equal(seen[0][task], order)


def test_pixels_change_places_and_labels_stay(seen: Any) -> None:
    known = (PIXELS[:200] - PIXELS[:200].mean()) / PIXELS[:200].std()
    for order, sample in zip(*seen, strict=True):
        row = np.abs(sample.input[:, None] - known[:, order]).max(-1).argmin(1)
        np.testing.assert_allclose(sample.input, known[row][:, order], atol=1e-5)
        np.testing.assert_array_equal(sample.target, LABELS[row])
    assert not np.array_equal(seen[0][1], seen[0][2])


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_a_fraction_of_the_places_moves(kind: str, fraction: float) -> None:
    """A quarter of 64 places is 16: each of them moves; against the task before, or against the first."""
    orders, _ = openings(samples=200, envs=3, permutations=kind, fraction=fraction)
    changed = []
    for task in (1, 2, 3):
        before = orders[task - 1] if kind == "cumulative" else orders[0]
        changed.append(orders[task] != before)
        np.testing.assert_array_equal(np.sort(orders[task]), np.arange(64))
        assert changed[-1].sum() == 64 * fraction
    assert not fraction or (changed[0] != changed[1]).any()


def test_images_keep_their_shape() -> None:
    source = permuted_inputs(flat=False)
    assert source.spec.observation.input.shape == (8, 8, 1)
    assert source.spec.actions == 10


def test_true_labels_are_refused_without_any() -> None:
    with pytest.raises(ValueError, match="labels: true is not allowed; must be random with gaussian inputs"):
        permuted_inputs(inputs="gaussian")
