"""Twin networks that alternate."""

import jax

from plasticity.config.fields import Count, metadata
from plasticity.core.types import Context, Key, Learner, State
from plasticity.interventions.base import Intervention, every, when

FIRST, NEXT, LESSON = range(3)  # tags for the keys of the first twin, of later ones and of updates


@metadata(
    paper="Maheshwari et al. 2026, AltNet: Addressing the Plasticity-Stability Dilemma in Reinforcement Learning",
    checked="a second learner that is trained by itself; the default of `period` is ours",
)
def altnet(*, period: Count = 100_000) -> Intervention:
    """AltNet: of two networks one acts and learns and the other only learns; they alternate, and the one is reset.

    The agent has a twin with parameters, target network and optimizer state of its own. At every update both learn,
    each on its own sample of the replay, which holds what the active one has done. After every ``period`` updates the
    twin becomes active, and the network that was active is replaced by a new one, the next twin:

    ``active, twin <- twin, new``

    A network is thus reset every ``2 period`` updates, and acts only after ``period`` updates. In the update of an
    exchange the new twin learns in place of the one that becomes active.

    The twin learns by the agent's loss and optimizer. It does not feel other methods, except those that wrap the
    optimizer, until it is active; their states stay. Priorities of the replay are those of the active one. A supervised
    or offline agent's networks learn from the same minibatches. The exploration schedule does not begin anew.

    Args:
        period: number of updates between two exchanges (static); in the paper, of gradient updates too. The default is
            ours: the paper's table could not be read.

    Raises:
        ValueError: if the agent learns neither from a replay nor from minibatches of its stream; while tracing.
    """

    def start(key: Key, state: State, learner: Learner, context: Context) -> State:
        del state, learner
        return context.fresh(jax.random.fold_in(key, FIRST))._replace(rest={})

    def exchange(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del learner
        return context.fresh(jax.random.fold_in(key, NEXT))._replace(rest={}), state

    exchanged = when(every(period), exchange)

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        if context.learn is None:
            raise ValueError("needs the whole of an agent that learns from a replay, or from minibatches of its stream")
        state, learner = exchanged(key, state, learner, context)
        return context.learn(jax.random.fold_in(key, LESSON), state), learner

    return Intervention(start=start, step=step)
