"""Names -> factories, metadata of members, and plug-ins of other packages."""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_members import fake_registry, weight_decay

from plasticity.config.registry import FAMILIES, Registry
from plasticity.core.errors import UserError
from plasticity.runs import launch


def test_members_are_found_by_family_and_name() -> None:
    registry = fake_registry()
    assert registry.factory("interventions", "weight_decay") is weight_decay
    assert registry["interventions"]["weight_decay"] is weight_decay
    assert registry.names("networks") == ("linear", "mlp")


def test_a_family_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        fake_registry()["networks"]["mlp"] = weight_decay  # type: ignore[index]


def test_the_same_name_twice_is_refused() -> None:
    registry = fake_registry()
    with pytest.raises(ValueError, match="'mlp' is taken by fake_members"):
        registry.register("networks", "mlp", weight_decay)
    registry.register("optimizers", "mlp", weight_decay)  # another family


@pytest.mark.parametrize(
    ("family", "name", "factory", "message"),
    [
        ("methods", "a", weight_decay, "family must be one of agents, streams"),
        ("monitors", "Rank", weight_decay, "lower case"),
        ("monitors", "a-b", weight_decay, "lower case"),
        ("monitors", "1a", weight_decay, "lower case"),
        ("monitors", "a", 3, "must be a function, got int"),
    ],
)
def test_registering_nonsense_is_refused(family: Any, name: Any, factory: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        Registry().register(family, name, factory)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        fake_registry().factory("interventions", "layer_nrm")
    assert str(caught.value) == (
        "unknown intervention `layer_nrm`; known: layer_norm, reset, weight_decay; did you mean `layer_norm`?"
    )
    with pytest.raises(UserError, match=r"^unknown monitor `zzz`; known: norm, rank$"):
        fake_registry().factory("monitors", "zzz")
    with pytest.raises(UserError, match="unknown optimizer `adam`; there is none"):
        Registry().factory("optimizers", "adam")
    with pytest.raises(UserError, match="did you mean `networks`"):
        Registry()["network"]


def test_rows_describe_every_setting() -> None:
    rows = fake_registry().rows("interventions", "weight_decay")
    assert [tuple(row) for row in rows] == [
        ("rate", "a number of at least 0", "0.0001", "traced"),
        ("per", "`update` or `learning_rate`", "update", "static"),
    ]
    row = {row.name: row for row in fake_registry().rows("agents", "learner")}
    assert tuple(row["network"]) == ("network", "one of the networks", "mlp", "member")
    assert row["optimizer"].default == "required"
    assert row["target"].default == "null"
    assert row["double"].default == "false"
    assert fake_registry().rows("monitors", "norm") == ()


def test_cards() -> None:
    registry = fake_registry()
    assert registry.metadata("interventions", "weight_decay").paper.startswith("Krogh, Hertz 1991")
    assert registry.metadata("interventions", "layer_norm").paper == ""


def test_a_signature_that_is_no_schema_is_the_users_news() -> None:
    def nameless(*, rate=0.1):  # type: ignore[no-untyped-def]
        del rate

    registry = Registry()
    registry.register("interventions", "nameless", nameless)
    with pytest.raises(UserError, match=r"intervention `nameless`: its settings cannot be read: .*`rate`"):
        registry.schema("interventions", "nameless")


# Plug-ins. The entry points are real ones of a distribution written to a folder on the path.


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes a distribution ``other-methods`` whose module and entry points are given, and puts it on the path."""

    def install(module: str, entry_points: str, name: str = "other-methods") -> None:
        (tmp_path / "other_methods.py").write_text(module)
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    yield install
    sys.modules.pop("other_methods", None)


GOOD = "def shrink(*, by: float = 0.5):\n    return ('shrink', by)\n"


def test_a_plug_in_is_a_member_like_any_other(distribution: Any) -> None:
    distribution(GOOD, "[plasticity.interventions]\nshrink = other_methods:shrink\n")
    registry = fake_registry()
    assert registry.load_plugins() == ()
    assert registry.factory("interventions", "shrink")(by=0.1) == ("shrink", 0.1)
    assert registry.rows("interventions", "shrink")[0].default == "0.5"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_plug_ins(family: Any, distribution: Any) -> None:
    distribution(GOOD, f"[plasticity.{family}]\nshrink = other_methods:shrink\n")
    registry = fake_registry()
    registry.load_plugins()
    assert "shrink" in registry.names(family)


@pytest.mark.parametrize(
    ("module", "entry", "why"),
    [
        ("import a_module_nobody_has\n", "shrink = other_methods:shrink", "ModuleNotFoundError: No module named"),
        ("x = 1 / 0\n", "shrink = other_methods:shrink", "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "shrink = other_methods:shrink", "SystemExit: 3"),
        ("class Odd(BaseException): pass\nraise Odd('x')\n", "shrink = other_methods:shrink", "Odd: x"),
        ("def shrink(*, by): pass\n", "shrink = other_methods:shrink", "`by` has no annotation"),
        (GOOD, "shrink = other_methods:absent", "AttributeError"),
        (GOOD, "shrink = other_methods", "must be a function, got module"),
    ],
)
def test_a_broken_plug_in_is_named_in_one_line_and_stops_only_what_needs_it(
    distribution: Any, module: Any, entry: Any, why: Any
) -> None:
    distribution(module, f"[plasticity.interventions]\n{entry}\n")
    registry = fake_registry()
    (line,) = registry.load_plugins()
    assert line.startswith("plug-in `shrink` of package other-methods (plasticity.interventions) cannot be used: ")
    assert why in line
    assert "\n" not in line
    assert registry.factory("interventions", "weight_decay") is weight_decay
    with pytest.raises(UserError) as caught:
        registry.factory("interventions", "shrink")
    assert str(caught.value) == line


def test_a_built_in_member_keeps_its_name(distribution: Any) -> None:
    """The plug-in is not even imported."""
    distribution("1 / 0\n", "[plasticity.interventions]\nweight_decay = other_methods:weight_decay\n")
    registry = fake_registry()
    assert registry.load_plugins() == (
        "plug-in `weight_decay` of package other-methods (plasticity.interventions) is ignored: a built-in member has "
        "that name",
    )
    assert registry.factory("interventions", "weight_decay") is weight_decay
    assert registry.origin("interventions", "weight_decay") == "built in"


def test_a_name_that_two_packages_offer_belongs_to_neither(distribution: Any) -> None:
    entries = "[plasticity.interventions]\nshrink = other_methods:shrink\n"
    distribution(GOOD, entries)
    distribution(GOOD, entries, "more-methods")
    registry = fake_registry()
    (line,) = registry.load_plugins()
    assert line == (
        "plug-in `shrink` of packages more-methods and other-methods (plasticity.interventions) is ignored: the name "
        "must belong to one package"
    )
    assert "shrink" not in registry.names("interventions")
    with pytest.raises(UserError, match="belong to one package"):
        registry.factory("interventions", "shrink")


@pytest.mark.parametrize(
    ("module", "table"),
    [
        ("plasticity.networks.catalogue", "NETWORKS"),
        ("plasticity.networks.activations", "ACTIVATIONS"),
        ("plasticity.optim.optimizers", "OPTIMIZERS"),
        ("plasticity.interventions", "INTERVENTIONS"),
        ("plasticity.monitors", "MONITORS"),
        ("agents", "AGENTS"),
        ("envs", "STREAMS"),
    ],
)
def test_every_built_in_member_has_a_schema(module: Any, table: Any) -> None:
    family = {"NETWORKS": "networks", "OPTIMIZERS": "optimizers", "AGENTS": "agents", "STREAMS": "streams"}
    registry = Registry()
    name = family.get(table, table.lower())
    registry.register_all(name, getattr(importlib.import_module(module), table))
    for member in registry.names(name):
        registry.rows(name, member)
    assert registry.names(name)


@pytest.mark.parametrize("family", ["interventions", "agents", "optimizers", "schedules", "replays", "activations"])
def test_every_built_in_member_says_against_what_it_is_checked(family: Any) -> None:
    """One phrase for `plasticity list` and the cell of a table."""
    registry = launch.registry()
    built_in = [name for name in registry[family] if registry.origin(family, name) == "built in"]
    phrases = {name: registry.metadata(family, name).checked for name in built_in}
    assert not [name for name, phrase in phrases.items() if not phrase]
    assert not [name for name, phrase in phrases.items() if phrase.endswith(".") or {"|", "\n"} & set(phrase)]
