"""The legs of ``.ci/run``, one after the other; standard library only.

Each leg prints pytest's closing line; the very last line is the total over all legs. A leg
that cannot be prepared counts as one failure, and the others still run. Services are private
to the run, on free ports in a temporary folder, so that two runs do not meet. Names given as
arguments (``suite npm browser postgres redis races``) run only those legs.
"""

# ruff: noqa: S603, the commands are our own

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
CLOSING = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s")
PASSED, FAILED = ("passed", "xfailed"), ("failed", "error", "errors", "xpassed")
LEG_SECONDS = 1200
# Tests wait for sockets and processes half of the time, so more of them run than there are cores.
WORKERS = str((os.cpu_count() or 2) + 1)
# What goes through the cache or the channel layer; the journeys start processes of their own.
TESTS_WITH_REDIS = (
    *(f"tests/{room}" for room in ("virtualmcp", "oauthserver", "consent")),
    *(
        f"tests/gateway_site/test_{name}.py"
        for name in (
            "backchannel_logout",
            "change_feed",
            "identity_recheck",
            "openid_sign_in",
            "people_sessions",
            "production_server",
            "saml_single_logout",
            "scim_limits",
            "sign_in",
            "strangers_on_their_way",
            "withdrawn_under_way",
        )
    ),
    "tests/journeys/test_servers_and_nodes.py",
    "tests/journeys/test_questions_over_nodes.py",
)
# They make a few rows and are about servers, clients or the wire; SQLite's run proves them, as
# it does the journeys, whose gateways have SQLite.
NOT_ABOUT_THE_DATABASE = (
    "gateway_site/test_bin_serve.py",
    "gateway_site/test_client_connections.py",
    "gateway_site/test_demo_servers.py",
    "gateway_site/test_slow_reader.py",
    "virtualmcp/test_differential.py",
    "virtualmcp/test_endpoint_daphne.py",
    "virtualmcp/test_endpoint_gate.py",
    "virtualmcp/test_express_channel.py",
    "virtualmcp/test_express_lane_reads.py",
    "virtualmcp/test_express_lane_upstreams.py",
    "virtualmcp/test_icons.py",
    "virtualmcp/test_mirrored_arguments.py",
    "virtualmcp/test_resource_uris.py",
)


class CannotPrepare(Exception):
    """What a leg needs is not there and could not be installed."""


@dataclass
class Leg:
    """How one leg ended."""

    name: str
    passed: int = 0
    failed: int = 0
    closing: list[str] = field(default_factory=list)


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def run_and_read(leg: Leg, command: list[str], environment: dict[str, str]) -> None:
    """Run a command in the repository, show its output, count what its closing line says."""
    say(f"[{leg.name}] {' '.join(command)}")
    deadline = time.monotonic() + LEG_SECONDS
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        closing = ""
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if CLOSING.match(line):
                closing = line.strip()
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                leg.failed += 1
                closing = f"{closing} stopped after {LEG_SECONDS} s"
    counts = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", closing)}
    failed = sum(counts.get(word, 0) for word in FAILED)
    leg.passed += sum(counts.get(word, 0) for word in PASSED)
    # Linters and type checks have no closing line: their failure is one failure.
    leg.failed += failed or (1 if process.returncode != 0 else 0)
    leg.closing.append(closing or f"ended with status {process.returncode}")


def pytest(leg: Leg, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run pytest in the environment that ``bin/test`` made."""
    command = [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run_and_read(leg, command, environment or {})


# Installing ------------------------------------------------------------------------
def as_root(*command: str) -> None:
    """Run a command as root; raises CannotPrepare when it fails."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n", "-E"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say(f"  {' '.join(command)}")
    try:
        done = subprocess.run(
            [*prefix, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise CannotPrepare(f"{command[0]}: {failure}") from failure
    if done.returncode != 0:
        raise CannotPrepare(f"{' '.join(command)} failed: {done.stdout[-1000:]}")


def install(*packages: str) -> None:
    """Install system packages."""
    as_root("apt-get", "update", "-q")
    as_root("apt-get", "install", "-y", "-q", "--no-install-recommends", *packages)


def program(*names: str, folders: tuple[str, ...] = (), packages: tuple[str, ...] = ()) -> str:
    """Return the path of the first program found, after installing ``packages`` if need be."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_expanded(folders)])
    found = next((where for name in names if (where := shutil.which(name, path=path))), "")
    if found or not packages:
        return found
    install(*packages)
    found = program(*names, folders=folders)
    if not found:
        raise CannotPrepare(f"{names[0]} is still missing after installing {', '.join(packages)}")
    return found


def _expanded(folders: tuple[str, ...]) -> list[str]:
    return [str(match) for one in folders for match in sorted(Path("/").glob(one.lstrip("/")))]


# Services --------------------------------------------------------------------------
def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes] | None", what: str) -> None:
    """Wait until something listens; raises CannotPrepare after 30 seconds."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise CannotPrepare(f"{what} did not start on port {port}")


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis of our own that keeps nothing; yields its URL."""
    server = program("redis-server", "valkey-server", packages=("redis-server",))
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly"]
    with (
        tempfile.TemporaryDirectory(prefix="ci-redis-") as folder,
        subprocess.Popen([*command, "no"], cwd=folder, stdout=subprocess.DEVNULL) as process,
    ):
        try:
            wait_for_port(port, process, "Redis")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server that lets us make databases.

    One that is named by ``GATEWAY_TEST_POSTGRES_URL`` or that answers on the usual port without
    a password is used; otherwise one of our own is started in a temporary folder.
    """
    for url in (
        os.environ.get("GATEWAY_TEST_POSTGRES_URL", ""),
        "postgres://postgres@127.0.0.1:5432/postgres",
    ):
        if url and _can_make_databases(url):
            say(f"  using the PostgreSQL server at {url.rpartition('@')[2]}")
            yield url
            return
    with _own_postgres() as url:
        yield url


def _can_make_databases(url: str) -> bool:
    code = (
        "import sys, psycopg\n"
        "with psycopg.connect(sys.argv[1], connect_timeout=3) as c:\n"
        "    row = c.execute('select rolcreatedb or rolsuper from pg_roles "
        "where rolname = current_user').fetchone()\n"
        "    sys.exit(0 if row and row[0] else 1)"
    )
    tried = subprocess.run([PYTHON, "-c", code, url], capture_output=True, check=False)
    return tried.returncode == 0


@contextmanager
def _own_postgres() -> Iterator[str]:
    folders = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/usr/local/bin")
    initdb = program("initdb", folders=folders, packages=("postgresql",))
    binaries = Path(initdb).resolve().parent
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 and _exists("postgres") else "nobody"
    prefix = ["setpriv", f"--reuid={user}", "--clear-groups"] if os.geteuid() == 0 else []
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ci-postgres-"))
    try:
        if prefix:
            shutil.chown(folder, user)
        made = subprocess.run(
            [*prefix, initdb, "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"],
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
        if made.returncode != 0:
            raise CannotPrepare(f"initdb failed: {made.stderr[-800:]}")
        options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
        options += ["-c", "fsync=off", "-c", "max_connections=200"]
        command = [*prefix, str(binaries / "postgres"), "-D", str(folder / "data"), *options]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for_port(port, process, "PostgreSQL")
                yield f"postgres://postgres@127.0.0.1:{port}/postgres"
            finally:
                process.terminate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def npm_packages(folder: str) -> None:
    """Install exactly what a folder of the tests locks."""
    manager = program("npm", packages=("nodejs", "npm"))
    done = subprocess.run(
        [manager, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=ROOT / "tests" / folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        raise CannotPrepare(f"npm ci failed: {done.stdout[-800:]}{done.stderr[-800:]}")


# Legs ------------------------------------------------------------------------------
def suite(leg: Leg) -> None:
    """The README's command: checks and the tests that need nothing else."""
    run_and_read(leg, [str(ROOT / "bin" / "test")], {})


def npm(leg: Leg) -> None:
    """The official TypeScript clients and the conformance suite."""
    npm_packages("npm")
    # Two files at a time: each starts a gateway of its own.
    pytest(leg, "-m", "npm", "-n", "2", "--dist", "loadfile")


def browser(leg: Leg) -> None:
    """The pages in Chromium, with axe-core for their accessibility, and consent in Firefox."""
    npm_packages("browser")
    packages = ("chromium", "fonts-liberation")
    found = program("chromium", "chromium-browser", "google-chrome", packages=packages)
    fox = program("firefox-esr", "firefox", packages=("firefox-esr",))
    wanted = ("-m", "browser", "-n", "2", "--timeout", "180")
    pytest(leg, *wanted, environment={"CHROMIUM": found, "FIREFOX": fox})


def postgres(leg: Leg) -> None:
    """Everything that touches the database, on PostgreSQL."""
    with postgres_server() as url:
        name = f"gateway_ci_{os.getpid()}"
        environment = {
            "DATABASE_URL": f"{url.rpartition('/')[0]}/{name}",
            "GATEWAY_TEST_POSTGRES_URL": url,
        }
        wanted = "not browser and not npm and not redis and not races"
        left_out = (f"--ignore=tests/{path}" for path in NOT_ABOUT_THE_DATABASE)
        options = ("-n", WORKERS, "--create-db", "--only-database", *left_out)
        pytest(leg, *options, "-m", wanted, environment=environment)


def redis(leg: Leg) -> None:
    """What goes through Redis: the channel layer, shared counters, several nodes."""
    with redis_server() as url:
        environment = {"GATEWAY_TEST_REDIS_URL": url, "REDIS_URL": url}
        wanted = "not browser and not npm and not postgres and not races"
        pytest(leg, "-n", WORKERS, "-m", wanted, *TESTS_WITH_REDIS, environment=environment)


def races(leg: Leg) -> None:
    """Races between processes: a few rounds, or what ``TOKEN_RACE_ROUNDS`` and the like say."""
    with postgres_server() as url:
        environment = {"GATEWAY_TEST_POSTGRES_URL": url}
        pytest(leg, "-m", "races", "-s", "--timeout", "5400", environment=environment)


LEGS: dict[str, Callable[[Leg], None]] = {
    "suite": suite,
    "npm": npm,
    "browser": browser,
    "postgres": postgres,
    "redis": redis,
    "races": races,
}


def main() -> int:
    """Run the legs, print the summary, return the exit status."""
    chosen = sys.argv[1:] or list(LEGS)
    ended = []
    for name in chosen:
        leg, started = Leg(name), time.monotonic()
        say(f"\n===== {name} =====")
        try:
            LEGS[name](leg)
        except (CannotPrepare, OSError, subprocess.SubprocessError) as failure:
            say(f"[{name}] {failure}")
            leg.failed += 1
            leg.closing.append(f"not run: {str(failure).splitlines()[0]}")
        if not leg.passed and not leg.failed:
            leg.failed, leg.closing = 1, ["no test ran"]
        leg.closing.append(f"({time.monotonic() - started:.0f} s)")
        ended.append(leg)
    say("\n===== summary =====")
    for leg in ended:
        say(f"{leg.name}: {' '.join(leg.closing)}")
    failed = sum(leg.failed for leg in ended)
    say(f"{sum(leg.passed for leg in ended)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
