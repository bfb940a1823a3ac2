"""Reads the settings for the commands, lists them and reports invalid ones.

Imports no engine and no database. It runs first in the main thread of each of Foxhound's processes.
"""

import re
from typing import NoReturn

import typer
from pydantic import ValidationError

from app.cli.connection import AsJson
from app.cli.console import err, print_json, print_table
from app.config import Settings
from app.node.supervisor import EXIT_CONFIG

SETTINGS_HINT = "Settings are environment variables, also from a `.env` file: `foxhound settings` lists them."
_PASSWORD = re.compile(r"(?<=:)[^:@/]*(?=@)")


def settings(as_json: AsJson = False) -> None:
    """List all settings: name, value, default and meaning. Passwords are left out."""
    current = read_settings()
    rows = []
    for name, field in Settings.model_fields.items():
        value, default = (_shown(each) for each in (getattr(current, name), field.get_default()))
        meaning = field.description or ""
        rows.append({"name": f"FOXHOUND_{name.upper()}", "value": value, "default": default, "meaning": meaning})
    if as_json:
        print_json(rows)
    else:
        print_table(("Name", "Value", "Default", "Meaning"), [list(row.values()) for row in rows])


def _shown(value: object) -> str:
    """Return a value as text, without the password of a URL."""
    return "" if value is None else _PASSWORD.sub("***", str(value))


def read_settings(**given: object) -> Settings:
    """Return the settings.

    Args:
        **given: Values that options of the command give, instead of the environment's; None: not given.

    Raises:
        typer.Exit: Settings are invalid; each is named on standard error.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        for fault in error.errors(include_input=False):
            name = str(fault["loc"][0]).upper().removeprefix("FOXHOUND_")
            err.print(f"FOXHOUND_{name}: {fault['msg']}", highlight=False)
        raise typer.Exit(EXIT_CONFIG) from None
    except UnicodeDecodeError:
        refuse("The `.env` file is not UTF-8 text. Save it as UTF-8.")


def refuse(error: Exception | str) -> NoReturn:
    """Print an error and end the command with the exit status that tells the supervisor not to restart it."""
    err.print(str(error), highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_CONFIG) from None
