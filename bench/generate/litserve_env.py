"""The environment that LitServe runs in: its own packages, and behind them those of the environment that runs us."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "peers" / "requirements-litserve.txt"


def litserve_python(folder: Path) -> Path:
    """Build the environment where it is missing or its requirements have changed; returns its interpreter.

    Torch and diffusers are the very ones that Foxhound runs on, so that only the serving differs.

    Raises:
        CalledProcessError: The packages could not be installed; pip has said why.
    """
    folder = folder.resolve()
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    ours = sysconfig.get_path("purelib")
    wanted = f"{REQUIREMENTS.read_text()}# behind them: {ours}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]
    subprocess.run([python, *pip, REQUIREMENTS], check=True, stdout=sys.stderr)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages" / "foxhound.pth").write_text(f"{ours}\n")
    stamp.write_text(wanted)
    return python


def litserve_version() -> str:
    """Return the pinned one."""
    pins = dict(line.split("==") for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    return pins["litserve"]
