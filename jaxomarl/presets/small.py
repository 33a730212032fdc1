"""Settings at which stages learn on a laptop, in minutes a seed.

One budget for all systems on particle tasks: networks 64 wide, batches of 128 transitions, 3,000
updates, and one rate for each kind of network. It is that of the tables in docs/results.md whose
gates pass; docs/running.md says what was measured with it. Games have their own small sizes.
"""

import dataclasses
from collections.abc import Mapping

from jaxomarl.presets.games import GAMES
from jaxomarl.presets.longer import OWN as LONGER
from jaxomarl.presets.mujoco import MUJOCO
from jaxomarl.presets.preset import Preset

BUDGET: Mapping[str, object] = {
    "critic_steps": 3000, "critic_batch": 128, "critic_width": 64, "critic_lr": 0.01,
    "score_steps": 3000, "score_batch": 128, "score_width": 64, "score_lr": 0.003,
    "policy_steps": 3000, "policy_batch": 128, "policy_width": 64, "policy_lr": 0.005,
    "flow_steps": 3000, "flow_batch": 128, "flow_width": 64, "flow_lr": 0.005,
    "chunk": 500, "every": 2,
}  # fmt: skip
ON_ROBOTS: Mapping[str, object] = {
    "critic_steps": 10_000, "critic_batch": 256, "critic_width": 128, "critic_lr": 1e-3,
    "score_steps": 10_000, "score_batch": 256, "score_width": 128, "score_lr": 1e-3,
    "score_dropout": 0.0, "score_predict": "edm",
    "policy_steps": 10_000, "policy_batch": 256, "policy_width": 128, "policy_lr": 1e-3,
    "chunk": 500, "every": 4,
}  # fmt: skip
"""At 0.01 the critics of half-cheetah diverge."""
GENERATOR: Mapping[str, object] = {
    "generator_steps": 3000, "generator_width": 128, "generator_normaliser": "z-score",
    "augment_levels": 20, "augment_churn": 0.0,
}  # fmt: skip
"""CODA's: wider than twice its columns, and sampled at few levels without new noise."""
PLANNERS = ("dof-t", "madiff-d", "madiff-c", "decision-diffuser")
"""Their settings are the longer ones: after 3,000 updates their plans had not learned."""


def smaller(name: str, longer: Preset) -> Preset:
    """A system's longer settings, with the small budget in place of theirs."""
    if name in PLANNERS:
        return dataclasses.replace(longer, name="small")
    cut = {field: value for field, value in BUDGET.items() if field in longer.cfg}
    if name == "dom2":
        cut["embedding"] = 32
    return dataclasses.replace(longer, name="small", cfg={**longer.cfg, **cut})


def on_robots(name: str, preset: Preset) -> Preset:
    """A system's settings on robots, with this budget in place of its paper's."""
    fields = {*preset.cfg, *(PARTICLES[name].cfg if name in PARTICLES else ())}
    cut = {field: value for field, value in ON_ROBOTS.items() if field in fields}
    if name == "maddpg-bc":
        cut |= GENERATOR
    return dataclasses.replace(preset, name="small", cfg={**preset.cfg, **cut})


PARTICLES = {name: smaller(name, preset) for name, preset in LONGER.items()}
SYSTEMS = tuple(PARTICLES)
MATCHES = {name: preset for preset in reversed(GAMES) for name in preset.systems}
"""System -> the preset of games that it takes by default."""
OFFLINE = [preset for preset in reversed(MUJOCO) if preset.systems != ("matd3",)]
ROBOTS = {name: on_robots(name, preset) for preset in OFFLINE for name in preset.systems}
ROBOTS |= {name: PARTICLES[name] for name in PLANNERS}
SMALL = (
    Preset(
        "small",
        SYSTEMS,
        ("mpe/*",),
        {},
        own=PARTICLES,
        families={
            "mamujoco": Preset(
                "small",
                tuple(ROBOTS),
                ("mamujoco/*",),
                {},
                own=ROBOTS,
                about="robots: networks 128 wide, batches of 256, rate 1e-3, 10,000 updates",
            ),
            "games": Preset(
                "small",
                tuple(MATCHES),
                ("games/*",),
                {},
                data=GAMES[0].data,
                own=MATCHES,
                about="the sizes that games have by default",
            ),
        },
        about="ours: networks 64 wide, batches of 128, 3,000 updates for every system, so that a "
        "seed takes minutes on two cores and stages learn, planners apart; weights by task and "
        "data are the papers'",
    ),
)
