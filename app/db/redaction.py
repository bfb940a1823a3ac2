"""Removes the values of statements from database errors, so that prompts and keys do not reach the log.

Imports no tables. Importing the module installs a listener on every SQLAlchemy engine of the process, the job engine's
included. The listener runs on the thread of the failed statement.
"""

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import StatementError

# SQLSTATE class "data exception": the server's message may quote the value.
_DATA_EXCEPTIONS = "22"


@event.listens_for(Engine, "handle_error")
def _keep_values_out(context: ExceptionContext) -> None:
    """Remove the values from an error before it is logged."""
    wrapped, original = context.sqlalchemy_exception, context.original_exception
    if isinstance(wrapped, StatementError):
        wrapped.hide_parameters = True
    if isinstance(original, psycopg.Error) and original.sqlstate and original.diag.message_primary:
        # Further lines quote the refused row, key or JSON; they stay available in `diag`.
        is_quoting = original.sqlstate.startswith(_DATA_EXCEPTIONS)
        words = f"SQLSTATE {original.sqlstate}" if is_quoting else original.diag.message_primary
        original.args = (words,)
        if wrapped is not None:
            kind = type(original)
            wrapped.args = (f"({kind.__module__}.{kind.__name__}) {words}",)
