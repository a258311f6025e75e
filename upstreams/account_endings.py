"""Why a connection ended, as a code that is stored and a sentence that its owner reads (pure)."""

from typing import Final

REFUSED: Final = "refused"
NOT_RENEWABLE: Final = "not_renewable"
UNKNOWN_CLIENT: Final = "unknown_client"
INTERRUPTED: Final = "interrupted"
UNREADABLE: Final = "unreadable"
TOKEN_REFUSED: Final = "token_refused"  # noqa: S105
KEY_REFUSED: Final = "key_refused"

_SENTENCES: Final = {
    REFUSED: "{title} no longer accepts the sign-in. It was withdrawn there, or not used for too "
    "long.",
    NOT_RENEWABLE: "The sign-in at {title} has run out, and {title} gave no way to renew it.",
    UNKNOWN_CLIENT: "{title} no longer knows this gateway. The gateway registers itself again "
    "when you connect.",
    INTERRUPTED: "The gateway was stopped in the middle of renewing the sign-in, and {title} does "
    "not renew the same sign-in twice.",
    UNREADABLE: "The stored sign-in belongs to another address of {title} or to another key of the "
    "gateway.",
    TOKEN_REFUSED: "{title} refuses the sign-in although it was just renewed.",
    KEY_REFUSED: "{title} refuses your key. Make a new one there.",
}


def sentence(code: str, title: str) -> str:
    """Return why a connection to ``title`` ended; "" for a code that is not known."""
    return _SENTENCES.get(code, "").format(title=title)


def message(code: str, title: str) -> str:
    """Return what a call is told: that the connection ended, why, and what to do."""
    why = sentence(code, title)
    return (
        f"Your connection to {title} has ended." + (f" {why}" if why else "") + " Connect it again."
    )
