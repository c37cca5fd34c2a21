"""Every intervention on every built-in network works, or is refused as the page of networks says."""

import functools
import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from method_cases import acting_soon
from network_cases import SMALL
from network_table import Life, cell, life

from plasticity.interventions import INTERVENTIONS

SOON = {
    ("residual_mlp", "layer_norm"),
    ("simba", "redo"),
    ("simba_v2", "weight_norm"),
    ("vit", "continual_backprop"),
    ("vit", "crelu"),
    ("gru", "continual_backprop"),
    ("rtu", "cpr"),
}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in SOON else pytest.mark.slow)
    for pair in ((network, method) for network in SMALL for method in INTERVENTIONS)
]
QUICK = ("simba",)
ALONE = [("mlp", "redo"), ("simba", "redo"), ("vit", "continual_backprop"), ("rtu", "cpr")]
DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.append(str(DOCS))
network_page = importlib.import_module("network_page")
KEYS = jax.random.split(jax.random.key(0), 3)


def lived(network: str, *methods) -> tuple[Life, Life]:
    """Two lanes, then the first of them beside another one, from one program."""
    both = jax.jit(jax.vmap(life(network, *methods)))
    return jax.device_get((both(KEYS[np.array([0, 1])]), both(KEYS[np.array([0, 2])])))


@functools.cache
def undisturbed(network: str) -> Life:
    return lived(network)[0]


def differs(a, b) -> bool:
    """By more than another program's rounding, or in the shape of the parameters."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    if [x.shape for x in a] != [x.shape for x in b]:
        return True
    return any(not np.allclose(x, y, rtol=1e-4, atol=1e-6) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("network", "method"), PAIRS)
def test_a_method_works_on_a_network_or_is_refused(network, method):
    """It changes the numbers, all stay finite, and a lane does not depend on its neighbour."""
    found = cell(network, method)
    if not found.works:
        assert found.why.startswith((method, "agent.network: has memory"))
        return
    first, second = lived(network, acting_soon(method, **found.settings)())
    assert first.finite.all()
    assert second.finite.all()
    assert differs(first, undisturbed(network)), "without effect"
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    assert differs(first.losses[1], second.losses[1])


@pytest.mark.slow
@pytest.mark.parametrize(("network", "method"), ALONE)
def test_a_lane_alone_equals_the_lane_among_others(network, method):
    # With Adam's usual eps, a gradient that is zero but for rounding makes a step of full length in either direction.
    made = life(network, acting_soon(method)(), eps=1e-3)
    alone, among = jax.jit(made)(KEYS[0]), jax.jit(jax.vmap(made))(KEYS)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(among), strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SMALL]
)
def test_the_page_of_networks_says_so(network):
    page = (DOCS / "networks.md").read_text(encoding="utf-8")
    written = network_page.written(page)
    for method in INTERVENTIONS:
        found = cell(network, method)
        assert written[network, method].startswith("yes" if found.works else "no"), method
        assert network_page.entry(found, method) in page
