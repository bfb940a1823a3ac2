"""How settings name the diffusion models beside the default one, and what they may be called. Imports nothing; pure."""

import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Names that mean another model of the node already.
_RESERVED = ("diffusion", "clip", "classifier", "backbone")


def read_models(text: str, *reserved: str) -> dict[str, Path]:
    """Return the absolute paths of models by their names, from `name=path` separated by commas.

    Args:
        text: Of the setting; empty entries do not count.
        reserved: Further names that mean something else already.

    Raises:
        ValueError: An entry has no path, or a name that is not allowed; or a name stands twice.
    """
    entries = [entry.partition("=") for entry in text.split(",") if entry.strip()]
    names = [name.strip() for name, _, _ in entries]
    taken = {*_RESERVED, *reserved}
    if bad := [name for name in names if not _NAME.fullmatch(name) or name in taken]:
        raise ValueError(
            f"has {len(bad)} entries whose name is not allowed; an entry is name=path, and a name has 1 to 64 letters, "
            f"digits, dots, hyphens and underscores, begins with a letter or digit, and is none of "
            f"{', '.join(sorted(taken))}"
        )
    if len(set(names)) < len(names):
        raise ValueError("has a name twice; give each model a name of its own")
    paths = [path.strip() for _, _, path in entries]
    if not all(paths):
        raise ValueError("has an entry without a path; an entry is name=path")
    return {name: Path(path).expanduser().resolve() for name, path in zip(names, paths, strict=True)}
