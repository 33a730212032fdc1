"""What the tests of data share: a task, and data that fit it."""

import foreign
import pytest

from jaxomarl.data import formats
from jaxomarl.envs import catalog


@pytest.fixture(scope="module")
def spread():
    return catalog.make("mpe/spread")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Three episodes of 25 steps that fit mpe/spread, read from OMAR's layout."""
    path = foreign.omar(tmp_path_factory.mktemp("good") / "set", foreign.rows([25, 25, 25]))
    return formats.read(path)
