"""A source distribution with the symbolic links of a checkout; everything else is in pyproject.toml."""

import contextlib
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

LINKS = ("agents", "configs", "envs")  # plasticity/agents -> ../agents


class WithLinks(sdist):
    """setuptools leaves links to folders out, without which nothing can be imported from an unpacked distribution."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for name in LINKS:
            with contextlib.suppress(OSError):  # Windows may allow no links
                (Path(base_dir) / "plasticity" / name).symlink_to(f"../{name}", target_is_directory=True)


setup(cmdclass={"sdist": WithLinks})
