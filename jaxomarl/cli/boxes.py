"""What a system's file says about it: first sentence, paper, pseudo-code, kind of execution."""

import functools
import re
import sys
from pathlib import Path
from typing import NamedTuple

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api.plan import find_system
from jaxomarl.base import JaxomarlError, Stage
from jaxomarl.cli.fields import stated_task
from jaxomarl.envs.catalog import make

CITED = re.compile(r'^.*?"[^"]+"(?:, \d{4})?')
"""The head of a docstring's paper: its authors, year and title."""

SENTENCES = {
    "brpo-ind": "OMSD's ablation with each agent's own critic and a marginal behaviour model.",
    "brpo-ctde": "OMSD's ablation with a joint critic and a marginal behaviour model.",
    "brpo-jal": (
        "OMSD's ablation with a joint critic, a joint behaviour model and one joint policy."
    ),
    "joint-score": (
        "OMSD's policies under one joint behaviour model: "
        "the exact gradient, which a sequence is not."
    ),
    "dof-p": (
        "DoF-Policy: one diffusion of the team's actions, factorised so that agents act alone."
    ),
    "ind-diffusion": "DoF's baseline: diffusion policies of a team without factorisation.",
    "madiff-d": "MADiff, decentralised: each agent plans for all from its own observations.",
    "madiff-c": "MADiff, centralised: one plan for all agents from all observations.",
}
"""Systems that share a file -> the sentence that tells them apart."""


class Box(NamedTuple):
    """The parts of a system's docstring."""

    sentence: str
    paper: str
    code: str
    file: str

    @property
    def cited(self) -> str:
        """The paper's authors, year and title."""
        flat = " ".join(self.paper.split())
        head = CITED.match(flat)
        if head:
            return head[0].rstrip(",")
        return flat.partition(";")[0].rstrip(".")


def box(name: str) -> Box:
    """What the file of a system's pipeline says; parts that it does not have are empty."""
    base, _, augmentation = name.partition("+")
    pipeline = find_system(base).pipeline
    if isinstance(pipeline, functools.partial):
        pipeline = pipeline.func
    module = sys.modules[pipeline.__module__]
    docstring = module.__doc__ or ""

    title, _, after_colon = docstring.partition("\n")[0].partition(": ")
    sentence = SENTENCES.get(base) or after_colon or title
    if augmentation:
        sentence = f"{sentence} Part of each batch is synthetic (--augment {augmentation})."

    return Box(
        sentence[:1].upper() + sentence[1:],
        part(docstring, "Paper"),
        part(docstring, "Pseudo-code"),
        Path(module.__file__ or module.__name__).name,
    )


def cited_papers() -> dict[str, str]:
    """What each system's file cites, with what an augmentation adds."""
    return {name: box(name).cited for name in REGISTRY}


def part(docstring: str, title: str) -> str:
    """A titled part of an algorithm's docstring, laid out as it is there."""
    after = docstring.partition(f"**{title}**")[2]
    text = re.split(r"\n\*\*", after)[0]
    return text.removeprefix(". ").removeprefix(".").strip("\n")


def stages(name: str) -> tuple[Stage, ...]:
    """The stages of a system with its own settings, on a task that every system takes."""
    system = find_system(name)
    env = make(stated_task(name)).env
    online_env = env if system.online else None
    return system.pipeline(env.spec, system.Config(), online_env)


def kind(name: str) -> str:
    """Whether a system learns offline or online, and whether its agents can act apart."""
    learns = "online" if find_system(name).online else "offline"
    try:
        acting = stages(name)[-1].algorithm
    except JaxomarlError:  # a system of other tasks
        return learns
    acts = "centralised" if acting.centralised else "decentralised"
    return f"{learns}, {acts}"
