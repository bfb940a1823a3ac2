"""Reads the settings for the commands, lists them in `--help` and reports invalid ones.

Imports no engine and no database. It runs first in the main thread of each of Foxhound's processes.
"""

from typing import NoReturn

import typer
from pydantic import ValidationError

from app.cli.console import err
from app.config import Settings
from app.node.supervisor import EXIT_CONFIG


def settings_help() -> str:
    """Return the help text of all settings: name, meaning and default, a paragraph each."""
    lines = ["Settings are environment variables (a `.env` file works too):", ""]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" [default: {field.default}]"
        lines += [f"`FOXHOUND_{name.upper()}` {field.description}{default}", ""]
    return "\n".join(lines)


def read_settings() -> Settings:
    """Return the settings.

    Raises:
        typer.Exit: Settings are invalid; each is named on standard error.
    """
    try:
        return Settings()
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
