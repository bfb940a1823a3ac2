"""Keeps the values of statements out of the database's errors: a prompt or a key is not for the log.

Knows no tables. The listener holds for every engine of the process, the job engine's included; it is called on the
thread that the statement ran on.
"""

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import StatementError

# "Data exception": what the server says of it may quote the value.
_DATA_EXCEPTIONS = "22"


@event.listens_for(Engine, "handle_error")
def _keep_values_out(context: ExceptionContext) -> None:
    """Take the values out of an error before anybody logs it: a prompt or a key is nobody's but its user's."""
    wrapped, original = context.sqlalchemy_exception, context.original_exception
    if isinstance(wrapped, StatementError):
        wrapped.hide_parameters = True
    if isinstance(original, psycopg.Error) and original.sqlstate and original.diag.message_primary:
        # Its further lines quote the row, the key or the JSON that was refused; `diag` keeps them for code that asks.
        is_quoting = original.sqlstate.startswith(_DATA_EXCEPTIONS)
        words = f"SQLSTATE {original.sqlstate}" if is_quoting else original.diag.message_primary
        original.args = (words,)
        if wrapped is not None:
            kind = type(original)
            wrapped.args = (f"({kind.__module__}.{kind.__name__}) {words}",)
