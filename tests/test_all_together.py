"""All interventions at once, with every agent."""

import pytest
from method_cases import APART, REFUSED
from test_cross import lives_through, variants

from plasticity.agents import AGENTS
from plasticity.interventions import INTERVENTIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_all_methods_together(name: str) -> None:
    allowed = [each for each in sorted(INTERVENTIONS) if name not in REFUSED.get(each, ()) and each not in APART]
    lives_through(name, *(variant for method in allowed for variant in variants(method)))
