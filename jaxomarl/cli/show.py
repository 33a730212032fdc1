"""The command `show`: a system's paper, pseudo-code, stages, and fields with values on a task."""

import re
import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

from jaxomarl.api import plan
from jaxomarl.base import Stage, System, Task, nearest, refuse
from jaxomarl.cli import boxes, columns
from jaxomarl.cli.fields import STATED, Field, described
from jaxomarl.config import flag
from jaxomarl.envs.catalog import make, names
from jaxomarl.presets import check_fits, find

PAGE = 100
"""Columns of a page that goes to a file or a pipe."""
WORDS = {float: "FLOAT", int: "INT", str: "TEXT", bool: "True|False"}
"""A field's type -> what stands for its value."""
NUMBER = re.compile(r"\s*(\d[\d-]*)?\s*")
"""The start of a line of pseudo-code: its number and its indent."""


class Setting(NamedTuple):
    """A system on a task's data, as a command would train it."""

    name: str
    system: System
    task: Task
    quality: str
    preset: str
    about: str
    """Where the preset's values come from."""
    stated: Mapping[str, object]
    """The preset's values of the system's fields."""
    cfg: Any
    """What trains: the preset's values, with at least ten evaluations."""


def setting(name: str, task: str, quality: str, preset: str) -> Setting:
    """What `train` would take; raises JaxomarlError for a name that there is not."""
    base = name.partition("+")[0]
    system = plan.find_system(name)
    taken = make(task or usual(base))
    check_fits(preset, [taken.name], [base])

    quality = quality or find(preset, taken.name).data.get(taken.name, "") or taken.quality
    if system.online:
        quality = "online"  # as the runs of such a system say
    elif "/" not in quality and quality not in taken.recipes:
        expected = f"one of {', '.join(taken.recipes)}"
        raise refuse("--data", expected, quality, nearest(quality, taken.recipes))

    found = find(preset, taken.name, base)
    values: Mapping[str, object] = {}
    if base in found.systems:
        values = found.at(taken.name, quality, base)
    known = plan.config_field_names(name)
    stated = {field: value for field, value in values.items() if field in known}
    cfg, _ = plan.configs(name, stated, {})[0]
    return Setting(name, system, taken, quality, found.name, found.about, stated, cfg)


def usual(system: str) -> str:
    """The first task with a preset for a system; without one, the default task of `train`."""
    first = "games/bandit"
    for task in (first, STATED, *names()):
        if system in find("", task, system).systems:
            return task
    return first


def page(name: str, task: str, quality: str, preset: str) -> str:
    """All about a system; raises JaxomarlError for a name that there is not."""
    shown = setting(name, task, quality, preset)
    box = boxes.box(name)
    size = columns.width(PAGE)
    parts = [columns.wrapped(f"{name}: {box.sentence} It is {boxes.kind(name)}.", size)]
    # a system from outside the package may have neither
    if box.paper:
        parts += [title("Paper"), indented(box.paper, size)]
    if box.code:
        parts.append(title(f"Pseudo-code ({box.file})"))
        parts += pseudo_code(box.code, size)
    parts += [
        title(f"Stages on {shown.task.name}, data {shown.quality}"),
        steps(shown),
        title("Fields"),
        columns.wrapped(origin(shown), size, "  ", "  "),
        *(described_field(shown, field, size) for field in described(name)),
    ]
    return "\n".join(parts)


def title(text: str) -> str:
    """A heading, with an empty line before it."""
    return f"\n{text}"


def pseudo_code(code: str, size: int) -> list[str]:
    """The lines of a box, two columns in.

    Sentences start at the margin. Their paragraph is filled again where a line of it is too long.
    """
    parts = []
    for is_prose, block in groupby(code.splitlines(), at_margin):
        lines = list(block)
        if is_prose and max(map(len, lines)) + 2 > size:
            parts.append(indented(" ".join(lines), size))
        else:
            parts += [fitting(line, size) for line in lines]
    return parts


def at_margin(line: str) -> bool:
    """Whether a line of a box is a sentence, not a step."""
    return line[:1].strip() != ""


def fitting(line: str, size: int) -> str:
    """A line of pseudo-code, two columns in.

    Where it is too long, its gaps close and it continues further right on the next line.
    """
    line = f"  {line}".rstrip()
    if len(line) <= size:
        return line
    start = NUMBER.match(line)[0]  # type: ignore[index]
    rest = re.sub(r" {3,}", "  ", line[len(start) :])
    # a note at the right
    if len(start) > size // 2:
        start = " " * 14
    later = " " * (len(start) + 4)
    return textwrap.fill(
        rest,
        size,
        initial_indent=start,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def indented(paragraph: str, size: int) -> str:
    """A paragraph, two columns in."""
    if not paragraph:
        return ""
    return columns.wrapped(paragraph, size, "  ", "  ")


def steps(shown: Setting) -> str:
    """A line for each stage: its name, its updates, and who may reuse it."""
    env = shown.task.env
    online_env = env if shown.system.online else None
    stages = shown.system.pipeline(env.spec, shown.cfg, online_env)
    return "\n".join(
        f"  {stage.name:<20} {stage.steps:>9,} updates{shared(stage)}" for stage in stages
    )


def shared(stage: Stage) -> str:
    """Whether other systems that need the same stage reuse it."""
    if stage.owner:
        return ""
    return ", shared with systems that train the same"


def origin(shown: Setting) -> str:
    """Which preset gives the values, and where these come from."""
    if not shown.stated:
        return f"No preset has values for {shown.name} here: they are its own defaults."
    return f"Values under preset {shown.preset}: {shown.about}."


# --- fields ---


def described_field(shown: Setting, field: Field, size: int) -> str:
    """A field: its flag, its sentence, and its facts."""
    sentence = columns.wrapped(field.sentence, size, " " * 6, " " * 6)
    facts = columns.wrapped(facts_of(shown, field), size, " " * 6, " " * 6)
    return f"\n  {flag(field.name)} {WORDS[field.kind]}\n{sentence}\n{facts}"


def facts_of(shown: Setting, field: Field) -> str:
    """A field's range, its default, its value here, and how many programs a sweep of it needs."""
    facts = [f"Takes {field.expected}", f"default {shown_value(field.default)}"]
    if field.name in shown.stated:
        facts.append(f"{shown.preset} {shown_value(shown.stated[field.name])}")
    stated = shown.stated.get(field.name, field.default)
    trained = getattr(shown.cfg, field.name)
    if trained != stated:
        facts.append(f"here {shown_value(trained)}, for ten evaluations in training")
    programs = "a sweep is one program" if field.traced else "a sweep is a program per value"
    return f"{'; '.join(facts)}; {programs}."


def shown_value(value: object) -> str:
    """A value as a flag takes it."""
    if isinstance(value, float):
        return f"{value:g}"
    if value == "":
        return "empty"
    return str(value)
