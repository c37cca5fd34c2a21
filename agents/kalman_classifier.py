"""A classifier whose output layer is a Kalman filter with a learned rate of forgetting."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.agents.base import NOISE, AgentCore, assemble_built, built
from plasticity.agents.kalman import Belief, corrected, drifted, gaussian_losses, predicted, softmax_losses
from plasticity.agents.past import complete
from plasticity.agents.supervised import check_targets
from plasticity.config.fields import TRACED, Member, NonNegative, Positive, Repeats, metadata
from plasticity.core.errors import check
from plasticity.core.outputs import OUTPUT, Logits, Outputs
from plasticity.core.schedules import Number
from plasticity.core.types import (
    Activation,
    Agent,
    AgentState,
    Array,
    Clock,
    Key,
    Metrics,
    Network,
    Optimizer,
    Params,
    Probe,
    StreamSpec,
    Supervised,
    TimeStep,
    Transition,
)
from plasticity.interventions.base import Intervention
from plasticity.networks.functions import as_graph
from plasticity.networks.spec import NetworkSpec

HEAD = "output"  # the module with the means of the weights
FILTER = "filter"  # its name in ``AgentState.rest``
Forgetting = Annotated[float, Field(gt=0, le=1), TRACED]
Objective = Literal["softmax", "gaussian"]


class Filter(NamedTuple):
    """What the agent remembers besides the means of the weights, which are the output layer's parameters."""

    covariance: Array  # [d + 1, d + 1]: of the weights of one output and its bias; the same for all
    drift: Array  # float32[]: delta >= 0, with gamma = exp(-delta / 2)
    log_scale: Array  # float32[]: logarithm of the calibration

    @property
    def gamma(self) -> Array:
        return jnp.exp(-self.drift / 2)


class Rules(NamedTuple):
    """The agent's settings, except network and optimizer."""

    prior: Number
    noise: Number
    gamma: Number
    gamma_learning_rate: Number
    objective: Objective
    calibration: Number
    calibration_learning_rate: Number
    samples: int
    learns: bool  # the features


def with_bias(features: Array) -> Array:
    """The features and a constant 1, whose weight is the bias."""
    return jnp.concatenate([features, jnp.ones((len(features), 1))], axis=-1)


def means_of(params: Params) -> Array:
    """The means of the weights of all outputs, ``[d + 1, K]``; the last row is the bias."""
    return jnp.concatenate([params[HEAD]["kernel"], params[HEAD]["bias"][None]])


def moved_by(optimizer: Optimizer) -> Optimizer:
    """The optimizer, whose update also adds ``shift[d + 1, K]``, if it is given one, to the output layer."""

    def update(gradients: Params, state: Any, params: Params = None, *, shift: Any = None, **extra: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params, **extra)
        if shift is None:
            return updates, state
        head = updates[HEAD]
        moved = {**head, "kernel": head["kernel"] + shift[:-1], "bias": head["bias"] + shift[-1]}
        return {**updates, HEAD: moved}, state

    return optimizer._replace(update=update)


class Features(NamedTuple):
    """The network without its output layer."""

    network: Network  # the same network with an output for each feature
    size: int

    def __call__(self, params: Params, observation: Any) -> tuple[Array, Mapping[str, Activation]]:
        """The features ``[E, d + 1]`` with the constant, and the activations."""
        plain = {"kernel": jnp.eye(self.size), "bias": jnp.zeros(self.size)}
        features, activations = self.network.forward({**params, HEAD: plain}, observation)
        return with_bias(features), activations


def head_of(network: Network, spec: NetworkSpec) -> int:
    """The number of features that the output layer reads; ``ValueError`` unless it is the only one and plain."""
    if network.outputs != ((HEAD,),) or network.task_heads or spec.sphere:
        raise ValueError(
            "agent.kind: kalman_classifier needs a network with one output layer, whose weights are free and the same "
            "for all tasks; this network, or a method that rewrites it, has another"
        )
    size: int = jax.eval_shape(network.init, jax.random.key(0))[HEAD]["kernel"].shape[0]
    return size


def from_zero(network: Network) -> Network:
    """The network with an output layer that is 0 at first: the mean of the prior."""

    def init(key: Key) -> Params:
        params = network.init(key)
        return {**params, HEAD: jax.tree.map(jnp.zeros_like, params[HEAD])}

    return network._replace(init=init)


def begun(rules: Rules, size: int) -> Filter:
    covariance = rules.prior * jnp.eye(size + 1)
    drift = -2 * jnp.log(jnp.asarray(rules.gamma, jnp.float32))
    return Filter(covariance, drift, jnp.log(jnp.asarray(rules.calibration, jnp.float32)))


class Predictor(NamedTuple):
    """Predictions of the next step and their losses (static)."""

    features: Features
    rules: Rules
    classes: int

    def believed(self, params: Params, memory: Filter) -> Belief:
        """The distribution of the weights at the next step."""
        return drifted(Belief(means_of(params), memory.covariance), memory.gamma, self.rules.prior)

    def expected(
        self, params: Params, memory: Filter, observation: Any
    ) -> tuple[Array, Array, Mapping[str, Activation]]:
        """Means and variance of the outputs at the next step, and the activations."""
        seen, activations = self.features(params, observation)
        return *predicted(self.believed(params, memory), seen), activations

    def losses(self, means: Array, spread: Array, labels: Array, memory: Filter, draws: Array) -> Array:
        return softmax_losses(means, spread, labels, jnp.exp(memory.log_scale), draws)

    def draws(self, key: Key) -> Array:
        return jax.random.normal(key, (self.rules.samples, self.classes))

    def loss_on(self, batch: Supervised, memory: Filter, draws: Array) -> Callable[[Params], tuple[Array, Any]]:
        """The loss for the features; the output layer gets no gradient from it."""

        def loss(params: Params) -> tuple[Array, Any]:
            held = {**params, HEAD: jax.lax.stop_gradient(params[HEAD])}
            held = held if self.rules.learns else jax.lax.stop_gradient(held)
            means, spread, activations = self.expected(held, memory, batch.input)
            return jnp.mean(self.losses(means, spread, batch.target, memory, draws)), activations

        return loss

    def tuned(self, memory: Filter, params: Params, seen: Array, labels: Array, draws: Array) -> Filter:
        """One gradient step on the predictive likelihood for ``delta`` and the logarithm of the calibration."""
        rules = self.rules

        def losses(drift: Array, log_scale: Array) -> tuple[Array, Array]:
            now = memory._replace(drift=drift, log_scale=log_scale)
            means, spread = predicted(self.believed(params, now), seen)
            gaussian = jnp.mean(gaussian_losses(means, spread, jax.nn.one_hot(labels, self.classes), rules.noise))
            return jnp.mean(self.losses(means, spread, labels, now, draws)), gaussian

        def chosen(drift: Array, log_scale: Array) -> Array:
            return losses(drift, log_scale)[rules.objective == "gaussian"]

        slope = jax.grad(chosen)(memory.drift, memory.log_scale)
        steepness = jax.grad(lambda log_scale: losses(memory.drift, log_scale)[0])(memory.log_scale)
        drift = jnp.maximum(memory.drift - rules.gamma_learning_rate * slope, 0.0)
        return memory._replace(drift=drift, log_scale=memory.log_scale - rules.calibration_learning_rate * steepness)


def learner(core: AgentCore, features: Features, rules: Rules, classes: int) -> Agent:
    """The agent of these components."""
    network, predictor = core.network, Predictor(features, rules, classes)

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return core.init(key)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        batch, memory, params = transition.previous.observation, state.rest[FILTER], state.learner.params
        draws = predictor.draws(jax.random.fold_in(key, NOISE))
        seen = jax.lax.stop_gradient(features(params, batch.input)[0])
        new = predictor.tuned(memory, params, seen, batch.target, draws)
        targets = jax.nn.one_hot(batch.target, classes)
        belief = corrected(predictor.believed(params, new), seen, targets, rules.noise)
        made, plugins, metrics = core.update(
            key, state.learner, state.plugins, predictor.loss_on(batch, memory, draws), batch.input, clock,
            shift=belief.mean - means_of(params),
        )  # fmt: skip
        told = {"gamma": new.gamma, "calibration": jnp.exp(new.log_scale), "updates": jnp.ones(())}
        rest = {**state.rest, FILTER: new._replace(covariance=belief.covariance)}
        return AgentState(made, plugins, rest), {**metrics, **told}

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        batch, memory = transition.previous.observation, state.rest[FILTER]
        draws = predictor.draws(jax.random.key(0))  # the same at every measurement

        def losses(params: Params) -> Array:
            means, spread, _ = predictor.expected(params, memory, batch.input)
            return predictor.losses(means, spread, batch.target, memory, draws)

        def logits(params: Params, observation: Array) -> Array:
            scale = jnp.exp(memory.log_scale) * memory.gamma
            found: Array = scale * network.forward(params, observation)[0]
            return found

        valid = jnp.ones(transition.current.step_type.shape, bool)
        return core.probe(state.learner, batch.input, losses, valid, logits, "logits", clock)

    def play(key: Key, state: AgentState, observation: Supervised, epsilon: Array) -> Array:
        del key, epsilon  # the outputs have equal variances: the likeliest class has the largest mean
        outputs = network.forward(core.acting(state), observation.input)[0]
        return jnp.argmax(outputs, axis=-1).astype(jnp.int32)

    def act(key: Key, state: AgentState, observation: Supervised, clock: Clock) -> Array:
        del clock
        return play(key, state, observation, jnp.zeros(()))

    return Agent(init, act, learn, core.switch, probe, play)


@metadata(
    paper="Titsias, Galashov, Rannen-Triki, Pascanu, Teh, Bornschein 2024, Kalman Filter for Online Classification of "
    "Non-Stationary Data",
    checked="the filter by conditioning one joint Gaussian, the agent in NumPy's precision form, probabilities by "
    "quadrature; all defaults are ours",
)
def kalman_classifier(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    features: Literal["learned", "fixed"] = "learned",
    prior_variance: Positive = 0.03,
    noise_variance: Positive = 0.1,
    gamma: Forgetting = 0.999,
    gamma_learning_rate: NonNegative = 1e-4,
    objective: Objective = "softmax",
    calibration: Positive = 1.0,
    calibration_learning_rate: NonNegative = 1e-2,
    samples: Repeats = 100,
) -> Agent:
    """A classifier whose output layer is a Kalman filter, with a rate of forgetting that is learned online.

    The weights ``w`` of each class drift: ``w_n ~ N(gamma w_{n-1}, (1 - gamma^2) s I)``, ``w_0 ~ N(0, s I)``, with a
    step ``n`` for each minibatch. With the features ``x`` of an example (what the output layer reads, and a constant)
    and its class as the target ``y``, one-hot, ``y_k ~ N(w_k^T x, v)``. The filter (``agents.kalman``) keeps the means
    ``m`` of the weights, which are the output layer's parameters, and their covariance ``A``, the same for all classes:

    * predict: ``m <- gamma m``, ``A <- gamma^2 A + (1 - gamma^2) s I``;
    * learn from the minibatch: ``S = x A x^T + v I``, ``m <- m + A x^T S^-1 (y - x m)``, ``A <- A - A x^T S^-1 x A``.

    The probability of class k is ``E softmax(c f)_k``, with ``f_k ~ N(m_k^T x, x^T A x)`` after "predict", by Monte
    Carlo with ``samples`` draws; the prediction is the class with the largest mean. Before the filter learns from a
    minibatch, one gradient step on its negative log probability changes ``delta``, with ``gamma = exp(-delta / 2)`` and
    ``delta >= 0``, and the logarithm of the calibration ``c``; ``m`` and ``A`` of the step before are held fixed. The
    optimizer changes the features by the gradient of the same loss, and never the output layer.

    Args:
        network: a graph with one output layer, which begins at 0.
        optimizer: of the features.
        features: "learned", or "fixed" at their initial values (static); with an ``mlp`` without hidden layers they are
            the inputs.
        prior_variance: ``s`` (traced). The predictions begin with a variance of ``s |x|^2``.
        noise_variance: ``v`` (traced).
        gamma: its initial value (traced); with 1 and a learning rate of 0 nothing is ever forgotten.
        gamma_learning_rate: of ``delta`` (traced).
        objective: the likelihood that ``gamma`` is learned by (static): that of the class ("softmax"), or the Gaussian
            one of the targets ("gaussian"), which needs no draws. With "softmax", gamma also falls where nothing
            changes, the more the larger its rate; with "gaussian" it does not, also at a rate of 1e-3.
        calibration: the initial ``c`` (traced).
        calibration_learning_rate: of its logarithm (traced).
        samples: of the Monte Carlo estimate (static).

    Raises:
        ValueError: on a stream without class labels, for an unknown name, or for a network with several output layers,
            outputs for each task, or constrained output weights.

    Of the paper, the recursions, the learned rate of forgetting, the Monte Carlo estimate and the training of the
    features by the predictive probability were verified, but its full text could not be read: one-hot targets, the
    parameterisation of ``gamma``, the logarithm of the calibration, several examples in a step and all defaults are
    ours. Its variant with replay is not included. A reset of everything at switches resets the filter too (``rest``),
    a reset of the output layer alone the means only.

    The covariance has ``(features + 1)^2`` numbers.
    """
    check_targets(spec, "kalman_classifier", "class labels", jnp.integer)
    check("features", features, ("learned", "fixed"))
    check("objective", objective, ("softmax", "gaussian"))
    rules = Rules(
        prior_variance, noise_variance, gamma, gamma_learning_rate, objective, calibration, calibration_learning_rate,
        samples, features == "learned",
    )  # fmt: skip
    described = as_graph(network(spec.observation.input, spec.actions), "agent.kind: kalman_classifier")
    whole = built(described, intervention)
    size = head_of(whole, described)
    core = assemble_built(
        from_zero(whole), optimizer(), intervention, trace=moved_by, minibatch=spec.envs,
        rest=lambda created: {FILTER: begun(rules, size)},
    )  # fmt: skip
    of_features = Features(built(replace(described, outputs=size), intervention), size)

    def read(params: Params, observation: Array) -> Outputs:
        return {OUTPUT: Logits(core.network.forward(params, observation)[0])}

    return complete(spec, core, read, lambda core: learner(core, of_features, rules, spec.actions), supervised=True)
