"""Registry of the members of each family, with their settings and metadata.

``plasticity.runs.launch`` fills a registry with the built-in members, then with those of installed packages. A package
adds a member through an entry point, without changes to this package::

    [project.entry-points."plasticity.interventions"]
    my_method = "my_package:my_method"
"""

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from plasticity.config.fields import Metadata, metadata_of
from plasticity.config.plugins import Origin, Returns, error_text, guarded
from plasticity.config.schema import Setting, schema_of
from plasticity.core.errors import KEY, UserError, cut, nearest, unknown

FAMILIES = (
    "agents", "streams", "transforms", "interventions", "monitors", "networks", "activations",
    "optimizers", "schedules", "replays",
)  # fmt: skip

BUILT_IN = "built in"
ELSEWHERE = {"optimizers": "optax"}  # the member of a family that finds others by their names

Factory = Callable[..., Any]


class Row(NamedTuple):
    """One setting of a member, as text."""

    name: str
    allowed: str
    default: str  # "required" if there is none
    kind: str  # traced, static or member


class Registry:
    """Families of members: name -> factory, readable as ``registry["optimizers"]``.

    ``returns``: by family, the required return value of members of other packages.
    """

    def __init__(self, returns: Mapping[str, Returns] = MappingProxyType({})) -> None:
        self._returns = returns
        self._members: dict[str, dict[str, Factory]] = {family: {} for family in FAMILIES}
        self._former: dict[str, dict[str, str]] = {family: {} for family in FAMILIES}
        self._broken: dict[tuple[str, str], str] = {}
        self._origins: dict[tuple[str, str], str] = {}

    def __getitem__(self, family: str) -> Mapping[str, Factory]:
        if family not in self._members:
            raise UserError(unknown(f"family `{family}`", family, FAMILIES))
        return MappingProxyType(self._members[family])

    def names(self, family: str) -> tuple[str, ...]:
        """The family's members, sorted."""
        return tuple(sorted(self[family]))

    def register(self, family: str, name: str, factory: Factory, origin: str = BUILT_IN) -> None:
        """Add a member. ``ValueError`` if the name is taken or not lower case, or if the family is unknown."""
        if family not in self._members:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"name must be lower case (a-z, 0-9, _) and start with a letter, got {name!r}")
        if name in self._members[family]:
            raise ValueError(f"{family}: the name {name!r} is taken by {self._members[family][name].__module__}")
        if not callable(factory):
            raise ValueError(f"{family}: {name!r} must be a function, got {type(factory).__name__}")
        self._members[family][name] = factory
        self._origins[family, name] = origin
        former = metadata_of(factory).formerly
        if former:
            self._former[family][former] = name

    def former_names(self, family: str) -> Mapping[str, str]:
        """Former names of the family's members: old name -> current name."""
        return MappingProxyType(self._former[family])

    def register_all(self, family: str, members: Mapping[str, Factory]) -> None:
        """Add every member of a mapping."""
        for name, factory in members.items():
            self.register(family, name, factory)

    def load_plugins(self) -> tuple[str, ...]:
        """Add the members of installed packages; returns one line for each that cannot be used.

        A broken plug-in affects only configs that name it: :meth:`factory` raises its line. A built-in member keeps
        its name. A name offered by two packages is assigned to neither.
        """
        for family in FAMILIES:
            offered: dict[str, dict[tuple[str, str], importlib.metadata.EntryPoint]] = {}
            for entry in importlib.metadata.entry_points(group=f"plasticity.{family}"):
                offered.setdefault(entry.name, {})[_package(entry), entry.value] = entry
            for entries in offered.values():
                self._offer(family, list(entries.values()))
        return tuple(self._broken.values())

    def _offer(self, family: str, entries: list[importlib.metadata.EntryPoint]) -> None:
        entry = entries[0]
        refused = self._refusal(family, entries)
        if refused is None:
            try:
                self.register(family, entry.name, self._loaded(family, entry), _package(entry))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # importing a third-party package may raise anything, or exit
                refused = _refused(entries, family, f"cannot be used: {error_text(error)}")
        if refused is not None:
            self._broken[family, entry.name] = refused

    def _refusal(self, family: str, entries: list[importlib.metadata.EntryPoint]) -> str | None:
        """Why the plug-ins of one name are refused before any is imported; None if they are not."""
        if entries[0].name in self._members[family]:
            return _refused(entries, family, "is ignored: a built-in member has that name")
        if len(entries) > 1:
            return _refused(entries, family, "is ignored: the name must belong to one package")
        return None

    def _loaded(self, family: str, entry: importlib.metadata.EntryPoint) -> Factory:
        """Load a member, wrapped so that its errors name it.

        ``ValueError`` if it is not a function, ``TypeError`` if it has no schema.
        """
        factory = entry.load()
        if not callable(factory):
            raise ValueError(f"must be a function, got {type(factory).__name__}")
        schema_of(factory)
        return guarded(Origin(family, entry.name, _package(entry)), factory, self._returns)

    def factory(self, family: str, name: str) -> Factory:
        """The member's factory. ``UserError`` with the known names and the nearest one if there is none."""
        members = self[family]
        name = self._former[family].get(name, name)
        if name not in members and (family, name) in self._broken:
            raise UserError(self._broken[family, name])
        if name not in members:
            text = unknown(f"{family.removesuffix('s')} `{cut(name, KEY)}`", name, members)
            other = ELSEWHERE.get(family)
            hint = f"; those of {other}: {{kind: {other}, name: {cut(name, KEY)}}}" if other in members else ""
            raise UserError(text if nearest(name, members) else text + hint)
        return members[name]

    def schema(self, family: str, name: str) -> Mapping[str, Setting]:
        """The member's settings. ``UserError`` if its signature is not a schema (a third-party error)."""
        try:
            return schema_of(self.factory(family, name))
        except (TypeError, NameError) as error:
            raise UserError(f"{family.removesuffix('s')} `{name}`: its settings cannot be read: {error}") from None

    def metadata(self, family: str, name: str) -> Metadata:
        """The member's metadata: its paper, a note, whether it sees task switches."""
        return metadata_of(self.factory(family, name))

    def origin(self, family: str, name: str) -> str:
        """The member's origin: "built in", or the name and version of an installed package."""
        self.factory(family, name)
        return self._origins[family, self._former[family].get(name, name)]

    def rows(self, family: str, name: str) -> tuple[Row, ...]:
        """The member's settings as text, in signature order."""
        return tuple(_row(setting) for setting in self.schema(family, name).values())


def _row(setting: Setting) -> Row:
    kind = "member" if setting.family else "traced" if setting.traced else "static"
    return Row(setting.name, setting.allowed, setting.default_text, kind)


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _refused(entries: list[importlib.metadata.EntryPoint], family: str, why: str) -> str:
    packages = sorted({entry.dist.name if entry.dist else entry.value for entry in entries})
    of = f"package {packages[0]}" if len(packages) == 1 else f"packages {' and '.join(packages)}"
    return f"plug-in `{entries[0].name}` of {of} (plasticity.{family}) {why}"
