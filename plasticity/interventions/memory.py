"""What methods that need old transitions share: the agent's memory of past visits (``Intervention.remember``)."""

from plasticity.core.types import Context, Key, Learner, Past, State

CLONING, REHEARSAL = range(2)  # tags of draws: methods with different tags draw different rows


def stored(context: Context) -> Past:
    """The memory, which the intervention has asked for."""
    assert context.past is not None
    return context.past


def noted(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
    """Change nothing at a switch, where the memory notes the outputs: methods with this ``switch`` know of switches."""
    del key, context
    return state, learner
