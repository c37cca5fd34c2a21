"""The records that pass between the packages of the testbed.

A component is a NamedTuple of pure functions, written for ONE lane (one learner) and unaware of other lanes. Inside a
lane arrays have one leading axis, ``E``, the lane's parallel environments (the minibatch of a supervised stream).
``docs/contracts.md`` explains each record and the rules that hold for it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array
Key = jax.Array
Params = Any
State = Any
ModulePath = tuple[str, ...]
Metrics = Mapping[str, Array]

FIRST, MID, LAST = 0, 1, 2


class TimeStep(NamedTuple):
    """What an environment returns at one step (the four fields of dm_env), arrays ``[E, ...]``."""

    step_type: Array  # int8[E]     FIRST, MID or LAST
    reward: Array  # float32[E]  0 on FIRST
    discount: Array  # float32[E]  0 at termination; 1 at truncation and elsewhere
    observation: Any  # [E, *shape]


class Transition(NamedTuple):
    """Two consecutive time steps; not a transition if ``current`` is FIRST (see :func:`is_transition`)."""

    previous: TimeStep
    action: Array
    current: TimeStep


def is_transition(transition: Transition) -> Array:
    """bool[E]: False where ``current`` starts an episode: the pair spans two episodes and its action was ignored."""
    return transition.current.step_type != FIRST


class Supervised(NamedTuple):
    """The observation of a supervised stream."""

    input: Array  # float32[E, *shape]
    target: Array  # int32[E] class labels, or float32[E, outputs]


class Logged(NamedTuple):
    """The observation of a stream of recorded transitions: one transition of a dataset."""

    observation: Any  # [E, *shape]
    action: Array  # int32[E], or float32[E, actions]: what the recorded policy did
    reward: Array  # float32[E]
    discount: Array  # float32[E]  0 where the episode terminated with this step, else 1
    next_observation: Any


class Held(NamedTuple):
    """The transitions in an agent's replay, arrays ``[E, rows, ...]``, the oldest row first."""

    transitions: Logged  # with the rewards as they were received
    truncated: Array  # bool: the episode was cut off after this step
    valid: Array  # bool: False where the row is empty, spans two episodes, or lacks what was overwritten
    filled: Array  # int32[]: how many rows are, the first ones


class Clock(NamedTuple):
    """Counters shared by all lanes of a program, int32 scalars, traced and never batched (a batched predicate turns
    ``lax.cond`` into a select that runs both branches)."""

    step: Array  # index of the current env step, from 0, counted for each env since the start of the learners
    update: Array  # index of the current update, from 0 (an agent that learns every k-th step divides by k)
    visit: Array  # index of the current visit
    step_in_visit: Array
    shift: Any = ()  # a Shift if the stream counts otherwise than the learners; () if it does not

    @property
    def of_stream(self) -> "Clock":
        """The clock by which the stream counts."""
        if not self.shift:
            return self
        steps, visits, _ = self.shift
        return self._replace(step=self.step + steps, update=self.update + steps, visit=self.visit + visits, shift=())

    @property
    def step_of_run(self) -> Array:
        """The env steps since the start of the run."""
        return self.step + self.shift.of_run if self.shift else self.step


class Shift(NamedTuple):
    """What is added to a clock of learners to obtain others: int32 scalars, traced, never batched."""

    steps: Array  # that of the stream
    visits: Array
    of_run: Array  # the env steps of the run


class Done(NamedTuple):
    """What lies before a run (static): visits of its learners, or of its stream."""

    visits: int = 0
    steps: int = 0  # env steps


class Visit(NamedTuple):
    """A visit to a task, as a stream sees it: int32 scalars, traced.

    For ``Stream.reset`` the tasks may also be int32[W], one for each lane, if each lane has its own task order.
    """

    number: Array
    task: Array
    eval_replica: Array | int = 0  # 0: for learning; others: the same problem with different randomness, for evaluation
    elapsed: Array | int = 0  # env steps since the visit began; above 0 if an evaluation starts in mid-visit


class VisitPlan(NamedTuple):
    """A visit to a task, as the runner plans it (static)."""

    task: int  # index into StreamSpec.tasks
    steps: int  # env steps of each env


class StreamSpec(NamedTuple):
    """What agents, runner and plots may know about a stream (static)."""

    observation: Any  # pytree of jax.ShapeDtypeStruct of ONE env
    actions: int  # number of discrete actions; classes; or the size of a real-valued prediction
    tasks: tuple[str, ...]  # names
    visits: tuple[VisitPlan, ...]
    envs: int  # E
    episodic: bool  # performance is the episodic return, else the mean reward
    discrete: bool = True  # False: `actions` real numbers
    frames_per_step: int = 1
    stack: int = 0  # > 0: the observation's leading axis holds this many frames, the newest last
    reward_name: str = "reward"  # what the reward is, for axis labels: accuracy, return, ...
    reward_range: tuple[float, float] = (-math.inf, math.inf)  # of one step; infinite where unknown
    alike: bool = False  # episodic returns of all tasks are comparable (variants of one problem) and can be averaged
    shuffled: bool = False  # each lane has its own task order (``plasticity.engine.visits.own_task``)
    data: tuple[tuple[str, str], ...] = ()  # files that the stream was built from: absolute path, SHA-256 of the bytes
    score_range: tuple[float, float] | None = None  # of one step's recorded performance; None: that of the reward
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    # lowest and highest value of each real-valued action; None: discrete actions, or some are unbounded
    task_entries: int = 0  # > 0: so many entries at the end of the observation are the task (``core.task_entries``)
    measures: tuple[str, ...] = ()  # what `Stream.measures` gives of each step besides the reward, such as "success"
    measure_ranges: tuple[tuple[float, float], ...] = ()  # of each measure; (): unknown
    skipped: Done = Done()  # what was left out before the first of `visits`; the numbers of visits and steps go on
    prediction: float | None = None  # the discount of the values that actions predict; None: actions act


class Task(NamedTuple):
    """A family of stationary problems, one env, pure. A switch changes ``params``, never the program."""

    spec: StreamSpec
    params: Callable[[Key, Visit], Any]  # data key of the lane -> the parameters of this visit's problem
    reset: Callable[[Key, Any], tuple[State, Any]]  # key, params -> state, observation
    step: Callable[[Key, State, Array, Any], tuple[State, Any, Array, Array, Array]]
    # key, state, action, params -> state, observation, reward, discount, last
    at: Callable[[Any, Array], Any] | None = None
    # params, env steps since the visit began (int32) -> the current params; for problems that change gradually
    measures: Callable[[State], Array] | None = None
    # state after a step -> float32[measures]; required if the spec names measures


def reward_of(state: State, timestep: TimeStep) -> Array:
    del state
    return timestep.reward


def no_measures(state: State, timestep: TimeStep) -> Array:
    """Of a stream whose spec names none: float32[W, E, 0]."""
    del state
    return jnp.zeros((*timestep.reward.shape, 0))


class Stream(NamedTuple):
    """``W`` lanes with ``E`` envs each; arrays are ``[W, E, ...]``. Made by ``envs.base.vectorise`` or ``host``.

    ``keys`` are the lanes' data keys, ``[W]``, the same for every step: a stream derives its own with ``fold_in``.
    ``block`` is the number of this block of lanes in the program (a host stream keeps a pool for each).
    """

    spec: StreamSpec
    reset: Callable[[Key, Visit, Array], tuple[State, TimeStep]]  # keys[W], visit, block
    step: Callable[[Key, State, Array, Clock], tuple[State, TimeStep]]  # keys[W], state, actions[W, E, ...], clock
    # The recorded performance of a step, float32[W, E], from the state and the resulting time step.
    score: Callable[[State, TimeStep], Array] = reward_of
    # The step's `spec.measures`, float32[W, E, measures]; only read if there are any. Ignored where the step is FIRST.
    measures: Callable[[State, TimeStep], Array] = no_measures
    # State outside the arrays (a host stream's emulators); empty for a pure stream.
    save: Callable[[], Mapping[str, np.ndarray]] = dict
    load: Callable[[Mapping[str, np.ndarray]], None] = lambda saved: None
    close: Callable[[], None] = lambda: None
    emulated: bool = False  # it has emulators, which only one run can use


class Activation(NamedTuple):
    """One hidden layer's values on a batch, ``[B, ..., units]``; for a convolution ``[B, H, W, channels]``."""

    pre: Array  # input of the non-linearity (after normalisation)
    post: Array  # its output


class Source(NamedTuple):
    """Parameters that write units."""

    path: ModulePath  # the units are on the last axis of every leaf under it, except the shared ones
    owner: np.ndarray  # int[features]: the unit of each entry of that axis, -1 if it belongs to none of these units
    shared: tuple[str, ...] = ()  # what is under it but belongs to the layer as a whole, such as a learned slope


class Sink(NamedTuple):
    """A kernel that reads units."""

    path: ModulePath  # the module; the units are on its kernel's second to last axis
    owner: np.ndarray  # int[rows]: the unit that feeds each input row, -1 if it is none of these units
    direct: bool = True  # the rows are fed by the units' activation itself, flattened at most


class Units(NamedTuple):
    """The wiring of one layer of hidden units, written by the network builder."""

    name: str  # key into the activations
    size: int  # number of units
    sources: tuple[Source, ...]  # the first one is the layer with the kernel
    sinks: tuple[Sink, ...]
    activations: tuple[str, ...] = ()  # all that show these units; several for a stream
    copies: int = 1  # features per unit in an activation: 2 for crelu
    stream: bool = False  # units of a residual stream, which several layers write and read
    carries: tuple[ModulePath, ...] = ()  # where the carry has them, on the last axis of every leaf

    @property
    def path(self) -> ModulePath:
        """The module whose kernel creates the units."""
        return self.sources[0].path


class HiddenLayer(NamedTuple):
    """A layer with an activation."""

    name: str  # key into the activations
    distance: int = 1  # number of such layers from here to the nearest output layer; 1: an output layer reads it


class Sequence(NamedTuple):
    """Consecutive steps of ``B`` envs, as a batch for a network with memory, arrays ``[T, B, ...]``."""

    observation: Any
    first: Array  # bool[T, B]: the step starts an episode, so the carry is reset before it
    carry: Any  # [B, ...], before the first step


class Modulated(NamedTuple):
    """A network whose hidden layers are modulated (``networks.modulation``)."""

    path: ModulePath  # the module with the modulators
    torso: tuple[ModulePath, ...]  # the modules that stay as they are once the network is frozen


def no_carry(batch: int) -> Any:
    """The carry of a network without memory."""
    del batch
    return ()


def same_params(params: Params) -> Params:
    return params


class Network(NamedTuple):
    """A network's functions and wiring. A network without memory has an empty carry and ignores ``first``."""

    init: Callable[[Key], Params]
    apply: Callable[..., tuple[Any, Mapping[str, Activation], Any]]
    # params, observations [B, *shape], carry [B, ...], first bool[B] -> outputs [B, outputs], activations, carry
    units: tuple[Units, ...] = ()
    hidden: tuple[ModulePath, ...] = ()  # modules with a kernel, in order, without the output layers
    outputs: tuple[ModulePath, ...] = ()  # the output layers' modules, one for each head
    task_heads: tuple[ModulePath, ...] = ()  # the output layers that have units of their own for each task
    reads_task: bool = False  # whether its outputs depend on the task at the end of the observation
    auxiliary: tuple[ModulePath, ...] = ()  # output layers for penalties, whose outputs are among the activations
    layers: tuple[HiddenLayer, ...] = ()  # the hidden layers, in order
    norms: tuple[ModulePath, ...] = ()  # normalisations with a scale
    initial: Callable[[int], Any] = no_carry  # batch -> the carry at the start of an episode
    unrolls: bool = False  # `apply` also takes a whole sequence: rows [T * B, ...] with ``first`` bool[T, B]
    project: Callable[[Params], Params] = same_params  # onto the network's constraints, after every update
    batch_statistics: bool = False  # whether the outputs of a row depend on the other rows of its batch
    modulated: tuple[Modulated, ...] = ()  # itself, or of those that it joins, if its hidden layers are modulated
    parts: Mapping[str, "Network"] = {}  # the networks that it joins, by name; empty for a single network

    def modules(self) -> dict[str, ModulePath]:
        """Every module with a kernel, the output layers last, by the name that a config uses."""
        return {"/".join(path): path for path in (*self.hidden, *self.outputs)}

    @property
    def remembers(self) -> bool:
        """Whether the network has memory."""
        return bool(jax.tree.leaves(jax.eval_shape(lambda: self.initial(1))))

    def forward(self, params: Params, observation: Any) -> tuple[Any, Mapping[str, Activation]]:
        """The outputs and activations of a batch: observations ``[B, ...]``, or a :class:`Sequence`.

        Of a sequence, step by step from its carry, the rows are ``[T * B, ...]``, ordered by step, then env.
        """
        if not isinstance(observation, Sequence):
            return self.apply(params, observation, self.initial(len(jax.tree.leaves(observation)[0])), None)[:2]
        return self.unroll(params, observation)[:2]

    def unroll(self, params: Params, sequence: Sequence) -> tuple[Any, Mapping[str, Activation], Any]:
        """:meth:`forward` of a sequence, with the carry after it."""
        if self.unrolls:
            rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sequence.observation)
            return self.apply(params, rows, sequence.carry, sequence.first)

        def step(carry: Any, inputs: tuple[Any, Array]) -> tuple[Any, Any]:
            outputs, activations, carry = self.apply(params, inputs[0], carry, inputs[1])
            return carry, (outputs, activations)

        carry, made = jax.lax.scan(step, sequence.carry, (sequence.observation, sequence.first))
        outputs, activations = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), made)
        return outputs, activations, carry


class Optimizer(NamedTuple):
    """An ``optax.GradientTransformationExtraArgs`` that also reports its step size.

    In an agent, ``update(gradients, state, params, **extra)`` receives the ``key`` of the update, the ``network`` and,
    unless it is behind an eligibility trace, the task loss of the batch as ``loss`` (parameters -> float32[]). It
    ignores what it does not need. If it ``masks``, ``update`` takes ``valid`` (bool[]): where that is false, the state
    stays and the updates are 0.
    """

    init: Callable[[Params], optax.OptState]
    update: Callable[..., tuple[Params, optax.OptState]]
    learning_rate: Callable[[optax.OptState], Array]  # float32[]: the step size of the next update
    masks: bool = False


class Learner(NamedTuple):
    """Everything an intervention may rewrite."""

    params: Params
    target: Params  # () if there is no target network
    opt_state: optax.OptState
    rest: Mapping[str, Any] = {}  # at a switch only: the other memory of an agent (replay, schedule, normaliser)
    carry: Any = ()  # of a network with memory, [E, ...]: before the current observation


class Drawn(NamedTuple):
    """Transitions from an agent's memory of past visits, ``[n, ...]``."""

    rows: Transition
    outputs: Any  # of the network on these rows when their visit ended: ``plasticity.core.outputs.Outputs``
    valid: Array  # bool[n]: False where nothing is stored


class Past(NamedTuple):
    """What an agent remembers of past visits: a uniform sample of each visit's transitions.

    Within an update and at a switch, exists within a single trace.
    """

    draw: Callable[[int | Array, int], Drawn]
    # tag, n (static) -> rows of visits that have ended: each visit is equally likely, then each of its stored rows; the
    # tag and the update number choose the random numbers
    ended: Callable[[], Drawn]  # at a switch: everything that is stored of the visit that has just ended
    inputs: Callable[[Transition], Any]  # rows -> what the network reads, [n, ...]
    loss: Callable[[int | Array, Params, Drawn], Array]  # tag, params, rows -> the task loss, the mean over valid rows


class Context(NamedTuple):
    """Everything an intervention may read."""

    clock: Clock
    observation: Any  # the batch of the update, [B, ...]; () at a switch
    activations: Mapping[str, Activation]  # of the update's forward pass; {} in `prepare` and at a switch
    gradients: Params  # of the update (of loss + penalties); () in `prepare`, in `penalty` and at a switch
    network: Network
    optimizer: Optimizer
    fresh: Callable[[Key], Learner]  # a fresh agent's Learner, `rest` included
    loss: Callable[[Params], Array]  # the task loss of the update's batch, without penalties; constant 0 at a switch
    reference: Callable[[], Any]
    # observations [B, ...] sampled independently of the update's batch if the agent stores others (replay, rollout),
    # otherwise the batch itself; () at a switch
    outputs: Callable[[Params, Any], Mapping[str, Any]] = lambda params, observation: {}
    # what the networks say about a batch that they read: ``plasticity.core.outputs.Outputs``
    past: Past | None = None  # if an intervention asks the agent to remember past visits
    learn: Callable[[Key, Learner], Learner] | None = None
    # another learner of the agent -> after one plain update (no penalties, no hooks but `optimizer`) on its own sample
    # of the replay, or on the minibatch of a supervised agent; None for other agents, and at a switch


def take(observation: Any, rows: Any) -> Any:
    """These rows (indices or a slice) of a batch of observations; of a :class:`Sequence`, these envs."""
    if not isinstance(observation, Sequence):
        return jax.tree.map(lambda x: x[rows], observation)
    steps, first = jax.tree.map(lambda x: x[:, rows], (observation.observation, observation.first))
    return Sequence(steps, first, jax.tree.map(lambda x: x[rows], observation.carry))


class Probe(NamedTuple):
    """What monitors may read: a lane's learner and a batch of recent transitions. Exists within a single trace."""

    learner: Learner
    network: Network
    optimizer: Optimizer
    activations: Mapping[str, Activation]  # of the batch's observations
    loss: Callable[[Params], Array]  # the task loss on the batch, the target network held fixed
    clock: Clock
    observation: Any  # [B, ...]: the batch as the network receives it
    losses: Callable[[Params], Array]  # float32[B]: `loss` row by row; it is their mean over `valid`
    valid: Array  # bool[B]: False for a pair that spans two episodes
    scores: Callable[[Params, Any], Array]  # observations [B, ...] -> [B, n], the scores behind its decisions
    meaning: Literal["values", "logits", "prediction"]  # of `scores` (static): action values, logits, predicted targets
    fresh: Callable[[Key], Learner]  # a fresh agent's Learner, `rest` included


class AgentState(NamedTuple):
    """The complete state of one lane's agent. A diverged lane is frozen by keeping ``learner`` and ``plugins``."""

    learner: Learner  # its `rest` is empty here
    plugins: State  # the intervention's own state
    rest: Mapping[str, Any]  # "replay", "schedule", "normaliser", ...: see Learner.rest


class Agent(NamedTuple):
    """A learner of one lane. ``learn`` runs at every step, ``switch`` at each task switch; only they change it."""

    init: Callable[[Key, TimeStep], AgentState]
    act: Callable[[Key, AgentState, Any, Clock], Array]  # observation [E, ...] -> actions [E, ...]
    learn: Callable[[Key, AgentState, Transition, Clock], tuple[AgentState, Metrics]]
    switch: Callable[[Key, AgentState, Clock], AgentState]
    probe: Callable[[AgentState, Transition, Clock], Probe]
    play: Callable[[Key, AgentState, Any, Array], Array]
    # observation [E, ...], epsilon float32[] -> actions [E, ...]; for evaluation: no exploration, except that a
    # discrete action is uniformly random with probability epsilon
    initial: Callable[[], Any] = tuple  # an agent with memory: its carry at the start of an episode, [E, ...]
    advance: Callable[[AgentState, Any, Array], Any] = lambda state, observation, first: ()
    # for evaluation of an agent with memory: observation [E, ...], bool[E] whether the next one starts an episode ->
    # the carry after the observation; ``play`` reads that of ``state.learner``
    switch_setting: str = ""  # the agent's setting that acts at task switches, other than its interventions; "" if none
    notices: tuple[str, ...] = ()  # what a plan should warn of
    view: Callable[[AgentState, Array, Clock], AgentState] = lambda state, visit, clock: state
    # int32[] visit -> the state that evaluations of this visit's task see
    recall: Callable[[AgentState, Transition, Clock, Key], Probe] | None = None
    # ``probe`` with a key for the loss, if that draws numbers
    updates: int = 0  # of a step at which it learns, if it does not learn at every one (static); 0: one at every step
    held: Callable[[AgentState], Held] | None = None  # of an agent with a replay: what is in it
