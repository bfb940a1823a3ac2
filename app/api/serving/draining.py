"""The shutdown state of an API process: set by its server, read by the middleware and by `/readyz`.

Imports nothing. Runs on the event loop.
"""

# `Retry-After` in seconds; by then a retry reaches another node, or this one after its restart.
RETRY_AFTER_S = 5


class Draining:
    """The two stages of a shutdown.

    Attributes:
        is_leaving: `/readyz` answers 503; all other routes work.
        is_refusing: New requests are refused; running ones may finish.
    """

    def __init__(self) -> None:
        """Start in normal operation."""
        self.is_leaving = False
        self.is_refusing = False

    def leave(self) -> None:
        """Make `/readyz` answer 503."""
        self.is_leaving = True

    def refuse(self) -> None:
        """Refuse new requests as well."""
        self.is_leaving = self.is_refusing = True
