"""Learners for supervised streams: the ``E`` envs form a minibatch, and an action is the prediction for one input."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import optax

from plasticity.agents.base import AgentCore, Meaning, assemble
from plasticity.agents.categorical import check_atoms, check_range, expected, spread
from plasticity.agents.past import complete
from plasticity.config.fields import Fraction, Member, Positive, Repeats, metadata
from plasticity.core.outputs import OUTPUT, Logits, Output, Outputs, Values
from plasticity.core.schedules import Number
from plasticity.core.types import (
    Agent,
    AgentState,
    Array,
    Clock,
    Key,
    Learner,
    Metrics,
    Params,
    Probe,
    StreamSpec,
    Supervised,
    TimeStep,
    Transition,
)
from plasticity.interventions.base import Intervention

Predict = Callable[[Array], Array]  # outputs [E, n] -> actions [E, ...]
Criterion = Callable[[Array, Array], Array]  # outputs [E, n], targets [E, ...] -> losses [E]


def _supervised(
    spec: StreamSpec,
    body: AgentCore,
    predict: Predict,
    criterion: Criterion,
    meaning: Meaning,
    outputs: Callable[[Array], Output],
) -> Agent:
    def read(params: Params, observation: Array) -> Outputs:
        return {OUTPUT: outputs(body.network.forward(params, observation)[0])}

    return complete(spec, body, read, lambda core: _learner(core, predict, criterion, meaning), supervised=True)


def _learner(body: AgentCore, predict: Predict, criterion: Criterion, meaning: Meaning) -> Agent:
    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Supervised, clock: Clock) -> Array:
        del clock
        return play(key, state, observation, jnp.zeros(()))

    def loss_on(batch: Supervised) -> Callable[[Params], tuple[Array, Any]]:
        def loss(params: Params) -> tuple[Array, Any]:
            outputs, activations = body.network.forward(params, batch.input)
            return jnp.mean(criterion(outputs, batch.target)), activations

        return loss

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        batch = transition.previous.observation
        loss = loss_on(batch)

        def another(key: Key, other: Learner) -> Learner:
            return body.plain(key, other, loss)

        facts = (loss, batch.input, clock)
        learner, plugins, metrics = body.update(key, state.learner, state.plugins, *facts, another=another)
        return AgentState(learner, plugins, state.rest), {**metrics, "updates": jnp.ones(())}

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        batch = transition.previous.observation

        def outputs(params: Params, observation: Array) -> Array:
            found: Array = body.network.forward(params, observation)[0]
            return found if meaning == "logits" else predict(found)

        def losses(params: Params) -> Array:
            return criterion(body.network.forward(params, batch.input)[0], batch.target)

        valid = jnp.ones(transition.current.step_type.shape, bool)
        return body.probe(state.learner, batch.input, losses, valid, outputs, meaning, clock)

    def play(key: Key, state: AgentState, observation: Supervised, epsilon: Array) -> Array:
        del key, epsilon
        return predict(body.network.forward(body.acting(state), observation.input)[0])

    return Agent(init, act, learn, body.switch, probe, play)


def check_targets(spec: StreamSpec, agent: str, wanted: str, dtype: Any) -> None:
    """Raise ``ValueError`` if the stream's observations have no targets of this dtype."""
    if not isinstance(spec.observation, Supervised) or not jnp.issubdtype(spec.observation.target.dtype, dtype):
        raise ValueError(f"agent.kind: {agent} is not allowed; it needs a stream with {wanted}")


def _body(spec: StreamSpec, intervention: Intervention, network: Any, optimizer: Any, atoms: int = 1) -> AgentCore:
    described = network(spec.observation.input, spec.actions * atoms)
    return assemble(described, optimizer(), intervention, minibatch=spec.envs)


@metadata(checked="loss, gradient and step by hand")
def classifier(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    label_smoothing: Fraction = 0.0,
) -> Agent:
    """Softmax classifier: mean cross-entropy over the minibatch; the prediction is the class with the largest logit.

    ``label_smoothing`` s (traced) replaces the one-hot target by ``(1 - s) one_hot + s / classes``. ``ValueError``
    on a stream without class labels.
    """
    check_targets(spec, "classifier", "class labels", jnp.integer)

    def cross_entropy(logits: Array, labels: Array) -> Array:
        targets = optax.smooth_labels(jnp.eye(spec.actions)[labels], label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def largest(logits: Array) -> Array:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    return _supervised(spec, _body(spec, intervention, network, optimizer), largest, cross_entropy, "logits", Logits)


def _categorical(
    spec: StreamSpec,
    intervention: Intervention,
    network: Any,
    optimizer: Any,
    encoding: tuple[Any, Number],
    values: tuple[float, float, int],
) -> Agent:
    """Regression by classification."""
    low, high, atoms = values
    check_atoms(atoms)
    check_range(low, high)
    distribute = spread(*encoding) if encoding[0] in ("two_hot", "hl_gauss") else None
    if distribute is None:
        raise ValueError(f"agent.loss: {encoding[0]} is not allowed; must be one of squared, two_hot, hl_gauss")

    def predict(outputs: Array) -> Array:
        return expected(outputs.reshape(-1, spec.actions, atoms), jnp.linspace(low, high, atoms))

    def cross_entropy(outputs: Array, targets: Array) -> Array:
        wanted = distribute(targets.reshape(-1), jnp.linspace(low, high, atoms))
        entropies = optax.softmax_cross_entropy(outputs.reshape(-1, atoms), wanted)
        return jnp.mean(entropies.reshape(-1, spec.actions), axis=-1)

    def distributions(outputs: Array) -> Output:
        return Logits(outputs.reshape(-1, spec.actions, atoms))

    body = _body(spec, intervention, network, optimizer, atoms)
    return _supervised(spec, body, predict, cross_entropy, "prediction", distributions)


@metadata(checked="loss, gradient and step by hand; `hl_gauss` against SciPy's normal distribution")
def regressor(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    loss: Literal["squared", "two_hot", "hl_gauss"] = "squared",
    atoms: Repeats = 51,
    v_min: float = -10.0,
    v_max: float = 10.0,
    sigma: Positive = 0.75,
) -> Agent:
    """Regression: the mean over minibatch and outputs of ``(prediction - target)^2`` or of a categorical loss.

    With ``loss`` "two_hot" or "hl_gauss" (static), each output is a distribution over ``atoms`` values from ``v_min``
    to ``v_max`` (all static). The target is turned into a distribution (``agents.categorical``; ``sigma``, traced), the
    loss is the cross-entropy against it, and the prediction is the mean. The recorded performance is the negative
    squared error in either case. ``ValueError`` on a stream without real-valued targets, for an unknown loss, fewer
    than two atoms or an empty range.
    """
    check_targets(spec, "regressor", "real-valued targets", jnp.floating)
    if loss != "squared":
        return _categorical(spec, intervention, network, optimizer, (loss, sigma), (v_min, v_max, atoms))

    def squared_error(outputs: Array, targets: Array) -> Array:
        return jnp.mean((outputs - targets) ** 2, axis=-1)

    def identity(outputs: Array) -> Array:
        return outputs

    body = _body(spec, intervention, network, optimizer)
    return _supervised(spec, body, identity, squared_error, "prediction", Values)
