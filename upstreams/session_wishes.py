"""What the processes that share a session have asked its upstream for: log level, subscriptions.

An upstream keeps one log level and one set of subscriptions for a session, so each process looks
what the others want before it changes them.
"""

import hashlib

from upstreams.process_notes import going_on
from upstreams.session_opening import LegacySession
from upstreams.session_sharing import NOTE_SECONDS, USER_SECONDS, level_note, notes_of


async def level_of(session: LegacySession) -> str:
    """Return the log level that some process asked a shared session for; "" for none."""
    notes = notes_of(session)
    if notes is None:
        return ""
    with going_on("it is not known which log level a session has"):
        return (await notes.get(level_note(session)) or b"").decode()
    return ""


async def ask_for_level(session: LegacySession, before: str, level: str) -> bool:
    """Write down what the session is asked for; False if somebody just did that."""
    notes = notes_of(session)
    if notes is None:
        return True
    key, content = level_note(session), level.encode()
    with going_on("other processes do not know a session's log level"):
        if before:
            return await notes.swap(key, before.encode(), content, NOTE_SECONDS)
        return await notes.set_once(key, content, NOTE_SECONDS)
    return True


async def want(session: LegacySession, uri: str) -> None:
    """Have other processes leave a session's subscription alone."""
    notes = notes_of(session)
    if notes is None:
        return
    lease = _want(session, uri, notes.PROCESS)
    session.want_leases.add(lease)
    with going_on("other processes may end a subscription"):
        await notes.take_lease(lease, notes.PROCESS, USER_SECONDS)


async def wanted_elsewhere(session: LegacySession, uri: str) -> bool:
    """Want a subscription no more; returns whether another process does."""
    notes = notes_of(session)
    if notes is None:
        return False
    lease = _want(session, uri, notes.PROCESS)
    session.want_leases.discard(lease)
    with going_on("a subscription is kept that nobody may want"):
        await notes.end_lease(lease, notes.PROCESS)
        return bool(await notes.holders(_want(session, uri, "")))
    return True


def _want(session: LegacySession, uri: str, process: str) -> str:
    digest = hashlib.sha256(uri.encode()).hexdigest()[:40]
    return f"session-want:{session.shared}:{digest}:{process}"
