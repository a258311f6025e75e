"""What the ticket board keeps, in one SQLite file: clients, grants, tickets.

Codes and tokens are kept as digests only. Calls are short and come from one event loop.
"""

import hashlib
import json
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

CODE_SECONDS = 60
ACCESS_SECONDS = 300
REFRESH_SECONDS = 30 * 24 * 3600
MOST_CLIENTS = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS client (id TEXT PRIMARY KEY, name TEXT, redirect_uris TEXT, made REAL);
CREATE TABLE IF NOT EXISTS code (
    digest TEXT PRIMARY KEY, client TEXT, redirect_uri TEXT, challenge TEXT, person TEXT,
    expires REAL, family TEXT, used INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS token (
    digest TEXT PRIMARY KEY, kind TEXT, client TEXT, person TEXT, family TEXT, expires REAL,
    used INTEGER DEFAULT 0);
CREATE INDEX IF NOT EXISTS token_family ON token (family);
CREATE TABLE IF NOT EXISTS ticket (
    id INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT, title TEXT, state TEXT, made TEXT);
"""


def digest(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A fresh pair; ``expires_in`` in seconds is the access token's."""

    access: str
    refresh: str
    expires_in: int = ACCESS_SECONDS


@dataclass(frozen=True, slots=True)
class CodeRecord:
    """What a code was issued for."""

    client: str
    redirect_uri: str
    challenge: str
    person: str
    family: str


class BoardStore:
    """The file and everything that is asked of it."""

    def __init__(self, file: Path) -> None:
        # Made in one thread and used by one event loop, which may run in another.
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode=WAL;" + SCHEMA)

    # Clients ------------------------------------------------------------------
    def register(self, name: str, redirect_uris: list[str]) -> Client:
        """Keep a new client; the oldest go when there are too many."""
        client = Client(secrets.token_urlsafe(16), name, tuple(redirect_uris))
        self._db.execute(
            "INSERT INTO client VALUES (?, ?, ?, ?)",
            (client.id, name, json.dumps(redirect_uris), time.time()),
        )
        self._db.execute(
            "DELETE FROM client WHERE id NOT IN (SELECT id FROM client ORDER BY made DESC LIMIT ?)",
            (MOST_CLIENTS,),
        )
        return client

    def client(self, client_id: str) -> Client | None:
        """Return a client, None for one that is not known."""
        row = self._db.execute("SELECT * FROM client WHERE id = ?", (client_id,)).fetchone()
        return (
            Client(row["id"], row["name"], tuple(json.loads(row["redirect_uris"]))) if row else None
        )

    # Grants -------------------------------------------------------------------
    def issue_code(self, client: str, redirect_uri: str, challenge: str, person: str) -> str:
        """Return a code that is good once, for a minute."""
        code = secrets.token_urlsafe(32)
        self._db.execute(
            "INSERT INTO code VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (
                digest(code),
                client,
                redirect_uri,
                challenge,
                person,
                time.time() + CODE_SECONDS,
                secrets.token_hex(16),
            ),
        )
        return code

    def take_code(self, code: str) -> CodeRecord | None:
        """Use a code up; a second use ends what the first one gave (OAuth 2.1 section 4.1.3)."""
        row = self._db.execute("SELECT * FROM code WHERE digest = ?", (digest(code),)).fetchone()
        if row is None or row["expires"] < time.time():
            return None
        if row["used"]:
            self.end_family(row["family"])
            return None
        self._db.execute("UPDATE code SET used = 1 WHERE digest = ?", (digest(code),))
        return CodeRecord(
            row["client"], row["redirect_uri"], row["challenge"], row["person"], row["family"]
        )

    def issue_tokens(self, client: str, person: str, family: str) -> Tokens:
        """Return a new pair of one family."""
        now = time.time()
        self._db.execute("DELETE FROM token WHERE expires < ?", (now,))
        tokens = Tokens("board_" + secrets.token_urlsafe(32), "boardr_" + secrets.token_urlsafe(32))
        lifetimes = (
            ("access", tokens.access, ACCESS_SECONDS),
            ("refresh", tokens.refresh, REFRESH_SECONDS),
        )
        for kind, secret, seconds in lifetimes:
            self._db.execute(
                "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, 0)",
                (digest(secret), kind, client, person, family, now + seconds),
            )
        return tokens

    def rotate(self, refresh: str, client: str) -> Tokens | None:
        """Exchange a refresh token; using an old one again ends the family (RFC 9700 4.14)."""
        row = self._find(refresh, "refresh")
        if row is None or row["client"] != client:
            return None
        if row["used"]:
            self.end_family(row["family"])
            return None
        self._db.execute("UPDATE token SET used = 1 WHERE digest = ?", (digest(refresh),))
        self._db.execute("DELETE FROM token WHERE kind = 'access' AND family = ?", (row["family"],))
        return self.issue_tokens(client, row["person"], row["family"])

    def person_of(self, access: str) -> str:
        """Return whose access token this is, "" if it is not good."""
        row = self._find(access, "access")
        return row["person"] if row else ""

    def revoke(self, token: str) -> None:
        """End the grant that a token belongs to; unknown tokens are no error (RFC 7009)."""
        row = self._db.execute("SELECT * FROM token WHERE digest = ?", (digest(token),)).fetchone()
        if row:
            self.end_family(row["family"])

    def end_family(self, family: str) -> None:
        """End everything that came from one authorization."""
        self._db.execute("DELETE FROM token WHERE family = ?", (family,))

    def _find(self, secret: str, kind: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            "SELECT * FROM token WHERE digest = ? AND kind = ? AND expires > ?",
            (digest(secret), kind, time.time()),
        ).fetchone()
        return row

    # Tickets ------------------------------------------------------------------
    def tickets(self, person: str) -> list[dict[str, object]]:
        """Return a person's tickets, open ones first."""
        rows = self._db.execute(
            "SELECT id, title, state, made FROM ticket WHERE person = ? ORDER BY state DESC, id",
            (person,),
        )
        return [dict(row) for row in rows]

    def add_ticket(self, person: str, title: str, made: str) -> dict[str, object]:
        """Add an open ticket."""
        cursor = self._db.execute(
            "INSERT INTO ticket (person, title, state, made) VALUES (?, ?, 'open', ?)",
            (person, title, made),
        )
        return {"id": cursor.lastrowid, "title": title, "state": "open", "made": made}

    def close_ticket(self, person: str, ticket: int) -> bool:
        """Close one of a person's own tickets; False if they have none of that number."""
        changed = self._db.execute(
            "UPDATE ticket SET state = 'closed' WHERE person = ? AND id = ?", (person, ticket)
        )
        return changed.rowcount == 1
