"""Old names of keys, settings and members; configs that use them are read as if they used the new names.

A member's metadata hold its former names: ``formerly`` for the member, ``renamed`` for its settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from plasticity.config.documents import as_member, locate, merged
from plasticity.config.documents import found as found_at
from plasticity.config.registry import FAMILIES, Registry
from plasticity.core.errors import NoSuchPlaceError

KEYS: Mapping[str, str] = {"told": "task_aware"}  # of a config and of its arms
PLACES = {"agent": "agents", "network": "networks", "optimizer": "optimizers", "stream": "streams"}  # of one member
LISTS = {"interventions", "monitors", "transforms"}  # of members; the key is the family


def with_new_keys(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the new names of :data:`KEYS`, which need no registry."""

    def renamed(part: Any) -> Any:
        return {KEYS.get(key, key): value for key, value in part.items()} if isinstance(part, Mapping) else part

    found: dict[str, Any] = renamed(raw)
    if isinstance(found.get("arms"), Mapping):
        found["arms"] = {name: renamed(arm) for name, arm in found["arms"].items()}
    return found


class Renamer:
    """Replaces old names by new ones; ``notes`` holds a line for each old name found.

    Args:
      registry: the known members, whose metadata contain their old names.
    """

    def __init__(self, registry: Registry) -> None:
        self.notes: dict[str, None] = {}
        self._kinds = {family: registry.former_names(family) for family in FAMILIES}
        self._settings = {
            (family, name): renamed
            for family in FAMILIES
            for name in registry.names(family)
            if (renamed := registry.metadata(family, name).renamed)
        }

    def document(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The config with new names throughout."""
        found = self._parts(self._keys(raw, KEYS), {})
        if isinstance(found.get("arms"), Mapping):
            arms = found["arms"].items()
            found["arms"] = {name: self._arm(arm, found) if isinstance(arm, Mapping) else arm for name, arm in arms}
        return found

    def path(self, document: Mapping[str, Any], path: str) -> str:
        """The dotted path of an override or a sweep with new names.

        Args:
          document: where the path leads, with new names already: a setting is renamed only where its member says so.
          path: as written.
        """
        *steps, last = path.split(".")
        for i, family in enumerate(steps):
            if family in LISTS and i + 1 < len(steps):
                steps[i + 1] = self._kinds[family].get(steps[i + 1], steps[i + 1])
        arms = document.get("arms")
        of_arm = steps[:1] == ["arms"] and isinstance(arms, Mapping) and ".".join(steps[1:]) in arms
        new = (KEYS if not steps or of_arm else self._renamed_at(document, steps)).get(last, last)
        found = ".".join([*steps, new])
        if found != path:
            self._note(path, found)
        return found

    def _renamed_at(self, document: Any, steps: Sequence[str]) -> Mapping[str, str]:
        """Old names of the settings of the member at a path."""
        try:
            location = locate(document, ".".join(steps))
        except NoSuchPlaceError:
            return {}
        if location[:1] == ("arms",):  # what an arm does not say, the base does
            arm = as_member(found_at(document, location[:2])) or {}
            document, location = merged({**document, "arms": {}}, arm), location[2:]
        member = as_member(found_at(document, location))
        kind = member.get("kind") if isinstance(member, Mapping) else None
        return {old: new for (_, name), names in self._settings.items() if name == kind for old, new in names.items()}

    def _arm(self, arm: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        return self._parts(self._keys(arm, KEYS), base)

    def _parts(self, raw: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """The members and the sweep of a config, of an arm, or of a member.

        ``base`` is what they are laid over: a member that names no kind has the kind of the one there.
        """
        found = dict(raw)
        for key, value in raw.items():
            if key in PLACES:
                found[key] = self._member(PLACES[key], value, base.get(key))
            elif key in LISTS and isinstance(value, list | tuple):
                found[key] = [self._member(key, each) for each in value]
        if isinstance(found.get("sweep"), Mapping):
            whole = merged({key: value for key, value in base.items() if key != "arms"}, found)
            found["sweep"] = {self.path(whole, str(path)): values for path, values in found["sweep"].items()}
        return found

    def _member(self, family: str, raw: Any, base: Any = None) -> Any:
        if isinstance(raw, str):
            return self._kind(family, raw)
        if not isinstance(raw, Mapping):
            return raw
        found, below = dict(raw), as_member(base) if isinstance(base, str | Mapping) else {}
        if isinstance(found.get("kind"), str):
            found["kind"] = self._kind(family, found["kind"])
        kind = str(found.get("kind", below.get("kind")))
        found = self._keys(found, self._settings.get((family, kind), {}))
        return self._parts(found, below)

    def _kind(self, family: str, kind: str) -> str:
        new = self._kinds[family].get(kind, kind)
        if new != kind:
            self._note(kind, new)
        return new

    def _keys(self, raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Rename keys. An old key takes precedence over the new one: it was given later, on the command line."""
        found = {key: value for key, value in raw.items() if names.get(key, key) == key}
        for old, new in names.items():
            if old in raw:
                self._note(old, new)
                found[new] = raw[old]
        return found

    def _note(self, old: str, new: str) -> None:
        self.notes[f"`{old}` is now called `{new}`"] = None
