"""Check whether an intervention takes effect on an agent, while the agent's functions are traced before a run."""

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.config.schema import schema_of
from plasticity.core.errors import placed
from plasticity.core.parts import Parts
from plasticity.interventions.base import EXCLUSIVE, Intervention, fills, undeclared
from plasticity.networks.build import build
from plasticity.networks.functions import as_graph
from plasticity.networks.spec import NetworkSpec

Seen = set[tuple[str, str]]  # labels of interventions, with the fields that the agent has called

FLAGS = ("renews", "sets", "parts", "reads_task", "remember", "visits", "forgets")
NOT_ASKED = (*FLAGS, "view")  # an agent does not call these; an evaluation calls the view
ASKED = tuple(name for name in Intervention._fields if name not in NOT_ASKED)  # what an agent calls

AT_BIRTH = ("network", "optimizer", "init")  # the fields among these that it calls while it is built

# What is missing when an agent never calls a field.
LEFT_OUT: Mapping[str, str] = {
    "network": "builds its network without it",
    "optimizer": "does not let it wrap its optimizer",
    "init": "keeps no state for it",
    "start": "does not complete its state",
    "penalty": "adds no penalty to its loss",
    "step": "does not call it after an update",
    "switch": "does not call it at task switches",
    "prepare": "does not call it before an update",
    "acting": "does not act with its parameters",
    "point": "does not take its gradient at another point",
    "gradient": "does not let it rewrite its gradient",
    "explore": "does not explore with the policies of earlier tasks",
    "review": "draws no batches from a replay",
}


def own_fields(intervention: Intervention) -> list[str]:
    """The hooks that the intervention fills."""
    return [name for name in ASKED if fills(intervention, name)]


def sees_switches(factory: Callable[..., Intervention]) -> bool:
    """Whether the method acts at task switches or knows tasks, at its defaults or with settings that allow "switch"."""
    chosen = {name: "switch" for name, setting in schema_of(factory).items() if "switch" in setting.words}
    return bool(chosen) if _needs_more(factory, chosen) else factory(**chosen).knows_tasks


def reads_task(factory: Callable[..., Intervention]) -> bool:
    """Whether the method, at its defaults, needs the task in the observation."""
    return not _needs_more(factory, {}) and factory().reads_task


def _needs_more(factory: Callable[..., Intervention], chosen: Mapping[str, Any]) -> bool:
    """Whether a setting without a default is missing."""
    return any(setting.required and name not in chosen for name, setting in schema_of(factory).items())


def labelled(label: str, intervention: Intervention, seen: Seen | None = None) -> Intervention:
    """The intervention with its label prefixed to every ``ValueError``; calls to its hooks are recorded in ``seen``.

    If ``seen`` is given, ``ValueError`` also for an intervention on the network alone that leaves the network
    unchanged (of joined networks, one of those that it is for).
    """

    def calling(field: str) -> Callable[..., Any]:
        function = getattr(intervention, field)

        def call(*args: Any) -> Any:
            if seen is not None:
                seen.add((label, field))
            try:
                if field == "network" and is_for(intervention, args[0]):
                    as_graph(args[0])
                made = function(*args)
                if field == "network":
                    declared(args[0], made, intervention)
                return made
            except ValueError as error:
                raise ValueError(placed(label, str(error))) from error

        return call

    fields = own_fields(intervention)
    reads = ["network"] if intervention.reads_task else []  # only a graph can be given the task
    changed: dict[str, Any] = {field: calling(field) for field in dict.fromkeys([*fields, *reads])}
    if seen is not None and fields in (["network"], ["network", "init"]):  # `init` alone has no effect
        changed["network"] = effective(label, changed["network"], intervention)
    return intervention._replace(**changed)


def is_for(intervention: Intervention, spec: NetworkSpec) -> bool:
    """Whether the intervention may rewrite this network: it is restricted to no other of several joined ones."""
    return not (intervention.parts and spec.part) or Parts(intervention.parts).has(spec.part)


def declared(before: NetworkSpec, after: NetworkSpec, intervention: Intervention) -> None:
    """Raise a ``ValueError`` if the intervention sets an exclusive part of the network without declaring it."""
    for field in undeclared(before, after, intervention.sets):
        raise ValueError(
            f"sets the network's {EXCLUSIVE[field]} without declaring it; the Intervention that it returns must have "
            f"sets=({field!r},), so that no other intervention sets it too"
        )


def unused(named: Mapping[str, Intervention], seen: Seen, fields: Collection[str] = ASKED) -> Iterator[tuple[str, str]]:
    """Label and reason of each intervention with a hook, one of ``fields``, that the agent has not called."""
    for label, intervention in named.items():
        for field in own_fields(intervention):
            if field in fields and (label, field) not in seen:
                yield label, f"the agent {LEFT_OUT[field]} (`{field}`), so it would have no effect or only part of it"
                break


def effective(
    label: str, network: Callable[[NetworkSpec], NetworkSpec], intervention: Intervention
) -> Callable[[NetworkSpec], NetworkSpec]:
    """``network``, with a ``ValueError`` if the network it returns computes the same function as before."""

    def changed(spec: NetworkSpec) -> NetworkSpec:
        new = network(spec)
        if not is_for(intervention, spec):
            return new
        before, after = (replace(each, part="") for each in (spec, new))  # equal for all networks of one kind
        if new == spec or computation(after) == computation(before):
            why = "already has this or has no place for it" if spec.has_hidden else "has no hidden layer"
            raise ValueError(f"{label} changes nothing: the network {why}")
        return new

    return changed


@functools.lru_cache(64)
def computation(spec: NetworkSpec) -> str:
    """How the network is initialised and what it computes, as text that is the same for equal computations."""
    network, key = build(spec), jax.random.key(0)
    observations = jax.ShapeDtypeStruct((2, *spec.reads), jnp.float32)
    made = (
        jax.make_jaxpr(network.init)(key),
        jax.make_jaxpr(network.forward)(jax.eval_shape(network.init, key), observations),
    )
    return re.sub(r"0x[0-9a-f]+", "", " ".join(map(str, made)))
