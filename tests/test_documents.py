"""YAML in and out, dotted paths, and mappings laid over one another."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity.config.documents import (
    NAMED,
    difference,
    found,
    from_yaml,
    labels,
    locate,
    merged,
    on_one_line,
    read_file,
    replaced,
    to_yaml,
)
from plasticity.core.errors import NoSuchPlaceError, UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+3", 1000.0),
        ("-2.5e-1", -0.25),
        (".5", 0.5),
        ("3.", 3.0),
        ("1_000", 1000),
        ("+7", 7),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_and_constants(text: Any, value: Any) -> None:
    assert from_yaml(text, "x") == value
    assert type(from_yaml(text, "x")) is type(value)


@pytest.mark.parametrize(
    "text", ["on", "no", "Yes", "010", "0x10", "1:30", "2020-01-01", "1e", "e3", "+", ".", "1e-3x", "="]
)
def test_what_yaml_1_1_would_convert_is_text(text: Any) -> None:
    assert from_yaml(text, "x") == text


def test_anchors_and_merge_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: *a}\n"
    assert from_yaml(text, "x") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml, line 3, column 1: the key `a` is given twice (first on line 1)"),
        ("s:\n  x: 1\n  x: 1\n", "f.yaml, line 3, column 3: the key `x` is given twice (first on line 2)"),
        ("a: {b: 1, b: 2}", "f.yaml, line 1, column 11: the key `b` is given twice (first on line 1)"),
        ("a: b: c", "f.yaml, line 1, column 5: mapping values are not allowed here"),
        ("a:\n\t- 1", "f.yaml, line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "f.yaml, line 2, column 1: a second document begins; one file holds one"),
        ("*a", "f.yaml, line 1, column 1: found undefined alias 'a'"),
        ("a: 1\nb: \x01\n", "f.yaml, line 2: the character U+0001 is not allowed in YAML"),
    ],
)
def test_errors_name_line_and_column(text: Any, message: Any) -> None:
    with pytest.raises(UserError) as caught:
        from_yaml(text, "f.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["a: [1", "!!python/object/apply:os.getcwd []", "? [1]\n: 2", "a: \x01", "--- 1\n--- 2"]
)
def test_other_errors_are_one_line(text: Any) -> None:
    with pytest.raises(UserError, match=r"^f\.yaml[:,] ") as caught:
        from_yaml(text, "f.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: &b [*b]", "a: &b {c: *b}", "[" * 3000 + "]" * 3000])
def test_endless_data_are_refused(text: Any) -> None:
    with pytest.raises(
        UserError,
        match=r"^f.yaml, line 1, column \d+: (a value contains itself|lists .* nested more than 50 deep)$",
    ):
        from_yaml(text, "f.yaml")


def test_missing_files(tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"a.yaml: no such file; there is no config in "):
        read_file(tmp_path / "a.yaml")
    for name in ("quickstart.yaml", "atari.yml", "notes.txt"):
        (tmp_path / name).write_text("a: 1")
    with pytest.raises(UserError) as caught:
        read_file(tmp_path / "quickstrt.yaml")
    near = tmp_path / "quickstart.yaml"
    assert str(caught.value).endswith(f"; in {tmp_path}: atari.yml, quickstart.yaml; did you mean `{near}`?")
    with pytest.raises(UserError, match=r"did you mean `.*quickstart.yaml`"):
        read_file(tmp_path / "quickstart")
    with pytest.raises(UserError, match="does not exist"):
        read_file(tmp_path / "nowhere" / "a.yaml")
    with pytest.raises(UserError) as caught:
        read_file(tmp_path)
    told = "is a folder, not a config; give one of its files: atari.yml, quickstart.yaml"
    assert str(caught.value) == f"{tmp_path}: {told}"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/experiment.yaml").touch()
    with pytest.raises(UserError, match=r"run: is the folder of a run, not a config; its config is .*experiment.yaml$"):
        read_file(tmp_path / "run")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="UTF-8"):
        read_file(tmp_path / "binary.yaml")
    assert read_file(near) == {"a": 1}


TEXTS = st.text(max_size=8) | st.sampled_from(
    ["1e-3", "on", "null", "1", "1.5", "true", "2020-01-01", "", "~", "a: b", "# c", "<<", "=", "0x1", ".inf", "1_0"]
)
KEYS = TEXTS.filter(lambda key: key not in NAMED)  # their values are always text
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
DATA = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types (1, 1.0 and True are three things)."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=150, deadline=None)
@given(DATA)
def test_what_is_written_is_read_back(data: Any) -> None:
    assert same(from_yaml(to_yaml(data, comment="by\nsomeone"), "x"), data)
    assert same(from_yaml(on_one_line(data), "x"), data)
    assert "\n" not in on_one_line(data)


def test_line_breaks_stay_on_one_line() -> None:
    assert on_one_line(["a\nb", 1]) == '["a\\nb", 1]'


def test_other_programs_read_the_same_text() -> None:
    data = {"a": "on", "b": "1e-3", "c": "2020-01-01", "d": 1e-5, "e": "010", "f": 3, "g": "0x10"}
    assert yaml.safe_load(to_yaml(data)) == data


def test_labels_are_kinds_unless_one_comes_twice() -> None:
    assert labels(["a", {"kind": "b"}, {"kind": "a", "x": 1}, 3]) == ("0", "b", "2", "3")


DOCUMENT = {
    "agent": {"kind": "dqn", "network": "mlp"},
    "interventions": ["nap", {"kind": "decay", "rate": 1}, "reset", "reset"],
    "arms": {"a": {"x": 1}, "a.b": {"x": 2}},
    "sweep": {"agent.rate": [1]},
}


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("agent.network", ("agent", "network")),
        ("agent.network.widths", ("agent", "network", "widths")),
        ("agent.optimizer.rate", ("agent", "optimizer", "rate")),
        ("interventions.decay.rate", ("interventions", 1, "rate")),
        ("interventions.1.rate", ("interventions", 1, "rate")),
        ("interventions.nap.period", ("interventions", 0, "period")),
        ("interventions.2.when", ("interventions", 2, "when")),
        ("arms.a.x", ("arms", "a", "x")),
        ("arms.a.b.x", ("arms", "a.b", "x")),
        ("sweep.agent.rate", ("sweep", "agent.rate")),
        ("sweep.agent.other.rate", ("sweep", "agent.other.rate")),
        ("arms.a.sweep.agent.rate", ("arms", "a", "sweep", "agent.rate")),
    ],
)
def test_locate(path: Any, location: Any) -> None:
    assert locate(DOCUMENT, path) == location


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("interventions.napp.x", "there is no `napp` in this list; it has nap, decay, 2, 3; did you mean `nap`"),
        ("interventions.9.x", "there is no `9` in this list"),
        ("interventions.reset.when", "several `reset`; use an index"),
        ("arms.a.x.y", "there is no key `y`: the value above it is 1"),
    ],
)
def test_paths_to_nowhere(path: Any, message: Any) -> None:
    with pytest.raises(NoSuchPlaceError, match=message):
        locate(DOCUMENT, path)


def test_replacing() -> None:
    document = {"agent": "dqn", "list": ["nap", "reset"], "empty": None}
    assert replaced(document, ("agent", "rate"), 1) == document | {"agent": {"kind": "dqn", "rate": 1}}
    assert replaced(document, ("list", 1, "when"), "x") == document | {"list": ["nap", {"kind": "reset", "when": "x"}]}
    assert replaced(document, ("empty", "a", "b"), 1) == document | {"empty": {"a": {"b": 1}}}
    assert replaced(document, (), 1) == 1
    assert document == {"agent": "dqn", "list": ["nap", "reset"], "empty": None}


def test_a_new_kind_takes_the_old_settings_away() -> None:
    assert replaced({"kind": "adam", "b1": 0.9}, ("kind",), "sgd") == {"kind": "sgd"}
    assert replaced({"kind": "adam", "b1": 0.9}, ("kind",), "adam") == {"kind": "adam", "b1": 0.9}


def test_found() -> None:
    assert found(DOCUMENT, ("interventions", 1, "rate")) == 1
    assert found(DOCUMENT, ("interventions", 0, "kind")) == "nap"
    assert found(DOCUMENT, ("agent", "nothing", "more")) is None


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}, {"a": 1, "b": {"c": 4, "d": 3}}),
        ({"kind": "x", "a": 1}, {"a": 2}, {"kind": "x", "a": 2}),
        ({"kind": "x", "a": 1}, {"kind": "x", "b": 2}, {"kind": "x", "a": 1, "b": 2}),
        ({"kind": "x", "a": 1}, {"kind": "y", "b": 2}, {"kind": "y", "b": 2}),
        ({"kind": "x", "a": 1}, "x", {"kind": "x", "a": 1}),
        ({"kind": "x", "a": 1}, "y", {"kind": "y"}),
        ({"kind": "x", "n": {"kind": "p", "w": 1}}, {"n": "q"}, {"kind": "x", "n": {"kind": "q"}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}),
        (None, {"a": 1}, {"a": 1}),
    ],
)
def test_merging(base: Any, over: Any, result: Any) -> None:
    assert merged(base, over) == result


def members(depth: int = 2) -> Any:
    """Full members (``kind`` decides which settings there are), nested."""
    leaf = st.integers(0, 2)
    inner = members(depth - 1) | st.none() if depth else leaf
    x = st.fixed_dictionaries({"kind": st.just("x"), "a": leaf, "b": inner})
    y = st.fixed_dictionaries({"kind": st.just("y"), "c": st.lists(leaf, max_size=2)})
    return x | y


@settings(max_examples=200, deadline=None)
@given(members(), members())
def test_a_difference_laid_over_the_base_is_the_whole(base: Any, full: Any) -> None:
    assert merged(base, difference(base, full)) == full
    assert difference(base, base) == {}
