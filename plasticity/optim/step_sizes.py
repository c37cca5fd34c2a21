"""The step size of an optimizer, which may be unknown."""

from collections.abc import Callable
from typing import Any, NamedTuple

from plasticity.core.types import Array, Optimizer

StepSize = Callable[[Any], Array]


class UnknownStepSize(NamedTuple):
    """The ``learning_rate`` of an optimizer that does not report its step size, such as an optax transformation."""

    name: str

    def __call__(self, state: Any) -> Array:
        del state
        raise ValueError(
            f"the step size of optimizer `{self.name}` is unknown, because it is a plain optax transformation"
        )


def reports_step_size(optimizer: Optimizer) -> bool:
    """Whether the optimizer reports its step size."""
    return not isinstance(optimizer.learning_rate, UnknownStepSize)


def forwarded(optimizer: Optimizer, learning_rate: StepSize) -> StepSize:
    """``learning_rate``, which calls that of the wrapped optimizer; ``UnknownStepSize`` if it does not report one."""
    return learning_rate if reports_step_size(optimizer) else optimizer.learning_rate


def required_step_size(optimizer: Optimizer, by: str) -> StepSize:
    """The optimizer's step size; ``ValueError`` naming ``by`` and the optimizer if it is unknown."""
    if isinstance(optimizer.learning_rate, UnknownStepSize):
        raise ValueError(
            f"{by} needs the optimizer's step size, but `{optimizer.learning_rate.name}` is a plain optax "
            "transformation and does not report one"
        )
    return optimizer.learning_rate
