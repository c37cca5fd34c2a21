"""Overhead of the runner's loop, relative to the same updates in a hand-written scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity.bench.agents import advance
from plasticity.bench.cases import CASES, LABELS, job
from plasticity.bench.timing import QUICK, THOROUGH, Effort, Work, interleaved, ratio
from plasticity.core.types import Array
from plasticity.engine.runner import Run
from plasticity.runs import launch

SIZES = (LABELS["dimensions"], 256, 256, LABELS["classes"])
OPTIMIZER = optax.adam(1e-3)
TARGET = 1.15  # of the loop's time to that of the hand-written scan


class Overhead(NamedTuple):
    """One implementation of the quickstart's updates; every device trains one lane at a time."""

    what: str
    lanes: int
    updates_per_second: float  # of all lanes together
    time_of_bare: float  # its time divided by that of the hand-written scan


def forward(params: list[Any], x: Array) -> Array:
    for kernel, bias in params[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    return x @ params[-1][0] + params[-1][1]


def bare_chunk(steps: int, key: Array, inputs: Array, labels: Array, params: Any, slots: Any) -> Any:
    """``steps`` Adam updates of one lane, with its mean accuracy and loss."""

    def loss(params: Any, x: Array, y: Array) -> tuple[Array, Array]:
        outputs = forward(params, x)
        cost = optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()
        return cost, jnp.mean(outputs.argmax(-1) == y)

    def step(carry: Any, i: Array) -> Any:
        params, slots = carry
        rows = jax.random.randint(jax.random.fold_in(key, i), (LABELS["envs"],), 0, LABELS["samples"])
        (cost, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(params, inputs[rows], labels[rows])
        updates, slots = OPTIMIZER.update(gradient, slots, params)
        return (optax.apply_updates(params, updates), slots), (cost, accuracy)

    (params, slots), made = jax.lax.scan(step, (params, slots), jnp.arange(steps))
    return params, slots, jax.tree.map(jnp.mean, made)


def bare_lane(key: Array) -> tuple[Any, ...]:
    """Data, parameters and optimizer slots of one lane."""
    draws = jax.random.split(key, len(SIZES) + 1)
    shapes = zip(draws, SIZES[:-1], SIZES[1:], strict=False)
    params = [(jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, jnp.zeros(m)) for k, n, m in shapes]
    inputs = jax.random.normal(draws[-2], (LABELS["samples"], LABELS["dimensions"]))
    labels = jax.random.randint(draws[-1], (LABELS["samples"],), 0, LABELS["classes"])
    return inputs, labels, params, OPTIMIZER.init(params)


def bare(lanes: int, devices: int, steps: int) -> Work:
    """One chunk of every lane by hand, ``devices`` lanes at a time."""
    mesh = Mesh(np.asarray(launch.devices()[:devices]), ("lanes",))
    spec = PartitionSpec("lanes")

    def block(*state: Any) -> Any:
        one = jax.tree.map(lambda x: x[0], state)
        return jax.tree.map(lambda x: x[None], bare_chunk(steps, *one))

    chunk = jax.jit(
        jax.shard_map(block, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False), donate_argnums=(3, 4)
    )
    keys = jax.random.split(jax.random.key(0), lanes).reshape(-1, devices)
    states = [[keys_of, *jax.vmap(bare_lane)(keys_of)] for keys_of in keys]
    states = [jax.device_put(state, NamedSharding(mesh, spec)) for state in states]

    def work() -> None:
        made = []
        for state in states:
            *state[3:], record = chunk(*state)
            made.append(record)
        jax.device_get(made)

    return work


def compiled_only(run: Run) -> Work:
    """One chunk of every group without the runner's loop: nothing is fetched or recorded."""

    def work() -> None:
        clock = run.clock()
        for group, (hyper, seeds, _) in enumerate(run.inputs):
            run.carries[group], _ = run.compiled.chunk(hyper, seeds, run.carries[group], clock)
        jax.block_until_ready(run.carries)

    return work


def measure(lanes: int, effort: Effort) -> list[Overhead]:
    """Three rows: by hand, the runner's compiled chunk, the runner's loop; interleaved."""
    case = CASES["classifier"]
    planned = job(case, lanes, placement={"width": 1})
    runs = [Run(planned.program, planned.placement, launch.devices()) for _ in range(2)]
    runs[0].begin()
    contenders: dict[str, Work] = {
        "hand-written scan": bare(lanes, planned.placement.devices, case.chunk),
        "compiled chunk": compiled_only(runs[0]),
        "loop": advance(runs[1]),
    }
    turns = interleaved(contenders, effort)
    updates = lanes * case.chunk
    base = turns["hand-written scan"]
    return [Overhead(what, lanes, updates / float(np.median(t)), ratio(t, base)) for what, t in turns.items()]


def loop(say: Callable[[str], None], quick: bool = False) -> list[Overhead]:
    """The quickstart's classifier, one lane to a device and eight lanes."""
    devices = len(launch.devices())
    found: list[Overhead] = []
    for lanes in (devices,) if quick else (devices, 4 * devices):
        say(f"loop: {lanes} lanes")
        found += measure(lanes, QUICK if quick else THOROUGH)
    return found


def verdicts(rows: list[Overhead]) -> list[str]:
    return [
        f"{row.lanes} lanes: the loop takes {row.time_of_bare:.2f} times as long as hand-written (target {TARGET})"
        for row in rows
        if row.what == "loop"
    ]
