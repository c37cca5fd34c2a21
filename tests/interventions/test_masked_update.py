"""An update that is not valid changes nothing, whatever the intervention and the optimizer do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract_intervention import GRIDS, KEY, MEMBERS, as_data, assert_same, settings_of
from update_loop import MLP, batch_at, clock_at

from plasticity.agents.base import AgentCore, assemble
from plasticity.core.types import AgentState, Array, Params
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import compose
from plasticity.optim.eligibility import eligible, obgd
from plasticity.optim.optimizers import adam

NAMES = [pytest.param(name, marks=[] if name in GRIDS else pytest.mark.slow) for name in MEMBERS]


def core(name: str, trace: bool) -> AgentCore:
    method = INTERVENTIONS[name](**settings_of(INTERVENTIONS[name])) if name else compose()
    if trace:
        return assemble(MLP, obgd(), method, trace=eligible)
    return assemble(MLP, adam(learning_rate=0.05), method)


def updated(body: AgentCore, trace: bool, state: AgentState, number: Array, valid: Array | None) -> AgentState:
    """One update on a regression; with a trace, ``prepare`` and ``finish`` with an error of 2."""
    inputs, targets = batch_at(MLP, number)
    key, clock = jax.random.fold_in(KEY, number), clock_at(number)

    def loss(params: Params) -> tuple[Array, Any]:
        outputs, activations = body.network.forward(params, inputs)
        return jnp.mean((outputs - targets) ** 2), activations

    learner, plugins = state.learner, state.plugins
    if not trace:
        learner, plugins, _ = body.update(key, learner, plugins, loss, inputs, clock, valid=valid)
        return AgentState(learner, plugins, state.rest)
    context = body.context(clock, inputs, lambda params: loss(params)[0])
    learner, plugins = body.prepare(key, learner, plugins, context, valid)
    gradients, activations = jax.grad(loss, has_aux=True)(learner.params)
    facts = {"td_error": jnp.float32(2.0), "trace_decay": jnp.float32(0.5), "trace_end": jnp.array(False)}
    facts["penalty"] = body.penalty_gradients(learner, plugins, context)
    seen = context._replace(activations=activations)
    return AgentState(*body.finish(key, learner, plugins, gradients, seen, valid, **facts), state.rest)


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("name", ["", *NAMES])
def test_an_invalid_update_changes_nothing(name: str, trace: bool) -> None:
    """Four updates, of which the third (when periodic methods act) is not valid: each but that one changes something.

    Where it is valid, the update equals one without a mask.
    """
    body = core(name, trace)
    masked = jax.jit(lambda state, number, valid: updated(body, trace, state, number, valid))
    plain = jax.jit(lambda state, number: updated(body, trace, state, number, None))
    state = body.init(KEY)
    for number, valid in enumerate((True, True, False, True)):
        after = masked(state, jnp.int32(number), jnp.array(valid))
        if valid:
            assert any((x != y).any() for x, y in zip(as_data(after.learner), as_data(state.learner), strict=True))
            for x, y in zip(as_data(after), as_data(plain(state, jnp.int32(number))), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
        else:
            assert_same(after, state)
        state = after
