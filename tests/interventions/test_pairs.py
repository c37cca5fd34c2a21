"""Any two interventions compose; a table lists the pairs whose order matters; it is computed and compared.

``python tests/interventions/test_pairs.py`` prints the table.
"""

import functools
import inspect
import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from method_cases import SIZES
from update_loop import MLP, Loop, Run, batch_at, make, train

from plasticity.core.types import Learner, Optimizer
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention, clashes, compose
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(11)
MEMBERS = sorted(INTERVENTIONS)
UPDATES = 20
DRAWS = range(4)  # a redrawn weight exceeds a clip's bound in some draws and not in others
ROUNDING = 1e-5
STAGES = ("network", "optimizer", "gradient", "step", "prepare", "acting")  # penalties only add up
INTRUSIVE = ("reset", "continual_backprop")  # they rewrite the most, and slots too
# For each method those later in the alphabet with which the order matters, on one worn learner at an update at which
# every period is due. Networks, penalties and all other pairs commute there. With hare and tortoise, NaP, CPR and
# continual backpropagation the order shifts what is remembered of a rewritten learner; between two that rewrite it, who
# has the last word; synaptic intelligence sums the changes that it sees; and before interval-wise dropout, a method
# sees its masks. Neuroplastic expansion makes what another method rewrote sparse again, modulation takes back what
# would move a frozen weight, and AltNet's other network is rewritten only by what comes after the two changed places.
ORDER_MATTERS = {
    "a_gem": "neuroplastic_expansion packnet",
    "aid": "c_chain continual_backprop cpr fire hare_tortoise neuroplastic_expansion redo regrama "
    "selective_weight_reinit self_normalized_resets soft_reset synaptic_intelligence",
    "altnet": "continual_backprop cpr fire hare_tortoise nap neuroplastic_expansion redo regrama reset "
    "selective_weight_reinit self_normalized_resets shrink_perturb spectral_regularization synaptic_intelligence "
    "weight_clip",
    "c_chain": "neuroplastic_expansion soft_reset",
    "continual_backprop": "cpr fire hare_tortoise nap neuroplastic_expansion redo regrama reset "
    "selective_weight_reinit shrink_perturb",
    "cpr": "fire hare_tortoise modulation nap neuroplastic_expansion redo regrama reset selective_weight_reinit "
    "shrink_perturb spectral_regularization synaptic_intelligence",
    "fire": "hare_tortoise modulation nap neuroplastic_expansion plasticity_injection redo regrama reset "
    "selective_weight_reinit shrink_perturb spectral_regularization synaptic_intelligence",
    "hare_tortoise": "modulation nap neuroplastic_expansion plasticity_injection redo regrama reset "
    "selective_weight_reinit self_normalized_resets shrink_perturb spectral_regularization synaptic_intelligence",
    "modulation": "neuroplastic_expansion pgd random_walk regrama selective_weight_reinit synaptic_intelligence upgd "
    "weight_decay",
    "nap": "neuroplastic_expansion redo regrama reset selective_weight_reinit shrink_perturb synaptic_intelligence",
    "neuroplastic_expansion": "redo regrama reset selective_weight_reinit self_normalized_resets shrink_perturb "
    "soft_reset spectral_regularization synaptic_intelligence",
    "pgd": "plasticity_injection random_walk upgd",
    "plasticity_injection": "random_walk upgd weight_decay",
    "random_walk": "upgd weight_decay",
    "redo": "regrama reset selective_weight_reinit self_normalized_resets shrink_perturb spectral_regularization "
    "synaptic_intelligence weight_clip",
    "regrama": "reset selective_weight_reinit self_normalized_resets shrink_perturb spectral_regularization "
    "synaptic_intelligence weight_clip",
    "reset": "selective_weight_reinit self_normalized_resets shrink_perturb spectral_regularization "
    "synaptic_intelligence weight_clip",
    "selective_weight_reinit": "self_normalized_resets shrink_perturb spectral_regularization synaptic_intelligence "
    "weight_clip",
    "self_normalized_resets": "shrink_perturb",
    "shrink_perturb": "spectral_regularization synaptic_intelligence",
    "soft_reset": "synaptic_intelligence",
    "trac": "weight_decay",
    "upgd": "weight_decay",
}
# Twenty updates are over long before optimised code would have paid for its compilation.
QUICKLY: Any = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
PAIRS = list(itertools.combinations(MEMBERS, 2))


@functools.cache
def acting_soon(name: str) -> Intervention:
    """The method with every period of its settings at two updates, inside the training loop where it has the choice."""
    known = inspect.signature(INTERVENTIONS[name]).parameters
    settings: dict[str, Any] = {key: 2 for key in known if key.endswith("period")}
    settings |= {"keep_size": False} if "keep_size" in known else {}  # the network's widths are odd
    settings |= {"proportion": 0.5} if "proportion" in known else {}  # of so few weights a hundredth is none
    settings |= SIZES.get(name, {})
    return INTERVENTIONS[name](**settings, **({"when": "periodic"} if "when" in known else {}))


def clash(first: str, second: str) -> bool:
    return clashes({first: acting_soon(first), second: acting_soon(second)}) is not None


@functools.cache
def filled(name: str) -> set[str]:
    """The stages in which the method does something."""
    method = acting_soon(name)
    return {stage for stage in STAGES if getattr(method, stage) is not getattr(Intervention(), stage)}


def life(loop: Loop, key: jax.Array) -> Run:
    run = train(loop, key, loop.init(key), UPDATES)
    run = loop.switch(key, run, jnp.int32(UPDATES))
    return run._replace(learner=run.learner._replace(rest={}))


@pytest.mark.parametrize("name", MEMBERS)
def test_composes_with_the_most_intrusive_methods(name: str) -> None:
    """Traced only: behind one of them and before another, structure, shapes and dtypes are kept."""
    loop = make(compose(*map(acting_soon, (INTRUSIVE[0], name, INTRUSIVE[1]))), adam())
    before = jax.eval_shape(loop.init, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(lambda key: life(loop, key), KEY), before)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [pair for pair in PAIRS if not clash(*pair)])
def test_any_two_live_through_twenty_updates(first: str, second: str) -> None:
    loop = make(compose(acting_soon(first), acting_soon(second)), adam(learning_rate=0.01))
    run = jax.jit(lambda key: life(loop, key)).lower(KEY).compile(compiler_options=QUICKLY)(KEY)
    chex.assert_tree_all_finite((run.state, run.learner))


@functools.cache
def stage_of(stage: str, name: str, spec: NetworkSpec, wrapped: tuple[str, ...]) -> Any:
    """One stage of one method, compiled once and used in many pairs: key, state, learner -> state, learner."""
    loop = make(Intervention(), rule_of(wrapped), spec)
    method = acting_soon(name)
    inputs, targets = batch_at(spec, jnp.int32(1))

    def loss(params: Any) -> Any:
        outputs, activations = loop.network.forward(params, inputs)
        return jnp.mean((outputs - targets) ** 2), activations

    def run(key: jax.Array, state: Any, learner: Learner) -> Any:
        gradients, activations = jax.grad(loss, has_aux=True)(learner.params)
        facts = loop.context(jnp.int32(1))._replace(  # of the second update: whatever has a period is due
            observation=inputs, loss=lambda params: loss(params)[0], reference=lambda: inputs[::-1] / 2
        )
        if stage == "step":
            facts = facts._replace(activations=activations, gradients=gradients, learn=lambda key, other: other)
        return getattr(method, stage)(key, state, learner, facts)

    return jax.jit(run)


def rule_of(names: Iterable[str]) -> Optimizer:
    rule = adam(learning_rate=0.01)
    for name in names:
        rule = acting_soon(name).optimizer(rule)
    return rule


@functools.cache
def worn(spec: NetworkSpec, wrapped: tuple[str, ...]) -> tuple[Any, Learner]:
    """The parameters a learner began with, and a learner whose slots are in use, far from them."""
    rule = rule_of(wrapped)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(build(spec).init, KEY)
    first, now, step = (
        jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), shapes) for _ in range(3)
    )
    _, state = rule.update(step, rule.init(now), now, key=KEY, network=build(spec))
    return first, Learner(now, now, state)


def rewritten(order: Sequence[str]) -> NetworkSpec:
    method = compose(*map(acting_soon, order))
    return method.network(replace(MLP, task_entries=2) if method.reads_task else MLP)


def outcome(stage: str, order: Sequence[str], draw: int) -> Any:
    """What the methods leave in this order, their states by name; each has its own key, whatever its position."""
    spec = rewritten(sorted(order))
    wrapped = tuple(sorted(name for name in order if "optimizer" in filled(name)))
    first, learner = worn(spec, wrapped)
    keys = {name: jax.random.fold_in(jax.random.key(draw), zlib.crc32(name.encode())) for name in order}
    network = build(spec)
    context = make(Intervention(), rule_of(wrapped), spec).context(jnp.int32(0))
    states = {name: acting_soon(name).init(keys[name], first, network) for name in order}
    states = {name: acting_soon(name).start(keys[name], states[name], learner, context) for name in order}
    for name in order:
        states[name], learner = stage_of(stage, name, spec, wrapped)(keys[name], states[name], learner)
    return states, learner


def path_of(order: Sequence[str]) -> Any:
    """The parameters after three steps of a given gradient with the optimizer wrapped in this order."""
    spec = rewritten(sorted(order))
    first, learner = worn(spec, ())
    rule, params, network = rule_of(order), learner.params, build(spec)
    state = rule.init(params)
    for number in range(3):
        updates, state = rule.update(first, state, params, key=jax.random.fold_in(KEY, number), network=network)
        params = optax.apply_updates(params, updates)
    return params


def differ(a: Any, b: Any) -> bool:
    """More than by rounding."""
    plain = [jax.tree.leaves(jax.tree.map(as_numbers, tree)) for tree in (a, b)]
    return any(not np.allclose(x, y, rtol=ROUNDING, atol=ROUNDING) for x, y in zip(*plain, strict=True))


def as_numbers(x: jax.Array) -> Any:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def order_matters(first: str, second: str) -> bool:
    both = filled(first) & filled(second)
    orders = ((first, second), (second, first))
    specs = [rewritten(order) for order in orders]
    if specs[0] != specs[1] or both & {"acting", "gradient"}:
        return True
    if "optimizer" in both and differ(*map(path_of, orders)):
        return True
    stages = sorted(both & {"step", "prepare"})
    return any(differ(*(outcome(stage, order, draw) for order in orders)) for stage in stages for draw in DRAWS)


def table() -> dict[str, list[str]]:
    """For each method, the alphabetically later ones with which it does not commute."""
    found: dict[str, list[str]] = {name: [] for name in MEMBERS}
    for first, second in PAIRS:
        if not clash(first, second) and order_matters(first, second):
            found[first].append(second)
    return {name: others for name, others in found.items() if others}


@pytest.mark.slow
def test_the_pairs_for_which_order_matters() -> None:
    assert table() == {name: others.split() for name, others in ORDER_MATTERS.items()}


def test_order_matters_where_it_must_and_not_elsewhere() -> None:
    """Methods of different stages commute; TRAC scales the decay if it comes after it."""
    assert not order_matters("l2", "layer_norm")
    assert not order_matters("weight_clip", "weight_decay")
    assert order_matters("trac", "weight_decay")


if __name__ == "__main__":
    print("\n".join(f'    "{name}": "{" ".join(others)}",' for name, others in table().items()))
