"""Settings that can have no effect are refused, by key and value."""

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import tiny

from plasticity.config.experiments import read_experiment
from plasticity.config.fields import metadata_of
from plasticity.config.schema import schema_of
from plasticity.config.settings import Parser
from plasticity.core.errors import UserError
from plasticity.runs import launch

REGISTRY = launch.registry()
FAMILIES = ("agents", "streams", "networks", "interventions", "optimizers", "replays", "transforms")
IDLE = [
    (family, name, setting, other, allowed)
    for family in FAMILIES
    for name in REGISTRY.names(family)
    for setting, needs in metadata_of(REGISTRY.factory(family, name)).only_with.items()
    for other, allowed in needs.items()
]
VALUES = {
    "path": "x.npz",
    "preset": "cw20",
    "goals": [[0.5, 0.0]],
    "target_entropy": 0.5,
    "trunk": "shared",
    "value_coefficient": 0.25,
    "outgoing_norm": 0.5,
    "exponent": 0.75,
    "strength": 0.75,
}  # other than the default, where it is no number or the rule below gives the default
OTHERS = {
    "replay_ratio": (None, 0.5),
    "temperature": (None, 0.5),
    "epochs": (0, 3),
    "layers": ("all", ["dense_0"]),
    "tasks": (None, ["push"]),
    "keep": (None, [0.1, 0.9]),
    "adaptive": (False, True),
    "precondition": (False, True),
    "adaptive_clip": (False, True),
    "relative": (False, True),
    "priorities": (False, True),
    "review": (False, True),
}  # not enumerated
SHOWN = {"None": "null", "True": "true", "False": "false"}


def problems(family: str, raw: Mapping[str, Any]) -> list[str]:
    parser = Parser(REGISTRY)
    parser.member(family, raw, (family, 0))
    return [str(problem.text) for problem in parser.problems]


def other_value(setting: str, default: Any) -> Any:
    if setting in VALUES:
        return VALUES[setting]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int) else default / 2 + 0.25


@pytest.mark.parametrize(("family", "name", "setting", "other", "allowed"), IDLE)
def test_a_setting_that_can_have_no_effect_is_refused(
    family: str, name: str, setting: str, other: str, allowed: tuple[Any, ...]
) -> None:
    schema = schema_of(REGISTRY.factory(family, name))
    default, choices = schema[setting].default, OTHERS.get(other, schema[other].words)
    value = other_value(setting, default)
    assert any(choice in allowed for choice in choices)
    assert any(choice not in allowed for choice in choices)
    for choice in choices:
        found = problems(family, {"kind": name, setting: value, other: choice})
        if choice in allowed:
            assert found == []
        else:
            (one,) = found
            assert f"has no effect with {other}=" in one
            needed = " or ".join(SHOWN.get(str(each), str(each)) for each in allowed)
            assert f"; it needs {other}={needed} (or leave it at " in one
        assert problems(family, {"kind": name, setting: default, other: choice}) == []  # as in a resolved config


def plan(**changes: Any) -> Any:
    return launch.plan(read_experiment(tiny.document(**changes), REGISTRY))


STREAMS = {"redo": True, "regrama": True, "cpr": True, "self_normalized_resets": True, "continual_backprop": False}


@pytest.mark.parametrize(("method", "streams"), STREAMS.items())
def test_streams_of_a_network_without_residual_streams(method: str, streams: bool) -> None:
    asked = {"interventions": [{"kind": method, "streams": streams}], "monitors": []}
    refusal = f"arms.baseline: interventions.{method}: streams: {str(streams).lower()} has no effect; this network "
    with pytest.raises(UserError, match=refusal + "has no units of a residual stream"):
        plan(**asked, agent={"kind": "classifier", "network": {"kind": "mlp", "widths": [4]}})
    plan(**asked, agent={"kind": "classifier", "network": {"kind": "residual_mlp", "width": 4, "blocks": 1}})


RTU = {"kind": "rtu", "units": 2}


@pytest.mark.parametrize("agent", ["stream_q", pytest.param("stream_ac", marks=pytest.mark.slow)])
def test_a_plan_warns_of_gradients_that_end_at_the_current_step(agent: str) -> None:
    networks = {
        "gru": {"kind": "gru", "units": 2},
        "bptt": {**RTU, "gradient": "bptt"},
        "rtrl": RTU,
        "without": {"kind": "mlp", "widths": [2]},
    }
    arms = {name: {"agent": {"network": network}} for name, network in networks.items()}
    stream = {"kind": "recall", "symbols": 2, "delay": 2, "tasks": 2, "steps_per_task": 20}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # of what rlax imports
        plan(stream=stream, agent={"kind": agent}, monitors=[], arms=arms)
    (notice,) = [str(each.message) for each in caught]
    assert notice.startswith("arms.gru, bptt: agent.network: gradients of this agent end at the current step; with rtu")
