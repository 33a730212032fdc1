"""The same bits whatever JAX is set to: our programs pin it, a caller gets the settings back, the rest is refused."""

import contextlib
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxomarl
from jaxomarl import numerics
from jaxomarl.api import runtime, session
from jaxomarl.base import JaxomarlError
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make

SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "prng": lambda: jax.default_prng_impl("rbg"),
    "threefry": lambda: jax.threefry_partitionable(False),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "bfloat16": lambda: jax.default_matmul_precision("bfloat16"),
}
SMALL = {
    "policy_steps": 4,
    "chunk": 2,
    "every": 1,
    "policy_batch": 8,
    "policy_width": 8,
    "rows": 40,
}


@pytest.fixture(scope="module")
def plain():
    return load(make("games/bandit"), rows=40)[1]["sha256"], trained()


def trained(**more):
    results = jaxomarl.train("bc", "games/bandit", seeds=1, episodes=4, **SMALL, **more)
    return results.returns["bc"].tobytes()


@pytest.mark.parametrize("name", SETTINGS)
def test_data_do_not_depend_on_a_setting(plain, name):
    with SETTINGS[name]():
        assert load(make("games/bandit"), rows=40)[1]["sha256"] == plain[0]


def test_training_from_python_does_not_depend_on_the_callers_settings(plain):
    with contextlib.ExitStack() as stack:
        for name in set(SETTINGS) - {"bfloat16"}:
            stack.enter_context(SETTINGS[name]())
        assert trained() == plain[1]
        assert jnp.asarray(1.0).dtype == jnp.float64, "the caller's settings are back"
        assert jax.random.key_impl(jax.random.key(0)) == "rbg"


def test_a_task_that_was_first_made_under_other_settings_is_the_same():
    with jax.enable_x64(True):
        odd = make("games/twin-peaks:A=1,B=4.5,C=5")
    key = jax.random.key(0)
    assert all(
        x.dtype != np.float64 for x in jax.tree.leaves(odd.env.reset(key)) if hasattr(x, "dtype")
    )


def test_every_pinned_setting_of_this_jax_has_a_context():
    for name, pin in numerics.PINNED.items():
        if numerics.value(name) is not None:
            with getattr(jax, name.removeprefix("jax_"))(pin):
                assert numerics.value(name) == pin


@pytest.mark.parametrize(
    "flag", ["--xla_cpu_enable_fast_math=true", "--xla_gpu_enable_fast_min_max"]
)
def test_fast_math_is_refused(monkeypatch, flag):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=/nowhere {flag}")
    with pytest.raises(
        JaxomarlError, match=f"XLA_FLAGS: expected exact arithmetic, found '{flag}'. Take it out"
    ):
        load(make("games/bandit"), rows=40)


def test_what_cannot_be_pinned_is_refused():
    with (
        jax.disable_jit(),
        pytest.raises(JaxomarlError, match=r"JAX_DISABLE_JIT: expected False.*Unset"),
    ):
        trained()


def test_compiler_flags_are_facts_about_results(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_dump_to=x")
    here = numerics.rounded()
    assert "XLA_FLAGS" not in here
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=1 --xla_a=2")
    assert numerics.rounded() == {**here, "XLA_FLAGS": "--xla_a=2 --xla_b=1"}
    assert numerics.settings()["XLA_FLAGS"] == "--xla_a=2 --xla_b=1"
    assert session.asked("p", {}, 0, 0, 1.0)["XLA_FLAGS"] == "--xla_a=2 --xla_b=1"


def test_a_level_of_the_shell_is_not_replaced(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(numerics, "value", lambda name: False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert numerics.training("vmap") == {"xla_backend_optimization_level": 1}
    assert numerics.training("map") == {"xla_backend_optimization_level": 2}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert numerics.training("vmap") is None, "the shell's flag"
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(numerics, "value", lambda name: name == "jax_disable_most_optimizations")
    assert numerics.training("vmap") is None, "JAX's setting"
    monkeypatch.setattr(numerics, "value", lambda name: False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert numerics.training("vmap") is None, "a card"


def test_a_card_is_deterministic_where_that_is_asked_for(monkeypatch):
    assert numerics.tier() == "bitwise"
    here = numerics.rounded()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    runtime.use_determinism(False)
    assert numerics.tier() == "statistical"
    runtime.use_determinism(True)
    runtime.use_determinism(True)
    assert numerics.tier() == "deterministic"
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=x {numerics.DETERMINISTIC}"
    # folders of both tiers are kept apart
    assert numerics.rounded() == {**here, "XLA_FLAGS": numerics.DETERMINISTIC}


def test_run_json_names_settings_and_source_and_resuming_says_what_is_trained_anew(
    plain, tmp_path, capsys, monkeypatch
):
    trained(out=tmp_path)
    (found,) = tmp_path.rglob("run.json")
    info = json.loads(found.read_text())
    assert info["jax"]["jax_enable_x64"] is False
    assert info["jax"]["jax_default_prng_impl"] == "threefry2x32"
    assert info["source"] == {} or len(info["source"]["commit"]) == 40

    trained(out=tmp_path, resume=True)
    assert "trained again" not in capsys.readouterr().err

    info["data_sha256"] = "0" * 64
    found.write_text(json.dumps(info))
    found.parent.parent.rename(found.parent.parent.with_name("bc-000000000000"))
    trained(out=tmp_path, resume=True)
    said = capsys.readouterr().err
    assert "nothing of bc on games/bandit/" in said
    assert f"its data were 00000000 and are {plain[0][:8]}" in said
