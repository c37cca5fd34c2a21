"""Forks: learners of a run go on in a common stream, beside new ones; probes do so at chosen visits."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml
from typer.testing import CliRunner

from plasticity import results
from plasticity.cli import main
from plasticity.config.experiments import read_experiment
from plasticity.core.errors import Interrupted, UserError
from plasticity.core.types import Clock, Done, Shift
from plasticity.engine.visits import scheduled
from plasticity.runs import checkpoint, forks, launch
from plasticity.runs.session import NoProgress
from plasticity.runs.sources import source_of

SMALL = {"seeds": 2, "monitors": [], "placement": {"width": 1, "devices": 1}}
LINEAR = {
    "agent": {"kind": "stream_q", "network": {"kind": "mlp", "widths": [8]}},
    "stream": {"kind": "catch", "tasks": 3, "steps_per_task": 20, "envs": 1},
}


def experiment(**changes):
    return tiny.experiment(**{**SMALL, "keep_checkpoints": [1, 2], **changes})


def run(place, **changes):
    return launch.run(experiment(**changes), place)


def numbers(place, arm=None):
    """The numbers of a run, by arm, lane and step."""
    table = results.load(place)
    table = table if arm is None else table[table["arm"] == arm]
    return table.sort_values(["arm", "lane", "step"]).reset_index(drop=True)


class Stopped(NoProgress):
    """The process gets SIGTERM at a chunk."""

    def __init__(self, at):
        self.left = at

    def chunk(self, chunk):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------------------------------------------- the clocks


def test_skipped_visits_keep_their_numbers():
    spec = source_of(tiny.experiment()).spec
    later = scheduled(spec, skip=1, take=1)
    assert later.visits == spec.visits[1:2]
    assert later.skipped == Done(1, 20)
    assert scheduled(spec, skip=2).visits == spec.visits[2:]
    with pytest.raises(ValueError, match="skip: 3 is not allowed; the sequence has 3 visits"):
        scheduled(spec, skip=3)
    with pytest.raises(ValueError, match="take: 2 is not allowed; after skip, 1 visits are left"):
        scheduled(spec, skip=2, take=2)


def test_the_clocks_of_learners_stream_and_run():
    clock = Clock(*map(np.int32, (107, 107, 5, 7)), Shift(*map(np.int32, (-60, -3, -100))))
    assert clock.of_stream == Clock(47, 47, 2, 7)
    assert clock.step_of_run == 7
    same = Clock(*map(np.int32, (107, 107, 5, 7)))
    assert same.of_stream is same
    assert same.step_of_run == 107


def test_a_stream_from_a_later_visit_shows_what_it_shows_there(tmp_path):
    """A learner that cannot learn is the same whether it saw the visits before or not."""
    still = {"agent": {**tiny.document()["agent"], "optimizer": {"kind": "sgd", "learning_rate": 0.0}}}
    whole, later = run(tmp_path / "whole", **still), run(tmp_path / "later", **still, schedule={"skip": 1})
    expected = numbers(whole)
    expected = expected[expected["visit"] >= 1]
    found = numbers(later)
    assert found["reward"].tolist() == expected["reward"].tolist()
    assert found["step"].tolist() == (expected["step"] - 20).tolist()
    assert set(found["visit"]) == {0, 1}


# ------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_are_kept_beyond_the_newest_two(tmp_path):
    place = run(tmp_path / "run", schedule={"cycles": 2}, keep_checkpoints=[1, 3]) / "baseline/checkpoints/000"
    assert [path.name for path in checkpoint.files(place)] == ["000000000100.npz", "000000000120.npz"]
    assert [int(path.stem) for path in checkpoint.every(place)] == [20, 60, 100, 120]
    assert checkpoint.at(place, 20) == place / "kept/000000000020.npz"
    assert checkpoint.at(place, 40) is None


def test_a_visit_that_is_kept_is_saved_whatever_the_period_is(tmp_path):
    place = run(tmp_path / "run", checkpoint_every=30, keep_checkpoints="all") / "baseline/checkpoints/000"
    assert [int(path.stem) for path in checkpoint.every(place)] == [20, 40, 60]  # 30 was replaced


def test_kept_checkpoints_are_measured(tmp_path):
    from plasticity.runs import measure

    place = run(tmp_path / "run", schedule={"cycles": 2}, keep_checkpoints=[1, 3])
    found = list(measure.measure(place, ["weight_norm"]))
    assert [each.position.step for each in found] == [20, 60, 100, 120]


# --------------------------------------------------------------------------------------------- the learners go on


@pytest.mark.parametrize(
    "changes", [{}, {**tiny.DQN, "stream": LINEAR["stream"]}, LINEAR], ids=["sgd", "dqn", "traces"]
)
def test_a_fork_into_the_next_visits_is_the_run_itself(tmp_path, changes):
    """Bit for bit: parameters, optimizer, replay, traces, clock and data are those of the run."""
    changes = {**changes, "probe_size": 16, "monitors": [{"kind": "weight_norm", "every": 20}]}
    whole = run(tmp_path / "whole", **changes)
    fork = launch.run(forks.fork_of(whole, [1], overrides=["schedule.skip=1"], fresh=False), tmp_path / "fork")
    expected, found = numbers(whole), numbers(fork, "baseline.after1")
    expected = expected[expected["visit"] >= 1].reset_index(drop=True)
    assert len(found) == len(expected) > 0
    for name in ("reward", "loss", "weight_norm"):
        if name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert found["visit"].tolist() == (expected["visit"] - 1).tolist()


@pytest.mark.slow
def test_arms_of_a_fork_face_the_same_stream_and_new_learners_are_those_of_a_run_without_a_start(tmp_path):
    whole = run(tmp_path / "whole")
    made = forks.fork_of(whole, [1, 2], overrides=["schedule.skip=2", "schedule.take=1"])
    assert list(made.arms) == ["baseline.after1", "baseline.after2", "baseline.fresh"]
    assert made.arms["baseline.after2"].control == "baseline.fresh"
    fork = launch.run(made, tmp_path / "fork")
    alone = run(tmp_path / "alone", schedule={"skip": 2, "take": 1}, keep_checkpoints=[])
    new = numbers(fork, "baseline.fresh")
    np.testing.assert_array_equal(new["loss"], numbers(alone)["loss"])
    first = [numbers(fork, f"baseline.after{count}")["loss"].to_numpy() for count in (1, 2)]
    assert not np.array_equal(*first)
    assert not np.array_equal(first[0], new["loss"])


def test_an_old_task_again(tmp_path):
    """The accuracy on the first task, right after it, is better than that of a new learner on the same samples."""
    long = {"stream": {**tiny.document()["stream"], "steps_per_task": 100}, "monitor_every": 100}
    whole = run(tmp_path / "whole", **long)
    fork = launch.run(forks.fork_of(whole, [1], overrides=["schedule.take=1"]), tmp_path / "fork")
    first = numbers(fork).groupby("arm", observed=True)["reward"].first()
    assert first["baseline.after1"] > first["baseline.fresh"] + 0.2
    control = results.controls(fork)
    assert control == {"baseline.after1": "baseline.fresh", "baseline.fresh": None}


@pytest.mark.slow
def test_placement_and_shards_of_the_run_do_not_matter(tmp_path):
    whole = run(tmp_path / "whole")
    cut = launch.run(experiment(), tmp_path / "cut", split="seeds=1")
    tables = [
        numbers(launch.run(forks.fork_of(place, [2], fresh=False), tmp_path / f"fork-{place.name}"))
        for place in (whole, cut)
    ]
    pd.testing.assert_frame_equal(*tables)
    wide = run(tmp_path / "wide", placement={"width": 2, "devices": 1})
    table = numbers(launch.run(forks.fork_of(wide, [2], fresh=False), tmp_path / "fork-wide"))
    np.testing.assert_allclose(table["loss"], tables[0]["loss"], rtol=1e-5)


@pytest.mark.slow
def test_a_fork_that_is_cut_into_shards_is_the_same(tmp_path):
    """Each seed is a shard of its own; ``--resume`` needs no ``--split``."""
    whole = run(tmp_path / "whole")
    expected = numbers(launch.run(forks.fork_of(whole, [2]), tmp_path / "fork"))
    words = ["fork", str(whole), "--at", "2", "--out", str(tmp_path / "cut"), "--no-figures"]
    for options in (["--split", "seeds=1"], ["--resume"]):
        done = CliRunner().invoke(main.app, [*words, *options])
        assert done.exit_code == 0, done.output
        assert sorted(path.name for path in (tmp_path / "cut/shards").iterdir()) == ["00001", "00002"]
        pd.testing.assert_frame_equal(numbers(tmp_path / "cut"), expected)
    words[words.index(str(tmp_path / "cut"))] = str(tmp_path / "apart")
    for shard, folders in (("2/2", ["00002"]), ("1/2", ["00001", "00002"])):
        done = CliRunner().invoke(main.app, [*words, "--split", "seeds=1", "--shard", shard])
        assert done.exit_code == 0, done.output
        assert sorted(path.name for path in (tmp_path / "apart/shards").iterdir()) == folders
    pd.testing.assert_frame_equal(numbers(tmp_path / "apart"), expected)


@pytest.mark.slow
def test_sweeps_and_arms_keep_their_lanes(tmp_path):
    sweep = {"agent.optimizer.learning_rate": [0.01, 0.1], "agent.network.widths": [[8], [4]]}
    arms = {"a": {}, "b": {"interventions": ["weight_decay"], "sweep": {"agent.network.widths": None}}}
    whole = run(tmp_path / "whole", sweep=sweep, arms=arms)
    fork = launch.run(forks.fork_of(whole, [1], overrides=["schedule.skip=1"], fresh=False), tmp_path / "fork")
    expected = numbers(whole)
    expected = expected[expected["visit"] >= 1]
    for arm in arms:
        before = expected[expected["arm"] == arm]
        np.testing.assert_array_equal(numbers(fork, f"{arm}.after1")["loss"], before["loss"])


def test_a_fork_resumes(tmp_path):
    whole = run(tmp_path / "whole")
    made = forks.fork_of(whole, [2], overrides=["record_every=5"])
    expected = numbers(launch.run(made, tmp_path / "expected"))
    for at in (2, 6):
        place = tmp_path / f"stopped-{at}"
        with pytest.raises(Interrupted):
            launch.run(made, place, progress=Stopped(at))
        if at == 6:
            (whole / "plan.json").rename(whole / "elsewhere.json")  # once it has begun, the fork needs the run no more
        pd.testing.assert_frame_equal(numbers(launch.run(made, place, resume=True)), expected)


def test_a_lane_that_had_diverged_stays_so(tmp_path):
    wild = {"sweep": {"agent.optimizer.learning_rate": [0.01, 1e30]}}
    wild["agent"] = {**tiny.document()["agent"], "optimizer": {"kind": "sgd", "learning_rate": 0.01}}
    whole = run(tmp_path / "whole", **wild)
    before = results.lanes(whole)["diverged_at"]
    assert before.notna().tolist() == [False, False, True, True]
    fork = launch.run(forks.fork_of(whole, [1], fresh=False), tmp_path / "fork")
    after = results.lanes(fork)["diverged_at"]
    assert after.isna().tolist() == before.isna().tolist()
    assert set(after.dropna()) == {0}


@pytest.mark.slow
def test_a_fork_of_a_fork_is_still_the_run_itself(tmp_path):
    """The clock of the learners counts everything that they have done."""
    whole = run(tmp_path / "whole", **tiny.DQN, stream=LINEAR["stream"])
    options = {"fresh": False, "overrides": ["schedule.skip=1", "schedule.take=1", "keep_checkpoints=all"]}
    first = launch.run(forks.fork_of(whole, [1], **options), tmp_path / "first")
    options["overrides"] = ["schedule.skip=2", "schedule.take=1"]
    second = launch.run(forks.fork_of(first, [1], **options), tmp_path / "second")
    expected, found = numbers(whole), numbers(second, "baseline.after1.after1")
    expected = expected[expected["visit"] == 2]
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found["reward"], expected["reward"])
    np.testing.assert_array_equal(found["loss"], expected["loss"])
    plan = json.loads((second / "plan.json").read_text())
    assert plan["arms"][0]["origin"] == [2, 40]
    start = yaml.safe_load((second / "experiment.yaml").read_text())["arms"]["baseline.after1.after1"]["start"]
    assert (start["visits"], start["steps"], start["earlier"]) == (1, 20, [1, 20])


@pytest.mark.slow
def test_evaluations_of_all_arms_are_on_the_same_samples(tmp_path):
    """Learners that cannot learn have the same parameters, and so the same evaluations."""
    still = {"agent": {**tiny.document()["agent"], "optimizer": {"kind": "sgd", "learning_rate": 0.0}}}
    evaluation = {"evaluation": {"every": 10, "tasks": "all", "steps": 4}}
    whole = run(tmp_path / "whole", **still, **evaluation)
    fork = launch.run(forks.fork_of(whole, [1, 2], overrides=["schedule.skip=1", "schedule.take=1"]), tmp_path / "fork")
    table = results.evaluations(fork).sort_values(["lane", "step", "evaluated_visit"])
    by_arm = [table[table["arm"] == arm]["reward"].tolist() for arm in dict.fromkeys(table["arm"])]
    assert len(by_arm) == 3
    assert by_arm[0] == by_arm[1] == by_arm[2]
    expected = results.evaluations(whole)
    later = expected[(expected["visit"] == 1) & (expected["evaluated_visit"] == 1)]
    later = later.sort_values(["lane", "step", "evaluated_visit"])
    assert by_arm[0] == later["reward"].tolist()


def test_a_checkpoint_is_kept_although_the_process_ended_before_that(tmp_path):
    expected = numbers(run(tmp_path / "expected"))
    place = tmp_path / "run"
    with pytest.raises(Interrupted):
        launch.run(experiment(), place, progress=Stopped(4))  # at the end of the first visit
    kept = place / "baseline/checkpoints/000/kept/000000000020.npz"
    kept.unlink()
    launch.run(experiment(), place, resume=True)
    assert kept.exists()
    pd.testing.assert_frame_equal(numbers(place), expected)


def test_a_checkpoint_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError

    monkeypatch.setattr(checkpoint.os, "link", refuse)
    place = run(tmp_path / "run", keep_checkpoints=[3]) / "baseline/checkpoints/000"
    assert (place / "kept/000000000060.npz").read_bytes() == (place / "000000000060.npz").read_bytes()


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_fork_into_the_folder_of_its_run(tmp_path):
    whole = run(tmp_path / "whole")
    made = forks.fork_of(whole, [1])
    for place in (whole, tmp_path, whole / "inside"):
        with pytest.raises(UserError, match="is, holds or lies in the run of"):
            launch.run(made, place, force=True)
    assert (whole / "plan.json").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    whole = run(tmp_path / "whole")
    path = whole / "baseline/checkpoints/000/kept/000000000020.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"000000000020\.npz is damaged"):
        launch.run(forks.fork_of(whole, [1]), tmp_path / "fork")
    assert not (tmp_path / "fork").exists()


def test_packnet_has_room_for_what_its_learners_have_done_too(tmp_path):
    packnet = {"task_aware": True, "interventions": [{"kind": "packnet", "tasks": 3, "memory": 8, "batch": 4}]}
    whole = run(tmp_path / "whole", arms={"a": packnet})
    with pytest.raises(UserError, match="packnet has room for 3 tasks; the stream has 1 visits and its learners had 3"):
        launch.plan(forks.fork_of(whole, [3], fresh=False, overrides=["schedule.take=1"]))


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        ({"kind": "clear", "memory": 8, "batch": 4}, True),
        ({"kind": "a_gem", "memory": 8, "batch": 4}, True),
        ({"kind": "behavioural_cloning", "memory": 8, "batch": 4}, True),
        ({"kind": "ewc", "samples": 8}, False),  # remembers the visit that has just ended alone
    ],
)
def test_a_memory_with_room_for_the_streams_visits_needs_as_many(tmp_path, method, refused):
    whole = run(tmp_path / "whole", arms={"a": {"task_aware": True, "interventions": [method]}})
    fork = forks.fork_of(whole, [1], fresh=False, overrides=["schedule.skip=1"])
    if refused:
        line = f"It cannot start: arms.a.after1.start: the memory of interventions.{method['kind']} has room for the"
        (found,) = launch.obstacles(launch.plan(fork), tmp_path / "fork")
        assert found.startswith(line)
        with pytest.raises(UserError, match="3 in the run and 2 here; such learners can only go on in a stream of as"):
            launch.run(fork, tmp_path / "fork")
        fork = forks.fork_of(whole, [1], fresh=False)  # three visits
    launch.run(fork, tmp_path / "fork")
    assert numbers(tmp_path / "fork")["loss"].notna().all()


def test_learners_go_on_from_the_ends_of_visits_only(tmp_path):
    whole = run(tmp_path / "whole")
    start = {"run": str(whole), "arm": "baseline", "visits": 1, "steps": 10}
    with pytest.raises(UserError) as refused:
        launch.run(experiment(arms={"baseline": {"start": start}}), tmp_path / "fork")
    assert str(refused.value) == (
        "arms.baseline.start.steps: 10 is not allowed; 1 visit had 20, and learners go on from the end of a visit only"
    )
    answer = CliRunner().invoke(main.app, ["fork", str(whole), "--at", "1.5"])
    assert '--at: "1.5" is not allowed; must be numbers of whole visits' in str(answer.exception)


def test_checkpoints_of_visits_that_the_stream_does_not_have():
    with pytest.raises(UserError, match="keep_checkpoints: 9 is not allowed; the stream has 3 visits"):
        launch.plan(experiment(keep_checkpoints=[9]))


def test_what_a_fork_refuses(tmp_path):
    whole = run(tmp_path / "whole", schedule={"cycles": 2}, keep_checkpoints=[2])

    def refusal(at, **options):
        with pytest.raises(UserError) as refused:
            launch.run(forks.fork_of(whole, at, **options), tmp_path / "fork")
        assert not (tmp_path / "fork").exists()
        assert len(str(refused.value).splitlines()) <= 3
        return str(refused.value)

    assert "has no checkpoint of baseline at env step 60 (3 visits), but those at 40, 100, 120" in refusal([3])
    assert "keep_checkpoints: [3]" in refusal([3])
    assert "--at: 7 is not allowed" in refusal([7])
    assert "unknown arm `bse`" in refusal([2], arms=["bse"])
    assert "learner.params" in refusal([2], overrides=["agent.network.widths=[9]"], fresh=False)
    assert "lane 0 has seed 5 here and seed 0 in" in refusal([2], overrides=["seeds=[5,6]"], fresh=False)
    with pytest.raises(UserError, match="is not a run"):
        forks.fork_of(tmp_path / "nothing", [1])


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (3, "arms.baseline.start: 3 is not allowed; must be a mapping"),
        ({"run": "x", "arm": "a"}, "arms.baseline.start.visits: is required"),
        ({"run": "x", "arm": "a", "visits": 0}, "arms.baseline.start.visits: 0 is not allowed"),
        ({"run": "x", "arm": "a", "vists": 1}, "arms.baseline.start.vists: unknown key"),
    ],
)
def test_a_start_that_is_refused(start, said):
    with pytest.raises(UserError) as refused:
        experiment(arms={"baseline": {"start": start}})
    assert said in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["arm", "experiment"])
def test_new_learners_beside_a_swept_reset(tmp_path, place):
    """They are reset at every switch, by a second `reset`. Without them, the fork keeps the sweep and its lanes."""
    method = {"interventions": [{"kind": "reset", "when": "periodic", "period": 5, "modules": "last"}]}
    sweep = {"sweep": {"interventions.reset.period": [3, 7]}}
    whole = run(tmp_path / "whole", **({"arms": {"a": {**method, **sweep}}} if place == "arm" else method | sweep))
    with pytest.raises(UserError, match=r"the run sweeps interventions\.reset\.period, .*: --no-fresh, in a probe `fr"):
        forks.fork_of(whole, [1])
    fork = launch.run(forks.fork_of(whole, [1], fresh=False, overrides=["schedule.skip=1"]), tmp_path / "fork")
    expected, found = numbers(whole), numbers(fork)
    np.testing.assert_array_equal(found["loss"], expected[expected["visit"] >= 1]["loss"])
    assert results.lanes(fork)["interventions.reset.period"].tolist() == [3, 3, 7, 7]


def test_a_start_from_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"arms\.baseline\.start\.run: .* is not a run"):
        launch.plan(experiment(arms={"baseline": {"start": {"run": str(tmp_path), "arm": "a", "visits": 1}}}))


# -------------------------------------------------------------------------------------------------------- probes


PROBES = {
    "later": {"at": [1, 2], "schedule": {"skip": 2, "take": 1}, "record_every": 5},
    "again": {"at": [2], "schedule": {"take": 1}},
}


def test_probes_do_not_disturb_the_run(tmp_path):
    plain, probed = run(tmp_path / "plain"), run(tmp_path / "probed", keep_checkpoints=[], probes=PROBES)
    pd.testing.assert_frame_equal(numbers(plain), numbers(probed))
    later = numbers(probed / "probes/later")
    assert sorted(set(later["arm"])) == ["baseline.after1", "baseline.after2", "baseline.fresh"]
    assert sorted(set(numbers(probed / "probes/again")["arm"])) == ["baseline.after2", "baseline.fresh"]
    expected = numbers(plain)
    expected = expected[expected["visit"] == 2]
    np.testing.assert_array_equal(later[later["arm"] == "baseline.after2"]["loss"], expected["loss"])


@pytest.mark.slow
def test_probes_resume(tmp_path):
    expected = run(tmp_path / "expected", probes=PROBES)
    made = experiment(probes=PROBES)
    with pytest.raises(Interrupted):
        launch.run(made, tmp_path / "stopped", progress=Stopped(14))  # the run itself has 12 chunks
    launch.run(made, tmp_path / "stopped", resume=True)
    for name in PROBES:
        found = numbers(tmp_path / "stopped/probes" / name)
        pd.testing.assert_frame_equal(found, numbers(expected / "probes" / name))


@pytest.mark.slow
def test_a_probe_on_another_stream(tmp_path):
    other = {**tiny.document()["stream"], "tasks": 1, "steps_per_task": 40, "samples": 12}
    place = run(tmp_path / "run", probes={"other": {"at": "all", "stream": other, "monitors": ["dormant_units"]}})
    table = numbers(place / "probes/other")
    assert sorted(set(table["arm"])) == [*(f"baseline.after{i}" for i in (1, 2, 3)), "baseline.fresh"]
    assert set(table["step"]) == set(range(4, 41, 4))
    assert json.loads((place / "probes/other/plan.json").read_text())["stream"]["visits"] == [{"task": 0, "steps": 40}]


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ({"at": [4]}, "probes.p.at: 4 is not allowed; the stream has 3 visits"),
        ({"at": []}, "probes.p.at"),
        ({}, "probes.p.at: is required"),
        ({"at": [1], "arms": ["basline"]}, "probes.p.arms[0]: unknown arm"),
        ({"at": [1], "schedule": {"skip": 9}}, "skip: 9 is not allowed"),
        ({"at": [1], "stream": {"kind": "catch", "envs": 1}}, "probes.p: "),
        ({"at": [1], "stream": {**tiny.document()["stream"], "dimensions": 5}}, "the learners do not fit: agent"),
        ({"at": [1], "transforms": ["clip_reward"]}, "probes.p.transforms: is not allowed without a stream"),
    ],
)
def test_a_probe_that_is_refused_before_the_run(tmp_path, probe, said):
    with pytest.raises(UserError) as refused:
        run(tmp_path / "run", probes={"p": probe})
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_replaced_with_its_probes(tmp_path):
    place = run(tmp_path / "run", probes=PROBES)
    expected = numbers(place / "probes/later")
    launch.run(experiment(probes={"later": PROBES["later"]}), place, force=True)
    pd.testing.assert_frame_equal(numbers(place / "probes/later"), expected)
    assert not (place / "probes/again").exists()


def test_a_probe_that_does_not_fit_is_refused_with_force_too(tmp_path):
    place = run(tmp_path / "run")
    with pytest.raises(UserError, match=r"probes\.p\.at: 4"):
        launch.run(experiment(probes={"p": {"at": [4]}}), place, force=True)
    assert (place / "plan.json").exists()


def test_a_memory_with_room_for_the_streams_visits_cannot_be_probed_and_the_run_does_not_start(tmp_path):
    rehearsal = {"a": {"task_aware": True, "interventions": [{"kind": "clear", "memory": 8, "batch": 4}]}}
    with pytest.raises(UserError) as refused:
        run(tmp_path / "run", arms=rehearsal, probes={"p": {"at": [1], "schedule": {"take": 1}}})
    assert str(refused.value) == (
        "probes.p: arms.a.after1.start: the memory of interventions.clear has room for the visits of its stream, 3 in "
        "the run and 1 here; such learners can only go on in a stream of as many visits"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_is_cut_says_who_makes_its_probes(tmp_path):
    class Heard(NoProgress):
        def __init__(self):
            self.lines = []

        def say(self, line):
            self.lines.append(line)

    made, heard = experiment(probes=PROBES), Heard()
    launch.run(made, tmp_path / "run", shard="1/2", progress=heard)
    assert any("the probes are left; once all shards are finished" in line for line in heard.lines)
    assert not (tmp_path / "run/probes").exists()
    launch.run(made, tmp_path / "run", shard="2/2")
    launch.run(made, tmp_path / "run", resume=True)
    assert len(numbers(tmp_path / "run/probes/again")) > 0


@pytest.mark.slow
def test_probes_can_be_added_to_a_run_that_has_kept_its_checkpoints(tmp_path):
    place = run(tmp_path / "run")
    launch.run(experiment(probes=PROBES), place, resume=True)
    assert sorted(set(numbers(place / "probes/again")["arm"])) == ["baseline.after2", "baseline.fresh"]


def test_the_config_is_read_back(tmp_path):
    made = experiment(probes=PROBES, schedule={"skip": 1})
    assert read_experiment(made.resolve(), launch.registry()) == made
    assert made.kept == (1, 2)
    assert "probes" not in tiny.experiment().resolve()
    assert "skip" not in tiny.experiment().resolve()["schedule"]
    fork = forks.fork_of(run(tmp_path / "run"), [1])
    assert read_experiment(fork.resolve(), launch.registry()) == fork


@pytest.mark.slow
def test_lifetime_tuning_goes_with_probes(tmp_path):
    sweep = {"agent.optimizer.learning_rate": [0.003, 0.3]}
    place = run(tmp_path / "run", sweep=sweep, tune={"first": "50%", "seeds": 2}, probes={"p": {"at": [1]}})
    assert sorted(set(numbers(place / "probes/p")["arm"])) == ["baseline.after1", "baseline.fresh"]
    chosen = yaml.safe_load((place / "experiment.yaml").read_text())["tune"]["chosen"]["baseline"]
    made = yaml.safe_load((place / "probes/p/experiment.yaml").read_text())["tune"]["chosen"]
    assert made == {"baseline.after1": chosen, "baseline.fresh": chosen}


# --------------------------------------------------------------------------------------------------- the results


def test_the_table_of_gaps(tmp_path):
    whole = run(tmp_path / "whole")
    fork = launch.run(forks.fork_of(whole, [1, 2]), tmp_path / "fork")
    table, visits = results.forks(fork), results.visits(fork)
    assert list(table) == ["arm", "visits_done", "lane", "seed", "visit", "task", "performance", "fresh", "gap"]
    assert len(table) == 2 * 2 * 3  # numbers of visits, lanes, visits
    assert table["visits_done"].tolist() == [1] * 6 + [2] * 6

    def performance(arm, lane, visit):
        rows = visits[(visits["arm"] == arm) & (visits["lane"] == lane) & (visits["visit"] == visit)]
        return float(rows["performance"].iloc[0])

    row = table[(table["visits_done"] == 2) & (table["lane"] == 1) & (table["visit"] == 2)].iloc[0]
    expected = performance("baseline.after2", 1, 2), performance("baseline.fresh", 1, 2)
    assert (row["performance"], row["fresh"]) == expected
    assert row["gap"] == pytest.approx(expected[0] - expected[1])
    alone = results.forks(launch.run(forks.fork_of(whole, [1], fresh=False), tmp_path / "alone"))
    assert alone["gap"].isna().all()
    with pytest.raises(ValueError, match="no arm has learners of another run"):
        results.forks(whole)
    with pytest.raises(ValueError, match="measure: 'los' is not allowed"):
        results.forks(fork, "los")


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command(tmp_path):
    whole = run(tmp_path / "whole")
    command = ["fork", str(whole), "schedule.take=1", "--at", "1,2", "--out", str(tmp_path / "fork"), "--no-figures"]
    shown = CliRunner().invoke(main.app, [*command, "--print"])
    assert "baseline.after2" in shown.output
    assert not (tmp_path / "fork").exists()
    done = CliRunner().invoke(main.app, command)
    assert done.exit_code == 0, done.output
    assert "baseline.after1" in done.output
    wrong = CliRunner().invoke(main.app, ["fork", str(whole), "--at", "one"])
    assert isinstance(wrong.exception, UserError)
    assert "must be numbers of whole visits" in str(wrong.exception)
