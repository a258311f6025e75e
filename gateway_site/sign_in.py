"""How people sign in: local accounts by name or e-mail, and the company's identity providers.

Accounts are made by administrators or by a configured provider at the first sign-in;
nobody registers on their own. A provider finds an existing person only by an address that
the provider says it has verified, so that an address somebody merely typed there opens no
account here (account pre-hijacking).
"""

import logging
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.helpers import complete_social_login
from allauth.socialaccount.models import SocialAccount, SocialApp
from allauth.socialaccount.providers.base.constants import AuthProcess
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from gateway_site.identity import arrival, outbound
from gateway_site.identity.provider_facts import facts_of
from upstreams import token_vault

logger = logging.getLogger(__name__)

# Others who arrive at the very same moment, in a row.
_MOST_ROUNDS = 5
SEALED_SECRET = "sealed_secret"  # noqa: S105
MFA_OWNER = "mfa"


def secret_owner(provider_id: str) -> str:
    """Name the owner that a sealed client secret of an identity provider is bound to."""
    return f"identity-provider:{provider_id}"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Local accounts."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Never: accounts are made by administrators and identity providers."""
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the peer that ``trusted_proxy`` found; headers are not read again here."""
        return request.META.get("REMOTE_ADDR") or "unknown"

    def send_password_reset_mail(self, user: User, email: str, context: dict[str, Any]) -> None:
        """Send the mail to who has a password; others come by a provider, or not at all."""
        if user.has_usable_password():
            super().send_password_reset_mail(user, email, context)

    def logout(self, request: HttpRequest) -> None:
        """Sign out; what a provider was asked on that occasion outlives the session."""
        asked = request.session.get(arrival.SIGN_OUT_ASKED)
        super().logout(request)
        if asked:
            request.session[arrival.SIGN_OUT_ASKED] = asked

    def get_logout_redirect_url(self, request: HttpRequest) -> str:
        """Go on to the provider's own sign-out where that is switched on."""
        return arrival.sign_out_address(request) or str(super().get_logout_redirect_url(request))


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Accounts at identity providers that an administrator configured."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Whoever a configured provider vouches for gets an account at the first sign-in."""
        return not sociallogin.provider.app.settings.get("only_known_people", False)

    def list_apps(
        self, request: HttpRequest | None, provider: str | None = None, client_id: str | None = None
    ) -> list[Any]:
        """Return the configured providers with their client secrets opened, in memory only."""
        apps: list[Any] = super().list_apps(request, provider=provider, client_id=client_id)
        for app in apps:
            sealed = app.settings.get(SEALED_SECRET)
            if sealed:
                opened = token_vault.open_sealed(sealed, secret_owner(app.provider_id))
                app.secret = opened.decode()
        return apps

    def get_requests_session(self) -> Any:
        """Return a session that trusts what the gateway trusts."""
        return outbound.prepare(super().get_requests_session())

    def is_email_verified(self, provider: Any, email: str) -> bool:
        """Tell whether every address that a provider names counts as verified."""
        return facts_of(provider.app).trust_addresses

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Let in only whom the provider's settings let in.

        Raises:
            ImmediateHttpResponse: the page that says why not.
        """
        arrival.check(request, sociallogin)
        by_address = sociallogin._did_authenticate_by_email
        if by_address and sociallogin.state.get("process") == AuthProcess.LOGIN:
            self._connect_once(request, sociallogin)

    @staticmethod
    @transaction.atomic
    def _connect_once(request: HttpRequest, sociallogin: Any) -> None:
        """Connect a person who was found by their address, unless another browser just did."""
        _one_after_the_other()
        account = sociallogin.account
        known = SocialAccount.objects.filter(provider=account.provider, uid=account.uid).first()
        if known is None:
            sociallogin._accept_login(request)
        else:
            sociallogin.account, sociallogin.user = known, known.user
        sociallogin._did_authenticate_by_email = None

    def is_auto_signup_allowed(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Let a new person in, unless they came by another browser since they were looked for.

        Raises:
            ImmediateHttpResponse: they did, and are signed in.
        """
        if self.is_known(sociallogin):
            raise ImmediateHttpResponse(arrive_again(request, sociallogin))
        return bool(super().is_auto_signup_allowed(request, sociallogin))

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> Any:
        """Store a new person whole, or find who was stored at the same moment.

        Raises:
            ImmediateHttpResponse: somebody with this identity, address or name was faster.
        """
        try:
            with transaction.atomic():
                _one_after_the_other()
                if not self.is_known(sociallogin):
                    return super().save_user(request, sociallogin, form)
        except IntegrityError:
            logger.info("a first sign-in met another change of people; it is gone through again")
        raise ImmediateHttpResponse(arrive_again(request, sociallogin))

    def is_known(self, sociallogin: Any) -> bool:
        """Tell whether a first sign-in is of somebody who has an account by now."""
        account = sociallogin.account
        known = SocialAccount.objects.filter(provider=account.provider, uid=account.uid)
        return known.exists() or self.authenticate_by_email(sociallogin) is not None

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Any = None,
        extra_context: Any = None,
    ) -> None:
        """Write down why a sign-in at a provider failed."""
        arrival.failed(request, provider, exception, extra_context or {})

    def authenticate_by_email(self, sociallogin: Any) -> tuple[User, str] | None:
        """Find the one person with an address that the provider verified, and the gateway too.

        Finds nobody by an address that several accounts have, that is not verified on both
        sides, or that is an administrator's: they connect a provider while they are signed in.
        """
        for address in sociallogin.email_addresses:
            if not address.verified or not self.can_authenticate_by_email(
                sociallogin, address.email
            ):
                continue
            person = _owner_of(address.email)
            if person is not None:
                return person, address.email
        return None


def _one_after_the_other() -> None:
    """Have first sign-ins wait for each other, whichever provider they come by."""
    list(SocialApp.objects.select_for_update().order_by("pk").values_list("pk"))


def arrive_again(request: HttpRequest, sociallogin: Any) -> HttpResponse:
    """Go through a first sign-in once more, with what nobody has stored in between.

    Raises:
        PermissionDenied: it does not end.
    """
    sociallogin.rounds = getattr(sociallogin, "rounds", 0) + 1
    if sociallogin.rounds > _MOST_ROUNDS:
        raise PermissionDenied("Your account could not be made just now. Please sign in again.")
    for row in (sociallogin.user, sociallogin.account, *sociallogin.email_addresses):
        row.pk, row._state.adding = None, True
    answer: HttpResponse = complete_social_login(request, sociallogin)
    return answer


def _owner_of(email: str) -> User | None:
    having = Q(email__iexact=email) | Q(emailaddress__email__iexact=email)
    found = list(User.objects.filter(having).distinct()[:2])
    if len(found) != 1 or found[0].is_staff or found[0].is_superuser:
        return None
    kept = EmailAddress.objects.filter(user=found[0], email__iexact=email, verified=True)
    theirs = kept.values_list("email", flat=True)
    return found[0] if any(is_same_address(email, one) for one in theirs) else None


def is_same_address(one: str, other: str) -> bool:
    """Tell whether two addresses are the same, in upper or lower case of ASCII letters only.

    Databases, and Python, fold further letters, such as the dotless i to an i: somebody else's
    domain would be taken for this one.
    """
    if one == other:
        return True
    return one.isascii() and other.isascii() and one.lower() == other.lower()


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Second factors; their secrets are sealed like every other one."""

    def encrypt(self, text: str) -> str:
        """Seal a TOTP secret or the seed of recovery codes."""
        return token_vault.seal(text.encode(), MFA_OWNER)

    def decrypt(self, encrypted_text: str) -> str:
        """Open what ``encrypt`` sealed."""
        return token_vault.open_sealed(encrypted_text, MFA_OWNER).decode()
