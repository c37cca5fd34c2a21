"""Restrict an intervention to some of the parts of joined networks, such as the actor of an actor-critic."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from plasticity.core.errors import shown
from plasticity.core.parts import Parts
from plasticity.core.types import Array, Context, Drawn, Key, Learner, Network, Optimizer, Params, Past, State
from plasticity.interventions.base import Intervention, Step, Tried, fills
from plasticity.networks.parts import activations_of, learner_of, part_of
from plasticity.optim.parts import put_back, view, within

if TYPE_CHECKING:
    from plasticity.networks.spec import NetworkSpec


def restricted(intervention: Intervention, names: Sequence[str]) -> Intervention:
    """The intervention on these parts of joined networks alone; the other parts change as without it.

    Its functions see only the share of these parts: of parameters, gradients, target network, carry, activations and
    optimizer (``Parts.of``), and a network of these parts (``part_of``). Sums and norms over "all" parameters are
    therefore over those of these parts. Only this share of what they return is used.

    * ``network`` rewrites the networks of these parts (``NetworkSpec.part``).
    * ``optimizer`` wraps the agent's optimizer for these parts (:func:`plasticity.optim.parts.within`).
    * ``context.loss`` is the whole task loss as a function of these parts; the others are held fixed.
    * At a switch, ``learner.rest`` (replay, schedule, normaliser) belongs to the whole agent and cannot be changed.
      Neither can the policy that explores (``explore``).
    * Nothing is ``renews``: the whole learner is never new.

    Args:
        intervention: any intervention.
        names: of parts; ``critic`` also means ``critic_1``, ``critic_2`` and so on.

    Returns:
        The restricted intervention, with the same hooks, and ``init``. If ``names`` are all parts, it computes the same
        as ``intervention``, except that at switches ``rest`` is unchanged.

    Raises:
        ValueError: while tracing, for an unknown part, a network without parts, or a method that changes only what all
            parts share.
    """
    chosen = Parts(tuple(names))

    def network(spec: "NetworkSpec") -> "NetworkSpec":
        if not spec.part:
            chosen.check(())
        return intervention.network(spec) if chosen.has(spec.part) else spec

    def optimizer(rule: Optimizer) -> Optimizer:
        return within(intervention.optimizer, rule, chosen, part_of)

    def init(key: Key, params: Params, network: Network) -> State:
        chosen.check(network.parts)
        return intervention.init(key, chosen.of(params), part_of(network, chosen))

    def start(key: Key, state: State, learner: Learner, context: Context) -> State:
        share = context_of(chosen, context, learner.params)
        return intervention.start(key, state, learner_of(learner, chosen), share)

    def penalty(state: State, params: Params, context: Context) -> Array:
        return intervention.penalty(state, chosen.of(params), context_of(chosen, context, params))

    def acting(state: State, params: Params) -> Params:
        return chosen.back(intervention.acting(state, chosen.of(params)), params)

    def gradient(key: Key, state: State, gradients: Params, learner: Learner, context: Context) -> Params:
        share = context_of(chosen, context, learner.params)
        new = intervention.gradient(key, state, chosen.of(gradients), learner_of(learner, chosen), share)
        return chosen.back(new, gradients)

    def point(state: State, params: Params, gradients: Params, context: Context) -> Params:
        share = context_of(chosen, context, params)
        return chosen.back(intervention.point(state, chosen.of(params), chosen.of(gradients), share), params)

    def view(state: State, params: Params, visit: Array, now: Array) -> Params:
        return chosen.back(intervention.view(state, chosen.of(params), visit, now), params)

    def explore(key: Key, tried: Tried) -> Array:
        raise ValueError(
            f"modules: {shown(list(chosen.names))} is not allowed; which policy explores belongs to the whole agent; "
            "leave it out"
        )

    made: dict[str, Callable[..., Any]] = {"network": network, "optimizer": optimizer}
    made |= {"penalty": penalty, "acting": acting, "gradient": gradient, "view": view, "point": point, "start": start}
    made |= {"explore": explore, "review": intervention.review}  # the parts learn from one batch
    made |= {field: on_share(chosen, getattr(intervention, field), field) for field in ("step", "switch", "prepare")}
    hooks: dict[str, Any] = {field: function for field, function in made.items() if fills(intervention, field)}
    hooks |= {"init": init} if hooks or fills(intervention, "init") else {}
    kept = ("sets", "remember", "visits", "reads_task")
    flags: dict[str, Any] = {field: getattr(intervention, field) for field in kept}
    return Intervention(**hooks, **flags, parts=chosen.names)


def on_share(chosen: Parts, method: Step, field: str) -> Step:
    """``method`` on the share of the chosen parts."""

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        share = learner_of(learner, chosen)
        state, new = method(key, state, share, context_of(chosen, context, learner.params))
        whole = Learner(
            params=chosen.back(new.params, learner.params),
            target=chosen.back(new.target, learner.target),
            opt_state=put_back(chosen, new.opt_state, learner.opt_state),
            rest=learner.rest,
            carry=chosen.back(new.carry, learner.carry),
        )
        if field == "switch":
            check_share(chosen, share, new, changed(whole, learner))
        return state, whole

    return step


def context_of(chosen: Parts, context: Context, params: Params) -> Context:
    """What the context shows of the chosen parts; ``params`` are those of all parts."""
    held = jax.lax.stop_gradient(params)
    return context._replace(
        activations=activations_of(context.activations, chosen),
        gradients=chosen.of(context.gradients),
        network=part_of(context.network, chosen),
        optimizer=view(context.optimizer, chosen),
        fresh=lambda key: learner_of(context.fresh(key), chosen),
        loss=lambda share: context.loss(chosen.back(share, held)),
        outputs=lambda share, observation: said_by(chosen, context.outputs(chosen.back(share, held), observation)),
        past=None if context.past is None else past_of(chosen, context.past, held),
        learn=None,  # an update of these parts alone is not that of the agent
    )


def said_by(chosen: Parts, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the chosen parts say; ``ValueError`` (while tracing) if none of them says anything."""
    said = {name: each for name, each in outputs.items() if chosen.has(name)}
    if outputs and not said:
        raise ValueError(
            f"modules: {shown(list(chosen.names))} is not allowed; these say nothing about an observation; "
            f"choose from {', '.join(outputs)}"
        )
    return said


def past_of(chosen: Parts, past: Past, held: Params) -> Past:
    """The memory of past visits, with what the chosen parts said; the loss is that of the whole agent."""

    def of(drawn: Drawn) -> Drawn:
        return drawn._replace(outputs=said_by(chosen, drawn.outputs))

    return past._replace(
        draw=lambda tag, number: of(past.draw(tag, number)),
        ended=lambda: of(past.ended()),
        loss=lambda tag, share, drawn: past.loss(tag, chosen.back(share, held), drawn),
    )


def changed(new: Any, old: Any) -> bool:
    """Whether a leaf is another array (or tracer), with equal numbers or not."""
    return any(a is not b for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True))


def check_share(chosen: Parts, share: Learner, new: Learner, took_effect: bool) -> None:
    """Raise a ``ValueError`` if a method has changed what belongs to the whole agent."""
    parts = [name for name in share.rest if changed(new.rest[name], share.rest[name])]
    if parts:
        raise ValueError(
            f"modules: {shown(list(chosen.names))} is not allowed; this changes the {parts[0]}, which belongs to the "
            "whole agent; list it again without `modules` for that alone"
        )
    if not took_effect and changed(new, share):
        raise ValueError(
            f"modules: {shown(list(chosen.names))} is not allowed; this changes only counts or a schedule of the "
            "optimizer, which all parts of this agent share"
        )
