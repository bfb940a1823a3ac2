"""The settings as the shell sees them: listed in every command's help, read, and refused in words.

Runs in each of Foxhound's processes before anything else.
"""

from typing import NoReturn

import typer
from pydantic import ValidationError

from app.cli.console import err
from app.config import Settings
from app.node.supervisor import EXIT_CONFIG


def settings_help() -> str:
    """Return every setting with its meaning and default, one a paragraph."""
    lines = ["Settings are environment variables (a `.env` file works too):", ""]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f" [default: {field.default}]"
        lines += [f"`FOXHOUND_{name.upper()}` {field.description}{default}", ""]
    return "\n".join(lines)


def read_settings() -> Settings:
    """Return the settings, or end the command with every mistake named."""
    try:
        return Settings()
    except ValidationError as error:
        for fault in error.errors(include_input=False):
            name = str(fault["loc"][0]).upper().removeprefix("FOXHOUND_")
            err.print(f"FOXHOUND_{name}: {fault['msg']}", highlight=False)
        raise typer.Exit(EXIT_CONFIG) from None
    except UnicodeDecodeError:
        refuse("The `.env` file is no text in UTF-8; save it as UTF-8.")


def refuse(error: Exception | str) -> NoReturn:
    """End the command: starting it again cannot help."""
    err.print(str(error), highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_CONFIG) from None
