"""What `import jaxomarl` gives: each name is the thing itself, and an error can be caught without another import."""

import pytest

import jaxomarl
from jaxomarl import base
from jaxomarl.api import train


def test_the_face_gives_the_things_themselves():
    assert jaxomarl.train is train.train
    assert jaxomarl.load is train.load
    assert jaxomarl.JaxomarlError is base.JaxomarlError
    with pytest.raises(AttributeError, match="no attribute 'sweep'"):
        jaxomarl.sweep  # noqa: B018


def test_a_refusal_is_caught_by_the_face_and_names_its_field():
    with pytest.raises(jaxomarl.JaxomarlError, match="expected at least one value") as caught:
        jaxomarl.train("bc", "games/bandit", bc_steps=[])
    assert caught.value.field == "bc_steps"
