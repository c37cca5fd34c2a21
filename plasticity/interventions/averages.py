"""Interventions that keep an average of the parameters beside the ones that learn."""

import jax

from plasticity.config.fields import BelowOne, Count, metadata
from plasticity.core.types import Context, Key, Learner, Network, Params, State
from plasticity.interventions.base import Intervention, every, when


@metadata(
    paper="Lee et al. 2024, Slow and Steady Wins the Race: Maintaining Plasticity with Hare and Tortoise Networks",
    neutral={"decay": 0.0},
)
def hare_tortoise(*, decay: BelowOne = 0.999, period: Count = 1_000, optimizer: bool = False) -> Intervention:
    """A fast learner, the hare, that is put back onto its own slow average, the tortoise, which acts.

    After every update ``theta_T <- decay theta_T + (1 - decay) theta_H``; after every ``period``-th one (in updates,
    static) ``theta_H <- theta_T``. The tortoise acts and is evaluated. ``decay`` is traced. ``optimizer`` (static): the
    hare's optimizer starts anew along with it. The target network stays as it is. The paper chooses decay and period
    for each task; these defaults are ours. Whether the tortoise acts while data are collected in reinforcement
    learning we could not check; here it does. Partial resets do not reach the tortoise. ``ValueError`` if the
    period is below 1.
    """

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return params

    def back(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        learner = learner._replace(params=state)
        return state, learner._replace(opt_state=context.optimizer.init(state)) if optimizer else learner

    due = when(every(period), back)

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        state = jax.tree.map(lambda t, h: decay * t + (1.0 - decay) * h, state, learner.params)
        return due(key, state, learner, context)

    return Intervention(init=init, step=step, acting=lambda state, params: state)
