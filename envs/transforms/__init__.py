"""What can be done to any stream. ``TRANSFORMS`` names their factories: settings -> (Source -> Source)."""

from collections.abc import Callable, Mapping

from envs.base import Source

TRANSFORMS: Mapping[str, Callable[..., Callable[[Source], Source]]] = {}
