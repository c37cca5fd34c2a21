"""Who may import whom, and who may touch files: parsed from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Bottom up. A room (a module, or a package as a whole) imports from lower lines only; packages order themselves.
ORDER = (
    "errors fields types cores stored",
    "linalg files display accounts counters precision stepsizes foreign",
    "trees schedules counting convolution layers packing documents visits lock",
    "eligibility blueprint",
    "networks optimizers schema",
    "interventions monitors registry",
    "lanes settings",
    "evaluation sweeps",
    "program",
    "runner",
    "record memory config",
    "checkpoint folder",
    "verify",
    "session",
    "progress recorders agents envs",
    "members",
    "planning",
    "launch",
    "bench measure tables findings",
    "cli",
    "__main__",
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}
PROJECT = ("plasticity", "agents", "envs")
READERS = ("stored", "accounts", "results", "plots", "report", "watch")  # of a run's files; each uses those before it
FORMATS = READERS[:2]  # which those that write the files share
WRITING = ("files",)  # how readers write what they make
# Works without the numerics.
CONFIG = ("errors", "fields", "foreign", "documents", "schema", "registry", "settings", "sweeps")

MAY_TOUCH_FILES = {
    "plasticity.files", "plasticity.lock", "plasticity.display",
    "plasticity.stored", "plasticity.accounts", "plasticity.verify",
    "plasticity.record", "plasticity.checkpoint", "plasticity.folder", "plasticity.session", "plasticity.documents",
    "plasticity.recorders", "plasticity.cli", "plasticity.plots.save", "plasticity.bench.report",
    "envs.data", "envs.pools",
    "plasticity.results.read", "plasticity.results.export",
    "plasticity.watch", "plasticity.report.facts", "plasticity.report.page",
    "plasticity.findings.store", "plasticity.bench.gpu.conductor", "plasticity.bench.gpu.real",
    "plasticity.bench.gpu.suite",
}  # fmt: skip
FILE_CALLS = {
    "open", "fsync", "mkdir", "unlink", "rmtree", "rmdir", "rename", "touch", "glob", "rglob", "iterdir", "exists",
    "read_text", "write_text", "read_bytes", "write_bytes", "read_table", "write_table", "read_csv", "to_csv",
    "read_parquet", "to_parquet", "savefig", "savez", "fromfile", "tofile", "symlink_to", "copytree",
}  # fmt: skip
USES_BOTH = (  # agents or envs
    "plasticity.members", "plasticity.planning", "plasticity.bench.streams", "plasticity.bench.stream_rates",
    "plasticity.findings.exact",
)  # fmt: skip
FILE_MODULES = {"shutil", "tempfile", "pickle", "gzip", "zipfile", "pyarrow", "sqlite3", "h5py"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for top in PROJECT for path in (ROOT / top).rglob("*.py")}
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


def room(module: str) -> str:
    """``plasticity.interventions.resets`` -> ``interventions``; ``agents.replay`` -> ``agents``."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "plasticity" else top


def ours(module: str) -> list[tuple[str, bool]]:
    """Imports from other rooms of this project."""
    found = [
        (name, typing) for name, typing in imports(module) if name.split(".")[0] in ("plasticity", "agents", "envs")
    ]
    return [(name, typing) for name, typing in found if room(name) != room(module)]


def foreign(module: str) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(module)}


def test_every_module_has_its_place():
    rooms = {room(module) for module in SOURCES} - {""}
    assert rooms - set(LEVEL) - set(READERS) == set()
    assert set(LEVEL) - rooms == set()


def check_imports(module: str) -> None:
    here = room(module)
    for name, typing in ours(module):
        if here in READERS:
            before = ("errors", "documents", *READERS[: READERS.index(here)])
            assert room(name) in (*before, *WRITING), (
                f"{module} imports {name}: results, plots, report and watch read files only"
            )
        elif room(name) in READERS and room(name) not in FORMATS:
            assert here in ("cli", "bench", "findings"), f"{module} imports {name}"
        elif not typing:
            assert LEVEL[room(name)] < LEVEL[here], f"{module} imports {name}"


def test_imports_point_down():
    for module in SOURCES:
        if module != "plasticity":
            check_imports(module)


def test_the_package_itself_imports_the_launcher_only_when_it_is_used():
    assert {name for name, _ in ours("plasticity")} == {"plasticity.launch", "plasticity.results"}
    first = [node for node in TREES["plasticity"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in first] == ["from typing import Any"]


def test_agents_and_envs_know_nothing_of_each_other():
    for module in SOURCES:
        tops = foreign(module)
        if module.startswith("agents"):
            assert "envs" not in tops, module
        elif module.startswith("envs"):
            assert "agents" not in tops, module
        elif tops & {"agents", "envs"}:
            assert module in USES_BOTH, module


def test_methods_know_no_agent_and_agents_no_method():
    for module in SOURCES:
        names = {name for name, _ in ours(module)}
        if room(module) == "agents":
            methods = {name for name in names if room(name) in ("interventions", "monitors")}
            assert methods <= {"plasticity.interventions.base"}, module
        if room(module) in ("interventions", "monitors"):
            assert not {name for name in names if room(name) in ("agents", "envs", "program", "runner")}, module


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
    """Only where the numbers are made is JAX imported, which takes seconds."""
    check = (
        "import sys, plasticity, plasticity.results, plasticity.plots, plasticity.cli; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_reading_a_config_needs_no_jax_of_its_own():
    for module in SOURCES:
        if room(module) in CONFIG:
            assert "jax" not in foreign(module), module
