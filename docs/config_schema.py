"""The JSON schema of a config file, for editors, from the registry and the keys of ``config.experiments``.

It covers keys, kinds, types, ranges and allowed names. It does not cover members of plug-ins, nor conditions on several
keys (``Metadata.only_with``, the points of a sweep, whether a stream fits an agent); ``plasticity plan`` checks those.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from plasticity.config.docstrings import first_line
from plasticity.config.experiments import ConfigFile, Evaluation, Placement, Schedule
from plasticity.config.names import NAME
from plasticity.config.probes import Probe
from plasticity.config.registry import BUILT_IN, FAMILIES, Registry
from plasticity.config.schema import Setting, annotations, schema_of
from plasticity.config.settings import KEYS
from plasticity.config.starts import Start
from plasticity.config.sweeps import LISTED
from plasticity.config.tuning import Tune

Json = dict[str, Any]


def reference(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def plain(value: Any) -> Any:
    """The value in JSON; None if JSON cannot represent it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def bounded(found: Any) -> Any:
    """Drop the titles, defaults and infinite bounds that pydantic writes."""
    if isinstance(found, list):
        return [bounded(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {key: value for key, value in found.items() if key not in ("title", "default")}
    return {k: bounded(v) for k, v in kept.items() if not (isinstance(v, float) and not math.isfinite(v))}


def of_setting(setting: Setting, annotation: Any, *, within: bool = True) -> Json:
    """The schema of a setting. ``within``: a mapping without ``kind`` changes settings of the default member."""
    if setting.family is None:
        found = bounded(TypeAdapter(annotation).json_schema())
        if "true" in found.get("enum", ()):
            found = {"enum": [*found["enum"], True]}  # YAML reads an unquoted true as a boolean
    elif setting.many:
        found = {"type": "array", "items": reference(setting.family)}
    else:
        found = reference(f"changed {setting.family}" if within and not setting.required else setting.family)
    if setting.family is not None and setting.optional:
        found = {"anyOf": [found, {"type": "null"}]}
    described = {"description": setting.allowed}
    default = None if setting.required else plain(setting.default)
    return {**found, **described} | ({} if default is None else {"default": default})


def mapping(factory: Callable[..., Any], **options: Any) -> Json:
    """A mapping with the settings of a factory and no other keys."""
    settings, known = schema_of(factory), annotations(factory)
    properties = {name: of_setting(setting, known[name], **options) for name, setting in settings.items()}
    required = [name for name, setting in settings.items() if setting.required]
    return {"type": "object", "properties": properties, "additionalProperties": False} | (
        {"required": required} if required else {}
    )


def built_in(known: Registry, family: str) -> list[str]:
    return [name for name in known.names(family) if known.origin(family, name) == BUILT_IN]


def member(known: Registry, family: str, name: str) -> Json:
    """A member's kind and settings, none of them required."""
    found = mapping(known.factory(family, name))
    found.pop("required", None)
    found["properties"] = {"kind": {"const": name}, **found["properties"]}
    found["description"] = first_line(known.factory(family, name))
    if family in KEYS:
        found["properties"] = mapping(KEYS[family])["properties"] | found["properties"]
    return found


def whole(known: Registry, family: str, name: str) -> Json:
    needs = [key for key, setting in known.schema(family, name).items() if setting.required]
    return {"allOf": [reference(f"{family} {name}")], "required": ["kind", *needs]}


def family_of(known: Registry, family: str) -> dict[str, Json]:
    """The definitions of a family: each member, any complete member, and changes to a member."""
    names = built_in(known, family)
    alone = [n for n in names if not any(setting.required for setting in known.schema(family, n).values())]
    found = {f"{family} {name}": member(known, family, name) for name in names}
    found[family] = {"anyOf": [{"enum": alone}, *(whole(known, family, name) for name in names)]}
    found[f"changed {family}"] = {"anyOf": [{"enum": alone}, *(reference(f"{family} {name}") for name in names)]}
    return found


def sweep(*, of_arm: bool) -> Json:
    """The schema of a sweep. ``of_arm``: null removes a path of the experiment's sweep."""
    values: Json = {"type": "array", "minItems": 1}
    paths = {"pattern": r"^(agent|interventions)\."}
    points = {**values, "items": {"type": "object", "minProperties": 1, "propertyNames": paths}}
    return {
        "type": ["object", "null"],
        "properties": {LISTED: optional(points) if of_arm else points},
        "propertyNames": {"anyOf": [paths, {"const": LISTED}]},
        "additionalProperties": optional(values) if of_arm else values,
    }


def arms() -> Json:
    arm = {
        "type": ["object", "null"],
        "properties": {
            "agent": reference("changed agents"),
            "interventions": {"type": "array", "items": reference("interventions")},
            "task_aware": {"type": "boolean"},
            "sweep": sweep(of_arm=True),
            "control": {"type": ["string", "null"]},
            "start": optional(mapping(Start)),
        },
        "additionalProperties": False,
    }
    names = {"pattern": f"^{NAME.pattern}$"}
    return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": arm}


def probes() -> Json:
    names = {"pattern": f"^{NAME.pattern}$"}
    found = mapping(Probe, within=False)
    parts = {"schedule": Schedule, "evaluation": Evaluation}
    found["properties"] |= {name: optional(mapping(part)) for name, part in parts.items()}
    return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": found}


def optional(found: Json) -> Json:
    return {"anyOf": [found, {"type": "null"}]}


def schema(known: Registry) -> Json:
    """The schema of a whole config file."""
    document = mapping(ConfigFile, within=False)
    parts = {"schedule": Schedule, "tune": Tune, "evaluation": Evaluation, "placement": Placement}
    document["properties"] |= {name: optional(mapping(part)) for name, part in parts.items()}
    document["properties"] |= {"arms": arms(), "sweep": sweep(of_arm=False), "probes": probes()}
    definitions = {name: found for family in FAMILIES for name, found in family_of(known, family).items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "a config of plasticity"}
    return {**head, **document, "$defs": definitions}


def text(known: Registry) -> str:
    return json.dumps(schema(known), indent=1, ensure_ascii=False) + "\n"
