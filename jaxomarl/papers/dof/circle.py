"""The circle: agents of angle and of radius, asked for both of its halves at once.

They are trained on half circles.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise
from jaxomarl.diffusion.guidance import classifier_free
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof.models import (
    LEVELS,
    SCHEDULE,
    Law,
    Params,
    TeamModel,
    compiled,
    fit_model,
    spread_text,
    team_denoiser,
    team_model,
)
from jaxomarl.papers.measured import Part, of_seeds
from jaxomarl.results.clouds import clouds

ROWS = 4000
UPDATES = 2400
SHOWN = 2000
"""Samples in the picture."""
DROP = 0.25
"""Share of rows without a condition."""
BINS = 36
RADIUS = 1.0
NARROW = 4.0
"""An agent of radii samples NARROW (r - RADIUS), of std 0.2."""
HALVES = {"upper, (1, 0)": (1.0, 0.0), "lower, (0, 1)": (0.0, 1.0)}
"""Name -> condition of a half circle."""
MEASURED: tuple[str, ...] = ("covered", "upper half", "near 180 degrees")
"""What `coverage` measures, in its order."""
COMPOSED = "both by composition, w = 1"
HALF_COMPOSED = "both by composition, w = 1/2"
JOINT_CONDITION = "conditioned on (1, 1)"
NO_CONDITION = "unconditional"
SAMPLED = (*HALVES, COMPOSED, HALF_COMPOSED, JOINT_CONDITION, NO_CONDITION)
"""What is sampled, in the order of the table."""


def circle(asked: Asked) -> Part:
    """Shares of the circle that are covered, by what is asked for."""
    asked.say("circle")
    samples = circle_samples(asked)
    rows = []
    measures = []
    shown = {}
    # a compiled program returns the names sorted
    for name in SAMPLED:
        x = np.asarray(samples[name])[..., 0]
        columns = [np.array(column) for column in zip(*map(coverage, x), strict=True)]
        cells = [" ± ".join(spread_text(column)) for column in columns]
        values = dict(zip(MEASURED, columns, strict=True))
        measures += of_seeds("circle", name, "", asked.seeds, values)
        rows.append((name, *cells))
        shown[name] = plane(x[0, :SHOWN])
    asked.draw(clouds, "circle.png", shown, 1.5, names=("x", "y"), columns=3)
    head = ("asked for", f"covered, of {BINS} sectors", "upper half", "within 10 degrees of 180")
    text = (
        f"## Circle\n\n{markdown_table(head, rows)}\n"
        "One factorised model (f = concat) of angle and radius, conditioned on (1, 0) on the upper "
        f"half circle, on (0, 1) on the lower, and on nothing in {DROP:.0%} of the rows. Both at "
        "once is by eps + w sum_c (eps_c - eps), as Decision Diffuser composes. A sector counts "
        "from a third of a uniform share on. Strictly, composing samples p_A p_B / p, which has no "
        "mass where the halves do not overlap. So points gather where they touch: at 180 degrees, "
        "for 0 and 360 are the two ends of an angle. What more is covered is the networks' "
        "smoothing at large noise. We do not find the paper's full circle by composing. The same "
        "model covers it unconditionally, which is the mixture of the halves.\n\n![](circle.png)"
    )
    return Part(text, measures)


def circle_samples(asked: Asked) -> dict[str, Array]:
    """What is sampled -> samples [R, B, 2, 1] of each seed's model, in one program."""
    model = team_model("concat", 2, known=2)
    sample = ddpm(SCHEDULE, LEVELS)

    def one_seed(seed: Array) -> dict[str, Array]:
        key = jax.random.key(seed)
        params = fit_model(model, draw_halves, (), key, asked.updates(UPDATES))
        k_sample = jax.random.fold_in(key, 1)
        samples = {}
        for name, denoise in circle_denoisers(model, params).items():
            samples[name] = sample(k_sample, denoise, (ROWS, 2, 1))
        return samples

    seeds = jnp.asarray(asked.seeds, jnp.uint32)
    return compiled(lambda seeds: jax.lax.map(one_seed, seeds))(seeds)


def circle_denoisers(model: TeamModel, params: Params) -> dict[str, Denoise]:
    """Every denoiser by its name.

    u + w sum_c (c - u) is classifier-free guidance of weight 2 w towards the mean of the two c.
    """

    def conditional(condition: tuple[float, float]) -> Denoise:
        y = jnp.broadcast_to(jnp.array(condition), (ROWS, 2, 2))
        return team_denoiser(model, params, y)

    halves = {name: conditional(half) for name, half in HALVES.items()}
    upper, lower = halves.values()
    free = conditional((0.0, 0.0))
    middle = lambda x, t: 0.5 * (upper(x, t) + lower(x, t))
    return {
        **halves,
        COMPOSED: classifier_free(middle, free, 2.0),
        HALF_COMPOSED: classifier_free(middle, free, 1.0),
        JOINT_CONDITION: conditional((1.0, 1.0)),
        NO_CONDITION: free,
    }


def draw_halves(
    key: Key[Array, ""], rows: int, law: Law = ()
) -> tuple[Float[Array, "B 2 1"], Float[Array, "B 2 2"]]:
    """(angle / 180 degrees - 1, scaled radius) of points on either half.

    With them come their conditions, or none.
    """
    k_half, k_angle, k_radius, k_drop = jax.random.split(key, 4)
    lower = jax.random.bernoulli(k_half, shape=(rows,)).astype(jnp.float32)
    angle = jax.random.uniform(k_angle, (rows,)) + lower - 1.0
    radius = 0.2 * jax.random.normal(k_radius, (rows,))
    kept = jax.random.bernoulli(k_drop, 1.0 - DROP, (rows,))
    condition = jnp.stack([1.0 - lower, lower], axis=1) * kept[:, None]
    of_each_agent = jnp.repeat(condition[:, None], 2, axis=1)
    return jnp.stack([angle, radius], axis=1)[..., None], of_each_agent


def plane(x: Float[np.ndarray, "B 2"]) -> Float[np.ndarray, "B 2"]:
    """Points of the plane."""
    angle = np.pi * (x[:, 0] + 1.0)
    radius = RADIUS + x[:, 1] / NARROW
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def coverage(x: Float[np.ndarray, "B 2"]) -> tuple[float, float, float]:
    """Shares of sectors covered, of points in the upper half, and of points near 180 degrees."""
    degrees = np.degrees(np.pi * (x[:, 0] + 1.0)) % 360.0
    shares = np.histogram(degrees, BINS, (0.0, 360.0))[0] / len(x)
    covered = shares > 1 / 3 / BINS
    upper = degrees < 180.0
    near = np.abs(degrees - 180.0) < 10.0
    return float(np.mean(covered)), float(np.mean(upper)), float(np.mean(near))
