"""One longer budget for all systems on particle tasks: hours for what samples chains as it learns.

Networks 128 wide, batches of 256 transitions, rate 1e-3, 20,000 updates of what learns from rewards
or draws actions. What a paper prints for a task and its data (weights, temperatures, thresholds)
stays. `small` is the same with the budget of minutes.

On spread's medium data the gates were passed by TD3+BC and IQL, one seed each. The other systems
were not run with it: `jaxomarl health` says what holds.
"""

from collections.abc import Sequence

from jaxomarl.presets.games import FAMILY
from jaxomarl.presets.particle import (
    DOM2_CASES,
    OMAR_CASES,
    OMSD_CASES,
    PLANNER_CASES,
    Cases,
    cfcql_cases,
    with_experts,
)
from jaxomarl.presets.preset import Preset

CRITICS = {"critic_steps": 20_000, "critic_batch": 256, "critic_width": 128, "critic_lr": 1e-3}
SCORES = {
    "score_steps": 10_000, "score_batch": 256, "score_width": 128, "score_lr": 1e-3,
    "score_dropout": 0.0, "score_predict": "edm",
}  # fmt: skip
"""EDM's preconditioning, because a loss in the noise learns nothing at large t (docs/omsd.md)."""
POLICIES = {"policy_batch": 256, "policy_width": 128, "policy_lr": 1e-3}
PACE = {"chunk": 500, "every": 4}
ACTOR_CRITICS = {
    **POLICIES, **PACE, "policy_steps": 20_000, "critic_width": 128, "critic_lr": 1e-3,
    "gamma": 0.95,
}  # fmt: skip
"""What learns critics and policies together."""
FLOWS = {"flow_steps": 20_000, "flow_batch": 256, "flow_width": 128, "flow_lr": 1e-3}


def without(cases: Cases, *fields: str) -> Cases:
    """Cases that leave these fields to the preset."""
    return {
        at: {name: value for name, value in values.items() if name not in fields}
        for at, values in cases.items()
    }


def part(systems: Sequence[str], cfg: dict[str, object], cases: Cases) -> dict[str, Preset]:
    """System -> its own settings and cases."""
    return {name: Preset("longer", (name,), ("mpe/*",), cfg, cases=cases) for name in systems}


OWN = {
    **part(
        (*FAMILY, "iql", "iql-ind"),
        {
            **CRITICS, **SCORES, **POLICIES, "policy_steps": 5000, "chunk": 500, "every": 1,
            "time_limit": "terminal", "gamma": 0.99,
        },
        OMSD_CASES,
    ),
    **part(
        ("bc", "diffusion-bc", "flow-bc", "mean-flow"),
        {**POLICIES, **PACE, "policy_steps": 20_000},
        {},
    ),
    **part(("dom2",), {**ACTOR_CRITICS, "levels": 5}, DOM2_CASES),
    **part(("omar", "cql", "td3-bc"), ACTOR_CRITICS, without(OMAR_CASES, "policy_steps")),
    **part(
        ("cfcql",), ACTOR_CRITICS, without(with_experts(cfcql_cases()), "policy_lr", "critic_lr")
    ),
    **part(
        ("dof-p", "ind-diffusion"), {**ACTOR_CRITICS, "levels": 10, "gamma": 0.99}, {}
    ),
    **part(
        ("diffusion-ql", "edp", "sfbc", "icq", "brac", "omiga", "omac"),
        {**ACTOR_CRITICS, "critic_steps": 20_000, "critic_batch": 256},
        {},
    ),
    **part(("fql", "mac-flow"), {**ACTOR_CRITICS, **FLOWS}, {}),
    **part(("om2p",), ACTOR_CRITICS, {}),
    **part(
        ("dof-t", "madiff-d", "madiff-c", "decision-diffuser"),
        {
            "horizon": 8, "history": 0, "gamma": 0.99, "levels": 100, "sampler": "ddim",
            "calls": 15, "target_kind": "quantile", "depth": 2, "blocks": 1, "policy_width": 32,
            "inverse_width": 128, "policy_batch": 64, "policy_lr": 1e-3, "policy_steps": 10_000,
            "chunk": 500, "every": 10, "episodes": 16,
        },
        PLANNER_CASES,
    ),
}  # fmt: skip
LONGER = (
    Preset(
        "longer",
        tuple(OWN),
        ("mpe/*",),
        {},
        own=OWN,
        about="ours: networks 128 wide, batches of 256, rate 1e-3, 20,000 updates for every "
        "system; weights by task and data are the papers'. Gates were checked for TD3+BC and IQL "
        "alone",
    ),
)
