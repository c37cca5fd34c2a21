"""Interventions that pull parameters towards their initial values and perturb them."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import Count, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Context, Key, Learner, ModulePath, Network, Optimizer, Params, State
from plasticity.interventions.base import Intervention, every
from plasticity.interventions.base import when as conditionally
from plasticity.interventions.penalties import check_selected
from plasticity.interventions.resets import When, scheduled
from plasticity.optim.step_sizes import forwarded

Noise = Literal["fresh", "gaussian", "initial"]
Per = Literal["layer", "network"]


def noise_like(key: Key, tree: Params) -> Params:
    """Independent standard normal numbers in the tree's shapes, with a separate key for each array."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


@metadata(
    paper="Ash, Adams 2020, On Warm-Starting Neural Network Training",
    checked="one step by hand; mean and variance of Gaussian noise; the defaults are another paper's",
    neutral={"shrink": 1.0, "perturb": 0.0},
    only_with={"period": {"when": ("periodic",)}, "sigma": {"noise": ("gaussian",)}},
    note="soft: {when: periodic, period: 1, shrink: 0.999999, perturb: 1.0e-6}",
)
def shrink_perturb(
    *,
    when: When = "switch",
    period: Count = 1,
    shrink: NonNegative = 0.5,
    perturb: NonNegative = 0.5,
    noise: Noise = "fresh",
    sigma: NonNegative = 1.0,
    which: Literal["kernels", "all"] = "all",
) -> Intervention:
    """Shrink and perturb: ``theta <- shrink theta + perturb p``.

    Args:
        when: at every task switch, after every ``period``-th update, or never, as in ``reset`` (static).
        period: number of updates; 1 means after each (static).
        shrink: traced.
        perturb: traced.
        noise: what ``p`` is (static). "fresh": the parameters of a new network, redrawn each time. "gaussian":
            ``p ~ N(0, sigma^2)``, redrawn each time. "initial": the learner's own initial parameters, a deterministic
            pull towards them.
        sigma: standard deviation of the Gaussian noise (traced).
        which: "kernels", the parameters with two or more axes, or "all" (static).

    Raises:
        ValueError: for an unknown name or a period below 1 and, while tracing, if no parameter is selected.

    Optimizer and target network are unchanged. The defaults are those of Juliani, Ash 2024, "A Study of Plasticity Loss
    in On-Policy Deep Reinforcement Learning", whose soft variant is 0.999999 and 1e-6 after every update. Ash and Adams
    add normal noise when data arrive. Its mean is 0, so normalisation scales shrink towards 0 as well. For a small
    network, drawing noise after every update costs more than the update.
    """
    check("noise", noise, ("fresh", "gaussian", "initial"))
    check("which", which, ("kernels", "all"))

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return params if noise == "initial" else ()

    def drawn(key: Key, state: State, learner: Learner, context: Context) -> Params:
        if noise == "gaussian":
            return jax.tree.map(lambda x: sigma * x, noise_like(key, learner.params))
        return state if noise == "initial" else context.fresh(key).params

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        def leaf(theta: Array, p: Array) -> Array:
            return shrink * theta + perturb * p if which == "all" or theta.ndim >= 2 else theta

        check_selected(which, learner.params)
        params = jax.tree.map(leaf, learner.params, drawn(key, state, learner, context))
        return state, learner._replace(params=params)

    return scheduled(when, period, step)._replace(init=init)


class Drift(NamedTuple):
    """The plug-in state of :func:`soft_reset`."""

    gamma: Array  # float32[layers], last value found; 1: no drift
    mean: Params  # mu0
    deviation: Params  # sigma0, a float32[] for each array


class Scaled(NamedTuple):
    """The state of the optimizer in :func:`soft_reset`."""

    factors: Array  # float32[layers], what the next update is multiplied by
    inner: optax.OptState


def layer_of(path: ModulePath) -> ModulePath:
    """The layer that a parameter belongs to: its module, or the module that contains its normalisation."""
    module = path[:-1]
    return module[:-1] if module and module[-1] == "norm" else module


def layer_numbers(params: Params, per: Per) -> list[int]:
    """The layer index of each parameter array, in leaf order; all 0 for the whole network."""
    layers = [layer_of(path) if per == "layer" else () for path in trees.paths(params)]
    order: Mapping[ModulePath, int] = {layer: i for i, layer in enumerate(dict.fromkeys(layers))}
    return [order[layer] for layer in layers]


def spread_out(numbers: Array, params: Params, per: Per) -> Params:
    """The per-layer numbers as a tree with one ``float32[]`` for each parameter array."""
    structure = jax.tree.structure(params)
    return jax.tree.unflatten(structure, [numbers[i] for i in layer_numbers(params, per)])


def ones_for(params: Params, per: Per) -> Array:
    return jnp.ones(len(set(layer_numbers(params, per))))


def drifted(params: Params, drift: Drift, gamma: Array, per: Per) -> Params:
    """``gamma theta + (1 - gamma) mu0``."""
    return jax.tree.map(lambda x, m, c: c * x + (1.0 - c) * m, params, drift.mean, spread_out(gamma, params, per))


def scaled_by_layer(optimizer: Optimizer, per: Per) -> Optimizer:
    """``optimizer`` with its next update multiplied by ``factors``, which then return to 1 until they are set again."""

    def init(params: Params) -> Scaled:
        return Scaled(ones_for(params, per), optimizer.init(params))

    def update(gradients: Params, state: Scaled, params: Params = None, **extra: Any) -> tuple[Params, Scaled]:
        updates, inner = optimizer.update(gradients, state.inner, params, **extra)
        factors = spread_out(state.factors, updates, per)
        return jax.tree.map(jnp.multiply, updates, factors), Scaled(jnp.ones_like(state.factors), inner)

    def learning_rate(state: Scaled) -> Array:
        return jnp.mean(state.factors) * optimizer.learning_rate(state.inner)

    return Optimizer(init, update, forwarded(optimizer, learning_rate))


def is_scaled(node: Any) -> bool:
    return isinstance(node, Scaled)


def with_factors(state: optax.OptState, factors: Array) -> optax.OptState:
    """An optimizer's state with the factors of its next update written into its :class:`Scaled`.

    ``ValueError`` (while tracing) if there is a second one inside.
    """

    def leaf(node: Any) -> Any:
        if not is_scaled(node):
            return node
        if any(is_scaled(inner) for inner in jax.tree.leaves(node.inner, is_leaf=is_scaled)):
            raise ValueError("a second soft_reset is not allowed; an arm can have one")
        return node._replace(factors=factors)

    return jax.tree.map(leaf, state, is_leaf=is_scaled)


@metadata(
    paper="Galashov et al. 2024, Non-Stationary Learning of Neural Networks with Automatic Soft Parameter Reset",
    checked="steps by hand on quadratic losses, and the mean slope of samples in closed form; much of the equation "
    "and all defaults are our reconstruction",
    neutral={"gamma_learning_rate": 0.0},
    note="the paper's method after secondary sources: how gamma is learned and the step size grows is unverified",
)
def soft_reset(
    *,
    period: Count = 1,
    gamma_learning_rate: NonNegative = 0.01,
    gamma_steps: Count = 1,
    restart: bool = True,
    per: Per = "layer",
    predict: Literal["sample", "mean"] = "sample",
    spread: Positive = 0.5,
    prior: Literal["initial", "zero"] = "initial",
) -> Intervention:
    """Soft reset: before an update, parameters drift towards a prior as far as this helps to predict the next batch.

    Drift: ``theta' ~ N(gamma theta + (1 - gamma) mu0, (gamma^2 spread^2 + 1 - gamma^2) sigma0^2)``, where ``spread
    sigma0`` is the standard deviation that the learner assigns to its own parameters. ``gamma`` in [0, 1] is found by
    ``gamma_steps`` gradient steps of size ``gamma_learning_rate`` on the task loss of the next training batch, at one
    sample of ``theta'`` (``predict="sample"``) or at its mean. Then ``theta <- gamma theta + (1 - gamma) mu0``, and the
    optimizer's update from there is multiplied by ``gamma^2 + (1 - gamma^2) / spread^2``, the ratio of the variance
    after the drift to that before it. With ``gamma = 1`` nothing happens.

    Args:
        period: number of updates (static).
        gamma_learning_rate: traced.
        gamma_steps: gradient steps on ``gamma`` (static).
        restart: whether ``gamma`` starts at 1 before each update, otherwise at its last value (static).
        per: one ``gamma`` for each layer or one for the network (static).
        predict: static.
        spread: traced; useful up to 1.
        prior: ``mu0`` is the learner's initial parameters, or zero for kernels (static).

    Raises:
        ValueError: for an unknown name or a count below 1 and, while tracing, for a second soft reset in one agent.

    ``sigma0`` is the standard deviation of each array's initial values. We had no full text of the paper. The drift to
    a prior, gamma by predictive likelihood and a larger step size after drift are its method; the exact objective, the
    formula of the step size and all defaults are our reconstruction. The paper's variants with several proximal steps
    or a learned posterior are not implemented. Each gradient step on gamma costs a forward and a backward pass.
    """
    check("per", per, ("layer", "network"))
    check("predict", predict, ("sample", "mean"))
    check("prior", prior, ("initial", "zero"))
    if gamma_steps < 1:
        raise ValueError(f"gamma_steps: {gamma_steps} is not allowed; must be at least 1")

    def init(key: Key, params: Params, network: Network) -> Drift:
        del key, network
        mean = jax.tree.map(lambda x: jnp.zeros(()) if prior == "zero" and x.ndim >= 2 else x, params)
        return Drift(ones_for(params, per), mean, jax.tree.map(jnp.std, params))

    def deviation_of(gamma: Array) -> Array:
        return jnp.sqrt(gamma**2 * spread**2 + 1.0 - gamma**2)

    def strength_of(key: Key, drift: Drift, params: Params, context: Context) -> Array:
        def predicted(gamma: Array, key: Key) -> Array:
            centre = drifted(params, drift, gamma, per)
            if predict == "mean":
                return context.loss(centre)
            width = spread_out(deviation_of(gamma), params, per)
            return context.loss(
                jax.tree.map(lambda m, w, s, e: m + w * s * e, centre, width, drift.deviation, noise_like(key, params))
            )

        def descend(i: Array, gamma: Array) -> Array:
            slope = jax.grad(predicted)(gamma, jax.random.fold_in(key, i))
            return jnp.clip(gamma - gamma_learning_rate * slope, 0.0, 1.0)

        start = jnp.ones_like(drift.gamma) if restart else drift.gamma
        return jax.lax.fori_loop(0, gamma_steps, descend, start)

    def prepare(key: Key, state: Drift, learner: Learner, context: Context) -> tuple[Drift, Learner]:
        gamma = strength_of(key, state, learner.params, context)
        factors = gamma**2 + (1.0 - gamma**2) / spread**2
        params = drifted(learner.params, state, gamma, per)
        opt_state = with_factors(learner.opt_state, factors)
        return state._replace(gamma=gamma), learner._replace(params=params, opt_state=opt_state)

    return Intervention(
        init=init,
        optimizer=lambda optimizer: scaled_by_layer(optimizer, per),
        prepare=conditionally(every(period), prepare),
    )
