"""``plasticity launch``: shards as jobs, on a real Slurm where it is installed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import slurm_cluster
import tiny
from slurm_cluster import until

from plasticity import results
from plasticity.cli.watch import Watcher
from plasticity.core.errors import UserError
from plasticity.runs import cluster, launch, local, queue, sharded, speeds, turns
from plasticity.runs import slurm as options
from plasticity.runs.accounts import shard_folder
from plasticity.runs.checksums import to_json
from plasticity.runs.files import write_text

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
        (["partition=gpu,long,time=4:00:00"], {"partition": "gpu,long", "time": "4:00:00"}),
        (["exclusive,partition=gpu,no-requeue"], {"exclusive": True, "partition": "gpu", "no_requeue": True}),
        (["exclude=n[1,3],mem=2G"], {"exclude": "n[1,3]", "mem": "2G"}),
        (["mem-per-cpu=2G", "exclusive"], {"mem_per_cpu": "2G", "exclusive": True}),
    ],
)
def test_options_of_sbatch(text, found):
    assert options.parse_options(text) == found


@pytest.mark.parametrize("text", ["=gpu", "partition=", "a b=c", "array=1-3", "nodes=7"])
def test_refuses_other_options(text):
    with pytest.raises(UserError, match=r"--slurm: .*is not allowed"):
        options.parse_options([text])


@pytest.mark.parametrize(
    ("text", "found"),
    [("30", 30), ("30:00", 30), ("4:00:00", 240), ("2-12", 3600), ("1-0:30", 1470), ("0:0:30", 1), ("90:30", 91)],
)
def test_minutes(text, found):
    assert options.minutes(text) == found


@pytest.mark.parametrize("text", ["", "4h", "0", "1:2:3:4", "-5"])
def test_refuses_other_times(text):
    with pytest.raises(UserError, match=r"--slurm: time=.* is not allowed"):
        options.minutes(text)


def test_a_command_for_each_unfinished_shard(tmp_path, monkeypatch):
    experiment, run = tiny.experiment(), tmp_path / "run"
    launch.run(experiment, run, split="seeds=1", shard="2/3")
    assert cluster.commands(experiment, run, None) == [
        f"plasticity run {run}/experiment.yaml --out {run} --shard {number}/3" for number in (1, 3)
    ]
    assert cluster.active(run, [1, 2, 3]) == set()
    monkeypatch.chdir(tmp_path)
    assert all(f"--out {run} " in line for line in cluster.commands(experiment, Path("run"), None))  # from anywhere
    other = tiny.experiment(record_every=2)
    with pytest.raises(UserError, match=rf"plasticity run {run}/experiment.yaml --out {run} --shard 2/3$"):
        launch.run(other, run, shard="2/3")
    with pytest.raises(UserError, match=rf"plasticity launch {run}/experiment.yaml --out {run} \.\.\.$"):
        cluster.commands(other, run, None)


def test_profiles(tmp_path, monkeypatch):
    config, mine = tmp_path / "config.yaml", tmp_path / "settings"
    monkeypatch.setattr(options.platformdirs, "user_config_dir", lambda name: str(mine))
    with pytest.raises(UserError, match=rf"--profile: there is no {tmp_path}/clusters.yaml and no {mine}"):
        options.profile_of("gpu", config)
    mine.mkdir()
    text = "gpu: {slurm: {partition: gpu, gres: 'gpu:1', time: 4:00:00, exclusive: true}, max_jobs: 8, split: seeds=4}"
    (mine / "clusters.yaml").write_text(text)
    found = {"partition": "gpu", "gres": "gpu:1", "time": "4:00:00", "exclusive": True}
    assert options.profile_of("gpu", config) == (found, "seeds=4", 8)
    (tmp_path / "clusters.yaml").write_text("cpu: {slurm: {time: 30}}\nodd: {partition: a}\nwrong: 3")
    assert options.profile_of("cpu", config) == ({"time": "30"}, None, None)
    for name, why in (("gpu", "unknown profile"), ("odd", "odd: unknown key .*partition"), ("wrong", "wrong must be")):
        with pytest.raises(UserError, match=why):
            options.profile_of(name, config)


def test_a_run_for_gpus_is_laid_out_for_gpus(tmp_path):
    """Whatever the login node has: all lanes of a shard in one vmap."""
    experiment = tiny.experiment(seeds=5)
    for dry in (True, False):
        layout = sharded.lay_out(experiment, tmp_path / "gpu", "seeds=2", resume=True, force=False, gpu=True, dry=dry)
        assert layout.widths == [1]  # the last shard has one seed
        assert (tmp_path / "gpu").exists() != dry
    assert results.plan(tmp_path / "gpu")["shards"]["widths"] == [1]
    assert sharded.lay_out(experiment, tmp_path / "all", "seeds=5", resume=True, force=False, gpu=True).widths == [5]


def test_a_shard_that_runs_is_not_submitted(tmp_path):
    from plasticity.runs.lock import held

    experiment, run = tiny.experiment(), tmp_path / "run"
    launch.run(experiment, run, split="seeds=1", shard="2/3")
    shard_folder(run, 3).mkdir()
    with held(shard_folder(run, 3)):
        done = cluster.submit(experiment, run, None, slurm=None, processes=2, dry=True)
    assert (done.jobs, done.shards, done.finished, done.active) == ((), (1,), 1, 1)


@pytest.mark.skipif(bool(cluster.shutil.which("sbatch")), reason="there is a sbatch")
def test_without_slurm_one_line_says_so(tmp_path):
    with pytest.raises(UserError, match="there is no sbatch here"):
        cluster.submit(tiny.experiment(), tmp_path / "run", "seeds=1", slurm={})


def script(place, name, text):
    """A program of Slurm's that is not Slurm's."""
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


@pytest.fixture
def full_queue(tmp_path, monkeypatch):
    """A Slurm that allows two jobs in an array, and two arrays in its queue."""
    programs = tmp_path / "bin"
    script(programs, "scontrol", "echo 'MaxArraySize            = 3'")
    script(programs, "squeue", "exit 0")
    script(programs, "srun", "exit 0")  # submitit looks for it
    refusal = "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates policy"
    script(
        programs, "sbatch",
        f"""cp "$1" {tmp_path}/sent.$(ls {tmp_path} | grep -c sent)
        test -e {tmp_path}/sent.2 && {{ printf '{refusal}' >&2; exit 1; }}
        echo Submitted batch job $(ls {tmp_path} | grep -c sent)""",
    )  # fmt: skip
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path


def test_arrays_are_as_large_as_slurm_allows(full_queue):
    run = full_queue / "run"
    cluster.submit(tiny.experiment(seeds=4), run, "seeds=1", slurm={"time": "30"}, most=3)
    sent = [(full_queue / f"sent.{i}").read_text() for i in range(2)]
    assert ["#SBATCH --array=0-1%1" in sent[0], "#SBATCH --array=0-1%2" in sent[1]] == [True, True]  # at most three
    assert all("#SBATCH --time=30" in text for text in sent)
    assert [(each["shard"], each["job"]) for each in queue.records(run)] == [
        (1, "1_0"),
        (2, "1_1"),
        (3, "2_0"),
        (4, "2_1"),
    ]


def test_what_is_queued_before_the_queue_is_full_is_not_forgotten(full_queue):
    run = full_queue / "run"
    with pytest.raises(UserError, match=r"sbatch refuses: AssocMax.*\n4 of 6 shards are queued; the same command"):
        cluster.submit(tiny.experiment(seeds=6), run, "seeds=1", slurm={})
    assert [each["shard"] for each in queue.records(run)] == [1, 2, 3, 4]
    script(full_queue / "bin", "squeue", "printf '1_0 PENDING\\n1_1 RUNNING\\n2_0 PENDING\\n2_1 PENDING\\n'")
    again = cluster.submit(tiny.experiment(seeds=6), run, None, slurm={}, dry=True)
    assert (again.shards, again.active) == ((5, 6), 4)


def test_a_time_limit_that_is_known_to_be_too_short(tmp_path):
    experiment = tiny.experiment(placement={"width": 1, "devices": 1})
    (job,) = launch.plan(experiment).jobs
    speeds.keep(job.speed_key, speeds.Cost(start=60.0, step=60.0))  # and five steps to a chunk
    with pytest.raises(
        UserError, match=r"time=0:05:00 is too short: arm baseline takes about 6 min here .* 5 env steps"
    ):
        cluster.submit(experiment, tmp_path / "run", "seeds=1", slurm={"time": "0:05:00"}, dry=True)
    assert not (tmp_path / "run").exists()
    cluster.submit(experiment, tmp_path / "run", "seeds=1", slurm={"time": "0:06:00"}, dry=True)
    assert not (tmp_path / "run").exists()  # a dry run writes nothing


def test_the_limit_holds_for_all_arrays_together(full_queue):
    with pytest.raises(UserError, match=r"--max-jobs: 1 is not allowed; must be at least 2, as 4 shards need 2 arrays"):
        cluster.submit(tiny.experiment(seeds=4), full_queue / "run", "seeds=1", slurm={}, most=1)
    assert not (full_queue / "sent.0").exists()


def test_a_job_is_requeued_unless_it_may_not_be(full_queue):
    for number, slurm in enumerate(({}, {"no_requeue": True})):
        cluster.submit(tiny.experiment(seeds=2), full_queue / f"run{number}", "seeds=1", slurm=slurm)
    first, second = ((full_queue / f"sent.{number}").read_text() for number in range(2))
    assert "#SBATCH --requeue" in first
    assert "#SBATCH --no-requeue" in second
    assert "#SBATCH --requeue" not in second


def test_nothing_is_submitted_if_squeue_fails(full_queue):
    run = full_queue / "run"
    cluster.submit(tiny.experiment(seeds=4), run, "seeds=1", slurm={})
    script(full_queue / "bin", "squeue", "echo 'squeue: error: slurm_load_jobs error: Unable to contact' >&2; exit 1")
    for act in (
        lambda: cluster.submit(tiny.experiment(seeds=4), run, None, slurm={}),
        lambda: cluster.cancel(run),
    ):
        with pytest.raises(UserError, match=r"^squeue: slurm_load_jobs error: Unable to contact$"):
            act()
    assert not (full_queue / "sent.2").exists()
    assert Watcher(run).look().queue.startswith("Slurm does not answer: squeue: slurm_load_jobs error")
    script(full_queue / "bin", "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert queue.queue_of(run) == {}  # Slurm has forgotten the jobs
    script(full_queue / "bin", "squeue", "exec sleep 5")
    with pytest.raises(UserError, match="squeue: no answer within 0 s"):
        queue.queue_of(run, 0.1)


def test_squeue_is_asked_only_for_the_jobs_of_the_run(full_queue):
    run = full_queue / "run"
    cluster.submit(tiny.experiment(seeds=4), run, "seeds=1", slurm={})
    script(full_queue / "bin", "squeue", f'echo "$@" > {full_queue}/asked; echo "2_1 RUNNING"')
    assert queue.queue_of(run) == {4: "RUNNING"}
    assert "--jobs=1,2" in (full_queue / "asked").read_text()
    script(
        full_queue / "bin", "scancel", "echo 'scancel: error: Kill job error on job id 2_1: Access denied' >&2; exit 1"
    )
    with pytest.raises(UserError, match=r"^scancel: Kill job error on job id 2_1: Access denied$"):
        cluster.cancel(run)


def test_cancel_refuses_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run: there is no such folder"):
        cluster.cancel(tmp_path / "run")
    launch.run(tiny.experiment(), tmp_path / "whole")
    with pytest.raises(UserError, match="this run is not cut into shards, so it has no jobs"):
        cluster.cancel(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("devices", [None, "0,3"])
def test_local_processes(tmp_path, monkeypatch, devices):
    """They see the GPUs of their parent, hold no pipe of it, remember their queue, and end when told."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)

    def turns_of(run, count, devices):
        def work(numbers):
            from plasticity.runs import turns

            show = "echo ${CUDA_VISIBLE_DEVICES-none}"
            turns.command = lambda run, number, count: [
                "sh", "-c",
                f"{show} > {run}/new; mv {run}/new {run}/seen{number}; test {number} = 1 && exit 1; exec sleep 60"
            ]  # fmt: skip
            return turns.Turns(run, count, devices)(numbers)

        return work

    monkeypatch.setattr(local, "Turns", turns_of)
    jobs = local.start(tmp_path, 3, [1, 2, 3], 1)
    assert len(set(jobs)) == 1
    assert set(local.queued(tmp_path)) <= {1, 2, 3}
    if sys.platform == "linux":
        assert (
            os.readlink(f"/proc/{jobs[0]}/fd/1") == os.readlink(f"/proc/{jobs[0]}/fd/2") == f"{tmp_path}/logs/local.log"
        )
    until((tmp_path / "seen2").exists, 60, "the second runs, although the first has failed")
    assert (tmp_path / "seen2").read_text().strip() == (devices or "none")
    assert cluster.active(tmp_path, [1, 2, 3]) == {2, 3}
    assert local.stop(tmp_path) == [int(jobs[0])]
    until(lambda: not local.queued(tmp_path), 30, "it ends")
    assert not (tmp_path / "seen3").exists()


def test_another_process_with_the_same_number_is_left_alone(tmp_path):
    born = cluster.local.psutil.Process().create_time()
    queue.note(tmp_path, [str(os.getpid())], [1], host=local.socket.gethostname(), born=born - 60)
    assert local.stop(tmp_path) == []
    queue.note(tmp_path, [str(os.getpid())], [2], host="elsewhere", born=born)
    assert local.queued(tmp_path) == {}
    queue.note(tmp_path, [str(os.getpid())], [3], host=local.socket.gethostname(), born=born)
    assert list(local.queued(tmp_path)) == [3]


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ("{slurm: {partition: a}, split: 4}", r"bad\.split: 4 is not allowed; must be one of arms"),
        ("{max_jobs: '8'}", r'bad\.max_jobs: "8" is not allowed; must be an integer of at least 1'),
        ("{max_jobs: 0}", r"bad\.max_jobs: 0 is not allowed"),
        ("{max_jobs: -1}", r"bad\.max_jobs: -1 is not allowed"),
        ("{max_jobs: true}", r"bad\.max_jobs: true is not allowed"),
        ("{slurm: {nodelist: [a, b]}}", r"bad\.slurm\.nodelist: .* is not allowed; must be text, a number"),
        ("{slurm: [a]}", r"bad\.slurm: .* is not allowed; must be a mapping"),
        ("{slurm: {array: 3}}", r"bad\.slurm: array is not allowed"),
        ("{local: 2}", r'bad: unknown key "local"'),
    ],
)
def test_refuses_wrong_profiles(tmp_path, profile, why):
    (tmp_path / "clusters.yaml").write_text(f"bad: {profile}")
    with pytest.raises(UserError, match=rf"^{tmp_path}/clusters\.yaml: {why}") as error:
        options.profile_of("bad", tmp_path / "config.yaml")
    assert len(str(error.value).splitlines()) == 1


def test_values_of_a_profile(tmp_path):
    text = 'a: {slurm: {nodelist: "n1,n2", exclude: "n[1,3]", account: null, exclusive: false, hold: true, mem: 400}}'
    (tmp_path / "clusters.yaml").write_text(text)
    found = {"nodelist": "n1,n2", "exclude": "n[1,3]", "hold": True, "mem": "400"}
    assert options.profile_of("a", tmp_path / "config.yaml") == (found, None, None)


class Child:
    """A process that takes a while to end, and trains before that."""

    def __init__(self, path, seconds, step):
        self.path, self.seconds, self.step = path, seconds, step

    def send_signal(self, number):
        self.told = number

    def wait(self, timeout=None):
        if timeout is not None and timeout < self.seconds:
            raise subprocess.TimeoutExpired("plasticity", timeout)
        write_text(self.path, to_json({"step": self.step, "finished": []}))


@pytest.mark.parametrize(
    ("seconds", "step", "limit", "goes_on", "said"),
    [
        (1.0, 10, 60.0, True, ""),
        (9.0, 10, 60.0, True, "a chunk takes more than the 5 s that are left to save; give the job more time"),
        (1.0, 7, 60.0, True, ""),  # preempted long before its time is over
        (1.0, 7, 19.0, True, ""),  # also if that is short
        (1.0, 7, 3.0, False, "the time limit of 0 min is too short for one chunk; give the job more time"),
    ],
)
def test_a_job_without_progress_is_not_repeated(tmp_path, capsys, seconds, step, limit, goes_on, said):
    status = shard_folder(tmp_path, 1) / "baseline" / "status.json"
    status.parent.mkdir(parents=True)
    turn = turns.Turn(str(tmp_path), 1, seconds=limit, notice=10.0)
    turn.began, turn.before = time.monotonic(), 7
    turn.child = child = Child(status, seconds, step)
    found = turn.checkpoint(1)
    assert child.told == signal.SIGTERM
    assert (found is not None) == goes_on
    assert capsys.readouterr().err.startswith(said)
    if found is not None:
        assert vars(found.function) == vars(turns.Turn(str(tmp_path), 1, limit, 10.0))


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
        assert "1 shard to run, 3 queued or running, 0 finished" in again or "finished" in again
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
    with slurm_cluster.cluster(tmp_path / "slurm", array=2) as slurm:
        done = command("launch", config, "seeds=2", "--out", tmp_path / "two", "--split", "seeds=1", "--slurm",
                       "partition=low,time=5", env=slurm.environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len({each["job"].partition("_")[0] for each in queue.records(tmp_path / "two")}) == 2
        for wrong in ("partition=none", "partition=low,no-such-option=3"):
            done = command("launch", config, "--out", tmp_path / wrong, "--slurm", wrong, env=slurm.environment)
            assert done.returncode == 2
            assert done.stderr.startswith("--slurm: sbatch refuses: "), done.stderr
            assert len(done.stderr.splitlines()) <= 3
            assert os.path.exists(tmp_path / wrong / "plan.json")
