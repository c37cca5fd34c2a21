import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Learner
from plasticity.monitors import churn, policy_change

INPUTS = jnp.asarray([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])


def linear(probes, kernel, meaning="values", valid=(True, True, True), inputs=INPUTS):
    """A probe of ``f(x) = x W``."""
    probe = probes.written({"hidden_0": inputs})
    return probe._replace(
        learner=Learner(jnp.asarray(kernel, jnp.float32), (), ()),
        observation=inputs,
        valid=jnp.asarray(valid),
        scores=lambda params, observation: observation @ params,
        meaning=meaning,
    )


def series(monitor, *probes):
    """The metrics of one measurement after another."""
    state, found = monitor.init(probes[0].learner.params), []
    for probe in probes:
        state, metrics = monitor.measure(jax.random.key(0), state, probe)
        found.append({name: float(value) for name, value in metrics.items()})
    return found


def test_churn_by_hand(probes):
    """W moves by [[1, 0], [0, -1]]: the outputs of the rows by (1, 0), (0, -2), (1, -1)."""
    before, after = linear(probes, np.zeros((2, 2))), linear(probes, [[1, 0], [0, -1]])
    first, second, third = series(churn(), before, after, after)
    assert first == third == {"churn": 0, "churn/rms": 0}
    assert second == pytest.approx({"churn": 5 / 6, "churn/rms": np.sqrt(7 / 6)})


def test_rows_that_are_no_transition_do_not_count(probes):
    valid = (True, False, True)
    before, after = linear(probes, np.zeros((2, 2)), valid=valid), linear(probes, [[1, 0], [0, -1]], valid=valid)
    assert series(churn(), before, after)[1] == pytest.approx({"churn": 3 / 4, "churn/rms": np.sqrt(3 / 4)})
    assert series(policy_change(), before, after)[1] == {"policy_change": 0}
    nothing = linear(probes, np.eye(2), valid=(False,) * 3)
    assert np.isnan(list(series(churn(), before, nothing)[1].values())).all()
    assert np.isnan(list(series(policy_change(), before, nothing)[1].values())).all()


def test_the_present_batch_is_what_both_are_read_on(probes):
    """Not the batch of the measurement before: on twice the inputs the same parameters differ by twice as much."""
    before = linear(probes, np.zeros((2, 2)))
    after = linear(probes, [[1, 0], [0, -1]], inputs=2 * INPUTS)
    assert series(churn(), before, after)[1]["churn"] == pytest.approx(5 / 3)


def test_the_first_measurement_does_not_compare_with_the_start_of_the_run(probes):
    monitor = churn()
    state = monitor.init(jnp.zeros((2, 2)))
    state, found = monitor.measure(jax.random.key(0), state, linear(probes, np.eye(2)))
    assert float(found["churn"]) == 0
    np.testing.assert_array_equal(state.params, np.eye(2))


def test_the_greedy_action_by_hand(probes):
    """Scores (1, 0), (0, 2), (1, 1), of which the last, a tie, is action 0; swapped, (0, 1), (2, 0), (1, 1)."""
    first, second = series(policy_change(), linear(probes, np.eye(2)), linear(probes, np.eye(2)[::-1]))
    assert first == {"policy_change": 0}
    assert second == pytest.approx({"policy_change": 2 / 3})
    scaled = linear(probes, 5 * np.eye(2))  # other values, the same policy
    assert series(policy_change(), linear(probes, np.eye(2)), scaled)[1] == {"policy_change": 0}


def test_the_divergence_of_logits_by_hand(probes):
    """Probabilities (1/2, 1/2) before; (3/4, 1/4), (1/2, 1/2), (3/4, 1/4) after."""
    before, after = (linear(probes, w, "logits") for w in (np.zeros((2, 2)), [[np.log(3), 0], [0, 0]]))
    first, second = series(policy_change(), before, after)
    assert first == {"policy_change": 0, "policy_change/kl": 0}
    divergence = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert second == pytest.approx({"policy_change": 0, "policy_change/kl": 2 / 3 * divergence}, rel=1e-5)


def test_the_divergence_is_from_the_former_policy(probes):
    """KL((3/4, 1/4) || (1/2, 1/2)), which differs from the reverse."""
    before, after = (linear(probes, w, "logits") for w in ([[np.log(3), 0], [0, 0]], np.zeros((2, 2))))
    divergence = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert series(policy_change(), before, after)[1]["policy_change/kl"] == pytest.approx(2 / 3 * divergence, rel=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_a_diverged_learner_has_no_churn(probes, order):
    """Before or after."""
    pair = [linear(probes, np.full((2, 2), np.nan), "logits"), linear(probes, np.eye(2), "logits")][::order]
    for monitor in (churn(), policy_change()):
        assert np.isnan(list(series(monitor, *pair)[1].values())).all()


def test_predictions_have_no_greedy_action(probes):
    probe = linear(probes, np.eye(2), "prediction")
    with pytest.raises(ValueError, match=r"policy_change: this agent predicts real numbers .* use churn"):
        series(policy_change(), probe)
    assert series(churn(), probe)[0] == {"churn": 0, "churn/rms": 0}
