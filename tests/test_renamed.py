"""Old names in configs are read as the new ones, and one line says so."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny

from plasticity import results
from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.fields import metadata
from plasticity.config.registry import FAMILIES, Registry
from plasticity.config.renamed import Renamer
from plasticity.runs import launch

STREAM_Q = {"kind": "stream_q", "network": {"kind": "mlp", "widths": [8]}}
CATCH = {"kind": "catch", "tasks": 2, "steps_per_task": 20}


def both(old: Mapping[str, Any], new: Mapping[str, Any], *overrides: str) -> tuple[Experiment, Experiment, list[str]]:
    """The experiment with the old names (and overrides), that with the new ones, and the lines about the old ones."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = read_experiment(tiny.document(**old), launch.registry(), overrides)
    return found, read_experiment(tiny.document(**new), launch.registry()), [str(each.message) for each in told]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ({"told": True}, {"task_aware": True}, "`told` is now called `task_aware`"),
        ({"arms": {"a": {"told": True}}}, {"arms": {"a": {"task_aware": True}}}, "`told` is now called `task_aware`"),
        (
            {"stream": CATCH, "agent": {**STREAM_Q, "trace": 0.5}},
            {"stream": CATCH, "agent": {**STREAM_Q, "trace_decay": 0.5}},
            "`trace` is now called `trace_decay`",
        ),
        (
            {"stream": CATCH, "agent": STREAM_Q, "arms": {"a": {"agent": {"trace": 0.5}}}},
            {"stream": CATCH, "agent": STREAM_Q, "arms": {"a": {"agent": {"trace_decay": 0.5}}}},
            "`trace` is now called `trace_decay`",
        ),
        (
            {"stream": CATCH, "agent": STREAM_Q, "arms": {"a": {"sweep": {"agent.trace": [0.5, 0.8]}}}},
            {"stream": CATCH, "agent": STREAM_Q, "arms": {"a": {"sweep": {"agent.trace_decay": [0.5, 0.8]}}}},
            "`agent.trace` is now called `agent.trace_decay`",
        ),
        (
            {"stream": CATCH, "agent": STREAM_Q, "sweep": {"agent.trace": [0.5, 0.8]}},
            {"stream": CATCH, "agent": STREAM_Q, "sweep": {"agent.trace_decay": [0.5, 0.8]}},
            "`agent.trace` is now called `agent.trace_decay`",
        ),
    ],
)
def test_an_old_name_is_read_and_named(old: dict[str, Any], new: dict[str, Any], line: str) -> None:
    found, wanted, told = both(old, new)
    assert found == wanted
    assert told == [line]


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("told=true", {"task_aware": True}),
        ("arms.a.told=true", {"arms": {"a": {"task_aware": True}}}),
        ("arms={a: {told: true}}", {"arms": {"a": {"task_aware": True}}}),
    ],
)
def test_an_old_name_on_the_command_line_goes_before_a_new_one_in_the_file(override: str, new: dict[str, Any]) -> None:
    old = {**new, "task_aware": False} if "arms" not in new else {"arms": {"a": {"task_aware": False}}}
    found, wanted, told = both(old, new, override)
    assert found == wanted
    assert len(told) == 1


@pytest.mark.parametrize("path", ["agent.trace", "arms.a.agent.trace"])
def test_an_old_setting_on_the_command_line(path: str) -> None:
    given = {"stream": CATCH, "agent": STREAM_Q, "arms": {"a": {}}}
    changed = (
        {"agent": {**STREAM_Q, "trace_decay": 0.5}}
        if path == "agent.trace"
        else {"arms": {"a": {"agent": {"trace_decay": 0.5}}}}
    )
    found, wanted, told = both(given, {**given, **changed}, f"{path}=0.5")
    assert found == wanted
    assert told == [f"`{path}` is now called `{path}_decay`"]


def test_no_line_where_no_old_name_is_used() -> None:
    assert both({"task_aware": True}, {"task_aware": True})[2] == []


def test_a_member_that_was_renamed() -> None:
    @metadata(formerly="sparkle", renamed={"rate": "strength"})
    def glitter(*, strength: float = 1.0) -> Any:
        return strength

    registry = Registry()
    registry.register("interventions", "glitter", glitter)
    renamer = Renamer(registry)
    found = renamer.document({"arms": {"a": {"interventions": ["sparkle", {"kind": "sparkle", "rate": 2.0}]}}})
    assert found == {"arms": {"a": {"interventions": ["glitter", {"kind": "glitter", "strength": 2.0}]}}}
    document = {"interventions": ["glitter", {"kind": "plain", "rate": 1.0}]}
    assert renamer.path(document, "interventions.sparkle.rate") == "interventions.glitter.strength"
    assert renamer.path(document, "interventions.plain.rate") == "interventions.plain.rate"  # a name of its own
    assert registry.factory("interventions", "sparkle") is glitter
    assert registry.origin("interventions", "sparkle") == "built in"


def test_a_run_of_older_names_goes_on_and_is_compared(tmp_path: Path) -> None:
    """Its config says `told`; what it computes is the same."""
    experiment = tiny.experiment(arms={"a": {"task_aware": True}, "b": {}})
    for place in (tmp_path / "old", tmp_path / "new"):
        launch.run(experiment, place)
    older = tmp_path / "old" / "experiment.yaml"
    older.write_text(older.read_text().replace("task_aware", "told"))
    plan = json.loads((tmp_path / "old" / "plan.json").read_text())
    plan = {key: value for key, value in plan.items() if key not in ("crc32", "config")}
    for arm in plan["arms"]:
        arm["told"] = arm.pop("task_aware")
    (tmp_path / "old" / "plan.json").write_text(json.dumps(plan))
    assert [arm["task_aware"] for arm in results.plan(tmp_path / "old")["arms"]] == [True, False]
    two = results.compare_runs(tmp_path / "old", tmp_path / "new")
    assert two.config == ()
    assert all(each.equal for each in two.replicas)
    (tmp_path / "old" / "a" / "status.json").unlink()  # as if it had been stopped
    launch.run(experiment, tmp_path / "old", resume=True)
    assert all(each.equal for each in results.compare_runs(tmp_path / "old", tmp_path / "new").replicas)


def test_no_old_name_is_in_use_again() -> None:
    registry = launch.registry()
    for family in FAMILIES:
        assert not set(registry.former_names(family)) & set(registry.names(family))
        for name in registry.names(family):
            renamed = registry.metadata(family, name).renamed
            schema = registry.schema(family, name)
            assert set(renamed.values()) <= set(schema), name
            assert not set(renamed) & set(schema), name
