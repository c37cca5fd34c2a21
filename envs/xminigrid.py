"""XLand-MiniGrid, gridworlds and worlds of rules in JAX."""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Cycles, Natural, Size, metadata
from plasticity.config.plugins import error_text
from plasticity.core.errors import shown
from plasticity.core.types import Array, Key, State
from plasticity.envs.base import StreamFactory
from plasticity.envs.data import identified
from plasticity.envs.gym import asked
from plasticity.envs.gymnax import Ids, Variations, known
from plasticity.envs.spaces import Made, space_of, variants
from plasticity.envs.worlds import Params, Variant, World, library, making, see_as, worlds_stream

Rulesets = Annotated[list[Natural], Field(max_length=1000)]


def world_of(name: str, env: Any, default: Any) -> World:
    """An environment of the library; ``ruleset``, if its parameters have one, is traced."""
    from gymnasium import spaces

    raw = jax.random.key_data(jax.random.key(0))
    seen = jax.eval_shape(lambda key: env.reset(default, key).observation, raw)
    shape, see = see_as(seen, dtype=jnp.float32)  # numbers of kinds and colours, not pixels
    own = space_of(name, shape.shape, shape.dtype, spaces.Discrete(env.num_actions(default)), None)

    def reset(key: Key, params: Params) -> tuple[State, Any]:
        timestep = env.reset(default.replace(**params), key)
        return timestep, timestep.observation

    def step(key: Key, state: State, action: Array, params: Params) -> tuple[State, Any, Array, Array, Array]:
        del key  # a step is deterministic
        timestep = env.step(default.replace(**params), state, action)
        terminated = timestep.discount == 0
        return timestep, timestep.observation, timestep.reward, terminated, timestep.last() & ~terminated

    return World(own, reset, step, see)


def loaded(name: str, rulesets: list[int]) -> tuple[Any, tuple[str, str]]:
    """The library's benchmark, by its name or as a file, and the file's path and SHA-256."""
    source = library("xminigrid.benchmarks")
    named = name in source.registered_benchmarks()
    path = Path(source.DATA_PATH, source.NAME2HFFILENAME[name]) if named else Path(name).expanduser().absolute()
    if not named and not path.is_file():
        names = ", ".join(source.registered_benchmarks())
        raise ValueError(f"benchmark: {shown(name)} is not allowed; must be a file of rulesets, or one of {names}")
    try:
        found = source.load_benchmark(name) if named else source.load_benchmark_from_path(str(path))
    except Exception as error:  # a download, or a pickled file, may fail in any way
        raise ValueError(f"benchmark: {shown(name)} cannot be loaded: {error_text(error)}") from error
    if max(rulesets) >= found.num_rulesets():
        raise ValueError(f"rulesets: {max(rulesets)} is not allowed; {shown(name)} has {found.num_rulesets()} rulesets")
    return found, identified(path)


def check_rulesets(tasks: list[Made], benchmark: str | None, rulesets: list[int]) -> None:
    """Raise ``ValueError`` unless XLand's tasks, and only they, have rulesets of a benchmark."""
    if (benchmark is None) != (not rulesets):
        raise ValueError(f"benchmark: {shown(benchmark)} is not allowed with rulesets: {shown(rulesets)}; both must be "
                         "given, or neither")  # fmt: skip
    for task in tasks:
        if task.id.startswith("XLand") != bool(rulesets):
            wanted = "this id has no rulesets" if rulesets else "XLand needs `benchmark` and `rulesets`"
            raise ValueError(f"rulesets: {shown(rulesets)} is not allowed with {task.id}; {wanted}")


def variants_of(package: Any, task: Made, benchmark: Any, rulesets: list[int]) -> list[Variant]:
    """The task with every ruleset, or alone."""
    with making(task.name, "xminigrid"):
        env, params = package.make(task.id, **task.options)

    def make() -> World:
        return world_of(task.name, env, params)

    world = (task.id, repr(task.options))
    if not rulesets:
        return [Variant(task.name, task.id, world, make, {}, params.max_steps)]
    return [
        Variant(f"{task.name}:{ruleset}", task.id, world, make,
                {"ruleset": jax.tree.map(np.asarray, benchmark.get_ruleset(ruleset))}, params.max_steps)
        for ruleset in rulesets
    ]  # fmt: skip


@metadata(
    paper="Nikulin et al. 2024, XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in JAX",
    example={"ids": ["MiniGrid-EmptyRandom-5x5", "MiniGrid-DoorKey-5x5"], "steps_per_visit": 1000},
)
def xminigrid(
    *,
    id: str | None = None,
    ids: Ids | None = None,
    variations: Variations = [{}],  # noqa: B006 (read only)
    benchmark: str | None = None,
    rulesets: Rulesets = [],  # noqa: B006 (read only)
    steps_per_visit: Count = 100_000,
    cycles: Cycles = 1,
    envs: Size = 1,
) -> StreamFactory:
    """XLand-MiniGrid environments in sequence: MiniGrid's tasks, or the rules and goals of XLand.

    Nikulin et al. 2024, "XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in JAX". The tasks are every
    variation of every id, with every ruleset. The reward is 1 - 0.9 (step / ``max_steps``) at the goal, where the
    episode ends with discount 0; after ``max_steps`` it is truncated with discount 1.

    All settings are static. ``id`` or ``ids``: ``MiniGrid-DoorKey-8x8``, ``XLand-MiniGrid-R4-13x13``, ...
    ``variations``: keywords for ``xminigrid.make`` (``max_steps``, ``view_size``, ``height``, ``width``). Every id with
    its keywords is an environment of its own in the program. ``rulesets``: for XLand, numbers of rulesets in
    ``benchmark``, between which a switch happens inside one environment. ``benchmark``: a file of rulesets, or the name
    of one of the library's (``trivial-1m`` ...), which the library downloads at the first use. Such files are pickled:
    load only those that you trust. ``steps_per_visit``: env steps of each env.

    Observations are the agent's view, float32[5, 5, 2] for XLand and float32[7, 7, 2] for most others, an object's kind
    and colour as numbers; six actions. With several envs every step also computes a reset, and with several lanes in
    one vmap all environments of the program.

    Needs the extra ``xminigrid``. ``ValueError`` without it, for an unknown id (suggests the nearest), a keyword that
    the library refuses, a ruleset that the benchmark does not have and tasks whose views differ; a warning for visits
    shorter than an episode may last.
    """
    package = library("xminigrid")
    chosen = asked(id, ids)
    known("xminigrid", "id" if id is not None else "ids", chosen, package.registered_environments())
    tasks = variants(chosen, variations)
    check_rulesets(tasks, benchmark, rulesets)
    found, file = (None, None) if benchmark is None else loaded(benchmark, rulesets)
    made = [variant for task in tasks for variant in variants_of(package, task, found, rulesets)]
    return worlds_stream(
        "xminigrid", made, steps=steps_per_visit, cycles=cycles, envs=envs, pad=False, idle=0,
        data=() if file is None else (file,),
    )  # fmt: skip
