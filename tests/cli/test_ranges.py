"""Every number of every system says its range, and values outside are refused with the range and the default."""

import dataclasses
import math

import pytest

from jaxomarl.algorithms import REGISTRY, coda
from jaxomarl.api.plan import find_system
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.cli.fields import stated_task
from jaxomarl.config import Interval, check_fields, config, flag, static, traced
from jaxomarl.envs.catalog import make
from jaxomarl.presets import PRESETS

CONFIGS = {name: system.Config for name, system in REGISTRY.items()} | {"augmentation": coda.Alone}


def numbers(kind):
    """The fields of a config that hold numbers."""
    return [f for f in dataclasses.fields(kind) if type(f.default) in (int, float)]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_real_number_says_its_range(name):
    lacking = [
        f.name
        for f in numbers(CONFIGS[name])
        if type(f.default) is float and "within" not in f.metadata
    ]
    assert lacking == []


def test_fields_of_one_name_are_scaled_alike():
    """A system that overrides a field says again that it is scaled."""
    found: dict[str, set[str]] = {}
    for kind in CONFIGS.values():
        for field in dataclasses.fields(kind):
            found.setdefault(field.name, set()).add(field.metadata.get("scaled", ""))
    assert {name: kinds for name, kinds in found.items() if len(kinds) > 1} == {}
    assert {name for name, kinds in found.items() if kinds == {"steps"}} >= {
        "policy_steps",
        "score_steps",
        "code_steps",
    }
    with pytest.raises(ValueError, match="scaled is one of"):
        static(default=1, scaled="depth")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_value_outside_is_refused_and_the_ends_are_as_written(name):
    kind = CONFIGS[name]
    for field in numbers(kind):
        whole = type(field.default) is int
        interval = field.metadata.get("within") or Interval.of("[1, inf)")
        step = 1 if whole else 1e-3
        for end, out, closed in (
            (interval.low, -step, interval.text[0] == "["),
            (interval.high, step, interval.text[-1] == "]"),
        ):
            if math.isinf(end) or field.metadata.get("scaled") == "steps":
                continue
            at, beyond = (int(end), int(end) + int(out)) if whole else (end, end + out)
            refused(kind, field, beyond)
            if closed:
                check_fields(kind(**{field.name: at}), {})
            else:
                refused(kind, field, at)
        if not whole:
            refused(kind, field, math.nan)


def refused(kind, field, value):
    with pytest.raises(JaxomarlError) as error:
        check_fields(kind(**{field.name: value}), {})
    assert str(error.value).startswith(f"{flag(field.name)}: expected a ")
    assert str(error.value).endswith(f"Leave it out for its default, {field.default}.")


@pytest.mark.parametrize("name", [*REGISTRY, "bc+coda"])
def test_every_system_checks_its_fields(name):
    """Through the system's own check, as a command does: one field that each has."""
    system = find_system(name)
    spec = make(stated_task(name)).env.spec
    system.check(spec, system.Config(), None)
    for field in numbers(system.Config):
        if "within" in field.metadata and field.metadata["within"].low >= 0:
            with pytest.raises(JaxomarlError, match=flag(field.name)):
                system.check(
                    spec,
                    dataclasses.replace(system.Config(), **{field.name: type(field.default)(-1)}),
                    None,
                )


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_values_lie_in_their_ranges(name):
    for part in (PRESETS[name], *PRESETS[name].families.values()):
        for system in part.systems:
            known = {f.name for f in dataclasses.fields(CONFIGS[system])}
            own = [part, *filter(None, [part.own.get(system)])]
            common = {field: value for preset in own for field, value in preset.cfg.items()}
            for case in ({}, *(case for preset in own for case in preset.cases.values())):
                given = {f: value for f, value in {**common, **case}.items() if f in known}
                check_fields(CONFIGS[system](**given), {})


@pytest.mark.parametrize(
    "flags", [("--cfg.gamma", "1.5"), ("--cfg.policy-lr", "0"), ("--cfg.policy-steps", "0")]
)
def test_a_dry_run_refuses_what_training_refuses(flags, capfd):
    assert commands.run("train", ["omsd", "--rows", "40", "--dry-run", *flags]) == 2
    said = capfd.readouterr()
    assert flags[0] in said.err and said.out == ""


@pytest.mark.parametrize("text", ["[0, 1", "0, 1]", "[1, 0]", "[a, 1]"])
def test_a_range_that_is_none(text):
    with pytest.raises(ValueError):
        Interval.of(text)


def test_a_default_outside_its_range_is_noticed_where_it_is_written():
    with pytest.raises(ValueError, match="default 2"):
        traced(default=2.0, within="[0, 1]")


def test_what_a_refusal_expects():
    @config
    class Config:
        share: float = traced(default=0.5, within="[0, 1)")
        rate: float = traced(default=0.5, within="(0, inf)")
        weight: float = traced(default=0.5, within="[0, inf)")
        count: int = static(default=2)
        history: int = static(default=2, within="[0, inf)")

    expected = {
        "share": (1.0, "a number in [0, 1)"),
        "rate": (0.0, "a positive number"),
        "weight": (-1.0, "a number of at least 0"),
        "count": (0, "a positive whole number"),
        "history": (-1, "a whole number of at least 0"),
    }
    for name, (value, words) in expected.items():
        with pytest.raises(JaxomarlError) as error:
            check_fields(Config(**{name: value}), {})
        assert f"--cfg.{name}: expected {words}, found {value}. " in str(error.value)
