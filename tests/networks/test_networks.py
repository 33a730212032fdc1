"""Networks against layers written out, their widths (A.3-A.5) and how they start."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.networks.actors import EDGE, actor, start_at, uniform_start
from jaxomarl.networks.agents import separate, shared, with_agent_number
from jaxomarl.networks.critics import twin, value
from jaxomarl.networks.denoisers import FREQUENCIES, fourier, mixture, residual_mlp
from jaxomarl.networks.mlp import Network, ensemble, layer_norm, mlp
from jaxomarl.networks.transformer import decision_transformer


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def filled(net, seed=0):
    """Parameters of the shapes that the network asks for, drawn by numpy."""
    rng = np.random.default_rng(seed)
    fill = lambda x: jnp.asarray(
        rng.standard_normal(x.shape) / max(1, x.shape[0]) ** 0.5, jnp.float32
    )
    return jax.tree.map(fill, jax.eval_shape(net.init, jax.random.key(0)))


def run(net, *args):
    return jax.jit(net.apply, compiler_options={"xla_backend_optimization_level": 0})(*args)


def widths(net):
    """Layer -> shape of its kernel."""
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return {name: layer["kernel"].shape for name, layer in shapes.items() if "kernel" in layer}


def pick(tree, k):
    return jax.tree.map(lambda x: x[k], tree)


def dense(params, name, x):
    return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(
        params[name]["bias"], np.float64
    )


def perceptron(params, x):
    h = np.maximum(dense(params, "Dense_0", np.asarray(x, np.float64)), 0)
    return dense(params, "out", np.maximum(dense(params, "Dense_1", h), 0))


# --- perceptrons ---


def test_policies_values_and_twins_are_two_relu_layers():
    x, act = some(1, 5, 3), some(2, 5, 2)
    pi, v, q = actor(3, (8, 7), 2), value(3, (8, 7)), twin(3, 2, (8, 7))
    assert widths(pi) == {"Dense_0": (3, 8), "Dense_1": (8, 7), "out": (7, 2)}
    assert widths(v) == {"Dense_0": (3, 8), "Dense_1": (8, 7), "out": (7, 1)}
    assert widths(q) == {"Dense_0": (2, 5, 8), "Dense_1": (2, 8, 7), "out": (2, 7, 1)}  # twins lead
    p = filled(pi)
    np.testing.assert_allclose(run(pi, p, x), np.tanh(perceptron(p, x)), rtol=1e-4, atol=1e-6)
    p = filled(v)
    np.testing.assert_allclose(run(v, p, x), perceptron(p, x)[:, 0], rtol=1e-4, atol=1e-6)
    p = filled(q)
    both = [perceptron(pick(p, k), np.concatenate([x, act], axis=1))[:, 0] for k in (0, 1)]
    np.testing.assert_allclose(run(q, p, x, act), both, rtol=1e-4, atol=1e-6)


def test_inputs_side_by_side_are_one_input():
    parts = mlp((5, 3), (8, 8), 2)
    params = filled(parts)
    x, y = some(1, 4, 5), some(2, 6, 1, 3)
    wide = jnp.concatenate(
        [jnp.broadcast_to(x, (6, 4, 5)), jnp.broadcast_to(y, (6, 4, 3))], axis=-1
    )
    expected = run(mlp(8, (8, 8), 2), params, wide)
    np.testing.assert_allclose(run(parts, params, x, y), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(parts, params, wide[..., :5], wide[..., 5:]), expected)


def test_many_actions_of_a_state_cost_its_product_once():
    q = twin(40, 3, (8, 8))
    of_shape = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(q.init, jax.random.key(0))
    traced = jax.make_jaxpr(q.apply)(params, of_shape(7, 40), of_shape(9, 7, 3))
    products = [e for e in traced.eqns if e.primitive.name == "dot_general"]
    wide = [e.invars[0].aval.shape for e in products if 40 in e.invars[0].aval.shape]
    assert wide == [(7, 40)]
    assert traced.out_avals[0].shape == (2, 9, 7)


@pytest.mark.parametrize("action", [(3,), (1, 3), (5, 3), (4, 2, 3)])
def test_a_condition_goes_with_every_action(action):
    q = twin(5, 3, (8, 8))
    params = jax.eval_shape(q.init, jax.random.key(0))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 5), action)]
    with pytest.raises(ValueError, match="leading axes"):
        jax.eval_shape(q.apply, params, *shapes)


def test_the_last_layer_keeps_its_bits_with_several_inputs():
    net = mlp((5, 3), (), 2)
    with jax.default_matmul_precision("bfloat16"):
        assert run(net, filled(net), some(0, 5), some(1, 4, 3)).dtype == jnp.float32


def test_no_hidden_layer_is_a_linear_one():
    pi = actor(3, (), 2)
    p, x = filled(pi), some(1, 5, 3)
    assert widths(pi) == {"out": (3, 2)}
    np.testing.assert_allclose(run(pi, p, x), np.tanh(dense(p, "out", np.asarray(x))), rtol=1e-5)


def test_layers_start_as_pytorchs_do():
    """Weights and biases U(+-1/sqrt(fan in)): bounds reached, variance bound^2 / 3, and not one draw twice."""
    params = jax.jit(mlp(50, (400, 30), 7).init)(jax.random.key(0))
    for name, fan in (("Dense_0", 50), ("Dense_1", 400), ("out", 30)):
        for part in ("kernel", "bias"):
            x, bound = np.asarray(params[name][part]).reshape(-1), fan**-0.5
            assert np.abs(x).max() <= bound
            assert np.abs(x).max() > bound * (
                1 - 20 / x.size
            )  # missed with probability e^-20 (kernels) or so
            error = (
                4 * (4 / 45 / x.size) ** 0.5 * bound**2
            )  # the variance of u^2, u ~ U(+-1), is 4/45
            assert abs(np.mean(x**2) - bound**2 / 3) < error
            assert abs(x.mean()) < 4 * bound / (3 * x.size) ** 0.5
            assert len(np.unique(x)) > 0.99 * x.size


def test_members_and_agents_start_apart():
    for params in (
        ensemble(mlp(3, (4,), 2), 3).init(jax.random.key(0)),
        separate(mlp(3, (4,), 2), 3).init(jax.random.key(0)),
    ):
        for x in jax.tree.leaves(params):
            assert len({row.tobytes() for row in np.asarray(x)}) == 3


# --- agents ---


def test_separate_networks_are_a_loop_over_agents():
    net = separate(actor(4, (6, 5), 2), 3)
    p, x = filled(net), some(1, 7, 3, 4)
    got = run(net, p, x)
    assert got.shape == (7, 3, 2)
    for i in range(3):
        np.testing.assert_allclose(
            got[:, i], np.tanh(perceptron(pick(p, i), x[:, i])), rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(run(net, p, x[0]), got[0], rtol=1e-5)  # no batch
    np.testing.assert_allclose(run(net, p, x[None]), got[None], rtol=1e-5)  # two batch axes
    other = run(net, p, x.at[:, 1].add(1.0))
    np.testing.assert_array_equal(other[:, [0, 2]], got[:, [0, 2]])
    assert np.all(np.any(np.asarray(other[:, 1] != got[:, 1]), axis=1))


def test_separate_networks_take_several_inputs():
    one = mlp(5, (6, 5), 2)
    net = separate(
        Network(one.init, lambda p, x, y: one.apply(p, jnp.concatenate([x, y], axis=-1))), 3
    )
    p, x, y = filled(net), some(1, 7, 3, 2), some(2, 7, 3, 3)
    got = run(net, p, x, y)
    for i in range(3):
        told = np.concatenate([x[:, i], y[:, i]], axis=1)
        np.testing.assert_allclose(got[:, i], perceptron(pick(p, i), told), rtol=1e-4, atol=1e-6)


def test_a_shared_network_is_told_who_it_is():
    net = shared(lambda inputs: mlp(inputs, (6, 5), 2), 4, 3)
    assert widths(net) == {"Dense_0": (7, 6), "Dense_1": (6, 5), "out": (5, 2)}
    p, x = filled(net), some(1, 7, 3, 4)
    got = run(net, p, x)
    for i in range(3):
        told = np.concatenate([x[:, i], np.tile(np.eye(3)[i], (7, 1))], axis=1)
        np.testing.assert_allclose(got[:, i], perceptron(p, told), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        with_agent_number(jnp.zeros((2, 2, 1)), 2)[1], [[0, 1, 0], [0, 0, 1]]
    )
    same = run(net, p, jnp.broadcast_to(x[:, :1], x.shape))
    assert np.abs(same[:, 0] - same[:, 1]).min() > 1e-4  # alike but for who they are


# --- starts ---


def test_a_chosen_start_is_played_everywhere():
    net = separate(actor(3, (8, 8), 2), 2)
    p, x = filled(net), 3 * some(1, 40, 2, 3)
    action = jnp.array([[0.5, -0.48], [1.0, -1.0]])
    at = start_at(p, action)
    want = np.broadcast_to([[0.5, -0.48], [EDGE, -EDGE]], (40, 2, 2))
    np.testing.assert_allclose(run(net, at, x), want, rtol=1e-5)
    for name in ("Dense_0", "Dense_1"):
        jax.tree.map(np.testing.assert_array_equal, at[name], p[name])  # the rest is kept
    slope = jax.grad(lambda p: net.apply(p, x).sum())(at)
    assert all(
        np.all(np.abs(np.asarray(b)) > 1e-3) for b in jax.tree.leaves(slope["out"]["bias"])
    )  # even at the edge
    drawn = uniform_start(jax.random.key(0), 0.3, (50, 20))
    assert np.abs(drawn).max() <= 0.3
    np.testing.assert_allclose(np.mean(drawn**2), 0.03, atol=4 * 0.09 * (4 / 45 / 1000) ** 0.5)


# --- denoisers ---


def test_fourier_features():
    t = jnp.array([0.0, 0.02, 0.5, 1.0])
    got = fourier(t, 16)
    assert got.shape == (4, 32)
    angle = 2 * np.pi * np.asarray(t, np.float64)[:, None] * FREQUENCIES[:16].astype(np.float64)
    # what is left is the rounding of t W, of 90 turns at most
    np.testing.assert_allclose(
        got, np.concatenate([np.sin(angle), np.cos(angle)], axis=1), atol=3e-5
    )
    slope = jax.jacfwd(lambda t: fourier(t, 16))(jnp.asarray(0.02))
    turning = 2 * np.pi * FREQUENCIES[:16]
    expected = np.concatenate([turning * np.cos(angle[1]), -turning * np.sin(angle[1])])
    np.testing.assert_allclose(slope, expected, atol=1e-3)
    np.testing.assert_array_equal(got[0], [0] * 16 + [1] * 16)
    assert len(FREQUENCIES) == 32
    assert abs(FREQUENCIES.mean()) < 4 * 30 / 32**0.5
    assert abs((FREQUENCIES**2).mean() - 900) < 4 * 900 * (2 / 32) ** 0.5


def test_widths_of_the_noise_network():
    """Table 5: 16 frequencies -> 64 -> 64; [x, cond] -> 32; 96 -> 512; two blocks 512 -> 2048 -> 512; -> d."""
    net = residual_mlp(2, 13, 512, 2, 0.1, 64)
    assert widths(net) == {
        "Dense_0": (32, 64), "Dense_1": (64, 64), "Dense_2": (2 + 13, 32), "Dense_3": (96, 512),
        "Dense_4": (512, 2048), "Dense_5": (2048, 512), "Dense_6": (512, 2048), "Dense_7": (2048, 512), "out": (512, 2),
    }  # fmt: skip
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    norms = {
        name: {k: x.shape for k, x in layer.items()}
        for name, layer in shapes.items()
        if "scale" in layer
    }
    assert norms == {f"LayerNorm_{k}": {"scale": (512,), "bias": (512,)} for k in (0, 1)}
    assert len(shapes) == 11  # and no frequencies among the parameters


def test_layers_are_normalised_with_pytorchs_epsilon():
    """Rows of variance 1e-6 show it, and every layer norm of the two networks that follow PyTorch code has it."""
    x = jnp.array([1e-3, -1e-3])
    found, _ = layer_norm().init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(found, x / np.sqrt(1e-6 + 1e-5), rtol=1e-5)
    used = []

    def note(call, args, kwargs, context):
        used.extend([context.module.epsilon] if isinstance(context.module, nn.LayerNorm) else [])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        for net in (residual_mlp(2, 3, 8, 2, 0.0, 4), decision_transformer(3, 2, 8, 2, 2, 5)):
            jax.eval_shape(net.init, jax.random.key(0))
    assert used == [1e-5] * (2 + 5)


def residual(p, x, t, cond, blocks):
    """The network of A.4 without dropout, in float64."""
    x, t, cond = (np.asarray(a, np.float64) for a in (x, t, cond))
    angle = 2 * np.pi * t[:, None] * FREQUENCIES[:16].astype(np.float64)
    time = dense(
        p,
        "Dense_1",
        np.maximum(dense(p, "Dense_0", np.concatenate([np.sin(angle), np.cos(angle)], 1)), 0),
    )
    h = dense(
        p, "Dense_3", np.concatenate([dense(p, "Dense_2", np.concatenate([x, cond], 1)), time], 1)
    )
    for k in range(blocks):
        norm = p[f"LayerNorm_{k}"]
        centred = h - h.mean(axis=1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        inner = np.maximum(
            dense(
                p, f"Dense_{4 + 2 * k}", unit * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
            ),
            0,
        )
        h = h + dense(p, f"Dense_{5 + 2 * k}", inner)
    return dense(p, "out", np.maximum(h, 0))


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_noise_network_written_out(blocks):
    net = residual_mlp(2, 3, 12, blocks, 0.1, 8)
    p, x, cond, t = filled(net), some(1, 6, 2), some(2, 6, 3), jnp.linspace(0.02, 0.98, 6)
    np.testing.assert_allclose(
        run(net, p, x, t, cond), residual(p, x, t, cond, blocks), rtol=1e-3, atol=1e-3
    )
    alone = run(net, p, x[0], t[0], cond[0])
    np.testing.assert_allclose(alone, run(net, p, x, t, cond)[0], rtol=1e-4, atol=1e-5)


def test_dropout_acts_with_a_key_alone():
    net, plain = residual_mlp(2, 3, 64, 1, 0.5, 8), residual_mlp(2, 3, 64, 1, 0.0, 8)
    p, noisy, cond, t = filled(net), some(1, 6, 2), some(2, 6, 3), jnp.linspace(0.02, 0.98, 6)
    evaluated = run(net, p, noisy, t, cond)
    np.testing.assert_array_equal(evaluated, run(net, p, noisy, t, cond))
    np.testing.assert_allclose(evaluated, plain.apply(p, noisy, t, cond), atol=1e-6)
    one, again, other = (run(net, p, noisy, t, cond, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    for x in (one - other, one - evaluated):
        assert np.all(np.abs(x).max(axis=1) > 1e-3)  # every sample has units of its own dropped
    np.testing.assert_allclose(
        plain.apply(p, noisy, t, cond, jax.random.key(0)), evaluated, atol=1e-6
    )


# --- mixture density ---


def test_the_mixture_integrates_to_one_and_leaves_padding_out():
    net = mixture(3, (6, 6), 2, 4)
    assert widths(net)["out"] == (6, 4 * (1 + 2 * 2))
    p, cond = filled(net), some(1, 3)
    grid = jnp.linspace(-20, 20, 401)
    points = jnp.stack(jnp.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    density = lambda x, mask: np.exp(run(net, p, x, jnp.broadcast_to(cond, (len(x), 3)), mask))
    np.testing.assert_allclose(density(points, jnp.ones(2)).sum() * 0.1**2, 1.0, rtol=1e-3)
    narrow = jnp.array([1.0, 0.0])
    line = jnp.stack([grid, 0 * grid], axis=-1)
    np.testing.assert_allclose(density(line, narrow).sum() * 0.1, 1.0, rtol=1e-3)
    np.testing.assert_array_equal(density(line, narrow), density(line.at[:, 1].set(7.0), narrow))


def test_the_mixture_written_out():
    """Logits, means and raw deviations lie side by side in the last layer; std = softplus + 1e-4."""
    net = mixture(3, (6, 6), 2, 4)
    p, x, cond = filled(net), some(1, 9, 2), some(2, 9, 3)
    raw = perceptron(p, cond)
    logits, mean, scale = raw[:, :4], raw[:, 4:12].reshape(9, 4, 2), raw[:, 12:].reshape(9, 4, 2)
    std = np.log1p(np.exp(scale)) + 1e-4
    mass = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    u = (np.asarray(x, np.float64)[:, None] - mean) / std
    parts = mass * np.prod(np.exp(-0.5 * u**2) / std / np.sqrt(2 * np.pi), axis=-1)
    np.testing.assert_allclose(
        run(net, p, x, cond, jnp.ones(2)), np.log(parts.sum(axis=1)), rtol=1e-4, atol=1e-4
    )
