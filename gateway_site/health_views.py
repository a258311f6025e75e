"""``/healthz`` (the process answers) and ``/readyz`` (it can do its work), for load balancers.

Both are answered before hosts are checked, because probes call a node by its address, and
say nothing about the inside beyond which part is not ready.
"""

import logging
from collections.abc import Callable

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

logger = logging.getLogger(__name__)

_stopping = False
_migrated = False


def stop_being_ready() -> None:
    """Answer 503 on ``/readyz`` from now on, so that no new traffic comes while draining."""
    global _stopping
    _stopping = True


def _database_state() -> str:
    """Return "" or the name of what is missing (blocking)."""
    global _migrated
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not _migrated:
            executor = MigrationExecutor(connection)
            _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Exception as failure:
        logger.error("the database is not ready: %s", type(failure).__name__)
        return "database"
    return "" if _migrated else "migrations"


def healthz(request: HttpRequest) -> HttpResponse:
    """The process is alive."""
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when this node can take traffic, else 503 with the part that is missing."""
    waiting_for = "stopping" if _stopping else _database_state()
    if waiting_for:
        return JsonResponse({"ready": False, "waiting_for": waiting_for}, status=503)
    return JsonResponse({"ready": True})


class HealthMiddleware:
    """Answers the two probes ahead of everything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a probe, or hand the request on."""
        probe = {"/healthz": healthz, "/readyz": readyz}.get(request.path)
        if probe is None or request.method not in ("GET", "HEAD"):
            return self.get_response(request)
        response = probe(request)
        response.headers["Cache-Control"] = "no-store"
        return response
