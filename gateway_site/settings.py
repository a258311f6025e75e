"""Everything the gateway reads from its environment, on one page.

Each variable may also be given as ``NAME_FILE``: a path whose content is the value.
``configuration_checks`` validates the combination and says what to mend.
"""

from pathlib import Path
from urllib.parse import urlsplit

import environ

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()

# Addresses ------------------------------------------------------------------
PUBLIC_URL: str = env.str("PUBLIC_URL", default="http://localhost:8000").rstrip("/")
_public = urlsplit(PUBLIC_URL)
PUBLIC_HOST: str = _public.netloc.lower()
SERVED_OVER_TLS: bool = _public.scheme == "https"
ALLOWED_HOSTS = [_public.hostname or "localhost", *env.list("GATEWAY_EXTRA_HOSTS", default=[])]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

# Keys and data --------------------------------------------------------------
DATA_DIR = Path(env.str("GATEWAY_DATA_DIR", default=str(Path.home() / ".local/share/mcp-gateway")))
SECRET_KEY: str = env.str("SECRET_KEY", default="")
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# Comma separated, URL-safe base64 of 32 bytes each; the first one encrypts, all of them open.
GATEWAY_ENCRYPTION_KEYS: list[str] = env.list("GATEWAY_ENCRYPTION_KEYS", default=[])
DEBUG = False

DATABASE_URL: str = env.str("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'gateway.sqlite3'}")
DATABASES = {"default": environ.Env.db_url_config(DATABASE_URL)}
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
    CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
    }
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL]},
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
GATEWAY_ALLOWED_ORIGINS: list[str] = env.list("GATEWAY_ALLOWED_ORIGINS", default=[])
GATEWAY_EXTRA_CA_BUNDLE: str = env.str("GATEWAY_EXTRA_CA_BUNDLE", default="")
# Development only; refused by a system check when PUBLIC_URL is not a loopback address.
GATEWAY_ALLOW_LOOPBACK_UPSTREAMS: bool = env.bool("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", default=False)
GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA: bool = env.bool(
    "GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA", default=False
)

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
    "allauth.socialaccount.providers.openid_connect",
    "allauth.mfa",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
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
STATIC_ROOT = DATA_DIR / "static"
WHITENOISE_USE_FINDERS = True
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

# Sign-in --------------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Authorization server -------------------------------------------------------
OAUTH2_PROVIDER_APPLICATION_MODEL = "oauthserver.OAuthClient"
OAUTH2_PROVIDER: dict[str, object] = {}

# Cookies and headers --------------------------------------------------------
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SERVED_OVER_TLS
SESSION_COOKIE_NAME = "__Host-gateway-session" if SERVED_OVER_TLS else "gateway-session"
CSRF_COOKIE_NAME = "__Host-gateway-csrf" if SERVED_OVER_TLS else "gateway-csrf"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
# With "no-referrer" browsers send "Origin: null" with every form, and Django refuses the form.
# "same-origin" tells other sites just as little.
SECURE_REFERRER_POLICY = "same-origin"
CSRF_FAILURE_VIEW = "gateway_site.error_pages.csrf_failure"
# Hosts that open the sign-in page in a popup need their opener (clients.md 3.10).
SECURE_CROSS_ORIGIN_OPENER_POLICY = None
