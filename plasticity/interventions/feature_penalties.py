"""Penalties on a network's hidden features and outputs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Few, NonNegative, Real, Size, metadata
from plasticity.core import linalg, trees
from plasticity.core.errors import check, shown
from plasticity.core.outputs import divergence
from plasticity.core.types import Activation, Array, Context, Key, Learner, Network, Params, State
from plasticity.interventions.base import Intervention, when
from plasticity.interventions.penalties import TINY, Reduce, start_of, total

if TYPE_CHECKING:
    from plasticity.networks.spec import NetworkSpec

Layers = Literal["last", "all"]


def flat(values: Array) -> Array:
    """``[B, ...]`` as a matrix ``[B, d]``."""
    return values.reshape(len(values), -1)


def nearest(network: Network, depth: int) -> list[str]:
    """The hidden layers at most ``depth`` layers before an output; ``ValueError`` (while tracing) if there are none."""
    found = [
        layer.name for layer in sorted(network.layers, key=lambda layer: layer.distance) if layer.distance <= depth
    ]
    if not found:
        raise ValueError("a penalty on features needs a network with a hidden layer")
    return found


def of_network(names: list[str], prefix: str) -> list[str]:
    """The layers of one of several joined networks, or all of them if the prefix is empty.

    ``ValueError`` (while tracing) that lists the layers if none is left.
    """
    kept = [name for name in names if not prefix or name.startswith(f"{prefix}/")]
    if not kept:
        raise ValueError(
            f"network: {shown(prefix)} is not allowed; must be empty or the first part of one of {', '.join(names)}"
        )
    return kept


@metadata(
    paper="Moalla et al. 2024, No Representation, No Trust",
    checked="value and gradient by hand on a linear network; the sum over several layers is our reading",
    neutral={"strength": 0.0},
)
def pfo(*, strength: NonNegative = 1.0, layers: Layers = "last", period: Count = 16, network: str = "") -> Intervention:
    """Proximal feature optimisation: keep pre-activations near those of the policy that collected the data.

    ``strength sum_l mean_{B, d} (z_l(s; theta) - z_l(s; theta_old))^2``, where ``z_l`` is the input to layer ``l``'s
    non-linearity. ``theta_old`` are the parameters before the first of every ``period`` updates.

    Args:
        strength: traced; the paper uses 1 and 10.
        layers: the last hidden layers, or all (static).
        period: number of updates (static). For ``ppo`` use epochs x minibatches; ``theta_old`` is then that of the
            rollout, as in the paper (16 for its defaults). With 1 the penalty is always 0. The first update of a period
            has no penalty either.
        network: the name of one of several joined networks; empty means all (static). The paper's is "policy", with
            separate networks. (``modules`` in a config restricts any method in this way, and this one without copies of
            the other parameters.)

    Raises:
        ValueError: for an unknown name or a period below 1 and, while tracing, for a ``network`` without hidden layers.

    Summing the terms of all layers is our reading of the paper. With a noisy network the current pre-activations
    contain noise and the old ones do not.
    """
    check("layers", layers, ("last", "all"))

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return params

    def refresh(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, state, context
        return learner.params, learner

    def penalty(state: State, params: Params, context: Context) -> Array:
        del params
        depth = 1 if layers == "last" else len(context.network.layers)
        names = of_network(nearest(context.network, depth), network)
        _, old = context.network.forward(state, context.observation)
        return strength * total([jnp.mean(jnp.square(context.activations[n].pre - old[n].pre)) for n in names])

    return Intervention(init=init, penalty=penalty, prepare=when(start_of(period), refresh))


class Spectrum(NamedTuple):
    """The effective rank of a matrix and its gradient."""

    rank: Array  # float32[]
    gradient: Array  # of the matrix's shape


@linalg.one_by_one
def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """The reduced factors of a matrix ``[n, d]``."""
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def spectrum(matrix: Array) -> Spectrum:
    """``exp(H)``, ``H = -sum_i p_i ln p_i``, ``p = s / sum(s)`` for the singular values ``s`` of a matrix; 0 for zeros.

    With ``M = sum_i s_i a_i b_i^T`` the gradient is ``sum_i w_i a_i b_i^T``, ``w_i = -exp(H) (ln p_i + H) / sum(s)``.
    It is written out because the gradient of a decomposition divides by differences of singular values. Where ``p_i <
    1e-6``, single precision does not resolve the direction, and ``w_i = 0``.
    """
    left, values, right = svd(matrix)
    size = jnp.maximum(jnp.sum(values), TINY)
    shares = values / size
    entropy = jnp.sum(jax.scipy.special.entr(shares))
    rank = jnp.where(values[0] > 0, jnp.exp(entropy), 0.0)
    known = shares > 1e-6
    weights = jnp.where(known, -rank * (jnp.log(jnp.where(known, shares, 1.0)) + entropy) / size, 0.0)
    return Spectrum(rank, (left * weights) @ right)


def with_gradient(found: Spectrum, matrix: Array) -> Array:
    """A number with the value ``found.rank`` and the constant gradient ``found.gradient``."""
    held = jax.lax.stop_gradient(matrix)
    return found.rank + jnp.sum(found.gradient * (matrix - held))


@metadata(
    paper="He et al. 2025, Spectral Collapse Drives Loss of Plasticity in Deep Continual Learning",
    checked="NumPy's singular values, and the gradient by finite differences; the defaults are ours",
    neutral={"strength": 0.0, "decay": 0.0},
    note="L2-ER",
)
def effective_rank(
    *, strength: NonNegative = 1e-2, decay: NonNegative = 0.0, depth: Few = 2, period: Count = 1
) -> Intervention:
    """L2-ER: raise the effective rank of the last hidden layers' features.

    ``-strength mean_l erank(Phi_l) + decay |theta|^2``. ``Phi_l`` are the post-activations ``[B, d]`` (maps flattened)
    of the layers at most ``depth`` layers before an output. ``erank`` is the exponential of the entropy of the
    normalised singular values (Roy, Vetterli 2007). A batch of one always has rank 1, and no gradient.

    Args:
        strength: traced.
        decay: traced.
        depth: static; 2 in the paper's code.
        period: the rank term is added at the last of every ``period`` updates (static).

    Raises:
        ValueError: for a number below 1 and, while tracing, for a network without hidden layers and for a batch of one.

    In the paper's code the rank is raised by a separate step with its own size, on a batch of 12 to 100. Here it is a
    term of the loss, which the optimizer rescales. The defaults are ours.
    """
    if depth < 1:
        raise ValueError(f"depth: {depth} is not allowed; must be at least 1")
    if period < 1:
        raise ValueError(f"period: {period} is not allowed; must be at least 1")

    def ranks(features: list[Array], context: Context) -> list[Spectrum]:
        held = jax.lax.stop_gradient(features)
        # A true branch outside the gradient: the decompositions cost as much as several updates of a small network.
        return jax.lax.cond(
            (context.clock.update + 1) % period == 0,
            lambda: [spectrum(each) for each in held],
            lambda: [Spectrum(jnp.zeros(()), jnp.zeros_like(each)) for each in held],
        )

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state
        features = [flat(context.activations[name].post) for name in nearest(context.network, depth)]
        if len(features[0]) == 1:
            raise ValueError(
                "effective_rank needs a batch of 2 or more observations; the features of one always have rank 1"
            )
        found = [with_gradient(*pair) for pair in zip(ranks(features, context), features, strict=True)]
        return decay * trees.squared_norm(params) - strength * total(found) / len(found)

    return Intervention(penalty=penalty)


class Balance(NamedTuple):
    """What the strength of :func:`c_chain` follows: running means of both losses over the updates before this one."""

    loss: Array  # float32[]: of the absolute task loss
    churn: Array  # float32[]
    updates: Array  # int32[], their number
    strength: Array  # float32[], of this update


class Last(NamedTuple):
    """State of :func:`c_chain`."""

    previous: Params  # before the last update
    current: Params  # before the current update
    balance: Balance | tuple[()]  # () without ``share``


@metadata(
    paper="Tang et al. 2025, Mitigating Plasticity Loss in Continual Reinforcement Learning by Reducing Churn",
    checked="three updates by hand on a linear network, both distances; `share` against a loop; the default of "
    "`strength` is ours",
    neutral={"strength": 0.0, "share": None},
    note="C-CHAIN",
)
def c_chain(
    *,
    strength: NonNegative = 1.0,
    distance: Literal["squared", "divergence"] = "squared",
    share: NonNegative | None = None,
    warmup: Annotated[int, Field(ge=2, le=2**31 - 1)] = 10_000,
    window: Count = 50_000,
) -> Intervention:
    """C-CHAIN: keep the outputs on another batch near their values before the last update.

    ``strength C``, ``C = mean (f(x; theta_t) - f(x; theta_{t-1}))^2`` over the batch and the outputs, summed over the
    parts of an actor-critic's output. ``x`` is drawn separately from the update's batch (``context.reference``; an
    agent without memory has only that batch). With ``theta_t`` itself in place of ``theta_{t-1}`` the gradient would be
    zero: the penalty undoes the change that the last update made elsewhere.

    With ``share`` the strength follows the losses: after ``warmup`` updates it is ``share m(|L|) / (m(C) + 1e-8)``,
    ``L`` the task loss of the update's batch and ``m`` a running mean over the updates before.

    Args:
        strength: with ``share``, that of the first updates; traced. The default is ours.
        distance: "divergence": ``C = mean_B KL(f(x; theta_{t-1}) || f(x; theta_t))`` of the distributions over actions
            or classes; for values it is half the squared distance, summed over them (static).
        share: approximate size of the term as a share of the task loss; None: a constant strength. Traced.
        warmup: number of updates with the constant strength (static).
        window: the mean is one of all updates up to this number, and an exponential one of this length afterwards
            (static).

    Raises:
        ValueError: for an unknown name, and for a number out of range.

    In the paper's code for Double DQN ``share`` is 0.01, the first ``strength`` 50, and the window slides. Its PPO for
    CartPole has the cross-entropy of the old and the new policy, whose gradient is that of the divergence
    (``modules: [policy]``). The strength there is 1 for 10 rollouts of a task, and then 10,000 times the policy's loss
    divided by the cross-entropy, means over 50 rollouts, but at least 1. That is not ``share``, which divides by the
    divergence alone, a far smaller number.

    The cost is two additional forward passes and a backward pass. After another method replaces parameters (a reset),
    the next update is pulled towards the previous values. That large change is part of ``m(C)`` too and keeps the
    strength small for ``window`` updates, unless the whole agent is reset, which starts the means anew.
    """
    check("distance", distance, ("squared", "divergence"))
    if warmup < 2:  # churn is measured from the second update on, so its mean is known from the third on
        raise ValueError(f"warmup: {warmup} is not allowed; must be at least 2")

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        zero = jnp.zeros(())
        return Last(params, params, () if share is None else Balance(zero, zero, jnp.zeros((), jnp.int32), zero))

    def churn(state: Last, params: Params, context: Context) -> Array:
        reference = context.reference()
        if distance == "divergence":
            old, new = (context.outputs(each, reference) for each in (state.previous, params))
            return jnp.mean(divergence(old, new))
        now, before = (context.network.forward(each, reference)[0] for each in (params, state.previous))
        parts = jax.tree.map(lambda a, b: jnp.mean(jnp.square(a - b)), now, before)
        return total(jax.tree.leaves(parts))

    def balanced(state: Last, share: Array | float, learner: Learner, context: Context) -> Balance:
        """This update's strength, and the means with its losses."""
        loss, moved, done, _ = cast(Balance, state.balance)
        wanted = jnp.where(done < warmup, strength, share * loss / (moved + 1e-8))
        # XLA computes both losses for this and for the gradient at once.
        loss += (jnp.abs(context.loss(learner.params)) - loss) / jnp.minimum(done + 1, window)
        # The first churn is 0, since nothing has changed yet: the second one replaces it.
        moved += (churn(state, learner.params, context) - moved) / jnp.clip(done, 1, window)
        return Balance(loss, moved, done + 1, wanted)

    def prepare(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        state = state._replace(previous=state.current, current=learner.params)
        if share is not None:
            state = state._replace(balance=balanced(state, share, learner, context))
        return state, learner

    def penalty(state: State, params: Params, context: Context) -> Array:
        return (strength if share is None else state.balance.strength) * churn(state, params, context)

    return Intervention(init=init, penalty=penalty, prepare=prepare)


def head_outputs(network: Network, activations: Mapping[str, Activation]) -> list[Array]:
    """The auxiliary layers' outputs on a batch, ``[B, k]`` each."""
    return [activations["/".join(path)].post for path in network.auxiliary]


@metadata(
    paper="Lyle, Rowland, Dabney 2022, Understanding and Preventing Capacity Loss in Reinforcement Learning",
    checked="value and gradient by hand on a linear network; equation and defaults are second-hand, and sources "
    "differ on the sum or the mean over outputs",
)
def infer(
    *, strength: NonNegative = 0.1, scale: Real = 100.0, heads: Size = 10, reduce: Reduce = "mean"
) -> Intervention:
    """Initial feature regularisation (InFeR): auxiliary outputs must keep reproducing their initial values, scaled up.

    ``strength mean_B mean_{i <= k} (g_i(x; theta) - scale g_i(x; theta_0))^2`` for ``k = heads`` linear outputs ``g_i``
    of the last hidden layer's features, which nothing else uses (for joined networks: in each). ``theta_0`` are the
    parameters at the start of the run.

    Args:
        strength: alpha (traced).
        scale: beta (traced).
        heads: number of auxiliary outputs (static).
        reduce: "mean" or "sum" over the outputs (static). Sources differ; the sum is ``heads`` times as strong.

    Raises:
        ValueError: for an unknown name and, while the network is built, if it has no hidden layer.

    The cost is one additional forward pass. The paper's values are for Adam; optimizers whose step depends on the
    gradient's length may diverge with them.
    """
    check("reduce", reduce, ("sum", "mean"))
    pooled = jnp.sum if reduce == "sum" else jnp.mean

    def network(spec: "NetworkSpec") -> "NetworkSpec":
        return replace(spec, auxiliary=spec.auxiliary + heads)

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return params

    def penalty(state: State, params: Params, context: Context) -> Array:
        _, first = context.network.forward(state, context.observation)
        now = head_outputs(context.network, context.activations)
        goals = head_outputs(context.network, first)
        apart = [jnp.mean(pooled(jnp.square(g - scale * goal), axis=-1)) for g, goal in zip(now, goals, strict=True)]
        return strength * total(apart)

    return Intervention(network=network, init=init, penalty=penalty, sets=("auxiliary",))
