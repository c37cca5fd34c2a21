"""Placement and keys of lanes."""

import jax
import numpy as np
import pytest

from plasticity.core.lane_axis import over
from plasticity.engine.lanes import BUSY, WIDEST_ON_CPU, Placement, automatic_width, join, lane_keys, place


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8, 31])
@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("width", [None, 1, 3, 4])
def test_every_lane_has_exactly_one_place_that_is_recorded(lanes, devices, width):
    placement = place(lanes, devices=devices, width=width)
    places = [placement.lanes_of(group, lanes) for group in range(placement.groups)]
    assert join(places, lanes).tolist() == list(range(lanes))
    assert all(len(group) == placement.block for group in places)
    assert placement.groups * placement.block - lanes < placement.block + placement.width  # no empty group


def test_a_given_width_is_kept_whatever_the_number_of_lanes():
    assert {place(n, devices=2, width=4).width for n in (1, 3, 4, 17)} == {4}
    assert place(1, devices=2, width=4) == Placement(1, 1, 4)


def test_automatic_width():
    assert automatic_width("gpu", 40, BUSY) == 40
    assert automatic_width("cpu", 40, BUSY) == 1
    assert automatic_width("cpu", 41, BUSY) == 1
    assert automatic_width("cpu", 40, BUSY // 4) == 4
    assert automatic_width("cpu", 40, BUSY // 4 - 1) == 8  # 4 lanes would not keep it busy
    assert automatic_width("cpu", 1024, 1) == WIDEST_ON_CPU == 128
    assert automatic_width("cpu", 3, 1) == 3
    with pytest.raises(ValueError, match=r"placement\.width: 0"):
        place(4, devices=1, width=0)


@pytest.mark.parametrize(
    ("lanes", "width"),
    [(5, 5), (7, 7), (6, 3), (10, 5), (11, 4), (12, 4), (13, 2), (20, 4)],  # 4 wanted
)
def test_automatic_width_leaves_few_places_without_a_lane(lanes, width):
    assert automatic_width("cpu", lanes, BUSY // 4) == width


@pytest.mark.parametrize("work", [1, BUSY // 64, BUSY // 8, BUSY // 2, BUSY])
def test_at_most_one_place_in_eleven_is_without_a_lane(work):
    for lanes in range(1, 300):
        placement = place(lanes, devices=1, work=work)
        assert lanes <= placement.groups * placement.width <= lanes * 12 / 11


def test_keys_of_a_seed_do_not_depend_on_other_lanes_and_all_differ():
    alone = lane_keys(np.int32(17))
    among = jax.vmap(lane_keys)(np.arange(32, dtype=np.int32))
    for one, many in zip(alone, among, strict=True):
        data = jax.random.key_data(many)
        assert (jax.random.key_data(one) == data[17]).all()
    every = np.concatenate([jax.random.key_data(keys) for keys in among])
    assert len(np.unique(every, axis=0)) == 64  # data and learner keys of 32 seeds


def test_over_one_lane_uses_no_vmap():
    def function(x, y):
        return {"sum": x + y.sum()}

    x, y = np.arange(3.0, dtype=np.float32), np.ones((3, 2), np.float32)
    assert over(function, 3)(x, y)["sum"].tolist() == [2, 3, 4]
    assert over(function, 1)(x[:1], y[:1])["sum"].tolist() == [2]
    seen = []
    over(lambda x: seen.append(x.shape) or x, 1)(x[:1])
    assert seen == [()]
