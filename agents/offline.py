"""Learning from recorded transitions: the stream's minibatch takes the place of a replay's sample.

A criterion (what to learn from a batch) is as in the replay regime; only where the batch comes from differs. There is
one update at each step, no exploration, and nothing is stored. Agents: Q-learning with a scalar or a categorical loss,
conservative Q-learning, behavioural cloning.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from plasticity.agents.base import AgentCore, assemble_built, built, no_target
from plasticity.agents.c51 import Bound, categorical_criterion
from plasticity.agents.categorical import Targets, action_logits, check_atoms, check_support, spread
from plasticity.agents.criteria import Criterion, Extend, Losses, unchanged
from plasticity.agents.dqn import q_criterion
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch, clipped
from plasticity.agents.replay_regime import PROBE, Updating
from plasticity.agents.replay_source import Memory, Sample, Sampling
from plasticity.agents.replay_timing import Timing
from plasticity.agents.stream_checks import check_recorded
from plasticity.config.fields import BelowOne, Count, Member, NonNegative, Positive, Repeats, metadata
from plasticity.core.schedules import Number
from plasticity.core.types import (
    Activation,
    Agent,
    AgentState,
    Array,
    Clock,
    Key,
    Logged,
    Metrics,
    Network,
    Params,
    Probe,
    StreamSpec,
    TimeStep,
    Transition,
)
from plasticity.interventions.base import Intervention

# The settings of the authors' code for CQL on Atari.
ADAM = {"kind": "adam", "learning_rate": 5e-5, "eps": 0.0003125}


def as_batch(logged: Logged, gamma: Number, reward_clip: Number | None) -> Batch:
    """Convert recorded transitions to a batch of 1-step transitions."""
    reward, discount = clipped(logged.reward, reward_clip), gamma * logged.discount
    valid = jnp.ones(reward.shape, bool)
    return Batch(logged.observation, logged.action, reward, discount, logged.next_observation, valid)


def unweighted(batch: Batch) -> Sample:
    """The batch as a sample, with equal weights."""
    rows = len(batch.reward)
    return Sample(batch, jnp.ones(rows), jnp.zeros(rows, jnp.int32))


def minibatch(size: int) -> Memory:
    """A memory whose state is the minibatch of the step."""

    def kept(state: Any, *_: Any) -> Any:
        return state

    def sample(state: Batch, key: Key, age: Any) -> Sample:
        del key, age
        return unweighted(state)

    return Memory(tuple, kept, lambda state: jnp.ones((), bool), sample, kept, size, 1, reviews=False)


def no_exploration(age: Any) -> Array:
    del age
    return jnp.zeros(())


def offline_core(network: Network, optimizer: Any, intervention: Intervention, targets: bool = True) -> AgentCore:
    """The body of an offline agent; ``targets``: with a copy of the parameters as the target network."""
    target = (lambda params: params) if targets else no_target
    return assemble_built(network, optimizer(), intervention, target=target)


def offline_agent(
    spec: StreamSpec, body: AgentCore, criterion: Criterion, target_period: int, sampling: Sampling
) -> Agent:
    """Build an offline agent; ``sampling`` has the discount and the bound of the rewards."""
    timing = Timing(1, 1, 1, target_period)

    def make(core: AgentCore) -> Agent:
        return offline_learner(core, criterion, timing, sampling)

    return complete(spec, body, criterion.outputs, make, supervised=True)


def offline_learner(body: AgentCore, criterion: Criterion, timing: Timing, sampling: Sampling) -> Agent:
    """The functions of an offline agent."""
    updating = Updating(body, minibatch(sampling.batch_size), timing, criterion)

    def batch_of(transition: Transition) -> Batch:
        return as_batch(transition.previous.observation, sampling.discount, sampling.reward_clip)

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Logged, clock: Clock) -> Array:
        del clock
        return play(key, state, observation.observation, jnp.zeros(()))

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        return criterion.play(key, body.acting(state), observation, epsilon)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        batch = batch_of(transition)
        (learner, plugins), metrics, _ = updating.all(key, state.learner, state.plugins, batch, clock.step, clock)
        return AgentState(learner, plugins, state.rest), metrics

    def recall(state: AgentState, transition: Transition, clock: Clock, key: Key) -> Probe:
        learner, batch = state.learner, batch_of(transition)
        weights = jnp.ones(len(batch.reward))

        def losses(params: Params) -> Array:
            return criterion.loss(key, batch, weights, params, learner.target).losses

        seen, scores, meaning = criterion.inputs(batch), criterion.scores, criterion.meaning
        return body.probe(learner, seen, losses, batch.valid, scores, meaning, clock)

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        return recall(state, transition, clock, jax.random.key(PROBE))

    return Agent(init, act, learn, body.switch, probe, play, recall=recall)


def conservative_gap(q: Array, action: Array) -> Array:
    """``log sum_a exp q(s, a) - q(s, a_data)``, ``[B]``; ``q [B, actions]``."""
    return jax.nn.logsumexp(q, axis=-1) - jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]


def conservative(alpha: Number) -> Extend:
    """Add ``alpha`` times :func:`conservative_gap` to the loss of each transition."""

    def extend(losses: Losses) -> Losses:
        def extended(batch: Batch, params: Params, target: Params) -> tuple[Array, Array, Mapping[str, Activation]]:
            each, q, activations = losses(batch, params, target)
            return each + alpha * conservative_gap(q, batch.action), q, activations

        return extended

    return extend


def _q_learner(
    spec: StreamSpec,
    intervention: Intervention,
    network: Any,
    optimizer: Any,
    discount: Number,
    double: bool,
    huber: Number,
    reward_clip: Number | None,
    target_period: int,
    extend: Extend = unchanged,
) -> Agent:
    """Q-learning with a scalar loss."""
    made = built(network(spec.observation.observation, spec.actions), intervention)
    body = offline_core(made, optimizer, intervention)
    criterion = q_criterion(made, no_exploration, double, huber, extend=extend)
    return offline_agent(spec, body, criterion, target_period, Sampling(spec.envs, 1, discount, reward_clip))


@metadata(
    paper="Agarwal, Schuurmans, Norouzi 2020, An Optimistic Perspective on Offline Reinforcement Learning",
    checked="losses in NumPy, and one step along JAX's gradient of them",
)
def offline_dqn(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    discount: BelowOne = 0.99,
    double: bool = False,
    huber: NonNegative = 1.0,
    reward_clip: Positive | None = 1.0,
    target_period: Count = 2_000,
) -> Agent:
    """DQN that learns offline, from recorded transitions (the stream ``dataset``), for one lane.

    ``L = mean_B h(r + discount d max_a q_target(s', a) - q(s, a))`` with ``h`` the Huber loss and ``d`` 0 where the
    episode terminated, as :func:`plasticity.agents.dqn.dqn` with ``n_step: 1``. B is the stream's minibatch: one update
    at every step. There is no exploration; evaluations play greedily.

    Traced: ``discount``; ``huber`` (gradient bound, 0 for squared error); ``reward_clip`` (static None: not clipped).
    Static: ``double`` (the online network selects the maximising action); ``target_period`` in updates.

    ``ValueError`` on any other stream, and if actions are not discrete. Agarwal, Schuurmans, Norouzi 2020, "An
    Optimistic Perspective on Offline Reinforcement Learning", train DQN in this way on the replay of another DQN.
    """
    check_recorded("offline_dqn", spec, discrete=True)
    return _q_learner(spec, intervention, network, optimizer, discount, double, huber, reward_clip, target_period)


@metadata(
    paper="Kumar, Zhou, Tucker, Levine 2020, Conservative Q-Learning for Offline Reinforcement Learning",
    checked="losses in NumPy, the conservative term by hand, and one step along JAX's gradient of them; equation "
    "and defaults follow the authors' code, the paper could not be read",
)
def cql(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    alpha: NonNegative = 1.0,
    discount: BelowOne = 0.99,
    double: bool = False,
    huber: NonNegative = 1.0,
    reward_clip: Positive | None = 1.0,
    target_period: Count = 2_000,
) -> Agent:
    """Conservative Q-learning for discrete actions, CQL(H), for one lane.

    ``L = L_DQN + alpha mean_B [log sum_a exp q(s, a) - q(s, a_data)]``: values of actions that the data do not have are
    pushed down, those of the data's actions up. ``L_DQN`` and all other settings are those of :func:`offline_dqn`,
    which is this with ``alpha: 0``. ``alpha`` is traced.

    ``ValueError`` on any other stream than recorded transitions, and if actions are not discrete. Equation and defaults
    are those of the authors' code for Atari, which adds the term to a quantile loss (QR-DQN) and not to that of DQN;
    its configs have ``alpha`` 1 and its README says to adapt it to the amount of data. The paper's text could not be
    read.
    """
    check_recorded("cql", spec, discrete=True)
    return _q_learner(
        spec, intervention, network, optimizer, discount, double, huber, reward_clip, target_period,
        conservative(alpha),
    )  # fmt: skip


@metadata(
    paper="Agarwal, Schuurmans, Norouzi 2020, An Optimistic Perspective on Offline Reinforcement Learning",
    checked="losses in NumPy, and one step along JAX's gradient of them",
)
def offline_c51(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    discount: BelowOne = 0.99,
    double: bool = False,
    atoms: Repeats = 51,
    v_min: float = -10.0,
    v_max: float = 10.0,
    targets: Targets = "distribution",
    sigma: Positive = 0.75,
    reward_clip: Bound = 1.0,
    target_period: Count = 2_000,
) -> Agent:
    """C51 that learns offline, from recorded transitions (the stream ``dataset``), for one lane.

    ``L = -mean_B sum_i projected_i log p_i(s, a)``, the loss of :func:`plasticity.agents.c51.c51` with ``n_step: 1``
    and its settings; the regime is that of :func:`offline_dqn`. Rewards are always clipped, since those of a dataset
    have no known bounds.

    ``ValueError`` on any other stream, if actions are not discrete, and if ``reward_clip`` lies outside the range of
    values.
    """
    check_recorded("offline_c51", spec, discrete=True)
    check_atoms(atoms)
    check_support(spec._replace(reward_range=(-reward_clip, reward_clip)), v_min, v_max, reward_clip)
    made = built(network(spec.observation.observation, spec.actions * atoms), intervention)
    body = offline_core(made, optimizer, intervention)
    logits = action_logits(made, spec.actions, atoms)
    criterion = categorical_criterion(logits, no_exploration, double, v_min, v_max, atoms, spread(targets, sigma))
    return offline_agent(spec, body, criterion, target_period, Sampling(spec.envs, 1, discount, reward_clip))
