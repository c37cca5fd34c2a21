"""Which weights are redrawn, against NumPy sorts, and from which distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import MLP, make

from plasticity.core.types import Learner
from plasticity.interventions import selective_weight_reinit
from plasticity.interventions.weights import kernels_of, lowest
from plasticity.networks.build import build
from plasticity.networks.graph import Node
from plasticity.networks.operations import Recurrent
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(8)
FRESH = 7.0
RNG = np.random.default_rng(0)
SHAPES = {"hidden_0": (3, 5), "hidden_1": (5, 4), "output": (4, 2)}


def made() -> Any:
    return {
        name: {"kernel": RNG.normal(size=shape).astype(np.float32), "bias": np.ones(shape[-1], np.float32)}
        for name, shape in SHAPES.items()
    }


WEIGHTS, GRADIENTS = made(), made()


def stepped(update: int = 0, **settings: Any) -> Learner:
    """The learner after one step, with all slots 2 before it and all fresh values 7."""
    method = selective_weight_reinit(**{"period": 1, **settings})
    loop = make(method, adam(), MLP)
    slots = jax.tree.map(lambda x: np.full(x.shape, 2, x.dtype), jax.eval_shape(loop.optimizer.init, WEIGHTS))
    learner = Learner(jax.tree.map(lambda x: np.full_like(x, FRESH), WEIGHTS), (), slots)
    facts = loop.context(update)._replace(gradients=GRADIENTS, fresh=lambda key: learner)
    _, learner = method.step(KEY, (), Learner(WEIGHTS, (), slots), facts)
    return learner


def marked(learner: Learner) -> dict[str, np.ndarray]:
    """Where weights are new; every other one is as it was, and so are biases."""
    found = {name: np.asarray(learner.params[name]["kernel"]) == FRESH for name in SHAPES}
    for name, mask in found.items():
        np.testing.assert_array_equal(np.asarray(learner.params[name]["kernel"])[~mask], WEIGHTS[name]["kernel"][~mask])
        np.testing.assert_array_equal(learner.params[name]["bias"], WEIGHTS[name]["bias"])
    return found


@pytest.mark.parametrize("utility", ["gradient", "magnitude"])
def test_the_lowest_share_of_each_kernel(utility: str) -> None:
    learner = stepped(utility=utility, proportion=0.5)
    for name, mask in marked(learner).items():
        size = np.abs(WEIGHTS[name]["kernel"] * (GRADIENTS[name]["kernel"] if utility == "gradient" else 1))
        assert mask.sum() in (size.size // 2, -(-size.size // 2))  # of 15 weights 7 or 8, by chance
        assert size[mask].max() < size[~mask].min()
        for slot in (learner.opt_state.direction[1].mu, learner.opt_state.direction[1].nu):
            np.testing.assert_array_equal(slot[name]["kernel"], np.where(mask, 0.0, 2.0))
            np.testing.assert_array_equal(slot[name]["bias"], np.full(mask.shape[-1], 2.0))
    assert int(learner.opt_state.direction[1].count) == 2


def test_below_a_multiple_of_the_mean() -> None:
    for name, mask in marked(stepped(prune="threshold", threshold=0.5)).items():
        size = np.abs(WEIGHTS[name]["kernel"] * GRADIENTS[name]["kernel"])
        np.testing.assert_array_equal(mask, size <= 0.5 * size.mean())
        assert 0 < mask.sum() < mask.size


def test_at_random_and_without_slots() -> None:
    learner = stepped(utility="random", proportion=0.5, optimizer_slots=False)
    masks = marked(learner)
    assert masks["hidden_1"].sum() == 10
    assert any(np.any(masks[name] != (np.abs(WEIGHTS[name]["kernel"]) < 0.5)) for name in masks)
    assert np.all(np.asarray(learner.opt_state.direction[1].mu["hidden_1"]["kernel"]) == 2)


@pytest.mark.parametrize(
    ("layers", "names"),
    [("all", {"hidden_0", "hidden_1", "output"}), ("hidden", {"hidden_0", "hidden_1"}), (["output"], {"output"})],
)
def test_layers(layers: Any, names: set[str]) -> None:
    assert {name for name, mask in marked(stepped(layers=layers, proportion=1.0)).items() if mask.all()} == names


def test_only_at_its_period() -> None:
    assert not any(mask.any() for mask in marked(stepped(update=1, period=3, proportion=1.0)).values())
    assert all(mask.all() for mask in marked(stepped(update=2, period=3, proportion=1.0)).values())


def test_ties_and_fractions_are_left_to_chance() -> None:
    keys = jax.random.split(KEY, 400)
    masks = np.asarray(jax.jit(jax.vmap(lambda key: lowest(key, jnp.zeros((2, 5)), 0.25)))(keys))
    # 4000 draws with probability 1/4: the mean is within 4 standard deviations, each weight's within 5
    assert abs(masks.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert np.abs(masks.mean(0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_new_weights_come_from_the_network() -> None:
    method = selective_weight_reinit(proportion=1.0, utility="magnitude", period=1, layers=["hidden_0"])
    loop = make(method, adam(), NetworkSpec((50,), 2, widths=(60,)))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(loop.init, KEY).learner)
    facts = loop.context(0)._replace(gradients=zeros.params)
    kernel = np.asarray(method.step(KEY, (), zeros, facts)[1].params["hidden_0"]["kernel"])
    assert kernel.std() == pytest.approx(np.sqrt(2 / 50), rel=0.06)  # He: N(0, 2 / 50)
    assert abs(kernel.mean()) < 4 * np.sqrt(2 / 50 / kernel.size)


def test_the_whole_and_a_fraction_of_distinct_numbers() -> None:
    values = jnp.array([3.0, 1.0, 2.0, 5.0])
    find = jax.jit(jax.vmap(lambda key, share: lowest(key, values, share), (0, None)))
    keys = jax.random.split(KEY, 50)
    for share, expected in ((0.0, {(0, 0, 0, 0)}), (0.5, {(0, 1, 1, 0)}), (1.0, {(1, 1, 1, 1)})):
        assert {tuple(mask) for mask in np.asarray(find(keys, share)).astype(int).tolist()} == expected
    assert {tuple(mask) for mask in np.asarray(find(keys, 0.3)).tolist()} == {
        (False, True, False, False),
        (False, True, True, False),
    }


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match='utility: "size" is not allowed; must be one of gradient, magnitude, random'):
        selective_weight_reinit(utility="size")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='prune: "some" is not allowed; must be one of proportion, threshold'):
        selective_weight_reinit(prune="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='layers: "last" is not allowed; must be all, hidden or a list of names'):
        selective_weight_reinit(layers="last")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r'layers: "hidden_7" .* must be all, hidden, or a list of: hidden_0, hidden_1, output'
    ):
        stepped(layers=["hidden_7"])


GATES = ("reset", "update", "new")


def test_the_name_of_a_cell_selects_its_kernels() -> None:
    network = build(NetworkSpec((3,), 2, body=(Node("memory", Recurrent("gru", 4)),)))
    kernels = kernels_of(network, ["output", "memory"], "it")
    assert next(iter(kernels)) == "output"
    assert set(kernels) == {"output", *(f"memory/{a}_{b}" for a in ("input", "state") for b in GATES)}
    with pytest.raises(ValueError, match=r'layers: "memori" is not allowed; must be all.*did you mean `memory`'):
        kernels_of(network, ["memori"], "it")
