"""Every method with settings under which it acts on a tiny network within a few updates."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention

STRONG: dict[str, dict[str, Any]] = {
    "plasticity_injection": {"at": 2},
    "weight_decay": {"rate": 0.1},
    "weight_clip": {"bound": 0.1},
    "synaptic_intelligence": {"strength": 100.0},
    "sam": {"rho": 1.0},
    "hare_tortoise": {"decay": 0.5},
    "redo": {"threshold": 2.0},
    "regrama": {"threshold": 2.0},
    "continual_backprop": {"replacement_rate": 1.0, "maturity_period": 0},
    "self_normalized_resets": {"initial": 1, "longest": 2},
    "selective_weight_reinit": {"proportion": 0.5},
    "neuroplastic_expansion": {"rate": 1.0},
    "l2": {"strength": 0.1},
    "spectral_regularization": {"strength": 0.1},
    "effective_rank": {"strength": 1.0},
    "soft_reset": {"gamma_learning_rate": 10.0, "predict": "mean", "prior": "zero"},
}


# Settings that keep a method small, and the numbers finite with any step size.
SIZES: dict[str, dict[str, Any]] = {
    "l2_previous": {"strength": 0.1},
    "packnet": {"tasks": 2, "retrain": 2, "batch": 2, "memory": 4},
    "reset_and_distill": {"updates": 2, "batch": 2, "memory": 4},
    **{name: {"batch": 4, "memory": 8} for name in ("a_gem", "clear", "behavioural_cloning")},
    **{name: {"samples": 8} for name in ("ewc", "mas")},
    "modulation": {"size": 3, "rank": 2},
}


def acting_soon(method: str, **changes: Any) -> Callable[[], Intervention]:
    """The method with every period at two updates, and strong enough to be seen."""
    known = inspect.signature(INTERVENTIONS[method]).parameters
    periods = {key: 2 for key in known if key.endswith("period")}
    return partial(INTERVENTIONS[method], **(periods | SIZES.get(method, {}) | STRONG.get(method, {}) | changes))


def variants(method: str) -> dict[str, Callable[[], Intervention]]:
    """Each setting of the method that is a way of its own to act, by a name for it."""
    known = inspect.signature(INTERVENTIONS[method]).parameters
    if method == "at_switch":
        settings = {"replay": "clear", "optimizer": "reset", "target": "copy", "schedule": "restart"}
        settings["normaliser"] = "reset"
        return {f"{method}-{key}": acting_soon(method, **{key: value}) for key, value in settings.items()}
    found = {method: acting_soon(method)}
    if method == "neuroplastic_expansion":
        found[f"{method}-unreviewed"] = acting_soon(method, review=False)
    if method == "upgd":
        found["upgd-units"] = acting_soon(method, utility="units")
    if method == "modulation":
        found["modulation-task"] = acting_soon(method, choose="task", form="scale", freeze="update", at=2)
    if "when" in known:
        found[f"{method}-periodic"] = acting_soon(method, when="periodic")
    return found


CASES = {name: made for method in sorted(INTERVENTIONS) for name, made in variants(method).items()}

# whose gradient is not that of a loss
TRACED = ("stream_q", "adaptive_q", "stream_sarsa", "qrc", "stream_ac", "stream_td")
STREAMED = (*TRACED, "stream_dqn", "stream_c51", "avg")
REPLAYED = ("dqn", "c51", "rainbow", "sac", "td3")
ROLLOUT = ("ppo", "pqn", "reinforce")
SUPERVISED = ("classifier", "regressor", "kalman_classifier")
OFFLINE = ("offline_dqn", "offline_c51", "cql", "bc")
# Left out where all methods run together: aid refuses crelu, the others replace the learner.
APART = ("aid", "altnet", "neuroplastic_expansion", "modulation")
# The agents on which a case can have no effect, and which refuse it.
REFUSED: dict[str, tuple[str, ...]] = {
    "altnet": (*STREAMED, *ROLLOUT, "kalman_classifier"),
    "effective_rank": STREAMED,
    "a_gem": TRACED,
    "packnet": TRACED,
    "neuroplastic_expansion": (*STREAMED, *ROLLOUT, *SUPERVISED, *OFFLINE),
    "neuroplastic_expansion-unreviewed": TRACED,
    "sam": TRACED,
    "optimizer_reset": ("stream_q", "stream_sarsa", "stream_ac", "stream_td"),
    "at_switch-optimizer": ("stream_q", "stream_sarsa", "stream_ac", "stream_td"),
    "at_switch-replay": (*STREAMED, *SUPERVISED, *ROLLOUT, *OFFLINE),
    "at_switch-target": (*STREAMED, *SUPERVISED, *ROLLOUT, "bc"),
    "at_switch-schedule": (*SUPERVISED, *OFFLINE, "ppo", "reinforce", "stream_ac", "stream_td", "avg"),
    "at_switch-normaliser": (*SUPERVISED, *REPLAYED, *ROLLOUT, *OFFLINE),
    "plasticity_injection": ("kalman_classifier",),
    "task_heads": ("kalman_classifier",),
    # By sac and td3 alone, as their policies do not know the task: tests/agents/test_explorers.py has them with heads.
    "old_policy_exploration": (*STREAMED, *REPLAYED, *ROLLOUT, *SUPERVISED, *OFFLINE),
}
