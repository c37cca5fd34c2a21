"""``plasticity launch``: shards as jobs, on a real Slurm where it is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import slurm_cluster
import tiny
from slurm_cluster import until

from plasticity import results
from plasticity.cli.watch import Watcher
from plasticity.core.errors import UserError
from plasticity.runs import cluster, launch, queue
from plasticity.runs.accounts import shard_folder

pytest.importorskip("submitit")
needs_slurm = pytest.mark.skipif(bool(slurm_cluster.MISSING), reason=f"Slurm is not installed: {slurm_cluster.MISSING}")
ROOT = Path(__file__).resolve().parent.parent
LONG = {"kind": "relabelled", "inputs": "gaussian", "samples": 16, "dimensions": 4, "classes": 3, "envs": 4}
DOCUMENT = tiny.document(
    stream={**LONG, "tasks": 3, "steps_per_task": 150_000}, record_every=500, monitor_every=20_000, seeds=4,
    checkpoint_every=2000, placement={"width": 1}, arms={"baseline": {}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (["partition=gpu,gres=gpu:1,time=4:00:00"], {"partition": "gpu", "gres": "gpu:1", "time": "4:00:00"}),
        (["mem-per-cpu=2G", "exclusive"], {"mem_per_cpu": "2G", "exclusive": True}),
    ],
)
def test_options_of_sbatch(text, found):
    assert cluster.parse_options(text) == found


@pytest.mark.parametrize("text", ["=gpu", "partition=", "a b=c", "array=1-3", "nodes=7"])
def test_refuses_other_options(text):
    with pytest.raises(UserError, match=r"--slurm: .*is not allowed"):
        cluster.parse_options([text])


@pytest.mark.parametrize(
    ("text", "found"),
    [("30", 30), ("30:00", 30), ("4:00:00", 240), ("2-12", 3600), ("1-0:30", 1470), ("0:0:30", 1), ("90:30", 91)],
)
def test_minutes(text, found):
    assert cluster.minutes(text) == found


@pytest.mark.parametrize("text", ["", "4h", "0", "1:2:3:4", "-5"])
def test_refuses_other_times(text):
    with pytest.raises(UserError, match=r"--slurm: time=.* is not allowed"):
        cluster.minutes(text)


def test_a_command_for_each_unfinished_shard(tmp_path):
    experiment, run = tiny.experiment(), tmp_path / "run"
    launch.run(experiment, run, split="seeds=1", shard="2/3")
    assert cluster.commands(experiment, run, None) == [
        f"plasticity run {run}/experiment.yaml --out {run} --shard {number}/3" for number in (1, 3)
    ]
    assert cluster.active(run, [1, 2, 3]) == set()


def test_profiles(tmp_path, monkeypatch):
    config, mine = tmp_path / "config.yaml", tmp_path / "settings"
    monkeypatch.setattr(cluster.platformdirs, "user_config_dir", lambda name: str(mine))
    with pytest.raises(UserError, match=rf"--profile: there is no {tmp_path}/clusters.yaml and no {mine}"):
        cluster.profile_of("gpu", config)
    mine.mkdir()
    text = "gpu: {slurm: {partition: gpu, gres: 'gpu:1', time: 4:00:00, exclusive: true}, max_jobs: 8, split: seeds=4}"
    (mine / "clusters.yaml").write_text(text)
    options = {"partition": "gpu", "gres": "gpu:1", "time": "4:00:00", "exclusive": True}
    assert cluster.profile_of("gpu", config) == (options, "seeds=4", 8)
    (tmp_path / "clusters.yaml").write_text("cpu: {slurm: {time: 30}}\nodd: {partition: a}\nwrong: 3")
    assert cluster.profile_of("cpu", config) == ({"time": "30"}, None, None)
    for name, why in (("gpu", "unknown profile"), ("odd", "odd.unknown key .*partition"), ("wrong", "wrong must be")):
        with pytest.raises(UserError, match=why):
            cluster.profile_of(name, config)


def test_a_run_for_gpus_is_laid_out_for_gpus(tmp_path):
    """Whatever the login node has: all lanes of a shard in one vmap."""
    experiment = tiny.experiment(seeds=5)
    cluster.submit(experiment, tmp_path / "gpu", "seeds=2", slurm={"gres": "gpu:1"}, dry=True)
    assert results.plan(tmp_path / "gpu")["shards"]["widths"] == [1]  # the last shard has one seed
    cluster.submit(experiment, tmp_path / "all", "seeds=5", slurm={"gpus": "1"}, dry=True)
    assert results.plan(tmp_path / "all")["shards"]["widths"] == [5]


def test_a_shard_that_runs_is_not_submitted(tmp_path):
    from plasticity.runs.lock import held

    experiment, run = tiny.experiment(), tmp_path / "run"
    launch.run(experiment, run, split="seeds=1", shard="2/3")
    shard_folder(run, 3).mkdir()
    with held(shard_folder(run, 3)):
        done = cluster.submit(experiment, run, None, slurm=None, local=2, dry=True)
    assert (done.jobs, done.shards, done.finished, done.active) == ((), (1,), 1, 1)


@pytest.mark.skipif(bool(cluster.shutil.which("sbatch")), reason="there is a sbatch")
def test_without_slurm_one_line_says_so(tmp_path):
    with pytest.raises(UserError, match="there is no sbatch here"):
        cluster.submit(tiny.experiment(), tmp_path / "run", "seeds=1", slurm={})


def test_watch_says_what_the_scheduler_says(tmp_path, monkeypatch):
    run = launch.run(tiny.experiment(), tmp_path / "run", split="seeds=1", shard="2/3")
    assert Watcher(run).look().queue == ""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "squeue").write_text("#!/bin/sh\nprintf '7_0 RUNNING\\n7_1 PENDING\\n7_2 COMPLETED\\n8_0 PENDING\\n'\n")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    queue.note(run, ["7_0", "7_1", "7_2"], [1, 2, 3])
    assert queue.queue_of(run) == {1: "RUNNING", 2: "PENDING"}
    assert Watcher(run).look().queue == "Slurm: 1 running, 1 pending"
    queue.note(run, ["8_0"], [3])
    assert queue.queue_of(run) == {1: "RUNNING", 2: "PENDING", 3: "PENDING"}


def flat(text):
    return " ".join(text.split())


def command(*words, env=None):
    code = [sys.executable, "-m", "plasticity", *map(str, words)]
    return subprocess.run(code, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_on_this_machine(tmp_path):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(json.dumps(tiny.document()))
    done = command("launch", config, "--out", run, "--split", "seeds=1", "--local", 2)
    assert done.returncode == 0, done.stderr
    assert "3 shards to run, 0 queued or running, 0 finished" in flat(done.stdout)
    until(lambda: not cluster.unfinished(run, 3), what="all shards")
    whole = launch.run(
        tiny.experiment(placement={"width": results.plan(run)["shards"]["widths"][0]}), tmp_path / "whole"
    )
    pd.testing.assert_frame_equal(results.load(run), results.load(whole), check_exact=True)
    assert "3 finished" in flat(command("launch", config, "--out", run, "--local", 2).stdout)


def step_of(run, number):
    try:
        return json.loads((shard_folder(run, number) / "baseline" / "status.json").read_text())["step"]
    except (OSError, ValueError, KeyError):
        return 0


@pytest.mark.slow
@needs_slurm
def test_on_a_real_slurm(tmp_path):
    """Four shards: one is preempted and goes on, one is cancelled and submitted again; the node dies and comes back."""
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(json.dumps(DOCUMENT))
    whole = launch.run(launch.load_config(config), tmp_path / "whole")
    with slurm_cluster.cluster(tmp_path / "slurm") as slurm:
        line = ["launch", config, "--out", run, "--split", "seeds=1", "--slurm", "partition=low,time=20:00"]
        done = command(*line, env=slurm.environment)
        assert done.returncode == 0, done.stderr
        assert "4 shards to run, 0 queued or running, 0 finished" in flat(done.stdout)
        assert "nothing submitted; 0 shards to run, 4 queued" in flat(command(*line, env=slurm.environment).stdout)
        first = until(lambda: [job for job, state in slurm.states().items() if state == "RUNNING"], what="a job runs")
        until(lambda: step_of(run, 1) > 2000, what="it trains")
        # A job with priority takes both cores: both shards are told to end, save, and are queued again.
        slurm.ask("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 8")
        until(lambda: slurm.states().get(first[0]) == "PENDING", what="the preempted job waits")
        saved = step_of(run, 1)
        until(lambda: step_of(run, 1) > saved, 300, "it goes on")  # Slurm waits two minutes before the next turn
        log = "".join(path.read_text() for path in (run / "logs").glob("*_log.*"))
        assert "SIGTERM: saved; continue with" in log
        # A cancelled job is the only one that the same line submits.
        slurm.ask("scancel", first[0])
        until(lambda: first[0] not in slurm.states(), what="the cancelled job is gone")
        again = flat(command(*line, env=slurm.environment).stdout)
        assert "1 shards to run, 3 queued or running, 0 finished" in again or "finished" in again
        # The node dies without a signal.
        until(lambda: step_of(run, 2) > 4000, what="another shard trains")
        slurm.kill_node()
        until(lambda: "down" in slurm.ask("sinfo", "--noheader", "--format=%t"), 120, "the node is down")
        slurm.start("slurmd")
        until(lambda: not slurm.states(), 900, "all jobs end")
        if cluster.unfinished(run, 4):
            assert command(*line, env=slurm.environment).returncode == 0
            until(lambda: not cluster.unfinished(run, 4), 600, "all shards")
    pd.testing.assert_frame_equal(results.load(run), results.load(whole), check_exact=True)


@pytest.mark.slow
@needs_slurm
def test_what_slurm_refuses(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(tiny.document(seeds=1)))
    with slurm_cluster.cluster(tmp_path / "slurm") as slurm:
        for options in ("partition=none", "partition=low,no-such-option=3"):
            done = command("launch", config, "--out", tmp_path / options, "--slurm", options, env=slurm.environment)
            assert done.returncode == 2
            assert done.stderr.startswith("--slurm: sbatch refuses: "), done.stderr
            assert len(done.stderr.splitlines()) <= 3
            assert os.path.exists(tmp_path / options / "plan.json")
