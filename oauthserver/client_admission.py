"""Whether a client may come to this gateway at all: the administrator's policy (pure).

What an administrator registered or approved is always admitted, what one refused never is. In
between the policy decides, once for clients with a metadata document and once for those that
register themselves. It is asked when a client registers and each time it wants a person's
consent; what people agreed to before goes on until somebody ends it.

An entry of the list of hosts is a host name (``chatgpt.com``), a domain with everything below
it (``*.contoso.example``), ``localhost`` for programs on people's own computers, or the
beginning of a private scheme (``cursor://anysphere.cursor-mcp``).
"""

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from oauthserver import redirect_uris
from oauthserver.models import ClientPolicy, OAuthClient

MOST_HOSTS = 200
_ENTRY = re.compile(
    r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|[a-z][a-z0-9+.-]*://[a-z0-9.-]{1,250}"
)


class Standing(Enum):
    """Where a client stands with the policy."""

    ADMITTED = "admitted"
    WAITING = "waiting"
    REFUSED = "refused"


@dataclass(frozen=True)
class Admission:
    """The verdict, with a sentence for the client and the person when it is not a yes."""

    standing: Standing
    reason: str = ""

    @property
    def admitted(self) -> bool:
        """Whether the client may ask for consent."""
        return self.standing is Standing.ADMITTED


_YES = Admission(Standing.ADMITTED)


def admission(client: OAuthClient, policy: ClientPolicy) -> Admission:
    """Decide about one client, stored or not."""
    sources, reviews, modes = client.RegistrationSource, client.Review, ClientPolicy.Mode
    if client.registration_source == sources.MANUAL or client.review == reviews.APPROVED:
        return _YES
    if client.review == reviews.REFUSED:
        return Admission(Standing.REFUSED, "An administrator has refused this client.")
    by_document = client.registration_source == sources.CIMD
    mode = policy.documents if by_document else policy.registration
    if mode == modes.OPEN:
        return _YES
    if mode == modes.APPROVAL:
        text = "An administrator of this gateway has to approve this client first."
        return Admission(Standing.WAITING, text)
    if mode == modes.HOSTS:
        home = [client.client_id] if by_document else client.redirect_uris.split()
        return host_admission(home, policy)
    text = "This gateway accepts only clients that its administrator has registered."
    return Admission(Standing.REFUSED, text)


def host_admission(addresses: list[str], policy: ClientPolicy) -> Admission:
    """Decide by the hosts of ``addresses``: all of them must be listed."""
    strange = [host for host in map(_host, addresses) if not _listed(host, policy.allowed_hosts)]
    if not strange:
        return _YES
    text = f"This gateway accepts only clients of listed hosts; {strange[0][:100]} is not listed."
    return Admission(Standing.REFUSED, text)


def problem_with_host(entry: object) -> str:
    """Say why an entry may not stand in the list, or "" if it may."""
    host = isinstance(entry, str) and len(entry) <= 253 and _ENTRY.fullmatch(entry)
    if host and not str(entry).startswith(("http://", "https://")):
        return ""
    return (
        "Write host names such as chatgpt.com, *.contoso.example, localhost or "
        "cursor://anysphere.cursor-mcp, without a port or a path."
    )


def _host(address: str) -> str:
    if redirect_uris.is_loopback(address):
        return "localhost"
    parts = urlsplit(address)
    host = (parts.hostname or "").lower()
    return host if parts.scheme == "https" else f"{parts.scheme}://{host}"


def _listed(host: str, allowed: list[str]) -> bool:
    below = (entry[1:] for entry in allowed if entry.startswith("*."))
    return bool(host) and (host in allowed or any(host.endswith(domain) for domain in below))
