"""Which parts of a learner's state are reset at task switches."""

from collections.abc import Mapping
from typing import Any, Literal

import jax

from plasticity.config.fields import metadata
from plasticity.core.errors import check
from plasticity.core.types import Context, Key, Learner, Params, State
from plasticity.interventions.base import Intervention
from plasticity.interventions.resets import check_memory, renewed

# The part of `Learner.rest` that each setting refers to, under any of these names.
PARTS: Mapping[str, tuple[str, ...]] = {
    "replay": ("replay",),
    "schedule": ("schedule",),
    "normaliser": ("normaliser", "reward_scale", "error_scale"),
}


def reset_memory(learner: Learner, fresh: Learner, settings: tuple[str, ...]) -> Mapping[str, Any]:
    """``learner.rest`` with the parts that the settings name reset to those of a fresh agent.

    ``ValueError`` (while tracing) that lists the known parts if the agent has no such part.
    """
    names: list[str] = []
    for setting in settings:
        found = [name for name in PARTS[setting] if name in learner.rest]
        if not found:
            have = f"it has {', '.join(sorted(learner.rest))}" if learner.rest else "it has only its network"
            raise ValueError(f"{setting}: this agent has none ({have}); must be keep")
        names += found
    return renewed(learner.rest, fresh.rest, names)


def new_target(learner: Learner, fresh: Learner, target: str) -> Params:
    if target != "keep" and not jax.tree.leaves(learner.target):
        raise ValueError(f"target: {target} is not allowed; this agent has no target network; must be keep")
    return {"keep": learner.target, "reset": fresh.target, "copy": learner.params}[target]


@metadata(
    paper="Asadi et al. 2023, Resetting the Optimizer in Deep RL: An Empirical Study",
    checked="the memories of a fresh agent, bit for bit, one at a time, in four agents",
    neutral={},
    note="with default settings everything is kept",
)
def at_switch(
    *,
    replay: Literal["keep", "clear"] = "keep",
    optimizer: Literal["keep", "reset"] = "keep",
    target: Literal["keep", "reset", "copy"] = "keep",
    schedule: Literal["keep", "restart"] = "keep",
    normaliser: Literal["keep", "reset"] = "keep",
) -> Intervention:
    """Reset parts of the learner's state at each task switch; the network is kept.

    All settings are static.

    Args:
        replay: "clear" empties the buffer.
        optimizer: "reset" is ``s <- optimizer.init(theta)``, counts included, as in Asadi et al. 2023, "Resetting the
            Optimizer in Deep RL: An Empirical Study", who do it when the target network is updated.
        target: "reset" makes the target network that of a fresh agent, "copy" a copy of the network.
        schedule: "restart" restarts everything counted from the agent's initialisation (exploration).
        normaliser: "reset" returns the statistics of observations and rewards to their initial, empty state.

    Raises:
        ValueError: for an unknown word and, while tracing, for a part that the agent does not have.
    """
    words = {"replay": (replay, "clear"), "schedule": (schedule, "restart"), "normaliser": (normaliser, "reset")}
    for key, (value, reset_word) in words.items():
        check(key, value, ("keep", reset_word))
    check("optimizer", optimizer, ("keep", "reset"))
    check("target", target, ("keep", "reset", "copy"))
    settings = tuple(key for key, (value, reset_word) in words.items() if value == reset_word)

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        fresh = context.fresh(key)
        rule = context.optimizer
        if optimizer == "reset":
            check_memory("optimizer", optimizer, learner)
        return state, learner._replace(
            target=new_target(learner, fresh, target),
            opt_state=rule.init(learner.params) if optimizer == "reset" else learner.opt_state,
            rest=reset_memory(learner, fresh, settings),
        )

    return Intervention(switch=switch)
