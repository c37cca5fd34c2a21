"""The site of docs/: it builds without warnings and loads nothing from elsewhere; the JSON schema of a config."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from plasticity.cli import main as cli
from plasticity.config import shipped
from plasticity.config.documents import read_file
from plasticity.config.programs import programs
from plasticity.core.errors import UserError
from plasticity.runs import launch
from plasticity.runs.shards import cut, parse, parse_number

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_nothing_is_fetched_when_a_page_is_read(site: Path):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(\S+)", text)
        loaded += re.findall(r"<link(?![^>]*rel=\"?(?:canonical|prev|next))[^>]*\shref=\"?(\S+)", text)
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("page", ["index.html", "howto/gpu.html"])
def test_the_search_works_in_a_page_opened_as_a_file(page: str, site: Path, tmp_path: Path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    command = [str(BROWSER), *options, "--virtual-time-budget=10000", f"{(site / page).as_uri()}?q=hare_tortoise"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = set(re.findall(r'<a href="([^"?]*)[^"]*" class="md-search-result__link"', done.stdout))
    assert (site / "interventions.html").as_uri() in found, done.stderr[-500:]


def test_the_search_has_its_index_as_a_script(site: Path):
    assert (site / "search/search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    assert "../javascripts/iframe-worker.js" in (site / "howto/gpu.html").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation_and_every_snippet_in_its_page(site: Path):
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    hidden = {path for path in pages if path.parts[0] == "findings" or ".template" in path.name}
    assert {path for path in pages - hidden if not (site / path).exists()} == set()
    for page in DOCS.rglob("*.md"):
        for name in re.findall(r'--8<-- "(.+)"', page.read_text(encoding="utf-8")):
            shown = (site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
            word = max(re.findall(r"\w+", (ROOT / name).read_text(encoding="utf-8")), key=len)
            assert word in shown, f"{page}: {name}"


def test_a_link_out_of_the_site_is_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(DOCS))
    hooks = __import__("site_hooks")

    class Page:
        class file:  # noqa: N801
            src_uri = "howto/agent.md"

    text = "[a](../../examples/agent), [b](../faq.md#x), [c](monitor.md), ![d](../figures/x.png), [e](#f)"
    shown = hooks.on_page_markdown(text, page=Page())
    assert shown == text.replace("[a](../../examples/agent)", "a")
    sys.modules.pop("site_hooks")


def test_the_reference_lists_the_flags_that_the_command_line_has():
    text = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## plasticity ")[1:])
    group: Any = typer.main.get_command(cli.app)
    assert list(sections) == list(group.commands)
    for name, command in group.commands.items():
        options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
        flags = {flag for each in options for flag in (*each.opts, *each.secondary_opts)}
        rows = [line.split("|")[1] for line in sections[name].splitlines() if line.startswith("| `--")]
        assert {flag for row in rows for flag in re.findall(r"--[a-z-]+", row)} == flags, name
    assert "| `--figures/--no-figures` | `--figures` | draw the figures at the end |" in sections["run"]
    assert "| `--list` |  | print saved results; run nothing |" in sections["findings"]


# The schema.


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(shipped.schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def experiments(found: Mapping[str, Any]) -> list[Any]:
    if "finding" not in found:
        return [found]
    return [found["experiment"]] if "experiment" in found else []


EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*/experiment.yaml") if path.parent.name == "gymnasium")


@pytest.mark.parametrize("path", [*shipped.configs().values(), *EXAMPLES], ids=lambda path: path.stem)
def test_every_config_fits_the_schema(path: Path, validator: Any):
    for found in experiments(read_file(path)):
        errors = [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(found)]
        assert errors == []


GOOD = {"stream": {"kind": "catch"}, "agent": "dqn"}
ALSO_GOOD: list[Any] = [
    {},
    {"arms": {"a": {"agent": {"network": {"widths": [3]}}}, "b": None}},
    {"sweep": {"agent.optimizer.learning_rate": [1.0e-3]}, "seeds": [3, 4]},
    {"sweep": {"points": [{"agent.optimizer.learning_rate": 1.0e-3}]}, "arms": {"a": {"sweep": {"points": None}}}},
    {"monitors": ["weight_norm", {"kind": "ntk", "every": "visit"}]},
    {"agent": {"kind": "dqn", "optimizer": {"kind": "sgd", "max_gradient_norm": None}}},
]
BAD: list[Any] = [
    {"agent": "dqm"},
    {"stream": {"kind": "catch", "tasks": 0}},
    {"stream": {"kind": "catch", "task": 3}},
    {"stream": {"kind": "minatar"}},
    {"seeds": 0},
    {"seed": 1},
    {"task_aware": 1},
    {"agent": {"kind": "dqn", "network": {"kind": "mlp", "widths": [0]}}},
    {"agent": {"kind": "dqn", "network": {"activation": "relo"}}},
    {"agent": {"kind": "dqn", "discount": 1.0}},
    {"agent": {"network": "mlp"}},
    {"arms": {"a b": {}}},
    {"arms": {"a": {"interventions": ["dropuot"]}}},
    {"sweep": {"stream.tasks": [1]}},
    {"sweep": {"points": [{"stream.tasks": 1}]}},
    {"monitors": [{"kind": "ntk", "every": 0}]},
    {"schedule": {"cycles": 0}},
    {"evaluation": {"epsilon": 2}},
    {"recorders": ["tensorbord"]},
]


@pytest.mark.parametrize("change", ALSO_GOOD)
def test_what_is_read_fits(change: Any, validator: Any):
    document = {**GOOD, **change}
    launch.experiment_of(document)
    assert validator.is_valid(document)


@pytest.mark.parametrize("change", BAD)
def test_what_is_refused_does_not_fit(change: Any, validator: Any):
    document = {**GOOD, **change}
    with pytest.raises(UserError):
        launch.experiment_of(document)
    assert not validator.is_valid(document)


# The scripts for a cluster, with doubles of the programs that they call.


def script(name: str, place: Path, body: str) -> subprocess.CompletedProcess[str]:
    programs = place / "bin"
    programs.mkdir()
    for program, text in {"plasticity": body, "scontrol": 'echo "$@" >> requeued'}.items():
        (programs / program).write_text(f"#!/bin/bash\n{text}\n")
        (programs / program).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    command = ["bash", str(ROOT / "examples/cluster" / name)]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_job_that_is_stopped_asks_for_the_next_turn(tmp_path: Path):
    waits = (
        "trap 'exit 138' USR1\necho \"$@\" > called\nsleep 0.3\nkill -USR1 $PPID\nfor i in {1..100}; do sleep 0.1; done"
    )
    assert script("requeue.sbatch", tmp_path, waits).returncode == 138
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
    assert (tmp_path / "called").read_text().split()[-1] == "--resume"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("code", [0, 2])
def test_a_job_that_ends_does_not(code: int, tmp_path: Path):
    assert script("requeue.sbatch", tmp_path, f"exit {code}").returncode == code
    assert not (tmp_path / "requeued").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_job_of_an_array_runs_its_shard(tmp_path: Path):
    assert script("array.sbatch", tmp_path, 'printf "%s\\n" "$@" > called').returncode == 0
    words = (tmp_path / "called").read_text().splitlines()
    asked = programs(launch.load_config(ROOT / words[1]))
    assert words[2:] == ["--out", "runs/array", "--split", "seeds=2", "--shard", "3/4"]
    found = cut(asked, parse(words[5]))
    number, _ = parse_number(words[7], len(found))
    assert {seed for each in found[number - 1].of(asked) for seed in each.seeds.tolist()} == {4, 5}
