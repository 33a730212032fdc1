"""Numbers that the explanations state are those of the package's own formulas."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.envs import games


@pytest.fixture(scope="module")
def why(root):
    """The page, on one line."""
    return " ".join((root / "docs" / "why.md").read_text(encoding="utf-8").split())


def test_the_data_say_what_agent_2_does_next_to_agent_1(why):
    stated = re.search(r"it is ([\d.]+) at a_1 = 0.1, and (-[\d.]+) at a_1 = -0.1", why)
    a_1 = jnp.array([0.1, -0.1])
    # E[r | a_1] = a_1 E[a_2 | a_1]
    expected = games.bandit_own_value(a_1, 0.3) / a_1
    np.testing.assert_allclose([float(x) for x in stated.groups()], expected, atol=0.005)


def test_the_distance_of_a_product_from_agreements(why):
    stated = re.search(
        r"([\d.]+) for two agents and two levels, ([\d.]+) for five agents and two", why
    )
    expected = [games.cms_total_variation(2, 2), games.cms_total_variation(5, 2)]
    np.testing.assert_allclose([float(x) for x in stated.groups()], expected, atol=0.005)
