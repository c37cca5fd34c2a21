"""Experiments become jobs; what does not fit is refused with a message before anything is written."""

import dataclasses
import importlib.metadata
import inspect
import json

import numpy as np
import pytest
import tiny

import plasticity
from plasticity.config.registry import Registry
from plasticity.core.errors import UserError
from plasticity.engine import memory
from plasticity.runs import dry_run, launch, members


def refused(**changes) -> str:
    with pytest.raises(UserError) as error:
        launch.plan(tiny.experiment(**changes))
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


FILES = {"inputs": "mnist", "dimensions": 64}  # images have their own dimensions


def stream(**changes) -> dict:
    return {"stream": {**tiny.document()["stream"], **changes}}


def dqn(**changes) -> dict:
    return {
        "stream": {"kind": "atari", "games": ["Pong"], "frames_per_visit": 80},
        "agent": {**tiny.DQN["agent"], **changes},
    }


def reset(**changes) -> dict:
    return {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch", **changes}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"record_every": 7}, "record_every: 7 is not allowed; must divide the 20 steps of a visit"),
        ({"monitor_every": 12}, "record_every: 5 is not allowed; must divide monitor_every, 12"),
        ({"checkpoint_every": 9}, "record_every: 5 is not allowed; must divide checkpoint_every, 9"),
        (dqn(update_period=3), "arms.baseline: agent.update_period: 3 is not allowed; must divide the 20 steps"),
        (dqn(replay_ratio=float("inf")), "agent.replay_ratio: Infinity is not allowed; must be a number in (0, 10000]"),
        (dqn(replay={"minimum": 500, "capacity": 200}), "agent.replay.minimum: 500 is not allowed; must be between 5"),
        (dqn(replay={"minimum": 16, "capacity": 4}), "agent.replay.capacity: 4 is not allowed; must be at least 5"),
        (stream(**FILES, samples=None), "stream: path: missing; with inputs: mnist it must be the path of"),
        (stream(**FILES, path="/nowhere"), "stream: path: /nowhere does not contain mnist"),
        (
            stream(inputs="digits", dimensions=64, samples=9999),
            "stream: samples: 9999 is not allowed; must be in [1, 1797]",
        ),
        ({"agent": "dqn"}, "arms.baseline: agent.kind: dqn is not allowed; it needs a stream with discrete actions"),
        (
            {"monitors": [{"kind": "hessian_top_eigenvalue", "k": 30}]},
            "monitors.hessian_top_eigenvalue: k: 30 is not allowed; must be at most iterations (20)",
        ),
        ({"placement": {"devices": 64}}, "placement.devices: 64 is not allowed; this machine has 2"),
        (
            {"stream": {"kind": "atari", "games": ["Pongg"]}},
            'stream: games: unknown game "Pongg"; 104 are known; did you mean `Pong`?',
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:frames_per_visit")  # so short on purpose
def test_what_does_not_fit(changes, said):
    assert said in refused(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"monitors": [{"kind": "effective_rank", "layer": "hidden_7"}]},
            'monitors.effective_rank: layer: "hidden_7" is not allowed; must be last, all or one of hidden_0',
        ),
        (
            reset(modules=["nowhere"]),
            'interventions.reset: modules: "nowhere" is not allowed; must be all, last, or a list of: hidden_0, output',
        ),
        (reset(rest=["nowhere"]), 'interventions.reset: rest: "nowhere" is not allowed; must be auto, all, none'),
        (
            reset(when="periodic", rest="none", modules=["nowhere"]),
            'interventions.reset: modules: "nowhere" is not allowed; must be all, last, or a list of: hidden_0',
        ),
    ],
)
def test_what_does_not_fit_only_once_the_network_is_known(changes, said):
    """Otherwise it would fail at the first measurement, or at the first switch of the last arm."""
    assert refused(**changes).startswith(f"arms.baseline: {said}")


def test_an_arm_that_does_not_fit_is_named():
    assert refused(arms={"a": {}, "odd": {"agent": "regressor"}}).startswith("arms.odd: agent.kind: regressor")


def classifier(network, **sweep) -> dict:
    return {"agent": {"kind": "classifier", "network": network}, "sweep": sweep}


LARGE = {"kind": "minatar", "filters": 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            classifier(LARGE),
            "arms.baseline: agent.network: observation must have 3 axes for convolutions or channels_first, got (4,)",
        ),
        (
            classifier({"kind": "gru", "torso": LARGE}),
            "arms.baseline: agent.network.torso: observation must have 3 axes for convolutions",
        ),
        (
            classifier({"kind": "gru", "units": 2}),
            "arms.baseline: agent.network: has memory, which this agent does not use; choose a network without",
        ),
        (
            classifier("mlp", **{"agent.network": ["mlp", LARGE]}),
            "arms.baseline (agent.network={kind: minatar, filters: 2, widths: [128], ac...): agent.network: ",
        ),
        (
            classifier("mlp", **{"agent.network": ["mlp", "lstm"], "agent.optimizer.learning_rate": [0.1, 0.2]}),
            "arms.baseline (agent.network={kind: lstm, torso: {kind: mlp, widths: [64],...): agent.network: has memory",
        ),
        (
            {"interventions": ["redo"], "arms": {"a": {}, "b": {"sweep": {"agent.network.widths": [[8], []]}}}},
            "arms.b (agent.network.widths=[]): interventions.redo: redo needs a network with hidden units",
        ),
    ],
)
def test_what_a_network_cannot_do_is_said_with_its_key_and_swept_value(changes, said):
    assert refused(**changes).startswith(said)


def test_too_little_memory(monkeypatch, tmp_path):
    experiment = tiny.experiment(arms={"small": {}, "large": {"agent": {"network": {"kind": "mlp", "widths": [512]}}}})
    need = launch.plan(experiment).memory
    monkeypatch.setattr(memory, "capacity", lambda device, devices: need[0].total)
    with pytest.raises(UserError) as error:
        launch.run(experiment, tmp_path / "run")
    assert str(error.value).splitlines() == [
        f"arm large: 3 lanes need {memory.readable(need[1].total)} on each of 2 devices, "
        f"which have {memory.readable(need[0].total)}",
        "use fewer seeds at a time, a smaller network or replay buffer, or more devices",
    ]
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_before_everything_is_checked(tmp_path):
    run = tmp_path / "run"
    launch_errors = [stream(**FILES, path="/nowhere"), {"record_every": 7}]
    for changes in launch_errors:
        with pytest.raises(UserError):
            launch.run(tiny.experiment(**changes), run, force=True)
        assert not run.exists()


def test_programs_and_lanes_of_a_sweep():
    rates = [0.1, 0.01]
    sweep = {"agent.network.widths": [[4], [8]], "agent.optimizer.learning_rate": rates}
    planned = launch.plan(tiny.experiment(sweep=sweep, seeds=[5, 7]))
    first, second = planned.jobs
    assert [job.number for job in planned.jobs] == [0, 1]
    assert first.lanes == {
        "lane": [0, 1, 2, 3],
        "seed": [5, 7, 5, 7],
        "program": [0] * 4,
        "agent.network.widths": ["[4]"] * 4,
        "agent.optimizer.learning_rate": [0.1, 0.1, 0.01, 0.01],
    }
    assert second.lanes["lane"] == [4, 5, 6, 7]
    for job in planned.jobs:
        swept = job.program.hyper["agent.optimizer.learning_rate"]
        np.testing.assert_array_equal(swept, np.float32([0.1, 0.1, 0.01, 0.01]))
        np.testing.assert_array_equal(job.program.seeds, [5, 7, 5, 7])


def test_fingerprints_tell_programs_apart():
    def fingerprints(**changes) -> list[str]:
        return [job.fingerprint for job in launch.plan(tiny.experiment(**changes)).jobs]

    usual = fingerprints()
    assert fingerprints() == usual
    assert fingerprints(arms={"other_name": {}}) == usual  # the folder tells arms apart
    others = [
        fingerprints(seeds=4),
        fingerprints(record_every=10),
        fingerprints(**stream(fraction=0.5)),
        fingerprints(sweep={"agent.optimizer.learning_rate": [0.02]}),
        fingerprints(interventions=["layer_norm"]),
        fingerprints(placement={"width": 1}),
        usual,
    ]
    assert len({tuple(each) for each in others}) == len(others)


def test_a_plan_as_data():
    planned = launch.plan(tiny.experiment(arms={"a": {}, "b": {"sweep": {"agent.network.widths": [[4], [8]]}}}))
    described = planned.describe()
    facts = {"task_aware": False, "reads_task": False, "control": None}  # no arm is called fresh
    assert described["arms"] == [{"name": "a", "lanes": 3, **facts}, {"name": "b", "lanes": 6, **facts}]
    assert [each["arm"] for each in described["programs"]] == ["a", "b", "b"]
    assert {each["steps_per_chunk"] for each in described["programs"]} == {5}
    assert described["stream"]["visits"] == [{"task": task, "steps": 20} for task in range(3)]
    assert described["stream"]["reward_name"] == "accuracy"
    assert described["stream"]["envs"] == 4
    assert described["stream"]["reward_range"] == [0.0, 1.0]


def test_a_plan_says_where_numbers_end():
    monitors = [{"kind": "dormant_units"}, {"kind": "weight_norm"}, {"kind": "warm_start_gap"}]
    described = launch.plan(tiny.experiment(monitors=monitors)).describe()
    assert described["ranges"] == {"dormant_units": [0.0, 1.0], "weight_norm": [0.0, None]}
    assert json.loads(json.dumps(described, allow_nan=False)) == described


class Entry:
    """An entry point of a package that cannot be imported."""

    name, value, dist = "sparkle", "their_package:sparkle", None

    def load(self):
        raise ModuleNotFoundError("No module named 'their_package'")


def test_a_plugin_that_cannot_be_imported(monkeypatch):
    def entry_points(group: str) -> list:
        return [Entry()] if group == "plasticity.interventions" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    members.known.cache_clear()
    try:
        (line,) = launch.broken_plugins()
        assert line == (
            "plug-in `sparkle` of package their_package:sparkle (plasticity.interventions) cannot be used: "
            "ModuleNotFoundError: No module named 'their_package'"
        )
        assert launch.plan(tiny.experiment()).jobs  # others are not disturbed
        with pytest.raises(UserError, match="plug-in `sparkle` of package"):
            tiny.experiment(interventions=["sparkle"])
    finally:
        monkeypatch.undo()
        members.known.cache_clear()
    assert launch.broken_plugins() == ()
    assert isinstance(launch.registry(), Registry)


def test_an_experiment_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.experiment().seeds = (1,)


def test_the_errors_that_run_promises_can_be_caught_by_name(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/experiment.yaml").write_text("name: tiny\n")
    with pytest.raises(plasticity.UserError, match=r"resume=True.*force=True"):
        plasticity.run(tiny.document(), tmp_path / "run")
    with pytest.raises(plasticity.UserError, match="unknown key"):
        plasticity.run({"nmae": "x"}, tmp_path / "other")
    assert issubclass(plasticity.StorageError, plasticity.UserError)
    assert not issubclass(plasticity.Interrupted, plasticity.UserError)


def test_run_spells_out_its_options():
    ours, inner = (inspect.signature(each).parameters for each in (plasticity.run, launch.run))
    for name in ("resume", "force", "progress"):
        assert (ours[name].kind, ours[name].default) == (inner[name].kind, inner[name].default)
    assert not [name for name, each in ours.items() if each.kind is each.VAR_KEYWORD]


def test_arms_that_differ_in_traced_numbers_share_a_trace(monkeypatch):
    """Their plans are those of arms that are traced one by one."""
    traced, trace = [], dry_run._trace

    def counted(job, settings):
        traced.append(job.arm)
        return trace(job, settings)

    monkeypatch.setattr(dry_run, "_trace", counted)
    rates = {f"rate{i}": {"agent": {"optimizer": {"learning_rate": 0.01 * i}}} for i in (1, 2, 3)}
    others = {
        "wide": {"agent": {"network": {"widths": [16]}}},
        "decay": {"interventions": [{"kind": "l2", "strength": 0.1}]},
        "weak": {"interventions": [{"kind": "l2", "strength": 0.2}]},
    }
    planned = launch.plan(tiny.experiment(arms=rates | others))
    assert traced == ["rate1", "wide", "decay"]
    for job, need in zip(planned.jobs, planned.memory, strict=True):
        alone = launch.plan(tiny.experiment(arms={job.arm: (rates | others)[job.arm]}))
        assert alone.memory == (need,)
        assert alone.jobs[0].measured == job.measured


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"kind": "self_normalized_resets", "initial": 900}, "initial: 900 is not allowed; must be at most longest"),
        ({"kind": "redo", "start": 5, "end": 5}, "end: 5 is not allowed; must be above start (5)"),
        ({"kind": "neuroplastic_expansion", "sparsity": 0.1, "review": False}, "final: 0.25 is not allowed"),
        ({"kind": "aid", "keep": [0.1, 0.2, 0.3]}, "must be 2, one more than bounds"),
    ],
)
def test_settings_of_an_intervention_that_do_not_fit_together_are_refused_by_its_path(chosen, said):
    with pytest.raises(UserError) as refused:
        launch.plan(tiny.experiment(interventions=[chosen]))
    assert str(refused.value).startswith(f"interventions.{chosen['kind']}: ")
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
