"""The comparison at full size, run with a tiny model: that it works, not what it finds."""

import json

import pytest

from bench.full_size.__main__ import main, render
from bench.savings.turns import Ratio


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_our_layers_and_diffusers_take_turns(capsys: pytest.CaptureFixture[str], dtype: str) -> None:
    assert main(["--tiny", "--dtype", dtype, "--rounds", "2", "--ways", "diffusers", "ours"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert [line.split()[0] for line in table] == list(found["ways"]) == ["diffusers", "ours"]
    assert found["dtype"] == dtype
    assert found["ways"]["diffusers"]["ratio"] == 1


def test_the_operators_of_a_step_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--dtype", "float32", "--profile", "5"]) == 0
    assert "mkldnn" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "verdict"), [(5.0, "1.25, target 1.25: ok"), (5.2, "1.30, target 1.25: MISSED")])
def test_the_target_is_a_share_of_the_time_of_openvino(seconds: float, verdict: str) -> None:
    ratios = {"ours": Ratio(seconds, 1, 1, 1), "openvino": Ratio(4.0, 0.8, 0.8, 0.8)}
    assert render(ratios).splitlines()[-1].endswith(verdict)
