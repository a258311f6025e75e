"""What is known of each identity provider: where its issuer is, how it names groups, its habits.

A preset fills in what an administrator would have to look up. Everything it says can be changed
for a provider; ``sources`` name the vendors' pages the facts are from.
"""

from dataclasses import dataclass

SCOPES = ("openid", "profile", "email")
# RP-Initiated Logout 1.0, section 2.
STANDARD_SIGN_OUT = "post_logout_redirect_uri"


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of OpenID provider.

    Attributes:
        issuer: template with ``{}`` for what the administrator enters, "{}" for a whole address.
        asks_for: what that is, in words.
        example: a value of it.
        groups_claim: path of the claim that holds groups, "" if there is none by default.
        fetch_userinfo: whether UserInfo says more than the ID token.
        trusts_addresses: it does not say ``email_verified``, and one company controls it.
        email_claims: claims that hold the address, the first that is there counts.
        domain_claim: claim by which the provider itself vouches for the person's domain.
        knows_prompt_login: it takes ``prompt=login``; another is asked to choose the account.
        offline_scope: scope that makes it give a refresh token, "" if none is needed.
        offline_parameters: what else it wants to see for that in the authorization request.
        sign_out_parameter: what it calls the address to come back to after signing out.
        notes: habits an administrator has to know.
    """

    key: str
    title: str
    issuer: str
    asks_for: str
    example: str
    scopes: tuple[str, ...] = SCOPES
    groups_claim: str = "groups"
    fetch_userinfo: bool = True
    trusts_addresses: bool = False
    email_claims: tuple[str, ...] = ("email",)
    domain_claim: str = ""
    offline_scope: str = "offline_access"
    offline_parameters: tuple[tuple[str, str], ...] = ()
    knows_prompt_login: bool = True
    sign_out_parameter: str = STANDARD_SIGN_OUT
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def issuer_for(self, value: str) -> str:
        """Return the issuer for what an administrator entered; a whole address stays as it is."""
        value = value.strip().rstrip("/")
        if value.startswith(("https://", "http://")) or "{}" not in self.issuer:
            return value or self.issuer
        return self.issuer.format(value) if value else ""


GENERIC = Preset(
    key="generic",
    title="OpenID Connect",
    issuer="{}",
    asks_for="Issuer",
    example="https://login.example.com",
    # By the book the scope counts only together with this (OpenID Connect Core 11).
    offline_parameters=(("prompt", "consent"),),
    sources=("https://openid.net/specs/openid-connect-discovery-1_0.html",),
)

_PRESETS = (
    Preset(
        key="entra",
        title="Microsoft Entra ID",
        issuer="https://login.microsoftonline.com/{}/v2.0",
        asks_for="Directory (tenant) ID",
        example="8f6e2d1c-0000-4000-8000-1234567890ab",
        fetch_userinfo=False,
        trusts_addresses=True,
        email_claims=("email", "preferred_username"),
        notes=(
            "Use the tenant's own ID: with common or organizations anybody's tenant could sign in.",
            "Groups come as object IDs, after Token configuration, Add groups claim.",
            "Beyond 200 groups Entra sends none. Choose Groups assigned to the application there, "
            "or app roles with the groups claim roles.",
            "Addresses of guests from other tenants count as not verified, unless Entra says so: "
            "add the optional claims xms_edov and acct to the ID token.",
            "Administrators who sign in here need the optional claim auth_time in the ID token.",
        ),
        sources=(
            "https://learn.microsoft.com/entra/identity-platform/v2-protocols-oidc",
            "https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference",
            "https://learn.microsoft.com/entra/identity-platform/optional-claims-reference",
            "https://learn.microsoft.com/entra/identity/hybrid/connect/how-to-connect-fed-group-claims",
        ),
    ),
    Preset(
        key="okta",
        title="Okta",
        issuer="https://{}",
        asks_for="Okta domain",
        example="contoso.okta.com",
        scopes=(*SCOPES, "groups"),
        notes=(
            "Add a groups claim filter on the application's Sign On tab.",
            "A custom authorization server has an issuer of its own, such as "
            "https://contoso.okta.com/oauth2/default, and needs a scope called groups.",
        ),
        sources=("https://developer.okta.com/docs/guides/customize-tokens-groups-claim/",),
    ),
    Preset(
        key="google",
        title="Google Workspace",
        issuer="https://accounts.google.com",
        asks_for="Nothing: the issuer is the same for everybody",
        example="",
        groups_claim="",
        domain_claim="hd",
        offline_scope="",
        offline_parameters=(("access_type", "offline"), ("prompt", "consent")),
        knows_prompt_login=False,
        notes=(
            "Anybody with a Google account could sign in: name your domains under Let in only.",
            "Google sends no groups. Use the administration, the file or SCIM for them.",
            "Google cannot be signed out from here.",
        ),
        sources=("https://developers.google.com/identity/openid-connect/openid-connect",),
    ),
    Preset(
        key="auth0",
        title="Auth0",
        issuer="https://{}",
        asks_for="Auth0 domain",
        example="contoso.eu.auth0.com",
        groups_claim="https://mcp-gateway/groups",
        notes=(
            "Auth0 sends roles only by an Action on Login: api.idToken.setCustomClaim("
            "'https://mcp-gateway/groups', event.authorization.roles).",
            "Back-channel logout (Enterprise plan): the application's Settings, OpenID Connect "
            "Back-Channel Logout.",
        ),
        sources=(
            "https://auth0.com/docs/secure/tokens/json-web-tokens/create-custom-claims",
            "https://auth0.com/docs/authenticate/login/logout/log-users-out-of-auth0",
            "https://auth0.com/docs/authenticate/login/logout/back-channel-logout/"
            "configure-back-channel-logout",
        ),
    ),
    Preset(
        key="keycloak",
        title="Keycloak",
        issuer="{}",
        asks_for="Address of the realm",
        example="https://sso.contoso.example/realms/staff",
        notes=(
            "Add a Group Membership mapper named groups to the client. With Full group path on, a "
            "group is called /staff.",
            "Realm roles are in realm_access.roles once their mapper adds them to the ID token.",
            "Back-channel logout: the client's Settings, Backchannel logout URL, with session "
            "required.",
            "Administrators who sign in here need auth_time: from version 25 on it comes by the "
            "client scope basic, which clients have unless it was taken from them.",
        ),
        sources=(
            "https://www.keycloak.org/docs/latest/server_admin/",
            "https://www.keycloak.org/docs/25.0.6/upgrading/",
        ),
    ),
    Preset(
        key="ping",
        title="PingOne",
        issuer="https://auth.pingone.com/{}/as",
        asks_for="Environment ID",
        example="1b2c3d4e-0000-4000-8000-1234567890ab",
        notes=(
            "Other regions and PingFederate: enter the whole issuer.",
            "Map the attribute groups to Group Names in the application's attribute mappings.",
        ),
        sources=(
            "https://developer.pingidentity.com/pingone-api/platform/applications/"
            "application-attribute-mapping.html",
        ),
    ),
    Preset(
        key="onelogin",
        title="OneLogin",
        issuer="https://{}.onelogin.com/oidc/2",
        asks_for="OneLogin subdomain",
        example="contoso",
        scopes=(*SCOPES, "groups"),
        notes=(
            "Set what the groups parameter returns in the application's Parameters. Several groups "
            "in one text are separated by semicolons.",
            "Set the token endpoint's authentication method to POST.",
        ),
        sources=(
            "https://developers.onelogin.com/openid-connect",
            "https://developers.onelogin.com/openid-connect/api/logout",
        ),
    ),
    Preset(
        key="cognito",
        title="Amazon Cognito",
        issuer="https://cognito-idp.{}",
        asks_for="Region host and user pool ID",
        example="eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
        groups_claim="cognito:groups",
        offline_scope="",
        # UserInfo gives email_verified as a text, which counts as not verified.
        fetch_userinfo=False,
        # Its address for signing out is announced as the standard one, and takes this instead.
        sign_out_parameter="logout_uri",
        notes=(
            "The user pool needs a domain, and the app client a secret.",
            "To sign out there too, add the gateway's sign-in page to Allowed sign-out URLs of the "
            "app client.",
        ),
        sources=(
            "https://docs.aws.amazon.com/cognito/latest/developerguide/"
            "amazon-cognito-user-pools-using-the-id-token.html",
            "https://docs.aws.amazon.com/cognito/latest/developerguide/logout-endpoint.html",
        ),
    ),
    Preset(
        key="workos",
        title="WorkOS AuthKit",
        issuer="https://{}.authkit.app",
        asks_for="AuthKit subdomain",
        example="contoso",
        groups_claim="",
        notes=(
            "Make an OAuth application under Connect.",
            "WorkOS cannot be signed out from here: it announces no address for that.",
            "Its documentation names no claim with roles or groups in ID token or UserInfo: use "
            "the administration, the file or SCIM for them. If Test sign-in shows you one, name "
            "it under Claim with groups.",
        ),
        sources=(
            "https://workos.com/docs/reference/workos-connect/authorize",
            "https://workos.com/docs/authkit/connect/token-claims",
        ),
    ),
    Preset(
        key="logto",
        title="Logto",
        issuer="https://{}.logto.app/oidc",
        asks_for="Logto tenant ID",
        example="ab12cd",
        scopes=(*SCOPES, "roles"),
        offline_parameters=(("prompt", "consent"),),
        groups_claim="roles",
        notes=(
            "Self-hosted: enter the whole issuer, which ends in /oidc.",
            "Roles come in the ID token while Custom JWT, ID token has them switched on, which is "
            "its default, and in UserInfo always.",
        ),
        sources=("https://docs.logto.io/developers/custom-id-token",),
    ),
    Preset(
        key="clerk",
        title="Clerk",
        issuer="https://{}",
        asks_for="Frontend API domain",
        example="clerk.contoso.example",
        scopes=(*SCOPES, "public_metadata"),
        groups_claim="public_metadata.groups",
        notes=(
            "Make an OAuth application with the scopes openid, profile, email and public_metadata, "
            "and keep a list called groups in people's public metadata. Never name a claim of "
            "unsafe_metadata, which comes along: people write that themselves.",
            "Refresh tokens last three days without use; who comes back later signs in again.",
        ),
        sources=(
            "https://clerk.com/docs/oauth/oauth-single-sign-on",
            "https://clerk.com/docs/oauth/how-clerk-implements-oauth",
        ),
    ),
)

SAML = Preset(
    key="saml",
    title="SAML 2.0",
    issuer="{}",
    asks_for="Address of the provider's metadata",
    example="https://login.contoso.example/metadata.xml",
    scopes=("openid",),
    groups_claim="groups",
    trusts_addresses=True,
    notes=(
        "Only signed assertions are taken, only as the answer to a sign-in that began here.",
        "Entra ID calls the attribute with groups "
        "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups, and sends none beyond 150 "
        "groups.",
    ),
    sources=("https://docs.oasis-open.org/security/saml/v2.0/saml-core-2.0-os.pdf",),
)
PRESETS: dict[str, Preset] = {preset.key: preset for preset in (GENERIC, *_PRESETS, SAML)}


def preset_of(key: str) -> Preset:
    """Return a preset; an unknown key gets the generic one."""
    return PRESETS.get(key, GENERIC)
