"""Every command and every piece of Python in README.md and docs/*.md does what the page says it does.

Commands with names in capitals run on a tiny experiment. Of a command that takes minutes the config is read with its
overrides. A command that is in neither list below fails the test, so that a new one cannot go untested.
"""

import ast
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import yaml
from typer.testing import CliRunner

import plasticity
from plasticity import bench
from plasticity.bench.report import Benchmark
from plasticity.cli import main
from plasticity.monitors.base import Monitor
from plasticity.runs import launch

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if "template" not in path.name)]
PROGRAMS = ("plasticity", "make", "pip", "python", "chromium")
SHORT = ["stream.tasks=2", "stream.steps_per_task=20", "monitor_every=10", "stream.envs=4", "seeds=1"]

# What stands for the names in capitals; {run} is a finished run.
TINY = {
    "plasticity run": ["run --help"],
    "plasticity run CONFIG [KEY=VALUE ...] [--out DIR] [--resume | --force] [--no-figures]": [
        "run {config} --out {run} --force --no-figures"
    ],
    "plasticity run CONFIG --out DIR --resume": ["run {config} --out {run} --resume"],
    "plasticity plan CONFIG [KEY=VALUE ...]": ["plan {config} seeds=2"],
    "plasticity plan": ["plan {config}"],
    "plasticity list": ["list"],
    "plasticity list [FAMILY [NAME]]": ["list monitors", "list agents ppo"],
    "plasticity list streams NAME": ["list streams catch"],
    "plasticity list interventions nap": ["list interventions nap"],
    "plasticity watch RUN [--once]": ["watch {run} --once"],
    "plasticity plot RUN [RUN ...] [--out DIR]": ["plot {run} {run} --out {new}"],
    "plasticity plot RUN --arms fresh,layer_norm --label layer_norm=LayerNorm --size 3.4x2.6 --figures performance": [
        "plot {run} --arms baseline --label baseline=A --size 3.4x2.6 --figures performance --smooth 3 --out {new}"
    ],
    "plasticity report RUN [RUN ...] [--out FILE]": ["report {run} {run} --out {new}.html"],
    "plasticity report runs/quickstart": ["report {run}"],
    "plasticity compare": ["compare {run} {run}"],
    "plasticity compare RUN_A RUN_B": ["compare {run} {run}"],
    "plasticity measure RUN --monitors A,B": ["measure {run} --monitors weight_norm,stable_rank --force"],
    "plasticity bench [NAME ...]": ["bench loop", "bench"],
    "plasticity findings": ["findings --list"],
    "plasticity findings [NAME ...]": ["findings new_labels --list"],
    "plasticity findings [NAME ...] [--list]": ["findings F1 --list"],
    "plasticity findings new_labels": ["findings new_labels --plan"],
    "plasticity findings default_adam --full": ["findings default_adam --full --list"],
}


class Row(NamedTuple):
    """What a benchmark that measures nothing found."""

    name: str = "a"
    value: float = 0.5


ELSEWHERE = {
    "pip install ./examples/plugin": "test_plugin.py installs it",
    "plasticity list interventions gradient_noise": "test_plugin.py, with the plug-in installed",
    "plasticity run examples/plugin/noise.yaml": "test_plugin.py, with the plug-in installed",
    "pip install -e '.[cuda]'": "needs a GPU's libraries from the network",
    "plasticity run configs/targets/NAME.yaml": "each of them is read below",
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def normal(line: str) -> str:
    """A command without its path, comment, explanation and surplus blanks."""
    line = re.sub(r"\s+#.*|\s{2,}[a-z0-9].*", "", line.strip().removeprefix(".venv/bin/"))
    return " ".join(line.split())


def commands(page: Path) -> list[str]:
    joined = (block.replace("\\\n", " ") for block in blocks(page, "", "sh", "bash", "console"))
    lines = [line for block in joined for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(line.split()) for line in re.findall(r"`([^`]+)`", prose)]
    return sorted({normal(line) for line in lines if line.strip().removeprefix(".venv/bin/").startswith(tuple(f"{p} " for p in PROGRAMS))})  # noqa: E501 # fmt: skip


ALL = sorted({command for page in PAGES for command in commands(page)})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny config, a finished run of it, a place for something new."""
    place = tmp_path_factory.mktemp("documented")
    config, run = place / "tiny.yaml", place / "run"
    config.write_text(yaml.safe_dump(tiny.document(seeds=2)), encoding="utf-8")
    plasticity.run(launch.load_config(config), run)
    return {"config": config, "run": run, "new": place / "new"}


def ran(words: list[str]) -> None:
    done = CliRunner().invoke(main.app, words)
    assert done.exit_code == 0, (words, done.exception, done.output[-500:])


def test_the_pages_have_commands() -> None:
    assert {"plasticity compare RUN_A RUN_B", "plasticity list", "make quickstart", "plasticity run configs/catch/agents.yaml"} <= set(ALL)  # noqa: E501 # fmt: skip
    assert set(TINY) | set(ELSEWHERE) <= set(ALL), "listed here, and on no page"


@pytest.mark.parametrize("command", [command for command in ALL if command not in ELSEWHERE])
def test_a_documented_command(command: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(bench.report, "BENCHMARKS", {"loop": Benchmark("nothing", lambda say, quick: [Row()])})
    program, *words = shlex.split(re.sub(r"[\[\]|]", " ", command))
    if command in TINY:
        for each in TINY[command]:
            ran([word.format(**places) for word in each.split()])
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif program == "plasticity" and words[0] == "bench":
        names = [word for word in words[1:] if word.islower() and not word.startswith("-")]
        monkeypatch.undo()
        assert set(names) <= set(bench.BENCHMARKS)
    elif program == "python":  # a script with options of its own
        text = (ROOT / words[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in text for word in words[1:] if word.startswith("--"))
    elif program == "chromium":
        assert "--headless" in command  # the page in a browser: test_report.py
    else:  # minutes or more
        assert (program, words[0]) == ("plasticity", "run"), f"{command}: say above how it is tested"
        launch.load_config(words[1], [word for word in words[2:] if "=" in word])


@pytest.mark.parametrize("target", ["quickstart", "smoke"])
def test_what_make_runs_is_a_config(target: str) -> None:
    (recipe,) = re.findall(
        rf"^{target}: install\n\t\$\(BIN\)/plasticity run (\S+)", (ROOT / "Makefile").read_text(), re.M
    )
    launch.load_config(ROOT / recipe)


def test_the_config_that_the_readme_explains() -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    document = yaml.safe_load(text) | {"recorders": []}  # tensorboard need not be installed
    launch.plan(plasticity.config.experiments.read_experiment(document, launch.registry()))


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    first, second = blocks(ROOT / "README.md", "python")
    changed = first.replace('["seeds=2"]', str(["seeds=2", *SHORT[:-1], "arms={baseline: {}, fresh: {task_aware: true, interventions: [{kind: reset, when: switch}]}}"]))  # noqa: E501 # fmt: skip
    changed = changed.replace('"runs/mine"', repr(str(tmp_path / "mine")))
    assert "stream.tasks=2" in changed
    assert "runs/mine" not in changed
    scope: dict[str, Any] = {}
    exec(compile(changed, "README.md", "exec"), scope)
    assert set(scope["run"].visits.arm) == {"baseline", "fresh"}
    exec(compile(second, "README.md", "exec"), scope)
    assert scope["parameter_noise"](scale=0.1).step is not scope["Intervention"]().step


@pytest.mark.parametrize("page", [page.name for page in PAGES if page.name not in ("README.md", "write-a-plugin.md")])
def test_other_pages_python_runs(page: str) -> None:
    for text in blocks(ROOT / "docs" / page, "python"):
        exec(compile(text, page, "exec"), {})


def functions(text: str) -> dict[str, list[str]]:
    """The arguments of each function by its name."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return {node.name: [each.arg for each in (*node.args.args, *node.args.kwonlyargs)] for node in found}


def test_the_plugin_pages_python_is_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are pieces of the package, which test_plugin.py runs, without annotations; the monitor runs here."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "examples/plugin/src").rglob("*.py")]
    known = {name: names for text in sources for name, names in functions(text).items()}
    heading, update, monitor = map(textwrap.dedent, blocks(ROOT / "docs/write-a-plugin.md", "python"))
    for text in (heading + "    ...", update, monitor):
        for name, names in functions(text).items():
            assert names == known[name], name
    monkeypatch.syspath_prepend(str(ROOT / "examples/plugin/src"))
    import plasticity_noise.monitors

    scope = vars(plasticity_noise.monitors) | {}
    exec(compile(monitor, "write-a-plugin.md", "exec"), scope)
    assert isinstance(scope["gradient_snr"](), Monitor)
