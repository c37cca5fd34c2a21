"""One experiment: read from YAML, validated, resolved to plain data."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from plasticity.config import shipped
from plasticity.config.counters import LANES
from plasticity.config.documents import locate, read_file, replaced, value_of, with_text_keys
from plasticity.config.fields import Count, Cycles, Member, Natural, Seeds, Size
from plasticity.config.names import RESERVED, check_distinct, check_name
from plasticity.config.probes import Probe, parse_probes
from plasticity.config.registry import Registry
from plasticity.config.renamed import Renamer
from plasticity.config.schema import schema_of
from plasticity.config.settings import MemberConfig, Parser, Period, plain
from plasticity.config.sweeps import Arm, Base, Sweep, blamed, parse_arm, parse_sweep, plain_sweep
from plasticity.config.tuning import Tuning, parse_tuning, tuned
from plasticity.core.errors import KEYS, Location, NoSuchPlaceError, UserError, cut, report, shown, unknown

ARMS = 200  # each is a separate program, traced in about a second and compiled in several


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Placement of lanes on devices."""

    width: Size | Literal["auto"] = "auto"  # lanes vectorised together
    devices: Size | Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A sequence of visits that replaces the stream's own (``plasticity.engine.visits.scheduled``)."""

    order: Literal["fixed", "shuffled"] = "fixed"  # shuffled: a different order of tasks for each seed
    visits: tuple[Natural | str, ...] | None = None  # names or numbers of tasks
    steps: Count | tuple[Count, ...] | None = None  # env steps of each env in a visit; a list is used cyclically
    cycles: Cycles = 1  # repetitions of the sequence
    skip: Natural = 0  # visits at the beginning that are left out; the others keep their problems and data
    take: Count | None = None  # visits after them; default: all

    def resolve(self) -> dict[str, Any]:
        """Plain data; without ``skip`` and ``take`` where they change nothing."""
        whole = self.skip == 0 and self.take is None
        return {name: plain(value) for name, value in vars(self).items() if not (whole and name in ("skip", "take"))}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation episodes, without learning, in separate environments."""

    every: Period = "visit"
    tasks: Literal["current", "seen", "all"] = "current"
    episodes: Count = 10  # per lane
    steps: Count = 10_000  # maximum env steps; the exact number for a stream without episodes
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.0  # probability of a random action


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """The keys of a config file, from which an :class:`Experiment` is built."""

    name: str | None = None  # default: the file's name without its suffix
    stream: Annotated[Any, Member("streams")]
    transforms: Annotated[tuple[Any, ...], Member("transforms")] = ()  # of the stream, the first one innermost
    schedule: dict[Any, Any] | None = None
    agent: Annotated[Any, Member("agents")]
    interventions: Annotated[tuple[Any, ...], Member("interventions")] = ()  # default of every arm
    task_aware: bool = False  # default of every arm: whether the learner may know of task switches
    monitors: Annotated[tuple[Any, ...], Member("monitors")] = ()
    monitor_every: Period = "visit"  # of the monitors without their own ``every``
    record_every: Count | None = None  # env steps
    probe_size: Size = 512  # number of transitions passed to a monitor
    seeds: Seeds = 1  # n: 0 ... n - 1
    arms: dict[Any, Any] | None = None  # default: {baseline: {}}
    reference: bool = False  # add the arm ``fresh``, the control of all arms that have none: reset at every switch
    sweep: dict[Any, Any] | None = None
    tune: dict[Any, Any] | None = None
    evaluation: dict[Any, Any] | None = None
    probes: dict[Any, Any] | None = None
    placement: dict[Any, Any] | None = None
    checkpoint_every: Period = "visit"
    keep_checkpoints: tuple[Count, ...] | Literal["all"] = ()  # after how many visits one is kept; others are replaced
    recorders: tuple[Literal["tensorboard", "wandb"], ...] = ()  # outputs besides the tables
    compilation_cache: bool = True  # keep compiled programs for later runs, in the user's cache folder


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A validated config with every default explicit."""

    name: str
    stream: MemberConfig
    transforms: tuple[MemberConfig, ...]
    schedule: Schedule
    agent: MemberConfig
    interventions: tuple[MemberConfig, ...]
    task_aware: bool
    monitors: tuple[MemberConfig, ...]
    monitor_every: int | Literal["visit"]
    record_every: int | None
    probe_size: int
    seeds: tuple[int, ...]
    arms: Mapping[str, Arm]
    reference: bool
    sweep: Sweep
    evaluation: Evaluation | None
    placement: Placement
    checkpoint_every: int | Literal["visit"]
    recorders: tuple[str, ...]
    compilation_cache: bool
    tune: Tuning | None = None
    keep_checkpoints: tuple[int, ...] | Literal["all"] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[int, ...] | Literal["all"]:
        """After how many visits a checkpoint is kept, for the probes too."""
        counts: set[int] = set()
        for asked in (self.keep_checkpoints, *(probe.at for probe in self.probes.values())):
            if asked == "all":
                return "all"
            counts |= set(asked)
        return tuple(sorted(counts))

    def resolve(self) -> dict[str, Any]:
        """Plain data with defaults filled in; as a config (``to_yaml``) it is read back as an equal experiment.

        An arm lists only its changes to the base, so overrides of the base still apply to it.
        """
        counted = self.seeds == tuple(range(len(self.seeds)))
        return {
            "name": self.name,
            "stream": self.stream.dump(),
            "transforms": [each.dump() for each in self.transforms],
            "schedule": self.schedule.resolve(),
            "agent": self.agent.dump(),
            "interventions": [each.dump() for each in self.interventions],
            "task_aware": self.task_aware,
            "monitors": [each.dump() for each in self.monitors],
            "monitor_every": self.monitor_every,
            "record_every": self.record_every,
            "probe_size": self.probe_size,
            "seeds": len(self.seeds) if counted else list(self.seeds),
            "arms": {
                name: arm.dump(self.agent, self.interventions, self.task_aware) for name, arm in self.arms.items()
            },
            "reference": self.reference,
            "sweep": plain_sweep(self.sweep),
            **({"tune": self.tune.resolve()} if self.tune else {}),
            "evaluation": asdict(self.evaluation) if self.evaluation else None,
            "placement": asdict(self.placement),
            "checkpoint_every": self.checkpoint_every,
            **({"probes": {name: probe.dump() for name, probe in self.probes.items()}} if self.probes else {}),
            **({"keep_checkpoints": plain(self.keep_checkpoints)} if self.keep_checkpoints else {}),
            "recorders": list(self.recorders),
            "compilation_cache": self.compilation_cache,
        }


def load_config(path: str | Path, overrides: Sequence[str] = (), *, registry: Registry) -> Experiment:
    """Read and validate the experiment in a YAML file.

    Args:
        path: the file, or the name of a config shipped with the package (:mod:`plasticity.config.shipped`).
        overrides: ``agent.optimizer.learning_rate=1e-3``; the value is YAML. ``interventions.weight_decay.rate=0`` and
            ``interventions.0.rate=0`` select a member of a list by its kind or its index.
        registry: the known members of each family.

    Raises:
        UserError: up to three lines, naming file, key, value and the allowed values.
    """
    found = shipped.resolve(path)
    raw = read_file(found)
    if isinstance(raw, Mapping) and "finding" in raw and ("experiment" in raw or "exact" in raw):
        name = shipped.finding_name(found)
        raise UserError(f"{path}: is a finding, not an experiment; run it with: plasticity findings {name}")
    return read_experiment(raw, registry, overrides, source=str(path), name=found.stem)


def read_experiment(
    raw: Any, registry: Registry, overrides: Sequence[str] = (), *, source: str = "", name: str = "experiment"
) -> Experiment:
    """Read and validate an experiment given as plain data; ``source`` starts every line of an error.

    See :func:`load_config`.
    """
    if not isinstance(raw, Mapping):
        what = "is empty" if raw is None else f"must be a mapping of keys, got {shown(raw)}"
        raise UserError(": ".join(filter(None, (source, what))))
    renamer = Renamer(registry)
    raw = renamer.document(with_text_keys(raw))
    _warn(renamer, source)
    typed: list[Location] = []
    for override in overrides:
        raw, location = _overridden(raw, override, renamer)
        typed.append(location)
    _warn(renamer, "command line")

    def origin(at: Location) -> str:
        if any(at[: len(location)] == location for location in typed):
            return "command line"
        partly = any(location[: len(at)] == at for location in typed)
        return " and ".join(filter(None, (source, "command line"))) if partly else source

    parser = Parser(registry)
    experiment = _parse(parser, raw, name)
    if experiment is None or parser.problems:
        raise report(parser.problems, origin)
    return experiment


def _warn(renamer: Renamer, source: str) -> None:
    """One warning for each old name."""
    for note in renamer.notes:
        warnings.warn(": ".join(filter(None, (source, note))), UserWarning, stacklevel=3)
    renamer.notes.clear()


def _overridden(raw: Any, override: str, renamer: Renamer) -> tuple[Any, Location]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"command line: {shown(override)} is not of the form KEY=VALUE")
    key = renamer.path(raw, key)
    value = value_of(key.rpartition(".")[2], text, f"command line: {cut(key, KEYS)}")
    try:
        location = locate(raw, key)
    except NoSuchPlaceError as error:
        raise UserError(f"command line: {cut(key, KEYS)}: {error}") from None
    if value is None and location[:-1] == ("arms",):
        return _without_arm(raw, str(location[-1])), location[:-1]
    return renamer.document(replaced(raw, location, value), later=True), location


def _without_arm(raw: Any, name: str) -> Any:
    """The config without an arm: ``arms.NAME=null`` on the command line."""
    arms = raw.get("arms") or {}
    if name not in arms:
        raise UserError(f"command line: arms.{cut(name, KEYS)}=null: {unknown(f'arm {shown(name)}', name, arms)}")
    if len(arms) == 1:
        raise UserError(f"command line: arms.{cut(name, KEYS)}=null: it is the only arm; a run needs at least one")
    return {**raw, "arms": {key: arm for key, arm in arms.items() if key != name}}


def _parse(parser: Parser, raw: Mapping[str, Any], name: str) -> Experiment | None:
    values = parser.settings(schema_of(ConfigFile), raw, ())
    placement = parser.settings(schema_of(Placement), values.get("placement") or {}, ("placement",))
    schedule = parser.settings(schema_of(Schedule), values.get("schedule") or {}, ("schedule",))
    given = values.get("evaluation")
    evaluation = None if given is None else parser.settings(schema_of(Evaluation), given, ("evaluation",))
    sweep = parse_sweep(parser, values.get("sweep") or {}, ("sweep",))
    if parser.problems:
        return None
    document = ConfigFile(**values)
    seeds = tuple(range(document.seeds)) if isinstance(document.seeds, int) else document.seeds
    title = name if document.name is None else document.name
    check_name(parser, title, ("name",))
    _check_doubled(parser, "seeds", seeds)
    _check_doubled(parser, "recorders", document.recorders)
    _check_doubled(parser, "monitors", [replace(each, every=None) for each in document.monitors])
    parsed = values | {"name": title, "seeds": seeds, "sweep": sweep, "placement": Placement(**placement)}
    parsed["schedule"] = Schedule(**schedule)
    parsed["evaluation"] = None if evaluation is None else Evaluation(**evaluation)
    arms = _parse_arms(parser, document, sweep, len(seeds))
    tune = None if document.tune is None else parse_tuning(parser, document.tune, seeds, arms)
    probes = parse_probes(parser, document.probes or {}, arms)
    for probe in probes:
        check_name(parser, probe, ("probes", probe))
    check_distinct(parser, "probes", probes)
    for name in arms if probes else ():
        if name.lower() == "probes":
            parser.refuse(("arms", name), "is a reserved name with `probes`; choose another name")
    return tuned(Experiment(**parsed | {"arms": arms, "tune": tune, "probes": probes}))


def _parse_arms(parser: Parser, document: ConfigFile, sweep: Sweep, seeds: int) -> dict[str, Arm]:
    arms = {}
    given: Mapping[str, Any] = document.arms or {"baseline": {}}
    given = _with_reference(given, document.interventions) if document.reference else given
    if len(given) > ARMS:
        parser.refuse(("arms",), f"{len(given)} arms are not allowed; at most {ARMS} (use a sweep instead)")
        return {}
    check_distinct(parser, "arms", given)
    for name, raw in given.items():
        check_name(parser, name, ("arms", name), RESERVED)
        base = Base(document.agent, document.interventions, document.task_aware)
        arm = parse_arm(parser, name, raw, base, sweep)
        if arm is not None:
            arms[name] = arm
            _check_lanes(parser, name, len(arm.points) * seeds)
    parser.problems = blamed(parser.problems, len(given))
    for name, raw in given.items():
        control = raw.get("control") if isinstance(raw, Mapping) else None
        if control is not None:
            _check_control(parser, name, control, given)
    return arms


def _with_reference(given: Mapping[str, Any], interventions: Sequence[MemberConfig]) -> Mapping[str, Any]:
    """Add the arm ``fresh``, the base with a reset at every switch, unless each arm has a control or is one."""
    chosen = {name: raw.get("control") if isinstance(raw, Mapping) else None for name, raw in given.items()}
    if FRESH in given or all(control or name in chosen.values() for name, control in chosen.items()):
        return given
    reset = {"kind": "reset", "when": "switch"}
    fresh = {"task_aware": True, "interventions": [*(each.dump() for each in interventions), reset]}
    return {**given, FRESH: fresh}


def _check_lanes(parser: Parser, arm: str, lanes: int) -> None:
    if lanes > LANES:
        parser.refuse(("arms", arm), f"its points x seeds give {lanes:,} lanes; at most {LANES:,} are allowed")


def _check_control(parser: Parser, name: str, control: Any, given: Mapping[str, Any]) -> None:
    """Refuse a fresh control that is not another arm or that has its own control."""
    at: Location = ("arms", name, "control")
    if not isinstance(control, str) or control not in given:
        parser.refuse(at, unknown(f"arm {shown(control)}", str(control), list(given), "in this config"))
    elif control == name:
        parser.refuse(at, f"{shown(control)} is the arm itself; name the arm that is reset at every task switch")
    elif isinstance(given[control], Mapping) and given[control].get("control") is not None:
        parser.refuse(at, f"{shown(control)} has its own control, so it cannot be a control")


FRESH = "fresh"  # the default control


def controls(arms: Mapping[str, Arm]) -> dict[str, str | None]:
    """The fresh control of each arm: the one it names, else the arm ``fresh``; None for the controls themselves."""
    named = {arm.control for arm in arms.values() if arm.control} | {FRESH}
    usual = FRESH if FRESH in arms else None
    return {name: arm.control or (None if name in named else usual) for name, arm in arms.items()}


def _check_doubled(parser: Parser, key: str, items: Sequence[Any]) -> None:
    first: dict[Any, int] = {}
    for i, item in enumerate(items):
        if item in first:
            text = f"`{item.kind}` with the same settings" if isinstance(item, MemberConfig) else str(item)
            parser.refuse((key, i), f"{text} is given twice")
        first.setdefault(item, i)
