import json

import pytest

from benchmarks import reverse_process
from jaxomarl.base import JaxomarlError

TINY = dict(
    f=("wconcat",), agents=(2,), ddpm=4, ddim=2, columns=2, known=2, width=4, batch=2, seconds=0.01
)


def test_chains_are_timed_whole_or_multiplied():
    lines = list(reverse_process.measure(reverse_process.Flags(**TINY, chain=60.0), "wconcat"))
    assert [(x["sampler"], x["calls"], x["how"]) for x in lines] == [
        ("ddpm", 4, "whole chain"),
        ("ddim", 2, "whole chain"),
        ("consistency", 1, "whole chain"),
    ]
    short = list(reverse_process.measure(reverse_process.Flags(**TINY, chain=0.0), "wconcat"))
    for x in short:
        assert x["how"] == f"one call x {x['calls']}" and x["alone"]
        assert x["seconds"] == pytest.approx(x["calls"] * x["seconds_per_call"])
        assert x["seconds_low"] <= x["seconds"] <= x["seconds_high"] and x["program_mib"] > 0
        assert x["seconds_per_agent"] == pytest.approx(x["seconds"] / 2)
    assert reverse_process.table(lines + short).count("one call x") == 3


def test_the_command_prints_json_lines_and_a_table(capsys, tmp_path):
    argv = ["--toy", "--f", "atten", "--samplers", "consistency", "--out", str(tmp_path / "lines")]
    assert reverse_process.main(argv) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [(x["agents"], x["f"]) for x in lines] == [(2, "atten"), (4, "atten")] and not lines[0][
        "alone"
    ]
    assert "| atten | no | 4 | consistency | 1 |" in capsys.readouterr().err


def test_unknown_names_are_refused():
    for flags in (dict(f=("product",)), dict(samplers=("heun",)), dict(agents=())):
        with pytest.raises(JaxomarlError, match="expected"):
            reverse_process.checked(reverse_process.Flags(**flags))
