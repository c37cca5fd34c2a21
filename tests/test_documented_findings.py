"""Numbers in the notes on findings follow from docs/findings (results.json, values, visits) and docs/results."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from documented import DOCS, agree, interval, numbers, page, rows_of, sentence, table_of
from scipy import stats

FINDINGS = DOCS / "findings"
RESULTS = json.loads((FINDINGS / "results.json").read_text(encoding="utf-8"))
NAMES = sorted(path.stem for path in (FINDINGS / "values").glob("*.csv"))
KEPT = "visits", "values"  # not of the first findings, unless they were run again
WHOLE, END = "performance", "performance_end"


class Note:
    """The note on a finding, and the numbers kept of its run."""

    def __init__(self, name):
        self.text = page(f"findings/{name}.md")
        self.visits, self.values = (
            pd.read_csv(path) if path.exists() else None for path in (FINDINGS / kind / f"{name}.csv" for kind in KEPT)
        )
        self.clauses = RESULTS[name]["clauses"]

    def mean(self, arm, visits, column=WHOLE, times=1.0):
        """The mean of an arm in a visit, or over the visits from one to another."""
        first, last = visits if isinstance(visits, tuple) else (visits, visits)
        found = self.visits[(self.visits["arm"] == arm) & self.visits["visit"].between(first, last)]
        assert len(found) == last - first + 1, (arm, visits)
        return times * found[column].mean()

    def means(self, arms, visits, column=WHOLE, times=1.0):
        """The same for several arms, separated by spaces."""
        return [self.mean(arm, visits, column, times) for arm in arms.split()]

    def wide(self, k):
        """The values of a clause (from 1), seeds x arms."""
        found = self.values[self.values["clause"] == k].pivot(index="seed", columns="arm", values="value")
        assert len(found) == self.clauses[k - 1]["seeds"], k
        return found

    def value(self, k, *arms):
        """Means over seeds of arms in a clause."""
        found = self.wide(k)[list(arms)].mean().tolist()
        return found if len(arms) > 1 else found[0]

    def clause(self, k, times=1.0):
        """The estimate of a clause and its interval."""
        estimate, *ends = (times * self.clauses[k - 1][name] for name in ("number", "low", "high"))
        return [estimate, *sorted(ends)]

    def bound(self, k):
        """What the estimate of a clause is compared to (of a range, its upper end)."""
        return numbers(self.clauses[k - 1]["text"])[-1][0]

    def table(self, header, rows):
        """A table has these labels, and these numbers in its cells: one, several, none (None) or any (...)."""
        found = rows_of(self.text, header)
        assert [label for label, *_ in found] == list(rows)
        for label, *cells in found:
            assert len(cells) == len(rows[label]), label
            for cell, value in zip(cells, rows[label], strict=True):
                if value is not ...:
                    agree(cell, [] if value is None else np.atleast_1d(value))

    def ranges(self):
        """Where the interval of each clause is: below 0 (-1), above 0 (1), or around it."""
        return [(clause["low"] > 0) - (clause["high"] < 0) for clause in self.clauses]

    def says(self, start, end, *values):
        """The note gives these numbers between two phrases."""
        agree(sentence(self.text, start, end), values)


@pytest.fixture
def note(request):
    """The note on the finding that a test is named after."""
    return Note(request.function.__name__.removeprefix("test_"))


def test_every_note_with_numbers_and_values_has_a_test():
    assert {name for name in NAMES if numbers(Note(name).text) and f"test_{name}" not in globals()} == set()


@pytest.mark.parametrize("name", NAMES)
def test_results_follow_from_the_values(name):
    """Every interval that a clause is judged by (Student's t) is that of one column of its values; ratios of means."""
    found = Note(name)
    for k, clause in enumerate(found.clauses, 1):
        values = found.wide(k)
        if ratio := re.search(r"(\S+) / (\S+)", clause["text"]):
            assert np.isclose(clause["number"], found.value(k, ratio[1]) / found.value(k, ratio[2]), rtol=2e-5)
            continue
        factor = stats.t.ppf(0.5 + clause.get("confidence", 0.95) / 2, clause["seeds"] - 1)
        centre, half = values.mean(), factor * values.std() / np.sqrt(clause["seeds"])
        columns = pd.DataFrame({"centre": centre, "low": centre - half, "high": centre + half})
        if "contrasts" not in clause:  # of a difference, only its own column
            named = [column for column in columns.index if " - " in column and column in clause["text"]]
            columns = columns.loc[[max(named, key=len)]] if named else columns
        for expected in clause.get("contrasts", [found.clause(k)]):
            assert np.isclose(columns, expected, rtol=2e-5, atol=2e-6).all(axis=1).any(), (k, expected)


@pytest.mark.parametrize("name", NAMES)
def test_differences_follow_from_the_arms(name):
    found = Note(name)
    for k in range(1, len(found.clauses) + 1):
        values = found.wide(k)
        for column in values.columns[values.columns.str.contains(" - ")]:
            formula = re.sub(r"(\d) `", r"\1 * `", re.sub(r"[a-z]\w*(/\w+)?", r"`\g<0>`", column))
            assert np.allclose(values[column], values.eval(formula), rtol=0, atol=1e-5 * values.abs().max(axis=None))


def adam_table(note, visits):
    rows = {
        str(visit): [
            *note.means("default tuned adam_reset fresh", visit),
            *note.means("default tuned adam_reset", visit, "dead_units"),
        ]
        for visit in visits
    }
    header = "| visit | accuracy, default | tuned | Adam reset | fresh | dead units, default | tuned | Adam reset |"
    note.table(header, rows)


def stacked(label):
    """The arm of a row in the tables of F24a and F24b."""
    short = {"two-hot": "two_hot", "layer norm": "layer_norm", "all four": "everything"}
    parts = [short.get(part, part) for part in label.split(", ")]
    order = ["layer_norm", "decay", "two_hot", "reset"]
    return "_and_".join(sorted(parts, key=order.index)) if len(parts) > 1 else parts[0]


def test_abruptness_matched(note):
    arms = {
        "labels never change": "never/baseline",
        "a tenth every 3,000 updates: 1.4 relabellings": "rare/baseline",
        "a tenth every 300 updates: 14.9 relabellings": "tenth/baseline",
        "all every 3,000 updates: 14 relabellings": "all/baseline",
        "the last, new network at each switch": "all/fresh",
    }
    rows = {
        label: [note.mean(arm, 150), note.mean(arm, 151), note.mean(arm, 150, "dead_units", 100)]
        for label, arm in arms.items()
    }
    note.table("| stream | accuracy just before | on all new labels | dead units before |", rows)
    never, tenth, fresh = note.means("never/baseline tenth/baseline all/fresh", 151)
    assert round(5 * (never - tenth) / never) == 2
    note.says("on its own stream this network too still has ", ": only", note.mean("tenth/baseline", 150))
    note.says("more slowly than a new one (", "), with", never, fresh)


def test_annealing(note):
    norms, steps = (
        [note.mean("layer_norm", visit, of) for visit in (1, 60)] for of in ("weight_norm", "effective_learning_rate")
    )
    assert round(norms[1] / norms[0]) == 5
    agree(
        sentence(note.text, "effective step size falls from ", "; accuracy").replace("e-5", ""),
        [1e5 * value for value in steps],
    )
    note.says("is over the last tenth ", " below that", note.clause(6)[0])
    note.says("as good as after each (", " better)", note.clause(7)[0])
    assert 0.1 < note.mean("plain", 20) < 0.13
    last = (55, 60)
    note.says("does better (", ", ahead", note.mean("layer_norm_decay", last))
    note.says("ahead of the fresh control's ", "):", note.mean("fresh", last))
    start, end = (note.mean("layer_norm_decay", visit, "effective_learning_rate") for visit in (1, 60))
    assert end > start


def test_apple_retrieval(note):
    """The note has no numbers of the run; the order of the lowest values by `c` and by distance."""
    by_c = note.value(5, "c025/none", "c05/none", "c1/none", "c2/none")
    by_distance = note.value(7, "c025/none", "m10/none", "m5/none")
    assert by_c == sorted(by_c)
    assert by_distance == sorted(by_distance)
    assert note.value(8, "c025/cloning") > note.value(8, "c025/none")
    assert note.value(9, "c05/cloning") > note.value(9, "c05/none")


def test_classification_mdp(note):
    arms = "none two_hot reset_last layer_norm"
    rows = {
        f"{5000 * visit:,}": [*note.means(arms, visit, "dead_units"), *note.means(arms, visit)]
        for visit in (1, 3, 5, 10)
    }
    note.table("| updates | dead units: none | two-hot |", rows)
    losses = note.means("none two_hot reset_last shrink_perturb weight_decay layer_norm", 10, "plasticity_probe")
    note.table("| after 50,000 updates | none |", {"plasticity loss here": losses, "published (MNIST, MLP)": [...] * 6})
    note.says("does cost plasticity (", "; a constant", losses[0], 50_000)
    note.says("unlearns its task (", "; chance", note.mean("reset_last", 10))
    fewer = [
        note.mean("two_hot", visit, "dead_units") < note.mean("none", visit, "dead_units") for visit in range(1, 11)
    ]
    assert fewer == [True] * 3 + [False] * 7
    assert round(4 * (1 - note.mean("two_hot", 10, "dead_units"))) == 1


def test_continual_control(note):
    note.says("also that of the second task (", "), must be", *note.clause(6))
    third = note.means("ewc packnet cloning fine_tuning", 3, "evaluation_return")
    note.says("The third task costs them little: ", ".", *third)


def test_dead_from_the_start(note):
    rows = {
        label: [
            [note.value(k, f"{arm}_layer"), note.value(k + 2, f"{arm}_rms")],
            *note.means(f"{arm} {arm}_layer {arm}_rms", 1, "dead_units"),
        ]
        for label, arm, k in (("Adam", "adam", 1), ("SGD", "sgd", 6), ("momentum", "momentum", 11))
    }
    note.table("| | after 20 updates, with layer / RMS normalisation | after 3,000: plain | layer | RMS |", rows)
    left = [rows[label][i + 2] / rows[label][0][i] for label in ("SGD", "momentum") for i in (0, 1)]
    assert {round(6 * (1 - share)) for share in left} == {3, 4}
    for arm in note.visits["arm"]:
        note.says("Every network still fits the labels (accuracy ", " at the end)", note.mean(arm, 1, END))


def test_default_adam_delayed(note):
    note.says("hold by wide margins, on ", " seeds", *note.visits["lanes"].unique())
    note.says("In visits 6 to 8, tuned Adam has ", ", and a tenth", *note.value(1, "tuned", "default"))
    assert round(10 * note.value(2, "tuned")) == 1
    note.says("It falls to 0.3 in visit ", " visits later than default Adam", note.value(3, "tuned"), *note.clause(3))
    adam_table(note, (1, 4, 6, 8, 12))
    note.says("learns the first labels more slowly (", ") and is behind", *note.means("tuned default", 1))
    behind = [visit for visit in range(1, 13) if note.mean("tuned", visit) < note.mean("default", visit)]
    assert behind == [1, 2, 3, 4]


def test_dormant_and_different(note):
    assert round(5 * note.value(1, "full/new_moments")) == 2
    quarter = note.means("quarter/new_moments quarter/fresh", 2)
    note.says("if a quarter of the entries change places (", "), as well", *quarter)
    note.says("as well if half do (", "), and far", note.mean("half/new_moments", 2))
    seeds = note.wide(2)["full/new_moments"]
    assert (seeds < note.wide(2)["full/fresh"]).all()
    note.says("and far worse if all do (", "). With", seeds.mean(), len(seeds), seeds.min(), seeds.max())
    same = note.means("quarter/same_moments half/same_moments full/same_moments", 2)
    note.says("it learns little at any fraction (", "); where", *same)


def test_dqn_populations(note):
    rows = {}
    for i, metric in enumerate(("weight norm", "stable rank", "dead units", "feature rank")):
        clauses = {"true_label": 12 * i + 1, "random_label": 12 * i + 2, "sparse": 12 * i + 4}
        for part, k in clauses.items():
            assert f"with {metric.replace(' ', '_')} over {part}/grid" in note.clauses[k - 1]["text"]
        rows[metric] = [note.clause(k) for k in clauses.values()]
    note.table("| | rewards for true labels | for random labels | sparse rewards |", rows)
    configs = note.visits.groupby(["arm", "visit"]).size().unique()
    note.says("(larger means less plastic) over ", " % intervals", *configs, 100 * note.clauses[0]["confidence"])
    note.says("The run took ", " minutes", RESULTS["dqn_populations"]["minutes"])


def test_epochs_and_rank(note):
    columns = {
        "effective rank": "policy_effective_rank",
        "norm of the pre-activations": "policy_feature_norm/pre",
        "dead units": "policy_dead_units",
        "capacity loss": "capacity",
        "excess ratio": "excess_ratio",
        "return, last tenth": END,
    }
    rows = {label: note.means("two eight thirty_two pfo", 1, column) for label, column in columns.items()}
    note.table("| | 2 epochs | 8 | 32 | 32, PFO |", rows)
    note.says("At the end of 80,000 frames, mean of ", " seeds", *note.visits["lanes"].unique())
    note.says("as in the pilot, is not confirmed (", ")", *note.clause(5))
    norm, capacity = (note.clauses[k - 1]["contrasts"] for k in (2, 3))
    sentence(note.text, "the norm of its pre-activations falls from 2 to 8 epochs and stays from", " 8 to 32")
    assert norm[0][2] < 0
    assert norm[1][1] < 0 < norm[1][2]
    sentence(note.text, "and, from 2 to 8 epochs,", " a larger capacity loss")
    assert capacity[0][1] > 0


def test_kalman_forgetting(note):
    """The file gives gamma with five digits, and so its means with no more than six."""
    late = (6, 20)
    note.says("On the changing stream the filter has ", " over", note.value(1, "changing/learned"))
    note.says("without forgetting it has ", ", since", note.value(1, "changing/static"))
    note.says("Adam at its best step size ", ". In", note.value(2, "changing/adam"))
    note.says("gamma falls to ", " on average", note.value(5, "changing/learned"))
    note.says("On the stationary stream it stays at ", ", and", note.value(4, "stationary/learned"))
    rows = {}
    for label, arm in {
        "learned (Gaussian objective)": "learned",
        "learned (softmax objective, a tenth of the rate)": "softmax",
        "never forgets": "static",
        "Adam, step size 0.03": "adam",
    }.items():
        both = f"changing/{arm} stationary/{arm}"
        gamma = [None if np.isnan(value) else round(value, 6) for value in note.means(both, late, "gamma")]
        rows[label] = [*note.means(both, late), *gamma]
    note.table("| | accuracy, changing | stationary | gamma at the end of a visit, changing | stationary |", rows)
    note.says("stream too, to ", " after 4,000", note.mean("stationary/softmax", 20, "gamma"))
    learned, softmax = note.means("stationary/learned stationary/softmax", late, times=100)
    note.says("updates, and costs ", " points", learned - softmax)
    note.says("On the stationary stream Adam is ahead* (", ")", note.mean("stationary/adam", late))


def test_lifetime_tuning(note):
    note.says("L2-Init is ahead either way, by ", " of return", *note.clause(2))
    note.says("the difference of the two gains is ", ". Both", *note.clause(1))
    selection = table_of("lifetime_tuning_selection").rename(columns={"agent.optimizer.learning_rate": "step"})
    best = selection.loc[selection.groupby(["tuned_on", "arm"])["performance"].idxmax()]
    best = best.set_index(["tuned_on", "arm"])["step"]
    assert best["first_tenth", "baseline"] == best["whole", "baseline"]
    note.says("Both ways select a step size of ", " for plain", best["whole", "baseline"])
    note.says("and then ends at ", ". For", note.value(1, "whole/baseline"))
    first, whole = note.value(1, "first_tenth/l2_init", "whole/l2_init")
    selected = best["first_tenth", "l2_init"], whole - first, best["whole", "l2_init"]
    note.says("For L2-Init the first tenth selects ", " that the whole", *selected)
    lives = selection[(selection["tuned_on"] == "whole") & (selection["arm"] == "baseline")]
    top = lives.loc[lives["performance_last_tenth"].idxmax()]
    note.says("does plain DQN end above 0 (at best ", ";", top["performance_last_tenth"], top["step"])
    arms = {
        "plain DQN, tuned on a tenth or on all": "first_tenth/baseline",
        "L2-Init, tuned on a tenth": "first_tenth/l2_init",
        "L2-Init, tuned on all": "whole/l2_init",
    }
    visits = (1, 2), (9, 10), (19, 20)
    rows = {label: [note.mean(arm, of) for of in visits] for label, arm in arms.items()}
    note.table("| mean return, visits | 1 to 2 | 9 to 10 | 19 to 20 |", rows)


def test_memory_or_remedies(note):
    arms = {
        "none": "none",
        "memory (GRU)": "memory",
        "layer normalisation, decay": "layer_norm_decay",
        "L2-Init": "l2_init",
        "shrink and perturb": "shrink_perturb",
        "ReDo": "redo",
        "continual backprop": "continual_backprop",
        "fresh at each switch, not judged": "fresh",
    }
    rows = {label: [note.mean(arm, visit) for visit in (1, 2, 3, 4)] for label, arm in arms.items()}
    note.table("| arm | visit 1 | 2 | 3 | 4 |", rows)
    note.says("Reward per step (", " seeds)", *note.visits["lanes"].unique())
    ahead = dict(zip(("none", "layer norm", "l2_init", "shrink", "redo", "backprop"), note.ranges(), strict=True))
    assert ahead == {"none": 1, "layer norm": 0, "l2_init": -1, "shrink": 1, "redo": 1, "backprop": 0}
    assert max(arms.values(), key=lambda arm: note.mean(arm, 1)) == "memory"
    assert all(note.mean("none", visit) < note.mean("fresh", visit) / 2 for visit in (2, 3, 4))


def test_metric_disagreement(note):
    metrics = ["dead_units", "effective_rank", "srank", "feature_rank", "weight_norm", "hessian_top_eigenvalue"]
    rows = {}
    for i, metric in enumerate(metrics):
        both = 4 * i + 1, 4 * i + 2
        for part, k in zip(("relabelled", "permuted"), both, strict=True):
            assert f"with {metric} over {part}/grid" in note.clauses[k - 1]["text"]
        rows[metric] = [note.clause(k) for k in both]
        relabelled, permuted = (note.ranges()[k - 1] for k in both)
        assert relabelled == permuted != 0
    note.table("| | relabelled | permuted inputs |", rows)
    found = note.visits.rename(columns=lambda name: name.rpartition(".")[2])
    last = found.query("visit == 20 and arm == 'permuted/grid'")
    full = last[(last["activation"] == "tanh") & (last["feature_rank"] == 128) & (last["dead_units"] == 0)]
    note.says("and their losses are ", ". Sharpness", *full["plasticity_probe"].sort_values())
    for kind, grown in last.sort_values("learning_rate").groupby(["activation", "normalisation"]):
        assert grown["hessian_top_eigenvalue"].is_monotonic_decreasing == (kind != ("relu", "none"))


def test_normaliser_lag_inputs(note):
    rows = {
        "lifetime": [note.value(1, "running"), note.value(3, "running")],
        "exponential, rate 0.001": [note.value(2, "exponential"), None],
        "reset at the switch": [note.value(1, "switch"), note.value(3, "switch")],
    }
    note.table("| statistics | observations | TD error |", rows)
    note.says("so that the factor of ", " is,", note.clause(1)[0])
    note.says("over all visits (", " seeds)", *note.visits["lanes"].unique())


def test_offline_rank(note):
    note.says("is not negative but absent (", ")", *note.clause(1))
    note.says("with which the rank collapses, it is ", ". This", note.clause(2)[0])
    found = note.visits.rename(columns={"agent.optimizer.learning_rate": "step"}).set_index("arm")
    usual, largest = found.loc["random/usual"], found.loc[["random/large"]].query("step == 0.1")
    steps = pd.concat([usual, largest])
    rows = {"srank, of 64": steps["srank"].tolist(), "return": steps["evaluation_return"].tolist()}
    assert len(steps) == 9
    note.table("| step size | 1e-5 | 3e-5 | 1e-4 | 3e-4 | 1e-3 | 3e-3 | 1e-2 | 3e-2 | 1e-1 |", rows)
    rewards = note.value(3, "random/rewards_slow", "random/rewards_fast")
    note.says("with step size 3e-2 the rank falls from ", " when only rewards", *rewards)
    cloning = note.value(4, "skilled/cloning_slow", "skilled/cloning_fast")
    note.says("are predicted, and from ", " when actions", *cloning)
    note.says("costs cloning nothing (return ", ")", found.loc["skilled/cloning_fast", "evaluation_return"])
    tanh = found.loc["random/tanh"]
    ends = tanh["srank"].agg(["min", "max"]).tolist(), tanh["evaluation_return"].agg(["min", "max"]).tolist()
    note.says("With tanh the rank is between ", " at all", *ends[0])
    note.says("and the return between ", ". On skilled", *ends[1])
    skilled = found.loc[["skilled/usual", "skilled/large", "skilled/tanh"], "evaluation_return"]
    note.says("at no step size (returns of ", ")", skilled.max(), skilled.min())


def test_offset_control(note):
    arms, later = "baseline l2_init trac c_chain fresh", (2, 10)
    note.says("by half of the return of a new one (", ");", *note.clause(1))
    columns = {
        "return": WHOLE,
        "over the last tenth of a task": END,
        "entropy of the policy at the end of a task": "entropy",
        "effective rank of the features": "effective_rank",
        "norm of the weights": "weight_norm",
    }
    rows = {label: note.means(arms, later, column) for label, column in columns.items()}
    note.table("| | plain | L2-Init | TRAC | C-CHAIN | new in each task |", rows)
    assert not any(note.means(arms, later, "dead_units"))
    sums = table_of("offset_control_episodes").query("visit > 1").groupby(["arm", "seed"])[["steps", "episodes"]].sum()
    lengths = (sums["steps"] / sums["episodes"]).groupby("arm").mean()
    order = lengths[["baseline", "c_chain", "trac", "l2_init", "fresh"]]
    note.says("(not judged; `docs/results/offset_control_episodes.csv`) give ", " for a new agent", *order)
    note.says("TRAC learns the first task slowly (", ")", *note.means("trac baseline", 1))


def test_permuted_inputs(note):
    arms = "adam sgd sgd_large l2_init continual_backprop layer_norm_decay fresh"
    rows = {str(visit): note.means(arms, visit) for visit in (6, 51, 120)}
    header = "| visit | adam | sgd 0.01 | sgd 0.1 | l2_init | continual_backprop | layer_norm_decay | fresh |"
    note.table(header, rows)
    early, late = (7, 12), (109, 120)
    lost = {arm: note.mean(arm, early, times=100) - note.mean(arm, late, times=100) for arm in arms.split()}
    note.says("step size decline, by ", " points", lost["adam"], lost["sgd_large"])
    assert lost["sgd"] < 0
    assert all(0.3 < note.mean(arm, 120, "dead_units") < 0.4 for arm in ("adam", "sgd_large"))
    note.says("and effective ranks of ", ". SGD", *note.means("adam sgd_large", 120, "effective_rank"))
    bound = numbers(sentence(note.text, "stay within ", " points of their level"))[0][0]
    for arm in ("l2_init", "continual_backprop", "layer_norm_decay"):
        assert abs(lost[arm]) < bound
        assert 0.8 < 100 * (note.mean(arm, late) - note.mean("fresh", late)) < 1.4
    note.says("but learns less (", "; F6b", note.mean("sgd", late))


def test_permuted_inputs_steps(note):
    arms = "sgd_001 sgd_003 sgd_01 sgd_03 adam_0003 adam_001 adam_003 fresh"
    rows = {f"{first} to {first + 11}": note.means(arms, (first, first + 11)) for first in (1, 13, 61, 109)}
    rows["dead units at the end"] = note.means(arms, 120, "dead_units", 100)
    header = "| tasks | SGD 0.01 | 0.03 | 0.1 | 0.3 | Adam 3e-4 | 1e-3 | 3e-3 | fresh (SGD 0.1) |"
    note.table(header, rows)
    note.says("means over tenths of the ", " tasks", note.visits["visit"].max())
    note.says("Adam with 3e-4 (", " from the beginning", note.mean("adam_0003", (1, 12)))


def test_plasticity_and_forgetting(note):
    transfer = {"adam": None, "l2_init": note.value(2, "l2_init"), "ewc": note.value(2, "ewc")}
    transfer["both"] = note.value(4, "both")
    rows = {
        label: [note.mean(arm, (1, 20)), note.mean(arm, 20), transfer[arm]]
        for label, arm in {"Adam": "adam", "L2-Init": "l2_init", "EWC": "ewc", "both": "both"}.items()
    }
    note.table("| | online accuracy, all visits | last visit | backward transfer |", rows)
    adam, ewc = note.means("adam ewc", 20, times=100)
    note.says("learns the last permutations ", " points", adam - ewc)
    note.says("only just above EWC (", ");", *note.clause(3, 100))


def test_replay_ratio_matched(note):
    rows = {}
    for label, arm in {
        "1/4": "quarter/baseline",
        "1": "one/baseline",
        "4": "four/baseline",
        "4, frozen target": "four/frozen",
    }.items():
        dormant = [note.mean(arm, visit, "dormant_units/tau_0.1") for visit in (1, 10)]
        rows[label] = [..., *dormant, note.mean(arm, 10, "effective_rank"), note.mean(arm, 10)]
    note.table("| ratio | env steps | dormant units after a tenth of the run | at the end | effective rank", rows)


def test_reset_and_copy(note):
    columns = {
        "plasticity loss (of a constant prediction: 0.5)": "plasticity_probe",
        "dead units": "dead_units",
        "effective rank of the features": "effective_rank",
        "mean reward at the end": END,
    }
    rows = {label: note.means("none before after", 10, column) for label, column in columns.items()}
    note.table("| after 50,000 updates | none | just before each copy | just after |", rows)
    none, before = note.means("none before", 10, "effective_rank")
    assert round(before / none) == 8


def test_revived_units(note):
    for arm in ("adam", "sgd", "momentum"):
        assert 0.49 < note.mean(arm, 15, "dead_units") < 0.51
        note.says("and accuracy is at chance (", "). With", note.mean(arm, 15))
    normalised = "adam_layer", "adam_rms"
    note.says("(under Adam to ", " at the end)", *[note.mean(arm, (24, 25), "dead_units") for arm in normalised])
    accuracies = [note.mean(arm, visit) for arm in normalised for visit in (1, 25)]
    note.says("accuracy falls in ", " normalisation, while", 25, *accuracies)
    note.says("while the control stays at ", ". What", note.mean("fresh", 25))


def test_slowly_changing(note):
    early, late = (6, 15), (91, 100)
    arms = "bp_01 bp_003 bp_001 cbp fresh"
    rows = {str(visit): note.means(arms, visit, times=-1) for visit in (6, 17, 51, 100)}
    note.table("| visit | 0.01 | 0.003 | 0.001 | continual backprop | new network at each flip |", rows)
    note.says("Squared error, mean over ", " seeds", *note.visits["lanes"].unique())
    note.says("Continual backprop loses ", " between", *note.clause(4, -1))
    assert note.bound(4) == -0.1
    lost = {arm: note.mean(arm, early) - note.mean(arm, late) for arm in arms.split()}
    note.says("which has nothing to lose, loses ", " over", lost["fresh"])
    change = {arm: lost["fresh"] - lost[arm] for arm in arms.split()}
    note.says("continual backprop changes by ", " and the plain", change["cbp"])
    note.says("and the plain networks by ", " for the three", *[change[f"bp_{rate}"] for rate in ("01", "003", "001")])
    dead = [note.mean("bp_01", visits, "dead_units") for visits in (early, late)]
    note.says("the fraction of dead units rises from ", " in the plain", *dead)
    assert round(note.mean("cbp", early, "dead_units"), 2) == round(note.mean("cbp", late, "dead_units"), 2)
    note.says("and stays at ", " with continual", note.mean("cbp", late, "dead_units"))


def test_slowly_changing_control(note):
    early, late = (6, 15), (91, 100)
    rows = {str(visit): note.means("bp_01 bp_003 cbp fresh", visit, times=-1) for visit in (6, 17, 51, 100)}
    note.table("| visit | 0.01 | 0.003 | continual backprop | new network at each flip |", rows)
    for visits in (early, late):
        note.says("the control, whose mean error is ", " in the early", note.mean("fresh", visits, times=-1))
    assert all(round(-3 * note.clause(k)[0]) == 1 for k in (1, 2))
    note.says("and continual backpropagation nothing (", ")", *note.clause(4))
    dead = note.means("bp_01 bp_003", late, "dead_units", 100)
    note.says("At the end ", " % of the plain", *dead)
    note.says("units are dead, and ", " % with", note.mean("cbp", late, "dead_units", 100))
    note.says("All four clauses hold, on ", " seeds", *note.visits["lanes"].unique())


def test_stacking(note):
    end, all_four = (19, 20), "layer_norm_and_decay_and_two_hot_and_reset"
    columns = WHOLE, "dead_units", "effective_rank"
    labels = [label for label, *_ in rows_of(note.text, "| last tenth | squared error |")]
    rows = {label: [note.mean(stacked(label), end, of, -1 if of == WHOLE else 1) for of in columns] for label in labels}
    note.table("| last tenth | squared error | dead units | effective rank |", rows)
    subsets = [arm for arm in note.visits["arm"].unique() if arm != "fresh"]
    assert len(subsets) == 16
    assert max(subsets, key=lambda arm: note.mean(arm, end)) == "everything"
    assert note.mean("everything", end, "dead_units") < 0.005
    note.says("the sixteen subsets (squared error ", " over the last", rows["all four"][0])
    for part, start, stop in (
        ("decay", "makes it worse: ", " without decay"),
        ("layer_norm", "without decay, ", " without layer"),
        ("reset", "normalisation, ", " without the reset"),
        ("two_hot", "the reset, ", " without two-hot"),
    ):
        others = "_and_".join(each for each in all_four.split("_and_") if each != part)
        note.says(start, stop, note.mean(others, end, times=-1))
    note.says("shows no loss here (", "; it has learned", rows["none"][0])
    note.says("beats the fresh control's ", ").", rows["fresh"][0])
    note.says("the reset alone (", ", since", rows["reset"][0])
    note.says("and two-hot alone (", " of its units", rows["two-hot"][0], 100 * rows["two-hot"][1])
    note.says("in the first visit its error is ", " the plain", *note.means("two_hot", 1, times=-1))
    note.says("that of the plain network ", "), but", note.mean("none", 1, times=-1))
    note.says("from the third visit on it is worse (", ").", *note.means("two_hot none", 3, times=-1))
    assert all(note.mean("two_hot", visit) < note.mean("none", visit) for visit in range(3, 21))


def test_stacking_boundary_free(note):
    note.says("while the plain network loses ", ":", -note.clause(1)[0])
    rows = {
        label: [
            *[note.mean(arm, (first, first + 5), times=-1) for first in (7, 31, 55)],
            note.mean(arm, 60, "dead_units", 100),
        ]
        for label, arm in {
            "plain": "plain",
            "layer normalisation": "layer_norm",
            "decay": "decay",
            "two-hot targets": "two_hot",
            "layer normalisation, decay": "layer_norm_decay",
            "layer normalisation, two-hot": "layer_norm_two_hot",
            "decay, two-hot": "decay_two_hot",
            "all three": "three",
        }.items()
    }
    note.table("| squared error, mean over visits | 7 to 12 | 31 to 36 | 55 to 60 | dead units at the end |", rows)
    last = {label: cells[2] for label, cells in rows.items()}
    assert sorted(last, key=last.get)[:2] == ["layer normalisation, decay", "all three"]
    assert max(last, key=last.get) == "two-hot targets"


def test_stacking_rl(note):
    last = note.visits["visit"].max()
    header = "| mean reward (chance 0.2) | first visit | last visit | dead units, last |"
    rows = {
        label: [
            *(note.mean(stacked(label), visit) for visit in (1, last)),
            note.mean(stacked(label), last, "dead_units"),
        ]
        for label, *_ in rows_of(note.text, header)
    }
    note.table(header, rows)
    end = {label: row[1] for label, row in rows.items()}
    best = "layer norm, decay, reset"
    subsets = [arm for arm in note.visits["arm"].unique() if arm != "fresh"]
    assert max(subsets, key=lambda arm: note.mean(arm, last)) == stacked(best)
    for start, stop, *labels in (
        ("normalisation with decay and the reset (", ") does", best),
        ("no worse than all four (", "), which", "all four"),
        ("does no harm by itself (", ") and", "decay", "none"),
        ("in combination with two-hot (", "), whose", "decay, two-hot", "two-hot"),
    ):
        note.says(start, stop, *[end[label] for label in labels])
    note.says("which itself falls from ", " in the first", rows["all four"][0])
    alone = "reset", "two-hot", "decay", "layer norm"
    assert max(alone, key=lambda label: rows[label][0]) == min(alone, key=end.get) == "two-hot"
    norms = [note.mean(arm, last, "weight_norm") for arm in ("two_hot", "decay_and_two_hot")]
    note.says("to a norm of ", " with it", *norms)
    assert round(norms[0] / note.mean("two_hot", 1, "weight_norm")) == 3


def test_step_sizes_replayed(note):
    slower = 100 * (note.value(2, "nap") - note.value(1, "layer_norm"))
    gap = 100 * note.clause(2)[0]
    note.says("and somewhat more (", ").", gap, slower)
    visits = 1, 6, 15, 30, 45, 60
    arms = {
        "layer normalisation": "layer_norm",
        "Normalize-and-Project": "nap",
        "the same, step sizes played back": "played_back",
    }
    rows = {label: [note.mean(arm, visit) for visit in visits] for label, arm in arms.items()}
    note.table("| accuracy in visit | 1 | 6 | 15 | 30 | 45 | 60 |", rows)
    note.says("and then part, to ", " (the criterion", *note.clause(1, -100))
    note.says("(the criterion allowed ", ")", 100 * note.bound(1))
    apart = max(abs(note.mean("played_back", visit) - note.mean("layer_norm", visit)) for visit in range(1, 27))
    note.says("The two curves agree within ", " until visit 26 and", apart)


def test_target_offset_steps(note):
    plain = {c: note.value(1, f"c{c}/baseline") for c in (0, 1, 10, 100)}
    two_hot = {0: note.value(3, "c0/two_hot"), 100: note.value(3, "c100/two_hot")}
    rows = {str(c): [plain[c], two_hot.get(c)] for c in plain}
    note.table("| offset before | plain | two-hot |", rows)
    note.says("is at most 0.1, mean of ", " seeds", *note.visits["lanes"].unique())
    fresh = note.value(2, "c100/fresh")
    note.says("A fresh network needs ", ". After", fresh)
    assert plain[1] < fresh < plain[10]
    assert round(plain[100] / fresh) == 5
    note.says("an offset of 100 costs ", " updates", two_hot[100] - two_hot[0])
    layer, base = note.means("c100/layer_norm c100/baseline", 2, END, -1)
    start = "After an offset of 100, layer normalisation alone does worst: its error is still "
    note.says(start, " over the last tenth", layer)
    note.says("1,000 updates, against ", " of the plain", base)


def test_target_offset_time(note):
    rows = {}
    for c in (0, 1, 10, 100):
        arms = f"c{c}/baseline c{c}/two_hot c{c}/fresh"
        pairs = zip(note.means(arms, 2, times=-1), note.means(arms, 2, END, -1), strict=True)
        rows[str(c)] = [value for pair in pairs for value in pair]
    header = "| offset before | plain: mean error | last tenth | two-hot: mean error | last tenth | fresh: mean | last"
    note.table(header, rows)
    note.says("for an offset of 100 (", " in the last", note.mean("c100/layer_norm", 2, END, -1))


def test_transfer_by_module(note):
    rows, again = {}, []
    for motor in ("weaker", "reversed"):
        arms = " ".join(f"{motor}/{kept}" for kept in ("both", "critic", "actor", "neither"))
        rows[motor], rows[f"{motor}, last tenth"] = note.means(arms, 2), note.means(arms, 2, END)
        warmer = table_of(f"transfer-temperature-{motor}", visit=2).set_index("seed")[WHOLE]
        again += interval(warmer - note.wide(4 if motor == "weaker" else 8)[f"{motor}/neither"])
    note.table("| motor | kept: both | the critic | the actor | neither |", rows)
    note.says("the difference is ", " for a weaker", *note.clause(3))
    note.says("for a weaker motor and ", " for a reversed one", *note.clause(7))
    note.says("is no faster than a new agent: ", ". (", *note.clause(4), *note.clause(8))
    note.says("mean within ", " of return", note.bound(3), note.bound(4))
    note.says("is no faster than a new one either: ", " (tried", *again)


def test_transformer_units(note):
    arms = {
        "baseline": "baseline",
        "ReDo": "redo",
        "continual backprop": "continual_backprop",
        "self-normalised resets": "self_normalized_resets",
        "selective weight reinitialisation": "selective_weight_reinit",
        "TRAC": "trac",
        "L2-Init": "l2_init",
        "C-CHAIN": "c_chain",
        "fresh": "fresh",
    }
    rows = {
        label: [
            *[note.mean(arm, visit) for visit in (1, 6, 11, 16, 21, 25)],
            note.mean(arm, (24, 25), "dormant_units"),
            note.mean(arm, (24, 25), "weight_norm"),
        ]
        for label, arm in arms.items()
    }
    note.table("| accuracy in visit | 1 | 6 | 11 | 16 | 21 | 25 | dormant units, last tenth | norm of the", rows)
    gains = [note.clause(k)[0] for k in (2, 3, 4, 5)]
    note.says("The four methods that reinitialise end ", " above the baseline", min(gains), max(gains))
    note.says("about the margin (", ")", note.bound(2))
    recycled = "redo continual_backprop self_normalized_resets selective_weight_reinit"
    ends = dict(zip(recycled.split(), note.means(recycled, (24, 25)), strict=True))
    for arm, end in ends.items():
        note.says("all four fall from about ", " to the level", max(note.mean(arm, visit) for visit in range(1, 26)))
        assert abs(end - note.mean("fresh", (24, 25))) < 0.02
        assert end < note.mean("trac", (24, 25))
    falls = note.mean("c_chain", 11, times=100) - note.mean("c_chain", 25, times=100)
    note.says("C-CHAIN, the highest, falls by ", " points between visits 11 and 25", falls)
    lost = {arm: note.mean(arm, 6) - note.mean(arm, 25) for arm in arms.values()}
    emptied = [lost[arm] for arm in ("redo", "continual_backprop", "self_normalized_resets")]
    note.says("and still lose ", " of accuracy", min(emptied), max(emptied))
    note.says("of accuracy from visit 6 on (the baseline ", ")", lost["baseline"])
    note.says("is different from the first visit on (", ")", *note.means("c_chain baseline", 1))


def test_variants_of_a_game(note):
    gains = {
        arm: note.wide(k)[f"{arm}/continued - {arm}/fresh"]
        for k, arm in enumerate(("same", "actions", "channels", "both"), 1)
    }
    rows = {
        "the same actions": [interval(gains["same"]), interval(gains["channels"])],
        "other actions": [interval(gains["actions"]), interval(gains["both"])],
    }
    note.table("| | the same channels | other channels |", rows)
    note.says("with 95 % intervals over ", " seeds", *note.visits["lanes"].unique())
    same, actions, channels, both = gains.values()
    note.says("other channels cost ", ", other actions", *interval((same + actions - channels - both) / 2))
    note.says(", other actions ", ", and both together", *interval((same - actions + channels - both) / 2))
    note.says("and both together cost ", " less than", *interval(both - channels - actions + same))
    late = [note.mean(f"{arm}/continued", 2, END) - note.mean(f"{arm}/fresh", 2, END) for arm in gains]
    note.says("the last tenth of the visit the gains are ", " and the losses", *late[:2])
    for loss in late[2:]:
        note.says("and the losses ", " each", -loss)
    ends = [note.mean(f"{arm}/fresh", 2, END) for arm in gains]
    note.says("New agents end the visit at ", ". Four", min(ends), max(ends))
    reset = {}
    for k, (label, arm) in enumerate(
        {"the same game": "same", "other actions": "actions", "other channels": "channels"}.items(), 1
    ):
        found = table_of(f"variants-{arm}-reset", visit=2).set_index("seed")[WHOLE]
        reset[label] = [interval(found - note.wide(k)[f"{arm}/{other}"]) for other in ("continued", "fresh")]
    note.table("| | less the continued agent | less a new agent |", reset)


def test_warm_start_noisy(note):
    note.says("from scratch, the network is ", " more accurate", *note.clause(1, 100))
    note.says("but makes it larger by ", ", with the setting", *note.clause(2, -100))
    rows = {
        label: [note.mean(arm, visit, column) for column in ("evaluation_reward", "loss", "weight_norm")]
        for label, arm, visit in (
            ("after half of the data", "warm", 1),
            ("warm start", "warm", 2),
            ("shrink and perturb", "shrink_perturb", 2),
            ("fresh", "fresh", 2),
        )
    }
    note.table("| at the end | held-out accuracy | loss on the noisy training labels | norm of the weights |", rows)


def test_shifting_offsets(note):
    arms, later = "baseline c_chain l2_init fresh", (2, 10)
    tasks = table_of("shifting_offsets").query("visit > 1").pivot(index=["seed", "visit"], columns="arm")
    ends, lost = tasks[END], tasks[END] < 15
    rows = {
        "return, last tenth of a task": note.means(arms, later, END),
        "return, whole task": note.means(arms, later),
        "share of lost tasks (return below 15 in the last tenth)": lost.mean()[arms.split()].tolist(),
        "return in the others, last tenth": ends[~lost].mean()[arms.split()].tolist(),
        "entropy of the policy at the end of a task": note.means(arms, later, "entropy"),
        "effective rank of the features": note.means(arms, later, "effective_rank"),
    }
    note.table("| | plain | C-CHAIN | L2-Init | new in each task |", rows)
    whole, ends, shares = (table.groupby("seed").mean() for table in (tasks[WHOLE], ends, lost))
    note.says("ends them like a new one (", " over the last tenth)", *interval(ends["l2_init"] - ends["fresh"]))
    note.says("but gets there more slowly (", " over whole", *interval(whole["l2_init"] - whole["fresh"]))
    note.says("are lost than without (", ") and", *interval(shares["c_chain"] - shares["baseline"]))
    note.says("which has ", " in the same tasks", tasks[END]["fresh"][~lost["baseline"]].mean())
    note.says("clearly ahead of the plain agent (", "; C-CHAIN", *interval(whole["l2_init"] - whole["baseline"]))
    note.says("; C-CHAIN ", "; not judged", *interval(whole["c_chain"] - whole["baseline"]))


def test_warm_start(note):
    warm, fresh, shrunk = note.means("warm fresh shrink_perturb", 2, "evaluation_reward", 100)
    note.says("There is no gap to close: ", " % accuracy", warm)
    note.says("after a warm start and ", " % from scratch", fresh)
    note.says("from scratch, over ", " splits", *note.visits["lanes"].unique())
    note.says("has no visible cost (", " %)", shrunk)


def test_convex_and_stationary(note):
    note.says("After ", " labellings", note.visits["visit"].max())
    note.says("over the last tenth is ", ". The network", *note.clause(1))
    note.says("never change is ", " points ahead", 100 * note.clause(4)[0])


def test_dormancy(note):
    dormant = "dormant_units"
    assert round(2 * note.mean("shuffled/baseline", 30, dormant), 1) == 1
    note.says("with fixed labels ", " % are", note.mean("fixed/baseline", 40, dormant, 100))
    kept, lost, fresh = note.means("shuffled/redo shuffled/baseline shuffled/fresh", (37, 40))
    note.says("over all 40 shuffles (", ", ahead", kept)
    note.says("ahead of the fresh control's ", ", against", fresh)
    note.says(", against ", " without)", lost)


def test_default_adam(note):
    adam_table(note, (1, 4, 7, 11, 21))
    note.says("Mean over ", " seeds", *note.visits["lanes"].unique())
    dead = note.means("default tuned", 7, "dead_units")
    note.says("the result is as published, ", " dead units against", dead[0])
    note.says("dead units against ", "; 60,000", dead[1])
    halves = note.means("adam_reset default", 4, "dead_units")
    note.says("halves the dead units (", " at visit 4)", *halves)


def test_target_offset(note):
    """The clauses are those of the first run, the table is that of the second one."""
    rows = {}
    for c in (0, 1, 10, 100):
        ends = table_of(f"target_offset-c{c}", visit=2).pivot(index="seed", columns="arm", values=END)
        units = pd.read_csv(DOCS / "results" / "metrics" / f"target_offset-c{c}.csv")
        units = units.query("visit == 2 and arm == 'baseline'")[["effective_rank", "dead_units"]]
        rows[str(c)] = [*-ends[["baseline", "layer_norm", "two_hot", "fresh"]].mean(), *units.mean()]
    header = "| c | squared error, last tenth: plain | layer norm | two-hot | fresh network | effective rank, plain |"
    note.table(header, rows)
    note.says("and the clause holds (", ");", *interval(ends["baseline"] - ends["fresh"]))
    note.says("is as published (rank correlation ", ")", note.clauses[0]["number"])
    note.says("network at `c = 100` is ", ", with an interval", note.clauses[1]["number"])
    note.says("with an interval that ends at ", ": 2,000", note.clauses[1]["high"])


def test_label_permutation(note):
    for k in (1, 2):
        note.says("permutation and end ", " points ahead", 100 * note.clause(k)[0])


def test_random_walk(note):
    column = "hessian_top_eigenvalue"
    note.says("loss rises from ", ", stepwise", *[note.mean("descent", visit, column) for visit in (1, 25)])
    note.says("(reward ", " per step)", note.mean("descent", 25))
    for visit in (1, 25):
        assert round(note.mean("walk", visit, column) / 10) == 43
    note.says("Under the random walk it stays at ", ", with", note.mean("walk", 25, column))
