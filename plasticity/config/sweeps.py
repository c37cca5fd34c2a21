"""Arms and sweeps: the variants of an experiment and each one's points, a grid or a list."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from plasticity.config.documents import difference, found, locate, merged, on_one_line, replaced
from plasticity.config.registry import Registry
from plasticity.config.schema import schema_of
from plasticity.config.settings import MemberConfig, Parser, paths, plain
from plasticity.config.starts import Start, parse_start
from plasticity.core.errors import KEYS, ConfigProblem, Location, NoSuchPlaceError, cut, dotted, listed, shown, unknown

POINTS = 10_000  # maximum per arm; takes about ten seconds to lay out
SWEPT = ("agent", "interventions")
ARM = (*SWEPT, "task_aware", "sweep", "control", "start")  # the keys of an arm
LISTED = "points"  # the key of a sweep that lists points, each a mapping of paths to values
Sweep = Mapping[str, tuple[Any, ...] | None]


class Point(NamedTuple):
    """One combination of swept values."""

    values: Mapping[str, Any]  # dotted path as in the sweep -> number, text, bool or None (a member: YAML on one line)
    agent: MemberConfig
    interventions: tuple[MemberConfig, ...]

    def static(self) -> tuple[Any, ...]:
        """Equal for points that share a compiled program."""
        return (self.agent.static(), *(each.static() for each in self.interventions))

    def traced(self) -> dict[str, float]:
        """Every traced number of agent and interventions, by dotted path."""
        numbers = self.agent.traced("agent")
        for path, each in zip(paths("interventions", self.interventions), self.interventions, strict=True):
            numbers |= each.traced(path)
        return numbers


@dataclass(frozen=True)
class Arm:
    """One named variant of the experiment."""

    agent: MemberConfig
    interventions: tuple[MemberConfig, ...]
    task_aware: bool  # whether the learner may know of task switches
    sweep: Sweep  # the arm's own; None removes a path of the experiment's sweep
    points: tuple[Point, ...]
    control: str | None = None  # the arm that is its fresh control; None: the default, see ``config.controls``
    start: Start | None = None  # where its learners come from; None: they are new

    def dump(self, agent: MemberConfig, interventions: Sequence[MemberConfig], task_aware: bool) -> dict[str, Any]:
        """The arm's changes to the base, as plain data."""
        changed: dict[str, Any] = {}
        if self.agent != agent:
            changed["agent"] = difference(agent.dump(), self.agent.dump())
        if self.interventions != tuple(interventions):
            changed["interventions"] = [each.dump() for each in self.interventions]
        changed |= {} if self.task_aware == task_aware else {"task_aware": self.task_aware}
        changed |= {} if self.control is None else {"control": self.control}
        changed |= {} if self.start is None else {"start": plain(asdict(self.start))}
        return changed | ({"sweep": plain_sweep(self.sweep)} if self.sweep else {})


def plain_sweep(sweep: Sweep) -> dict[str, list[Any] | None]:
    """The sweep as plain data."""
    return {path: None if values is None else list(values) for path, values in sweep.items()}


@dataclass(frozen=True, kw_only=True)
class ArmKeys:
    """Keys of an arm in a config besides its members."""

    task_aware: bool = False


class Base(NamedTuple):
    """Defaults of an arm."""

    agent: MemberConfig
    interventions: Sequence[MemberConfig]
    task_aware: bool


def parse_arm(parser: Parser, name: str, raw: Any, base: Base, sweep: Sweep) -> Arm | None:
    """Parse an arm from its overrides of the base; None if it is refused."""
    at: Location = ("arms", name)
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        parser.refuse(at, f"{shown(raw)} is not allowed; must be a mapping")
        return None
    before = len(parser.problems)
    for key in raw:
        if key not in ARM:
            parser.refuse((*at, str(key)), unknown("key", str(key), ARM, "allowed"))
    agent, interventions, task_aware = base
    chosen: MemberConfig | None = agent
    if "task_aware" in raw:
        task_aware = parser.setting(schema_of(ArmKeys)["task_aware"], raw["task_aware"], (*at, "task_aware"))
    if "agent" in raw:
        chosen = parser.member("agents", merged(agent.dump(), raw["agent"]), (*at, "agent"))
    if "interventions" in raw:
        interventions = parser.members("interventions", raw["interventions"], (*at, "interventions"))
    own = parse_sweep(parser, {} if raw.get("sweep") is None else raw["sweep"], (*at, "sweep"), sweep)
    size = math.prod(len(values) for values in {**sweep, **own}.values() if values is not None)
    if size > POINTS:
        parser.refuse(at, f"its sweep has {size:,} points; at most {POINTS:,} are allowed")
    if chosen is None or len(parser.problems) > before:
        return None
    points, problems = expand(parser.registry, chosen, interventions, {**sweep, **own})
    for (path, *rest), text, _ in problems:
        mine = path in own
        parser.problems.append(ConfigProblem((*(at if mine else ()), "sweep", path, *rest), text, "" if mine else name))
    control, start = raw.get("control"), parse_start(parser, raw.get("start"), (*at, "start"))
    return Arm(chosen, tuple(interventions), task_aware, own, points, None if control is None else str(control), start)


def blamed(problems: Sequence[ConfigProblem], arms: int) -> list[ConfigProblem]:
    """Each problem of the experiment's sweep once, with the affected arms unless all are affected."""
    names: dict[tuple[Location, str], dict[str, None]] = {}
    for at, text, arm in problems:
        names.setdefault((at, text), {})[arm] = None
    return [
        ConfigProblem(at, text if "" in blame or len(blame) == arms else f"{text} (in arm {listed(list(blame))})")
        for (at, text), blame in names.items()
    ]


def parse_sweep(parser: Parser, raw: Any, at: Location, base: Sweep = MappingProxyType({})) -> Sweep:
    """Parse a sweep: dotted path -> non-empty list of distinct values, or None (in an arm) for a path of the base.

    The values of ``LISTED`` are points: mappings with the same paths.
    """
    if not isinstance(raw, Mapping):
        parser.refuse(at, f"{shown(raw)} is not allowed; must be a mapping of dotted paths to lists")
        return {}
    sweep: dict[str, tuple[Any, ...] | None] = {}
    for path, values in raw.items():
        path = str(path)
        problem = None if path == LISTED else unsweepable(path)
        if problem is None and not (values is None and path in base):
            problem = _bad_points(values) if path == LISTED else _bad_values(values)
        if problem:
            parser.refuse((*at, path), problem)
        else:
            sweep[path] = None if values is None else tuple(plain(value) for value in values)
    return sweep


def unsweepable(path: str) -> str | None:
    """Why a sweep cannot have this path; None if it can, or if only a member can tell."""
    root = path.split(".")[0]
    if root in SWEPT:
        return None
    if root == "stream":
        return "a stream cannot be swept: all lanes of a run share it; write a config for each stream"
    return "cannot be swept; a path starts with `agent.` or `interventions.`, such as agent.optimizer.learning_rate"


def _bad_values(values: Any) -> str | None:
    if not isinstance(values, list | tuple):
        return f"{shown(values)} is not allowed; must be a list of values"
    if not values:
        return "the list of values is empty"
    if len(values) > POINTS:
        return f"has {len(values):,} values; at most {POINTS:,} are allowed"
    doubled = [value for i, value in enumerate(values) if value in values[:i]]
    return f"{shown(doubled[0])} is given twice" if doubled else None


def _bad_points(values: Any) -> str | None:
    problem = _bad_values(values)
    if problem:
        return problem
    odd = [value for value in values if not isinstance(value, Mapping) or not value]
    if odd:
        return f"{shown(odd[0])} is not allowed; a point is a mapping of dotted paths to values"
    first = list(values[0])
    others = [value for value in values if set(value) != set(first)]
    if others:
        lost = next(path for path in [*first, *others[0]] if (path in first) != (path in others[0]))
        return f"`{cut(str(lost), KEYS)}` is missing in a point; all points need the same paths"
    refused = [f"{cut(str(path), KEYS)}: {problem}" for path in first if (problem := unsweepable(str(path)))]
    return refused[0] if refused else None


def expand(
    registry: Registry, agent: MemberConfig, interventions: Sequence[MemberConfig], sweep: Sweep
) -> tuple[tuple[Point, ...], list[ConfigProblem]]:
    """The points of the Cartesian product of all swept values, in the given order, with the last path varying fastest.

    Listed points are one factor of it. Problems are located at ``(path of the sweep, remaining keys)``.
    """
    swept = {path: values for path, values in sweep.items() if values is not None}
    listed_paths = list(swept[LISTED][0]) if LISTED in swept else []
    doubled = [path for path in listed_paths if path in swept]
    if doubled:
        text = f"`{doubled[0]}` is also swept outside the points; remove one of them"
        return (), [ConfigProblem((LISTED,), text)]
    document = {"agent": agent.dump(), "interventions": [each.dump() for each in interventions]}
    parser = Parser(registry)
    grid = itertools.product(*([_cells(path, value) for value in values] for path, values in swept.items()))
    points = [_point(parser, document, {path: value for cells in row for path, value in cells}) for row in grid]
    problems = [
        each._replace(at=(LISTED, *each.at)) if each.at[0] in listed_paths else each for each in parser.problems
    ]
    return tuple(point for point in points if point is not None), problems


def _cells(path: str, value: Any) -> list[tuple[str, Any]]:
    """The swept paths and values that one value of a sweep stands for."""
    return list(value.items()) if path == LISTED else [(path, value)]


def _point(parser: Parser, document: Any, swept: Mapping[str, Any]) -> Point | None:
    """One point; None if it is refused."""
    where: dict[Location, str] = {}
    for path, value in swept.items():
        try:
            location = locate(document, path)
        except NoSuchPlaceError as error:
            parser.refuse((path,), str(error))
            return None
        undone = [other for place, other in where.items() if place[: len(location)] == location]
        if undone:
            parser.refuse((path,), f"sets the same setting as `{undone[0]}`; remove one of them")
            return None
        where[location] = path
        document = replaced(document, location, value)
    local = Parser(parser.registry)
    agent = local.member("agents", document["agent"], ("agent",))
    interventions = local.members("interventions", document["interventions"], ("interventions",))
    for at, text, _ in local.problems:
        _blame(parser, where, at, text)
    if agent is None or local.problems:
        return None
    dumped = {"agent": agent.dump(), "interventions": [each.dump() for each in interventions]}
    return Point({path: _cell(found(dumped, at)) for at, path in where.items()}, agent, interventions)


def _blame(parser: Parser, where: dict[Location, str], at: Location, text: str) -> None:
    """Report a problem of the point at the swept path that contains it, or else at the nearest path."""
    for place in reversed(where):
        if at[: len(place)] == place:
            parser.refuse((where[place], *at[len(place) :]), text)
            return
    shared = {place: sum(at[: i + 1] == place[: i + 1] for i in range(len(place))) for place in where}
    parser.refuse((where[max(where, key=shared.__getitem__)],), f"{dotted(at)}: {text}")


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping) and list(value) == ["kind"]:
        return value["kind"]  # a member without settings
    return value if value is None or isinstance(value, bool | int | float | str) else on_one_line(value)
