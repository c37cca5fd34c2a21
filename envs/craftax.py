"""Craftax, an open world in JAX."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from plasticity.config.fields import Count, Cycles, Size, metadata
from plasticity.core.types import Array, State
from plasticity.envs.base import StreamFactory
from plasticity.envs.gym import asked
from plasticity.envs.gymnax import Ids, Library, Variations, known, settings_of, variants_of
from plasticity.envs.spaces import variants
from plasticity.envs.worlds import library, worlds_stream

NAMES = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")
NEVER = np.iinfo(np.int32).max


def by_craftax(env: Any, state: State, params: Any, over: Array) -> tuple[Array, Array]:
    """The library's end of an episode includes the time limit: ask again without the limit."""
    del over
    terminated = env.is_terminal(state, replace(params, max_timesteps=jnp.int32(NEVER)))
    return terminated, state.timestep >= params.max_timesteps


def made(id: str, **keywords: Any) -> Any:
    """The environment without automatic reset; keywords are its static parameters."""
    env = library("craftax.craftax_env").make_craftax_env_from_name(id, auto_reset=False)
    return type(env)(replace(env.static_env_params, **keywords)) if keywords else env


@metadata(
    paper="Matthews et al. 2024, Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement Learning",
    example={
        "id": "Craftax-Classic-Symbolic-v1",
        "variations": [{"max_timesteps": 1000}, {"max_timesteps": 1000, "spawn_zombie_base_chance": 0.1}],
        "steps_per_visit": 1000,
    },
)
def craftax(
    *,
    id: str | None = None,
    ids: Ids | None = None,
    variations: Variations = [{}],  # noqa: B006 (read only)
    steps_per_visit: Count = 1_000_000,
    cycles: Cycles = 1,
    envs: Size = 1,
) -> StreamFactory:
    """Craftax, or its smaller version Craftax-Classic, with parameters that change between tasks.

    Matthews et al. 2024, "Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement Learning": a procedurally
    generated world to survive in, with a reward for each achievement that is reached for the first time in an episode.
    The tasks are every variation of every id. The discount is 0 at the agent's death and at victory, and 1 where
    ``max_timesteps`` truncates an episode, which the library does not distinguish. Its automatic reset is not used.

    All settings are static. ``id`` or ``ids``: ``Craftax-Symbolic-v1`` (float32[8268], 43 actions),
    ``Craftax-Classic-Symbolic-v1`` (float32[1345], 17 actions), or ``Pixels`` in the place of ``Symbolic``, images with
    float32 values in [0, 1] as the library has them. Different ids do not have the same spaces. ``variations``: values
    of the game's parameters (``day_length``, ``mob_despawn_distance``, ``always_diamond``; the classic game also has
    ``spawn_zombie_base_chance``, ``zombie_health``, ...), between which a switch happens inside one environment, and of
    the static ones (``map_size``, ``max_zombies``, ...), each of which adds an environment to the program.
    ``steps_per_visit``: env steps of each env.

    A reset generates a world, which takes two to three times as long as a step. With several envs every step also
    computes a reset, and with several lanes in one vmap all environments of the program.

    Needs the extra ``craftax``. ``ValueError`` without it, for an unknown id or parameter (suggests the nearest) and a
    value of another type; a warning for visits shorter than an episode may last. The first use of ``Pixels`` prepares
    the textures for a minute.
    """
    library("craftax.craftax_env")
    chosen = asked(id, ids)
    known("Craftax", "id" if id is not None else "ids", chosen, NAMES)
    source = Library("craftax", made, lambda env: settings_of(env.static_env_params), "max_timesteps", by_craftax)
    tasks = variants_of(variants(chosen, variations), source)
    return worlds_stream("craftax", tasks, steps=steps_per_visit, cycles=cycles, envs=envs, pad=False, idle=0)
