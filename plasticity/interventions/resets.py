"""Resets of whole modules, of the whole agent, or of the optimizer alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from plasticity.config.fields import Count, Natural, metadata
from plasticity.core.errors import check, shown
from plasticity.core.parts import groups
from plasticity.core.types import Context, Key, Learner, ModulePath, Network, Optimizer, Params, State
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Intervention, Step, every
from plasticity.interventions.base import when as conditionally
from plasticity.optim.eligibility import remembers

When = Literal["switch", "periodic", "never"]
Modules = Literal["all", "last"] | list[str]
Rest = Literal["auto", "all", "none"] | list[str]
What = Literal["all", "slots", "counts", "first_moment", "second_moment"]


def scheduled(when: When, period: int, step: Step, offset: int = 0) -> Intervention:
    """``step`` at every task switch, after every ``period``-th update from ``offset`` on, or never."""
    check("when", when, ("switch", "periodic", "never"))
    due = every(period, offset)
    if when == "switch":
        return Intervention(switch=step)
    return Intervention(step=conditionally(due, step)) if when == "periodic" else Intervention()


def check_memory(key: str, value: str, learner: Learner) -> None:
    """Raise a ``ValueError`` (while tracing) if the optimizer has no state that survives a task switch."""
    if not remembers(learner.opt_state):
        raise ValueError(
            f"{key}: {value} has no effect; this agent's optimizer keeps nothing across a task switch "
            "(an eligibility trace always ends there)"
        )


def modules_of(network: Network, names: Modules) -> list[ModulePath]:
    """The paths of the named modules; ``ValueError`` (while tracing) that lists the network's modules."""
    known = network.modules()
    if not known or (names == "last" and not network.outputs):
        what = "an output layer" if names == "last" else "layers"
        raise ValueError(f"modules: {shown(names)} needs a network with {what}; this one has none")
    if isinstance(names, str):
        return list(network.outputs)
    several = groups(network.parts)
    wanted = [each for name in names for each in several.get(name, (name,))]
    return units.named_modules({**known, **{part: (part,) for part in network.parts}}, wanted, "modules", "all, last")


def forgotten(network: Network, carry: Any, paths: Sequence[ModulePath]) -> Any:
    """The carry with zeros for the units whose incoming weights are all in the modules under ``paths``."""
    reset = {
        wiring.name: jnp.ones(wiring.size, bool)
        for wiring in network.units
        if wiring.carries and all(any(units.within(source.path, whole) for whole in paths) for source in wiring.sources)
    }
    return surgery.without_carry(network, carry, reset)


def renewed(old: Mapping[str, Any], new: Mapping[str, Any], names: Rest) -> Mapping[str, Any]:
    """``old`` with the named parts taken from ``new``; ``ValueError`` (while tracing) that lists the known parts."""
    parts = {"all": list(new), "none": []}[names] if isinstance(names, str) else names
    unknown = [name for name in parts if name not in new]
    if unknown:
        raise ValueError(
            f"rest: {shown(unknown[0])} is not allowed; must be auto, all, none, or a list of: {', '.join(new)}"
        )
    return {**old, **{name: new[name] for name in parts}}


def resolved(rest: Rest, when: When, modules: Modules) -> Rest:
    """Resolve ``rest``; ``ValueError`` for a part that cannot be renewed inside the training loop."""
    if isinstance(rest, str):
        check("rest", rest, ("auto", "all", "none"))
    if rest == "auto":
        return "all" if when == "switch" and modules == "all" else "none"
    if when == "periodic" and rest not in ("none", []):
        raise ValueError(
            f"rest: {shown(rest)} is not allowed with when: periodic; must be none (it is renewed only at switches)"
        )
    return rest


@metadata(
    paper="Nikishin et al. 2022, The Primacy Bias in Deep Reinforcement Learning",
    checked="a fresh learner, bit for bit: whole, by module, and its optimizer slots",
    neutral={"when": "never"},
    only_with={"period": {"when": ("periodic",)}, "offset": {"when": ("periodic",)}},
    note="with default settings it is the fresh control: a new agent at every switch",
)
def reset(
    *,
    when: When = "switch",
    period: Count = 20_000,
    offset: Natural = 0,
    modules: Modules = "all",
    target: bool = True,
    optimizer: bool = True,
    rest: Rest = "auto",
) -> Intervention:
    """Reset modules of the network to the values of a fresh agent.

    ``theta_m <- theta'_m`` for the modules ``m``, with ``theta' ~ init``. All settings are static.

    Args:
        when: at every task switch ("switch"), after every ``period``-th update ("periodic"), or never.
        period: number of updates.
        offset: number of updates after which the periods begin. An agent with a target network copies its parameters
            every ``target_period`` updates, after the interventions: a reset at the same update comes before the copy.
        modules: the whole network ("all"), the output layer ("last"), or a list of module names. The name of a module
            that contains others, such as a recurrent cell ("memory") or a part of joined networks ("actor"; "critic"
            for all critics), selects all of it, and a cell's carry is cleared.
        target: whether the target network takes the same values.
        optimizer: whether to reset the optimizer. With all modules this is its whole state, including counts and
            schedules; otherwise it is the slots (moments, traces) of the reset modules, and counts continue.
        rest: what else a new agent would have renewed (replay, schedules, normalisers, by name), only possible at
            switches. "auto" means everything for a reset of all modules at switches and nothing otherwise.

    Raises:
        ValueError: for an unknown name, a period below 1, or a part of ``rest`` at a period and, while tracing, for a
            network without such modules.

    A reset of all modules also resets the states of the other interventions, and a new agent at a switch remembers
    nothing of past visits. Nikishin et al. keep the replay, reset
    periodically, and reset the last layer (Atari) or everything (control).
    """
    parts = resolved(rest, when, modules)
    if isinstance(modules, str):
        check("modules", modules, ("all", "last"))
    elif not modules:
        raise ValueError("modules: [] is not allowed; must be all, last, or a list of at least one name")

    def whole(learner: Learner, fresh: Learner) -> Learner:
        return learner._replace(
            params=fresh.params,
            target=fresh.target if target else learner.target,
            opt_state=fresh.opt_state if optimizer else learner.opt_state,
            carry=fresh.carry,
        )

    def partial(learner: Learner, fresh: Learner, context: Context) -> Learner:
        paths = modules_of(context.network, modules)
        incoming, outgoing = surgery.module_mask(learner.params, paths), surgery.nowhere(learner.params)
        learner = learner._replace(carry=forgotten(context.network, learner.carry, paths))
        return surgery.reinitialise(
            learner, incoming, outgoing, fresh.params, context.optimizer, optimizer_slots=optimizer, target=target
        )

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        fresh = context.fresh(key)
        new = whole(learner, fresh) if modules == "all" else partial(learner, fresh, context)
        return state, new._replace(rest=renewed(learner.rest, fresh.rest, parts))

    due = {"switch": lambda clock: True, "periodic": every(period, offset)}
    made = scheduled(when, period, step, offset)._replace(renews=due.get(when) if modules == "all" else None)
    return made._replace(forgets=modules == "all" and parts == "all" and when == "switch")


@metadata(
    paper="Asadi et al. 2023, Resetting the Optimizer in Deep RL: An Empirical Study",
    checked="which counts and moments start again, and the known steps of Adam after a quiet phase",
    neutral={"when": "never"},
    only_with={"period": {"when": ("periodic",)}},
)
def optimizer_reset(*, when: When = "switch", period: Count = 8_000, what: What = "all") -> Intervention:
    """Reset the optimizer's state and leave the network unchanged.

    ``s <- optimizer.init(theta)``. All settings are static.

    Args:
        when: as in :func:`reset`.
        period: as in :func:`reset`.
        what: "all" is the whole state. "slots" are the arrays of the parameters' shape: momentum, second moments,
            traces, and counts if each parameter has its own. "counts" is everything but moments and traces (Adam's bias
            correction and the learning-rate schedule); for Adam this is Adam-Rel of Ellis et al. 2024, "Adam on Local
            Time". "first_moment" and "second_moment" are one kind of moment alone.

    Raises:
        ValueError: for an unknown name, a period below 1 or, while tracing, a moment that the optimizer does not have;
            at switches, for an optimizer whose only memory is its eligibility trace.

    Asadi et al. reset at every update of the target network.
    """
    check("what", what, ("all", "slots", "counts", "first_moment", "second_moment"))

    def new_state(rule: Optimizer, learner: Learner) -> Params:
        if what == "all":
            return rule.init(learner.params)
        if what == "slots":
            return surgery.reset_slots(rule, learner.opt_state, learner.params, surgery.everywhere(learner.params))
        if what == "counts":
            return surgery.reset_counts(rule, learner.opt_state, learner.params)
        return surgery.reset_moment(rule, learner.opt_state, learner.params, what)

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        if when == "switch":
            check_memory("when", when, learner)
        return state, learner._replace(opt_state=new_state(context.optimizer, learner))

    return scheduled(when, period, step)
