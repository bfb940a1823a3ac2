"""While tracing is off, nothing of the extra is imported; where it is wanted and missing, the start says so."""

import subprocess
import sys

import pytest

from app.config import Settings

# FastAPI itself imports the API, which records nothing without the SDK.
EXTRA = ("opentelemetry.sdk", "opentelemetry.exporter", "app.tracing.otel")


@pytest.mark.parametrize("module", ["app.main", "app.worker", "app.cli.main"])
def test_nothing_of_the_extra_is_imported(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {EXTRA} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("env", "is_wanted"),
    [
        ({}, False),
        ({"FOXHOUND_OTEL": "true"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "FOXHOUND_OTEL": "false"}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ""}, False),
    ],
)
def test_it_is_wanted_by_name_or_by_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], is_wanted: bool
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None).otel is is_wanted
