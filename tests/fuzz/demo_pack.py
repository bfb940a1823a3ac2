"""schemathesis against a node as a user starts it, with the demo pack: `make fuzz-demo`; no part of the suite.

The node's bounds are low, and an operation gets few examples: images are drawn.
"""

import os
from pathlib import Path

import pytest

from testing.fuzzing import fuzz
from tests.e2e.conftest import served

pytestmark = pytest.mark.fuzz


def test_a_node_with_the_demo_pack_keeps_its_contract(tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'foxhound.db'}"
    # So that no request takes minutes: 1,000,000 are 122 steps of two images of 64 x 64 pixels.
    with served(tmp_path / "data", database_url, max_work_pixel_steps=1_000_000, max_dataset_images=40) as node:
        fuzz(str(node.http.base_url), database_url, tmp_path, int(os.environ.get("FUZZ_EXAMPLES", "5")))
