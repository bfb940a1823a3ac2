"""The environments that peers run in: their own packages, and behind them those of the environment that runs us.

So a peer runs on the very torch that Foxhound runs on, and only the serving differs; what it must have in another
version (its own pins) comes first. Requirements are complete lists, installed without looking for more.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

PEERS = Path("build/peers")


def peer_python(name: str, folder: Path = PEERS) -> Path:
    """Build a peer's environment where it is missing or its requirements have changed; returns its interpreter.

    Args:
        name: `litserve` or `infinity`.
        folder: Has a folder for each environment.

    Raises:
        RuntimeError: The packages could not be installed; pip has said why on standard error.
    """
    venv, requirements = folder.absolute() / name, _requirements(name)
    python, stamp = venv / "bin" / "python", venv / "requirements.txt"
    ours = sysconfig.get_path("purelib")
    wanted = f"{requirements.read_text()}# behind them: {ours}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True, stdout=sys.stderr)
        subprocess.run([python, *pip, requirements], check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"the environment of {name} could not be built") from error
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (venv / "lib" / version / "site-packages" / "foxhound.pth").write_text(f"{ours}\n")
    stamp.write_text(wanted)
    return python


def pinned_version(name: str, package: str) -> str:
    """Return the version of a package in a peer's environment; raises KeyError for one that is not its own."""
    return dict(line.split("==") for line in _requirements(name).read_text().splitlines() if "==" in line)[package]


def _requirements(name: str) -> Path:
    return Path(__file__).parent / f"requirements-{name}.txt"
