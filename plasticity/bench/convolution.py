"""Time of the gradient of a Nature network, in milliseconds, by implementation of its convolutions."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.bench.timing import QUICK, THOROUGH, Effort, Work, interleaved, ratio
from plasticity.core.types import Array, Params
from plasticity.networks.build import build
from plasticity.networks.presets import nature

ACTIONS = 6
TARGET = 0.8  # time of "auto" in a scan relative to lax outside a loop, at batch 32 on a CPU
Where = Literal["scan", "alone"]


class Contender(NamedTuple):
    method: str  # as in the network's config
    where: Where  # inside a compiled loop, or one call of a compiled gradient after another
    iterations: int  # of the scan, or calls


class Milliseconds(NamedTuple):
    batch: int
    lanes: int
    method: str
    where: Where
    milliseconds: float  # of one gradient of one lane
    of_lax_alone: float  # relative to lax outside a loop


CONTENDERS = (
    Contender("auto", "scan", 8),
    Contender("patches", "scan", 8),
    Contender("lax", "scan", 2),
    Contender("auto", "alone", 8),
    Contender("lax", "alone", 8),
)
SHAPES = ((32, 1), (1, 1), (32, 4))  # batch, lanes


def descent(method: str, side: int) -> tuple[Callable[..., Params], Callable[[Params, Array], Params]]:
    """``init(key)`` and one step of gradient descent on the mean square output, for one lane."""
    shape = jax.ShapeDtypeStruct((4, side, side), np.uint8)
    network = build(nature(shape, ACTIONS, convolution=method))  # type: ignore[arg-type]

    def loss(params: Params, pictures: Array) -> Array:
        return jnp.mean(network.forward(params, pictures)[0] ** 2)

    def step(params: Params, pictures: Array) -> Params:
        return jax.tree.map(lambda p, g: p - 1e-4 * g, params, jax.grad(loss)(params, pictures))

    return network.init, step


def work(contender: Contender, batch: int, lanes: int, side: int = 84) -> Work:
    """``contender.iterations`` gradients of every lane, each on its own images."""
    init, step = descent(contender.method, side)
    across = jax.vmap(step) if lanes > 1 else step
    size = (contender.iterations, *((lanes,) if lanes > 1 else ()), batch, 4, side, side)
    pictures = jnp.asarray(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    keys = jax.random.split(jax.random.key(0), lanes)
    params = jax.vmap(init)(keys) if lanes > 1 else init(keys[0])

    def scan(params: Params, pictures: Array) -> Params:
        return jax.lax.scan(lambda p, seen: (across(p, seen), None), params, pictures)[0]

    def alone(params: Params, pictures: Any) -> Params:
        for seen in pictures:
            params = one(params, seen)
        return params

    one, many = jax.jit(across), jax.jit(scan)
    if contender.where == "scan":
        return lambda: jax.block_until_ready(many(params, pictures))
    each = list(pictures)
    return lambda: jax.block_until_ready(alone(params, each))


def measure(
    batch: int, lanes: int, effort: Effort, contenders: tuple[Contender, ...] = CONTENDERS, side: int = 84
) -> list[Milliseconds]:
    """One row per contender; ``contenders`` include lax outside a loop."""
    turns = interleaved({each: work(each, batch, lanes, side) for each in contenders}, effort)
    each_turn = {each: [1e3 * t / each.iterations / lanes for t in seconds] for each, seconds in turns.items()}
    (base,) = (times for each, times in each_turn.items() if (each.method, each.where) == ("lax", "alone"))
    return [
        Milliseconds(batch, lanes, each.method, each.where, float(np.median(times)), ratio(times, base))
        for each, times in each_turn.items()
    ]


def convolution(say: Callable[[str], None], quick: bool = False) -> list[Milliseconds]:
    """All contenders at batch 32 and 1, and four lanes in one vmap; one device."""
    found: list[Milliseconds] = []
    for batch, lanes in ((1, 1),) if quick else SHAPES:
        say(f"convolution: batch {batch}, {lanes} lanes")
        found += measure(batch, lanes, QUICK if quick else THOROUGH)
    return found


def verdicts(rows: list[Milliseconds]) -> list[str]:
    """The default convolution of networks, in a scan, compared with lax outside a loop."""
    return [
        f"batch {row.batch}, {row.lanes} lanes: auto in a scan takes {row.of_lax_alone:.2f} of lax outside a loop"
        + (f" (target {TARGET} on a CPU)" if (row.batch, row.lanes) == SHAPES[0] else "")
        for row in rows
        if (row.method, row.where) == ("auto", "scan")
    ]
