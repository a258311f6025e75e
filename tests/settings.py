"""Settings of the test process: the product's own, with keys and data made for the run."""

import atexit
import os
import shutil
import tempfile


def _folder_of_this_process(prefix: str) -> str:
    """Make a folder that goes with the process."""
    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


os.environ.setdefault("SECRET_KEY", "a-key-only-for-tests-0123456789abcdef0123456789abcdef")
os.environ.setdefault("GATEWAY_ENCRYPTION_KEYS", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
if "GATEWAY_DATA_DIR" not in os.environ:
    # Workers have that of the process that started them.
    os.environ["GATEWAY_DATA_DIR"] = _folder_of_this_process("gateway-tests-")
os.environ.setdefault("PUBLIC_URL", "http://localhost:8000")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", "true")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA", "true")
if os.environ.get("REDIS_URL") and "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker clears its caches, so each has a Redis database of its own; 0 is the journeys'.
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) + 1
    os.environ["REDIS_URL"] = f"{os.environ['REDIS_URL'].rpartition('/')[0]}/{_number}"

from gateway_site.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    # A file: an in-memory database is shared between threads with other locks than a real one.
    _folder = _folder_of_this_process("gateway-tests-db-")
    DATABASES["default"]["TEST"] = {"NAME": f"{_folder}/tests.sqlite3"}  # noqa: F405
