"""What is looked at in a result, read in the one pass that shows that it is JSON.

The rest of a result stays raw bytes. A large answer is read once: where the envelope is written
as most servers write it, the result is cut out, and reading its head proves the cut right.
"""

from typing import Final

import msgspec

_ABSENT: Final = msgspec.Raw()
# Blocks that name no resource.
_PLAIN: Final = frozenset((b'"text"', b'"image"', b'"audio"'))


class _Block(msgspec.Struct, gc=False):
    """One block of ``content``."""

    type: msgspec.Raw = _ABSENT
    meta: msgspec.Raw = msgspec.field(default=_ABSENT, name="_meta")


class ResultHead(msgspec.Struct, gc=False):
    """The members of a result that differ between the eras, and whether it may name resources.

    ``read`` are the members of what a resource's result holds, None where the head does not tell.
    """

    result_type: msgspec.Raw = msgspec.field(default=_ABSENT, name="resultType")
    ttl: msgspec.Raw = msgspec.field(default=_ABSENT, name="ttlMs")
    scope: msgspec.Raw = msgspec.field(default=_ABSENT, name="cacheScope")
    meta: msgspec.Raw = msgspec.field(default=_ABSENT, name="_meta")
    structured: msgspec.Raw = msgspec.field(default=_ABSENT, name="structuredContent")

    @property
    def kind(self) -> str:
        """What kind of result a stateless upstream sent; absent means ``complete`` (b11)."""
        if not len(self.result_type) or bytes(self.result_type) == b'"complete"':
            return "complete"
        try:
            return _text.decode(self.result_type)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return ""

    @property
    def plain(self) -> bool:
        """Whether it is certain that a *tool's* result names no resource and no app."""
        return False

    @property
    def read(self) -> list[dict[str, msgspec.Raw]] | None:
        """What the result of ``resources/read`` holds, each with its members; they are views."""
        return None


class _WholeHead(ResultHead, gc=False):
    """The head of a result whose ``content`` or ``contents`` is what it should be."""

    content: list[_Block] = []
    contents: list[dict[str, msgspec.Raw]] = []

    @property
    def plain(self) -> bool:
        if len(self.meta):
            return False
        for block in self.content:
            if len(block.meta) or bytes(block.type) not in _PLAIN:
                return False
        return True

    @property
    def read(self) -> list[dict[str, msgspec.Raw]] | None:
        return self.contents


_text = msgspec.json.Decoder(str)
_decode_whole_head = msgspec.json.Decoder(_WholeHead).decode
_decode_any_head = msgspec.json.Decoder(ResultHead).decode


def read_head(raw: bytes) -> ResultHead | None:
    """Read a result's head; None if the bytes are not one JSON object."""
    try:
        return _decode_whole_head(raw)
    except msgspec.ValidationError:
        # Content of another shape is the client's to judge.
        pass
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    try:
        return _decode_any_head(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def cut_out(data: bytes, request_id: str) -> tuple[bytes, ResultHead] | None:
    """Return the result of a plainly written response to our request, and its head.

    None means that the message has to be read in full; nothing is known of it then.
    """
    id = request_id.encode()
    if data[-1:] != b"}":
        return None
    if data.startswith(b'{"jsonrpc":"2.0","id":"%b","result":{' % id):
        raw = data[len(id) + 34 : -1]
    elif data.startswith(b'{"result":{') and data.endswith(b',"jsonrpc":"2.0","id":"%b"}' % id):
        raw = data[10 : -len(id) - 25]
    else:
        return None
    if not raw.isascii():
        try:
            # Skipped values are not decoded by the parser, so their bytes are checked here.
            raw.decode()
        except UnicodeDecodeError:
            return None
    head = read_head(raw)
    return None if head is None else (raw, head)
