"""Everything the gateway reads from its environment, on one page.

Each variable may also be given as ``NAME_FILE``: a path whose content is the value, and
``gateway.env`` in the data directory holds those that ``bin/serve`` made.
``configuration_checks`` validates the combination and says what to mend.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from gateway_site import data_directory, saml_library

BASE_DIR = Path(__file__).resolve().parent.parent
try:
    DATA_DIR = data_directory.default_path(os.environ)
    # What bin/serve made and stored; a variable of the environment wins.
    for _name, _value in data_directory.read_stored(DATA_DIR).items():
        if f"{_name}_FILE" not in os.environ:
            os.environ.setdefault(_name, _value)
except data_directory.DataDirectoryUnusable as failure:
    raise ImproperlyConfigured(str(failure)) from failure
env = environ.FileAwareEnv()

# Addresses ------------------------------------------------------------------
PUBLIC_URL: str = env.str("PUBLIC_URL", default="http://localhost:8000").rstrip("/")
_public = urlsplit(PUBLIC_URL)
PUBLIC_HOST: str = _public.netloc.lower()
SERVED_OVER_TLS: bool = _public.scheme == "https"
ALLOWED_HOSTS = [_public.hostname or "localhost", *env.list("GATEWAY_EXTRA_HOSTS", default=[])]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
# Networks of the reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
TRUSTED_PROXY: list[str] = env.list("TRUSTED_PROXY", default=[])

# Keys and data --------------------------------------------------------------
SECRET_KEY: str = env.str("SECRET_KEY", default="")
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# Comma separated, URL-safe base64 of 32 bytes each; the first one encrypts, all of them open.
GATEWAY_ENCRYPTION_KEYS: list[str] = env.list("GATEWAY_ENCRYPTION_KEYS", default=[])
# Days after which an upstream sign-in that nobody used is renewed all the same; 0 = never.
GATEWAY_KEEP_ALIVE_DAYS: int = env.int("GATEWAY_KEEP_ALIVE_DAYS", default=7)
# Renewed upstream tokens on their way into the database; nodes may share it.
GATEWAY_REFRESH_JOURNAL: str = env.str(
    "GATEWAY_REFRESH_JOURNAL", default=str(DATA_DIR / "refresh-journal")
)
# The class that gives the vault its keys; upstreams.key_providers has one for a key service.
GATEWAY_KEY_PROVIDER: str = env.str(
    "GATEWAY_KEY_PROVIDER", default="upstreams.token_vault.SettingsKeyRing"
)
GATEWAY_KEY_COMMAND: str = env.str("GATEWAY_KEY_COMMAND", default="")
DEBUG = False

DATABASE_URL: str = env.str("DATABASE_URL", default="")
DATABASES = {
    "default": environ.Env.db_url_config(DATABASE_URL)
    if DATABASE_URL
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(DATA_DIR / data_directory.DATABASE_FILE),
    }
}
DATABASES["default"]["CONN_MAX_AGE"] = 60
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Without IMMEDIATE and a busy timeout two people at once get "database is locked".
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 20, "timeout": 5}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL: str = env.str("REDIS_URL", default="")
if REDIS_URL:
    # Gateways that share a Redis, such as one for trials and the real one, stay apart.
    _redis_prefix = f"gateway-{hashlib.sha256(PUBLIC_URL.encode()).hexdigest()[:16]}"
    CACHES: dict[str, dict[str, object]] = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": _redis_prefix,
        }
    }
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL], "prefix": _redis_prefix},
        }
    }
else:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 20_000},
        }
    }
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

# Limits and switches --------------------------------------------------------
GATEWAY_MAX_BODY_BYTES: int = env.int("GATEWAY_MAX_BODY_BYTES", default=4 * 1024 * 1024)
# What one person may have running at once, and start per second (0 = no limit), in each process.
GATEWAY_CALLS_IN_FLIGHT_PER_USER: int = env.int("GATEWAY_CALLS_IN_FLIGHT_PER_USER", default=32)
GATEWAY_CALLS_PER_SECOND_PER_USER: float = env.float(
    "GATEWAY_CALLS_PER_SECOND_PER_USER", default=0.0
)
# Connections of clients that one server process keeps; seconds in which a request's head and the
# whole request must have arrived; and how long an unused connection stays open. That is longer
# than a reverse proxy keeps it, or calls would meet a connection that is just being closed.
GATEWAY_MAX_CONNECTIONS: int = env.int("GATEWAY_MAX_CONNECTIONS", default=5_000)
GATEWAY_HEADER_SECONDS: float = env.float("GATEWAY_HEADER_SECONDS", default=10.0)
GATEWAY_REQUEST_SECONDS: float = env.float("GATEWAY_REQUEST_SECONDS", default=30.0)
GATEWAY_KEEP_ALIVE_SECONDS: float = env.float("GATEWAY_KEEP_ALIVE_SECONDS", default=75.0)
# Open streams of notices, of one person and of all, in each process.
GATEWAY_STREAMS_PER_USER: int = env.int("GATEWAY_STREAMS_PER_USER", default=64)
GATEWAY_MAX_STREAMS: int = env.int("GATEWAY_MAX_STREAMS", default=10_000)
GATEWAY_ALLOWED_ORIGINS: list[str] = env.list("GATEWAY_ALLOWED_ORIGINS", default=[])
GATEWAY_EXTRA_CA_BUNDLE: str = env.str("GATEWAY_EXTRA_CA_BUNDLE", default="")
# Development only; refused by a system check when PUBLIC_URL is not a loopback address.
GATEWAY_ALLOW_LOOPBACK_UPSTREAMS: bool = env.bool("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", default=False)
GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA: bool = env.bool(
    "GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA", default=False
)

# Operation ------------------------------------------------------------------
LOG_FORMAT: str = env.str("LOG_FORMAT", default="plain")
LOG_LEVEL: str = env.str("LOG_LEVEL", default="INFO")
# Lets a scraper read /metrics with "Authorization: Bearer ..."; administrators may in any case.
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")
# Days until records are removed; 0 keeps them for good.
# Seconds between two looks at an upstream's health; 0 looks never.
UPSTREAM_PROBE_SECONDS: float = env.float("UPSTREAM_PROBE_SECONDS", default=60.0)
# How long traces of connects and token requests are kept; 0 is for good.
OAUTH_TRACE_DAYS: int = env.int("OAUTH_TRACE_DAYS", default=7)
CALL_RECORD_DAYS: int = env.int("CALL_RECORD_DAYS", default=30)
AUDIT_EVENT_DAYS: int = env.int("AUDIT_EVENT_DAYS", default=0)
EMAIL_URL: str = env.str("EMAIL_URL", default="")
MAIL_CONFIGURED = bool(EMAIL_URL)
vars().update(environ.Env.email_url_config(EMAIL_URL or "dummymail://"))
DEFAULT_FROM_EMAIL: str = env.str("MAIL_FROM", default=f"gateway@{_public.hostname}")
LOGGING_CONFIG = "gateway_site.logging_setup.configure"
LOGGING = {"format": LOG_FORMAT, "level": LOG_LEVEL}

# Applications ---------------------------------------------------------------
INSTALLED_APPS = [
    "gateway_site",
    "consent",
    "virtualmcp",
    "upstreams",
    "oauthserver",
    "oauth2_provider",
    "channels",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "gateway_site.identity",
    *(["gateway_site.saml"] if saml_library.is_there() else []),
    "allauth.mfa",
    "allauth.usersessions",
    "rest_framework",
    "csp",
    "gateway_site.admin_config.GatewayAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
]
MIDDLEWARE = [
    "gateway_site.health_views.HealthMiddleware",
    "gateway_site.request_facts.RequestFactsMiddleware",
    "gateway_site.security_headers.SecurityHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "gateway_site.session_rules.SessionRulesMiddleware",
]
ROOT_URLCONF = "gateway_site.urls"
ASGI_APPLICATION = "gateway_site.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "gateway_site.page_context.site_profile",
            ]
        },
    }
]
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
LANGUAGE_CODE = "en"
# Pages say that times are UTC, or show the reader's own (gateway_site/templatetags/moments.py).
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "gateway_site.formats"

# Sign-in --------------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
ACCOUNT_ADAPTER = "gateway_site.sign_in.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*"]
# Addresses come from administrators and identity providers; people do not enter their own.
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
# Minutes since the last sign-in after which a change in the administration asks to sign in
# again; 0 never asks.
GATEWAY_SENSITIVE_MINUTES: int = env.int("GATEWAY_SENSITIVE_MINUTES", default=60)
ACCOUNT_DEFAULT_HTTP_PROTOCOL = _public.scheme
ACCOUNT_RATE_LIMITS = {"login": "30/m/ip", "login_failed": "20/m/ip,5/5m/key"}
SOCIALACCOUNT_ADAPTER = "gateway_site.sign_in.SocialAccountAdapter"
# Only addresses that the provider calls verified find an existing person (sign_in.py).
SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"OAUTH_PKCE_ENABLED": True}}
SOCIALACCOUNT_REQUESTS_TIMEOUT = 8
MFA_ADAPTER = "gateway_site.sign_in.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
# Security keys need a secure origin; browsers count http://localhost as one.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not SERVED_OVER_TLS
MFA_TOTP_ISSUER = "MCP Gateway"

# Authorization server -------------------------------------------------------
OAUTH2_PROVIDER_APPLICATION_MODEL = "oauthserver.OAuthClient"
# PEM of the key that signs ID tokens; without one OpenID Connect is not offered.
OIDC_RSA_PRIVATE_KEY: str = env.str("OIDC_RSA_PRIVATE_KEY", default="", multiline=True)
# Networks from which many people's clients register and refresh: vendors' egress ranges.
GATEWAY_SHARED_EGRESS: list[str] = env.list("GATEWAY_SHARED_EGRESS", default=["160.79.104.0/21"])
OAUTH2_PROVIDER: dict[str, object] = {
    "OAUTH2_VALIDATOR_CLASS": "oauthserver.token_policy.GatewayOAuth2Validator",
    "SCOPES_BACKEND_CLASS": "oauthserver.scopes.GatewayScopes",
    "ACCESS_TOKEN_GENERATOR": "oauthserver.token_values.new_access_token",
    "REFRESH_TOKEN_GENERATOR": "oauthserver.token_values.new_refresh_token",
    "RESOURCE_SERVER_TOKEN_RESOURCE_VALIDATOR": "oauthserver.audience.exact_audience",
    "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
    "REFRESH_TOKEN_EXPIRE_SECONDS": 30 * 24 * 3600,
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "AUTHORIZATION_CODE_EXPIRE_SECONDS": 60,
    # The library's fallback only: oauthserver.redirect_uris decides, and lets loopback use http.
    "ALLOWED_REDIRECT_URI_SCHEMES": ["https"],
    "ALLOW_LOCALHOST_LOOPBACK": True,
    "OIDC_ENABLED": bool(OIDC_RSA_PRIVATE_KEY),
    "OIDC_RSA_PRIVATE_KEY": OIDC_RSA_PRIVATE_KEY,
    "OIDC_ISS_ENDPOINT": PUBLIC_URL,
    "ID_TOKEN_EXPIRE_SECONDS": 3600,
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
    "COMPLIANT_BCP_RFC9700_REFRESH_TOKEN": True,
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_SCHEME": True,
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_MATCHING": True,
    "COMPLIANT_BCP_RFC9700_PKCE_REQUIRED": True,
}

# Read-only REST -------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 100,
}

# Cookies and headers --------------------------------------------------------
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SERVED_OVER_TLS
SESSION_COOKIE_NAME = "__Host-gateway-session" if SERVED_OVER_TLS else "gateway-session"
CSRF_COOKIE_NAME = "__Host-gateway-csrf" if SERVED_OVER_TLS else "gateway-csrf"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE: int = env.int("SESSION_HOURS", default=12) * 3600
CSRF_COOKIE_HTTPONLY = True
MESSAGE_STORAGE = "gateway_site.message_cookie.PageMessages"
X_FRAME_OPTIONS = "DENY"
# With "no-referrer" browsers send "Origin: null" with every form, and Django refuses the form.
# "same-origin" tells other sites just as little.
SECURE_REFERRER_POLICY = "same-origin"
CSRF_FAILURE_VIEW = "gateway_site.error_pages.csrf_failure"
# Only a trusted proxy can tell that a caller came over plain http (trusted_proxy.py).
SECURE_SSL_REDIRECT = SERVED_OVER_TLS
SECURE_HSTS_SECONDS = 31_536_000 if SERVED_OVER_TLS else 0
# Hosts that open the sign-in page in a popup need their opener.
SECURE_CROSS_ORIGIN_OPENER_POLICY = None
# No form-action: Chromium applies it to every redirect that follows a form, so sign-in at an
# identity provider, Connect at an upstream and Authorize at a client that sends the browser on
# would stop half way (docs/adr/2026-11-23-no-form-action.md).
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
}
