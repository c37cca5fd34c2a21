"""Curricula of modes and difficulties, and the sequences that have names."""

import warnings
from typing import Any

import pytest

from plasticity.envs.atari import atari
from plasticity.envs.atari_games import curriculum, flavours
from plasticity.envs.atari_suites import SUITES

MODES = {"SpaceInvaders": range(16), "Breakout": range(0, 45, 4), "Freeway": range(8)}


@pytest.mark.parametrize("name", MODES)
def test_modes_are_those_of_the_cartridge(name: str) -> None:
    assert flavours(name) == (tuple(MODES[name]), (0, 1))


@pytest.mark.parametrize(
    ("suite", "game", "count"),
    [("rusu_space_invaders", "SpaceInvaders", 32), ("rusu_breakout", "Breakout", 24), ("rusu_freeway", "Freeway", 16)],
)
def test_a_rusu_suite_is_every_mode_at_each_difficulty(suite: str, game: str, count: int) -> None:
    spec = atari(suite=suite).spec
    assert len(spec.tasks) == len(spec.visits) == count
    modes = MODES[game]
    assert spec.tasks == tuple(f"{game}:{mode}:{difficulty}" for difficulty in (0, 1) for mode in modes)
    assert list(spec.tasks) == curriculum([game], "all", "all")
    assert {plan.steps for plan in spec.visits} == {5_000_000}


def test_cora_is_six_games_of_50_million_frames_five_times() -> None:
    spec = atari(suite="cora", envs=8).spec
    assert spec.tasks == ("SpaceInvaders", "Krull", "BeamRider", "Hero", "StarGunner", "MsPacman")
    assert [plan.task for plan in spec.visits] == list(range(6)) * 5
    assert {plan.steps * 8 * spec.frames_per_step for plan in spec.visits} == {50_000_000}
    assert spec.actions == 18


def test_sequence10_is_ten_games_twice() -> None:
    spec = atari(suite="sequence10", frames_per_visit=400_000).spec
    assert len(spec.tasks) == 10
    assert [plan.task for plan in spec.visits] == list(range(10)) * 2
    assert {plan.steps for plan in spec.visits} == {100_000}


def test_what_is_set_beside_a_suite_replaces_it() -> None:
    spec = atari(suite="cora", games=["Pong"], cycles=2, preset="dqn_legacy", frames_per_visit=80_000).spec
    assert (spec.tasks, spec.actions) == (("Pong",), 6)
    assert spec.visits == ((0, 20_000), (0, 20_000))
    assert atari(suite="rusu_breakout", modes=[0, 8], difficulties=[1]).spec.tasks == ("Breakout:0:1", "Breakout:8:1")
    assert atari(suite="rusu_breakout", games=["Pong"]).spec.tasks == ("Pong",)  # modes belong to the suite's game


def test_a_curriculum_is_one_line() -> None:
    assert atari(games=["Breakout"], modes=[0, 4]).spec.tasks == ("Breakout:0:0", "Breakout:4:0")
    assert atari(games=["Freeway", "Pong"], difficulties=[1]).spec.tasks == ("Freeway:0:1", "Pong:0:1")
    assert len(atari(games=["Pong"], modes="all", difficulties="all").spec.tasks) == 8


def test_without_a_suite_the_defaults_are_of_one_env() -> None:
    assert atari(games=["Pong"], envs=4).spec.visits == ((0, 5_000_000),)


def test_every_suite_can_be_made() -> None:
    for name in SUITES:
        assert atari(suite=name).spec.visits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "games: missing; give a list of games, or `suite`: one of cora, sequence10, "),
        ({"suite": "coar"}, 'suite: unknown suite "coar"; known: .*; did you mean `cora`?'),
        ({"games": ["Breakout"], "modes": [0, 3]}, "games: Breakout has no mode 3; its modes: 0, 4, 8, 12, "),
        ({"games": ["Pong"], "difficulties": [4]}, "games: Pong has no difficulty 4; its difficulties: 0, 1, 2, 3$"),
        ({"games": ["Pong:1"], "modes": [0]}, 'games: "Pong:1" already names a mode'),
        ({"games": ["Pogn"], "modes": "all"}, 'games: unknown game "Pogn"; .* are known; did you mean `Pong`'),
    ],
)
def test_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        atari(**settings)


def told(**settings: Any) -> bool:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        atari(games=["Pong"], **settings)
    return [str(each.message)[:16] for each in found] == ["frames_per_visit"]


def test_a_visit_shorter_than_five_minutes_of_play_warns_unless_episodes_are_shorter() -> None:
    assert told(frames_per_visit=17_996)
    assert not told(frames_per_visit=18_000)
    assert not told(frames_per_visit=400, episode_frames=400)
    assert told(frames_per_visit=400, episode_frames=404)
    assert not told()
