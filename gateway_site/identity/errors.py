"""What can go wrong between the gateway and an identity provider.

OAuth2Error (of the sign-in library, which turns it into its "did not work" page)
└── ProviderFault          the provider's documents, keys or answers are not right
    ├── OutOfReach         it did not answer in time, or not at all
    ├── KeyUnknown         a token is signed with a key that was not published
    └── TokenRefused       an ID token is not valid, or not for this sign-in
"""

from allauth.socialaccount.providers.oauth2.client import OAuth2Error


class ProviderFault(OAuth2Error):  # type: ignore[misc]
    """Something about the provider is wrong; the text is for administrators."""


class OutOfReach(ProviderFault):
    """The provider could not be asked; the next one might do better a little later."""


class KeyUnknown(ProviderFault):
    """The key is not among those the provider publishes now."""


class TokenRefused(ProviderFault):
    """An ID token that must not be believed (OpenID Connect Core 3.1.3.7)."""
