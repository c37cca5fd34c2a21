"""FIRE: kernels are replaced by the nearest isometries."""

import math
from collections.abc import Collection
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Repeats, metadata
from plasticity.core import linalg, trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Context, Key, Learner, ModulePath, Network, Params, State
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Intervention
from plasticity.interventions.resets import When, scheduled
from plasticity.interventions.weights import Kernels, kernels_of

Scale = Literal["ratio", "one"]


def isometric(kernel: Array, iterations: int, scale: Scale) -> Array:
    """The nearest isometry of each matrix ``[inputs, units]`` of a kernel, one for each position of a convolution.

    It is multiplied by ``sqrt(units / inputs)`` ("ratio") or 1 and divided by the number of positions.
    """
    positions, (inputs, outputs) = math.prod(kernel.shape[:-2]), kernel.shape[-2:]
    factor = (math.sqrt(outputs / inputs) if scale == "ratio" else 1.0) / positions
    return factor * linalg.newton_schulz(kernel, iterations)


def projected(network: Network, params: Params, paths: Collection[ModulePath], iterations: int, scale: Scale) -> Params:
    """The parameters with :func:`isometric` kernels in the modules under ``paths`` and the network's constraints."""
    for path in paths:
        at = (*path, "kernel")
        params = trees.put(params, at, isometric(trees.get(params, at), iterations, scale))
    return network.project(params)


@metadata(
    paper="Han, Park, Oh, Kim, Lee, Kim 2026, FIRE: Frobenius-Isometry Reinitialization for Balancing the "
    "Stability-Plasticity Tradeoff",
    checked="NumPy's singular value decomposition; the equation follows the authors' code, the paper was not read",
    neutral={"when": "never"},
    only_with={"period": {"when": ("periodic",)}},
)
def fire(
    *,
    when: When = "switch",
    period: Count = 20_000,
    layers: Kernels = "all",
    iterations: Repeats = 10,
    scale: Scale = "ratio",
    optimizer: Literal["keep", "slots", "all"] = "all",
    target: bool = True,
) -> Intervention:
    """FIRE: replace each kernel by the nearest isometry, the least change that makes all its singular values equal.

    ``W <- sqrt(units / inputs) U V^T`` for a kernel ``W = U S V^T``, ``[inputs, units]``. A convolution has one such
    matrix for each position of its window; each is projected by itself and also divided by the number of positions.
    ``U V^T`` is approximated by the Newton-Schulz iteration ``X <- 3/2 X - 1/2 X X^T X`` from ``X = W / |W|_F``. Biases
    and normalisations are unchanged, and so is the replay buffer. All settings are static.

    Args:
        when: at every task switch, after every ``period``-th update, or never, as in :func:`reset`.
        period: number of updates.
        layers: the kernels of all layers, output layers included, of the hidden layers alone, or of the named layers.
        iterations: of Newton-Schulz. Singular values far below ``|W|_F`` need more to reach 1: with 10 iterations, one
            of a hundredth of ``|W|_F`` gets to 0.53.
        scale: "ratio" is the factor above; "one" leaves it out.
        optimizer: whether the optimizer's whole state is reset ("all"), only the slots of the projected kernels
            ("slots"), or nothing ("keep").
        target: whether the target network becomes a copy of the network.

    Raises:
        ValueError: for an unknown name or a period below 1 and, while tracing, for a network without such layers.

    The defaults and the equation follow the authors' code; the paper's text was not read. The code begins each task
    with a new optimizer in its experiments with images, and projects all dense layers of actor and critics of SAC, with
    a new optimizer and the target critic a copy. Its DQN on Atari projects the convolutions alone, redraws the dense
    layers and keeps the optimizer: ``[{kind: fire, layers: [hidden_0, hidden_1, hidden_2], optimizer: keep}, {kind:
    reset, modules: [hidden_3, output], optimizer: false}]``. In vision transformers it projects queries and keys only,
    and it knows no schedule: when to apply it is given from outside. A kernel that is 0 stays 0. With ``weight_norm``
    only directions are projected, and ``simba_v2`` afterwards restores its norms.
    """
    check("scale", scale, ("ratio", "one"))
    check("optimizer", optimizer, ("keep", "slots", "all"))
    units.check_layers(layers, ("all", "hidden"))  # type: ignore[arg-type]

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        rule, paths = context.optimizer, kernels_of(context.network, layers, "fire").values()
        params = projected(context.network, learner.params, paths, iterations, scale)
        opt_state = learner.opt_state
        if optimizer == "all":
            opt_state = rule.init(params)
        elif optimizer == "slots":
            masks = surgery.nowhere(params)
            for path in paths:
                masks = surgery.marked(masks, (*path, "kernel"), jnp.ones((), bool))
            opt_state = surgery.reset_slots(rule, opt_state, params, masks)
        copied = target and bool(jax.tree.leaves(learner.target))
        return state, learner._replace(params=params, opt_state=opt_state, target=params if copied else learner.target)

    return scheduled(when, period, step)
