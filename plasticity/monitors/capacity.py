"""Target-fitting capacity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity.config.fields import NonNegative, Size, metadata
from plasticity.core.masked import mean_where
from plasticity.core.types import Array, Key, Metrics, Probe, State
from plasticity.monitors.base import NOT_NEGATIVE, Monitor
from plasticity.monitors.fitting import Rows, Start, at, at_least_one, outputs, train
from plasticity.optim import optimizers

Distance = Callable[[Array, Array], Array]  # targets [B, n], predictions [B, n] -> [B]


def divergence(targets: Array, predictions: Array) -> Array:
    """``KL(p || q) = sum_a p_a (log p_a - log q_a)`` of softmax policies, from their logits ``[B, n]`` -> ``[B]``."""
    log_p, log_q = jax.nn.log_softmax(targets), jax.nn.log_softmax(predictions)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def squared(targets: Array, predictions: Array) -> Array:
    """Mean squared error of each row, ``[B]``."""
    return jnp.mean((targets - predictions).reshape(targets.shape[0], -1) ** 2, axis=-1)


def _distance(name: str, probe: Probe) -> Distance:
    """KL for logits that the agent decides by (the outputs named "policy", or the only ones), else squared error."""
    return divergence if probe.meaning == "logits" and name in ("", "policy") else squared


@metadata(paper="Moalla, Miele, Pyatko, Pascanu & Gulcehre 2024, No Representation, No Trust", period=10)
def capacity(*, learning_rate: NonNegative = 1e-3, batch: Size = 32) -> Monitor:
    """The remaining loss after fitting the learner to the outputs of a fresh network; higher is worse.

    A copy of the learner with a fresh Adam is trained for one epoch of shuffled minibatches over the probe's batch. The
    loss is ``KL(softmax f_w || softmax f_theta)`` if the outputs are a policy's or a classifier's logits, and
    ``(f_theta - f_w)^2`` otherwise (values, predictions, the atoms of a distribution); ``w`` are freshly initialised
    parameters. The loss after the epoch is reported, on the valid rows of the whole batch.

    Metrics: ``capacity``. If the outputs have names, also ``capacity/policy`` and ``capacity/value``, each fitted
    separately from the current learner; ``capacity`` is their sum.

    Reference: Moalla, Miele, Pyatko, Pascanu & Gulcehre 2024, No Representation, No Trust, who call it plasticity loss
    or capacity loss. In Lyle, Rowland & Dabney 2022, Understanding and Preventing Capacity Loss in Reinforcement
    Learning, target-fitting capacity is also a loss, at convergence on a data set.

    Args:
        learning_rate: of Adam (traced). The default is ours. The paper uses the learning rate of the run's optimizer;
            set it to that for comparison.
        batch: rows of a minibatch, at most the probe's batch (static). The default is ours. The paper uses the run's
            minibatch size. Rows after the last full minibatch are not trained on.

    Cost: for each named output, one forward and backward pass on every row. ``ValueError`` for ``batch`` below 1.

    The paper fits on a fixed data set, that of the run's first rollout; here the data are recent transitions, so
    numbers are comparable only if the data are. The divergence is the paper's, from the target to the fitted output.
    For a policy over real numbers the means are fitted with the squared error.
    """
    at_least_one(batch=batch)
    rule = optimizers.adam(learning_rate=learning_rate)

    def fitted(key: Key, probe: Probe, name: str, target: Array) -> Array:
        """The loss of one output after the epoch."""
        distance, size = _distance(name, probe), min(batch, target.shape[0])
        steps = target.shape[0] // size
        rows = jax.random.permutation(key, target.shape[0])[: steps * size].reshape(steps, size)

        def loss(params: object, batch_rows: Rows = None) -> Array:
            made = outputs(probe.network, params, at(probe.observation, batch_rows))[name]
            return mean_where(at(probe.valid, batch_rows), distance(at(target, batch_rows), made))

        start = Start(probe.learner.params, rule.init(probe.learner.params))
        return loss(train(rule, start, loss, steps, key, rows))

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        fresh_key, shuffled = jax.random.split(key)
        targets = outputs(probe.network, probe.fresh(fresh_key).params, probe.observation)
        found = {name: fitted(shuffled, probe, name, target) for name, target in targets.items()}
        parts = {f"capacity/{name}": value for name, value in found.items() if name}
        return state, {"capacity": sum(found.values(), jnp.zeros(()))} | parts

    return Monitor(measure, ranges={"capacity": NOT_NEGATIVE})
