"""Reset & Distill: learn every task with a fresh network, and collect what was learned in a second one."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import Count, Positive, metadata
from plasticity.core.masked import mean_where
from plasticity.core.outputs import divergence
from plasticity.core.types import Array, Context, Drawn, Key, Learner, Network, Params, State
from plasticity.interventions.base import Intervention, Remember
from plasticity.interventions.memory import stored


@metadata(
    paper="Ahn et al. 2025, Prevalence of Negative Transfer in Continual Reinforcement Learning: Analyses and a Simple "
    "Baseline",
    checked="three steps of the student in NumPy, and a fresh learner bit for bit; the defaults of `updates` and "
    "`learning_rate` are ours",
)
def reset_and_distill(
    *, updates: Count = 10_000, learning_rate: Positive = 1e-3, batch: Count = 128, memory: Count = 10_000
) -> Intervention:
    """Reset & Distill: a new learner for every task, whose result is distilled into a network that keeps all tasks.

    At each switch a second network with the same architecture (the *student*) learns for ``updates`` steps of Adam from
    ``mean KL(expert || student)`` on the task that has ended plus the same mean on all past tasks, with the outputs
    that each task's expert had when it ended. Then the learner is replaced by a fresh agent. Earlier tasks are
    evaluated with the student, the current one with the learner.

    Args:
        updates: static. Ours.
        learning_rate: of Adam, whose state starts anew at each switch. Traced. Ours.
        batch: transitions for each of the two means. Static.
        memory: transitions of each past visit. Static.
    """

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return {"student": params}

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del learner
        past, rule = stored(context), optax.adam(learning_rate)
        ended = past.ended()
        filled = jnp.maximum(jnp.sum(ended.valid), 1)

        def error(params: Params, drawn: Drawn) -> Array:
            said = context.outputs(params, past.inputs(drawn.rows))
            return mean_where(drawn.valid, divergence(drawn.outputs, said))

        def update(i: Array, carry: Any) -> Any:
            params, opt_state = carry
            rows = jax.random.randint(jax.random.fold_in(key, i), (batch,), 0, filled)
            newest, older = jax.tree.map(lambda x: x[rows], ended), past.draw(i, batch)
            gradients = jax.grad(lambda params: error(params, newest) + error(params, older))(params)
            changes, opt_state = rule.update(gradients, opt_state, params)
            return optax.apply_updates(params, changes), opt_state

        start = (state["student"], rule.init(state["student"]))
        student, _ = jax.lax.fori_loop(0, updates, update, start)
        return {"student": student}, context.fresh(jax.random.fold_in(key, updates))

    def view(state: State, params: Params, visit: Array, now: Array) -> Params:
        return jax.tree.map(lambda student, own: jnp.where(visit < now, student, own), state["student"], params)

    return Intervention(init=init, switch=switch, view=view, remember=Remember(memory))
