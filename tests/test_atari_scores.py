"""Human-normalised Atari scores."""

import numpy as np
import pandas as pd
import pytest

from plasticity.results.atari_scores import REFERENCES, human_normalised, human_normalised_score


@pytest.mark.parametrize(("game", "random", "human"), [("Breakout", 1.7, 30.5), ("Skiing", -17098.1, -4336.9)])
def test_random_play_is_0_and_a_human_1(game: str, random: float, human: float) -> None:
    assert human_normalised_score(game, random) == 0
    assert human_normalised_score(game, human) == 1


def test_there_are_references_for_57_games_and_humans_are_better_than_random() -> None:
    assert len(REFERENCES) == 57
    assert all(human > random for random, human in REFERENCES.values())


# Scores of dueling networks from no-op starts, as Wang et al. 2016 print them; the quotients by hand.
@pytest.mark.parametrize(
    ("game", "score", "percent"), [("Breakout", 345.3, 1193.1), ("Pong", 21.0, 118.1), ("Enduro", 2258.2, 262.4)]
)
def test_published_scores(game: str, score: float, percent: float) -> None:
    assert 100 * human_normalised_score(game, score) == pytest.approx(percent, abs=0.05)


def test_a_table_of_visits_whatever_the_mode() -> None:
    tasks = pd.Categorical(["Breakout:12:1", "Pong", "Pong:1"])
    table = pd.DataFrame({"task": tasks, "performance": [16.1, np.nan, 14.6]}, index=[5, 6, 7])
    found = human_normalised(table)
    np.testing.assert_allclose(found, [0.5, np.nan, 1.0])
    assert list(found.index) == [5, 6, 7]


def test_evaluations_go_by_the_task_that_was_played() -> None:
    table = pd.DataFrame({"task": ["Pong"], "evaluated_task": ["Boxing"], "episodic_return": [6.1], "steps": [0.1]})
    assert human_normalised(table).item() == pytest.approx(0.5)
    assert human_normalised(table, "steps").item() == pytest.approx(0.0)


def test_games_without_references_are_nan_and_listed() -> None:
    table = pd.DataFrame({"task": ["Tetris", "Pong", "Casino:1"], "performance": [1.0, 14.6, 2.0]})
    with pytest.warns(UserWarning, match="no random and human reference scores for Casino, Tetris"):
        found = human_normalised(table)
    np.testing.assert_allclose(found, [np.nan, 1.0, np.nan])


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="score: 'reward' is not a column of the table; it has task, performance"):
        human_normalised(pd.DataFrame({"task": ["Pong"], "performance": [1.0]}), "reward")
