"""Streams that do not fit an agent that acts, and the error messages."""

import jax
import jax.numpy as jnp
import pytest

from plasticity.agents.stream_checks import check_acting
from plasticity.core.types import StreamSpec, Supervised, VisitPlan

PLAIN = jax.ShapeDtypeStruct((3,), jnp.float32)
LABELS = Supervised(PLAIN, jax.ShapeDtypeStruct((), jnp.int32))  # type: ignore[arg-type]


def spec(observation: object = PLAIN, envs: int = 1, discrete: bool = True) -> StreamSpec:
    return StreamSpec(
        observation=observation,
        actions=2,
        tasks=("one",),
        visits=(VisitPlan(0, 8),),
        envs=envs,
        episodic=True,
        discrete=discrete,
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (spec(LABELS), "discrete actions and rewards; this one is supervised"),
        (spec(discrete=False), "discrete actions and rewards; this one has continuous actions"),
        (spec(envs=3), "one env, discrete actions and rewards; this one has 3 envs"),
    ],
)
def test_what_does_not_suit_is_named(given: StreamSpec, said: str) -> None:
    with pytest.raises(ValueError, match=f"^agent.kind: odd is not allowed; it needs a stream with .*{said}$"):
        check_acting("odd", given, discrete=True, one_env=True)


def test_only_what_the_agent_needs_is_asked_for() -> None:
    check_acting("odd", spec(envs=3, discrete=False))
    check_acting("odd", spec(envs=3), discrete=True)
    check_acting("odd", spec(), discrete=True, one_env=True)
