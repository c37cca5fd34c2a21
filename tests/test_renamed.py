"""Old names in configs are read as the new ones, with one line of notice."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny

from plasticity import results
from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.fields import Moved, metadata
from plasticity.config.registry import FAMILIES, Registry
from plasticity.config.renamed import Renamer
from plasticity.core.errors import UserError
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
        (
            {"stream": CATCH, "agent": STREAM_Q, "sweep": {"points": [{"agent.trace": 0.5}]}},
            {"stream": CATCH, "agent": STREAM_Q, "sweep": {"points": [{"agent.trace_decay": 0.5}]}},
            "`agent.trace` is now called `agent.trace_decay`",
        ),
    ],
)
def test_an_old_name_is_read_and_named(old: dict[str, Any], new: dict[str, Any], line: str) -> None:
    found, wanted, told = both(old, new)
    assert found == wanted
    assert told == [line]


ADAM = {"kind": "adam", "learning_rate": 0.1}
DQN = tiny.DQN["agent"]
RAINBOW = {**DQN, "kind": "rainbow"}
WITHOUT = {key: value for key, value in DQN.items() if key != "replay"}
PRIORITIES = {"kind": "rainbow", "prioritised": False, "priority_exponent": 0.5, "replay_minimum": 16}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {**WITHOUT, "replay_capacity": 200, "replay_minimum": 16, "epsilon_end": 0.2},
            {**DQN, "epsilon": {"end": 0.2}},
        ),
        ({**DQN, "epsilon_start": 0.5, "epsilon_steps": 10}, {**DQN, "epsilon": {"start": 0.5, "duration": 10}}),
        (
            {**WITHOUT, **PRIORITIES, "replay_capacity": 200},
            {**WITHOUT, "kind": "rainbow", "replay": {"kind": "uniform", "capacity": 200, "minimum": 16}},
        ),
        (
            {**RAINBOW, "priority_exponent": 0.5, "importance_end": 0.9, "prioritised": True},
            {**RAINBOW, "replay": {**DQN["replay"], "exponent": 0.5, "importance": {"end": 0.9}}},
        ),
    ],
)
def test_an_old_setting_of_a_replay_agent_is_read_in_its_new_place(old: dict[str, Any], new: dict[str, Any]) -> None:
    found, wanted, _ = both({"stream": CATCH, "agent": old}, {"stream": CATCH, "agent": new})
    assert found == wanted


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"schedule": "constant", "schedule_updates": 0, "end_learning_rate": 0.0, "warm_up": 0}, {}),
        ({"schedule": "constant", "warm_up": 5}, {"schedule": {"kind": "constant", "warm_up": 5}}),
        ({"warm_up": 5}, {"schedule": {"kind": "constant", "warm_up": 5}}),
        (
            {"schedule": "cosine", "schedule_updates": 9, "end_learning_rate": 0.0},
            {"schedule": {"kind": "cosine", "duration": 9, "end": 0.0}},
        ),
        (
            {"schedule": "linear", "schedule_updates": 9, "warm_up": 3, "end_learning_rate": 0.0},
            {"schedule": {"kind": "linear", "duration": 9, "warm_up": 3, "end": 0.0}},
        ),
    ],
)
def test_an_old_schedule_of_an_optimizer_is_read_as_a_member(old: dict[str, Any], new: dict[str, Any]) -> None:
    agent = tiny.document()["agent"]
    given, wanted = ({"agent": {**agent, "optimizer": {**ADAM, **each}}} for each in (old, new))
    assert both(given, wanted)[0] == both(given, wanted)[1]


OLD_SCHEDULE = {"schedule": "linear", "schedule_updates": 9}
NEW_SCHEDULE = {"schedule": {"kind": "linear", "duration": 9}}


@pytest.mark.parametrize("key", ["optimizer", "policy_optimizer", "value_optimizer"])
def test_an_old_setting_of_a_member_whose_kind_is_the_default(key: str) -> None:
    kind = {"kind": "stream_ac"} if key != "optimizer" else {"kind": "dqn"}
    rule = {} if key == "optimizer" else {"kind": "adam"}
    old, new = ({"stream": CATCH, "agent": {**kind, key: {**rule, **each}}} for each in (OLD_SCHEDULE, NEW_SCHEDULE))
    assert both(old, new)[0] == both(old, new)[1]
    arms_old, arms_new = ({"stream": CATCH, "agent": kind, "arms": {"a": {"agent": x["agent"]}}} for x in (old, new))
    assert both(arms_old, arms_new)[0] == both(arms_old, arms_new)[1]


def test_old_settings_of_the_default_optimizer_in_an_override_and_a_sweep() -> None:
    given = {"stream": CATCH, "agent": {"kind": "dqn"}}
    warmed = {**given, "agent": {"kind": "dqn", "optimizer": {"schedule": {"kind": "constant", "warm_up": 5}}}}
    found, wanted, _ = both(given, warmed, "agent.optimizer.warm_up=5")
    assert found == wanted
    base = {**given, "agent": {"kind": "dqn", "optimizer": NEW_SCHEDULE}}
    old, new = "agent.optimizer.schedule_updates", "agent.optimizer.schedule.duration"
    found, wanted, _ = both({**base, "sweep": {old: [5, 9]}}, {**base, "sweep": {new: [5, 9]}})
    assert found == wanted


def test_a_final_learning_rate_is_refused_with_what_to_write() -> None:
    rule = {**ADAM, **OLD_SCHEDULE, "end_learning_rate": 0.01}
    message = r"`end_learning_rate` is now `schedule.end`, a fraction of `learning_rate`; write schedule.end: 0.1$"
    with pytest.raises(UserError, match=message):
        both({"agent": {**tiny.document()["agent"], "optimizer": rule}}, {})


@pytest.mark.parametrize(
    "given",
    [
        {"told": True, "task_aware": False},
        {"stream": CATCH, "agent": {**DQN, "learn_every": 4}},
        {"stream": CATCH, "agent": {**DQN, "epsilon_end": 0.1, "epsilon": {"end": 0.2}}},
        {"stream": CATCH, "agent": DQN, "sweep": {"agent.epsilon_end": [0.1], "agent.epsilon.end": [0.2, 0.3]}},
    ],
)
def test_an_old_and_a_new_name_of_one_setting_are_not_both_given(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"are both given; the first is the old name of the second"):
        both(given, {})


@pytest.mark.parametrize(("old", "new"), [(True, "bootstrap"), (False, "terminal")])
def test_an_old_setting_whose_values_have_other_words(old: bool, new: str) -> None:
    ppo = {"kind": "ppo", "network": {"kind": "mlp", "widths": [8]}}
    agents = ({**ppo, "bootstrap_truncation": old}, {**ppo, "truncation": new})
    found, wanted, notes = both(*({"stream": CATCH, "agent": agent} for agent in agents))
    assert found == wanted
    assert notes == [f"`bootstrap_truncation: {str(old).lower()}` is now called `truncation: {new}`"]


def test_an_arm_that_turns_priorities_off_keeps_the_sizes_of_its_replay() -> None:
    arms = {"plain": {"agent": {"prioritised": False, "priority_exponent": 0.5}}}
    old = {"stream": CATCH, "agent": {**WITHOUT, "kind": "rainbow", "replay_capacity": 300}, "arms": arms}
    replay = {"capacity": 300, "kind": "uniform"}
    new = {**old, "agent": {**WITHOUT, "kind": "rainbow", "replay": {"capacity": 300}}}
    found, wanted, _ = both(old, {**new, "arms": {"plain": {"agent": {"replay": replay}}}})
    assert found == wanted


def test_an_arm_of_an_older_run_that_ends_the_schedule_of_its_base() -> None:
    agent = tiny.document()["agent"]
    base = {**ADAM, "schedule": {"kind": "linear", "duration": 9}}
    whole = {"schedule": "constant", "schedule_updates": 0, "end_learning_rate": 0.0, "warm_up": 0}
    given, wanted = (
        {"agent": {**agent, "optimizer": base}, "arms": {"a": {"agent": {"optimizer": each}}}}
        for each in (whole, {"schedule": None})
    )
    assert both(given, wanted)[0] == both(given, wanted)[1]


def test_an_arm_ends_the_schedule_of_the_base() -> None:
    agent = tiny.document()["agent"]
    base = {"agent": {**agent, "optimizer": {**ADAM, "schedule": {"kind": "linear", "duration": 9}}}}
    old = {**base, "arms": {"a": {"agent": {"optimizer": {"schedule": "constant"}}}}}
    found, wanted, _ = both(old, {**base, "arms": {"a": {"agent": {"optimizer": {"schedule": None}}}}})
    assert found == wanted


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("agent.epsilon_end=0.5", {"epsilon": {"end": 0.5}}),
        ("agent.replay_minimum=20", {"replay": {"capacity": 200, "minimum": 20}}),
        ("agent.optimizer.warm_up=7", {"optimizer": {"kind": "adam", "schedule": {"kind": "constant", "warm_up": 7}}}),
    ],
)
def test_an_old_setting_that_moved_on_the_command_line(override: str, changed: dict[str, Any]) -> None:
    given = {"stream": CATCH, "agent": DQN}
    found, wanted, notes = both(given, {**given, "agent": {**DQN, **changed}}, override)
    assert found == wanted
    assert len(notes) == 1


def test_a_sweep_of_an_old_setting_whose_values_changed_names_the_new_one() -> None:
    sweep = {"agent.optimizer.end_learning_rate": [0.0, 0.1]}
    with pytest.raises(UserError, match=r"`agent.optimizer.end_learning_rate` is now called `agent.optimizer.schedule"):
        both({"sweep": sweep}, {})


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
    assert told == [f"command line: `{path}` is now called `{path}_decay`"]


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


@pytest.mark.slow
def test_a_run_of_older_names_goes_on_and_is_compared(tmp_path: Path) -> None:
    """Its config has `told`; the run is the same."""
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


def test_a_run_of_an_older_version_is_compared_in_the_words_of_this_one(tmp_path: Path) -> None:
    for place in (tmp_path / "old", tmp_path / "new"):
        launch.run(tiny.experiment(arms={"a": {}}), place)
    older = tmp_path / "old" / "experiment.yaml"
    written = "schedule: constant, schedule_updates: 0, end_learning_rate: 0.0, warm_up: 0"
    assert "schedule: null" in older.read_text()
    older.write_text(older.read_text().replace("schedule: null", written))
    plan = json.loads((tmp_path / "old" / "plan.json").read_text())
    plan = {key: value for key, value in plan.items() if key not in ("crc32", "config")}
    (tmp_path / "old" / "plan.json").write_text(json.dumps(plan))
    places = tmp_path / "old", tmp_path / "new"
    assert {each.key.rpartition(".")[2] for each in results.compare_runs(*places).config} >= {"schedule_updates"}
    two = results.compare_runs(*places, current=launch.completed)
    assert two.config == ()
    assert all(each.equal for each in two.replicas)


def test_no_old_name_is_in_use_again() -> None:
    registry = launch.registry()
    for family in FAMILIES:
        assert not set(registry.former_names(family)) & set(registry.names(family))
        for name in registry.names(family):
            renamed = registry.metadata(family, name).renamed
            schema = registry.schema(family, name)
            places = {old: new.to if isinstance(new, Moved) else new for old, new in renamed.items()}
            assert {place.partition(".")[0] for place in places.values()} <= set(schema), name
            assert not {old for old, place in places.items() if old != place} & set(schema), name
