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


def test_results_have_every_claim_that_is_judged_with_its_verdict(root):
    verdicts = (root / "docs" / "verdicts.md").read_text(encoding="utf-8")
    results = " ".join((root / "docs" / "results.md").read_text(encoding="utf-8").split("\n"))
    claims = dict(re.findall(r"^### (\S+): (.*)$", verdicts, re.MULTILINE))
    judged = {claim: word for claim, word in claims.items() if word != "not judged"}
    rows = re.findall(r"\| \[(\S+)\]\(verdicts\.md#\w+\): [^|]* \| ([a-z ]+) \|", results)
    assert dict(rows) == judged and len(rows) == len(judged)
    assert f"judges {len(claims)} claims" in results
    # what was run and not judged says more than that no run is on record
    tried = verdicts.count("- Verdict: **not judged**") - verdicts.count("no run on record).")
    spelled = ("none was", "one was", "two were", "three were")[tried]
    assert f"Of the other {len(claims) - len(judged)}, {spelled} run" in results


def test_the_distance_of_a_product_from_agreements(why):
    stated = re.search(
        r"([\d.]+) for two agents and two levels, ([\d.]+) for five agents and two", why
    )
    expected = [games.cms_total_variation(2, 2), games.cms_total_variation(5, 2)]
    np.testing.assert_allclose([float(x) for x in stated.groups()], expected, atol=0.005)
