"""The benchmark of updates measures what it says; how fast anything is, is asserted nowhere."""

import json
import math
import statistics

import jax
import jax.numpy as jnp
import pytest

from benchmarks import report, sizes, updates, work
from jaxomarl.algorithms.omsd import Config
from jaxomarl.base import JaxomarlError, Spec

TOY = Spec(obs_dims=(3, 2), act_dims=(2, 1), state_dim=4, horizon=5)
SMALL = {
    f"{part}_{what}": n
    for part in ("critic", "score", "policy")
    for what, n in (("width", 8), ("batch", 4))
}
NUMBERS = {
    "updates_per_second", "updates_per_second_low", "updates_per_second_high", "seconds_per_update", "ratio",
    "ratio_of_best", "flop_per_update", "gflop_per_second", "compile_seconds", "program_gib", "peak_gib",
    "ceiling_gflop_per_second", "ceiling_gb_per_second", "ceiling_share", "floor_share", "state_mib",
    "seconds_per_update_low", "seconds_per_update_high",
}  # fmt: skip
COUNTS = {"runs", "agents", "devices", "samples", "updates_per_sample"}


@pytest.fixture(scope="module")
def toy() -> updates.Size:
    """Tiny networks on two unlike agents."""
    cfg = Config(**SMALL, score_blocks=1, score_embedding=8, chunk=2)
    return sizes.Size("toy", TOY, cfg, sizes.random_data(TOY, episodes=3))


@pytest.fixture(scope="module")
def lines(toy) -> list[dict]:
    """A stage measured for one run and for two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates, "SAMPLE", 0.01)
        patch.setattr(updates, "ceiling", lambda devices, dtype: work.Ceiling(devices, 1e12, 1e11))
        return updates.measure(toy, 0, (2, 1), seconds=0.05)


def test_a_line_has_its_fields_and_positive_numbers(lines):
    for line in map(json.loads, map(json.dumps, lines)):
        assert (line["benchmark"], line["size"], line["system"], line["stage"]) == (
            "updates",
            "toy",
            "omsd",
            "critic",
        )
        assert line["mapping"] in ("blocks", "map")
        assert {k for k, v in line.items() if isinstance(v, float)} == NUMBERS
        assert {k for k, v in line.items() if isinstance(v, int)} == COUNTS
        assert all(line[k] > 0 and math.isfinite(line[k]) for k in NUMBERS | COUNTS)
        assert (
            line["updates_per_second_low"]
            <= line["updates_per_second"]
            <= line["updates_per_second_high"]
        )
        assert line["samples"] >= updates.ROUNDS


def test_the_numbers_of_a_line_agree(lines):
    one, two = lines
    assert (one["runs"], two["runs"]) == (1, 2) and one["ratio"] == 1.0
    assert two["ratio"] == pytest.approx(
        two["seconds_per_update"] / (2 * one["seconds_per_update"])
    )
    assert one["flop_per_update"] == two["flop_per_update"]
    for line in lines:
        assert line["updates_per_second"] == pytest.approx(1 / line["seconds_per_update"])
        for end, other in (("low", "high"), ("high", "low")):
            seconds = line[f"seconds_per_update_{other}"]
            assert line[f"updates_per_second_{end}"] == pytest.approx(1 / seconds)
        rate = line["runs"] * line["flop_per_update"] / line["seconds_per_update"] / 1e9
        assert line["gflop_per_second"] == pytest.approx(rate)
        assert line["ceiling_share"] == pytest.approx(rate / 1e3)
        optimiser = line["runs"] * 2 * line["state_mib"] * 2**20 / 1e11
        floor = line["runs"] * line["flop_per_update"] / 1e12 + optimiser
        assert line["floor_share"] == pytest.approx(floor / line["seconds_per_update"])


def test_a_sample_is_time_per_update_of_all_runs(toy, monkeypatch):
    cell, clock = updates.Cell.of(toy, 0, 2, updates.untrained(toy, 0)), iter((10.0, 22.0))
    cell.state, cell.rows, cell.data, cell.calls = (), (), (), 3
    cell.step = lambda state, number, data: (state, {"loss": jnp.zeros((2, 2))})
    monkeypatch.setattr(updates.time, "perf_counter", lambda: next(clock))
    assert cell.sample() == 12.0 / (3 * 2)  # three chunks of two updates each
    assert cell.chunk == 3


@pytest.mark.long
def test_a_later_stage_gets_the_earlier_ones_untrained(toy):
    past = updates.untrained(toy, 2)
    assert set(past) == {"stats", "critic", "scores-conditional"}
    cell = updates.Cell.of(toy, 2, 3, past)
    assert {x.shape[0] for x in jax.tree.leaves(cell.program.past)} == {3}
    assert cell.need > 3 * 2 * sum(x.nbytes for x in jax.tree.leaves(past))
    assert work.operations(toy, 2, past) > work.operations(toy, 0, {"stats": past["stats"]}) > 0


def test_a_ratio_is_of_medians_and_takes_the_number_of_runs(toy):
    cells = [updates.Cell.of(toy, 0, r, updates.untrained(toy, 0)) for r in (1, 4)]
    cells[0].seconds, cells[1].seconds = [9.0, 1.0, 2.0], [6.0, 4.0, 90.0]
    for cell in cells:
        cell.program_size = lambda: 0
    line = cells[1].line(cells[0], work=None)
    assert (
        line["ratio"] == statistics.median(cells[1].seconds) / (4 * 2.0)
        and line["ratio_of_best"] == 1.0
    )
    assert line["gflop_per_second"] is None and cells[1].line(None, work=None)["ratio"] is None
    assert line["floor_share"] is None


def test_a_cell_that_needs_too_much_memory_is_skipped_with_the_reason(toy):
    (line,) = updates.measure(toy, 0, (1,), seconds=0, max_gib=1e-9)
    assert "--max-gib" in line["skipped"] and "ratio" not in line
    assert "skipped: needs about" in updates.table([line])


def test_the_table_has_a_row_for_each_line(lines):
    rows = updates.table(lines).splitlines()
    assert len(rows) == 2 + len(lines) and len({row.count("|") for row in rows}) == 1
    assert "| toy | omsd | critic | 2 | 2 |" in rows[3]


def test_operations_count_every_turn_of_a_scan():
    m = jnp.ones((16, 16))

    def turns(x):
        return jax.lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, x), None), x, None, length=5)[0]

    traced = jax.make_jaxpr(turns)(m)
    assert work.counted(traced) + work.repeated(traced.jaxpr) == pytest.approx(
        5 * 2 * 16**3, rel=0.01
    )


def test_the_sizes_are_the_papers():
    game = sizes.size("game").cfg
    assert {game.critic_width, game.score_width, game.policy_width} == {32}
    assert {game.critic_batch, game.score_batch, game.policy_batch} == {64}
    mpe = sizes.size("mpe")
    printed = {"critic_width": 256, "score_width": 512, "policy_width": 256, "score_blocks": 2}
    assert {f: getattr(mpe.cfg, f) for f in printed} == {f: getattr(Config(), f) for f in printed}
    assert mpe.data.starts.shape == (20_000,) and mpe.spec.agents == 3
    other = sizes.size("64x128").cfg
    assert (other.critic_width, other.score_batch, other.score_blocks) == (64, 128, 2)


def test_any_system_takes_the_game_s_width_and_any_number_of_agents():
    dom2 = sizes.size("game", "dom2", agents=5)
    assert (dom2.cfg.policy_width, dom2.cfg.critic_width, dom2.cfg.policy_batch) == (32, 32, 64)
    assert dom2.spec.agents == dom2.data.layout.unpack(dom2.data.rows[0])["action"].shape[0] == 5
    assert dom2.stages == ("policy",)
    online = sizes.size("8x4", "matd3")
    assert online.data is None and online.env is not None
    with pytest.raises(JaxomarlError, match="--agents"):
        sizes.size("8x4", "matd3", agents=4)


def test_a_ceiling_is_what_the_devices_gave():
    found = work.ceiling(1, side=64)
    assert found.devices == 1 and 1e6 < found.flops < 1e15 and 1e6 < found.bytes < 1e15


def test_a_cell_that_would_try_ones_patience_is_skipped(toy, monkeypatch):
    def start(self):
        self.lasts, self.program_size, self.seconds = 3.0, lambda: 0, []

    monkeypatch.setattr(updates.Cell, "start", start)
    monkeypatch.setattr(updates.Cell, "sample", lambda self: 1.0)
    monkeypatch.setattr(
        updates, "ceiling", lambda devices, dtype: work.Ceiling(devices, 1e12, 1e11)
    )
    one, many = updates.measure(toy, 0, (1, 16), seconds=0, patience=20.0)
    assert "skipped" not in one and "about 48 s" in many["skipped"]


@pytest.mark.parametrize(
    "flags",
    [{"sizes": ("big",), "stages": ("critic",)}, {"stages": ("scores",)}, {"runs": (0,)}, {"mapping": "pmap"},
     {"agents": (-1,)}],
)  # fmt: skip
def test_flags_that_mean_nothing_are_refused(flags):
    with pytest.raises(JaxomarlError):
        updates.checked(updates.Flags(**flags))


def test_a_system_that_there_is_not_is_refused():
    with pytest.raises(JaxomarlError, match="omsd"):
        list(updates.bench(updates.Flags(systems=("omds",))))


def test_a_resumed_benchmark_times_only_what_its_file_lacks(tmp_path, monkeypatch):
    """What counts are full stages of this machine; a torn line and another machine's do not."""
    stage = {"size": "8x4", "system": "iql", "agents": 3, "machine": updates.machine()}
    lines = [{**stage, "stage": "critic", "runs": runs} for runs in (1, 2)]
    lines.append({**stage, "stage": "policy", "runs": 1})
    lines.append({**stage, "stage": "policy", "runs": 2, "machine": "another"})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "lines.jsonl").write_text(text + '{"size": "8x', encoding="utf-8")
    asked = {"systems": ("iql",), "sizes": ("8x4",), "runs": (1, 2)}
    flags = updates.Flags(**asked, out=tmp_path / "lines.jsonl", resume=True)
    kept = updates.kept_lines(flags)
    assert kept == lines[:2]

    monkeypatch.setattr(updates, "measure", lambda one, index, *rest: [index])
    assert list(updates.bench(flags, kept)) == [1], "the policy alone"
    assert list(updates.bench(flags)) == [0, 1]
    assert updates.kept_lines(updates.Flags(**asked, out=flags.out)) == []


def test_kept_lines_stand_before_the_new_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "machine", lambda: "two cores")
    out = tmp_path / "lines.jsonl"
    assert report.report([{"k": 2}], lambda lines: f"{len(lines)} lines", out, [{"k": 1}]) == 0
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["k"] for line in written] == [1, 2]
    assert "2 lines" in capsys.readouterr().err
