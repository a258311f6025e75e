"""Whether SAML can be offered: its library stands on compiled ones (xmlsec, lxml)."""

from functools import cache

MISSING = (
    "SAML needs python3-saml with xmlsec and lxml, which are not usable here. Install them as "
    "requirements.txt locks them, or use OpenID Connect."
)


@cache
def is_there() -> bool:
    """Tell whether the library can be used; versions that do not fit each other count as absent."""
    try:
        import xmlsec  # noqa: F401
        from onelogin.saml2 import auth  # noqa: F401
    except Exception:
        return False
    return True
