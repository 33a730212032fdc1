"""The shapes that signatures promise are checked while tests run, and only then: test_import.py has the rest."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jaxomarl.base import Dataset, Layout
from jaxomarl.masking import column_mean


def test_a_wrong_dtype_is_refused():
    layout = Layout(agents=1, obs=1, state=1, action=1)
    assert layout.unpack(jnp.zeros((3, 7)))["state"].shape == (3, 1)
    with pytest.raises(jaxtyping.TypeCheckError, match="rows"):
        layout.unpack(jnp.zeros((3, 7), jnp.int32))


def test_axes_of_one_name_have_one_size():
    assert column_mean(jnp.ones((5, 2, 3)), jnp.ones((2, 3))).shape == (5, 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
        column_mean(jnp.ones((5, 2, 3)), jnp.ones((1, 3)))  # would broadcast


def test_a_tree_may_hold_anything():
    rows, m = jnp.zeros((4, 7)), jnp.zeros(4, jnp.int32)
    data = Dataset(rows, m, m, m, m, {}, Layout(agents=1, obs=1, state=1, action=1))
    assert jax.tree.map(jnp.shape, data).rows == (4, 7)
    assert jax.eval_shape(lambda d: d, data).rows.shape == (4, 7)
