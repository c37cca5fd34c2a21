"""What holds for the metadata of every built-in stream and transform, and how long visits must be."""

import inspect
import warnings
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from test_contract_stream import LACKING

from plasticity.cli.tables import print_member
from plasticity.config.documents import from_yaml, to_yaml
from plasticity.config.experiments import read_experiment
from plasticity.config.fields import metadata_of
from plasticity.envs import STREAMS, TRANSFORMS
from plasticity.envs.atari import atari
from plasticity.envs.control import acrobot, cartpole, pendulum
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.reacher import reacher
from plasticity.envs.swing_up import cartpole_swingup
from plasticity.envs.toys import catch
from plasticity.runs import launch


def example(family, name):
    return launch.registry().metadata(family, name).example


@pytest.mark.parametrize("name", sorted(set(STREAMS) - set(LACKING)))
def test_the_example_of_every_stream_makes_it_without_a_warning(name):
    settings = example("streams", name)
    assert settings, f"{name}: its metadata has no example"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        source = STREAMS[name](**settings)
    spec = source.spec
    assert all(plan.steps <= 40_000 for plan in spec.visits), "an example is small"
    assert set(settings) <= set(inspect.signature(STREAMS[name]).parameters)


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_the_example_of_every_stream_is_a_config(name):
    text = to_yaml(tiny.document(stream={"kind": name, **example("streams", name)}))
    chosen = read_experiment(from_yaml(text, "example.yaml"), launch.registry()).stream
    dumped = chosen.dump()
    assert dumped["kind"] == name
    assert {key: dumped[key] for key in example("streams", name)} == example("streams", name)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_the_example_of_every_transform_is_a_config_and_makes_it(name):
    settings = example("transforms", name)
    assert settings, f"{name}: its metadata has no example"
    text = to_yaml(tiny.document(stream="cartpole", transforms=[{"kind": name, **settings}]))
    experiment = read_experiment(from_yaml(text, "example.yaml"), launch.registry())
    assert [each.kind for each in experiment.transforms] == [name]
    assert TRANSFORMS[name](**settings)(cartpole(tasks=2)).spec.visits


def test_every_stream_of_others_says_whose_it_is():
    unnamed = {name for name, factory in STREAMS.items() if not metadata_of(factory).paper}
    assert not unnamed


SHORT = {
    "catch": (lambda: catch(rows=8, steps_per_task=6), "steps_per_task: 6 .*up to 7 steps"),
    "cartpole": (lambda: cartpole(steps_per_task=499), "steps_per_task: 499 .*up to 500 steps"),
    "acrobot": (lambda: acrobot(steps_per_task=99, episode_steps=100), "steps_per_task: 99 .*up to 100 steps"),
    "pendulum": (lambda: pendulum(steps_per_task=199), "steps_per_task: 199 .*up to 200 steps"),
    "cartpole_swingup": (lambda: cartpole_swingup(steps_per_task=249), "steps_per_task: 249 .*up to 250 steps"),
    "reacher": (lambda: reacher(steps_per_task=99), "steps_per_task: 99 .*up to 100 steps"),
    "atari": (lambda: atari(games=["Pong"], frames_per_visit=1600), "frames_per_visit: 1,600 .*up to 108,000 frames"),
}


@pytest.mark.parametrize("name", SHORT)
def test_visits_shorter_than_an_episode_warn(name):
    make, message = SHORT[name]
    with pytest.warns(UserWarning, match=message):
        make()


@pytest.mark.parametrize(
    ("given", "longest", "least", "short"),
    [(9, 10, None, True), (10, 10, None, False), (1, 0, None, False), (7, 10, 5, False), (4, 10, 5, True),
     (9, 10, 20, True)],
)  # fmt: skip
def test_when_a_visit_is_short(given, longest, least, short):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_if_short("steps", given, longest, least=least)
    assert len(told) == short


def test_list_prints_the_example_as_a_config_line(capsys):
    print_member(launch.registry(), "streams", "catch", Console(width=200))
    print_member(launch.registry(), "transforms", "clip_reward", Console(width=200))
    said = capsys.readouterr().out
    assert "example: stream: {kind: catch, change: observation, tasks: 5, steps_per_task: 2000}" in said
    assert "example: transforms: [{kind: clip_reward, low: -1.0, high: 1.0}]" in said


CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(
    "path",
    [path for folder in ("streams", "gridworld", "images") for path in CONFIGS.glob(f"{folder}/*.yaml")],
    ids=lambda p: p.stem,
)
def test_the_small_configs_are_plans_without_a_warning(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        experiment = launch.load_config(path)
        experiment.stream.build()()
    assert path.read_text().startswith("# ")
