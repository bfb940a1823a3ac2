"""The benchmark of a GPU, run on the CPU with a tiny model: that it works, not what it finds."""

import json

import pytest
import torch

from bench.gpu.__main__ import main


@pytest.mark.slow("runs every part of the benchmark on a tiny model")
def test_it_prints_a_table_and_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    lines = json.loads(last)["lines"]

    assert len(table) == len(lines)
    names = ("G1 forward", "G2 images", "G4 packing", "G5 decoding", "G6 parity", "G7 decoding", "G8 speeds")
    assert {line["part"] for line in lines} == set(names)
    parity = {line["case"]: line["max_abs"] for line in lines if line["part"] == "G6 parity"}
    one_level = 2 / 255
    assert all(difference < 1.01 * one_level for difference in parity.values())
    assert parity["ours, deterministic, in a batch against alone"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_full_size_asks_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--tiny" in capsys.readouterr().err
