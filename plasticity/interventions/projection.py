"""Interventions that project parameters back onto a set after an update."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Context, Key, Learner, Network, Optimizer, Params, State
from plasticity.interventions.base import Intervention, every, no_penalty, unchanged, when
from plasticity.interventions.penalties import Which
from plasticity.optim.descent import Descent, has_schedule

if TYPE_CHECKING:
    from plasticity.networks.spec import NetworkSpec

Affine = Literal["none", "free", "joint", "penalty"]


def rescaled(part: Params, length: Array) -> Params:
    """The arrays of ``part``, as one vector, scaled to the Euclidean norm ``length`` (a zero vector stays zero)."""
    factor = length / jnp.maximum(trees.norm(part), jnp.finfo(jnp.float32).tiny)
    return jax.tree.map(lambda x: factor * x, part)


def restarted(state: Any) -> Any:
    """An optimizer's state with its schedule restarted; moments and the counts of their bias correction continue."""

    def leaf(node: Any) -> Any:
        return node._replace(done=jnp.zeros_like(node.done)) if isinstance(node, Descent) else node

    return jax.tree.map(leaf, state, is_leaf=lambda node: isinstance(node, Descent))


def distance_from_identity(network: Network, params: Params) -> Array:
    """``sum_l |scale_l - 1|^2 + |offset_l|^2`` over the normalisations of the hidden layers."""
    norms = [trees.get(params, path) for path in network.norms]
    terms = [jnp.sum(jnp.square(x - (name == "scale"))) for norm in norms for name, x in norm.items()]
    return sum(terms, jnp.zeros(()))


@metadata(
    paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning",
    checked="two invariants: the norms of hidden kernels stay, to 1e-6 over 50 updates, and predictions do not "
    "depend on them; the penalty by hand; the equation is second-hand, the default of `affine_strength` is "
    "ours",
    only_with={"affine_strength": {"affine": ("penalty",)}},
    note="it acts at switches with restart=switch only",
)
def nap(
    *,
    period: Count = 1,
    norm: Literal["layer", "rms"] = "layer",
    affine: Affine = "joint",
    affine_strength: NonNegative = 1e-2,
    bias: bool = False,
    restart: Literal["never", "switch"] = "never",
) -> Intervention:
    """Normalize-and-Project: normalisation before every hidden non-linearity, with kernels held at their initial norm.

    After every ``period``-th update, for each hidden kernel ``W`` (for a convolution: the whole kernel), ``W <- W
    |W_0|_F / |W|_F``. The output layer, which is not followed by a normalisation, is unchanged, and so are the
    optimizer's slots. A normalised layer is invariant to the length of ``W``, so this changes no prediction. It only
    keeps the effective step size, ``learning_rate / |W|^2`` for SGD, ``learning_rate / |W|`` for Adam, from decaying.
    The paper therefore adds an explicit schedule (``schedule`` of the optimizer).

    The normalisations have the places that :func:`layer_norm` describes. All hidden kernels are projected: shortcuts,
    embeddings, the last layers of residual blocks, attention's four and those of recurrent cells. Where no
    normalisation follows a kernel (the end of a block in ``impala``, attention, cells), its length does affect
    predictions. ``simba_v2``, which projects its own kernels, is refused.

    Args:
        period: number of updates (static).
        norm: the normalisation (static).
        affine: how its scale and offset are treated (static). "joint", the paper's choice for homogeneous activations,
            rescales the pair ``(scale, offset)`` of each layer to its initial norm along with the kernels. "penalty",
            its choice for other activations, adds ``affine_strength sum_l |scale_l - 1|^2 + |offset_l|^2`` to the loss.
            "free" learns them without projection. "none" omits them.
        affine_strength: traced; the default is ours.
        bias: whether to keep the biases before the normalisation, which the paper drops as redundant (static). With
            them, predictions do depend on the length of ``W``.
        restart: "switch" restarts the optimizer's schedule at every task switch, as the paper does on its sequence of
            games; Adam's moments and bias correction are unchanged (static).

    Raises:
        ValueError: for an unknown name, a period below 1 and, when the agent is built, for ``restart`` "switch" with an
            optimizer whose step size is constant.
    """
    named = {"norm": norm, "affine": affine, "restart": restart}
    known = {"norm": ("layer", "rms"), "affine": ("none", "free", "joint", "penalty"), "restart": ("never", "switch")}
    for key, value in named.items():
        check(key, value, known[key])

    def network(spec: "NetworkSpec") -> "NetworkSpec":
        if not spec.has_hidden:
            raise ValueError("nap needs a network with a hidden layer; this one has none")
        if not spec.takes_normalisation:
            raise ValueError("nap needs a network with a place for a normalisation; this one has none")
        return replace(spec, normalisation=norm, affine=affine != "none", bias=bias)

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return jax.tree.map(trees.norm, params)  # of every array: which modules are hidden is not known here

    def optimizer(rule: Optimizer) -> Optimizer:
        if restart == "switch" and not has_schedule(rule):
            raise ValueError(
                "restart: switch is not allowed; the agent's optimizer has no schedule to restart. Give it one "
                "(schedule), or set restart: never"
            )
        return rule

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state
        return affine_strength * distance_from_identity(context.network, params)

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        params = learner.params
        for path in context.network.hidden:
            kernel = (*path, "kernel")
            params = trees.put(params, kernel, rescaled(trees.get(params, kernel), trees.get(state, kernel)))
        for path in context.network.norms if affine == "joint" else ():
            params = trees.put(params, path, rescaled(trees.get(params, path), trees.norm(trees.get(state, path))))
        return state, learner._replace(params=params)

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, context
        return state, learner._replace(opt_state=restarted(learner.opt_state))

    return Intervention(
        network=network,
        sets=("normalisation",),
        optimizer=optimizer,
        init=init,
        penalty=penalty if affine == "penalty" else no_penalty,
        step=when(every(period), step),
        switch=switch if restart == "switch" else unchanged,
    )


@metadata(
    paper="Elsayed, Lan, Lyle, Mahmood 2024, Weight Clipping for Deep Continual and Reinforcement Learning",
    checked="the limits by hand; the default of `bound` is ours",
)
def weight_clip(*, bound: Positive = 3.0, which: Which = "all", period: Count = 1) -> Intervention:
    """Weight clipping: keep every weight within a multiple of the range of a uniform initialisation.

    After every ``period``-th update ``W <- clip(W, -kappa s_l, kappa s_l)``, with ``s_l = 1 / sqrt(fan_in)`` and
    ``kappa`` the ``bound``, for the kernels of all layers, including the output layers. With ``which`` "all", their
    biases are clipped with the same ``s_l``. Normalisations are unchanged.

    Args:
        bound: traced; the default is ours.
        which: "kernels" or "all" (static).
        period: number of updates (static).

    Raises:
        ValueError: for an unknown name or a period below 1 and, while tracing, for a network without layers.

    The paper's ``s_l`` is the range of its own uniform initialisation. The normal initialisations here exceed that
    range (He's standard deviation is ``sqrt(2) s_l``): a bound below about 4 clips weights at the first update. One
    version of the paper's code uses ``1 / sqrt(rows + columns)``, and 1 for biases.
    """
    check("which", which, ("kernels", "all"))

    def clipped(module: Params) -> Params:
        limit = bound / math.sqrt(math.prod(module["kernel"].shape[:-1]))
        names = ("kernel", "bias") if which == "all" else ("kernel",)
        return {**module, **{name: jnp.clip(module[name], -limit, limit) for name in names if name in module}}

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        params, paths = learner.params, (*context.network.hidden, *context.network.outputs)
        if not paths:
            raise ValueError("weight_clip needs a network with layers; this one has none")
        for path in paths:
            params = trees.put(params, path, clipped(trees.get(params, path)))
        return state, learner._replace(params=params)

    return Intervention(step=when(every(period), step))
