"""One style of refusal: flags as values, in the words of the command line or of Python; and where paths lead."""

import functools
import os
import subprocess
from pathlib import Path

import jax
import pytest

import jaxomarl
from jaxomarl.api import provenance, runtime
from jaxomarl.api.spoken import in_python
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.cli.parsing import expanded, parse
from jaxomarl.data import catalog, files
from jaxomarl.envs.catalog import make
from jaxomarl.paths import user_path

parse = functools.partial(parse, commands.COMMANDS)


# --- what tyro refuses ---


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("train", ["omsd", "--sedes", "4"], "--sedes: expected a flag or a value of jaxomarl train, found '--sedes 4'. "
         "Did you mean --seeds? All flags: jaxomarl train --help"),
        ("train", ["omsd", "more"], "more: expected a flag or a value of jaxomarl train, found 'more'. "
         "All flags: jaxomarl train --help"),
        ("train", [], "SYSTEM: expected a value, found 'none'. For example: jaxomarl train bc --task mpe/spread "
         "--data medium --seeds 4 --scale 0.01. All flags: jaxomarl train --help"),
        ("data", ["validate"], "SRC, --task: expected a value, found 'none'. For example: jaxomarl data validate "
         "FOLDER --task mpe/spread. All flags: jaxomarl data validate --help"),
        ("render", ["x"], "--out: expected a value, found 'none'. For example: jaxomarl render RUN -o film.mp4. "
         "All flags: jaxomarl render --help"),
        ("train", ["omsd", "--seeds"], "--seeds: expected a value, found 'none'. All flags: jaxomarl train --help"),
        ("train", ["omsd", "--rows", "1.5"], "--rows: expected a whole number, found '1.5'. "
         "All flags: jaxomarl train --help"),
        ("sweep", ["--scale", "x"], "--scale: expected a number, found 'x'. All flags: jaxomarl sweep --help"),
        ("train", ["omsd", "--cfg.normalise", "maybe"], "--cfg.normalise: expected one of True, False, found 'maybe'. "
         "All flags: jaxomarl train --help"),
    ],
)  # fmt: skip
def test_flags_are_refused_in_the_form_of_values(monkeypatch, command, flags, said):
    monkeypatch.setenv("COLUMNS", "40")  # tyro's own boxes are as wide as the terminal
    with pytest.raises(JaxomarlError) as error:
        parse(command, flags)
    assert str(error.value) == said
    assert os.environ["COLUMNS"] == "40"


def test_an_unknown_command_is_answered_with_the_nearest():
    with pytest.raises(
        JaxomarlError,
        match=r"^command: expected one of list, .*found 'sweeep'\. Did you mean sweep ",
    ):
        parse("", ["sweeep"])


# --- Python ---


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--cfg.critic-lr: expected a", "critic_lr=: expected a"),
        ("Take --cfg.guidance 1, or --cfg.returns togo.", 'Take guidance=1, or returns="togo".'),
        (
            "--resume continues, --overwrite starts again.",
            "resume=True continues, overwrite=True starts again.",
        ),
        ("a system of --systems", "a system of system="),
        ("a minus -- and a-b --", "a minus -- and a-b --"),
    ],
)
def test_flags_in_the_words_of_python(flags, words):
    assert in_python(flags) == words


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: jaxomarl.train("omsd", "games/bandit", rows=40, beta=-1.0),
            "beta=: expected a number of at least 0",
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", rows=40, betta=1.0),
            "betta=: expected a field of bc",
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", rows=40, seed=3),
            "seed=: expected a field of bc, found 'seed'. Did you mean seeds=?",
        ),
        (
            lambda: jaxomarl.train("bc", "tag-medium-replay"),
            "task: expected a task of the catalog, found 'tag-medium-replay'. "
            'Did you mean mpe/tag? Data are named by data="medium-replay".',
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", seeds=0),
            "seeds=: expected at least one seed",
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", policy_lr=[]),
            "policy_lr=: expected at least one value",
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", rows=10**11),
            "rows=: expected a whole number from 1 to 1,0",
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", episodes=10**11),
            "episodes=: expected a whole number from 1",
        ),
        (
            lambda: jaxomarl.train("bc", "games/bandit", final_episodes=-1),
            "final_episodes=: expected a whole number",
        ),
        (lambda: jaxomarl.train("bc", "games/bandit", resume=True), "out: expected the folder"),
        (lambda: jaxomarl.load("/nowhere"), "run: expected the folder of a finished run"),
    ],
)
def test_python_is_refused_in_its_own_words(call, said):
    with pytest.raises(JaxomarlError) as error:
        call()
    assert str(error.value).startswith(said) and "--" not in str(error.value)


# --- devices, programs, paths, code ---


def test_a_platform_that_is_not_there(monkeypatch, capfd):
    """Whatever JAX raises for it; the names are found without ending the devices that this test runs on."""

    def absent():
        raise AssertionError

    monkeypatch.setattr(jax, "device_count", absent)
    monkeypatch.setattr(runtime, "platforms", lambda: ["cpu"])
    said = "JAX_PLATFORMS: expected a platform that is there: cpu, found 'cpu'. Name one of these"
    for command, flags in (
        ("train", ["bc"]),
        ("data", ["describe", "games/bandit"]),
        ("collect", ["games/bandit"]),
    ):
        assert commands.run(command, flags) == 2
        assert said in capfd.readouterr().err
    with pytest.raises(JaxomarlError, match="JAX_PLATFORMS: expected a platform"):
        jaxomarl.train("bc", "games/bandit")


def test_where_programs_are_kept(monkeypatch, tmp_path, recwarn):
    kept = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "jaxs"))
        monkeypatch.delenv("JAXOMARL_CACHE", raising=False)
        monkeypatch.setenv("HOME", "/proc/nowhere")
        assert runtime.keep_programs() == tmp_path / "jaxs"
        monkeypatch.setenv("JAXOMARL_CACHE", str(tmp_path / "ours"))
        assert runtime.keep_programs() == tmp_path / "ours/xla"
        assert not recwarn.list
        monkeypatch.delenv("JAXOMARL_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        jax.config.update("jax_compilation_cache_dir", None)
        with pytest.warns(UserWarning, match=r"no compile cache: .*set JAXOMARL_CACHE"):
            assert runtime.keep_programs() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


def test_no_programs_are_kept_where_the_flag_says_so(tmp_path):
    before = jax.config.jax_enable_compilation_cache
    with runtime.programs(kept=False):
        assert not jax.config.jax_enable_compilation_cache
    assert jax.config.jax_enable_compilation_cache == before


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x" and user_path("x/~") == Path("x/~")
    with pytest.raises(JaxomarlError, match=r"path: expected a home folder.*Write it in full"):
        user_path("~nobody-has-this-name/x")
    asked = parse("train", ["bc", "--out", "~/x", "--from", "~/y"])
    assert asked.out == tmp_path / "x" and asked.source == tmp_path / "y"
    assert parse("data", ["describe", "p", "--out", "~/x"]).command.out == tmp_path / "x"
    assert expanded(asked) == asked

    task = make("games/bandit")
    data, manifest = catalog.load(task, rows=40)
    files.save_folder("~/set", data, manifest)
    assert (tmp_path / "set/manifest.json").is_file()
    assert catalog.load(task, "~/set")[1]["sha256"] == manifest["sha256"]
    assert commands.run("data", ["validate", "~/set", "--task", "games/bandit"]) == 0
    with pytest.raises(JaxomarlError, match=f"found '{tmp_path}/prey.pt'"):
        make("mpe/tag:prey=~/prey.pt")
    with pytest.raises(JaxomarlError, match=f"in {tmp_path}/run"):
        jaxomarl.load("~/run")


def test_the_commit_is_of_the_packages_own_repository(tmp_path):
    package, git = (
        tmp_path / "package",
        lambda *words: subprocess.run(["git", "-C", tmp_path, *words], check=True),
    )
    package.mkdir()
    (package / "base.py").write_text("x = 1\n")
    source = provenance.source.__wrapped__
    assert source(package) == {}
    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "a")
    assert source(package) == {}, "a repository around it that does not track it"
    git("add", ".")
    git("commit", "-qm", "x")
    found = source(package)
    assert len(found["commit"]) == 40 and found["dirty"] is False
    (package / "base.py").write_text("x = 2\n")
    assert source(package) == {**found, "dirty": True}
    inner = tmp_path / "lib" / "package"
    inner.mkdir(parents=True)
    (inner / "base.py").write_text("x = 1\n")
    git("add", ".")
    assert source(inner) == {}, "a package that lies deeper in another repository"
