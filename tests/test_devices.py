"""The devices of an old JAX, the only one on some platforms."""

from types import SimpleNamespace

import jax
import pytest

from plasticity.runs import devices


def test_an_old_jax_runs_on_one_device(monkeypatch: pytest.MonkeyPatch):
    found = (SimpleNamespace(platform="cpu"),)
    monkeypatch.delattr(jax, "shard_map")
    monkeypatch.setattr(jax.config, "update", lambda *words: pytest.fail("a setting that it does not have"))
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setattr(devices, "cores", lambda: 4)
    with pytest.warns(UserWarning, match=r"^JAX .* is old: runs have one device for 4 cores and are slower; "):
        assert devices.devices.__wrapped__() == found
