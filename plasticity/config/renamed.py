"""Old names of keys, settings and members; configs that use them are read as if they used the new names.

A member's metadata hold its former names: ``formerly`` for the member, ``renamed`` for its settings.
"""

from collections.abc import Mapping
from typing import Any

from plasticity.config.registry import FAMILIES, Registry

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
        found = self._keys(raw, KEYS)
        if isinstance(found.get("arms"), Mapping):
            arms = found["arms"].items()
            found["arms"] = {name: self._arm(arm) if isinstance(arm, Mapping) else arm for name, arm in arms}
        return self._parts(found)

    def path(self, path: str) -> str:
        """The dotted path of an override or a sweep with new names."""
        *steps, last = path.split(".")
        in_member = (bool(steps) and steps[0] not in ("arms", "sweep")) or len(steps) > 2
        kinds = {old: new for family in LISTS for old, new in self._kinds[family].items()}
        settings = {old: new for renamed in self._settings.values() for old, new in renamed.items()}
        new = (settings if in_member else KEYS).get(last, last)
        found = ".".join([*(kinds.get(step, step) for step in steps), kinds.get(new, new) if steps else new])
        if found != path:
            self._note(path, found)
        return found

    def _arm(self, arm: Mapping[str, Any]) -> dict[str, Any]:
        return self._parts(self._keys(arm, KEYS))

    def _parts(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The members and the sweep of a config, of an arm, or of a member."""
        found = dict(raw)
        for key, value in raw.items():
            if key in PLACES:
                found[key] = self._member(PLACES[key], value)
            elif key in LISTS and isinstance(value, list | tuple):
                found[key] = [self._member(key, each) for each in value]
            elif key == "sweep" and isinstance(value, Mapping):
                found[key] = {self.path(str(path)): values for path, values in value.items()}
        return found

    def _member(self, family: str, raw: Any) -> Any:
        if isinstance(raw, str):
            return self._kind(family, raw)
        if not isinstance(raw, Mapping):
            return raw
        found = dict(raw)
        if isinstance(found.get("kind"), str):
            found["kind"] = self._kind(family, found["kind"])
            found = self._keys(found, self._settings.get((family, found["kind"]), {}))
        return self._parts(found)

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
