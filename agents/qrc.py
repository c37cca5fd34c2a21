"""QRC(lambda): gradient temporal-difference control with eligibility traces, one update for each step."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actor_critic import separate
from plasticity.agents.base import AgentCore, assemble_built
from plasticity.agents.normalise import NEEDS, Normalise, Preprocessor, Share
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch
from plasticity.agents.streaming import (
    CONTROL_NETWORK,
    EXPLORATION,
    Newest,
    Update,
    initial_memory,
    preprocessor_of,
    streaming_agent,
    trace_metrics,
)
from plasticity.agents.truncation import Truncation
from plasticity.agents.value_based import greedy_policy, value_of_action
from plasticity.config.fields import BelowOne, Fraction, Member, NonNegative, metadata
from plasticity.core.errors import check
from plasticity.core.outputs import Outputs, Values
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import Agent, Array, Clock, Key, Learner, Metrics, Params, State, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import corrected, parts

VALUE, CORRECTION = "value", "correction"  # the networks q and h
OPTIMIZER = {"kind": "sgd", "learning_rate": 1e-4}
CORRECTION_OPTIMIZER = {"kind": "sgd", "learning_rate": 1e-5}
Correction = Literal["tdc", "gtd2"]


class Estimates(NamedTuple):
    """What the two networks say of a batch of transitions, ``[B]`` each."""

    q: Array  # [B, actions]
    h: Array  # of the action taken
    errors: Array
    activations: Any


class Estimators(NamedTuple):
    """The two networks, and how they are read."""

    body: AgentCore

    def values(self, params: Params, observation: Any) -> Array:
        q: Array = self.body.network.forward(params, observation)[0][VALUE]
        return q

    def outputs(self, params: Params, observation: Any) -> Outputs:
        """What the networks say, for interventions."""
        made = self.body.network.forward(params, observation)[0]
        return {name: Values(made[name]) for name in (VALUE, CORRECTION)}

    def of(self, params: Params, held: Params, batch: Batch) -> Estimates:
        """``held``: the parameters of the bootstrap value."""
        made, activations = self.body.network.forward(params, batch.observation)
        following = jnp.max(self.values(held, batch.next_observation), axis=-1)
        errors = batch.reward + batch.discount * following - value_of_action(made[VALUE], batch.action)
        return Estimates(made[VALUE], value_of_action(made[CORRECTION], batch.action), errors, activations)

    def losses(self, params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        """``delta^2 / 2 + (delta - h)^2 / 2``, with ``delta`` held fixed in the second term."""
        made = self.of(params, held, batch)
        apart = jax.lax.stop_gradient(made.errors) - made.h
        return 0.5 * jnp.square(made.errors) + 0.5 * jnp.square(apart), made.activations


class Terms(NamedTuple):
    """The gradients of an update; those of ``q(s, a)`` and ``h(s, a)`` are two parts of one tree."""

    estimates: Estimates
    own: Params  # of q(s, a) and h(s, a)
    error: Params  # of delta


def terms(nets: Estimators, params: Params, batch: Batch) -> Terms:
    def said(params: Params) -> tuple[Array, Estimates]:
        made = nets.of(params, params, batch)
        return value_of_action(made.q, batch.action)[0] + made.h[0], made

    own, made = jax.grad(said, has_aux=True)(params)
    return Terms(made, own, jax.grad(lambda params: nets.of(params, params, batch).errors[0])(params))


def corrected_update(
    nets: Estimators, discount: Number, trace_decay: Number, regularisation: Number, correction: Correction
) -> Update:
    """One update of both networks."""
    body, keeps = nets.body, 1.0 if correction == "tdc" else 0.0

    def update(
        key: Key, learner: Learner, plugins: State, newest: Newest, clock: Clock
    ) -> tuple[Learner, State, Metrics]:
        held, batch = learner.params, newest.batch
        context = body.context(clock, batch.observation, lambda params: jnp.mean(nets.losses(params, held, batch)[0]))
        learner, plugins = body.prepare(key, learner, plugins, context)
        made, own, slope = terms(nets, learner.params, batch)
        gradient = {VALUE: jax.tree.map(lambda g: keeps * g, own[VALUE]), CORRECTION: own[CORRECTION]}
        penalty = body.penalty_gradients(learner, plugins, context)
        penalty = jax.tree.map(lambda p, g: p + made.h[0] * g, penalty, gradient)
        shrunk = jax.tree.map(lambda p, w: p + regularisation * w, penalty[CORRECTION], learner.params[CORRECTION])
        learner, plugins = body.finish(
            key,
            learner,
            plugins,
            gradient,
            context._replace(activations=made.activations),
            batch.valid[0],
            td_error=made.errors[0],
            trace_decay=jnp.asarray(discount * trace_decay, jnp.float32),
            trace_start=newest.first,
            trace_end=newest.ended | (batch.action[0] != jnp.argmax(made.q[0])),
            penalty={VALUE: penalty[VALUE], CORRECTION: shrunk},
            estimate=made.h[0],
            error_gradient=slope,
        )
        return learner, plugins, {**trace_metrics(body, learner, made.errors[0]), "correction": jnp.abs(made.h[0])}

    return update


@metadata(
    paper="Elelimy, Daley, Patterson, Machado, White, White 2025, Deep Reinforcement Learning with Gradient "
    "Eligibility Traces",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand, also without regularisation "
    "and with `gtd2`",
    only_with=NEEDS,
)
def qrc(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = CONTROL_NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = OPTIMIZER,
    correction_optimizer: Annotated[Any, Member("optimizers")] = CORRECTION_OPTIMIZER,
    discount: BelowOne = 0.99,
    trace_decay: Fraction = 0.8,
    regularisation: NonNegative = 1.0,
    correction: Correction = "tdc",
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """QRC(lambda): Q-learning along the gradient of a projected Bellman error, with traces, from each step once.

    Besides ``q`` (parameters w), a network ``h`` (parameters theta) with the same hidden layers estimates the error
    ``delta = r + discount d max_a q(s', a) - q(s, a)``. With ``c = discount trace_decay`` and all terms before the
    update::

        z_w <- c z_w + grad q(s, a)    z_theta <- c z_theta + grad h(s, a)    z_h <- c z_h + h(s, a)
        w     <- w     + alpha   (delta z_w - h(s, a) grad q(s, a) - z_h grad delta)
        theta <- theta + alpha_h (delta z_theta - h(s, a) grad h(s, a) - regularisation theta)

    ``grad delta`` is the whole gradient, that of ``max_a q(s', a)`` included, unlike in ``stream_q``. The three traces
    are reset after the update at terminations, lost lives, truncations and non-greedy actions.

    Penalties do not enter the traces. With an optimizer that bounds its step (``obgd``), the corrections count like a
    penalty; the paper has neither.

    Args:
      spec: the stream.
      intervention: changes networks, optimizers and updates. The networks are called ``value`` and ``correction``.
      network: of both; they share no parameters.
      optimizer: of q. The step sizes are those of the paper's code for MinAtar (plain descent).
      correction_optimizer: of h.
      discount: traced.
      trace_decay: lambda. Traced.
      regularisation: of h; 0 gives QC(lambda). Traced.
      correction: "tdc"; "gtd2": ``w <- w - alpha z_h grad delta``, which is GQ2(lambda). Static.
      epsilon: a schedule over the env steps since the agent was initialised.
      normalise: see ``stream_q``, as for the following three.
      normalise_rate: of "exponential".
      scale_rewards: whether rewards are scaled.
      truncation: whether a truncated episode bootstraps.

    Returns:
      The agent of one lane. Metrics: ``td_error`` and ``correction``, the magnitudes of ``delta`` and ``h(s, a)``; the
      step size of ``q``. The loss that monitors see is ``delta^2 / 2 + (delta - h)^2 / 2``.

    Raises:
      ValueError: as in ``stream_q``; an unknown ``correction``.

    Reference: Elelimy, Daley, Patterson, Machado, White, White 2025, "Deep Reinforcement Learning with Gradient
    Eligibility Traces"; compared with its released code.
    """
    preprocessor = preprocessor_of("qrc", spec, normalise, normalise_rate, scale_rewards, discount, truncation)
    check("agent.correction", correction, ("tdc", "gtd2"))
    heads = dict.fromkeys((VALUE, CORRECTION), spec.actions)
    wired = separate(network, preprocessor.observation, heads, dict.fromkeys(heads), intervention)
    rule = parts({VALUE: optimizer(), CORRECTION: correction_optimizer()})
    body = assemble_built(wired, rule, intervention, rest=initial_memory(preprocessor), trace=corrected, envs=1)

    def make(core: AgentCore) -> Agent:
        nets = Estimators(core)
        update = corrected_update(nets, discount, trace_decay, regularisation, correction)
        return acting(nets, preprocessor, epsilon(), update, discount, truncation)

    return complete(spec, body, Estimators(body).outputs, make)


def acting(
    nets: Estimators,
    preprocessor: Preprocessor,
    epsilon: Schedule | Callable[[Array], Array],
    update: Update,
    discount: Number,
    truncation: Truncation,
) -> Agent:
    policy, losses, values = greedy_policy(nets.values), nets.losses, nets.values
    return streaming_agent(
        nets.body, preprocessor, policy, epsilon, update, losses, values, "values", discount, truncation
    )
