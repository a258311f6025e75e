"""What this room forgets when something changes anywhere.

The site calls ``hear`` in every process (its change feed); in the process of the change it is
also called by the rooms' signals directly.
"""

from typing import Any

from upstreams import change_streams
from virtualmcp import route_table, tool_catalogue, upstream_openings
from virtualmcp.tool_catalogue import catalogue

KINDS = ("configuration", "credential", "access")


def hear(kind: str, key: str = "") -> None:
    """Forget what a change of ``kind`` makes untrue.

    Lists and openings are kept per credential, so that a person's new or ended account needs
    nothing here: its key is another one or is never asked for. A shared credential keeps its key
    when its value is replaced (``key`` is then ``:<upstream id>``).
    """
    if kind == "configuration":
        route_table.forget()
        upstream_openings.forget()
        tool_catalogue.forget()
    elif kind == "access":
        route_table.forget()
    elif kind == "credential":
        user, _, upstream = key.partition(":")
        if not user:
            catalogue.forget(upstream_id=int(upstream) if upstream.isdigit() else None)
            upstream_openings.forget()
            change_streams.restart(int(upstream) if upstream.isdigit() else None)


def hear_signal(sender: Any, kind: str, key: str = "", **_: Any) -> None:
    """Receiver of the rooms' ``changed`` signals."""
    hear(kind, key)
