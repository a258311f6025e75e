"""One call with its destination known: which upstream, under which name, with which parameters."""

import msgspec

from virtualmcp.route_table import ChoiceFacts


class Target(msgspec.Struct, frozen=True, eq=False):
    """Where a call goes.

    Attributes:
        choice: the upstream.
        name: tool, prompt or URI in the upstream's terms; ``""`` where the method has none.
        params: raw parameters in the upstream's terms.
        asked: what the client called it.
        arguments: raw arguments as the client sent them, ``b""`` for none.
        own_arguments: raw arguments in the upstream's terms, where they differ.
        retry: the parameters bring a ``requestState`` of ours.
    """

    choice: ChoiceFacts
    name: str
    params: bytes
    asked: str
    arguments: bytes = b""
    retry: bool = False
    own_arguments: bytes | None = None
