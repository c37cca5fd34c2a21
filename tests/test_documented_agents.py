"""Returns in docs/agents.md follow from the values by seed in docs/results."""

import pandas as pd
from documented import DOCS, agree, interval, page, rows_of, sentence, table_of

AGENTS = page("agents.md")


def last(name, arm, **point):
    """By seed: the mean return over the last tenth of a run of one visit."""
    found = table_of(name, arm=arm, **point).set_index("seed")["performance_end"]
    assert len(found) == 8
    return found


def evaluated(name, step):
    """By seed: the mean return of the evaluation at this step."""
    found = pd.read_csv(DOCS / "results" / "evaluations" / f"{name}.csv")
    found = found[found["step"] == step].set_index("seed")["performance"]
    assert len(found) == 8
    return found


def test_catch():
    found = table_of("catch-agents").groupby("arm")["performance_end"].mean()
    assert len(found) == 11
    text = sentence(AGENTS, "All eleven solve it, with ", " over the last tenth")
    agree(text.replace(" to ", " "), [found.min(), found.max()])
    widest = last("catch-agents", "stream_ac")
    text = sentence(AGENTS, "Seeds differ most with `stream_ac`: ", " for the worst. The test")
    agree(text, [*interval(widest), widest.min()])


def test_cartpole_and_pendulum():
    dip = 5_120
    assert all((evaluated("cartpole-ppo", step) == 500).all() for step in range(3_072, 10_241, 1_024) if step != dip)
    text = sentence(AGENTS, "in all later ones but one (", " on average)")
    agree(text, [evaluated("cartpole-ppo", dip).mean()])
    agree(sentence(AGENTS, "in training it ends at ", ". `plasticity"), interval(last("cartpole-ppo", "baseline")))
    parts = pd.read_csv(DOCS / "results" / "curves" / "pendulum-ppo.csv")
    start = parts[parts["part"] == 1]["performance"]
    assert len(start) == 8
    text = sentence(AGENTS, "real-valued actions: from ", " in 98,000 steps").replace(" to ", " ")
    agree(text, [start.mean(), *interval(last("pendulum-ppo", "baseline"))])
    agree(
        sentence(AGENTS, "**C51** ends at 500 in all 8 seeds (", " in training"),
        interval(last("cartpole-c51", "baseline")),
    )


def test_dqn_on_cartpole():
    text = sentence(AGENTS, "**DQN** ends at ", " in training). It repeatedly")
    end = evaluated("cartpole-dqn", 500_000)
    agree(text, [end.mean(), end.min(), *interval(last("cartpole-dqn", "baseline"))])
    assert (evaluated("cartpole-dqn", 300_000) == 500).all()
    text = sentence(AGENTS, "after 300,000 steps and ", " for the worst seed. ").replace("after 350,000", "")
    after = evaluated("cartpole-dqn", 350_000)
    agree(text, [after.mean(), after.min()])
    text = sentence(AGENTS, "a buffer of 10,000) greedy evaluation gives ", " for the worst seed; CleanRL")
    others = evaluated("cartpole-dqn-cleanrl", 500_000)
    agree(text, [others.mean(), others.min()])


def test_ppo_on_breakout():
    rows = {row[0].strip("`"): row for row in rows_of(AGENTS, "| agent | last tenth of half a million steps |")}
    agree(rows["ppo"][1], interval(last("minatar-ppo", "baseline")))


def test_ppo_on_pong():
    table = pd.read_csv(DOCS / "results" / "curves" / "atari-pong.csv").set_index("part")
    assert table["seed"].nunique() == 1
    shown = (1, 4, 7, 10, 14, 20)
    header = AGENTS.partition("\n| env steps |")[2].partition("\n")[0]
    agree(header, [8 * table["step"][part] / 1e6 for part in shown])
    ((_, *returns),) = rows_of(AGENTS, "| env steps |")
    agree(" ".join(returns), [table["performance"][part] for part in shown])
    assert (table["performance"].loc[11:] > 0).all()
    agree(
        sentence(AGENTS, "over the last tenth its return is ", ". CleanRL"), table_of("atari-pong")["performance_end"]
    )
    metrics = pd.read_csv(DOCS / "results" / "metrics" / "atari-pong.csv").set_index("part")
    first, last = metrics.loc[1], metrics.loc[20]
    ranks, dormant = ([each[name] for each in (first, last)] for name in ("effective_rank", "dormant_units"))
    agree(sentence(AGENTS, "effective rank of the last hidden layer rises from ", " in the last"), ranks)
    agree(sentence(AGENTS, "dormant units falls from ", ". In the first"), [100 * share for share in dormant])
    filters = [100 * each["dormant_units/hidden_0"] for each in (first, last)]
    agree(sentence(AGENTS, "it is the other way round: ", " at the end"), [filters[0], 16, filters[1]])


def test_pqn_on_four_games():
    """Mean returns over half a million steps, weighted by episodes (128 envs count their steps together)."""
    table = pd.read_csv(DOCS / "results" / "curves" / "minatar-pqn-games.csv")
    tenth = (table["frames"] - 1) // (table["frames"].max() // 10) + 1
    sums = (
        table.assign(tenth=tenth, total=(table["performance"] * table["episodes"]).fillna(0.0))
        .groupby(["game", "tenth", "seed"])[["total", "episodes"]].sum()
    )  # fmt: skip
    found = sums["total"] / sums["episodes"]
    rows = rows_of(AGENTS, "| game | first half million steps |")
    assert len(rows) == 4
    for game, *early, late, _ in rows:
        of_game = found[game.lower().replace(" ", "_")]
        agree(" ".join(early), [of_game[k].mean() for k in (1, 2, 5)])
        agree(late, interval(of_game[10]))


def test_streaming_without_the_bound():
    rows = rows_of(AGENTS, "| optimizer on the trace | step size | last tenth |")
    assert len({(row[0], row[1]) for row in rows}) == 7
    bounded = last("minatar-without-bound", "obgd")
    for optimizer, step_size, value, difference in rows:
        arm = optimizer.partition(":")[0].lower()
        if arm == "obgd":
            agree(value, interval(bounded))
            continue
        found = last("minatar-without-bound", arm, **{"agent.optimizer.learning_rate": float(step_size)})
        if not difference:
            assert value == "all 8 seeds diverge"
            assert found.isna().all()
            continue
        agree(value, interval(found))
        agree(difference, interval(found - bounded))
