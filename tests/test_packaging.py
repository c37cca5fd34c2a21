"""The wheel and the source distribution, installed outside the checkout."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAPPED = ("agents", "configs", "envs")  # folders of the checkout that are packages within `plasticity`


def test_the_list_of_packages_is_complete():
    """setuptools cannot find packages whose location differs from their name, so they are listed."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("plasticity", *MAPPED)
        for path in (ROOT / top).rglob("__init__.py")
        if not any(folder.is_symlink() for folder in path.parents)
    }
    named = {name if name.startswith("plasticity") else f"plasticity.{name}" for name in found}
    data = {f"plasticity.{'.'.join(path.parent.relative_to(ROOT).parts)}" for path in ROOT.glob("configs/**/*.yaml")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == named | data


@pytest.mark.parametrize("name", MAPPED)
def test_links_and_mapping_agree(name: str):
    assert PROJECT["tool"]["setuptools"]["package-dir"][f"plasticity.{name}"] == name
    if os.name != "nt":  # Windows may have no links
        assert (ROOT / "plasticity" / name).resolve() == ROOT / name


def test_no_module_takes_a_name_that_others_may_have():
    """The only name in the global name space is `plasticity`."""
    packages = PROJECT["tool"]["setuptools"]["packages"]
    assert {name.partition(".")[0] for name in packages} == {"plasticity"}
    for folder in ("plasticity", *MAPPED, "tests", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    assert (node.module or "").partition(".")[0] not in ("envs", "configs"), path


def test_every_dependency_is_used_and_named():
    """A distribution that nothing imports holds others back."""
    wanted = {Requirement(text).name.lower() for text in PROJECT["project"]["dependencies"]}
    imported = set()
    for folder in ("plasticity", "agents", "envs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition(".")[0])
    names = {"pyyaml": "yaml", "scikit-learn": "sklearn", "ale-py": "ale_py"}
    assert {name for name in wanted if names.get(name, name) not in imported} == set()


@pytest.mark.parametrize(
    ("system", "machine", "required"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("linux", "ppc64le", False),
        ("darwin", "arm64", True),
        ("darwin", "x86_64", False),
        ("win32", "AMD64", True),
        ("win32", "ARM64", False),
    ],
)
def test_envpool_is_required_where_it_has_wheels(system: str, machine: str, required: bool):
    wanted = {each.name: each.marker for each in map(Requirement, PROJECT["project"]["dependencies"])}
    assert [name for name, marker in wanted.items() if marker] == ["envpool"]
    assert wanted["envpool"].evaluate({"sys_platform": system, "platform_machine": machine}) == required


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution of a clean copy of the checkout, and the wheel that is built from it."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package `build` is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    place = tmp_path_factory.mktemp("dist")
    clean = place / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clean)], check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(clean)]
    subprocess.run(command, check=True, capture_output=True)
    return {"sdist": next(place.glob("*.tar.gz")), "wheel": next(place.glob("*.whl"))}


@pytest.mark.slow
def test_wheel_and_source_distribution_hold_everything(built: dict[str, Path]):
    wheel = set(zipfile.ZipFile(built["wheel"]).namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for top in ("plasticity", *MAPPED)
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".yaml", ".json", ".html", ".css", ".js") or path.name == "py.typed"
        if not any(folder.is_symlink() for folder in path.parents)
    }
    named = {name if name.startswith("plasticity/") else f"plasticity/{name}" for name in sources}
    assert named == {name for name in wheel if name.startswith("plasticity/")}
    with tarfile.open(built["sdist"]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert sources <= held
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert tests <= held
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile"} <= held


def environment(place: Path) -> tuple[Path, Path]:
    """A new environment with the packages of this one after its own: its Python and its folder of packages."""
    venv.create(place, with_pip=False)
    scheme = {"base": str(place), "platbase": str(place)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / ("Scripts" if os.name == "nt" else "bin") / "python", site


def installed(what: Path, site: Path) -> None:
    words = ["--quiet", "install", "--no-deps", "--no-build-isolation", "--target", str(site), str(what)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)


@pytest.mark.slow
def test_an_unpacked_source_distribution_runs_and_passes_its_tests(built: dict[str, Path], tmp_path: Path):
    with tarfile.open(built["sdist"]) as archive:
        links = {member.name.partition("/")[2]: member.linkname for member in archive if member.issym()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert links == {f"plasticity/{name}": f"../{name}" for name in MAPPED}
    folder = next((tmp_path / "unpacked").iterdir())
    python, site = environment(tmp_path / "environment")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def ran(*words: str, within: Path = folder) -> str:
        run = [str(python), "-m", *words]
        done = subprocess.run(run, cwd=within, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    assert "stream_q" in ran("plasticity", "list", "agents")
    quick = [f"tests/test_{name}.py" for name in ("packaging", "shipped", "layers", "completion", "pages")]
    ran("pytest", "-q", "-m", "not slow", *quick)
    installed(folder, site)
    assert "stream_q" in ran("plasticity", "list", "agents", within=tmp_path)
    ran("pytest", "-q", "-m", "not slow", *quick)


@pytest.mark.slow
def test_an_installed_wheel_works_anywhere(built: dict[str, Path], tmp_path: Path, program_cache: Path):
    """In an environment of its own, beside a distribution that owns the name `agents`."""
    python, site = environment(tmp_path / "environment")
    installed(built["wheel"], site)
    (site / "agents").mkdir()
    (site / "agents" / "__init__.py").write_text("raise RuntimeError('the package of somebody else')\n")
    variables = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(program_cache)}
    variables.pop("PYTHONPATH", None)

    def said(*words: str) -> str:
        run = [str(python), "-m", "plasticity", *words]
        done = subprocess.run(run, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [str(python), "-c", "import plasticity, plasticity.agents as a; print(plasticity.__file__, a.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
    assert all(Path(path).is_relative_to(site) for path in found.split())
    assert "stream_q" in said("list", "agents")
    assert "atari/smoke" in said("list", "configs")
    assert json.loads(said("schema"))["title"] == "a config of plasticity"
    assert "baseline" in said("run", "quickstart", "stream.tasks=2", "stream.steps_per_task=50", "seeds=1")
    assert (tmp_path / "runs/quickstart/figures/performance.png").exists()
    assert "F" in said("findings", "--list")
