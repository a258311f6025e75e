"""How this room tells the site what happened, without knowing who listens."""

from django.dispatch import Signal

# A security-relevant fact for the audit trail.
# Arguments: kind (dotted, e.g. "client.registered"), user (or None), target (str), details (dict
# without secrets), address (peer address or "").
audit = Signal()

# Something cached elsewhere is no longer true.
# Arguments: kind (one of "token", "configuration", "credential", "session", "access"),
# key (str, "" = all).
changed = Signal()
