"""schemathesis against a served node with models that answer at once: each operation of its own OpenAPI file.

`make test-fuzz` sends a few requests an operation, `make fuzz` 200. The exclusions are in `hooks.py`.
"""

import os
from pathlib import Path

import pytest

from testing.fuzzing import fuzz
from testing.node_process import nodes
from tests.e2e.conftest import free_port

pytestmark = pytest.mark.fuzz

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))


def test_a_node_keeps_its_contract(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    with nodes(tmp_path / "nodes", tmp_path / "data", database_url, step_s=0, ttl_s=20) as start:
        node = start("fuzz", port=port)
        fuzz(f"http://127.0.0.1:{port}", database_url, tmp_path, EXAMPLES)
        logs = node.log("api") + node.log()
    assert "ERROR" not in logs, logs[-4_000:]
