"""Settings of the test process: the product's own, with keys and data made for the run."""

import os
import tempfile

os.environ.setdefault("SECRET_KEY", "a-key-only-for-tests-0123456789abcdef0123456789abcdef")
os.environ.setdefault("GATEWAY_ENCRYPTION_KEYS", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
os.environ.setdefault("GATEWAY_DATA_DIR", tempfile.mkdtemp(prefix="gateway-tests-"))
os.environ.setdefault("PUBLIC_URL", "http://localhost:8000")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", "true")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA", "true")

from gateway_site.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    # A file: an in-memory database is shared between threads with other locks than a real one.
    _folder = tempfile.mkdtemp(prefix="gateway-tests-db-")
    DATABASES["default"]["TEST"] = {"NAME": f"{_folder}/tests.sqlite3"}  # noqa: F405
