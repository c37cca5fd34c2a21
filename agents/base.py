"""Components shared by all agents: network, optimizer, intervention, and the order of operations in an update."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.agents import memory
from plasticity.core.masked import mean_where
from plasticity.core.outputs import Outputs, Read
from plasticity.core.trees import select
from plasticity.core.types import (
    Activation,
    AgentState,
    Array,
    Clock,
    Context,
    Key,
    Learner,
    Metrics,
    Network,
    Optimizer,
    Params,
    Past,
    Probe,
    State,
)
from plasticity.interventions.base import Intervention, fills
from plasticity.networks.build import build
from plasticity.networks.functions import Functions
from plasticity.networks.spec import NetworkSpec

Loss = Callable[[Params], tuple[Any, ...]]  # -> task loss, activations, optionally a mapping of further metrics
Rest = Callable[[Array], Mapping[str, Any]]  # env step of creation -> a fresh agent's memory besides its Learner
Drawn = Callable[[Key], Mapping[str, Any]]  # the random part of that memory
Target = Callable[[Params], Params]
Another = Callable[[Key, Learner], Learner]  # one update of another learner, for `Context.learn`
Meaning = Literal["values", "logits", "prediction"]

# Tags that derive one key for each use from an agent's key.
PARAMS, PLUGINS, ACTION, SAMPLE, STEP, NOISE, PREPARE, RULE, REFERENCE, GRADIENT, STORE, DRAW = range(12)
START, REVIEW, EXPLORE, KEEP = range(12, 16)
DRAWN = 1000  # folded into the key of a fresh agent's parameters, which joined networks number from 0


def no_target(params: Params) -> Params:
    del params
    return ()


def no_loss(params: Params) -> Array:
    del params
    return jax.numpy.zeros(())


def unextended(network: Network) -> Network:
    return network


def no_trace(optimizer: Optimizer) -> Optimizer:
    return optimizer


def informed(optimizer: Optimizer, network: Network) -> Optimizer:
    """The optimizer, which receives the network whose parameters it updates as an extra argument, ``network``."""

    def update(gradients: Params, state: Any, params: Params = None, **extra: Any) -> tuple[Params, Any]:
        return optimizer.update(gradients, state, params, **({"network": network} | extra))

    return optimizer._replace(update=update)


def no_outputs(params: Params, observation: Any) -> Outputs:
    del params, observation
    return {}


def no_memory(created: Array) -> Mapping[str, Any]:
    del created
    return {}


def not_random(key: Key) -> Mapping[str, Any]:
    del key
    return {}


class AgentCore(NamedTuple):
    """The components of one lane's agent, with the intervention applied, and the functions that every agent needs."""

    network: Network
    optimizer: Optimizer
    intervention: Intervention
    fresh: Callable[[Key, Array], Learner]  # key, env step of creation -> a fresh agent's Learner, with `rest`
    outputs: Read = no_outputs  # parameters, what the network reads -> what it says, for interventions
    past: Callable[[Clock], Past] | None = None  # its memory of past visits

    def init(self, key: Key) -> AgentState:
        """Initialise an agent and its plug-in state."""
        learner = self.fresh(jax.random.fold_in(key, PARAMS), jax.numpy.zeros((), jax.numpy.int32))
        bare = learner._replace(rest={})
        plugins = self.intervention.init(jax.random.fold_in(key, PLUGINS), bare.params, self.network)
        context = self.context(Clock(*[jnp.zeros((), jnp.int32)] * 4))
        plugins = self.intervention.start(jax.random.fold_in(key, START), plugins, bare, context)
        return AgentState(bare, plugins, learner.rest)

    def acting(self, state: AgentState) -> Params:
        """Parameters used to act and to evaluate."""
        return self.intervention.acting(state.plugins, state.learner.params)

    def context(
        self,
        clock: Clock,
        observation: Any = (),
        loss: Callable[[Params], Array] = no_loss,
        reference: Callable[[], Any] | None = None,
    ) -> Context:
        """The context that interventions read before the forward pass; ``reference`` defaults to the batch itself."""
        return Context(
            clock=clock,
            observation=observation,
            activations={},
            gradients=(),
            network=self.network,
            optimizer=self.optimizer,
            fresh=lambda key: self.fresh(key, clock.step),
            loss=loss,
            reference=reference or (lambda: observation),
            outputs=self.outputs,
            past=None if self.past is None else self.past(clock),
        )

    def update(
        self,
        key: Key,
        learner: Learner,
        plugins: State,
        loss: Loss,
        observation: Any,
        clock: Clock,
        reference: Callable[[], Any] | None = None,
        another: Another | None = None,
        **extra: Any,
    ) -> tuple[Learner, State, Metrics]:
        """``prepare`` -> forward with the penalty added -> gradient -> optimizer -> apply -> ``step``.

        ``loss(params)`` returns the task loss, the activations of the forward pass on ``observation`` and, optionally,
        a mapping of further metrics. ``reference()`` samples observations independently of the batch, and ``another``
        updates a further learner. The optimizer receives ``extra`` and the task loss of the batch as ``loss``.
        """
        context = self.context(clock, observation, lambda params: loss(params)[0], reference)._replace(learn=another)
        learner, plugins = self.prepare(key, learner, plugins, context)

        def objective(params: Params) -> tuple[Array, tuple[Mapping[str, Activation], Metrics]]:
            task_loss, activations, *more = loss(params)
            seen = context._replace(activations=activations)
            made = {"loss": task_loss} | (more[0] if more else {})
            return task_loss + self.intervention.penalty(plugins, params, seen), (activations, made)

        slope = jax.grad(objective, has_aux=True)
        gradients, (activations, made) = slope(learner.params)
        if fills(self.intervention, "point"):
            gradients, _ = slope(self.intervention.point(plugins, learner.params, gradients, context))
        context = context._replace(activations=activations)
        draw = jax.random.fold_in(key, GRADIENT)
        gradients = self.intervention.gradient(draw, plugins, gradients, learner, context)
        extra["loss"] = context.loss
        return *self.finish(key, learner, plugins, gradients, context, **extra), made

    def plain(self, key: Key, learner: Learner, loss: Loss, **extra: Any) -> Learner:
        """An update of a learner with the agent's optimizer: gradient -> optimizer -> apply. See :meth:`update`."""
        gradients = jax.grad(lambda params: loss(params)[0])(learner.params)
        extra |= {"key": jax.random.fold_in(key, RULE), "loss": lambda params: loss(params)[0]}
        return self.applied(learner, gradients, **extra)

    def applied(self, learner: Learner, gradients: Params, **extra: Any) -> Learner:
        """Optimizer -> apply."""
        updates, opt_state = self.optimizer.update(gradients, learner.opt_state, learner.params, **extra)
        params = self.network.project(optax.apply_updates(learner.params, updates))
        return learner._replace(params=params, opt_state=opt_state)

    def prepare(self, key: Key, learner: Learner, plugins: State, context: Context) -> tuple[Learner, State]:
        """Call the intervention's ``prepare``."""
        plugins, learner = self.intervention.prepare(jax.random.fold_in(key, PREPARE), plugins, learner, context)
        return learner, plugins

    @property
    def masks(self) -> bool:
        """Whether :meth:`finish` leaves everything unchanged where an update is not valid.

        An agent then needs no branch around its update. Under ``vmap`` a branch becomes a select after the update,
        which reads and writes all arrays again, and XLA does not share the forward pass in it with that of acting.
        Where an intervention acts after the optimizer, or the optimizer does not mask, a branch is cheaper.
        """
        return self.optimizer.masks and not (fills(self.intervention, "prepare") or fills(self.intervention, "step"))

    def finish(
        self,
        key: Key,
        learner: Learner,
        plugins: State,
        gradients: Params,
        context: Context,
        valid: Array | None = None,
        **extra: Any,
    ) -> tuple[Learner, State]:
        """Optimizer -> apply -> the intervention's ``step``; the optimizer receives ``extra`` and its own key.

        ``valid`` (bool[]; None: true) has an effect only if the core :attr:`masks`.
        """
        extra["key"] = jax.random.fold_in(key, RULE)
        masked = self.masks and valid is not None
        if masked:
            extra["valid"] = valid
        new = self.applied(learner, gradients, **extra)
        if masked:
            new = new._replace(params=select(jnp.asarray(valid), new.params, learner.params))
        learner = new
        seen = context._replace(gradients=gradients)
        plugins, learner = self.intervention.step(jax.random.fold_in(key, STEP), plugins, learner, seen)
        return learner, plugins

    def penalty_gradients(self, learner: Learner, plugins: State, context: Context) -> Params:
        """Gradient of the penalty alone, for agents that exclude it from their eligibility trace."""

        def penalty(params: Params) -> Array:
            _, activations = self.network.forward(params, context.observation)
            return self.intervention.penalty(plugins, params, context._replace(activations=activations))

        return jax.grad(penalty)(learner.params)

    def probe(
        self,
        learner: Learner,
        observation: Any,
        losses: Callable[[Params], Array],
        valid: Array,
        scores: Callable[[Params, Any], Array],
        meaning: Meaning,
        clock: Clock,
    ) -> Probe:
        """The probe that monitors read; ``losses(params)`` is float32[B], ``valid`` bool[B]."""
        return Probe(
            learner=learner,
            network=self.network,
            optimizer=self.optimizer,
            activations=self.network.forward(learner.params, observation)[1],
            loss=lambda params: mean_where(valid, losses(params)),
            clock=clock,
            observation=observation,
            losses=losses,
            valid=valid,
            scores=scores,
            meaning=meaning,
            fresh=lambda key: self.fresh(key, clock.step),
        )

    def view(self, state: AgentState, visit: Array, clock: Clock) -> AgentState:
        """The state that evaluations of the task of ``visit`` see."""
        params = self.intervention.view(state.plugins, state.learner.params, visit, clock.visit)
        return state._replace(learner=state.learner._replace(params=params))

    def batch(self, observation: Any, carry: Any) -> Any:
        """Observations ``[E, ...]`` of one step as a batch for the network; ``carry`` is the one before it."""
        return memory.single(self.network, observation, carry)

    def after(self, state: AgentState, observation: Any, first: Array) -> Any:
        """The carry after an observation, reset where the next one starts an episode; for evaluation."""
        carry = memory.after(self.network, self.acting(state), observation, state.learner.carry)
        return memory.restarted(self.network, carry, first)

    def switch(self, key: Key, state: AgentState, clock: Clock) -> AgentState:
        """Call the intervention's ``switch`` on the agent's full state, once per task switch."""
        whole = memory.remembering(self.network, state.learner)._replace(rest=state.rest)
        plugins, whole = self.intervention.switch(key, state.plugins, whole, self.context(clock))
        return AgentState(whole._replace(rest={}), plugins, whole.rest)


def built(given: NetworkSpec | Functions, intervention: Intervention, part: str = "") -> Network:
    """Build a network, as the intervention rewrites it; an intervention that does so refuses functions.

    ``part`` is its name if it will be joined with others.
    """
    described: Any = given._replace(part=part) if isinstance(given, Functions) else replace(given, part=part)
    return build(intervention.network(described))


def assemble(
    spec: NetworkSpec | Functions,
    optimizer: Optimizer,
    intervention: Intervention,
    *,
    target: Target = no_target,
    rest: Rest = no_memory,
    extend: Callable[[Network], Network] = unextended,
    trace: Callable[[Optimizer], Optimizer] = no_trace,
    envs: int = 0,
    minibatch: int = 0,
) -> AgentCore:
    """Build an agent's components: the intervention rewrites the network's spec and wraps the optimizer, once.

    ``target(params)`` is the target network of a fresh agent and ``rest(env step of creation)`` its other memory.
    ``extend`` may add parameters to the network. ``trace`` puts an eligibility trace before the wrapped optimizer.
    ``envs`` is the number of envs whose carry the agent keeps; 0: it cannot use a network with memory. ``minibatch`` is
    the number of rows that it always predicts and learns together; 0: it cannot use batch statistics.
    """
    network = extend(built(spec, intervention))
    settings: dict[str, Any] = {"target": target, "rest": rest, "trace": trace, "envs": envs, "minibatch": minibatch}
    return assemble_built(network, optimizer, intervention, **settings)


def assemble_built(
    network: Network,
    optimizer: Optimizer,
    intervention: Intervention,
    *,
    target: Target = no_target,
    rest: Rest = no_memory,
    drawn: Drawn = not_random,
    trace: Callable[[Optimizer], Optimizer] = no_trace,
    envs: int = 0,
    minibatch: int = 0,
) -> AgentCore:
    """:func:`assemble` for a built network that the intervention has already rewritten; it wraps the optimizer.

    ``drawn(key)`` is the part of a fresh agent's other memory that is random.

    ``ValueError`` for a network with memory if ``envs`` is 0, and for batch statistics if ``minibatch`` is below 2.
    """
    if network.batch_statistics and minibatch < 2:
        raise ValueError(
            "agent.network: normalisation: batch is not allowed; it needs the classifier or regressor with minibatches "
            "of at least 2"
        )
    if network.remembers and not envs:
        raise ValueError("agent.network: has memory, which this agent does not use; choose a network without")
    rule = informed(trace(intervention.optimizer(optimizer)), network)

    def fresh(key: Key, created: Array) -> Learner:
        params = network.init(key)
        other = {**rest(created), **drawn(jax.random.fold_in(key, DRAWN))}
        return Learner(params, target(params), rule.init(params), other, network.initial(envs))

    return AgentCore(network, rule, intervention, fresh)
