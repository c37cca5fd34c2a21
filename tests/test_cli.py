"""The command line as a user sees it: output, files and exit codes."""

import contextlib
import ctypes.util
import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import crashes
import numpy as np
import psutil
import pytest
import tiny
import yaml
from processes import ended, started  # noqa: F401  (a fixture)
from rich.console import Console

from plasticity import results
from plasticity.cli import completion, main, progress
from plasticity.config import docstrings, shipped
from plasticity.config.registry import FAMILIES
from plasticity.core.errors import UserError
from plasticity.engine import memory
from plasticity.engine.runner import Chunk, Position
from plasticity.runs import folder, launch, trackers

pytestmark = pytest.mark.usefixtures("usual_signals")

ROOT = Path(__file__).resolve().parent.parent
ARMS = {"baseline": {}, "fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}


class Done(NamedTuple):
    code: int
    out: str
    err: str


def plasticity(*words: object) -> Done:
    """Runs the command line in this process, its output 80 columns wide and no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["plasticity", *map(str, words)])
        patch.setattr(main, "console", Console(file=out, width=80))
        patch.setattr(main, "errors", Console(file=err, width=80, soft_wrap=True, highlight=False))
        try:
            main.main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def flat(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def write(path: Path, **changes: object) -> Path:
    path.write_text("# A tiny experiment.\n" + yaml.safe_dump(tiny.document(**{"arms": ARMS, **changes})))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write(tmp_path_factory.mktemp("config") / "tiny.yaml")


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A finished run and what the terminal showed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return run, plasticity("run", config, "--out", run)


def readable(text: str) -> None:
    """Nothing is wider than the terminal or cut off."""
    assert text.strip()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


# Output.


def test_run(finished):
    run, done = finished
    assert done.code == 0, done.err
    readable(done.out)
    lines = done.out.splitlines()
    assert lines[0] == "baseline: compiling, 3 lanes"
    assert lines[1].startswith("baseline: 60/60 steps, ")
    assert lines[2] == "fresh: compiling, 3 lanes"
    assert lines[3].startswith("fresh: 60/60 steps, ")
    assert "labels_2 (3/3) accuracy 0." in lines[3]
    assert "tiny: accuracy" in done.out
    assert "gap to fresh" in done.out
    assert "figures: " in flat(done.out)
    assert sorted(path.name for path in run.iterdir()) == [
        "baseline",
        "experiment.yaml",
        "figures",
        "fresh",
        "plan.json",
    ]
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"performance.png", "learning_curve.pdf", "monitors.png"} <= figures
    assert sorted(path.name for path in (run / "fresh").iterdir()) == [
        "checkpoints",
        "lanes.parquet",
        "metrics",
        "status.json",
    ]
    assert len(results.load(run)) == 2 * 3 * 12


def test_status_of_a_finished_run(finished):
    status = json.loads((finished[0] / "fresh" / "status.json").read_text())
    assert time.time() - 3600 < status.pop("updated") < time.time() + 1
    assert status.pop("steps_per_second") > 0
    assert len(status.pop("crc32")) == 8
    expected = {"program": 0, "lanes": 3, "steps": 60, "state": "finished", "visit": 2, "step": 60}
    assert status == {"finished": [0], "parts": {"0": 3}, **expected}  # a part for each of three visits


def test_plan(config):
    done = plasticity("plan", config, "sweep={agent.network.widths: [[8], [16]]}", "seeds=5")
    assert done.code == 0, done.err
    readable(done.out)
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("│ baseline", "│ fresh"))]
    assert [row[1:6:2] for row in rows] == [[arm, str(n), "5"] for arm in ("baseline", "fresh") for n in (0, 1)]
    assert "3 visits to 3 tasks; each lane: 60 steps of 4 envs, 240 frames" in flat(done.out)
    assert "20 lanes, 1,200 lane steps in total" in flat(done.out)
    assert "2 devices (cpu)" in done.out


def test_a_plan_of_one_counts_in_the_singular(config):
    done = plasticity("plan", config, "seeds=1", "stream.tasks=1", "stream.envs=1", "arms={baseline: {}}")
    assert done.code == 0, done.err
    assert "1 visit to 1 task; each lane: 20 steps of 1 env, 20 frames" in flat(done.out)
    assert "1 lane, 20 lane steps in total" in flat(done.out)


@pytest.mark.parametrize("kind", ["dqn", "c51", "rainbow"])
def test_a_setting_without_effect_is_refused_in_the_words_of_a_config(kind):
    agent = ["agent.gradient_steps=2", "agent.replay_ratio=1.0"]
    done = plasticity(
        "plan", ROOT / "configs/tutorial/minatar.yaml", "arms={baseline: {}}", f"agent.kind={kind}", *agent
    )
    assert done.code == 2
    assert "agent.gradient_steps: 2 has no effect with replay_ratio=1.0; it needs replay_ratio=null" in flat(done.err)


@pytest.mark.parametrize("duration", ["1e400", ".inf"])
def test_a_schedule_cannot_last_for_ever(duration):
    done = plasticity("plan", ROOT / "configs/tutorial/minatar.yaml", f"agent.epsilon.duration={duration}")
    assert done.code == 2
    assert "agent.epsilon.duration: Infinity is not allowed; must be a number in (0, inf)" in flat(done.err)


def test_plan_for_another_machine(config, monkeypatch):
    monkeypatch.setattr(memory, "capacity", lambda device, devices: 1000)
    done = plasticity("plan", config)
    assert done.code == 0
    assert "It does not fit this machine: arm baseline: 3 lanes need" in flat(done.out)
    assert "which have 1000 B" in flat(done.out)


@pytest.mark.parametrize("family", FAMILIES)
def test_list_every_family_and_every_member(family):
    done = plasticity("list", family)
    assert done.code == 0, done.err
    readable(done.out)
    for name in launch.registry().names(family):
        assert f" {name} " in done.out
        member = plasticity("list", family, name)
        assert member.code == 0, member.err
        readable(member.out)
        assert member.out.startswith(f"{name}: ")
        for setting in launch.registry().schema(family, name):
            assert f" {setting} " in member.out


def test_a_docstring_fills_the_terminal():
    assert docstrings.plain("One line\nof text.\n\n    a b\n    c d\n\nLast\none.") == (
        "One line of text.\n\n    a b\n    c d\n\nLast one."
    )


DOCSTRING = """Does ``x`` as :func:`~plasticity.y` does::

        x = 1

    Args:
      spec: the stream.
      rate, other: how
        fast.

    Returns:
      a number.

    End
    of it.
    """


def test_a_docstring_in_the_terminal_has_no_markup_and_only_settings():
    assert docstrings.plain(DOCSTRING, {"rate", "other"}) == (
        "Does `x` as `plasticity.y` does::\n\n    x = 1\n\nArgs:\n  rate, other: how fast.\n\nReturns:\n  a number.\n\n"
        "End of it."
    )
    assert docstrings.plain(DOCSTRING, {"rate"}, width=14).split("\n\n")[2] == "Args:\n  rate: how\n    fast."
    assert "Args" not in docstrings.plain(DOCSTRING, ())


def test_a_docstring_on_a_page_has_lists():
    assert docstrings.markdown(DOCSTRING) == (
        "Does `x` as `plasticity.y` does:\n\n    x = 1\n\n**Args**\n\n* `spec`: the stream.\n* `rate, other`: how\n"
        "fast.\n\n**Returns**\n\na number.\n\nEnd\nof it."
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_members_are_listed_without_markup_or_arguments_that_are_no_settings(family):
    for name in launch.registry().names(family):
        settings = set(launch.registry().schema(family, name))
        text = plasticity("list", family, name).out
        assert "``" not in text
        assert ":func:" not in text
        assert ":class:" not in text
        section = re.search(r"^Args:\n((?:  .*\n)+)", text, re.MULTILINE)
        named = re.findall(r"^  (\w[\w, ]*): ", section[1], re.MULTILINE) if section else []
        assert {each for names in named for each in names.split(", ")} <= settings, name


def test_list_configs(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = plasticity("list", "configs")
    names = [line.split()[0] for line in done.out.splitlines() if line[:1] == " " and line[1:2].strip()]
    assert names == list(shipped.experiments())
    assert " quickstart " in done.out
    assert "paper/" not in done.out
    assert done.out.endswith("\nPublished findings are listed by `plasticity findings --list`.\n")
    readable(done.out)


def test_the_schema_is_printed_as_it_is():
    assert plasticity("schema") == Done(0, shipped.SCHEMA.read_text(encoding="utf-8"), "")


def test_list_without_a_family_lists_everything():
    done = plasticity("list")
    titles = [line.strip() for line in done.out.splitlines() if line.strip() in (*FAMILIES, "configs")]
    assert titles == [*FAMILIES, "configs"]
    readable(done.out)


def test_without_plugins_members_are_listed_without_importing_them(monkeypatch):
    """From the schema of configs; the same text as from the members themselves."""
    monkeypatch.setattr(completion, "plugins", lambda family: {"another"})
    loaded = {family: plasticity("list", family).out for family in FAMILIES}
    monkeypatch.setattr(completion, "plugins", lambda family: set())
    monkeypatch.setattr(launch, "registry", lambda: pytest.fail("imported"))
    for family in FAMILIES:
        assert flat(plasticity("list", family).out) == flat(loaded[family])


def has_qt() -> bool:
    """What envpool's Procgen needs of the system."""
    return all(ctypes.util.find_library(f"Qt5{part}") for part in ("Core", "Gui"))


@pytest.mark.slow
def test_every_config_of_ours_can_be_planned():
    """Atari needs seconds for each, findings are more than a config; those have tests of their own."""
    for path in sorted(set((ROOT / "configs").rglob("*.yaml")) - set((ROOT / "configs" / "paper").iterdir())):
        experiment = launch.load_config(path)
        if experiment.stream.kind == "atari":
            continue
        if experiment.stream.kind == "procgen" and not has_qt():
            continue
        if experiment.stream.kind == "slippery_ant" and find_spec("mujoco") is None:
            continue
        assert launch.plan(experiment).jobs, path


def test_plot(finished, tmp_path):
    run, _ = finished
    done = plasticity("plot", run, "--out", tmp_path / "figures")
    assert done.code == 0, done.err
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"performance.png", "performance.pdf", "learning_curve.png", "monitors.png"} <= written
    assert all(name in done.out.replace("\n", "") for name in written)
    assert "tiny: accuracy" in done.out


def test_plot_of_chosen_figures_and_arms(finished, tmp_path):
    run, _ = finished
    words = ("--figures", "performance", "--arms", "fresh,baseline", "--label", "baseline=Plain", "--size", "4x3")
    done = plasticity("plot", run, "--out", tmp_path / "figures", *words, "--smooth", "2")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"performance.png", "performance.pdf"}
    png = (tmp_path / "figures" / "performance.png").read_bytes()
    assert [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)] == [600, 450]  # 150 dots per inch


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "baselin"], "arms: unknown arm `baselin`; arms: baseline, fresh; did you mean `baseline`?"),
        (["--arms", "fresh,fresh"], 'arms: "fresh" is given twice; name each arm once'),
        (["--arms", "fresh,"], 'arms: "fresh," is not allowed; must be names separated by commas, such as a,b,c'),
        (["--label", "fresh"], 'label: "fresh" is not allowed; must be ARM=NAME, such as layer_norm=LayerNorm'),
        (["--label", "frsh=New"], "labels: unknown arm `frsh`; arms: baseline, fresh; did you mean `fresh`?"),
        (["--label", "fresh=baseline"], 'labels: "baseline" is not allowed for several arms'),
        (["--size", "6"], 'size: "6" is not allowed; must be width x height in inches, such as 6x4'),
        (["--size", "6x100"], "size: [6.0, 100.0] is not allowed; must be width and height between 2 and 40 inches"),
        (["--smooth", "0"], "smooth: 0 is not allowed; must be an integer from 1 to 100000 (records)"),
        (["--figures", "performanse"], "figures: unknown figure `performanse`; known: "),
    ],
)
def test_mistakes_in_what_to_plot_take_a_line_and_write_nothing(finished, tmp_path, words, said):
    done = plasticity("plot", finished[0], "--out", tmp_path / "figures", *words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "figures").exists()


def test_a_run_without_figures(config, finished, tmp_path):
    done = plasticity("run", config, "--out", tmp_path / "run", "--no-figures")
    assert done.code == 0, done.err
    assert "tiny: accuracy" in done.out
    assert "figures:" not in done.out
    assert not (tmp_path / "run" / "figures").exists()
    assert (finished[0] / "figures" / "performance.png").exists()


def test_help():
    done = plasticity("--help")
    assert done.code == 0
    assert all(command in done.out for command in ("run", "plan", "list", "plot", "bench"))
    assert "--resume" in plasticity("run", "--help").out


def test_in_python(config, finished, tmp_path):
    import plasticity as package

    alone = "arms={fresh: {task_aware: true, interventions: [{kind: reset, when: switch}]}}"
    run = package.run(package.load_config(config, [alone]), tmp_path)
    assert run == tmp_path
    crashes.assert_same(run, {"fresh": crashes.tables(finished[0])["fresh"]})


# User errors: one to three lines, exit code 2, no traceback, nothing written.

MISTAKES = {
    "unknown key": (["seedz=3"], ["unknown key", "seeds"]),
    "unknown nested key": (["agent.optimizer.learning_rat=1"], ["learning_rat", "did you mean `learning_rate`?"]),
    "misspelt member of an arm": (
        ["arms={a: {interventions: [layer_nrom]}}"],
        ["arms.a.interventions", "layer_nrom", "did you mean `layer_norm`?"],
    ),
    "misspelt agent": (["agent=clasifier"], ["agent `clasifier`", "did you mean `classifier`?"]),
    "value out of range": (["agent.label_smoothing=1.5"], ["agent.label_smoothing: 1.5", "a number in [0, 1]"]),
    "value of another type": (["seeds=many"], ["seeds", "many", "integer"]),
    "records that do not fit": (["record_every=7"], ["record_every: 7", "must divide the 20 steps of a visit"]),
    "no data": (
        ["stream.inputs=mnist", "stream.path=/nowhere", "stream.dimensions=64"],
        ["/nowhere", "mnist", "train-images-idx3-ubyte"],
    ),
    "unknown game": (["stream={kind: atari, games: [Pongg]}"], ['unknown game "Pongg"', "did you mean `Pong`?"]),
    "not an override": (["seeds"], ["seeds", "KEY=VALUE"]),
    "resume and force": (["--resume", "--force"], ["--resume", "--force", "give one of them"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(config, tmp_path, mistake):
    words, said = MISTAKES[mistake]
    done = plasticity("run", config, *words, "--out", tmp_path / "run")
    assert done.code == 2
    assert done.out == ""
    assert 1 <= len(done.err.splitlines()) <= 3
    assert "Traceback" not in done.err
    for part in said:
        assert part in done.err
    assert not (tmp_path / "run").exists()


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [],
            "exists; continue it with --resume (resume=True), replace it with --force (force=True), "
            "or choose another --out",
        ),
        (["--resume", "seeds=2"], "was made with another config: `seeds` was 3, now 2"),
        (["--resume", "name=other"], '`name` was "tiny", now "other"'),
        (["--force", "seedz=2"], "unknown key"),
        (["--force", "record_every=7"], "record_every: 7 is not allowed"),
    ],
)
def test_a_run_that_is_there_stays_as_it_is(config, finished, words, said):
    run, _ = finished
    before = contents(run)
    done = plasticity("run", config, *words, "--out", run)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) <= 3
    assert contents(run) == before


def test_force_refuses_what_is_no_run(config, tmp_path):
    (tmp_path / "thesis.tex").write_text("Chapter 1")
    done = plasticity("run", config, "--out", tmp_path, "--force")
    assert done.code == 2
    assert done.err == f"{tmp_path} exists and is not a run (it has no experiment.yaml); --force will not remove it\n"
    assert (tmp_path / "thesis.tex").read_text() == "Chapter 1"


def test_too_little_memory(config, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "capacity", lambda device, devices: 1000)
    done = plasticity("run", config, "--out", tmp_path / "run")
    assert done.code == 2
    assert "arm baseline: 3 lanes need" in done.err
    assert "which have 1000 B" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["plot", "nowhere"], "nowhere is not a run: there is no such folder"),
        (["list", "agent"], "did you mean `agents`?"),
        (["list", "agents", "dqm"], "did you mean `dqn`?"),
        (["run"], "Missing argument 'CONFIG'"),
        (["plna"], "No such command 'plna'"),
        (["run", "--rseume"], "No such option: --rseume"),
        (["run", "a.yaml", "--out"], "'--out' requires an argument"),
        (["watch", "a", "--every", "soon"], "Invalid value for '--every'"),
        (["measure", "a", "--monitors", "srank,srank"], '--monitors: "srank" is given twice'),
    ],
)
def test_other_mistakes(words, said):
    done = plasticity(*words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) <= 3


def test_no_arguments_at_all_show_the_help():
    done = plasticity()
    assert done.code == 2
    assert "Usage: plasticity" in done.out


def test_several_broken_plugins_take_one_line_and_none_in_a_refusal(config, monkeypatch):
    lines = tuple(f"plug-in `{name}` of package p cannot be used: why" for name in "abc")
    monkeypatch.setattr(launch, "broken_plugins", lambda: lines)
    monkeypatch.setattr(completion, "plugins", lambda family: {"a", "b", "c"})
    done = plasticity("plan", config)
    assert (done.code, done.err) == (0, f"{lines[0]} (and 2 more; `plasticity list` names each)\n")
    assert plasticity("list").err.splitlines() == list(lines)
    for words in (["plan", config, "agent=no_such"], ["run", config, "agent=no_such"], ["list", "agents", "no_such"]):
        done = plasticity(*words)
        assert done.code == 2
        assert "plug-in" not in done.err


def test_broken_plugins_are_named_once_and_stop_nothing(config, monkeypatch):
    monkeypatch.setattr(launch, "broken_plugins", lambda: ("plug-in `sparkle` of package p cannot be used: why",))
    monkeypatch.setattr(completion, "plugins", lambda family: {"sparkle"})
    for words in (["plan", config], ["list", "agents"]):
        done = plasticity(*words)
        assert done.code == 0
        assert done.err == "plug-in `sparkle` of package p cannot be used: why\n"


@pytest.mark.filterwarnings("default:a visit is short")
def test_a_warning_is_a_line_without_a_place_in_our_code(config, monkeypatch):
    def warned(experiment):
        warnings.warn("a visit is short", stacklevel=1)
        raise UserError("enough")

    monkeypatch.setattr(launch, "plan", warned)
    done = plasticity("plan", config)
    assert (done.code, done.err) == (2, "warning: a visit is short\nenough\n")


@pytest.mark.filterwarnings("default:.*WARN")
def test_a_warning_has_no_raw_escapes(config, monkeypatch):
    def load(*_):
        warnings.warn("\x1b[33mWARN: a name\x1b[0m with \x1b]0;title\x07", stacklevel=1)
        raise UserError("enough")

    monkeypatch.setattr(launch, "load_config", load)
    done = plasticity("plan", config)
    assert done.err.splitlines() == [r"warning: WARN: a name with \x1b]0;title\x07", "enough"]


# Signals, in this process and for real.


def test_interrupted(config, finished, tmp_path, monkeypatch):
    """The message contains a command that resumes the run."""
    run = tmp_path / "a run"

    class Stopping(progress.TerminalProgress):
        def chunk(self, chunk):
            super().chunk(chunk)
            if chunk.position.step == 35:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "TerminalProgress", Stopping)
        done = plasticity("run", config, "monitor_every=10", "--out", run)
    assert done.code == 143
    first, command = done.err.splitlines()
    assert first == "SIGTERM: saved; continue with"
    words = shlex.split(command)
    assert words == ["plasticity", "run", str(config), "monitor_every=10", "--out", str(run), "--resume"]
    resumed = plasticity(*words[1:])
    assert resumed.code == 0, resumed.err
    crashes.assert_same(run, crashes.tables(finished[0]))


def process(*words: object, cache: Path, before: str = "", **options: Any) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "COLUMNS": "80",
    }
    code = ["-c", f"{before}\nfrom plasticity.cli.main import main\nmain()"] if before else ["-m", "plasticity"]
    command = [sys.executable, *code, *map(str, words)]
    return started(command, env=environment, stderr=subprocess.PIPE, **options)


def wait_for(path: Path, child: subprocess.Popen[str], delay: float = 0.0, step: int = 0) -> None:
    """Until the path exists, and with ``step`` is a status that has come as far, and a moment longer."""
    deadline = time.monotonic() + 120
    while not path.exists() or (step and json.loads(path.read_text()).get("step", 0) < step):
        assert child.poll() is None, child.stderr.read() if child.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """A config that takes about a second once compiled, its cache of programs, and the tables of its whole run."""
    place = tmp_path_factory.mktemp("processes")
    stream = {**tiny.document()["stream"], "tasks": 60, "steps_per_task": 20}
    config = write(place / "longer.yaml", stream=stream, checkpoint_every=10, placement={"width": 1})
    done = process("run", config, "--out", place / "whole", cache=place / "cache")
    assert done.wait(300) == 0
    return config, place / "cache", crashes.tables(place / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_asked_to_stop(longer, tmp_path, number):
    config, cache, whole = longer
    run = tmp_path / "run"
    child = process("run", config, "--out", run, cache=cache)
    wait_for(run / "baseline/checkpoints/000/000000000100.npz", child)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 128 + number
    assert err.splitlines()[-2:] == [
        f"{number.name}: saved; continue with",
        f"  plasticity run {config} --out {run} --resume",
    ]
    assert json.loads((run / "baseline/status.json").read_text())["state"] == "interrupted"
    assert process("run", config, "--out", run, "--resume", cache=cache).wait(300) == 0
    crashes.assert_same(run, whole)


@pytest.mark.slow
def test_a_process_killed_again_and_again(longer, tmp_path):
    config, cache, whole = longer
    run = tmp_path / "run"
    places = {"experiment.yaml": 0, "baseline/checkpoints/000/000000000040.npz": 0, "baseline/status.json": 700}
    places |= {"fresh/lanes.parquet": 0, "fresh/status.json": 400}
    for i, (place, step) in enumerate(places.items()):
        resume = ["--resume"] if (run / "experiment.yaml").exists() else []
        child = process("run", config, "--out", run, *resume, cache=cache)
        wait_for(run / place, child, 0.013 * i, step)
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    assert process("run", config, "--out", run, "--resume", cache=cache).wait(300) == 0
    crashes.assert_same(run, whole)


# Real processes in the quick tests: one experiment of two arms, about a second of steps.


@pytest.fixture(scope="module")
def short(tmp_path_factory, program_cache):
    """A config, the cache in which its programs are, and the tables of its whole run, made in this process."""
    place = tmp_path_factory.mktemp("short")
    stream = {**tiny.document()["stream"], "tasks": 30, "steps_per_task": 20}
    one_device = {"devices": 1, "width": 1}
    config = write(place / "short.yaml", stream=stream, checkpoint_every=10, placement=one_device, seeds=1)
    done = plasticity("run", config, "--out", place / "whole")
    assert done.code == 0, done.err
    return config, program_cache, crashes.tables(place / "whole")


@pytest.mark.slow
def test_killed_and_resumed_by_the_same_command(short, tmp_path):
    """One command of a requeued job starts the run, resumes it, and does nothing once it has finished."""
    config, cache, whole = short
    run, command = tmp_path / "run", ["run", config, "--out", tmp_path / "run", "--resume"]
    child = process(*command, cache=cache)
    wait_for(run / "baseline/checkpoints/000/000000000050.npz", child)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert (run / ".lock").exists()
    child = process(*command, cache=cache)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    assert "already finished" not in out
    assert not (run / ".lock").exists()
    crashes.assert_same(run, whole)
    done = plasticity(*command)
    assert done.code == 0
    assert flat(done.out).startswith(f"{run}: already finished".replace("\n", " ")[:60])
    assert "gap to fresh" in done.out
    crashes.assert_same(run, whole)


@pytest.mark.slow
def test_nobody_reads_and_the_files_have_a_limit(short, tmp_path, monkeypatch):
    """A pipe that is closed at once, ASCII only, no file above 9 kB: one message, code 74, and the way on."""
    config, cache, whole = short
    run, words = tmp_path / "r\u00fcn", ["run", config, "--out", tmp_path / "r\u00fcn", "--resume"]

    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    child = process(*words, cache=cache, before=limit)
    child.stdout.close()
    err = child.stderr.read()
    assert child.wait(300) == 74, err
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert "File too large" in lines[0]
    assert lines[1] == "saved data are kept; continue with"
    assert len(lines) == 3
    status = json.loads((run / "baseline/status.json").read_text())
    assert status["state"] == "failed"
    assert status["reason"].endswith(": File too large")
    watched = plasticity("watch", run, "--once")
    assert "baseline: failed: " in flat(watched.out)
    assert plasticity(*words).code == 0
    crashes.assert_same(run, whole)


GYM = {
    "stream": {"kind": "gym", "id": "CartPole-v1", "steps_per_visit": 6000, "envs": 2, "workers": True},
    "placement": {"devices": 1, "width": 1},
    "seeds": 1,
    "arms": {"baseline": {}},
    "monitor_every": 60,
    "record_every": 60,
    "checkpoint_every": 600,
}


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(each.pid) == leader and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
    return found


def wait_until_gone(leader: int) -> None:
    deadline = time.monotonic() + 60
    while group(leader):
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline() for pid in group(leader)]
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_a_run_and_its_workers(tmp_path, program_cache, number):
    """As a terminal or a scheduler sends it: to the whole group. Then SIGKILL to the run alone: no worker is left."""
    config = write(tmp_path / "gym.yaml", **{**tiny.DQN, **GYM})
    run = tmp_path / "run"
    child = process("run", config, "--out", run, cache=program_cache, start_new_session=True)
    wait_for(run / "baseline/checkpoints/000/000000000600.npz", child)
    assert len(group(child.pid)) >= 3
    os.killpg(child.pid, number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 128 + number, err
    assert f"{signal.Signals(number).name}: saved; continue with" in err
    assert "Traceback" not in err
    wait_until_gone(child.pid)
    child = process("run", config, "--out", run, "--resume", cache=program_cache, start_new_session=True)
    step = json.loads((run / "baseline/status.json").read_text())["step"]
    wait_for(run / f"baseline/checkpoints/000/{(step // 600 + 1) * 600:012d}.npz", child)
    child.kill()
    child.communicate()
    wait_until_gone(child.pid)


def test_a_plan_says_what_this_machine_lacks(config, tmp_path, monkeypatch):
    monkeypatch.setitem(trackers.PACKAGES, "tensorboard", "no_such_package")
    (tmp_path / "file").touch()
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    done = plasticity("plan", config, "recorders=[tensorboard]", "--out", tmp_path / "file" / "run")
    assert done.code == 0
    said = flat(done.out)
    assert "It cannot run here: recorders: `tensorboard` needs the package no_such_package" in said
    assert "It cannot start: " in said
    assert "cannot be written: " in said
    assert "The disk may become full: " in said
    assert "only 1000 B are free" in said
    assert "is a file" in said


@pytest.mark.parametrize("folder", ["x" * 300, "locked/run"])
def test_a_plan_for_a_folder_that_cannot_be_made(config, tmp_path, monkeypatch, folder):
    """Also for root, who ignores permissions."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    done = plasticity("plan", config, "--out", tmp_path / folder)
    assert done.code == 0
    assert done.out.count("It cannot start: ") == 1
    assert any(os.strerror(number) in flat(done.out) for number in (errno.EROFS, errno.ENAMETOOLONG))


def test_a_plan_leaves_nothing_behind(config, tmp_path):
    assert "It cannot start" not in plasticity("plan", config, "--out", tmp_path / "a" / "run").out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_a_folder_with_a_run(config, finished):
    done = plasticity("plan", config, "--out", finished[0])
    assert done.code == 0
    assert "exists; continue it with --resume" in flat(done.out)


@pytest.mark.parametrize("command", ["plot", "report", "run"])
def test_a_file_that_cannot_be_written_after_the_run(config, finished, monkeypatch, command):
    """The figures of a finished run, on a disk that is full."""
    run, _ = finished

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    before = contents(run)
    words = ["run", config, "--out", run, "--resume"] if command == "run" else [command, run]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", full)
        done = plasticity(*words)
    assert done.code in (2, 74)
    assert "No space left on device" in flat(done.err)
    assert 1 <= len(done.err.splitlines()) <= 3
    assert {name: data for name, data in contents(run).items() if "figures" not in name} == {
        name: data for name, data in before.items() if "figures" not in name
    }


# While it runs.


def watched(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second program of an arm, 13 seconds a chunk; one of three lanes diverges at step 20."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "PULSE_SECONDS", 1e6)
    job = launch.plan(tiny.experiment()).jobs[0]._replace(number=1)
    with progress.TerminalProgress(console) as shown:
        clock[0] += 25.0
        shown.pulse()
        shown.job(job, Position(0, 0, 0))
        for _ in range(3):
            clock[0] += 12.0
            shown.pulse()
        for step in range(5, 65, 5):
            clock[0] += 13.0
            visit, inside = divmod(step - 1, 20)
            reward = np.array([0.5, np.nan if step > 20 else 0.5, 0.25])
            diverged = np.array([-1, 20 if step > 20 else -1, -1])
            shown.chunk(Chunk(Position(visit, inside + 1, step), f"labels_{visit}", {"reward": reward}, diverged))


def test_lines_now_and_then(monkeypatch):
    """Off a terminal: a line at every program's start and end, and one every twenty seconds between them."""
    out = io.StringIO()
    watched(Console(file=out, width=80), monkeypatch)
    assert out.getvalue().splitlines() == [
        "planning (25 s so far)",
        "baseline (2): compiling, 3 lanes",
        "baseline (2): compiling, 3 lanes (24 s so far)",
        "baseline (2): 5/60 steps, 0 steps/s, labels_0 (1/3) accuracy 0.417",
        "baseline (2): 15/60 steps, 1 steps/s, labels_0 (1/3) accuracy 0.417",
        "baseline (2): 25/60 steps, 1 steps/s, labels_1 (2/3) accuracy 0.375, 1 diverged",
        "baseline (2): 35/60 steps, 1 steps/s, labels_1 (2/3) accuracy 0.375, 1 diverged",
        "baseline (2): 45/60 steps, 1 steps/s, labels_2 (3/3) accuracy 0.375, 1 diverged",
        "baseline (2): 55/60 steps, 1 steps/s, labels_2 (3/3) accuracy 0.375, 1 diverged",
        "baseline (2): 60/60 steps, 1 steps/s, labels_2 (3/3) accuracy 0.375, 1 diverged",
    ]


def test_a_performance_that_is_not_known_yet_is_a_dash():
    job = launch.plan(tiny.experiment()).jobs[0]
    chunk = Chunk(Position(0, 5, 5), "labels_0", {"reward": np.array([np.nan] * 3)}, np.array([-1] * 3))
    assert progress._performance(job, chunk) == "accuracy -"


def test_a_bar_on_a_terminal(monkeypatch):
    out = io.StringIO()
    watched(Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False), monkeypatch)
    last = out.getvalue().splitlines()[-2].split("\x1b[2K")[-1]  # the last one only shows the cursor again
    assert last.startswith("baseline (2) ")
    assert last.endswith(" 1 steps/s 00:00 labels_2 (3/3) accuracy 0.375, 1 diverged")


def test_the_current_folder_is_importable_but_last(monkeypatch):
    """Where a script starts the command line, its own folder is on the path and the current one is not."""
    kept = [place for place in sys.path if place]
    monkeypatch.setattr(sys, "path", list(kept))
    monkeypatch.setattr(sys, "argv", ["plasticity", "list", "networks"])
    with pytest.raises(SystemExit):
        main.main()
    assert sys.path == [*kept, ""]
