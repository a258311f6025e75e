"""The demo's upstream behind OAuth: a ticket board on which everybody sees their own tickets.

python -m gateway_site.demo.board --port 8002 --data /tmp/demo
"""

from datetime import UTC, datetime

from gateway_site.demo.board_authorization import BoardAuthorization
from gateway_site.demo.board_store import BoardStore
from gateway_site.demo.mcp_wire import McpWire, Receive, Scope, Send
from gateway_site.demo.running import Application, Options, answer, header, run, text_answer
from gateway_site.demo.server_features import Result, ServerFeatures, Tool, ToolRefusal, ToolRun

TICKET_SCHEMA: Result = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "title": {"type": "string"},
        "state": {"type": "string", "enum": ["open", "closed"]},
        "made": {"type": "string"},
    },
    "required": ["id", "title", "state", "made"],
}


class BoardTools:
    """The board's tools, each on the tickets of the person who calls."""

    def __init__(self, store: BoardStore) -> None:
        self._store = store

    async def list_tickets(self, call: ToolRun) -> Result:
        """Return the caller's tickets."""
        tickets = self._store.tickets(call.person)
        return {"person": call.person, "tickets": tickets}

    async def create_ticket(self, call: ToolRun) -> Result:
        """Add a ticket."""
        title = " ".join(str(call.arguments["title"]).split())
        if not 1 <= len(title) <= 200:
            raise ToolRefusal("A title has 1 to 200 characters.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return dict(self._store.add_ticket(call.person, title, now))

    async def close_ticket(self, call: ToolRun) -> Result:
        """Close a ticket."""
        number = int(call.arguments["id"])
        if not self._store.close_ticket(call.person, number):
            raise ToolRefusal(f"You have no ticket {number}.")
        return {"id": number, "state": "closed"}

    def features(self) -> ServerFeatures:
        """Return what the server offers."""
        return ServerFeatures(
            name="ticket-board",
            title="Ticket board",
            instructions="A board of small tickets. Everybody sees and changes only their own.",
            tools=(
                Tool(
                    "list_tickets",
                    "List my tickets",
                    "All tickets of the signed-in person.",
                    self.list_tickets,
                    output={
                        "type": "object",
                        "properties": {
                            "person": {"type": "string"},
                            "tickets": {"type": "array", "items": TICKET_SCHEMA},
                        },
                        "required": ["person", "tickets"],
                    },
                ),
                Tool(
                    "create_ticket",
                    "Create a ticket",
                    "Add an open ticket to the board.",
                    self.create_ticket,
                    arguments={"title": {"type": "string", "description": "What is to be done."}},
                    required=("title",),
                    output=TICKET_SCHEMA,
                    read_only=False,
                ),
                Tool(
                    "close_ticket",
                    "Close a ticket",
                    "Close one of the person's own tickets by its number.",
                    self.close_ticket,
                    arguments={"id": {"type": "integer", "description": "Number of the ticket."}},
                    required=("id",),
                    read_only=False,
                ),
            ),
        )


def make(options: Options) -> Application:
    """Return the board at ``/mcp`` with its authorization server beside it."""
    store = BoardStore(options.data / "board.sqlite3")
    authorization = BoardAuthorization(store, options.origin)
    wire = McpWire(BoardTools(store).features())

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/mcp":
            scheme, _, token = header(scope, "authorization").partition(" ")
            person = store.person_of(token) if scheme.lower() == "bearer" else ""
            if person:
                await wire({**scope, "person": person}, receive, send)
                return
            challenge = authorization.challenge("invalid_token" if token else "")
            await answer(send, 401, b"", "text/plain", {"www-authenticate": challenge})
            return
        route = authorization.routes.get((scope["method"], scope["path"]))
        if route is None:
            await text_answer(send, 404, "The MCP server is at /mcp.\n")
        else:
            await route(scope, receive, send)

    return application


if __name__ == "__main__":
    run("The demo's ticket board.", make)
