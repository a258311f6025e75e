"""The domain an MCP App runs under, where its upstream names one (protocol.md 3.4). Pure.

``_meta.ui.domain`` has a form of its own for each host. Claude's is reckoned from the URL of the
connector, and another value is refused, so it can and must be made anew for the gateway's URL.
ChatGPT's is any origin the app's maker chose; behind a shared URL that would let one upstream take
the place of another's app, so it is left out and ChatGPT chooses.
"""

import hashlib
from typing import Final

_CLAUDE: Final = ".claudemcpcontent.com"
_DIGITS: Final = 32


def anew(given: str | None, address: str) -> str:
    """Return the domain for apps behind ``address``, ``""`` where none is to be named.

    Args:
        given: what the upstream named.
        address: the URL people paste, exactly; ``""`` to leave every domain out.
    """
    if not address or given is None or not given.endswith(_CLAUDE):
        return ""
    return hashlib.sha256(address.encode()).hexdigest()[:_DIGITS] + _CLAUDE
