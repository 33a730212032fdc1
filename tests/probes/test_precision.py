"""What hidden layers in bfloat16 cost in accuracy, and that results of two precisions are kept apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxomarl.api import runtime, session
from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.schedules import vp
from jaxomarl.networks.denoisers import residual_mlp
from jaxomarl.numerics import precision, rounded
from jaxomarl.optim import create, descend

MEAN, STD = 0.3, 0.2
HALF = "bfloat16"


def taught(net, steps=600, batch=256):
    """Parameters after training on N(MEAN, STD^2)."""
    tx, schedule, mask = optax.adam(optax.cosine_decay_schedule(3e-3, steps)), vp(), jnp.ones(1)

    def step(state, key):
        k_a, k_t, k_z = jax.random.split(key, 3)
        a = MEAN + STD * jax.random.normal(k_a, (batch, 1))
        t, z = jax.random.uniform(k_t, (batch,), minval=1e-3), jax.random.normal(k_z, (batch, 1))
        told = jnp.zeros((batch, 1))
        grads = jax.grad(
            lambda p: eps_loss(lambda x, t: net.apply(p, x, t, told), schedule, a, t, z, mask)
        )
        return descend(tx, state, grads(state.params)), None

    start = create(tx, net.init(jax.random.key(0)))
    return jax.lax.scan(step, start, jax.random.split(jax.random.key(1), steps))[0].params


@pytest.mark.long
def test_a_noise_network_in_half_the_bits_learns_the_noise_of_a_gaussian_as_well():
    net, (alpha, sigma) = residual_mlp(1, 1, 32, 2, 0.0, 16), vp()
    t = jnp.repeat(jnp.linspace(0.02, 1.0, 50), 40)
    x = (
        alpha(t)[:, None] * MEAN
        + sigma(t)[:, None] * jnp.tile(jnp.linspace(-2, 2, 40), 50)[:, None]
    )
    spread = jnp.sqrt((alpha(t) * STD) ** 2 + sigma(t) ** 2)[:, None]
    exact = sigma(t)[:, None] * (x - alpha(t)[:, None] * MEAN) / spread**2
    error = {}
    for name in ("float32", HALF):
        with jax.default_matmul_precision(name):
            found = jax.jit(lambda: net.apply(taught(net), x, t, jnp.zeros((2000, 1))))()
        assert found.dtype == jnp.float32
        error[name] = float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2)))
    assert error["float32"] < 0.1, error
    assert error[HALF] < 1.25 * error["float32"] + 0.01, error


def test_inputs_and_outputs_keep_their_bits():
    net = residual_mlp(1, 1, 32, 2, 0.0, 16)
    params, t, told = net.init(jax.random.key(0)), jnp.full(512, 0.5), jnp.zeros((512, 1))
    x = jnp.linspace(0.5, 0.501, 512)[:, None]  # where bfloat16 has two numbers
    both = lambda p: (
        net.apply(p, x, t, told),
        jax.grad(lambda p: net.apply(p, x, t, told).sum())(p),
    )
    full, _ = jax.jit(both)(params)
    with jax.default_matmul_precision(HALF):
        rounded_too, grads = jax.jit(both)(params)
        traced = jax.make_jaxpr(net.apply)(params, x, t, told)
    read = [
        {str(v.aval.dtype) for v in e.invars}
        for e in traced.eqns
        if e.primitive.name == "dot_general"
    ]
    assert read[-1] == {"float32"} and read.count({"float32"}) == 3, (
        "what reads time, what reads x, and the last"
    )
    assert read.count({HALF}) == len(read) - 3 > 0
    assert rounded_too.dtype == jnp.float32 and {g.dtype for g in jax.tree.leaves(grads)} == {
        jnp.dtype("float32")
    }
    np.testing.assert_allclose(rounded_too, full, atol=0.02 * float(jnp.abs(full).max()))
    assert not np.array_equal(rounded_too, full)


def test_a_folder_is_of_one_precision(tmp_path):
    ask = lambda: session.asked("", {}, 0, 0, 1.0)
    session.open_folder(tmp_path / "full", ask(), resume=False, overwrite=False)
    with jax.default_matmul_precision(HALF):
        assert precision() == HALF and rounded()["precision"] == HALF
        with pytest.raises(JaxomarlError, match="precision"):
            session.open_folder(tmp_path / "full", ask(), resume=True, overwrite=False)
        session.open_folder(tmp_path / "half", ask(), resume=False, overwrite=False)
    assert "precision" not in rounded()
    with pytest.raises(JaxomarlError, match="precision"):
        session.open_folder(tmp_path / "half", ask(), resume=True, overwrite=False)


def test_a_precision_that_there_is_not_is_refused():
    with pytest.raises(JaxomarlError, match="default, float32, bfloat16"):
        runtime.use_precision("half")
    before = precision()
    runtime.use_precision("")
    assert precision() == before
