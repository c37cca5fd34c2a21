"""Every intervention with one agent of each regime, in the runner: ten steps, a switch, ten steps more.

With every agent, it runs outside the runner in tests/test_takes_effect.py, and together with the other interventions in
tests/test_all_together.py.
"""

import inspect
from collections.abc import Callable
from functools import partial

import chex
import jax
import numpy as np
import pytest
from agent_cases import SOON, program, run
from method_cases import REFUSED, SIZES

from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention

REGIMES = ("dqn", "sac", "ppo", "stream_q", "classifier", "offline_dqn")
# Those that are not refused, see tests/test_takes_effect.py.
PAIRS = [(name, method) for name in REGIMES for method in sorted(INTERVENTIONS) if name not in REFUSED.get(method, ())]


def acting_soon(method: str) -> Callable[[], Intervention]:
    """The method with every period of its settings at two updates."""
    known = inspect.signature(INTERVENTIONS[method]).parameters
    return partial(
        INTERVENTIONS[method], **{key: 2 for key in known if key.endswith("period")}, **SIZES.get(method, {})
    )


def variants(method: str) -> list[Callable[[], Intervention]]:
    """As it stands and, where it acts at switches, at a period too."""
    found = [acting_soon(method)]
    if "when" in inspect.signature(INTERVENTIONS[method]).parameters:
        found.append(partial(found[0], when="periodic"))
    return found


@pytest.mark.parametrize(
    ("name", "method"), [pytest.param(*pair, marks=[] if pair[0] == SOON[0] else pytest.mark.slow) for pair in PAIRS]
)
def test_structure_is_kept_through_steps_and_a_switch(name, method):
    """Traced only: what ``begin`` gives goes through ``chunk`` and ``switch`` unchanged in structure."""
    for variant in variants(method):
        started = run(program(name, variant))
        carry, (hyper, seeds, block) = started.carry_shape(), started.inputs[0]
        after, _ = jax.eval_shape(started.compiled.chunk, hyper, seeds, carry, started.clock())
        chex.assert_trees_all_equal_shapes_and_dtypes(after, carry)
        task = started.clock().visit
        switched = jax.eval_shape(started.compiled.switch, hyper, seeds, carry, started.clock(), task, block)
        chex.assert_trees_all_equal_shapes_and_dtypes(switched, carry)


def lives_through(name: str, *methods: Callable[[], Intervention]) -> None:
    started = run(program(name, *methods, seeds=(0, 1)))
    first, last = list(started.chunks())
    assert started.compiled.traces == {"begin": 1, "chunk": 1, "switch": 1}
    assert np.isfinite(first.metrics["loss"]).all()
    assert np.isfinite(last.metrics["loss"]).all()
    assert (last.metrics["update"] > first.metrics["update"]).all()
    assert (first.diverged_at == -1).all()
    assert (last.diverged_at == -1).all()
    for carry in started.carries:
        chex.assert_tree_all_finite((carry.agent.learner, carry.agent.plugins))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_each_method_runs(name, method):
    for variant in variants(method):
        lives_through(name, variant)
