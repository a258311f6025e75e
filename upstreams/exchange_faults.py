"""How an exchange with an upstream can fail on its connection; texts are for the administrator."""


class Dropped(Exception):
    """The peer closed the connection before its answer was complete.

    ``untouched``: not one byte of an answer had arrived.
    """

    def __init__(self, *, untouched: bool) -> None:
        super().__init__("connection closed before the answer was complete")
        self.untouched = untouched


class AnswerRefused(Exception):
    """The answer breaks HTTP or the gateway's limits; the text is for the administrator."""


class TimedOut(Exception):
    """No first byte, or no end of the answer, in time."""
