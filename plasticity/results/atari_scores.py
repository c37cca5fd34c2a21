"""Human-normalised Atari scores."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd


class Reference(NamedTuple):
    random: float
    human: float


# Mean returns of random play and of a professional tester in 57 games, from up to 30 no-ops, episodes of at most 30
# minutes: Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning", the columns for no-op
# starts. DQN Zoo (Quan, Ostrovski 2020) has the same numbers in all 57 games.
REFERENCES: Mapping[str, Reference] = {
    name: Reference(*scores)
    for name, scores in {
        "Alien": (227.8, 7127.7),
        "Amidar": (5.8, 1719.5),
        "Assault": (222.4, 742.0),
        "Asterix": (210.0, 8503.3),
        "Asteroids": (719.1, 47388.7),
        "Atlantis": (12850.0, 29028.1),
        "BankHeist": (14.2, 753.1),
        "BattleZone": (2360.0, 37187.5),
        "BeamRider": (363.9, 16926.5),
        "Berzerk": (123.7, 2630.4),
        "Bowling": (23.1, 160.7),
        "Boxing": (0.1, 12.1),
        "Breakout": (1.7, 30.5),
        "Centipede": (2090.9, 12017.0),
        "ChopperCommand": (811.0, 7387.8),
        "CrazyClimber": (10780.5, 35829.4),
        "Defender": (2874.5, 18688.9),
        "DemonAttack": (152.1, 1971.0),
        "DoubleDunk": (-18.6, -16.4),
        "Enduro": (0.0, 860.5),
        "FishingDerby": (-91.7, -38.7),
        "Freeway": (0.0, 29.6),
        "Frostbite": (65.2, 4334.7),
        "Gopher": (257.6, 2412.5),
        "Gravitar": (173.0, 3351.4),
        "Hero": (1027.0, 30826.4),
        "IceHockey": (-11.2, 0.9),
        "Jamesbond": (29.0, 302.8),
        "Kangaroo": (52.0, 3035.0),
        "Krull": (1598.0, 2665.5),
        "KungFuMaster": (258.5, 22736.3),
        "MontezumaRevenge": (0.0, 4753.3),
        "MsPacman": (307.3, 6951.6),
        "NameThisGame": (2292.3, 8049.0),
        "Phoenix": (761.4, 7242.6),
        "Pitfall": (-229.4, 6463.7),
        "Pong": (-20.7, 14.6),
        "PrivateEye": (24.9, 69571.3),
        "Qbert": (163.9, 13455.0),
        "Riverraid": (1338.5, 17118.0),
        "RoadRunner": (11.5, 7845.0),
        "Robotank": (2.2, 11.9),
        "Seaquest": (68.4, 42054.7),
        "Skiing": (-17098.1, -4336.9),
        "Solaris": (1236.3, 12326.7),
        "SpaceInvaders": (148.0, 1668.7),
        "StarGunner": (664.0, 10250.0),
        "Surround": (-10.0, 6.5),
        "Tennis": (-23.8, -8.3),
        "TimePilot": (3568.0, 5229.2),
        "Tutankham": (11.4, 167.6),
        "UpNDown": (533.4, 11693.2),
        "Venture": (0.0, 1187.5),
        "VideoPinball": (16256.9, 17667.9),
        "WizardOfWor": (563.5, 4756.5),
        "YarsRevenge": (3092.9, 54576.9),
        "Zaxxon": (32.5, 9173.3),
    }.items()
}


def reference(task: str) -> Reference | None:
    """The reference scores of a game, named like a task of the Atari stream: with or without mode and difficulty."""
    return REFERENCES.get(task.partition(":")[0])


def human_normalised_score(task: str, score: float) -> float:
    """``(score - random) / (human - random)``: 0 is random play, 1 is human; NaN for games without reference.

    Mnih et al. 2015, "Human-level control through deep reinforcement learning".

    Args:
      task: the name of a game, as in the tasks of the Atari stream. A mode and difficulty after it (``Pong:1:0``) are
        ignored, since reference scores exist for the default mode only.
      score: the episodic return.
    """
    found = reference(task)
    return float("nan") if found is None else (score - found.random) / (found.human - found.random)


def human_normalised(table: pd.DataFrame, score: str | None = None, task: str | None = None) -> pd.Series:
    """Compute :func:`human_normalised_score` for each row of a table of visits, evaluations or metrics.

    Args:
      table: from ``results.visits``, ``results.evaluations`` or ``results.load``.
      score: the column of scores; by default ``performance`` (visits), else ``episodic_return``.
      task: the column of games; by default ``evaluated_task`` if there is one, else ``task``.

    Returns:
      A column for ``table``, NaN where the score is missing or the game has no reference scores. A warning lists such
      games.

    Raises:
      ValueError: the table has no such column.
    """
    score = score or ("performance" if "performance" in table else "episodic_return")
    task = task or ("evaluated_task" if "evaluated_task" in table else "task")
    for key, column in (("score", score), ("task", task)):
        if column not in table:
            raise ValueError(f"{key}: {column!r} is not a column of the table; it has {', '.join(map(str, table))}")
    games = table[task].astype(str).str.partition(":")[0]
    if unknown := sorted(set(games) - set(REFERENCES)):
        warnings.warn(f"no random and human reference scores for {', '.join(unknown)}", stacklevel=2)
    random, human = (
        games.map({name: each[which] for name, each in REFERENCES.items()}).astype(float) for which in (0, 1)
    )
    return pd.Series((table[score].astype(float) - random) / (human - random), name="human_normalised")
