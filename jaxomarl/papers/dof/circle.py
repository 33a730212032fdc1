"""The circle: an agent of angles and an agent of radii, trained on half circles, asked for both halves at once."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise
from jaxomarl.diffusion.guidance import classifier_free
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown
from jaxomarl.papers.dof.models import LEVELS, SCHEDULE, Law, compiled, denoiser, fit, model, spread
from jaxomarl.results.clouds import clouds

ROWS, DROP, BINS = 4000, 0.25, 36
RADIUS, NARROW = 1.0, 4.0  # what an agent of radii makes is NARROW (r - RADIUS), of std 0.2
HALVES = {"upper, (1, 0)": (1.0, 0.0), "lower, (0, 1)": (0.0, 1.0)}
WAYS = ("both by composition, w = 1", "both by composition, w = 1/2", "told (1, 1)", "told nothing")


def circle(asked: Asked) -> str:
    """Shares of the circle that each way of asked covers."""
    asked.say("circle")
    net, both = model("concat", 2, known=2), (1.0, 1.0)

    def told(params: dict, condition: tuple[float, float]) -> Denoise:
        return denoiser(net, params, jnp.broadcast_to(jnp.array(condition), (ROWS, 2, 2)))

    def denoisers(params: dict) -> dict[str, Denoise]:
        """Denoisers; u + w sum_c (c - u) is classifier-free guidance of weight 2 w towards the mean of the two c."""
        upper, lower = (told(params, half) for half in HALVES.values())
        free, middle = told(params, (0.0, 0.0)), lambda x, t: 0.5 * (upper(x, t) + lower(x, t))
        ways = [
            classifier_free(middle, free, 2.0),
            classifier_free(middle, free, 1.0),
            told(params, both),
            free,
        ]
        return dict(zip((*HALVES, *WAYS), [upper, lower, *ways], strict=True))

    def one(seed: Array) -> dict[str, Array]:
        key = jax.random.key(seed)
        params = fit(net, draw, (), key, asked.updates(2400))
        return {
            name: chain(jax.random.fold_in(key, 1), g, (ROWS, 2, 1))
            for name, g in denoisers(params).items()
        }

    chain = ddpm(SCHEDULE, LEVELS)
    found = compiled(lambda seeds: jax.lax.map(one, seeds))(jnp.asarray(asked.seeds, jnp.uint32))
    rows, held = [], {}
    for name in (*HALVES, *WAYS):  # a compiled program returns them sorted
        x = np.asarray(found[name])[..., 0]
        columns = zip(*map(measured, x), strict=True)
        rows.append((name, *(" ± ".join(spread(np.array(column))) for column in columns)))
        held[name] = plane(x[0, :2000])
    asked.draw(clouds, "circle.png", held, 1.5, names=("x", "y"), columns=3)
    head = ("asked for", f"covered, of {BINS} sectors", "upper half", "within 10 degrees of 180")
    return (
        f"## Circle\n\n{markdown(head, rows)}\n"
        "One factorised model (f = concat) of angle and radius, told (1, 0) on the upper half circle, (0, 1) on the "
        f"lower, and nothing in {DROP:.0%} of the rows; both at once by eps + w sum_c (eps_c - eps), as Decision "
        "Diffuser composes. A sector counts from a third of a uniform share on. Strictly, composing samples "
        "p_A p_B / p, which has no mass where the halves do not overlap, so points gather where they touch: at 180 "
        "degrees, for 0 and 360 are the two ends of an angle. What more is covered is the networks' smoothing at large "
        "noise. We do not find the paper's full circle by composing; the same model covers it when it is told nothing, "
        "which is the mixture of the halves.\n\n![](circle.png)"
    )


def draw(
    key: Key[Array, ""], rows: int, law: Law = ()
) -> tuple[Float[Array, "B 2 1"], Float[Array, "B 2 2"]]:
    """(angle / 180 degrees - 1, scaled radius) of points on either half, with the half's condition or none."""
    k_half, k_angle, k_radius, k_drop = jax.random.split(key, 4)
    lower = jax.random.bernoulli(k_half, shape=(rows,)).astype(jnp.float32)
    angle = jax.random.uniform(k_angle, (rows,)) + lower - 1.0
    radius = 0.2 * jax.random.normal(k_radius, (rows,))
    kept = jax.random.bernoulli(k_drop, 1.0 - DROP, (rows,))
    condition = jnp.stack([1.0 - lower, lower], axis=1) * kept[:, None]
    return jnp.stack([angle, radius], axis=1)[..., None], jnp.repeat(condition[:, None], 2, axis=1)


def plane(x: Float[np.ndarray, "B 2"]) -> Float[np.ndarray, "B 2"]:
    """Points of the plane."""
    angle, radius = np.pi * (x[:, 0] + 1.0), RADIUS + x[:, 1] / NARROW
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def measured(x: Float[np.ndarray, "B 2"]) -> tuple[float, float, float]:
    """Share of sectors that are covered, of points in the upper half, and of points near 180 degrees."""
    degrees = np.degrees(np.pi * (x[:, 0] + 1.0)) % 360.0
    counts = np.histogram(degrees, BINS, (0.0, 360.0))[0] / len(x)
    near = np.abs(degrees - 180.0) < 10.0
    return (
        float(np.mean(counts > 1 / 3 / BINS)),
        float(np.mean(degrees < 180.0)),
        float(np.mean(near)),
    )
