"""Interventions that keep an average of the learned parameters."""

import jax

from plasticity.config.fields import BelowOne, Count, metadata
from plasticity.core.types import Context, Key, Learner, Network, Params, State
from plasticity.interventions.base import Intervention, every, when


@metadata(
    paper="Lee et al. 2024, Slow and Steady Wins the Race: Maintaining Plasticity with Hare and Tortoise Networks",
    checked="a loop by hand over seven updates; the equation is second-hand, the defaults are ours, and whether "
    "the tortoise collects data is not verified",
    neutral={"decay": 0.0},
)
def hare_tortoise(*, decay: BelowOne = 0.999, period: Count = 1_000, optimizer: bool = False) -> Intervention:
    """Hare and Tortoise: a fast learner (hare) is periodically reset to its own slow average (tortoise), which acts.

    After every update ``theta_T <- decay theta_T + (1 - decay) theta_H``. After every ``period``-th update
    ``theta_H <- theta_T``. The tortoise acts and is evaluated. The target network is unchanged.

    Args:
        decay: traced.
        period: number of updates (static).
        optimizer: whether the hare's optimizer is reset along with its parameters (static).

    Raises:
        ValueError: if the period is below 1.

    The paper chooses decay and period for each task; these defaults are ours. We could not check whether the tortoise
    acts during data collection in reinforcement learning; here it does. Partial resets do not reach the tortoise.
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
