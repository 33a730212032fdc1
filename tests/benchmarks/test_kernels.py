"""The profile of a stage: what its rows say, and what it refuses."""

import pytest

from benchmarks import kernels
from jaxomarl.base import JaxomarlError


def test_rows_are_of_the_longest_kernels_and_of_the_rest():
    flags = kernels.Flags(size="8x4", stage="critic", runs=1, chunk=2, top=3)
    lines = list(kernels.measure(flags))
    names, each = [x["kernel"] for x in lines], [x["milliseconds"] for x in lines]
    assert len(lines) == 5 and names[3:] == ["the rest", "idle"]
    assert each[0] >= each[1] >= each[2] > 0 and lines[0]["calls"] > 0
    assert lines[0]["update_milliseconds"] > 0 and "| the rest |" in kernels.table(lines)


def test_kernels_of_one_kind_lose_their_numbers():
    assert (
        kernels.kind("loop_add_fusion.12") == kernels.kind("loop_add_fusion_3") == "loop_add_fusion"
    )
    assert kernels.kind("sm90_gemm_64x256x32") == "sm90_gemm_64x256x32"


def test_a_stage_that_there_is_not_is_refused():
    with pytest.raises(JaxomarlError, match="critic, scores-conditional, policy"):
        next(kernels.measure(kernels.Flags(size="8x4", stage="actor")))
