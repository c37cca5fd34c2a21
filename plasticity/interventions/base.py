"""The interface of every method that preserves (or destroys) plasticity, and how methods compose."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.parts import overlap
from plasticity.core.types import Array, Clock, Context, Key, Learner, Network, Optimizer, Params, State

if TYPE_CHECKING:
    from plasticity.networks.spec import NetworkSpec

Step = Callable[[Key, State, Learner, Context], tuple[State, Learner]]
Due = Callable[[Clock], Array | bool]


def same_network(spec: "NetworkSpec") -> "NetworkSpec":
    return spec


def same_optimizer(optimizer: Optimizer) -> Optimizer:
    return optimizer


def no_state(key: Key, params: Params, network: Network) -> State:
    del key, params, network
    return ()


def no_penalty(state: State, params: Params, context: Context) -> Array:
    del state, params, context
    return jnp.zeros(())


def same_params(state: State, params: Params) -> Params:
    del state
    return params


def same_state(key: Key, state: State, learner: Learner, context: Context) -> State:
    del key, learner, context
    return state


def unchanged(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
    del key, context
    return state, learner


def same_gradients(key: Key, state: State, gradients: Params, learner: Learner, context: Context) -> Params:
    del key, state, learner, context
    return gradients


def same_point(state: State, params: Params, gradients: Params, context: Context) -> Params:
    del state, gradients, context
    return params


def whole_replay(key: Key, state: State) -> Array:
    del key, state
    return jnp.ones(())


def same_view(state: State, params: Params, visit: Array, now: Array) -> Params:
    del state, visit, now
    return params


class Tried(NamedTuple):
    """What an agent knows of its policies for earlier tasks, while it may explore with them."""

    ended: Array  # bool[policies]: whether a visit to this task has ended
    previous: Array  # int32[]: the task of the visit before; -1: none
    begun: Array  # int32[policies]: episodes of this visit in which this policy has begun to explore
    finished: Array  # int32[policies]: those of them that have ended
    returns: Array  # float32[policies]: the sum of their returns, undiscounted


def own_policy(key: Key, tried: Tried) -> Array:
    del key, tried
    return jnp.full((), -1, jnp.int32)


class Remember(NamedTuple):
    """What an agent should remember of past visits (static)."""

    transitions: int  # of each visit, a uniform sample of all of its transitions
    visits: int | None = None  # the number of past visits; None: all


class Intervention(NamedTuple):
    """Fourteen hooks, all optional, and seven flags. Most methods fill one or two hooks.

    * ``network``: data -> data, before the network is built.
    * ``optimizer``: wraps the agent's optimizer.
    * ``init``: the plug-in's own state, from the initial parameters and the network.
    * ``start``: completes that state, once, for a method that needs the whole new learner (without ``rest``) or further
      ones (``context.fresh``).
    * ``penalty``: added to the loss and differentiated with respect to the parameters.
    * ``step``: after every update (forward + penalty -> gradient -> optimizer -> apply -> ``step`` -> target network).
      ``learner.rest`` is empty here.
    * ``switch``: once at each task switch, outside the training loop. A method sees task switches if and only if it
      fills this field. ``learner.rest`` holds everything else a new agent would have.
    * ``prepare``: like ``step``, but before the forward pass of every update.
    * ``acting``: the parameters that act and are evaluated, if they differ from those that learn.
    * ``point``: the parameters at which the gradient of loss + penalties is taken, from the learner's parameters and
      the gradient there; a second gradient on the same batch. Updates still start from the learner's parameters.
    * ``gradient``: rewrites the gradient of loss + penalties before the optimizer sees it.
    * ``review``: the share of the replay, its oldest part, from which the next batch is drawn: ``key, state`` ->
      float32[] in (0, 1]. ``context.reference`` and ``context.learn`` draw from all of it.
    * ``view``: the parameters with which the task of an earlier visit is evaluated: ``state, params, visit, now``, both
      int32[], the indices of that visit and of the current one. A method that fills it knows the tasks.
    * ``explore``: the task whose policy acts in an episode, instead of random actions, in the agent's random steps at
      the start of a visit: ``key, tried``, int32[]; -1: the current task. Ignored until a visit has ended. A method
      that fills it knows the tasks.
    * ``sets``: the parts of the network's spec that ``network`` sets and that no other intervention may set, a subset
      of ``EXCLUSIVE``.
    * ``renews``: when its ``switch``, or its ``step``, freshly initialises the learner. The states of all interventions
      are then reset too.
    * ``reads_task``: the observations of its arm end in the one-hot of the task (``core.task_entries``). The network
      ignores it unless ``network`` says otherwise.
    * ``parts``: the parts of joined networks that it is restricted to (``restriction.restricted``); empty: all.
    * ``remember``: the agent keeps transitions of past visits, as ``context.past``.
    * ``visits``: the largest number of visits for which it has room; None: no limit.
    * ``forgets``: its ``switch`` makes the whole agent new, whose memory of past visits is empty.
    """

    network: Callable[["NetworkSpec"], "NetworkSpec"] = same_network
    optimizer: Callable[[Optimizer], Optimizer] = same_optimizer
    init: Callable[[Key, Params, Network], State] = no_state
    penalty: Callable[[State, Params, Context], Array] = no_penalty
    step: Step = unchanged
    switch: Step = unchanged
    prepare: Step = unchanged
    acting: Callable[[State, Params], Params] = same_params
    renews: Due | None = None
    sets: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    reads_task: bool = False
    gradient: Callable[[Key, State, Params, Learner, Context], Params] = same_gradients
    view: Callable[[State, Params, Array, Array], Params] = same_view
    point: Callable[[State, Params, Params, Context], Params] = same_point
    start: Callable[[Key, State, Learner, Context], State] = same_state
    review: Callable[[Key, State], Array] = whole_replay
    remember: Remember | None = None
    visits: int | None = None
    forgets: bool = False
    explore: Callable[[Key, Tried], Array] = own_policy

    @property
    def knows_tasks(self) -> bool:
        """Whether the method acts at task switches or knows the tasks."""
        return any(fills(self, field) for field in ("switch", "view", "explore"))


def fills(intervention: Intervention, field: str) -> bool:
    """Whether the intervention sets this field itself."""
    return getattr(intervention, field) is not Intervention._field_defaults[field]


def together(asked: Sequence[Remember]) -> Remember | None:
    """The memory that has room for all that is asked for."""
    if not asked:
        return None
    limits = [each.visits for each in asked]
    visits = None if None in limits else max(limit for limit in limits if limit is not None)
    return Remember(max(each.transitions for each in asked), visits)


def compose(*interventions: Intervention) -> Intervention:
    """Combine the interventions, in order, into one. Its state is the tuple of theirs; ``compose()`` does nothing.

    Penalties add up, and of shares of the replay the smallest counts; everything else is applied left to right. A field
    that none of them fills keeps its default. Of several that fill ``explore`` the last one decides.
    """
    filled = {field for field in Intervention._fields for each in interventions if fills(each, field)}

    def network(spec: "NetworkSpec") -> "NetworkSpec":
        for intervention in interventions:
            spec = intervention.network(spec)
        return spec

    def optimizer(optimizer: Optimizer) -> Optimizer:
        for intervention in interventions:
            optimizer = intervention.optimizer(optimizer)
        return optimizer

    def init(key: Key, params: Params, network: Network) -> State:
        return tuple(each.init(jax.random.fold_in(key, i), params, network) for i, each in enumerate(interventions))

    def penalty(state: State, params: Params, context: Context) -> Array:
        terms = [each.penalty(s, params, context) for each, s in zip(interventions, state, strict=True)]
        return sum(terms, jnp.zeros(()))

    def start(key: Key, state: State, learner: Learner, context: Context) -> State:
        pairs = enumerate(zip(interventions, state, strict=True))
        return tuple(each.start(jax.random.fold_in(key, i), s, learner, context) for i, (each, s) in pairs)

    def renewed(due: Array | bool, key: Key, states: list[State], learner: Learner, context: Context) -> list[State]:
        def new() -> list[State]:
            draw = jax.random.fold_in(key, len(interventions))
            return list(start(draw, init(draw, learner.params, context.network), learner, context))

        return new() if due is True else jax.lax.cond(due, new, lambda: states)

    def chained(field: str) -> Step:
        def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
            states = list(state)
            for i, each in enumerate(interventions):
                draw = jax.random.fold_in(key, i)
                states[i], learner = getattr(each, field)(draw, states[i], learner, context)
                if each.renews is not None and getattr(each, field) is not unchanged:
                    states = renewed(each.renews(context.clock), draw, states, learner, context)
            return tuple(states), learner

        return step

    def passed(field: str) -> Callable[..., Params]:
        def through(state: State, params: Params, *facts: Any) -> Params:
            for each, s in zip(interventions, state, strict=True):
                params = getattr(each, field)(s, params, *facts)
            return params

        return through

    def gradient(key: Key, state: State, gradients: Params, learner: Learner, context: Context) -> Params:
        for i, (each, s) in enumerate(zip(interventions, state, strict=True)):
            gradients = each.gradient(jax.random.fold_in(key, i), s, gradients, learner, context)
        return gradients

    def explore(key: Key, tried: Tried) -> Array:
        last = max(i for i, each in enumerate(interventions) if fills(each, "explore"))
        return interventions[last].explore(jax.random.fold_in(key, last), tried)

    def review(key: Key, state: State) -> Array:
        pairs = enumerate(zip(interventions, state, strict=True))
        return jnp.min(jnp.stack([each.review(jax.random.fold_in(key, i), s) for i, (each, s) in pairs]))

    made: dict[str, Any] = {"network": network, "optimizer": optimizer, "penalty": penalty, "gradient": gradient}
    made |= {"start": start, "explore": explore, "review": review}
    made |= {field: passed(field) for field in ("acting", "point", "view")}
    made |= {field: chained(field) for field in ("step", "switch", "prepare")}
    flags: dict[str, Any] = {
        "sets": tuple(dict.fromkeys(field for each in interventions for field in each.sets)),
        "reads_task": any(each.reads_task for each in interventions),
        "forgets": any(each.forgets for each in interventions),
        "remember": together([each.remember for each in interventions if each.remember is not None]),
        "visits": min((each.visits for each in interventions if each.visits is not None), default=None),
    }
    return Intervention(init=init, **flags, **{field: made[field] for field in made if field in filled})


def every(period: int, offset: int = 0) -> Due:
    """True at the last of every ``period`` updates after the first ``offset``.

    Args:
        period: number of updates (static), at least 1.
        offset: number of updates (static), at least 0.

    Raises:
        ValueError: if the period is below 1.
    """
    if period < 1:
        raise ValueError(f"period: {period} is not allowed; must be at least 1")
    if offset == 0:
        return lambda clock: (clock.update + 1) % period == 0
    return lambda clock: ((clock.update + 1 - offset) % period == 0) & (clock.update >= offset)


def when(due: Due, step: Step) -> Step:
    """``step`` where ``due(clock)`` holds, otherwise nothing.

    One ``lax.cond`` that runs a single branch, because no clock is batched.
    """

    def conditional(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        return jax.lax.cond(
            due(context.clock),
            lambda: step(key, state, learner, context),
            lambda: (state, learner),
        )

    return conditional


# Parts of a network's spec that only one intervention may set, with their names in messages.
EXCLUSIVE: Mapping[str, str] = {
    "normalisation": "normalisation",
    "activation": "activation",
    "dropout": "dropout",
    "parameterisation": "parameterisation",
    "injected": "injection",
    "auxiliary": "auxiliary layer",
    "sees_task": "task input",
    "task_heads": "task heads",
    "modulation": "modulation",
}


def refusal(names: Sequence[str], what: str) -> str:
    listed = f"{', '.join(names[:-1])} and {names[-1]} {'both' if len(names) == 2 else 'all'}"
    return f"interventions: {listed} {what}; keep one"


def clashes(named: Mapping[str, Intervention]) -> str | None:
    """The error message if two of the interventions decide about the same thing, otherwise None.

    That is a part of the network, the policy that explores, or the parameters that act and those of earlier tasks.
    """
    exploring = [name for name, each in named.items() if fills(each, "explore")]
    if len(exploring) > 1:
        return refusal(exploring, "choose the policy that explores")
    acting, viewing = ([name for name, each in named.items() if fills(each, field)] for field in ("acting", "view"))
    if acting and viewing and acting != viewing:
        return refusal([acting[0], viewing[0]], "choose the parameters with which earlier tasks are evaluated")
    for field, word in EXCLUSIVE.items():
        setting = {name: each for name, each in named.items() if field in each.sets}
        names = [
            name
            for name, each in setting.items()
            if any(other is not each and overlap(each.parts, other.parts) for other in setting.values())
        ]
        if names:
            return refusal(names, f"set the network's {word}")
    return None


def undeclared(before: "NetworkSpec", after: "NetworkSpec", sets: Collection[str]) -> list[str]:
    """The exclusive parts that differ between the two specs and are not listed in ``sets``."""
    return [field for field in EXCLUSIVE if getattr(before, field) != getattr(after, field) and field not in sets]
