"""Two CPU devices in every test run, so that sharded programs are tested on any machine; programs compiled once.

Nearly all programs are so small that they run for less time than optimising their machine code takes, so XLA is told
not to optimise it. ``XLA_FLAGS`` in the environment is left as it is: ``XLA_FLAGS= make test`` tests the code that
users run. One of the options, without which compiling takes 1.7 times as long, may be gone from another version of JAX,
where an unknown one would end the process: it is tried in a process of its own first.

Many tests build the same tiny programs. JAX's own cache in ``.jax_cache`` keeps what XLA made of them: tracing
still happens (and is counted by tests), the several seconds of XLA's work only once. Deleting the folder is harmless.
"""

import gc
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
QUICKER = f"{QUICK} --xla_cpu_use_fusion_emitters=false"


def known(flags: str) -> bool:
    """Whether this version of XLA takes the options."""
    program = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(program, env=environment, capture_output=True, check=False).returncode == 0


# Before JAX is imported; the workers of pytest-xdist and other processes inherit it.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = QUICKER if known(QUICKER) else QUICK
CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CHECKOUT / ".jax_cache")))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402

sys.path.append(str(CHECKOUT))  # `pytest` finds agents and envs as `python -m pytest` does; tests/ has folders so named

jax.config.update("jax_num_cpu_devices", 2)
LARGE = 2 * 2**30  # bytes of a worker's memory


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases in ``slow_cases.txt`` are slow; warnings are errors in quick tests only: slow ones run third-party code."""
    lines = (Path(__file__).parent / "slow_cases.txt").read_text(encoding="utf-8").splitlines()
    slow = {line for line in lines if not line.startswith("#")}
    if not any("::" in argument for argument in config.args):  # whole files were collected
        names = {item.nodeid for item in items}
        files = {name.partition("::")[0] for name in names}
        unknown = {case for case in slow - names if case.partition("::")[0] in files}
        if unknown:
            raise pytest.UsageError(f"tests/slow_cases.txt names no test: {', '.join(sorted(unknown))}")
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session", autouse=True)
def own_speeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor write the speeds of the user's machine."""
    from plasticity.runs import speeds

    folder = tmp_path_factory.mktemp("speeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speeds, "folder", lambda: folder)
        yield


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Drop compiled programs between files once a worker is large: it would grow to several GB."""
    yield
    if psutil.Process().memory_info().rss > LARGE:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def program_cache() -> Path:
    """The folder of compiled programs, for processes that a test starts."""
    return CACHE


SIGNALS = {"SIGINT": signal.default_int_handler, **dict.fromkeys(("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"))}


@pytest.fixture
def usual_signals():
    """Default signal handlers, as in a terminal; `nohup` and `&` in a script ignore some signals."""
    numbers = {getattr(signal, name): handler for name, handler in SIGNALS.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler or signal.SIG_DFL) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Install a package ``odd-one`` with a member ``odd`` of a family, given its module."""
    from plasticity.runs import members

    def install(family: str, module: str) -> None:
        (tmp_path / "odd_one.py").write_text(module)
        info = tmp_path / "odd_one-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-one\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[plasticity.{family}]\nodd = odd_one:odd\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        members.known.cache_clear()

    yield install
    monkeypatch.undo()
    sys.modules.pop("odd_one", None)
    members.known.cache_clear()
