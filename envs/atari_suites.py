"""Named sequences of Atari games from the literature: ``suite: cora``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plasticity.core.errors import shown, unknown
from plasticity.envs.atari_games import Chosen


class Suite(NamedTuple):
    """Settings of a suite, used unless the config overrides them. ``atari`` has a parameter for each."""

    games: Sequence[str]
    preset: str = "machado18"
    frames: int = 20_000_000  # of a visit, all envs of a lane together
    cycles: int = 1
    modes: Chosen = None
    difficulties: Chosen = None


SUITES: Mapping[str, Suite] = {
    # Powers et al. 2022, "CORA: Benchmarks, Baselines, and Metrics as a Platform for Continual Reinforcement Learning
    # Agents": 50 million frames each, five cycles.
    "cora": Suite(("SpaceInvaders", "Krull", "BeamRider", "Hero", "StarGunner", "MsPacman"), "cora", 50_000_000, 5),
    # Lyle et al. 2024, "Normalization and effective learning rates in reinforcement learning": ten games, 20 million
    # frames each, the list twice. The choice of games is not published; these are the games that the literature on
    # plasticity reports most often.
    "sequence10": Suite(
        ("Asterix", "DemonAttack", "Phoenix", "Seaquest", "YarsRevenge", "Qbert", "SpaceInvaders", "Enduro", "Gopher",
         "Alien"),
        cycles=2,
    ),
    # Rusu et al. 2022, "Probing Transfer in Deep Reinforcement Learning without Task Engineering": the modes and
    # difficulties of three games. Order, frames and preset are not from the paper.
    "rusu_space_invaders": Suite(("SpaceInvaders",), modes=range(16), difficulties=(0, 1)),
    "rusu_breakout": Suite(("Breakout",), modes=range(0, 48, 4), difficulties=(0, 1)),
    "rusu_freeway": Suite(("Freeway",), modes=range(8), difficulties=(0, 1)),
}  # fmt: skip


def suite_named(name: str) -> Suite:
    """Return the suite; for an unknown name, ``ValueError`` suggests the nearest."""
    if name not in SUITES:
        raise ValueError(f"suite: {unknown(f'suite {shown(name)}', name, SUITES)}")
    return SUITES[name]


def suite_of(name: str | None, games: Sequence[str] | None) -> Suite:
    """The named suite, or one with only ``games``; ``ValueError`` if neither is given."""
    if name is None and games is None:
        raise ValueError(f"games: missing; give a list of games, or `suite`: one of {', '.join(SUITES)}")
    own = Suite(games or ())
    if name is None:
        return own
    suite = suite_named(name)
    # Modes belong to a game, so other games bring their own.
    return suite if games is None else suite._replace(games=games, modes=None, difficulties=None)
