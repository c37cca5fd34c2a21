"""The packages of examples/ as if they were installed, with their entry points."""

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plasticity.runs import members

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
KINDS = ("intervention", "monitor", "network", "activation", "optimizer", "stream", "transform", "agent")


def metadata(kind: str, place: Path) -> str:
    """Writes what an installation of the example leaves beside it; returns the package's name and version."""
    project = tomllib.loads((EXAMPLES / kind / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    folder = place / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    return f"{name} {version}"


@contextmanager
def installed(place: Path, kinds: tuple[str, ...] = KINDS) -> Iterator[dict[str, str]]:
    """Within it the registry has the members of these examples; gives the package of each."""
    before, loaded = list(sys.path), set(sys.modules)
    packages = {kind: metadata(kind, place) for kind in kinds}
    sys.path[:0] = [str(place), *(str(EXAMPLES / kind) for kind in kinds)]
    members.known.cache_clear()
    try:
        yield packages
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - loaded:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
                del sys.modules[name]
        members.known.cache_clear()
