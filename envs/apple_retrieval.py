"""AppleRetrieval: an apple is fetched and carried home, after carrying it has been learned alone."""

from typing import Annotated, NamedTuple

import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Size, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import limited, small_spec, stream
from plasticity.envs.episodes import warn_if_short

Distance = Annotated[int, Field(ge=1, le=1_000_000)]
StaticReal = Annotated[float, Field(allow_inf_nan=False)]

LEFT, RIGHT = 0, 1
TASKS = ("phase_2", "whole")


class Walk(NamedTuple):
    """The state of one env."""

    place: Array  # int32[]: 0 at home, ``distance`` at the apple
    carrying: Array  # bool[]: whether the agent has the apple


def apple_task(spec: StreamSpec, distance: int, c: float) -> Task:
    """The parameter of a task is whether an episode starts with the apple; see :func:`apple_retrieval`."""

    def look(walk: Walk) -> Array:
        return jnp.where(walk.carrying, c, -c).reshape(1).astype(jnp.float32)

    def params(key: Key, visit: Visit) -> Array:
        del key
        return jnp.asarray(visit.task == TASKS.index("phase_2"))

    def reset(key: Key, carrying: Array) -> tuple[Walk, Array]:
        del key
        walk = Walk(jnp.where(carrying, distance, 0).astype(jnp.int32), carrying)
        return walk, look(walk)

    def step(key: Key, walk: Walk, action: Array, started: Array) -> tuple[Walk, Array, Array, Array, Array]:
        del key, started
        place = jnp.clip(walk.place + jnp.where(action == RIGHT, 1, -1), 0, distance)
        reward = jnp.where((action == RIGHT) != walk.carrying, 1.0, -1.0)
        last = walk.carrying & (place == 0)
        walk = Walk(place, walk.carrying | (place == distance))
        return walk, look(walk), reward, jnp.where(last, 0.0, 1.0), last

    return Task(spec, params, reset, step)


@metadata(
    paper="Wolczyk et al. 2024, Fine-tuning Reinforcement Learning Models is Secretly a Forgetting Mitigation Problem",
    example={"distance": 10, "c": 0.5, "steps_per_visit": 5000, "envs": 8},
)
def apple_retrieval(
    *,
    distance: Distance = 30,
    c: StaticReal = 1.0,
    episode_steps: Count = 100,
    steps_per_visit: Count = 20_000,
    envs: Size = 1,
) -> StreamFactory:
    """Walk right to an apple, then carry it back: the way back is learned first, and may be forgotten on the way out.

    The agent walks on the places ``0 ... distance``; home is 0, the apple at ``distance``. Actions: 0, left; 1, right;
    a step beyond an end does not move. In phase 1, without the apple, ``reward = 1`` for a step to the right and -1 for
    one to the left; the phase ends at the apple. In phase 2, with the apple, it is the reverse, and the episode ends at
    home with discount 0. After ``episode_steps`` it is truncated with discount 1. The observation is float32[1], ``-c``
    in phase 1 and ``c`` in phase 2: it shows the phase, not the place.

    Two tasks, one visit each: ``phase_2``, in which an episode starts at the apple, with it, and ``whole``, in which it
    starts at home. The highest returns are ``distance`` and ``2 distance``. A visit to ``phase_2`` stands for
    pre-training. In ``whole`` the agent sees phase 2 only after it has reached the apple, and until then nothing but
    what parameters share between the phases determines what it does there. In the policy ``P(right) = sigmoid(w o +
    b)`` that is ``b``: if it starts at 0, phase 2 teaches ``b / w = 1 / c``, so that a small ``c`` makes the phases
    interfere.

    All settings are static; ``steps_per_visit`` is the length of both visits, which a ``schedule`` may change and
    repeat. An ``evaluation`` with ``tasks: seen`` measures what remains of phase 2 during ``whole``.

    ``ValueError`` if ``episode_steps`` is too short to fetch the apple; a warning for visits shorter than an episode.

    Wolczyk et al. 2024, "Fine-tuning Reinforcement Learning Models is Secretly a Forgetting Mitigation Problem",
    appendix A.2, with 100 steps per episode. The paper does not say what a step beyond an end does.
    """
    if episode_steps < 2 * distance:
        raise ValueError(
            f"episode_steps: {episode_steps} is not allowed with distance: {distance}; must be at least {2 * distance}"
        )
    warn_if_short("steps_per_visit", steps_per_visit, episode_steps)
    spec = small_spec((1,), 2, TASKS, len(TASKS), steps_per_visit, envs, -1, 1)._replace(alike=False)
    return stream(limited(apple_task(spec, distance, c), episode_steps), envs)
