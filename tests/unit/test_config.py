"""Settings and the command line's words about them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config import Settings

ROOT = Path(__file__).parents[2]


def foxhound(tmp_path: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOXHOUND_", "DATABASE_URL"))}
    surroundings = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **env}
    command = [sys.executable, "-m", "app.cli.main", *words]
    return subprocess.run(command, env=surroundings, cwd=tmp_path, capture_output=True, text=True, timeout=120)


def test_everything_has_a_default_and_a_description() -> None:
    settings = Settings(_env_file=None)
    assert (settings.host, settings.port, settings.model_pack, settings.device) == ("127.0.0.1", 8000, "demo", "auto")
    assert all(field.description for field in Settings.model_fields.values())


def test_the_database_is_sqlite_in_the_data_folder_unless_a_url_is_given(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).resolved_database_url == f"sqlite:///{tmp_path}/foxhound.db"
    assert Settings(database_url="postgresql://x/y").resolved_database_url == "postgresql://x/y"


def test_the_socket_path_fits_however_deep_the_data_folder_lies(tmp_path: Path) -> None:
    deep = Settings(data_dir=tmp_path / ("d" * 200))
    assert len(str(deep.engine_socket)) < 108
    assert deep.engine_socket == Settings(data_dir=tmp_path / ("d" * 200)).engine_socket
    assert deep.engine_socket != Settings(data_dir=tmp_path / ("e" * 200)).engine_socket


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "gpu"), ("port", 70_000), ("database_url", "mysql://x"), ("model_pack", "sdxl"), ("max_queue_size", 0)],
)
def test_wrong_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_models_are_named_paths(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, models=f" sd = {tmp_path}/a=b.safetensors, v-2.1=models ,")
    assert settings.named_models == {"sd": tmp_path / "a=b.safetensors", "v-2.1": Path("models").resolve()}
    assert Settings(_env_file=None, models=" ").named_models == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a=/x,b=/y,a=/z", "a name twice"),
        ("a", "without a path"),
        ("a=", "without a path"),
        ("/models/a.safetensors", "name is not allowed"),
        ("../a=/x", "name is not allowed"),
        ("a b=/x", "name is not allowed"),
        (f"{'a' * 65}=/x", "name is not allowed"),
        ("demo=/x", "name is not allowed"),
        ("clip=/x,diffusion=/y", "has 2 entries whose name is not allowed"),
    ],
)
def test_models_of_no_form_or_name_stop_the_start(value: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(_env_file=None, models=value)


@pytest.mark.slow("starts processes")
def test_an_env_file_may_begin_with_a_bom_and_must_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("FOXHOUND_PORT=none\n".encode("utf-8-sig"))
    assert "FOXHOUND_PORT" in foxhound(tmp_path, "serve").stderr
    (tmp_path / ".env").write_bytes("FOXHOUND_PORT=1\n".encode("utf-16"))
    ended = foxhound(tmp_path, "serve")
    assert (ended.returncode, "not UTF-8 text" in ended.stderr, "Traceback" in ended.stderr) == (78, True, False)


def test_wrong_values_stop_the_start_with_all_mistakes_named_at_once(tmp_path: Path) -> None:
    ended = foxhound(tmp_path, "serve", FOXHOUND_PORT="none", FOXHOUND_DEVICE="gpu", DATABASE_URL="mysql://x")
    assert ended.returncode == 78
    assert all(name in ended.stderr for name in ("FOXHOUND_PORT", "FOXHOUND_DEVICE", "DATABASE_URL"))
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("cors_origins", "https://app.example/", "Write scheme://host or scheme://host:port"),
        ("allowed_hosts", "http://fox.example", "Write a name or an address without scheme"),
    ],
)
def test_a_list_with_a_faulty_entry_is_refused_with_what_to_write(name: str, value: str, rule: str) -> None:
    with pytest.raises(ValidationError, match=f"Entry 2 of the list is not valid. {rule}"):
        Settings(_env_file=None, **{name: f"*.a.example,{value}" if name == "allowed_hosts" else f"http://a,{value}"})  # type: ignore[arg-type]
    assert getattr(Settings(_env_file=None, **{name: " "}), name) is None  # type: ignore[arg-type]


def test_serve_without_migration_names_the_command_and_changes_nothing(tmp_path: Path) -> None:
    ended = foxhound(tmp_path, "serve", FOXHOUND_DATA_DIR=str(tmp_path / "data"))
    assert ended.returncode == 78
    assert "foxhound migrate" in ended.stderr
    assert not (tmp_path / "data" / "foxhound.db").exists()


@pytest.mark.slow("starts processes that load models")
def test_a_missing_gpu_or_a_taken_port_ends_the_api_with_its_reason(tmp_path: Path) -> None:
    env = {"FOXHOUND_DATA_DIR": str(tmp_path / "data")}
    assert foxhound(tmp_path, "migrate", **env).returncode == 0
    without_gpu = foxhound(tmp_path, "api", **env, FOXHOUND_DEVICE="cuda:99")
    assert (without_gpu.returncode, "CUDA" in without_gpu.stderr) == (78, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = foxhound(tmp_path, "api", **env, FOXHOUND_PORT=port)
    assert (refused.returncode, port in refused.stderr) == (78, True)


def test_the_table_of_settings_has_each_with_its_value_and_no_password(tmp_path: Path) -> None:
    env = {"FOXHOUND_DATABASE_URL": "postgresql://fox:secret@nowhere/hound", "FOXHOUND_PORT": "8123"}
    rows = {row["name"]: row for row in json.loads(foxhound(tmp_path, "settings", "--json", **env).stdout)}
    assert list(rows) == [f"FOXHOUND_{name.upper()}" for name in Settings.model_fields]
    assert (rows["FOXHOUND_PORT"]["value"], rows["FOXHOUND_PORT"]["default"]) == ("8123", "8000")
    assert rows["FOXHOUND_DATABASE_URL"]["value"] == "postgresql://fox:***@nowhere/hound"
    assert "foxhound settings" in foxhound(tmp_path, "serve", "-h").stdout.replace("\n", " ")
