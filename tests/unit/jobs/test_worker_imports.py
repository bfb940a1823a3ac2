"""What the worker process imports at its start, in a process of its own; the linter sees the same in the code."""

import subprocess
import sys

HEAVY = ("torch", "torchvision", "diffusers", "transformers", "app.engine", "fastapi", "starlette")


def test_a_worker_imports_no_model_and_no_torch() -> None:
    code = f"import sys, app.worker; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
