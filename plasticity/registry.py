"""Names of the members of each family, and what each says of itself.

A registry is filled by ``plasticity.launch`` with the built-in members, then with those of installed packages. A
package adds one with an entry point, and no edit here::

    [project.entry-points."plasticity.interventions"]
    my_method = "my_package:my_method"
"""

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from plasticity.errors import KEY, UserError, cut, unknown
from plasticity.fields import Card, card_of
from plasticity.schema import Setting, schema_of

FAMILIES = ("agents", "streams", "transforms", "interventions", "monitors", "networks", "optimizers")

BUILT_IN = "built in"

Factory = Callable[..., Any]


class Row(NamedTuple):
    """One setting of a member, as text."""

    name: str
    allowed: str
    default: str  # "required" where there is none
    kind: str  # traced, static or member


class Registry:
    """Families of members: name -> factory, readable as ``registry["optimizers"]``."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Factory]] = {family: {} for family in FAMILIES}
        self._refused: dict[tuple[str, str], str] = {}
        self._origins: dict[tuple[str, str], str] = {}

    def __getitem__(self, family: str) -> Mapping[str, Factory]:
        if family not in self._members:
            raise UserError(unknown(f"family `{family}`", family, FAMILIES))
        return MappingProxyType(self._members[family])

    def names(self, family: str) -> tuple[str, ...]:
        """The family's members, sorted."""
        return tuple(sorted(self[family]))

    def register(self, family: str, name: str, factory: Factory, origin: str = BUILT_IN) -> None:
        """Adds a member. ``ValueError`` if the name is taken, is no lower-case name, or the family is unknown."""
        if family not in self._members:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"name must be lower case (a-z, 0-9, _) and begin with a letter, got {name!r}")
        if name in self._members[family]:
            raise ValueError(f"{family}: the name {name!r} is taken by {self._members[family][name].__module__}")
        if not callable(factory):
            raise ValueError(f"{family}: {name!r} must be a function, got {type(factory).__name__}")
        self._members[family][name] = factory
        self._origins[family, name] = origin

    def register_all(self, family: str, members: Mapping[str, Factory]) -> None:
        """Adds every member of a mapping."""
        for name, factory in members.items():
            self.register(family, name, factory)

    def load_plugins(self) -> tuple[str, ...]:
        """Adds the members that installed packages offer; returns one line for each that cannot be used.

        A broken plug-in stops only what names it: :meth:`factory` raises its line.
        """
        for family in FAMILIES:
            for entry in importlib.metadata.entry_points(group=f"plasticity.{family}"):
                try:
                    self.register(family, entry.name, entry.load(), _package(entry))
                except Exception as error:  # a foreign package may raise anything while it is imported
                    self._refused[family, entry.name] = _broken(entry, family, error)
        return tuple(self._refused.values())

    def factory(self, family: str, name: str) -> Factory:
        """The member's factory. ``UserError`` listing the known names, the nearest first named, if there is none."""
        members = self[family]
        if (family, name) in self._refused:
            raise UserError(self._refused[family, name])
        if name not in members:
            raise UserError(unknown(f"{family.removesuffix('s')} `{cut(name, KEY)}`", name, members))
        return members[name]

    def schema(self, family: str, name: str) -> Mapping[str, Setting]:
        """The member's settings. ``UserError`` where its signature is no schema (a third party's mistake)."""
        try:
            return schema_of(self.factory(family, name))
        except (TypeError, NameError) as error:
            raise UserError(f"{family.removesuffix('s')} `{name}`: its settings cannot be read: {error}") from None

    def card(self, family: str, name: str) -> Card:
        """What the member says of itself: its paper, a note, whether it sees task switches."""
        return card_of(self.factory(family, name))

    def origin(self, family: str, name: str) -> str:
        """Where the member comes from: "built in", or the name and version of an installed package."""
        self.factory(family, name)
        return self._origins[family, name]

    def rows(self, family: str, name: str) -> tuple[Row, ...]:
        """The member's settings as text, in the order of its signature."""
        return tuple(_row(setting) for setting in self.schema(family, name).values())


def _row(setting: Setting) -> Row:
    kind = "member" if setting.family else "traced" if setting.traced else "static"
    return Row(setting.name, setting.allowed, setting.default_text, kind)


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _broken(entry: importlib.metadata.EntryPoint, family: str, error: Exception) -> str:
    package = entry.dist.name if entry.dist else entry.value
    why = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return f"plug-in `{entry.name}` of package {package} (plasticity.{family}) cannot be used: {why}"
