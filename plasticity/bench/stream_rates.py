"""Steps per second of every stream by number of environments, and the overhead of the host path."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.bench.timing import QUICK, Effort, Work, interleaved, ratio
from plasticity.core.types import Clock, Stream, Visit
from plasticity.engine.lanes import lane_keys
from plasticity.envs.base import StreamFactory
from plasticity.runs import launch

THOROUGH = Effort(5, 0.1)
ENVS = (1, 8, 64)
CHUNK, HOST_CHUNK = 500, 20  # steps of one compiled scan
COMPARED = 8  # environments at which the host path is compared with the emulators alone
LIMIT = 0.15  # of the emulators' own time

IMAGES: Mapping[str, Any] = {"inputs": "shapes", "samples": 5000, "flat": False, "standardise": "channel"}
# Rows with other settings than the example's, as ``STREAM, WHAT``.
MORE: Mapping[str, Mapping[str, Any]] = {
    "class_incremental, shapes": IMAGES,
    "class_incremental, augmented shapes": {**IMAGES, "augment": {"flip": 0.5, "crop": 4, "rotate": 15}},
}


class Rate(NamedTuple):
    """One stream, one lane on one device."""

    stream: str
    envs: int
    steps_per_second: float  # of all environments together
    on_host: bool
    overhead: float | None  # time of a step through the host path over that of the emulators alone, minus 1


def source_of(row: str, envs: int) -> StreamFactory:
    """The stream with the example settings in its metadata, those of its row, and ``envs`` environments."""
    name, known = row.partition(", ")[0], launch.registry()
    settings = {**known.metadata("streams", name).example, **MORE.get(row, {}), "envs": envs}
    made: StreamFactory = known.factory("streams", name)(**settings)
    return made


def chunk_of(source: StreamFactory) -> int:
    return CHUNK if source.make_pool is None else HOST_CHUNK


def actions_for(source: StreamFactory) -> np.ndarray:
    """Random actions ``[steps, 1, envs, ...]``."""
    spec, steps, draw = source.spec, chunk_of(source), np.random.default_rng(0)
    if spec.discrete:
        return draw.integers(0, spec.actions, (steps, 1, spec.envs)).astype(np.int32)
    return draw.uniform(-1, 1, (steps, 1, spec.envs, spec.actions)).astype(np.float32)


def playing(source: StreamFactory, stream: Stream) -> Work:
    """A fixed number of steps per call as in the runner: one compiled scan, with the state carried between calls."""
    keys, zero = jax.vmap(lane_keys)(jnp.zeros(1, jnp.int32)).data, jnp.int32(0)
    state, _ = jax.jit(stream.reset)(keys, Visit(zero, zero + source.spec.visits[0].task), zero)
    actions = jnp.asarray(actions_for(source))
    now = 0

    @jax.jit
    def play(state: Any, start: Any) -> Any:
        def body(state: Any, given: Any) -> Any:
            i, action = given
            state, timestep = stream.step(keys, state, action, Clock(start + i, start + i, zero, start + i))
            # All observations are used, or the compiler would remove their computation.
            return state, (timestep.reward.sum(), jax.tree.map(lambda x: x.sum(), timestep.observation))

        return jax.lax.scan(body, state, (jnp.arange(len(actions)), actions))

    def work() -> None:
        nonlocal state, now
        state, seen = play(state, jnp.int32(now))
        jax.block_until_ready((state, seen))
        now += len(actions)

    return work


def bare(source: StreamFactory) -> Work:
    """The emulators alone, a fixed number of steps per call."""
    assert source.make_pool is not None
    pool = source.make_pool(source.spec.visits[0].task, np.arange(1, source.spec.envs + 1, dtype=np.int32))
    pool.reset()
    actions = actions_for(source)[:, 0]

    def work() -> None:
        for row in actions:
            pool.step(row)

    return work


def measure(row: str, envs: int, effort: Effort) -> Rate:
    """One row; a stream on the host is compared with its emulators at ``COMPARED`` environments."""
    source = source_of(row, envs)
    stream = source.make(1)
    compared = source.make_pool is not None and envs == COMPARED
    contenders = {"stream": playing(source, stream)} | ({"bare": bare(source)} if compared else {})
    turns = interleaved(contenders, effort)
    stream.close()
    rate = chunk_of(source) * envs / float(np.median(turns["stream"]))
    overhead = ratio(turns["stream"], turns["bare"]) - 1 if compared else None
    return Rate(row, envs, rate, source.make_pool is not None, overhead)


def streams(say: Callable[[str], None], quick: bool = False) -> list[Rate]:
    """Every stream, including those of installed packages; two of them in the quick version."""
    names = ("catch", "relabelled") if quick else sorted([*launch.registry().names("streams"), *MORE])
    found = []
    for name in names:
        say(f"streams: {name}")
        try:
            found += [measure(name, envs, QUICK if quick else THOROUGH) for envs in ((1, 8) if quick else ENVS)]
        except ValueError as error:  # a package that it needs is missing
            say(f"streams: {name} is left out: {error}")
    return found


def verdicts(rows: Sequence[Rate]) -> list[str]:
    """The overhead of the host path."""
    return [
        f"{row.stream}, {row.envs} envs: the host path adds {row.overhead:.1%} (at most {LIMIT:.0%})"
        for row in rows
        if row.overhead is not None
    ]
