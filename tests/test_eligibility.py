"""Traces and the optimizers behind them, against loops in NumPy and by hand."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agent_cases import clock_at
from stream_reference import AdaptiveQ, Intentional, Obgd, each

from plasticity.core.types import Context, Learner, Optimizer
from plasticity.interventions import optimizer_reset, weight_decay
from plasticity.interventions.surgery import module_mask, nowhere, reset_counts, reset_slots, slot_masks
from plasticity.optim.eligibility import adaptive_obgd, adaptive_q, eligible, obgd, parts
from plasticity.optim.intentional import intentional
from plasticity.optim.optimizers import OPTIMIZERS, adam, sgd, wrap

STEPS, DECAY = 50, 0.7
ENDS = np.isin(np.arange(STEPS), (6, 7, 20, 33))


def story(seed: int = 0) -> tuple[Any, np.ndarray, Any]:
    """Gradients ``[50, ...]`` of two parameters, errors (small and large), gradients of a penalty."""
    rng = np.random.default_rng(seed)
    gradients = {"a": {"kernel": rng.normal(size=(STEPS, 3, 2))}, "b": {"bias": rng.normal(size=(STEPS, 2)) * 0.01}}
    gradients = each(
        lambda g: g * np.where(np.arange(STEPS) % 3, 0.05, 1.0).reshape(-1, *[1] * (g.ndim - 1)), gradients
    )
    errors = rng.normal(size=STEPS) * np.where(np.arange(STEPS) % 4, 0.5, 5.0)
    penalties = each(lambda g: 0.1 * rng.normal(size=g.shape), gradients)
    return gradients, errors, penalties


def start() -> Any:
    return {"a": {"kernel": np.arange(6.0).reshape(3, 2) / 6}, "b": {"bias": np.array([0.5, -0.5])}}


def lived(optimizer: Optimizer, penalise: bool = True) -> tuple[Any, Any]:
    """The parameters after each of 50 updates, and the last state."""

    def step(carry: Any, inputs: Any) -> Any:
        params, state = carry
        g, error, p, end = inputs
        extra = {"penalty": p} if penalise else {}
        updates, state = optimizer.update(
            g, state, params, td_error=error, trace_decay=jnp.float32(DECAY), trace_end=end, **extra
        )
        params = optax.apply_updates(params, updates)
        return (params, state), (params, optimizer.learning_rate(state))

    inputs = jax.tree.map(lambda x: jnp.asarray(x, bool if x.dtype == bool else jnp.float32), (*story(), ENDS))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start())
    (_, state), seen = jax.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), inputs))()
    return seen, state


def by_hand(rule: Any, penalise: bool = True) -> tuple[list[Any], list[float]]:
    gradients, errors, penalties = story()
    params, trace = start(), each(np.zeros_like, start())
    seen, rates = [], []
    for t in range(STEPS):
        g, p = (each(lambda x, t=t: x[t], tree) for tree in (gradients, penalties))
        trace = each(lambda z, g: DECAY * z + g, trace, g)
        params = rule.step(params, trace, g, errors[t], p if penalise else each(np.zeros_like, p))
        trace = each(np.zeros_like, trace) if ENDS[t] else trace
        seen.append(params)
        rates.append(rule.alpha)
    return seen, rates


class Descent:
    """Plain descent along ``-td_error z + penalty``."""

    alpha = 0.1

    def step(self, params: Any, trace: Any, gradient: Any, td_error: float, penalty: Any) -> Any:
        return each(lambda w, z, p: w - 0.1 * (p - td_error * z), params, trace, penalty)


CASES = {
    "obgd": (lambda: obgd(learning_rate=0.3, kappa=1.5), lambda: Obgd(0.3, 1.5)),
    "adaptive_obgd": (
        lambda: adaptive_obgd(learning_rate=0.8, kappa=1.5, b2=0.9),
        lambda: Obgd(0.8, 1.5, 0.9),
    ),
    "adaptive_q": (lambda: adaptive_q(learning_rate=0.02), lambda: AdaptiveQ(0.02, 0.1, DECAY)),
    "adaptive_q with a memory of its own": (
        lambda: adaptive_q(learning_rate=0.02, b2=0.99, bias_correction=True, eps=0.01),
        lambda: AdaptiveQ(0.02, 0.01, 0.99, correct=True),
    ),
    "intentional": (lambda: intentional(), lambda: Intentional(0.25, DECAY)),
    "intentional, of a policy": (
        lambda: intentional(eta=0.05, b2=0.9, clip=1.5, clip_decay=0.8, relative=True, magnitude_decay=0.9),
        lambda: Intentional(0.05, DECAY, 0.9, clip=(1.5, 0.8), relative=0.9),
    ),
    "intentional, bare": (
        lambda: intentional(eta=0.1, precondition=False, running_norm=False, adaptive_clip=False),
        lambda: Intentional(0.1, DECAY, None, running=False, clip=None),
    ),
    "sgd": (lambda: sgd(learning_rate=0.1), Descent),
}


@pytest.mark.parametrize("name", CASES)
def test_optimizers_agree_with_numpy(name):
    make, reference = CASES[name]
    rule = reference()
    expected, rates = by_hand(rule)
    (params, steps), _ = lived(eligible(make()))
    for t in range(STEPS):
        each(lambda mine, theirs, t=t: np.testing.assert_allclose(mine[t], theirs, atol=1e-5), params, expected[t])
    np.testing.assert_allclose(steps, rates, rtol=1e-4)
    if name == "obgd":  # the story has steps on both sides of the bound
        assert 4 < rule.bounded < STEPS - 4
    if name.startswith("intentional,"):  # and errors on both sides of the clip
        assert 4 < rule.clipped < STEPS - 4


def test_without_penalties_none_is_needed():
    make, reference = CASES["obgd"]
    expected, _ = by_hand(reference(), penalise=False)
    (params, _), _ = lived(eligible(make()), penalise=False)
    each(lambda mine, theirs: np.testing.assert_allclose(mine[-1], theirs, atol=1e-5), params, expected[-1])


def test_traces_pass_through_wrapped_optimizers():
    decayed = eligible(weight_decay(rate=0.01, which="all").optimizer(obgd(learning_rate=0.3, kappa=1.5)))
    (params, _), _ = lived(decayed)
    (plain, _), _ = lived(eligible(obgd(learning_rate=0.3, kappa=1.5)))
    first = start()
    each(
        lambda mine, other, w: np.testing.assert_allclose(mine[0], other[0] - 0.01 * w, atol=1e-6), params, plain, first
    )


def one(optimizer: Optimizer, params: Any, state: Any, g: Any, **extra: Any) -> Any:
    facts = {"td_error": jnp.float32(2.0), "trace_decay": 0.5, "trace_end": jnp.array(False)}
    updates, state = optimizer.update(g, state, params, **(facts | extra))
    return updates, state


def test_the_trace_ends_after_the_update_and_the_penalty_stays_out_of_it():
    """By hand: gradient 1, decay 1/2, error 2, penalty 3, step size 1/10 by plain descent."""
    rule = eligible(sgd(learning_rate=0.1))
    w = {"w": jnp.zeros(())}
    one_ = {"w": jnp.ones(())}
    state = rule.init(w)
    updates, state = one(rule, w, state, one_, penalty={"w": jnp.float32(3.0)})
    np.testing.assert_allclose(updates["w"], 0.1 * (2 * 1 - 3), rtol=1e-6)
    updates, state = one(rule, w, state, one_, trace_end=jnp.array(True))
    np.testing.assert_allclose(updates["w"], 0.1 * 2 * 1.5, rtol=1e-6)  # no penalty in the trace, which still holds
    updates, state = one(rule, w, state, one_)
    np.testing.assert_allclose(updates["w"], 0.1 * 2 * 1, rtol=1e-6)
    updates, state = one(rule, w, state, one_, trace_start=jnp.array(True))
    np.testing.assert_allclose(updates["w"], 0.1 * 2 * 1, rtol=1e-6)
    updates, state = one(rule, w, state, one_, trace_start=jnp.array(False))
    np.testing.assert_allclose(updates["w"], 0.1 * 2 * 1.5, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_an_update_that_is_not_valid_changes_nothing(name):
    """Bit for bit, also of a trace that has ended; a valid one is as without the argument."""
    rule, params = eligible(CASES[name][0]()), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start())
    gradient = jax.tree.map(jnp.cos, params)
    state = rule.init(params)
    for end in (False, True):
        facts = {"trace_end": jnp.array(end), "penalty": params}
        given = one(rule, params, state, gradient, valid=jnp.array(True), **facts)
        chex.assert_trees_all_equal(given, one(rule, params, state, gradient, **facts))
        state = given[1]
        other = {**facts, "trace_end": jnp.array(not end)}
        updates, after = one(rule, params, state, gradient, valid=jnp.array(False), **other)
        chex.assert_trees_all_equal(after, state)
        assert not any(jnp.any(x) for x in jax.tree.leaves(updates))


def test_the_bound_by_hand():
    """Trace (3, -1), penalty (1, 1), error 2: M = 1/2 * 2 (2 * 4 + 2) = 10, alpha = 1/20; error 1/100: M = 4 + 2."""
    rule = eligible(obgd(learning_rate=0.5, kappa=2.0))
    params, g = {"w": jnp.zeros(2)}, {"w": jnp.array([3.0, -1.0])}
    state = rule.init(params)
    assert float(rule.learning_rate(state)) == 0.5
    for error, alpha in ((2.0, 1 / 20), (0.01, 1 / 12)):
        updates, after = one(rule, params, state, g, td_error=jnp.float32(error), penalty={"w": jnp.ones(2)})
        np.testing.assert_allclose(updates["w"], alpha * (error * np.array([3.0, -1.0]) - 1), rtol=1e-6)
        np.testing.assert_allclose(rule.learning_rate(after), alpha, rtol=1e-6)
    still = {"w": jnp.zeros(2)}
    updates, after = one(rule, params, state, still)
    np.testing.assert_array_equal(updates["w"], 0.0)
    assert float(rule.learning_rate(after)) == 0.5


def test_the_prediction_moves_by_the_intended_share_of_the_error():
    """Without decay, for a linear prediction: exactly ``eta e``, whatever the gradient's length and second moments."""
    g = {"w": jnp.array([3.0, -1.0, 0.2])}
    for settings in ({}, {"precondition": False}, {"running_norm": False}):
        rule = eligible(intentional(eta=0.4, **settings))
        state = rule.init({"w": jnp.zeros(3)})
        for size, error in ((1.0, 2.0), (10.0, 0.5), (0.01, -1.0)):
            scaled = {"w": size * g["w"]}
            updates, state = one(rule, scaled, state, scaled, td_error=jnp.float32(error), trace_decay=0.0)
            np.testing.assert_allclose(jnp.vdot(scaled["w"], updates["w"]), 0.4 * error, rtol=1e-5)


@pytest.mark.parametrize("name", ["obgd", "adaptive_obgd", "adaptive_q", "intentional"])
def test_an_agent_without_traces_is_refused(name):
    rule, params = OPTIMIZERS[name](), {"w": jnp.zeros(2)}
    with pytest.raises(
        ValueError, match=rf"agent\.optimizer: {name} is not allowed; it needs an agent with eligibility"
    ):
        rule.update(params, rule.init(params), params)


def test_a_trace_needs_its_arguments():
    rule, params = eligible(sgd()), {"w": jnp.zeros(2)}
    with pytest.raises(ValueError, match="td_error, trace_decay and trace_end"):
        rule.update(params, rule.init(params), params)


RULES = {
    "obgd": lambda: eligible(obgd()),
    "adaptive_obgd": lambda: eligible(adaptive_obgd()),
    "adaptive_q": lambda: eligible(adaptive_q()),
    "intentional": lambda: eligible(intentional()),
    "adam": lambda: eligible(adam()),
    "wrapped": lambda: eligible(wrap(obgd(), after=optax.identity())),
    "parts": lambda: eligible(parts({"a": obgd(), "b": adam()})),
}


@pytest.mark.parametrize("name", RULES)
def test_resets_find_the_trace(name):
    rule = RULES[name]()
    _, state = lived(rule, penalise=False)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start())

    def slots(state: Any) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        optax.tree_utils.tree_map_params(
            rule,
            lambda slot, param: None if isinstance(slot, optax.MaskedNode) else found.append((slot, param)),
            state,
            params,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
        return found

    assert slots(state)
    assert all(slot.shape == param.shape and np.abs(slot).max() > 0 for slot, param in slots(state))
    mask = module_mask(params, [("a",)])
    after = reset_slots(rule, state, params, mask)
    for (slot, _), (old, _) in zip(slots(after), slots(state), strict=True):
        np.testing.assert_array_equal(slot, 0 * old if slot.ndim == 2 else old)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.structure(reset_counts(rule, state, params)) == jax.tree.structure(state)
    assert not any(jax.tree.leaves(slot_masks(rule, state, params, jax.tree.map(bool, nowhere(params)))))


def test_the_optimizer_reset_method_clears_the_trace():
    rule = eligible(obgd())
    _, state = lived(rule, penalise=False)
    params = jax.tree.map(jnp.asarray, start())
    assert all((x != 0).any() for x in jax.tree.leaves(state.trace))
    context = Context(clock_at(0), (), {}, (), None, rule, None, None, None)
    for what in ("all", "slots"):
        method = optimizer_reset(when="periodic", period=1, what=what)
        _, learner = method.step(None, (), Learner(params, (), state), context)
        assert all((x == 0).all() for x in jax.tree.leaves(learner.opt_state.trace))


@pytest.mark.parametrize(
    ("inner", "carries"), [(obgd(), False), (adam(), True), (adaptive_q(), True), (intentional(), True)]
)
def test_at_switches_only_an_optimizer_that_carries_something_over_is_reset(inner, carries):
    """The trace ends at a switch anyway, so resetting only the trace has no effect and is refused."""
    rule = eligible(inner)
    _, state = lived(rule, penalise=False)
    params = jax.tree.map(jnp.asarray, start())
    context = Context(None, (), {}, (), None, rule, None, None, None)
    method = optimizer_reset()
    if not carries:
        with pytest.raises(ValueError, match=r"switch has no effect; .* keeps nothing across a task switch"):
            method.switch(None, (), Learner(params, (), state), context)
        return
    _, learner = method.switch(None, (), Learner(params, (), state), context)
    for old, new in zip(jax.tree.leaves(rule.init(params)), jax.tree.leaves(learner.opt_state), strict=True):
        np.testing.assert_array_equal(old, new)


def test_each_part_has_its_own_bound():
    """Two parts with the same gradients and other kappas: each is bounded by its own norm, the penalty's added."""
    both = eligible(parts({"policy": obgd(kappa=3.0), "value": obgd(kappa=2.0)}))
    params = {"policy": {"w": jnp.zeros(2)}, "value": {"w": jnp.zeros(4)}}
    g = {"policy": {"w": jnp.ones(2)}, "value": {"w": jnp.ones(4)}}
    penalty = {"policy": {"w": jnp.full(2, 0.5)}, "value": {"w": jnp.zeros(4)}}
    updates, state = one(both, params, both.init(params), g, penalty=penalty)
    np.testing.assert_allclose(updates["policy"]["w"], (2 - 0.5) / (3 * (2 * 2 + 2 * 0.5)), rtol=1e-6)
    np.testing.assert_allclose(updates["value"]["w"], 2 / (2 * 2 * 4), rtol=1e-6)
    np.testing.assert_allclose(both.learning_rate(state), 1 / 15, rtol=1e-6)
    with pytest.raises(ValueError, match="optimizers are for policy, value; the parameters have policy"):
        both.init({"policy": params["policy"]})


def test_learning_rates_of_lanes_may_differ():
    rates = jnp.array([0.1, 0.2])
    params, g = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}

    def step(rate: Any) -> Any:
        rule = eligible(adaptive_q(learning_rate=rate))
        return one(rule, params, rule.init(params), g)[0]["w"]

    updates = jax.vmap(step)(rates)
    np.testing.assert_allclose(updates[1], 2 * updates[0], rtol=1e-6)
