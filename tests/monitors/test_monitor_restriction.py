"""Monitors on some of the parts of joined networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Clock, Learner, Network, Optimizer, Probe
from plasticity.monitors import MONITORS
from plasticity.monitors.parameters import effective_learning_rate, weight_norm
from plasticity.monitors.representation import effective_rank
from plasticity.monitors.restriction import restricted
from plasticity.networks.build import build, join
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.eligibility import parts
from plasticity.optim.optimizers import adam

NAMES = ("actor", "critic_1", "critic_2")
SPEC = NetworkSpec((5,), 3, widths=(6, 4), activation="tanh", normalisation="layer")
KEY = jax.random.key(2)
SMALL: dict[str, dict[str, Any]] = {
    "gradient_covariance": {"k": 4},
    "ntk": {"k": 4},
    "plasticity_probe": {"steps": 3, "targets": 2, "frequency": 10.0},
    "capacity": {"batch": 2},
    "warm_start_gap": {"steps": 3},
}
SOON = ("effective_rank", "dormant_units", "gradient_norm", "second_moment", "plasticity_probe", "churn")


def optimizer(names: tuple[str, ...], shared: bool) -> Optimizer:
    rate = 0.25
    return adam(learning_rate=rate) if shared else parts({name: adam(learning_rate=rate) for name in names})


def probe_of(network: Network, rule: Optimizer) -> Probe:
    """Of a loss and scores that depend on the actor alone, after one update."""
    inputs = jax.random.normal(jax.random.key(1), (7, 5))

    def outputs(params: Any, seen: Any) -> Any:
        return network.forward(params, seen)[0]["actor"]

    def losses(params: Any) -> Any:
        return jnp.mean((outputs(params, inputs) - 1.0) ** 2, axis=-1)

    def loss(params: Any) -> Any:
        return jnp.mean(losses(params))

    def fresh(key: Any) -> Learner:
        params = network.init(key)
        return Learner(params, params, rule.init(params))

    learner = fresh(jax.random.key(0))
    opt_state = rule.update(jax.grad(loss)(learner.params), learner.opt_state, learner.params)[1]
    zero = jnp.zeros((), jnp.int32)
    return Probe(
        learner=learner._replace(opt_state=opt_state),
        network=network,
        optimizer=rule,
        activations=network.forward(learner.params, inputs)[1],
        loss=loss,
        clock=Clock(zero, zero, zero, zero),
        observation=inputs,
        losses=losses,
        valid=jnp.ones(7, bool),
        scores=outputs,
        meaning="logits",
        fresh=fresh,
    )


def joined(names: tuple[str, ...] = NAMES) -> Network:
    return join({name: build(SPEC) for name in names})


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in SOON else pytest.mark.slow) for each in MONITORS]
)
def test_measures_the_part_as_if_it_were_the_network(name: str, shared: bool) -> None:
    monitor = MONITORS[name](**SMALL.get(name, {}))

    def measured(network: Network, monitor: Any, names: tuple[str, ...]) -> Any:
        probe = probe_of(network, optimizer(names, shared))
        before = jax.tree.map(lambda x: x + 0.1, probe.learner.params)
        return monitor.measure(KEY, monitor.init(before), probe)[1]

    found = measured(joined(), restricted(monitor, ["actor"]), NAMES)
    alone = measured(joined(("actor",)), monitor, ("actor",))
    assert {key.removeprefix("actor_") for key in found} == set(alone)
    for key, value in alone.items():
        np.testing.assert_allclose(found[f"actor_{key}"], value, rtol=1e-5, atol=1e-7, err_msg=key)


def test_weight_norm_of_the_critics_by_hand() -> None:
    probe = probe_of(joined(), optimizer(NAMES, shared=True))
    found = restricted(weight_norm(), ["critic"]).measure(KEY, (), probe)[1]
    kernels = [np.asarray(module["kernel"]) for name in NAMES[1:] for module in probe.learner.params[name].values()]
    np.testing.assert_allclose(found["critic_weight_norm"], np.sqrt(sum((k**2).sum() for k in kernels)), rtol=1e-6)
    last = probe.learner.params["critic_2"]["output"]["kernel"]
    np.testing.assert_allclose(found["critic_weight_norm/critic_2/output"], np.linalg.norm(last), rtol=1e-6)
    assert not [name for name in found if "actor" in name]


def test_effective_rank_of_a_critic_by_hand() -> None:
    """The exponential of the entropy of the singular values of its last features."""
    probe = probe_of(joined(), optimizer(NAMES, shared=True))
    found = restricted(effective_rank(), ["critic_1"]).measure(KEY, (), probe)[1]
    values = np.linalg.svd(np.asarray(probe.activations["critic_1/hidden_1"].post), compute_uv=False)
    shares = values / values.sum()
    np.testing.assert_allclose(found["critic_1_effective_rank"], np.exp(-(shares * np.log(shares)).sum()), rtol=1e-4)


def test_the_step_size_is_that_of_the_part() -> None:
    rule = parts({name: adam(learning_rate=rate) for name, rate in zip(NAMES, (0.1, 0.3, 0.3), strict=True)})
    probe = probe_of(joined(), rule)
    found = restricted(effective_learning_rate(), ["critic"]).measure(KEY, (), probe)[1]
    norms = [np.linalg.norm(probe.learner.params[name][f"hidden_{i}"]["kernel"]) for name in NAMES[1:] for i in (0, 1)]
    np.testing.assert_allclose(found["critic_effective_learning_rate"], np.mean([0.3 / n for n in norms]), rtol=1e-5)


def test_ranges_have_the_names_of_the_metrics() -> None:
    assert restricted(effective_rank(), ["actor"]).ranges == {"actor_effective_rank": (0.0, np.inf)}


@pytest.mark.parametrize(
    ("network", "words"),
    [(joined(), '"actr" is not allowed; must be a list of: actor'), (join({}), "network has no parts")],
)
def test_unknown_parts(network: Network, words: str) -> None:
    probe = probe_of(joined(), optimizer(NAMES, shared=True))._replace(network=network)
    with pytest.raises(ValueError, match=words):
        restricted(weight_norm(), ["actr"]).measure(KEY, (), probe)
