"""Requests to identity providers: TLS with the company's authorities, bounded in time and size.

Identity providers are named by administrators and often stand inside the company, so the
egress rules for upstreams do not apply to them.
"""

import json
import time
from typing import Any, Final

import requests
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from gateway_site.identity.errors import OutOfReach, ProviderFault
from upstreams.http_client import tls_context

MAX_BYTES = 1024 * 1024
# For the whole answer, however small the pieces in which it comes.
TOTAL_SECONDS: Final = 20.0


class _CompanyTls(HTTPAdapter):
    """Trusts what the rest of the gateway trusts, ``GATEWAY_EXTRA_CA_BUNDLE`` included."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pool with the gateway's TLS context."""
        kwargs["ssl_context"] = tls_context()
        return super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call]


def prepare(session: requests.Session) -> requests.Session:
    """Make a session of the sign-in library one of ours."""
    session.mount("https://", _CompanyTls())
    # Proxy variables and .netrc are not meant for sign-in unless somebody says so.
    session.trust_env = False
    session.max_redirects = 3
    return session


def fetch_json(url: str, *, what: str, token: str = "") -> dict[str, Any]:
    """Return the JSON object at an address.

    Args:
        what: what is fetched, for the message.
        token: access token to present.

    Raises:
        OutOfReach: it did not answer, or not in time.
        ProviderFault: it did not answer with a JSON object.
    """
    body = fetch_bytes(url, what=what, token=token)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise ProviderFault(f"{what} at {url} is not JSON.") from failure
    if not isinstance(value, dict):
        raise ProviderFault(f"{what} at {url} is not a JSON object.")
    return value


def fetch_bytes(url: str, *, what: str, token: str = "", accept: str = "application/json") -> bytes:
    """Return what is at an address, not more than ``MAX_BYTES``.

    Raises:
        OutOfReach: it did not answer, or not in ``TOTAL_SECONDS``.
        ProviderFault: the answer is no 200, or is too large.
    """
    body, began = b"", time.monotonic()
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    session = prepare(requests.Session())
    try:
        with session.get(
            url,
            headers=headers,
            timeout=settings.SOCIALACCOUNT_REQUESTS_TIMEOUT,
            stream=True,
            allow_redirects=False,
        ) as response:
            if response.status_code != 200:
                raise ProviderFault(f"{what} at {url} answered {response.status_code}.")
            while chunk := response.raw.read1(MAX_BYTES, decode_content=False):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ProviderFault(f"{what} at {url} is too large.")
                if time.monotonic() - began > TOTAL_SECONDS:
                    raise OutOfReach(f"{what} at {url} did not arrive in time.")
    except requests.exceptions.SSLError as failure:
        raise ProviderFault(
            f"The TLS certificate of {url} is not trusted. If your company has an authority of "
            "its own, name it with GATEWAY_EXTRA_CA_BUNDLE."
        ) from failure
    except (requests.RequestException, HTTPError, OSError) as failure:
        raise OutOfReach(f"{what} at {url} could not be reached.") from failure
    finally:
        session.close()
    return body
