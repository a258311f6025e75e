"""Requests that are sent to an upstream directly and through a transparent Virtual MCP.

A case says in ``differs`` by which documented differences the two answers may come apart; what is
not named there must be equal, and a difference that does not occur must not be named.
"""

import json
from dataclasses import dataclass, field

MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
ERAS = ("modern", "legacy")

# Why an answer through the gateway may be another one.
DIFFERENCES = {
    "identity": "discover and initialize: name, version, revisions and capabilities are the "
    "gateway's own (2.3.1)",
    "words": "the gateway refuses the request itself: same status and code, words of its own",
    "status": "an upstream's application error travels with HTTP 200 (D11)",
    "code": "an error code that the client's revision does not know is -32603, the original in "
    "data; -32002 is -32602 for a stateless client (2.3.9)",
    "undeclared": "a question of a kind that the client did not declare is -32021 (a6), whatever "
    "the upstream makes of it",
    "half": "half a surrogate pair is no text (RFC 8259 8.2): a request with one is refused",
    "own": "the request never reaches the upstream, since the gateway's rule for it is stricter "
    "or its own: another status, the code of its own rule. Cursors are the gateway's (3.5); an id "
    "is a text or an integer; no object has a member twice",
}

# Raw JSON, so that the very spelling is sent.
VALUES = {
    "empty": '""',
    "accents": '"é\u0301 ß ﬁ"',
    "emoji": '"👩‍💻🏴‍☠️"',
    "escaped emoji": r'"\ud83d\ude00"',
    "half an emoji": r'"\ud83d"',
    "right to left": '"שלום عالم"',
    "bidi controls": r'"a\u202eb\u2066c"',
    "tag characters": '"a\U000e0041\U000e0042"',
    "nul": r'"a\u0000b"',
    "line ends": r'"a\r\nb\u2028c\u2029d\u0085"',
    "markup": r'"<script>alert(1)<\/script>&amp;"',
    "sentinel": '"=?base64?YQ==?="',
    "long": '"' + "x" * 20_000 + '"',
    "byte order mark": r'"\ufeffa"',
    "last plane": '"\U0010fffd"',
    "zero": "0",
    "minus zero": "-0.0",
    "one": "1",
    "one as a decimal": "1.0",
    "exponent": "1e2",
    "beyond doubles": "9007199254740993",
    "beyond 64 bits": "36893488147419103232",
    "a googol": "1" + "0" * 100,
    "long decimal": "0.1234567890123456789",
    "true": "true",
    "null": "null",
    "empty array": "[]",
    "empty object": "{}",
    "mixed": '[1, 1.0, "1", null, {"1": [true]}]',
    "prototype": '{"__proto__": {"a": 1}, "constructor": null}',
    "odd names": '{"": 1, "a.b": 2, "é": 3, "\\u0000": 4}',
    "deep": "[" * 60 + "]" * 60,
}
CODES = (-32700, -32603, -32602, -32601, -32600, -32099, -32050, -32042, -32022, -32021, -32020)
CODES += (-32019, -32010, -32002, -32001, -32000, -31999, -1, 0, 1, 404, -109000)


@dataclass(frozen=True)
class Case:
    """One request. ``params`` and ``id`` are raw JSON; ``body`` replaces the whole message."""

    name: str
    era: str
    method: str = ""
    params: str | None = "{}"
    id: str = "7"
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    meta: bool = True
    differs: tuple[str, ...] = ()

    def message(self) -> bytes:
        """Return the body as it is sent."""
        if self.body is not None:
            return self.body
        params = self.params
        if self.era == "modern" and self.meta and params is not None and params[:1] == "{":
            params = _with_meta(params)
        sent = f'{{"jsonrpc":"2.0","id":{self.id},"method":{json.dumps(self.method)}'
        return (sent + ("" if params is None else f',"params":{params}') + "}").encode()

    def all_headers(self, session: str) -> dict[str, str]:
        """Return the headers that belong to the message, with the case's changes."""
        headers: dict[str, str | None] = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": MODERN if self.era == "modern" else LEGACY,
        }
        if self.era == "modern":
            headers["mcp-method"] = self.method
            member = NAMED.get(self.method)
            named = json.loads(self.params or "{}").get(member) if member else None
            if isinstance(named, str):
                headers["mcp-name"] = encoded(named)
        else:
            headers["mcp-session-id"] = session
        headers |= self.headers
        return {name: value for name, value in headers.items() if value is not None}


def encoded(value: str) -> str:
    """Return a header value as the specification encodes it."""
    import base64

    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}?="


def _with_meta(params: str) -> str:
    """Add the stateless revision's keys, leaving the spelling of everything else."""
    keys = (
        f'"{META}protocolVersion":"{MODERN}","{META}clientInfo":{{"name":"wire","version":"1"}},'
        f'"{META}clientCapabilities":{{}}'
    )
    if '"_meta":{' in params:
        return params.replace('"_meta":{', f'"_meta":{{{keys},', 1)
    rest = params[1:].lstrip()
    return f'{{"_meta":{{{keys}}}' + ("" if rest == "}" else ",") + rest


def call(name: str, arguments: str = "{}", more: str = "") -> str:
    """Return the params of a tools/call."""
    return f'{{"name":{json.dumps(name)},"arguments":{arguments}{more}}}'


def _values(era: str) -> list[Case]:
    cases = []
    for name, value in VALUES.items():
        at = {
            "argument": call("mirror", f'{{"v":{value}}}'),
            "unknown member": call("mirror", "{}", f',"vendorMember":{value}'),
            "_meta": call("mirror", "{}", f',"_meta":{{"vendor.example/x":{value}}}'),
        }
        differs = ("half",) if name == "half an emoji" else ()
        cases += [
            Case(f"{where}: {name}", era, "tools/call", params, differs=differs)
            for where, params in at.items()
        ]
    return cases


def _codes(era: str) -> list[Case]:
    cases = []
    for code in CODES:
        params = call("refuse", f'{{"code":{code},"message":"não","data":{{"n":1.0,"x":null}}}}')
        differs: tuple[str, ...] = ()
        if era == "modern" and (-32099 <= code <= -32000 and code != -32021):
            differs = ("code",)
        elif code in (-32020, -32021, -32022):
            differs = ("code",) if era == "legacy" else ("own",)
        cases.append(Case(f"error {code}", era, "tools/call", params, differs=differs))
    for status, code in ((400, -32602), (404, -109000), (200, -109000), (500, -109000)):
        params = call("refuse", f'{{"code":{code},"message":"no","status":{status}}}')
        differs = () if status == 200 else ("status",)
        cases.append(Case(f"error with HTTP {status}", era, "tools/call", params, differs=differs))
    return cases


def _methods(era: str) -> list[Case]:
    prompt = '{"ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"name","value":"A"}}'
    template = '{"ref":{"type":"ref/resource","uri":"notes://{number}"},"argument":{"name":"n","value":""}}'
    plain = {
        "tools/list": ["{}", '{"cursor":null}', '{"vendor":1.0}'],
        "prompts/list": ["{}"],
        "resources/list": ["{}"],
        "resources/templates/list": ["{}"],
        "prompts/get": [
            '{"name":"greet","arguments":{"name":"Ada é"}}',
            '{"name":"greet"}',
            '{"name":"nobody"}',
            '{"name":"näme"}',
        ],
        "resources/read": [
            '{"uri":"notes://7"}',
            '{"uri":"notes://é/👩‍💻"}',
            '{"uri":"file:///notes/1"}',
            '{"uri":"ui://board/view.html"}',
            '{"uri":"notes://a+b?c=d#e"}',
        ],
        "completion/complete": [prompt, template],
    }
    cases = [
        Case(f"{method} {number}", era, method, params)
        for method, several in plain.items()
        for number, params in enumerate(several)
    ]
    calls = {
        "echo": '{"text":"hi"}',
        "exact": "{}",
        "log": '{"level":"warning"}',
        "fail": '{"text":"broken"}',
        "blob": '{"size":70000}',
        "show_board": "{}",
        "regional": '{"query":"x"}',
        "nothing of that name": "{}",
        "näme": "{}",
    }
    cases += [Case(f"call {n}", era, "tools/call", call(n, a)) for n, a in calls.items()]
    cases += [
        Case("call without arguments", era, "tools/call", '{"name":"mirror"}'),
        Case("null arguments", era, "tools/call", '{"name":"mirror","arguments":null}'),
        Case("with progress", era, "tools/call", call("slow", '{"steps":2}', _TOKEN)),
        Case("no such resource", era, "resources/read", '{"uri":"nowhere://1"}'),
        Case(
            "empty uri",
            era,
            "resources/read",
            '{"uri":""}',
            differs=("words",) if era == "modern" else ("code",),
        ),
        Case("unknown method", era, "vendor/method", differs=("words",)),
        Case("method of an object", era, "__proto__", differs=("words",)),
    ]
    ids = ('"s"', '""', "0", "-1", "9007199254740993", r'"\u00e9\ud83d\ude00"', '"7"')
    cases += [Case(f"id {i}", era, "tools/call", call("echo"), id=i) for i in ids]
    return cases


_TOKEN = ',"_meta":{"progressToken":"tøken"}'


def _of_one_era() -> list[Case]:
    region = call("regional", '{"region":"eu","query":"x"}')
    bad_version = {"mcp-protocol-version": "2031-01-01"}
    level = '{"level":"debug"}'
    modern = "modern"
    words = ("words",)
    return [
        Case("discover", modern, "server/discover", differs=("identity",)),
        Case("mirrored argument", modern, "tools/call", region, headers={"mcp-param-region": "eu"}),
        Case(
            "wrong mirror",
            modern,
            "tools/call",
            region,
            headers={"mcp-param-region": "us"},
            differs=words,
        ),
        Case("no mirror", modern, "tools/call", region, differs=words),
        Case("no Mcp-Method", modern, "tools/list", headers={"mcp-method": None}, differs=words),
        Case(
            "wrong Mcp-Method",
            modern,
            "tools/list",
            headers={"mcp-method": "tools/call"},
            differs=words,
        ),
        Case(
            "no Mcp-Name",
            modern,
            "tools/call",
            call("echo"),
            headers={"mcp-name": None},
            differs=words,
        ),
        Case(
            "wrong Mcp-Name",
            modern,
            "tools/call",
            call("echo"),
            headers={"mcp-name": "ECHO"},
            differs=words,
        ),
        Case(
            "another version in the header",
            modern,
            "tools/list",
            headers=bad_version,
            differs=words,
        ),
        Case(
            "no version in the header",
            modern,
            "tools/list",
            headers={"mcp-protocol-version": None},
            differs=words,
        ),
        Case("ping", "legacy", "ping"),
        Case("a log level", "legacy", "logging/setLevel", level),
        Case("an old resource", "legacy", "resources/read", '{"uri":"notes://old"}'),
        Case("no session", "legacy", "tools/list", headers={"mcp-session-id": None}, differs=words),
        Case(
            "a lost session", "legacy", "tools/list", headers={"mcp-session-id": "x"}, differs=words
        ),
        Case("a response to nothing", "legacy", body=b'{"jsonrpc":"2.0","id":1,"result":{}}'),
        Case(
            "a notification",
            "legacy",
            body=b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}',
        ),
        Case(
            "another JSON-RPC",
            "legacy",
            body=b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
            differs=words,
        ),
    ]


TASK_METHODS = {"tasks/get": "", "tasks/cancel": "", "tasks/update": ',"inputResponses":{}'}
_NO_ABILITIES = f'"{META}clientCapabilities":{{}}'
_TASK_ABILITY = f'"{META}clientCapabilities":{{"extensions":{{"{META}tasks":{{}}}}}}'


def _of_the_connection() -> list[Case]:
    """Opening, subscribing, notifying, tasks, and what is no request at all."""
    info = '"capabilities":{},"clientInfo":{"name":"w","version":"1"}'
    opening = f'{{"protocolVersion":"{LEGACY}",{info}}}'
    nobody = {"mcp-session-id": None, "mcp-protocol-version": None}
    note, missing = '{"uri":"file:///notes/1"}', '{"uri":"nowhere://1"}'
    cancelled = '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"gone"}}'
    listening = (
        '{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///notes/1"]}}'
    )
    task, words = '{"taskId":"nobody-made-it"', ("words",)
    broken = {"cut off": b'{"jsonrpc":"2.0","id":1,"method":"to', "no UTF-8": b'{"id":"\xff"}'}
    cases = [
        Case("initialize", "legacy", "initialize", opening, headers=nobody, differs=("identity",)),
        Case(
            "initialized", "legacy", body=b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        ),
        Case("cancelled", "legacy", body=cancelled.encode()),
        Case("subscribe", "legacy", "resources/subscribe", note),
        Case("unsubscribe", "legacy", "resources/unsubscribe", note),
        Case("subscribe to nothing", "legacy", "resources/subscribe", missing),
        Case(
            "a level that is none", "legacy", "logging/setLevel", '{"level":"loud"}', differs=words
        ),
        Case(
            "a batch", "legacy", body=b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', differs=words
        ),
        Case("listen", "modern", "subscriptions/listen", listening),
        Case("no _meta", "modern", "tools/list", meta=False, differs=words),
        Case("ping", "modern", "ping", differs=words),
        Case(
            "cancelled",
            "modern",
            "notifications/cancelled",
            body=cancelled.replace('{"requestId"', _with_meta("{}")[:-1] + ',"requestId"').encode(),
        ),
        Case(
            "a question nobody can answer",
            "modern",
            "tools/call",
            call("ask"),
            differs=("undeclared",),
        ),
    ]
    for method, more in TASK_METHODS.items():
        params = _with_meta(f"{task}{more}}}").replace(_NO_ABILITIES, _TASK_ABILITY)
        named = {"mcp-name": "nobody-made-it"}
        cases.append(
            Case(
                f"{method} of nobody",
                "modern",
                method,
                params,
                headers=named,
                meta=False,
                differs=words,
            )
        )
    cases += [
        Case(name, era, body=body, differs=words) for name, body in broken.items() for era in ERAS
    ]
    return cases


def _of_the_envelope(era: str) -> list[Case]:
    """What stands beside the members that JSON-RPC names, and ids and cursors of odd kinds."""
    own = ("own",)
    whole = Case("", era, "tools/call", call("echo", '{"text":"x"}')).message()
    beside = {
        "unknown members beside params": b',"vendor":{"n":36893488147419103232,"z":null},"x":[1.0]',
        "a trace beside params": b',"traceparent":"00-1"',
    }
    cases = [
        Case(name, era, "tools/call", call("echo"), body=whole[:-1] + more + b"}")
        for name, more in beside.items()
    ]
    spaced = whole.replace(b'{"jsonrpc"', b' \r\n\t{ "jsonrpc"', 1) + b"\n\n"
    cases.append(Case("white space all round", era, "tools/call", call("echo"), body=spaced))
    back = whole.replace(b'{"jsonrpc":"2.0",', b"{", 1)[:-1] + b',"jsonrpc":"2.0"}'
    cases.append(Case("the version last", era, "tools/call", call("echo"), body=back))
    for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
        foreign = Case(f"a foreign cursor of {method}", era, method, '{"cursor":"7"}', differs=own)
        cases += [Case(f"an empty cursor of {method}", era, method, '{"cursor":""}'), foreign]
    cases += [
        Case(f"id {id}", era, "tools/call", call("echo"), id=id, differs=own)
        for id in ("null", "1.5", "true")
    ]
    unsaid = ("words",) if era == "modern" else ()
    return [
        *cases,
        Case("no params", era, "prompts/list", None, differs=unsaid),
        Case("an array of arguments", era, "tools/call", call("mirror", "[]")),
        Case("a member twice", era, "tools/call", call("mirror", '{"a":1,"a":2}'), differs=own),
    ]


def corpus() -> list[Case]:
    """Return every case."""
    cases = [
        one
        for era in ERAS
        for one in (*_values(era), *_codes(era), *_methods(era), *_of_the_envelope(era))
    ]
    return [*cases, *_of_one_era(), *_of_the_connection()]
