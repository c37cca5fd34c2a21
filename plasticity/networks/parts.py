"""Some of the parts of joined networks as a network of their own."""

from collections.abc import Mapping
from typing import Any

from plasticity.core.parts import Parts
from plasticity.core.types import Activation, Array, Key, Learner, Network, Params


def part_of(network: Network, chosen: Parts) -> Network:
    """The chosen parts of joined networks: their functions and their share of the wiring.

    Its parameters and carries are those of ``network`` with ``optax.MaskedNode()`` in place of the other parts
    (``Parts.of``), so all paths stay valid; its outputs are a mapping of the chosen parts alone. Where a batch has the
    carries of all parts, those of the others stay as they are.
    """
    inside = {name: each for name, each in network.parts.items() if chosen.has(name)}

    def init(key: Key) -> Params:
        return chosen.of(network.init(key))

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[dict[str, Any], Mapping[str, Activation], Any]:
        before = carry if isinstance(carry, Mapping) else {}
        made = {
            name: each.apply(params[name], observations, before.get(name, ()), first) for name, each in inside.items()
        }
        activations = {f"{name}/{layer}": seen for name, (_, found, _) in made.items() for layer, seen in found.items()}
        after = {name: made[name][2] if name in made else value for name, value in before.items()} or carry
        return {name: each[0] for name, each in made.items()}, activations, after

    def project(params: Params) -> Params:
        return {**params, **{name: each.project(params[name]) for name, each in inside.items()}}

    def mine(name: str) -> bool:
        return chosen.has(name.partition("/")[0])

    def paths(field: str) -> tuple[Any, ...]:
        return tuple(path for path in getattr(network, field) if chosen.has(path[0]))

    return network._replace(
        init=init,
        apply=apply,
        units=tuple(each for each in network.units if mine(each.name)),
        hidden=paths("hidden"),
        outputs=paths("outputs"),
        task_heads=paths("task_heads"),
        reads_task=any(each.reads_task for each in inside.values()),
        auxiliary=paths("auxiliary"),
        layers=tuple(each for each in network.layers if mine(each.name)),
        norms=paths("norms"),
        initial=lambda batch: chosen.of(network.initial(batch)),
        unrolls=all(each.unrolls for each in inside.values()),
        project=project,
        batch_statistics=any(each.batch_statistics for each in inside.values()),
        modulated=tuple(record for record in network.modulated if chosen.has(record.path[0])),
        parts=inside,
    )


def activations_of(activations: Mapping[str, Activation], chosen: Parts) -> dict[str, Activation]:
    """The activations of the chosen parts."""
    return {name: each for name, each in activations.items() if chosen.has(name.partition("/")[0])}


def learner_of(learner: Learner, chosen: Parts) -> Learner:
    """The learner's share of the chosen parts; ``rest`` is not split."""
    params, target, opt_state, rest, carry = learner
    return Learner(chosen.of(params), chosen.of(target), chosen.of(opt_state), rest, chosen.of(carry))
