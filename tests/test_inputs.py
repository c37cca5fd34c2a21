"""Limits of user input: YAML, keys, messages, integers, counters, and JAX's settings."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny
from stress import configs as stress

from plasticity.config import experiments
from plasticity.config.counters import LANES, VISITS, check_updates
from plasticity.config.documents import LENGTH, from_yaml, read_file, to_yaml
from plasticity.config.experiments import read_experiment
from plasticity.config.registry import FAMILIES
from plasticity.config.schema import schema_of
from plasticity.config.settings import MonitorKeys
from plasticity.core.errors import LINE, UserError, contrasted, cut, dotted, nearest, shown
from plasticity.core.types import StreamSpec, VisitPlan
from plasticity.engine import precision
from plasticity.envs.transforms.base import divided
from plasticity.runs import launch

ROOT = Path(__file__).resolve().parent.parent


def refusal(text: str) -> str:
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        from_yaml(text, "x.yaml")
    assert time.process_time() - start < 10
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= LINE
    return message


# Keys.


@pytest.mark.parametrize("key", ["1", "true", "2020-01-01", "1e-3", "1.10", "null", "~", "0x1", "1_000", ".inf", "01"])
def test_a_key_is_text_as_written(key: str) -> None:
    data = from_yaml(f"arms: {{{key}: {{}}}}", "x")
    assert data == {"arms": {key: {}}}
    assert from_yaml(to_yaml(data), "x") == data
    assert from_yaml(f"{key}:\n  {key}: 1\n", "x") == {key: {key: 1}}
    assert from_yaml(f"'{key}': 1", "x") == {key: 1}
    assert "given twice" in refusal(f"{key}: 1\n'{key}': 2\n")


@pytest.mark.parametrize("name", ["1", "true", "2020-01-01", "1e-3", "1.10", "null"])
def test_an_override_changes_only_its_own_key_of_an_arm(name: str) -> None:
    raw = tiny.document(arms={}) | from_yaml(f"arms: {{{name}: {{interventions: [nap]}}, other: {{}}}}", "x")
    experiment = read_experiment(raw, launch.registry(), [f"arms.{name}.task_aware=true"])
    assert list(experiment.arms) == [name, "other"]
    assert experiment.arms[name].task_aware
    assert [each.kind for each in experiment.arms[name].interventions] == ["nap"]
    again = read_experiment(from_yaml(to_yaml(experiment.resolve()), "x"), launch.registry())
    assert again == experiment


@pytest.mark.parametrize("name", ["2024", "true", "2020-01-01", "1e-3", "1.10", "0x1", "1_000"])
def test_a_name_is_text_as_written(name: str) -> None:
    """In a file, on the command line, and where an arm names its control."""
    text = f"{{name: {name}, arms: {{{name}: {{}}, other: {{control: {name}}}}}}}"
    written = read_experiment(tiny.document() | from_yaml(text, "x"), launch.registry())
    assert written.name == name
    assert written.arms["other"].control == name
    typed = read_experiment(
        tiny.document(arms={name: {}, "other": {}}), launch.registry(), [f"name={name}", f"arms.other.control={name}"]
    )
    assert (typed.name, typed.arms) == (written.name, written.arms)
    assert read_experiment(from_yaml(to_yaml(typed.resolve()), "x"), launch.registry()) == typed


@pytest.mark.parametrize("name", ["null", "~", ""])
def test_no_name_is_the_usual_one(name: str) -> None:
    assert from_yaml(f"name: {name}", "x") == {"name": None}
    document = {key: value for key, value in tiny.document().items() if key != "name"}
    assert read_experiment(document, launch.registry(), [f"name={name}"]).name == "experiment"


def test_what_would_take_a_plan_minutes_is_quick_or_refused() -> None:
    visits = tuple(VisitPlan(i % 3, 1) for i in range(200_000))
    spec = StreamSpec(jax.ShapeDtypeStruct((2,), "float32"), 2, ("a", "b", "c"), visits, envs=1, episodic=True)
    assert [visit.task for visit in divided(spec, "visit").spec.visits] == list(
        range(200_000)
    )  # in time that grows with their number
    assert len(launch.plan(tiny.experiment(arms={f"a{i}": {} for i in range(200)})).jobs) == 200  # traced once
    with pytest.raises(UserError, match=r"arms: 201 arms are not allowed; at most 200"):
        tiny.experiment(arms={f"a{i}": {} for i in range(201)})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"monitors": ["weight_norm"], "monitor_every": 1000}, "monitor_every"),
        ({"monitors": [{"kind": "weight_norm", "every": 1000}]}, r"monitors\.weight_norm\.every"),
        ({"evaluation": {"every": 1000}}, r"evaluation\.every"),
    ],
)
def test_what_is_due_after_the_end_is_warned_of(changes: dict[str, Any], key: str) -> None:
    with pytest.warns(UserWarning, match=rf"^{key}: 1000 is more than the \d+ steps of the run, so it is never due$"):
        launch.plan(tiny.experiment(**changes))


def test_a_method_that_never_acts_is_warned_of() -> None:
    steps = sum(visit.steps for visit in launch.plan(tiny.experiment()).spec.visits)
    late = {"kind": "redo", "period": steps + 1}
    arms = {
        "late": {"interventions": [late]},
        "later": {"interventions": ["l2_init", late]},
        "at_the_end": {"interventions": [{"kind": "redo", "period": steps}]},
        "at_switches": {"interventions": ["reset"], "task_aware": True},  # its period, of 20,000, is not used
    }
    text = f"interventions.redo.period: {steps + 1} is more than the {steps} updates of the run, so it is never due"
    with pytest.warns(UserWarning, match=f"^arms.late, later: {text}$") as found:
        launch.plan(tiny.experiment(arms=arms))
    assert len(found) == 1


def test_a_setting_that_is_counted_one_further_stays_an_int32() -> None:
    member = {"kind": "continual_backprop", "maturity_period": 2**31 - 1}
    with pytest.raises(UserError, match=r"maturity_period: 2147483647 is not allowed"):
        tiny.experiment(interventions=[member])
    assert launch.plan(tiny.experiment(interventions=[{**member, "maturity_period": 2**31 - 2}])).jobs


@pytest.mark.parametrize("override", ["=3", ".=3", "a..b=3", ".a=3", "a.=3", "seeds"])
def test_an_override_without_a_key_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=f'^command line: "{override}" is not of the form KEY=VALUE$'):
        read_experiment(tiny.document(), launch.registry(), [override])


def test_keys_made_in_python_are_text_too() -> None:
    experiment = read_experiment(
        tiny.document(arms={1: {"task_aware": True}, None: {}}), launch.registry(), ["arms.1.task_aware=false"]
    )
    assert list(experiment.arms) == ["1", "null"]
    with pytest.raises(UserError, match="equal as text"):
        read_experiment(tiny.document(arms={1: {}, "1": {}}), launch.registry())
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(UserError, match="nested more than"):
        read_experiment(tiny.document(arms=endless), launch.registry())


# The loader.


@pytest.mark.parametrize(
    "value", ["!!bool foo", '!!int ""', "!!python/name:os.system", "!x 1", "!!str 1", "! 1", "!!null 1"]
)
def test_a_tag_is_refused_in_one_line(value: str) -> None:
    assert refusal(f"a: 1\nseeds: {value}").startswith("x.yaml, line 2, column 8: the tag `!")


def test_what_would_take_too_much_is_refused_soon() -> None:
    assert "is too large" in refusal(stress.BOMB)
    merged = "a0: &a0 {x: 1, y: 2}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9)
    )
    assert "is too large" in refusal(merged)
    assert "contains itself" in refusal("a: &a [*a]")
    assert "nested more than" in refusal("[" * 100_000)
    assert "nested more than" in refusal("".join(" " * i + f"a{i}:\n" for i in range(500)))
    assert "too long" in refusal("a" * (LENGTH + 1))
    assert "digits is too long" in refusal("1" * 5000)
    assert from_yaml("a: &a [1, 2]\nb: [*a, *a]", "x") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_an_endless_file_is_refused() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero")
    with pytest.raises(UserError, match="too long"):
        read_file("/dev/zero")


def test_no_module_reads_yaml_by_itself() -> None:
    for top in ("plasticity", "agents", "envs"):
        for path in (ROOT / top).rglob("*.py"):
            assert path.name == "documents.py" or "import yaml" not in path.read_text(), path


# Messages.

NASTY = ["a\nb", "\x1b[31mred", "\u202eright", "\u2028", "\x00", "k" * 5000, "\ud800", "\x85", "\u200b"]


@pytest.mark.parametrize("text", NASTY)
def test_what_a_user_wrote_is_shown_escaped_and_cut(text: str) -> None:
    for said in (shown(text), cut(text, 40), dotted(("arms", text)), shown({text: text}), shown([text] * 10_000)):
        assert said.isprintable()
        assert len(said) <= 170
    with pytest.raises(UserError) as caught:
        read_experiment(tiny.document(**{text: 1}, seeds=text), launch.registry(), source="x.yaml")
    assert len(str(caught.value).split("\n")) <= 3
    for raw in (tiny.document(arms={text: {}}), tiny.document(agent={"kind": text}), tiny.document(name=text)):
        with pytest.raises(UserError) as caught:
            read_experiment(raw, launch.registry())
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) <= LINE
    with pytest.raises(UserError) as caught:
        raise UserError("\n".join([text] * 9))
    lines = str(caught.value).split("\n")
    assert len(lines) <= 3
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= LINE


def test_two_values_are_cut_around_their_difference() -> None:
    one, other = list(range(1000)), [*range(700), -5, *range(701, 1000)]
    a, b = contrasted(one, other)
    assert "699, 700, 701" in a
    assert "699, -5, 701" in b
    assert len(a) <= 60
    assert len(b) <= 60
    assert a.startswith("...")
    assert a.endswith("...")
    assert contrasted({"a": 1}, {"a": 2}) == ('{"a": 1}', '{"a": 2}')
    assert contrasted("x" * 500, "x" * 500 + "y")[1].endswith('y"')


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("learning_rat", ["learning_rate", "b1"], "learning_rate"),
        ("layer_nrom", ["layer_norm", "rms_norm"], "layer_norm"),
        ("Layer-Norm", ["layer_norm"], "layer_norm"),
        ("dqm", ["dqn", "ppo"], "dqn"),
        ("seed", ["seeds"], "seeds"),
        ("lr", ["learning_rate", "l2"], None),
        ("banana", ["batch_size", "b1", "lambda"], None),
        ("classifier", ["regressor", "stream_c51"], None),
        ("nothing", ["nap", "switch", "fishing"], None),
        ("", ["a"], None),
        ("x" * 5000, ["x" * 64], None),
    ],
)
def test_only_a_near_name_is_suggested(word: str, known: list[str], meant: str | None) -> None:
    assert nearest(word, known) == meant


# Integers.

SCHEMAS = {
    **{
        c.__name__: schema_of(c)
        for c in (experiments.ConfigFile, experiments.Schedule, experiments.Evaluation, experiments.Placement)
    },
    "MonitorKeys": schema_of(MonitorKeys),
    **{
        f"{family}.{name}": launch.registry().schema(family, name)
        for family in FAMILIES
        for name in launch.registry().names(family)
    },
}


@pytest.mark.parametrize("number", [10**18, 2**31, -1 - 2**31])
def test_no_integer_setting_is_without_a_bound(number: int) -> None:
    """Every setting that allows integers refuses what no int32 holds; floats are another matter."""
    for owner, schema in SCHEMAS.items():
        for name, setting in schema.items():
            if "integer" not in setting.allowed:
                continue
            for value in (number, [number]):
                with pytest.raises(ValueError, match="is not allowed"):
                    print(owner, name, setting.parse(value))


@pytest.mark.parametrize(
    "override",
    [
        "stream.tasks=1000000000",
        "stream.tasks=1000000",
        "stream.steps_per_task=2147483647",
        "stream.samples=1000000000",
        "stream.envs=1000000",
        "stream.dimensions=1000000",
        "schedule={cycles: 1000000}",
        "agent.network.widths=[1000000]",
        "seeds=100000",
        "probe_size=1000000",
    ],
)
def test_an_absurd_number_is_refused_at_once_or_planned_soon(override: str) -> None:
    start, said = time.process_time(), ""
    try:
        launch.plan(read_experiment(tiny.document(), launch.registry(), [override]))
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stream.tasks=1000000000"], "stream.tasks: 1000000000 is not allowed; must be an integer in .1, 1000000."),
        (["stream.steps_per_task=1000000000"], "stream: the env steps of all visits would be 3,000,000,000; at most"),
        (["schedule={steps: 1000000000}"], "schedule: the env steps of all visits would be 3,000,000,000"),
        (["schedule={cycles: 1000000}"], "schedule: the number of visits .* would be 3,000,000; at most 1,000,000"),
        (
            ["seeds=100000", "sweep={agent.optimizer.learning_rate: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}"],
            "lanes; at most",
        ),
        (["sweep={agent.optimizer.learning_rate: " + str(list(range(1, 10_002))) + "}"], "at most 10,000 are allowed"),
    ],
)
def test_what_a_counter_cannot_hold_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        launch.plan(read_experiment(tiny.document(), launch.registry(), overrides))
    assert "\n" not in str(caught.value)


def test_updates_are_counted_before_they_are_made() -> None:
    spec = StreamSpec(None, 2, ("a",), (VisitPlan(0, 2**30),), 1, False)
    check_updates("k", spec, 2**31 - 1, 2**30)  # exactly what the counter holds
    with pytest.raises(ValueError, match="k: the updates of all visits would be 2,147,483,648"):
        check_updates("k", spec, 2, 1)
    assert VISITS == LANES == 10**6


# JAX's settings.


def test_settings_that_change_numbers_are_reset_and_reported(monkeypatch: Any) -> None:
    for name, other in (("jax_enable_x64", True), ("jax_default_prng_impl", "rbg")):
        before = getattr(jax.config, name)
        jax.config.update(name, other)
        try:
            with pytest.warns(UserWarning, match=f"{name.upper()} was {other}"):
                precision.restore()
            assert getattr(jax.config, name) == before
            jax.config.update(name, other)
            with pytest.raises(UserError, match=f"sets {name} to {other} while it is built"):
                precision.check_unchanged()
            assert getattr(jax.config, name) == before
        finally:
            jax.config.update(name, before)


RUN = """
import sys, tiny
from plasticity.runs import launch
from plasticity import results
launch.run(tiny.experiment(seeds=1), sys.argv[1])
print(results.load(sys.argv[1]).to_csv())
"""


@pytest.mark.slow
def test_a_run_in_a_64_bit_environment_has_the_same_numbers(tmp_path: Path) -> None:
    told = []
    for extra in ({}, {"JAX_ENABLE_X64": "1"}, {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0"}):
        environment = {**os.environ, **extra, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / str(len(told)))],
            env=environment, capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        told.append(done.stdout)
        assert all(f"{name} was" in done.stderr for name in extra)
    assert told[0] == told[1] == told[2]


# Shipped configs, and broken ones.


@pytest.mark.parametrize("name", list(stress.shipped()))
@pytest.mark.filterwarnings("ignore:.*steps_per_visit", "ignore:.*frames_per_visit", "ignore:.*episode")
def test_every_shipped_config_is_read_and_its_first_arm_planned(name: str) -> None:
    """One program of each, findings included: what all its arms share. All arms are planned by a slow test."""
    raw = stress.shipped()[name]
    whole = read_experiment(raw, launch.registry())
    first = next(iter(whole.arms))
    one = {first: {**((raw.get("arms") or {}).get(first) or {}), "sweep": {}}}
    reduced = {**raw, "arms": one, "sweep": {}, "seeds": 1, "reference": False, "tune": None}
    alone = read_experiment(reduced, launch.registry())
    try:
        assert len(launch.plan(alone).jobs) == 1
    except UserError as error:
        if not re.search("installed|no module|needs|cannot be|lib", str(error)):
            raise
        pytest.skip(str(error))  # a suite reports a missing system library


def test_broken_configs_are_planned_or_refused() -> None:
    outcomes = {"read": 0, "refused": 0}
    for case in stress.cases(60, seed=7):
        said = "read"
        try:
            read_experiment(from_yaml(case.text, "x.yaml"), launch.registry(), case.overrides)
        except UserError as error:
            said = str(error)
        outcomes["read" if said == "read" else "refused"] += 1
        assert not stress.unfit(said), case.change
    assert min(outcomes.values()) > 5
