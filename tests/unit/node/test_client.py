"""What the worker's log tells of an engine that is away."""

import logging
from pathlib import Path

import pytest

from app.node.client import NodeClient


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # httpcore leaves a socket that did not connect to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_log_says_once_that_the_engine_cannot_be_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    client = NodeClient(tmp_path / "engine.sock", clock=lambda: now)

    class GivenUp(Exception):
        pass

    def ask() -> None:
        """Try once."""
        tries = iter([None, GivenUp()])

        def keep_waiting() -> None:
            if (error := next(tries)) is not None:
                raise error

        with pytest.raises(GivenUp):
            client.backbone(keep_waiting=keep_waiting)

    with caplog.at_level(logging.WARNING, "app.node.client"):
        ask()
        assert caplog.messages == []  # it may be starting
        now = 31.0
        ask()
        ask()
    assert len(caplog.messages) == 1
    assert "FOXHOUND_RUN_DIR" in caplog.text
    client.close()
