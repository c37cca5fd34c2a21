"""Allowed imports and file access of each package, parsed from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Bottom up: a package imports packages of lower lines only, and the modules of one package order themselves.
ORDER = (
    "core version",
    "config",
    "networks optim",
    "interventions monitors envs",
    "agents engine",
    "runs",
    "results",
    "plots",
    "report bench findings",
    "cli",
    "__main__",
)
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages.split()}
READERS = ("results", "plots", "report")  # of a run's files: they recompute nothing
# What readers use besides each other.
READ_WITH = {
    "plasticity.core.errors", "plasticity.config.documents", "plasticity.config.renamed", "plasticity.runs.accounts",
    "plasticity.runs.checksums",
    "plasticity.runs.selection",
    "plasticity.config.tuning",
    "plasticity.runs.files",
}  # fmt: skip

MAY_TOUCH_FILES = {
    "plasticity.runs.files", "plasticity.runs.lock", "plasticity.cli.display",
    "plasticity.runs.checksums", "plasticity.runs.accounts", "plasticity.runs.verify",
    "plasticity.runs.parquet", "plasticity.runs.checkpoint", "plasticity.runs.folder",
    "plasticity.runs.session", "plasticity.runs.speeds", "plasticity.config.documents", "plasticity.config.shipped",
    "plasticity.runs.compilation", "plasticity.runs.merging", "plasticity.runs.cluster", "plasticity.runs.queue",
    "plasticity.runs.slurm", "plasticity.runs.transitions", "plasticity.runs.turns", "plasticity.runs.local",
    "plasticity.runs.parameter_files",
    "plasticity.runs.trackers", "plasticity.runs.search", "plasticity.runs.tuning", "plasticity.runs.selection",
    "plasticity.cli.listing", "plasticity.cli.measuring",
    "plasticity.plots.save", "plasticity.bench.report", "plasticity.envs.data", "plasticity.envs.pools",
    "plasticity.envs.cifar", "plasticity.envs.recorded",
    "plasticity.results.read", "plasticity.results.stored", "plasticity.results.export",
    "plasticity.cli.watch", "plasticity.report.facts", "plasticity.report.page",
    "plasticity.findings.store", "plasticity.bench.gpu.conductor", "plasticity.bench.gpu.real",
    "plasticity.bench.gpu.suite", "plasticity.bench.overhead.comparison",
}  # fmt: skip
FILE_CALLS = {
    "open", "fsync", "mkdir", "unlink", "rmtree", "rmdir", "rename", "touch", "glob", "rglob", "iterdir", "exists",
    "read_text", "write_text", "read_bytes", "write_bytes", "read_table", "write_table", "read_csv", "to_csv",
    "read_parquet", "to_parquet", "savefig", "savez", "fromfile", "tofile", "symlink_to", "copytree",
}  # fmt: skip
USES_BOTH = (  # agents or envs
    "plasticity.runs.members", "plasticity.runs.jobs", "plasticity.runs.sources", "plasticity.runs.transitions",
    "plasticity.runs.described_network", "plasticity.bench.streams",
    "plasticity.bench.stream_rates", "plasticity.bench.overhead.world", "plasticity.findings.exact",
)  # fmt: skip
FILE_MODULES = {"shutil", "tempfile", "pickle", "gzip", "zipfile", "pyarrow", "sqlite3", "h5py"}


def module_name(path: Path) -> str:
    """``agents/dqn.py`` -> ``plasticity.agents.dqn``."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("plasticity") else f"plasticity.{name}"


SOURCES = {
    module_name(path): path
    for top in ("plasticity", "agents", "envs")
    for path in (ROOT / top).rglob("*.py")
    if not any(folder.is_symlink() for folder in path.parents)
}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Modules that a module imports, and whether only for type annotations."""
    typing_only = {
        id(node)
        for guard in ast.walk(TREES[module])
        if isinstance(guard, ast.If) and isinstance(guard.test, ast.Name) and guard.test.id == "TYPE_CHECKING"
        for node in ast.walk(guard)
    }
    for node in ast.walk(TREES[module]):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in SOURCES else str(node.module) for name in names]
        for name in names:
            yield name, id(node) in typing_only


def package(module: str) -> str:
    """``plasticity.interventions.resets`` -> ``interventions``."""
    return module.partition(".")[2].partition(".")[0]


def ours(module: str) -> list[tuple[str, bool]]:
    """Imports from other packages of this project."""
    found = [(name, typing) for name, typing in imports(module) if name.split(".")[0] == "plasticity"]
    return [(name, typing) for name, typing in found if package(name) != package(module)]


def foreign(module: str) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(module)}


def test_every_package_has_its_place():
    assert {package(module) for module in SOURCES} - {""} == set(LEVEL)


def test_every_package_says_what_lives_there():
    for name in LEVEL:
        if name not in ("__main__", "version"):
            assert len(ast.get_docstring(TREES[f"plasticity.{name}"]) or "") > 60, name


def test_imports_point_down():
    for module in SOURCES:
        for name, typing in ours(module) if module != "plasticity" else ():
            if not typing:
                assert LEVEL[package(name)] < LEVEL[package(module)], f"{module} imports {name}"


def test_no_module_imports_itself_in_a_circle():
    below = {name: {each for each, typing in imports(name) if each in SOURCES and not typing} for name in SOURCES}
    while below:  # take away what imports nothing that is left
        free = {name for name, needed in below.items() if not needed & set(below)}
        assert free, f"a circle among {sorted(below)}"
        below = {name: needed for name, needed in below.items() if name not in free}


def test_readers_of_runs_compute_nothing():
    for module in SOURCES:
        here = package(module)
        for name, _ in ours(module):
            if here in READERS:
                assert name in READ_WITH or package(name) in READERS, f"{module} imports {name}"


def test_the_package_itself_imports_the_launcher_only_when_it_is_used():
    assert {name for name, _ in ours("plasticity")} == {
        "plasticity.runs.launch", "plasticity.runs.search", "plasticity.runs.session", "plasticity.results",
        "plasticity.version",
        "plasticity.config.experiments", "plasticity.core.errors",
    }  # fmt: skip
    first = [node for node in TREES["plasticity"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {ast.unparse(node).split()[1] for node in first}
    assert modules == {"collections.abc", "pathlib", "typing", "plasticity.version", "plasticity.core.errors"}


def test_agents_and_envs_know_nothing_of_each_other():
    for module in SOURCES:
        used = {package(name) for name, _ in ours(module)}
        if package(module) == "agents":
            assert "envs" not in used, module
        elif package(module) == "envs":
            assert "agents" not in used, module
        elif used & {"agents", "envs"}:
            assert module in USES_BOTH, module


def test_methods_know_no_agent_and_agents_no_method():
    for module in SOURCES:
        names = {name for name, _ in ours(module)}
        if package(module) == "agents":
            methods = {name for name in names if package(name) in ("interventions", "monitors")}
            assert methods <= {"plasticity.interventions.base"}, module
        if package(module) in ("interventions", "monitors"):
            assert not {name for name in names if package(name) in ("agents", "envs", "engine")}, module


def file_calls(module: str) -> list[str]:
    calls = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)]
    names = [getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls]
    return [f"{name} in line {call.lineno}" for name, call in zip(names, calls, strict=True) if name in FILE_CALLS]


def test_only_a_few_modules_touch_files():
    for module in SOURCES:
        touches = file_calls(module) or foreign(module) & FILE_MODULES
        assert bool(touches) == (module in MAY_TOUCH_FILES), f"{module}: {touches}"


def test_no_private_part_of_jax_is_used():
    for module in SOURCES:
        assert not [name for name, _ in imports(module) if name.startswith("jax._src")], module


def test_results_plots_and_help_need_no_jax():
    """JAX takes seconds to import, so only code that computes imports it."""
    modules = "sys, plasticity, plasticity.results, plasticity.plots, plasticity.cli.main"
    check = f"import {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_starting_needs_no_rlax():
    """It takes as long to import as JAX; agents import it at their first use, which may be inside a trace."""
    check = """
import sys
import jax, jax.numpy as jnp
import plasticity.runs.launch
assert "rlax" not in sys.modules
from plasticity.agents.value_based import error_loss
jax.eval_shape(lambda x: error_loss(x, 1.0), jnp.ones(2))
assert error_loss(jnp.array([0.5, 3.0]), 1.0).tolist() == [0.125, 2.5]
from plasticity.agents.libraries import rlax
for module in [found for name, found in sys.modules.items() if name.partition(".")[0] in ("rlax", "distrax")]:
    assert not [name for name, value in vars(module).items() if isinstance(value, jax.core.Tracer)], module
"""
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reading_a_config_needs_no_jax_of_its_own():
    for module in SOURCES:
        if package(module) == "config" and module != "plasticity.config.counters":
            assert "jax" not in foreign(module), module
