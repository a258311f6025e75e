"""Names and URIs inside lists and results, as the public sees them (protocol.md 3.3, 3.4). Pure.

Every place that names a URI goes through one ``ResultMapping``, so both ends of an MCP App agree
by construction. Not touched: structured content, text, arguments, HTML. What needs no mapping is
returned as the very same bytes.
"""

from collections.abc import Callable

import msgspec

from virtualmcp import app_domains, icons, raw_members, resource_uris
from virtualmcp.listed_entries import Kind
from virtualmcp.raw_members import Members, NotAnObject

_META_URIS = ("ui/resourceUri", "openai/outputTemplate")
_META_SIGNS = (b'"resourceUri"', b'"ui/resourceUri"', b'"openai/outputTemplate"')
# A host that lets apps name their domain expects the one of the connector's URL, which is the
# gateway's and not the upstream's; a domain made for the other one is refused (ext-apps,
# protocol.md 3.4).
_DOMAIN_SIGN = b'"domain"'

# Of a completion; official clients refuse a result with more (3.6).
MOST_VALUES = 100

_Change = Callable[[msgspec.Raw], msgspec.Raw | None]


class ResultMapping:
    """The mapping for one upstream of one answer.

    ``key`` is the upstream's, or ``""`` in a transparent Virtual MCP, where URIs stay and only
    ``_meta.ui.domain`` changes. ``app_address`` is the URL for which such a domain is made anew;
    without one it is left out. ``icon_address`` gives the gateway's address of an icon; without it
    icons stay. ``web`` collects the https URIs met: they keep their form, so who
    mentioned them must be remembered.
    """

    __slots__ = ("_app_address", "_icon_address", "key", "web")

    def __init__(
        self, key: str, app_address: str = "", icon_address: icons.Address | None = None
    ) -> None:
        self.key = key
        self._app_address = app_address
        self._icon_address = icon_address
        self.web: list[str] = []

    # Lists --------------------------------------------------------------------------------
    def entry(self, kind: Kind, raw: bytes, name: str = "") -> bytes:
        """Map one entry of a list; ``name`` is its public name where that differs."""
        if not name and not self._concerned(raw, uris=kind in (Kind.RESOURCES, Kind.TEMPLATES)):
            return raw
        members = raw_members.read(raw)
        changed = self._set(members, "_meta", self._meta)
        changed |= self._set(members, "icons", self._icons)
        if name:
            members["name"] = raw_members.raw(name)
            changed = True
        if kind in (Kind.RESOURCES, Kind.TEMPLATES):
            changed |= self._set(members, kind.identity, self._uri)
        return raw_members.write(members) if changed else raw

    # Results ------------------------------------------------------------------------------
    def call_result(self, raw: bytes) -> bytes:
        """Map resource links, embedded resources and app references in a tool's result."""
        if not self._concerned(raw, uris=b'"resource' in raw):
            return raw
        members = raw_members.read(raw)
        changed = self._set(members, "content", self._blocks)
        changed |= self._set(members, "_meta", self._meta)
        return raw_members.write(members) if changed else raw

    def prompt_result(self, raw: bytes) -> bytes:
        """Map resources embedded in a prompt's messages."""
        return self._only(raw, "messages", self._messages, sign=b'"resource')

    def read_result(
        self, raw: bytes, contents: list[Members] | None = None, *, asked: str, read: str
    ) -> bytes:
        """Map ``contents[].uri``: what was read comes back under the URI that was asked for.

        ``contents`` are the members of each of ``raw``'s contents, where they are known already.
        """

        def uri(value: msgspec.Raw) -> msgspec.Raw | None:
            if raw_members.text(value) == read:
                return raw_members.raw(asked) if asked != read else None
            return self._uri(value)

        changes: dict[str, _Change] = {"uri": uri, "_meta": self._meta}
        if contents is None:
            if asked == read and not self._concerned(raw, uris=bool(self.key)):
                return raw
            members = raw_members.read(raw)
            changed = self._set(
                members,
                "contents",
                lambda value: self._each(value, lambda item: self._object(item, changes)),
            )
            return raw_members.write(members) if changed else raw
        changes_made = [self._changed(one, changes) for one in contents]
        if not any(changes_made):
            return raw
        members = raw_members.read(raw)
        members["contents"] = raw_members.raw(contents)
        return raw_members.write(members)

    def completion(self, raw: bytes) -> bytes:
        """Leave out the values beyond those a client may be given, and say that there are more."""
        if not self.key or raw.count(b",") < MOST_VALUES:
            return raw
        members = raw_members.read(raw)
        changed = self._set(members, "completion", self._cut)
        return raw_members.write(members) if changed else raw

    def question(self, raw: bytes, *, asker: str = "") -> bytes:
        """Map the ``params`` of a question to the client.

        ``asker`` is put before an elicitation's message, since a client sees only the gateway.
        """

        def message(value: msgspec.Raw) -> msgspec.Raw | None:
            said = raw_members.text(value)
            return raw_members.raw(f"[{asker}] {said}") if asker and said is not None else None

        members = raw_members.read(raw)
        changed = self._set(members, "message", message)
        changed |= self._set(members, "messages", self._messages)
        return raw_members.write(members) if changed else raw

    def updated(self, raw: bytes) -> bytes:
        """Map the params of ``notifications/resources/updated``."""
        return self._only(raw, "uri", self._uri)

    # Parts --------------------------------------------------------------------------------
    def _concerned(self, raw: bytes, *, uris: bool) -> bool:
        if _DOMAIN_SIGN in raw or (self._icon_address is not None and icons.SIGN in raw):
            return True
        return bool(self.key) and (uris or any(sign in raw for sign in _META_SIGNS))

    def _only(self, raw: bytes, name: str, change: _Change, sign: bytes = b"") -> bytes:
        if not self._concerned(raw, uris=sign in raw):
            return raw
        members = raw_members.read(raw)
        return raw_members.write(members) if self._set(members, name, change) else raw

    def _uri(self, value: msgspec.Raw) -> msgspec.Raw | None:
        uri = raw_members.text(value)
        if uri is None or not self.key:
            return None
        public = resource_uris.to_public(self.key, uri)
        if public == uri:
            self.web.append(uri)
            return None
        return raw_members.raw(public)

    def _icons(self, value: msgspec.Raw) -> msgspec.Raw | None:
        address = self._icon_address
        return None if address is None else icons.of_the_gateway(value, address)

    def _meta(self, value: msgspec.Raw) -> msgspec.Raw | None:
        changes: dict[str, _Change] = dict.fromkeys(_META_URIS, self._uri)
        changes["ui"] = self._ui
        return self._object(value, changes)

    def _ui(self, value: msgspec.Raw) -> msgspec.Raw | None:
        try:
            members = raw_members.read(value)
        except NotAnObject:
            return None
        changed = self._set(members, "resourceUri", self._uri)
        given = members.pop("domain", None)
        if given is not None:
            anew = app_domains.anew(raw_members.text(given), self._app_address)
            if anew:
                members["domain"] = raw_members.raw(anew)
            changed = True
        return raw_members.raw(members) if changed else None

    @staticmethod
    def _cut(value: msgspec.Raw) -> msgspec.Raw | None:
        try:
            members = raw_members.read(value)
            values = raw_members.read_items(members["values"])
        except (NotAnObject, KeyError):
            return None
        if len(values) <= MOST_VALUES:
            return None
        members["values"] = raw_members.raw(values[:MOST_VALUES])
        members["hasMore"] = msgspec.Raw(b"true")
        return raw_members.raw(members)

    def _messages(self, value: msgspec.Raw) -> msgspec.Raw | None:
        def content(inner: msgspec.Raw) -> msgspec.Raw | None:
            several = bytes(inner).lstrip()[:1] == b"["
            return self._blocks(inner) if several else self._block(inner)

        return self._each(value, lambda item: self._object(item, {"content": content}))

    def _blocks(self, value: msgspec.Raw) -> msgspec.Raw | None:
        return self._each(value, self._block)

    def _block(self, value: msgspec.Raw) -> msgspec.Raw | None:
        try:
            members = raw_members.read(value)
        except NotAnObject:
            return None
        kind = raw_members.text(members.get("type"))
        changed = self._set(members, "_meta", self._meta)
        if kind == "resource_link":
            changed |= self._set(members, "uri", self._uri)
            changed |= self._set(members, "icons", self._icons)
        elif kind == "resource":
            inner: dict[str, _Change] = {"uri": self._uri, "_meta": self._meta}
            changed |= self._set(members, "resource", lambda raw: self._object(raw, inner))
        elif kind == "tool_result":
            changed |= self._set(members, "content", self._blocks)
        return raw_members.raw(members) if changed else None

    @staticmethod
    def _set(members: Members, name: str, change: _Change) -> bool:
        """Replace one member if there is one and it needs it; tells whether it did."""
        before = members.get(name)
        after = change(before) if before is not None else None
        if after is None:
            return False
        members[name] = after
        return True

    def _object(self, value: msgspec.Raw, changes: dict[str, _Change]) -> msgspec.Raw | None:
        try:
            members = raw_members.read(value)
        except NotAnObject:
            return None
        return raw_members.raw(members) if self._changed(members, changes) else None

    def _changed(self, members: Members, changes: dict[str, _Change]) -> bool:
        changed = [self._set(members, name, change) for name, change in changes.items()]
        return any(changed)

    @staticmethod
    def _each(value: msgspec.Raw, change: _Change) -> msgspec.Raw | None:
        try:
            items = raw_members.read_items(value)
        except NotAnObject:
            return None
        changed = False
        for index, item in enumerate(items):
            after = change(item)
            if after is not None:
                items[index], changed = after, True
        return raw_members.raw(items) if changed else None
