"""Periods of monitors: valid configs, their meaning in env steps, and the times of measurement."""

from typing import Any

import pytest
import tiny

from plasticity import results
from plasticity.config.documents import from_yaml, to_yaml
from plasticity.config.experiments import read_experiment
from plasticity.config.fields import metadata
from plasticity.config.registry import Registry
from plasticity.core.errors import UserError
from plasticity.monitors import weight_norm
from plasticity.runs import launch

BOTH = ["weight_norm", {"kind": "effective_rank", "every": 20}]


def described(**changes: Any) -> dict[str, int]:
    """The period of each monitor of the one program, in env steps."""
    (job,) = launch.plan(tiny.experiment(**changes)).jobs
    return [each.every for each in job.program.monitors]


def refused(*monitors: Any, registry: Registry | None = None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        read_experiment(tiny.document(monitors=list(monitors)), registry or launch.registry(), overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("every", "usual", "steps"),
    [(20, 10, [10, 20]), ("visit", 5, [5, 20]), (None, 10, [10, 10]), (5, "visit", [20, 5])],
)
def test_a_period_of_its_own_and_that_of_all_others(every, usual, steps):
    monitors = ["weight_norm", {"kind": "effective_rank", "every": every}]
    assert described(monitors=monitors, monitor_every=usual) == steps


def test_the_resolved_experiment_says_it_and_is_read_back_as_the_same():
    experiment = tiny.experiment(monitors=BOTH)
    resolved = experiment.resolve()
    assert [each.get("every") for each in resolved["monitors"]] == [None, 20]
    again = read_experiment(from_yaml(to_yaml(resolved), "x"), launch.registry())
    assert again == experiment
    assert again != tiny.experiment(monitors=["weight_norm", "effective_rank"])


def test_an_override_sets_it():
    document = tiny.document(monitors=["weight_norm", "effective_rank"])
    found = read_experiment(document, launch.registry(), ["monitors.effective_rank.every=20"])
    assert found == tiny.experiment(monitors=BOTH)


def test_fingerprints_tell_periods_apart():
    lists = [BOTH, ["weight_norm", "effective_rank"], [{"kind": "weight_norm", "every": 20}, BOTH[1]]]
    prints = [launch.plan(tiny.experiment(monitors=each)).jobs[0].fingerprint for each in lists]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ({"every": 0}, "monitors[0].every: 0 is not allowed; must be an integer in [1, 2147483647] or `visit` or null"),
        ({"every": "vist"}, "did you mean `visit`?"),
        ({"every": 2.5}, "monitors[0].every: 2.5 is not allowed"),
        ({"evry": 5}, "monitors[0].evry: unknown key; allowed: every, modules; did you mean `every`?"),
    ],
)
def test_what_is_no_period_is_refused(monitor, message):
    assert message in refused({"kind": "weight_norm", **monitor})


def test_two_periods_do_not_make_two_monitors():
    assert "monitors[1]: `weight_norm` with the same settings is given twice" in refused(
        "weight_norm", {"kind": "weight_norm", "every": 5}
    )


def test_records_must_fall_on_it():
    monitors = ["effective_rank", {"kind": "weight_norm", "every": 7}]
    with pytest.raises(UserError, match=r"record_every: 5 .* divide monitors\.weight_norm\.every, 7"):
        launch.plan(tiny.experiment(monitors=monitors))


def known(**members: Any) -> Registry:
    registry = Registry()
    for family, built_in in launch.BUILT_IN.items():
        registry.register_all(family, built_in)
    registry.register_all("monitors", members)
    return registry


def test_a_monitor_with_a_setting_of_that_name_is_refused():
    def greedy(*, every: int = 3) -> Any:
        return every

    said = refused("greedy", registry=known(greedy=greedy))
    assert said.startswith("monitors[0]: `greedy` has a setting `every`, which is reserved for a monitor's period")


def test_a_setting_whose_name_is_like_it_stays_a_setting():
    def careful(*, level: int = 3, never: bool = False) -> Any:
        return level, never

    monitors = [{"kind": "careful", "level": 4, "never": True, "every": 5}]
    (found,) = read_experiment(tiny.document(monitors=monitors), known(careful=careful)).monitors
    assert (found.values, found.every) == ({"level": 4, "never": True}, 5)


@pytest.mark.parametrize(
    ("multiple", "usual", "own", "steps"),
    [
        (2, 10, None, 20),  # twice the usual period divides a visit of 20
        (4, 5, None, 20),
        (3, 5, None, 10),  # 15 does not
        (3, 15, None, 20),  # nor does any multiple of 15: once a visit
        (10, "visit", None, 20),
        (10, 40, None, 40),  # never more often than the others
        (2, 10, 10, 10),  # the config wins
    ],
)
def test_a_card_may_say_how_many_usual_periods_are_the_default(multiple, usual, own, steps):
    @metadata(period=multiple)
    def costly() -> Any:
        return weight_norm()

    document = tiny.document(monitors=[{"kind": "costly", "every": own}], monitor_every=usual)
    experiment = read_experiment(document, known(costly=costly))
    assert experiment.resolve()["monitors"][0].get("every") == own
    assert launch.plan(experiment).jobs[0].program.monitors[0].every == steps


@pytest.mark.parametrize(("multiple", "visits", "steps"), [(2, 8, 40), (3, 8, 40), (3, 7, 20), (3, 12, 60)])
def test_the_default_may_be_some_visits_with_four_measurements_at_least(multiple, visits, steps):
    @metadata(period=multiple)
    def costly() -> Any:
        return weight_norm()

    stream = {**tiny.document()["stream"], "tasks": visits}
    document = tiny.document(monitors=["costly"], monitor_every="visit", stream=stream)
    experiment = read_experiment(document, known(costly=costly))
    assert launch.plan(experiment).jobs[0].program.monitors[0].every == steps


@pytest.mark.parametrize("multiple", [0, 1.5, "visit"])
def test_a_wrong_multiple_is_refused_where_it_is_written(multiple):
    with pytest.raises(ValueError, match=r"^metadata\.period: .* is not allowed; must be an integer"):
        metadata(period=multiple)(weight_norm)


def test_each_is_measured_when_it_is_due(tmp_path):
    experiment = tiny.experiment(monitors=BOTH, seeds=1, placement={"devices": 1})
    table = results.load(launch.run(experiment, tmp_path / "run"))
    measured = {name: list(table.loc[table[name].notna(), "step"]) for name in ("weight_norm", "effective_rank")}
    assert measured == {"weight_norm": [10, 20, 30, 40, 50, 60], "effective_rank": [20, 40, 60]}
