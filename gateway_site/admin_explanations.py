"""What each kind of thing in the administration is for, in a sentence or two, by its label.

Shown above its list and its form; the second text stands where a list is empty. Rooms of the
administration are called and ordered here as well, by what administrators come for.
"""

from dataclasses import dataclass
from typing import Final

# App label: how it is called. The order is that of the first page and of the sidebar.
ROOMS: Final = {
    "virtualmcp": "Virtual MCP servers",
    "upstreams": "Upstreams",
    "auth": "People",
    "socialaccount": "Sign-in by the company",
    "mfa": "Second factors",
    "oauthserver": "Clients",
    "consent": "Consent",
    "gateway_site": "Gateway",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """``about`` says what a thing is for, ``empty`` what to do while there is none."""

    about: str
    empty: str = ""


EXPLANATIONS: Final = {
    "virtualmcp.virtualmcp": Explanation(
        "What people connect to: one address, the upstreams behind it, the tools it shows, and who "
        "may use it.",
        "Add an upstream first, then a Virtual MCP server over it.",
    ),
    "virtualmcp.tooldefinition": Explanation(
        "What upstreams tell models of their tools, each wording pinned. What waits for review is "
        "offered or held back as its Virtual MCP server says.",
        "Definitions appear when a client first lists the tools of a server.",
    ),
    "virtualmcp.publicname": Explanation(
        "Under which name each tool and prompt is offered. Names stay, so that clients and "
        "instructions that mention one keep working; you can give another one, and the old one "
        "goes on working until you free it.",
        "Names appear when a client first lists the tools of a server.",
    ),
    "virtualmcp.callrecord": Explanation(
        "Who called which tool when, how it ended and how long it took; never arguments or "
        "results.",
        "Nobody has called a tool yet.",
    ),
    "upstreams.upstream": Explanation(
        "The MCP servers behind the gateway, and how people are let in to them. People see an "
        "upstream once a Virtual MCP server has it.",
        "Start with Add from preset, or import what your client already uses.",
    ),
    "upstreams.upstreamaccount": Explanation(
        "Which people have connected which upstream, and whether that still works. Secrets are "
        "never shown.",
        "An account appears when somebody connects an upstream.",
    ),
    "upstreams.upstreamclient": Explanation(
        "As which client the gateway is known at the authorization servers of upstreams.",
        "Registered by itself when the first person connects an upstream by OAuth.",
    ),
    "upstreams.oauthtrace": Explanation(
        "What was said, step by step, when somebody connected an upstream. Secrets are left out.",
        "A trace is written whenever somebody connects an upstream by OAuth.",
    ),
    "auth.user": Explanation(
        "People who may sign in. Who comes by an identity provider or a directory appears here by "
        "themselves; add others with a password. Staff may open this administration.",
    ),
    "auth.group": Explanation(
        "Groups decide who may use which Virtual MCP server and which of its tools. Identity "
        "providers and directories put people into them.",
        "While there is none, a Virtual MCP server is open to everybody who can sign in, or to "
        "nobody.",
    ),
    "socialaccount.socialapp": Explanation(
        "Where people sign in with their company account: OpenID Connect or SAML. Save one, then "
        "press Check and Test sign-in on its page.",
        "Without one, people sign in with an account made here.",
    ),
    "mfa.authenticator": Explanation(
        "Authenticator apps, security keys and recovery codes of people. Delete one that was lost: "
        "its person can then add another.",
        "People add theirs under their name, Second factor.",
    ),
    "oauthserver.oauthclient": Explanation(
        "Programs that people use the gateway with, such as ChatGPT. They register themselves as "
        "far as the client policy lets them; add one only where that is off.",
        "A client appears when the first person connects it.",
    ),
    "oauthserver.clientpolicy": Explanation(
        "Which programs may come at all, and what a person is told whose program may not."
    ),
    "oauthserver.serviceaccount": Explanation(
        "Programs that act for nobody. They prove themselves by signature, and work only while the "
        "client policy lets service accounts get tokens.",
        "Most companies need none.",
    ),
    "oauthserver.trustedissuer": Explanation(
        "Identity providers that may vouch for their people towards clients, so that these connect "
        "without a consent page.",
        "While there is none, every person is asked.",
    ),
    "oauthserver.vouchedaccess": Explanation(
        "Which clients trusted issuers let act for whom, without a consent page. Ending one ends "
        "its tokens at once; the issuer may let it in again, unless it is trusted no longer or the "
        "client is switched off.",
        "An entry appears when a client first comes with an identity assertion.",
    ),
    "consent.consentrecord": Explanation(
        "Who let which program use which server, and what was on the page. Revoking one ends the "
        "program's tokens at once.",
        "A record appears when the first person authorizes a client.",
    ),
    "gateway_site.auditevent": Explanation(
        "Who did what, when and from where. Nobody can change or delete an entry here.",
    ),
    "gateway_site.scimtoken": Explanation(
        "With such a token a directory (Entra ID, Okta) tells the gateway at once who has left or "
        "changed groups.",
        "Without one, the gateway hears of changes when people sign in.",
    ),
    "gateway_site.siteprofile": Explanation(
        "What the gateway is called, whom people ask for help, and whether they need a second "
        "factor.",
    ),
}
