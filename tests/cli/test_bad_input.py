"""What a mistake in a command gets: exit code 2, a message that names field, expected, found and the way out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxomarl.api import runtime
from jaxomarl.api.seeds import parse_seeds
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.presets import check_fits
from jaxomarl.training.runner import Interrupted

ROOT = Path(__file__).parents[2]
SMALL = ("--rows", "50", "--seeds", "1")


@pytest.fixture(autouse=True)
def no_training(monkeypatch, tmp_path):
    """Nothing here may come as far as training, nor write into the current folder."""

    def train(*args, **kwargs):
        raise AssertionError("the mistake was not noticed: training has begun")

    monkeypatch.setattr("jaxomarl.api.session.train_groups", train)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # leave the devices of this process as they are
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def refused(capfd):
    """refused(command, *flags): what a command that ends with exit code 2 has said; a traceback is none of it."""

    def run(command, *flags):
        try:
            code = commands.run(command, list(flags))
        except SystemExit as stop:  # tyro's way
            code = stop.code
        said = capfd.readouterr()
        text = said.out + said.err
        assert code == 2, text
        assert "Traceback" not in text
        return text

    return run


@pytest.fixture
def taken(monkeypatch, tmp_path):
    """An --out folder that a command has claimed with its settings and then left."""
    flags = ("--systems", "omsd", "--out", str(tmp_path / "out"), *SMALL)

    def stopped(*args, **kwargs):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("jaxomarl.api.session.train_groups", stopped)
        assert commands.run("sweep", list(flags)) == 130
    return flags


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


# --- names ---


@pytest.mark.parametrize(
    ("command", "flags", "nearest"),
    [
        ("train", ("osmd",), "omsd"),
        ("sweep", ("--systems", "omsd", "brpo-int"), "brpo-ind"),
        ("train", ("omsd", "--task", "games/bandid"), "games/bandit"),
        ("train", ("omsd", "--task", "bandit"), "games/bandit"),
        ("train", ("omsd", "--task", "games/consensus:modus=3"), "modes"),
        ("train", ("omsd", "--data", "std0.33"), "std0.3"),
        ("train", ("omsd", "--preset", "mode-seaking"), "mode-seeking"),
        ("train", ("omsd", "--sedes", "4"), "--seeds"),
        ("sweep", ("--sytems", "omsd"), "--systems"),
        ("train", ("omsd", "--cfg.betta", "0.1"), "--cfg.beta"),
        ("sweep", ("--systems", "brpo-ind", "--cfg.order", "1-0"), "--systems"),
        ("train", ("omsd", "--precision", "half"), "bfloat16"),
        ("reproduce", ("omsd-table9",), "omsd-table1"),
        ("", ("sweeep",), "sweep"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(refused, command, flags, nearest):
    text = refused(command, *flags, *(() if command in ("reproduce", "") else SMALL))
    assert nearest in text


@pytest.mark.parametrize(
    "text", ["0", "-1", "a", "", "4:2", "4:4", "1:b", "1:", ":", "1:2:3", "1,1", ",", "1,,2", "1.5"]
)
def test_seeds_that_mean_nothing(text):
    with pytest.raises(JaxomarlError, match=r"--seeds: expected .*4:8 for 4\.\.7"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["1000000000000", "0:99999999999", str(2**31) + ","])
def test_seeds_beyond_reason_are_refused_before_memory_is_taken(text):
    with pytest.raises(JaxomarlError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", [0, 1, 2]), ("4:6", [4, 5]), ("3,5", [3, 5]), ("7,", [7]), ("0:1", [0])],
)
def test_seeds_that_mean_something(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("seeds", ["0", "-1", "a", "4:2", "1:b", "1,1"])
def test_the_command_refuses_such_seeds(refused, seeds):
    text = refused("train", "omsd", f"--seeds={seeds}")
    assert "--seeds" in text
    assert "4:8" in text


@pytest.mark.parametrize("seed", ["-1", str(2**31)])
def test_collect_refuses_a_seed_out_of_range(refused, seed):
    text = refused("collect", "games/bandit", f"--seed={seed}")
    assert "--seed:" in text and "2^31 - 1" in text


@pytest.mark.parametrize("seed", ["-1", str(2**31)])
def test_render_refuses_a_seed_out_of_range(refused, tmp_path, seed):
    text = refused("render", str(tmp_path), "--out", str(tmp_path / "film.gif"), f"--seed={seed}")
    assert "--seed:" in text and "2^31 - 1" in text


@pytest.mark.parametrize(
    ("command", "flags", "found"),
    [
        # the system is the preset's, so that its tasks alone are named
        ("train", ("omsd", "--task", "mpe/spread", "--preset", "paper-code"), "for games/*"),
        ("train", ("dom2", "--preset", "paper-code"), "for omsd"),
        (
            "sweep",
            ("--systems", "bc", "dom2", "--tasks", "mpe/tag", "--preset", "mode-seeking"),
            "for omsd",
        ),
        ("show", ("omsd", "--task", "mpe/spread", "--preset", "paper-code"), "for games/*"),
    ],
)
def test_a_preset_that_fits_nothing_is_refused(refused, command, flags, found):
    text = refused(command, *flags)
    assert "--preset: expected one for" in text and f"which is {found}" in text
    assert "leave it out" in text.lower()


def test_a_preset_may_fit_some_of_what_is_asked():
    check_fits("paper-code", ["games/bandit"], ["omsd", "dom2"])
    check_fits("particle", ["games/bandit", "mpe/spread:speed_min=0.5"], ["bc"])
    check_fits("", ["mpe/spread"], ["matd3"])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("INTERNAL: Out of memory allocating 72 bytes.", "72 bytes were asked for"),
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 64.00GiB.",
            "64.00GiB were asked for",
        ),
        ("RESOURCE_EXHAUSTED: too large", "RESOURCE_EXHAUSTED: too large"),
        ("INTERNAL: another fault", ""),
        ("", ""),
    ],
)
def test_errors_of_memory_are_known(message, said):
    assert runtime.memory_wanted(RuntimeError(message)) == said


@pytest.mark.parametrize("table", ["omsd-scores", "omsd-oracle", "coda-fidelity", "coda-steering"])
def test_a_table_of_one_task_refuses_several(refused, table):
    text = refused("reproduce", table, "--tasks", "mpe/spread", "mpe/tag")
    assert "--tasks: expected one name" in text


def test_evaluate_says_that_a_folder_has_no_runs(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    text = refused("evaluate", str(tmp_path / "empty"))
    assert "a folder with runs" in text and "--out folder of a sweep" in text


@pytest.mark.parametrize("flag", ["--systems", "--tasks"])
def test_an_empty_list_of_names(refused, flag):
    assert flag in refused("sweep", flag, *SMALL)


@pytest.mark.parametrize(
    "flags",
    [
        ("--systems", "omsd", "omsd"),
        ("--systems", "omsd", "--data", "std0.3", "std0.3"),
        ("--systems", "omsd", "--tasks", "games/bandit", "games/bandit"),
        ("--systems", "omsd", "--cfg.beta", "0.1", "0.1"),
    ],
)
def test_the_same_thing_twice(refused, flags):
    assert "once" in refused("sweep", *flags, *SMALL)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--rows", "-1"),
        ("--episodes", "-1"),
        ("--scale", "0"),
        ("--scale", "-1"),
        ("--scale", "nan"),
        ("--cfg.beta", "much"),
        ("--cfg.chunk", "many"),
        ("--cfg.chunk", "0"),
        ("--cfg.every", "0"),
        ("--cfg.critic-batch", "0"),
        ("--cfg.critic-width", "-8"),
        ("--cfg.beta", "nan"),
    ],
)
def test_a_value_out_of_range(refused, flag, value):
    text = refused("train", "omsd", flag, value)
    assert flag in text
    assert "expected" in text or "Error parsing" in text


# --- contradictory options ---


@pytest.mark.parametrize(
    ("system", "flags", "named"),
    [
        ("omsd", ("--cfg.order", "0-0"), ("--cfg.order", "permutation")),
        ("omsd", ("--cfg.order", "0-1-2"), ("--cfg.order", "1-0")),
        ("omsd", ("--cfg.order", "first"), ("--cfg.order", "permutation")),
        ("omsd", ("--cfg.t-min", "0.9", "--cfg.t-max", "0.1"), ("--cfg.t-min", "t_min <= t_max")),
        ("omsd", ("--cfg.t-min", "0.0"), ("--cfg.t-min", "(0, 1]")),
        (
            "omsd",
            ("--cfg.chunk", "100", "--cfg.critic-steps", "150"),
            ("--cfg.critic-steps", "chunk = 100", "Take 100"),
        ),
        ("omsd", ("--cfg.policy-steps", "0"), ("--cfg.policy-steps", "--cfg.chunk")),
        ("omsd", ("--cfg.reward", "own"), ("--cfg.reward", "team, first")),
        ("brpo-ctde", ("--cfg.reward", "own"), ("--cfg.reward", "team, first")),
        ("brpo-ind", ("--cfg.reward", "team"), ("--cfg.reward", "own")),
        ("dom2", ("--task", "games/climbing"), ("--task", "continuous")),
        ("omsd", ("--cfg.beta-convention", "papers"), ("--cfg.beta-convention", "paper, ")),
        ("omsd", ("--cfg.weighting", "vdss"), ("--cfg.weighting", "vds, ")),
        ("omsd", ("--cfg.sweep", "seidel"), ("--cfg.sweep", "gauss-seidel")),
        ("omsd", ("--cfg.start", "somewhere"), ("--cfg.start", "uniform:0.9")),
        ("omsd", ("--cfg.start", "0.5"), ("--cfg.start", "2 number")),
        ("omsd", ("--cfg.start", "uniform:2"), ("--cfg.start", "[-1, 1]")),
        ("omsd", ("--cfg.start", "nan,0.5"), ("--cfg.start", "[-1, 1]")),
    ],
)
def test_contradictory_options_are_refused_at_construction(refused, system, flags, named):
    text = refused("train", system, *flags, *SMALL)
    assert all(word in text for word in named), text


# --- folders ---


def test_the_folder_of_another_config(refused, taken, tmp_path):
    before = contents(tmp_path / "out")
    for more in ((), ("--resume",)):
        text = refused("sweep", *taken, "--cfg.critic-width", "16", *more)
        assert all(
            word in text for word in ("--out", "--resume", "--overwrite", "critic_width", "16")
        ), text
    assert contents(tmp_path / "out") == before


def test_the_folder_of_the_same_config_wants_a_word(refused, taken):
    text = refused("sweep", *taken)
    assert "--resume" in text
    assert "--overwrite" in text


def test_resume_and_overwrite_exclude_each_other(refused, taken, tmp_path):
    before = contents(tmp_path / "out")
    text = refused("sweep", *taken, "--resume", "--overwrite")
    assert "--resume, --overwrite: expected one of them" in text
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("flag", ["--no-overwrite", "--overwrite", "--resume"])
def test_a_foreign_folder_is_left_untouched(refused, tmp_path, flag):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    text = refused("train", "omsd", "--out", str(folder), flag, *SMALL)
    assert "jaxomarl made" in text
    assert contents(folder) == {"chapter.tex": b"years of work"}


def test_a_file_as_out(refused, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert "--out: expected a folder" in refused(
        "train", "omsd", "--out", str(tmp_path / "file"), *SMALL
    )
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_from_a_folder_that_is_none(refused, tmp_path, name):
    text = refused(
        "train", "omsd", "--from", str(tmp_path / name), "--out", str(tmp_path / "new"), *SMALL
    )
    assert "--from: expected the --out folder of another command" in text
    assert not (tmp_path / "new").exists()


def test_a_refused_command_leaves_no_folder_behind(refused, tmp_path):
    refused("train", "omsd", "--cfg.order", "0-0", "--out", str(tmp_path / "new"), *SMALL)
    assert not (tmp_path / "new").exists()


# --- through a real process ---


@pytest.mark.parametrize(
    ("module", "flags", "named"),
    [
        ("experiments.train", ("omds", "--seeds", "1"), "Did you mean omsd"),
        pytest.param(
            *("jaxomarl", ("sweep", "--sytems", "omsd"), "--systems"), marks=pytest.mark.long
        ),
    ],
)
def test_a_process_ends_with_exit_code_2(tmp_path, module, flags, named):
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAXOMARL_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", module, *flags]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command, words, way",
    [
        ("sweep", [], "--resume continues"),
        ("train", ["bc"], "--resume continues"),
        ("reproduce", ["omsd-table1"], "the same command continues"),
        ("collect", ["games/bandit"], ""),
        ("evaluate", ["RUN"], ""),
    ],
)
def test_a_full_disk_is_told_with_a_way_to_continue_that_the_command_has(
    monkeypatch, capsys, command, words, way
):
    def full(*_):
        raise OSError(28, "No space left on device", "x.csv")

    monkeypatch.setattr(commands, "answer", full)
    assert commands.run(command, words) == 74
    said = capsys.readouterr().err
    assert "No space left on device: 'x.csv'" in said and way in said
    assert ("continues" in said) == bool(way)
