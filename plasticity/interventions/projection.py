"""Interventions that put parameters back onto a set after an update."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from plasticity import trees
from plasticity.fields import Count, card
from plasticity.interventions.base import Intervention, every, when
from plasticity.types import Array, Context, Key, Learner, Params, State

if TYPE_CHECKING:
    from plasticity.networks import NetworkSpec

Affine = Literal["none", "free", "joint"]


def rescaled(part: Params, length: Array) -> Params:
    """The arrays of ``part``, as one vector, scaled to the Euclidean norm ``length`` (a zero vector stays zero)."""
    factor = length / jnp.maximum(trees.norm(part), jnp.finfo(jnp.float32).tiny)
    return jax.tree.map(lambda x: factor * x, part)


@card(paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning")
def nap(
    *,
    period: Count = 1,
    norm: Literal["layer", "rms"] = "layer",
    affine: Affine = "joint",
    bias: bool = False,
) -> Intervention:
    """Normalize-and-Project: normalisation before every hidden non-linearity, kernels held at their initial norm.

    After every ``period``-th update, for each hidden kernel ``W`` (of a convolution: the whole kernel),
    ``W <- W |W_0|_F / |W|_F``. The output layer, which no normalisation follows, is left alone. The optimizer's slots
    are not touched. A normalised layer does not feel the length of ``W``, so this changes no prediction; it only keeps
    the effective step size, ``learning_rate / |W|^2`` for SGD, ``learning_rate / |W|`` for Adam, from decaying. The
    paper therefore adds an explicit schedule (``schedule`` of the optimizer).

    ``norm`` is the normalisation. ``affine`` says what becomes of its scale and offset: "joint", the paper's choice
    for homogeneous activations, gives the pair ``(scale, offset)`` of each layer its initial norm along with the
    kernels; "free" lets them learn unprojected; "none" has none. ``bias`` keeps the biases in front of the
    normalisation, which the paper drops as redundant (with them, predictions do feel the length of ``W``). All static.
    The paper's other way with scale and offset, a penalty towards (1, 0) where the activation is not homogeneous, is
    not here. ``ValueError`` for an unknown name or a period below 1.
    """
    for key, value, known in (("norm", norm, ("layer", "rms")), ("affine", affine, ("none", "free", "joint"))):
        if value not in known:
            raise ValueError(f"{key} must be one of {', '.join(known)}; got {value!r}")

    def network(spec: "NetworkSpec") -> "NetworkSpec":
        return replace(spec, normalisation=norm, affine=affine != "none", bias=bias)

    def init(key: Key, params: Params) -> State:
        del key
        return jax.tree.map(trees.norm, params)  # of every array: which modules are hidden is not known here

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        params = learner.params
        for path in context.network.hidden:
            module, lengths = trees.get(params, path), trees.get(state, path)
            module = {**module, "kernel": rescaled(module["kernel"], lengths["kernel"])}
            if affine == "joint":
                module["norm"] = rescaled(module["norm"], trees.norm(lengths["norm"]))
            params = trees.put(params, path, module)
        return state, learner._replace(params=params)

    return Intervention(network=network, init=init, step=when(every(period), step))
