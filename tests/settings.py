"""Settings of the test process: the product's own, with keys and data made for the run."""

import os
import tempfile

os.environ.setdefault("SECRET_KEY", "a-key-only-for-tests-0123456789abcdef0123456789abcdef")
os.environ.setdefault("GATEWAY_ENCRYPTION_KEYS", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
os.environ.setdefault("GATEWAY_DATA_DIR", tempfile.mkdtemp(prefix="gateway-tests-"))
os.environ.setdefault("PUBLIC_URL", "http://localhost:8000")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", "true")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA", "true")
if os.environ.get("REDIS_URL") and "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker clears its caches, so each has a Redis database of its own; 0 is the journeys'.
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) + 1
    os.environ["REDIS_URL"] = f"{os.environ['REDIS_URL'].rpartition('/')[0]}/{_number}"

from gateway_site.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    # A file: an in-memory database is shared between threads with other locks than a real one.
    _folder = tempfile.mkdtemp(prefix="gateway-tests-db-")
    DATABASES["default"]["TEST"] = {"NAME": f"{_folder}/tests.sqlite3"}  # noqa: F405
