"""Runs that do not fit into memory at once: they are trained in portions, with the same numbers."""

import dataclasses
import json
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from jax.errors import JaxRuntimeError

import jaxomarl
from jaxomarl.api import generated, plan, portions, session
from jaxomarl.api.spoken import python_face
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.envs.catalog import make
from jaxomarl.training import checkpoint, memory
from jaxomarl.training.library import StageCache

SEEDS = 4
SMALL = dict(
    rows=64, episodes=2, final_episodes=2, progress=False, chunk=2, every=1, policy_steps=8, policy_batch=8,
    policy_width=8,
)  # fmt: skip


def train(out, allowed="", seeds=SEEDS, resume=False):
    """Behaviour cloning with so much memory."""
    return jaxomarl.train(
        "bc",
        "games/bandit",
        seeds=seeds,
        out=out,
        resume=resume,
        memory=allowed,
        save_every=1e6,
        **SMALL,
    )


def numbers(out):
    """Tables and final policies by name: what must be the same to the bit."""
    kept = (".csv", ".safetensors")
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.suffix in kept}


def job(folder=None):
    """The job of `train`, and its group."""
    fields = ("chunk", "every", "policy_steps", "policy_batch", "policy_width")
    cfg = {name: [SMALL[name]] for name in fields}
    (group,) = plan.resolve(["bc"], ["games/bandit"], (), SEEDS, "", cfg, 64, 2, 1.0, "", 2)
    library = StageCache(*filter(None, [folder]))
    return session.job_of(group, library), group


@pytest.fixture(scope="module")
def asked():
    """The job of `train`, whose programs are compiled once."""
    return job()[0]


@pytest.fixture(scope="module")
def needed(asked):
    """Bytes that all runs at once need."""
    found = memory.plan(asked)
    assert (found.runs, found.portions) == (SEEDS, 1)
    return found.needed


@pytest.fixture(scope="module")
def halves(needed, tmp_path_factory):
    """Results and OUT of a sweep that had a byte too little, so that it took two portions."""
    out = tmp_path_factory.mktemp("halves") / "out"
    return train(out, f"{needed - 1}B"), out


def test_portions_give_the_same_numbers_to_the_bit(halves, tmp_path):
    whole = train(tmp_path / "out")
    results, out = halves
    assert numbers(out) == numbers(tmp_path / "out")
    assert len(list(out.glob("stages/*/DONE"))) == 2
    assert len(list((tmp_path / "out").glob("stages/*/DONE"))) == 1
    assert results.table == whole.table
    # evaluations are many, and its end is saved alone
    assert [p.name for p in tmp_path.glob("out/stages/*/checkpoints/*") if p.is_dir()] == ["4"]
    spec = whole.policy(3).spec
    obs = np.ones((spec.agents, spec.obs_width), np.float32)
    assert (results.policy(3).act(obs) == whole.policy(3).act(obs)).all()


def test_a_group_continues_in_its_portions(halves, needed):
    out = halves[1]
    (said,) = [json.loads(p.read_text()) for p in out.rglob(portions.FILE)]
    assert said["runs"] == 2
    again, group = job(out / "stages")
    found = portions.fitted(again, group.name, session.group_folder(out, group))
    assert (found.runs, found.portions) == (2, 2)


def test_the_need_grows_with_the_runs_and_what_fits_fits(asked, needed):
    found = memory.plan(dataclasses.replace(asked, memory=needed - 1))
    assert (found.runs, found.portions) == (2, 2)
    assert found.taken <= found.limit < found.needed == needed
    text = memory.told(found, SEEDS)
    assert "4 runs at once need" in text and "2 portions, 2 at a time" in text


def test_fewer_runs_that_need_more_are_not_taken(asked, monkeypatch):
    """Blocks: fifteen runs are updated at once, and sixteen in eights."""
    cost = lambda runs: runs * 1_000_000 if runs < 16 else 8_000_000 + runs * 100_000
    monkeypatch.setattr(memory.Needs, "of", lambda self, runs, most: cost(runs))
    monkeypatch.setattr(memory.Needs, "begin", lambda self, runs, most: None)
    seeds = dataclasses.replace(asked, seeds=list(range(30)), cfgs=asked.cfgs[:1] * 30)
    found = memory.plan(dataclasses.replace(seeds, memory=10_900_000))
    assert cost(found.runs) <= found.limit and found.taken == cost(found.runs)
    assert found.portions == -(-30 // found.runs)


def test_shapes_are_those_of_compiled_programs_and_are_not_traced_again(asked, needed, monkeypatch):
    """`needed` has compiled the job's programs; another job, which compiles none, traces the same shapes."""
    ((traced, _),) = memory.traced(job()[0])
    ((program, _),) = memory.traced(dataclasses.replace(asked, shapes={}))
    expected = traced.finished(SEEDS)
    monkeypatch.setattr(memory.jax, "eval_shape", None)
    assert program.finished(SEEDS) == expected
    assert all(expected[name] for name in ("metrics", "evaluations", "health"))


def test_a_programs_seconds_are_counted_once_and_what_its_thread_raises_is_raised(asked, needed):
    programs = list(asked.programs.values())
    seconds = programs[0].traced + programs[0].compilation.result()[1]
    assert [programs[0].seconds() for _ in range(2)] == [seconds, 0.0]
    failed = dataclasses.replace(programs[0], compilation=Future())
    failed.compilation.set_exception(MemoryError("of the compiler"))
    with pytest.raises(MemoryError, match="of the compiler"):
        _ = failed.call


@pytest.mark.parametrize(("platform", "devices"), [("cpu", 8), ("gpu", 1), ("tpu", 1)])
def test_devices_of_a_cpu_share_one_memory(monkeypatch, platform, devices):
    """What one device needs counts for each of eight on a CPU, and once where each has its own."""
    job = SimpleNamespace(data=np.zeros(25, np.float32), held=())
    eight = SimpleNamespace(devices=SimpleNamespace(size=8), job=job)
    eight.lay, eight.programs = (lambda rows: None), (lambda rows: [1_000, 700])
    monkeypatch.setattr(memory.jax, "default_backend", lambda: platform)
    monkeypatch.setattr(memory, "program_bytes", lambda compiled: compiled)
    assert memory.Needs.compiled(SimpleNamespace(program=eight), 3) == devices * 1_000 - 100


def test_a_stage_says_what_its_most_demanding_program_needs(monkeypatch):
    monkeypatch.setattr(memory, "program_bytes", lambda compiled: compiled)
    device = SimpleNamespace(memory_stats=lambda: None)
    monkeypatch.setattr(memory.jax, "local_devices", lambda: [device])
    assert memory.facts([100, 300]) == {"program_bytes": 300}, "a CPU does not count"
    cards = [SimpleNamespace(memory_stats=lambda k=k: {"peak_bytes_in_use": k}) for k in (7, 9)]
    monkeypatch.setattr(memory.jax, "local_devices", lambda: cards)
    assert memory.facts([100]) == {"program_bytes": 100, "peak_bytes": 9}


def test_what_never_fits_is_refused_with_bytes_and_a_way_out(tmp_path):
    with pytest.raises(
        memory.MemoryTooSmallError, match=r"one run of stage policy.*at least .*iB.*1\.0 KiB"
    ) as refused:
        train(tmp_path / "out", "1KiB")
    assert "width and batch" in str(refused.value)
    assert not list((tmp_path / "out").rglob("run.json"))


def test_the_time_between_checkpoints_follows_what_one_takes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    cadence = checkpoint.Cadence()
    assert checkpoint.Cadence(0.0).due() and not cadence.due()
    with cadence.save():
        now[0] = 3.0
    now[0] = 3.0 + 3.0 / checkpoint.SHARE - 1.0
    assert not cadence.due() and not checkpoint.Cadence(1000.0).due()
    now[0] += 2.0
    assert cadence.due()


def test_rows_that_do_not_fit_are_refused_before_they_are_generated(monkeypatch):
    task = make("games/bandit")
    # two agents' observation, action and reward, a state, three flags
    assert generated.row_bytes(task) == 4 * (2 * 3 + 1 + 3)
    monkeypatch.setattr(memory, "limit", lambda: 100 * generated.row_bytes(task))
    assert len(generated.load(task, rows=100)[0].starts) == 100
    for ask in (
        lambda: generated.load(task, rows=101),
        lambda: plan.resolve(["bc"], [task.name], rows=101),
    ):
        with pytest.raises(
            memory.MemoryTooSmallError, match=r"--rows: expected at most 100, .*found 101"
        ):
            ask()


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 9 GiB for x"),
                                   JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")])  # fmt: skip
def test_an_error_of_memory_is_ours_and_another_is_not(error, monkeypatch, capsys):
    def fails(*_):
        raise error

    with pytest.raises(memory.MemoryTooSmallError, match=r"memory of the device: .*asked for"):
        python_face(fails)()
    monkeypatch.setattr(commands, "answer", fails)
    assert commands.run("collect", ["games/bandit", "--no-compile-cache"]) == 71
    assert "--cfg.*-width" in capsys.readouterr().err
    error = JaxRuntimeError("INTERNAL: another fault")
    with pytest.raises(JaxRuntimeError, match="another fault"):
        python_face(fails)()


# --- amounts ---


def test_amounts_are_read_and_written():
    assert memory.parse_bytes("") == 0
    assert memory.parse_bytes("1.5KiB") == 1536 and memory.parse_bytes("7") == 7
    assert memory.words(1536) == "1.5 KiB" and memory.words(12) == "12 B"
    for text in ("8GB", "-1GiB", "GiB", "0", "nan"):
        with pytest.raises(JaxomarlError, match="--memory"):
            memory.parse_bytes(text)


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        ("0::/a/b", {"a/memory.max": 900, "a/memory.current": 500, "a/memory.stat": "inactive_file 100",
                     "a/b/memory.max": "max"}, 500),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": 300, "memory/a/memory.usage_in_bytes": 250,
                         "memory/a/memory.stat": "total_inactive_file 25"}, 75),
        ("0::/a", {}, 2048),
    ],
)  # fmt: skip
def test_the_smallest_group_above_a_process_counts(tmp_path, group, files, free):
    written = {"proc/meminfo": "MemTotal: 4 kB\nMemAvailable: 2 kB\n", "proc/self/cgroup": group}
    written |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(str(text))
    assert memory.host_memory(tmp_path) == free


def test_a_machine_that_says_nothing_has_no_limit(tmp_path):
    assert memory.host_memory(tmp_path) == 1 << 62
