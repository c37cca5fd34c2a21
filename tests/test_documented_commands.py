"""Every command and every piece of Python in README.md and the pages of docs/ does what the page says it does.

Commands with names in capitals run on a tiny experiment. Of a command that takes minutes the config is read with its
overrides. A command that is in neither list below fails the test, so that a new one cannot go untested.
"""

import ast
import importlib.util
import pickle
import pkgutil
import re
import shlex
import tarfile
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import synthetic_run as made
import tiny
import yaml
from matplotlib.colors import to_rgb
from test_examples import MEMBERS
from typer.testing import CliRunner

import plasticity
from plasticity import bench, plots, results
from plasticity.bench.report import Benchmark
from plasticity.cli import main
from plasticity.envs.dataset import dataset
from plasticity.monitors.base import Monitor
from plasticity.runs import launch

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MADE = ("findings", "reference")  # folders of pages that others are made of, or that are generated
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if ".template" not in path.name and path.parent.name not in MADE),
]
PROGRAMS = ("plasticity", "make", "pip", "python", "chromium")
SHORT = ["stream.tasks=2", "stream.steps_per_task=20", "monitor_every=10", "stream.envs=4", "seeds=1"]

# Replacements for the names in capitals; {run} is a finished run.
TINY = {
    "plasticity run": ["run --help"],
    "plasticity run CONFIG [KEY=VALUE ...] [--out DIR] [--resume | --force] [--no-figures]": [
        "run {config} --out {run} --force --no-figures"
    ],
    "plasticity run CONFIG --out DIR --resume": ["run {config} --out {run} --resume"],
    "plasticity run CONFIG --out DIR --split seeds=4 --shard 3/8": [
        "run {config} seeds=8 --out {new}_shards --split seeds=1 --shard 3/8"
    ],
    "plasticity launch CONFIG --out DIR --cancel": [
        "launch {config} --out {new}_cancel --split seeds=1 --print",
        "launch {config} --out {new}_cancel --cancel",
    ],
    "plasticity launch CONFIG --out DIR --split seeds=4 --print | parallel --jobs 4": [
        "launch {config} --out {new}_print --split seeds=1 --print"
    ],
    "plasticity plan CONFIG [KEY=VALUE ...]": ["plan {config} seeds=2"],
    "plasticity plan": ["plan {config}"],
    "plasticity list": ["list"],
    "plasticity list networks": ["list networks"],
    "plasticity list [FAMILY [NAME]]": ["list monitors", "list agents ppo"],
    "plasticity list agents NAME": ["list agents ppo"],
    "plasticity list streams NAME": ["list streams catch"],
    "plasticity list interventions nap": ["list interventions nap"],
    "plasticity watch RUN [--once]": ["watch {run} --once"],
    "plasticity plot RUN [RUN ...] [--out DIR]": ["plot {run} {run} --out {new}"],
    "plasticity plot RUN --arms fresh,layer_norm --label layer_norm=LayerNorm --size 3.4x2.6 --figures performance": [
        "plot {run} --arms baseline --label baseline=A --size 3.4x2.6 --figures performance --smooth 3 --out {new}"
    ],
    "plasticity plot RUN --x flops": ["plot {run} --x flops --figures learning_curve --out {new}"],
    "plasticity report RUN [RUN ...] [--out FILE]": ["report {run} {run} --out {new}.html"],
    "plasticity report runs/quickstart": ["report {run}"],
    "plasticity plan CONFIG": ["plan {config}"],
    "plasticity plan CONFIG --calibrate": ["plan {config} --calibrate"],
    "plasticity watch RUN": ["watch {run}"],
    "plasticity watch runs/tour": ["watch {run}"],
    "plasticity report runs/tour": ["report {run}"],
    "plasticity measure runs/tour --monitors stable_rank,dead_units": [
        "measure {run} --monitors stable_rank,dead_units --force"
    ],
    "plasticity compare runs/tour runs/smaller": ["compare {run} {run}"],
    "plasticity plan quickstart": ["plan quickstart"],
    "plasticity run quickstart": ["run {config} --out {run} --force --no-figures"],
    "plasticity schema": ["schema"],
    "plasticity --version": ["--version"],
    "plasticity list interventions": ["list interventions"],
    "plasticity list interventions layer_norm": ["list interventions layer_norm"],
    "plasticity plan configs/tutorial/minatar.yaml": ["plan configs/tutorial/minatar.yaml"],
    "plasticity plan configs/atari/sequence10.yaml": ["plan configs/atari/sequence10.yaml"],
    "plasticity plot runs/tutorial": ["plot {run}"],
    "plasticity report runs/tutorial": ["report {run}"],
    "plasticity compare runs/tutorial runs/tutorial-full": ["compare {run} {run}"],
    "plasticity compare": ["compare {run} {run}"],
    "plasticity compare RUN_A RUN_B": ["compare {run} {run}"],
    "plasticity measure RUN --monitors A,B": ["measure {run} --monitors weight_norm,stable_rank --force"],
    "plasticity fork RUN --at N[,N...]": ["fork {run} --at 2,3 --print"],
    "plasticity fork RUN --at N --split seeds=1": ["fork {run} --at 3 --split seeds=1 --out {new}_fork --no-figures"],
    "plasticity fork ... --print": ["fork {run} --at 3 --print"],
    "plasticity bench [NAME ...]": ["bench overhead", "bench"],
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
    "plasticity launch CONFIG --out DIR --split seeds=4 --slurm partition=gpu,gres=gpu:1,time=4:00:00": "test_cluster",
    "plasticity launch CONFIG --out DIR --profile gpu": "test_cluster",
    "plasticity launch CONFIG --slurm OPTIONS": "test_cluster",
    "plasticity merge DIR OTHER_DIR ANOTHER_DIR": "test_shards.py",
    "plasticity merge RUN OTHER [OTHER ...]": "test_shards.py",
    "pip install 'plasticity-lab[slurm]'": "needs the network",
    "pip install ./examples/plugin": "test_plugin.py installs it",
    "plasticity list interventions gradient_noise": "test_plugin.py, with the plug-in installed",
    "plasticity run examples/plugin/noise.yaml": "test_plugin.py, with the plug-in installed",
    "plasticity run atari/smoke": "test_atari_run.py runs a shorter one",
    "pip install plasticity-lab": "test_packaging.py installs the wheel",
    'pip install "plasticity-lab[cuda]"': "needs a GPU's libraries from the network",
    "pip install -e '.[cuda]'": "needs a GPU's libraries from the network",
    "python -m plasticity.bench.gpu --out gpu.json": "test_gpu_check.py",
    "plasticity run configs/targets/NAME.yaml": "each of them is read below",
    "pip install -e .": "what the tests run in",
    "pip install .": "test_packaging.py installs the wheel, which is what it makes",
    'pip install "plasticity-lab[tensorboard,wandb]"': "needs the network",
    'pip install "plasticity-lab[search]"': "needs the network",
    "plasticity run mine.yaml": "test_the_page_on_own_data",
    "plasticity run table.yaml": "test_the_page_on_own_data",
    "plasticity run measured.yaml": "test_the_page_on_own_data",
    "plasticity run goals.yaml": "test_the_page_on_learning_offline",
    **{f"plasticity dataset runs/offline-record --visit {i} --out goal_{i}.npz": "the same" for i in range(2)},
    "plasticity dataset RUN --out FILE": "test_the_page_on_learning_offline",
    "plasticity dataset": "a heading, and the name of the command",
    "plasticity measure": "the name of the command",
    "plasticity launch": "the name of the command",
    "plasticity measure early.npz late.npz --network dqn_atari.yaml --observations batch.npz "
    "--mapping dqn_atari_mapping.yaml --monitors srank,dormant_units,weight_norm --out history.csv": "test_measure_parameters.py",  # noqa: E501
    "plasticity findings mine.yaml": "test_findings_page.py",
    "plasticity run streams/probes --out runs/base": "test_small_configs.py",
    "plasticity fork runs/base --at 1,8 schedule.skip=9 schedule.take=1": "test_forks.py, with a smaller run",
    "plasticity report RUN/probes/NAME": "a run like any other",
    "plasticity run ... --resume": "test_forks.py",
    "plasticity run experiment.yaml": "test_examples.py, in the folder of the example",
    "python examples/mining/mine_activations.py --out runs/mining": "test_examples.py, a tiny search",
    **{f"pip install ./examples/{kind}": "test_examples.py installs them" for kind in MEMBERS},
    **{f"plasticity list {kind}s {name}": "test_examples.py" for kind, name in MEMBERS.items()},
    **{f"plasticity run examples/{kind}/experiment.yaml": "test_examples.py" for kind in MEMBERS},
}


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [SNIPPET.sub(included, text) for language, text in found if language in languages]


SNIPPET = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)


def included(found: re.Match[str]) -> str:
    """The file that a page shows; the scripts of a cluster, which test_site.py runs, stay out."""
    return "" if found[1].endswith(".sbatch") else (ROOT / found[1]).read_text(encoding="utf-8")


def normal(line: str) -> str:
    """A command without its path, comment, explanation and surplus blanks."""
    line = re.sub(r"\s+#.*|\s{2,}[a-z0-9].*", "", line.strip().removeprefix(".venv/bin/"))
    return " ".join(line.split())


def commands(page: Path) -> list[str]:
    joined = (re.sub(r"\s*\\\n\s*", " ", block) for block in blocks(page, "", "sh", "bash", "console"))
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
    monkeypatch.setattr(bench.report, "BENCHMARKS", {"overhead": Benchmark("nothing", lambda say, quick: [Row()])})
    program, *words = shlex.split(command if '"' in command else re.sub(r"[\[\]|]", " ", command))
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


OWN_TESTS = ("README.md", "write-a-plugin.md", "analyse.md", "retention.md", "tutorial.md", "data.md", "offline.md")


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES if page.name not in OWN_TESTS])
def test_other_pages_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    executed(ROOT / page)


def executed(page: Path) -> dict[str, Any]:
    """The page's Python, block after block; what it defined."""
    scope: dict[str, Any] = {"__name__": page.stem}
    try:
        for text in blocks(page, "python"):
            if "import equinox" in text and importlib.util.find_spec("equinox") is None:
                continue  # not a dependency
            if "plasticity.search(" in text and importlib.util.find_spec("optuna") is None:
                continue  # an extra
            exec(compile(text, page.name, "exec"), scope)
    finally:
        gymnasium.registry.pop("Corridor-v0", None)
    return scope


@pytest.mark.slow
def test_the_page_on_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    executed(DOCS / "howto/data.md")
    texts = {yaml.safe_load(text)["name"]: text for text in blocks(DOCS / "howto/data.md", "yaml")}
    assert list(texts) == ["mine", "cifar", "in-time", "table", "measured"]
    del texts["cifar"]
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        named = name == "in-time"  # its tasks are the data sets that it names
        run = plasticity.run(f"{name}.yaml", overrides=["stream.steps_per_task=10", *["stream.tasks=2"] * (not named)])
        assert [each["path"] for each in run.plan["data"]] == [str(tmp_path / f"{'mine' if named else name}.npz")]


@pytest.mark.slow
def test_the_page_on_learning_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands in their order, at a tiny size: a run, two datasets of its replay, learning from them."""
    page, tiny_run = DOCS / "howto/offline.md", ["stream.steps_per_task=200", "agent.replay.minimum=50"]
    (text,) = blocks(page, "yaml")
    (tmp_path / "goals.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    small = ["stream.steps_per_task=20", "record_every=10", "seeds=2", "probe_size=32"]
    small += ["evaluation={every: visit, tasks: all, episodes: 8, steps: 40}"]
    for line in commands_in_order(page)[1:]:
        _, verb, *words = shlex.split(line)
        changes = {"record.yaml": [*tiny_run, "record_every=100"], "goals.yaml": small}
        if words[0] == "goals.yaml":
            ran(["plan", *words])  # as the page has it
        ran([verb, *words, *(changes[Path(words[0]).name] if verb == "run" else [])])
    found = executed(page)["evaluations"]
    assert set(found["evaluated_task"]) == {"goal_0", "goal_1"}
    assert set(found["arm"]) == {"cql", "without_penalty", "fresh"}
    assert found["episodic_return"].dropna().between(0, 1).all()
    assert dataset(paths=["own.npz"]).spec.actions == 3


@pytest.mark.slow
def test_the_page_on_own_data_runs_on_files_like_those_of_cifar(tmp_path: Path) -> None:
    text = next(text for text in blocks(DOCS / "howto/data.md", "yaml") if "name: cifar" in text)
    (tmp_path / "cifar.yaml").write_text(text, encoding="utf-8")
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3072), dtype=np.uint8)
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"fine_labels": list(range(100))}, 2))
    archive = tmp_path / Path(yaml.safe_load(text)["stream"]["path"]).name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    tiny_size = ["stream.epochs=1", "stream.envs=10", "stream.classes_per_task=50", "agent.network.widths=[8]"]
    overrides = [f"stream.path={archive}", *tiny_size, "evaluation.steps=2", "seeds=1"]
    run = plasticity.run(tmp_path / "cifar.yaml", tmp_path / "run", overrides=overrides)
    assert [each["path"] for each in run.plan["data"]] == [str(archive)]
    assert run.evaluations["step"].tolist() == [50, 150]
    assert run.evaluations["reward"].between(0, 1).all()


@pytest.mark.slow
def test_the_page_on_analysis_runs_and_names_every_public_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = DOCS / "howto/analyse.md"
    code = "".join(blocks(page, "python"))
    assert [name for name in results.__all__ if not re.search(rf"\bresults\.{name}\b", code)] == []
    first, second = (shlex.split(line)[2:] for line in commands_in_order(page) if line.startswith("plasticity run"))
    tiny_size = ["stream.steps_per_task=20", "evaluation.steps=5", "agent.network.widths=[8]", "record_every=5"]
    tiny_size.append("evaluation.every=10")
    config, other = str(ROOT / first[0]), [word for word in second if word.startswith("seeds=")]
    monkeypatch.chdir(tmp_path)
    plasticity.run(config, "runs/analyse", overrides=tiny_size)
    plasticity.run(config, second[second.index("--out") + 1], overrides=[*tiny_size, *other])
    executed(page)
    assert "Accuracy at the end." in (tmp_path / "tables/summary.tex").read_text()


@pytest.mark.slow
def test_the_page_on_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_size = [
        "stream.steps_per_task=20",
        "evaluation={every: 10, tasks: all, steps: 5}",
        "record_every=5",
        "seeds=2",
    ]
    plasticity.run(str(ROOT / "configs/tutorial/retention.yaml"), "runs/retention", overrides=tiny_size)
    found = executed(DOCS / "howto/retention.md")
    assert found["numbers"].curves == "evaluations"
    assert list(found["modules"].overall["arm"]) == ["baseline", "torso"]


def commands_in_order(page: Path) -> list[str]:
    """The lines of a page's commands, continued ones joined."""
    joined = (block.replace("\\\n", " ") for block in blocks(page, ""))
    return [" ".join(line.split()) for block in joined for line in block.splitlines()]


@pytest.mark.slow
def test_the_tutorial_from_its_first_command_to_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its commands in their order, in an empty folder, each run at a tiny size."""
    page = DOCS / "tutorial.md"
    small = ["stream.steps_per_visit=400", "stream.cycles=2", "seeds=2", "agent.replay.minimum=50", "probe_size=32"]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for line in commands_in_order(page):
        program, verb, *words = shlex.split(line)
        assert program == "plasticity"
        ran([verb, *words, *(small if verb == "run" else [])])
    executed(page)
    table = (tmp_path / "tables/tutorial.tex").read_text()
    assert table.count(r"\\") == 6  # the heading and five arms
    assert (tmp_path / "figures/tutorial.pdf").exists()
    assert (tmp_path / "tables/by_game.csv").exists()


def test_the_tutorials_figure_has_a_panel_for_each_game_bounds_and_grey_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ["baseline", "layer_norm", "fresh", "stream_q", "fresh_stream_q"]
    plan = made.plan(arms, tasks=["breakout", "asterix"], visits=[(k % 2, 20) for k in range(4)], episodic=True)
    plan["stream"]["reward_range"] = [0.0, None]
    for entry in plan["arms"]:
        entry["control"] = {"stream_q": "fresh_stream_q"}.get(entry["name"], "fresh")
    returns, ones = [[0.0] * 4, [10.0] * 4], [[1.0] * 4] * 2  # the intervals of two such seeds reach far below 0
    made.write(
        tmp_path / "runs/tutorial",
        plan,
        {arm: made.lane_table([0, 1]) for arm in arms},
        {arm: made.records(arm, plan, [0, 1], every=20, rewards=ones, returns=returns, episodes=ones) for arm in arms},
    )
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(blocks(DOCS / "tutorial.md", "python")[-1], "tutorial.md", "exec"), scope)
    panels = scope["figure"].axes
    assert [axes.get_title() for axes in panels] == ["breakout", "asterix"]
    bands = [band.get_paths()[0].vertices[:, 1] for axes in panels for band in axes.collections]
    assert bands
    assert min(values.min() for values in bands) == 0.0
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    greys = [name for name, line in lines.items() if len(set(to_rgb(line.get_color()))) == 1 and name in arms]
    assert greys == ["fresh", "fresh_stream_q"]
    assert {"layer norm", "Stream Q"} <= set(lines)


@pytest.mark.slow
def test_the_tours_commands_from_plan_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["stream.tasks=2", "stream.steps_per_task=20", "seeds=2", "monitors=[effective_rank]"]
    monkeypatch.chdir(tmp_path)
    for line in commands_in_order(DOCS / "tour.md"):
        program, verb, *words = shlex.split(line)
        if program == "plasticity":
            ran([verb, *words, *(small if verb == "run" else [])])
    assert (tmp_path / "runs/tour/report.html").exists()


def public_names() -> list[str]:
    """Every dotted name of the section "Public API", and "`a` of `b.c`" as ``b.c.a``."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Public API")[2].partition("\n## ")[0]
    text = " ".join(section.split())
    dotted = re.findall(r"`(plasticity(?:\.\w+)+)`", text)
    parts = [f"{module}.{name}" for name, module in re.findall(r"`(\w+)` of `([\w.]+)`", text)]
    of_package = re.search(r"`plasticity\.__all__`: (.*?);", text)
    assert of_package
    return [*dotted, *parts, *(f"plasticity.{name}" for name in re.findall(r"`(\w+)`", of_package[1]))]


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_exists(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None


def test_public_names_are_found_and_those_of_all_exist() -> None:
    assert {"plasticity.run", "plasticity.config.fields.metadata", "plasticity.networks.spec.NetworkSpec"} <= set(
        public_names()
    )
    for module in (plasticity, results, plots):
        assert all(hasattr(module, name) for name in module.__all__)


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
