"""Settings of the released codes of one-step policies, where they were read.

No table of their papers could be read. Steps of FQL are those that others name.
"""

from jaxomarl.presets.preset import Preset

NETWORKS = {
    "policy_width": 512, "critic_width": 512, "policy_lr": 3e-4, "critic_lr": 3e-4,
    "gamma": 0.99, "polyak": 0.005, "policy_batch": 256, "policy_steps": 1_000_000,
    "chunk": 1000, "every": 50,
}  # fmt: skip
FLOW = {
    "levels": 10, "flow_width": 512, "flow_lr": 3e-4, "flow_batch": 256, "flow_steps": 1_000_000,
}  # fmt: skip
WINDOWS = 32 * 20
"""Transitions in MAC-Flow's batch: 32 sequences of 20."""
MAC_FLOW = {
    "alpha": 1.0, "gamma": 0.995, "policy_batch": WINDOWS, "flow_batch": WINDOWS,
    "policy_steps": 500_000, "flow_steps": 500_000,
}  # fmt: skip
FASTER = {"policy_lr": 1e-3, "critic_lr": 1e-3}
"""OM2P's rate on spread."""
QUALITIES = ("expert", "medium", "medium-replay", "random")

OWN = {
    "fql": Preset("", ("fql",), (), {**NETWORKS, **FLOW, "alpha": 10.0, "normalise_value": False}),
    "mac-flow": Preset("", ("mac-flow",), (), {**NETWORKS, **FLOW, **MAC_FLOW}),
    "om2p": Preset(
        "", ("om2p",), (), NETWORKS, cases={("mpe/spread", data): FASTER for data in QUALITIES}
    ),
}
RELEASED = (
    Preset(
        "released",
        tuple(OWN),
        ("mpe/*",),
        {},
        own=OWN,
        about="the released codes of FQL, MAC-Flow and OM2P: widths, rates, batches, steps and "
        "weights; layers and critics are ours",
    ),
)
