"""How this room tells the site what happened, without knowing who listens."""

from django.dispatch import Signal

# A security-relevant fact for the audit trail.
# Arguments: kind (dotted, e.g. "client.registered"), user (or None), target (str), details (dict
# without secrets), address (peer address or "").
audit = Signal()

# Something cached elsewhere is no longer true.
# Arguments: kind (one of "token", "configuration", "credential", "session", "access", "health"),
# key (str, "" = all).
changed = Signal()

# A circuit breaker of this process opened or closed. Sent on the event loop: receivers must
# not block. Arguments: upstream_id, opened (bool), error (UpstreamError or None).
circuit_changed = Signal()


def credential_key(user_id: int | None, upstream_id: int) -> str:
    """Return the key of ``changed`` for an account; without a person it is everybody's."""
    return f"{'' if user_id is None else user_id}:{upstream_id}"
