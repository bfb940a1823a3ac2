"""The files that pack and start Foxhound agree with each other and with the settings; no Docker engine is needed."""

import os
import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from app.config import Settings
from testing.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker" / "compose.gpu.yml"
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    pairs = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


def arguments_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == instruction]


def image_env() -> dict[str, str]:
    return dict(pair.split("=", 1) for arguments in arguments_of("ENV") for pair in arguments.split())


def compose(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def node_env(*paths: Path) -> dict[str, str]:
    """The environment of the node's container: the image's, then each file's."""
    env = image_env()
    for path in paths:
        env |= compose(path)["services"]["foxhound"]["environment"]
    return env


def settings_of(env: dict[str, str]) -> Settings:
    """What the service makes of an environment; a name that is no setting is refused."""
    values = {name.removeprefix("FOXHOUND_").lower(): value for name, value in env.items() if "FOXHOUND_" in name}
    assert set(values) <= set(Settings.model_fields)
    return Settings(_env_file=None, database_url=env.get("DATABASE_URL"), **values)  # type: ignore[arg-type]


def test_the_image_is_configured_by_real_settings() -> None:
    settings = settings_of(image_env())
    assert settings.host == "0.0.0.0"
    assert [str(settings.data_dir)] == arguments_of("VOLUME")
    assert [str(settings.port)] == arguments_of("EXPOSE")


def test_several_nodes_on_one_data_folder_have_sockets_of_their_own() -> None:
    settings = settings_of(image_env())
    assert not settings.engine_socket.is_relative_to(settings.data_dir)


def test_the_image_runs_without_root_on_a_pinned_base() -> None:
    assert re.fullmatch(r"python:3\.11-slim-[a-z]+", arguments_of("FROM")[-1])
    user = arguments_of("USER")[-1].split(":")[0]
    assert user.isdecimal()
    assert int(user) > 0


def test_everything_that_the_image_copies_exists_and_reaches_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    sources = [part for copy in arguments_of("COPY") for part in copy.split()[:-1] if not part.startswith("--")]
    assert "*" in ignored
    assert "app" in sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(fnmatchcase(source, pattern) for pattern in kept), source


def test_the_entrypoint_is_the_script_beside_it_and_executable() -> None:
    assert arguments_of("ENTRYPOINT") == [f'["{ENTRYPOINT.name}"]']
    assert os.access(ENTRYPOINT, os.X_OK)


def test_the_node_of_compose_waits_for_its_database_and_uses_it() -> None:
    services = compose(COMPOSE)["services"]
    assert services["foxhound"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "healthcheck" in services["postgres"]
    database = services["postgres"]["environment"]
    expected = f"postgresql://{database['POSTGRES_USER']}:{database['POSTGRES_PASSWORD']}@postgres:5432/"
    assert settings_of(node_env(COMPOSE)).database_url == expected + database["POSTGRES_DB"]


def test_compose_publishes_the_services_port_to_this_machine_alone() -> None:
    port = settings_of(node_env(COMPOSE)).port
    assert compose(COMPOSE)["services"]["foxhound"]["ports"] == [f"127.0.0.1:8000:{port}"]


def test_compose_keeps_the_data_in_declared_volumes() -> None:
    loaded = compose(COMPOSE)
    mounts = [mount.split(":") for service in loaded["services"].values() for mount in service["volumes"]]
    assert {name for name, _ in mounts} == set(loaded["volumes"])
    assert str(settings_of(node_env(COMPOSE)).data_dir) in {target for _, target in mounts}


def test_compose_lets_the_node_end_by_itself() -> None:
    grace_s = int(compose(COMPOSE)["services"]["foxhound"]["stop_grace_period"].removesuffix("s"))
    supervisor_s = settings_of(node_env(COMPOSE)).shutdown_grace_s + 5
    assert grace_s > supervisor_s


def test_the_gpu_file_turns_the_node_into_stable_diffusion_on_a_gpu() -> None:
    assert set(compose(GPU)["services"]) <= set(compose(COMPOSE)["services"])
    settings = settings_of(node_env(COMPOSE, GPU))
    assert (settings.model_pack, settings.device) == ("sd15", "cuda")
    (device,) = compose(GPU)["services"]["foxhound"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_constraints_pin_every_dependency_to_a_version_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line)] == []
    pinned = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), text


@pytest.fixture
def run_entrypoint(tmp_path: Path):
    """Run the script with a `foxhound` that writes down its arguments and fails where it is told to."""
    log = tmp_path / "calls"
    stub = tmp_path / "foxhound"
    stub.write_text(
        '#!/bin/sh\nfor word in "$@"; do printf "<%s>" "$word"; done >> "$LOG"\n'
        'echo " pid $$" >> "$LOG"\n[ "$1" != "$FAILING" ] || exit 7\n'
    )
    stub.chmod(0o755)

    def run(*words: str, failing: str = "none") -> tuple[int, list[str], int]:
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "FAILING": failing}
        process = subprocess.Popen([ENTRYPOINT, *words], env=env)
        status = process.wait(timeout=PATIENCE_S)
        calls = [line.split(" pid ") for line in log.read_text().splitlines()]
        return status, [call for call, _ in calls], int(calls[-1][1]) - process.pid

    return run


@pytest.mark.parametrize("words", [(), ("serve",)])
def test_the_entrypoint_migrates_and_then_becomes_the_service(run_entrypoint, words: tuple[str, ...]) -> None:
    status, (migrate, keys, serve), _ = run_entrypoint(*words)
    assert (status, migrate, serve) == (0, "<migrate>", "<serve>")
    assert keys.startswith("<keys><create><first><--if-needed><--output>")


def test_the_entrypoint_serves_nothing_if_the_first_key_could_not_be_kept(run_entrypoint) -> None:
    status, calls, _ = run_entrypoint("serve", failing="keys")
    assert (status, len(calls)) == (7, 2)


def test_the_entrypoint_serves_nothing_on_a_database_that_it_could_not_migrate(run_entrypoint) -> None:
    status, calls, _ = run_entrypoint("serve", failing="migrate")
    assert (status, calls) == (7, ["<migrate>"])


@pytest.mark.parametrize("words", [("models", "fetch", "sd15"), ("--help",), ("serve", "--help"), ("openapi", "a b")])
def test_the_entrypoint_hands_other_commands_on_as_they_are(run_entrypoint, words: tuple[str, ...]) -> None:
    assert run_entrypoint(*words) == (0, ["".join(f"<{word}>" for word in words)], 0)


def test_the_entrypoint_answers_with_the_commands_own_status(run_entrypoint) -> None:
    assert run_entrypoint("models", "list", failing="models")[0] == 7
