"""How far this process is on its way out; written by its server, read by the middleware and by `/readyz`.

Runs on the event loop.
"""

# By then a client's next try reaches another node, or this one restarted.
RETRY_AFTER_S = 5


class Draining:
    """The two stages of leaving.

    Attributes:
        is_leaving: `/readyz` says no, everything else goes on.
        is_refusing: New requests are refused; those under way may end.
    """

    def __init__(self) -> None:
        """Serve."""
        self.is_leaving = False
        self.is_refusing = False

    def leave(self) -> None:
        """Let `/readyz` say no."""
        self.is_leaving = True

    def refuse(self) -> None:
        """Refuse new requests too."""
        self.is_leaving = self.is_refusing = True
