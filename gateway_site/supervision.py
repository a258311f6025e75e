"""Runs a few processes as one: started together, watched, ended together. Standard library only."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
CRASHES_ALLOWED = 5
CRASH_WINDOW = 60.0


def _die_with_parent() -> None:
    """Have Linux end this child when the supervisor is killed outright."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """One process.

    ``vital``: everything ends with it, else it is started again. ``needed``: it is started
    again, but everything ends when it keeps ending. ``sockets`` are file descriptors it inherits.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    vital: bool = False
    needed: bool = False
    sockets: tuple[int, ...] = ()
    # Asked while it runs: whether it is no longer wanted.
    unwanted: Callable[[], bool] = lambda: False
    process: subprocess.Popen[bytes] | None = None
    crashes: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the process in a session of its own: Ctrl-C reaches only the supervisor."""
        self.process = subprocess.Popen(  # noqa: S603
            self.command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            pass_fds=self.sockets,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None


class Ended(Exception):
    """A signal asked to stop."""


class Supervisor:
    """Starts children in order and stops them in the reverse order."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._children: list[Child] = []
        self._say = say
        self._stopping = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)

    def start(self, child: Child) -> None:
        """Start a child and keep it."""
        self._children.append(child)
        child.start()

    def wait_until(
        self, ready: Callable[[], bool], children: Sequence[Child], seconds: float
    ) -> bool:
        """Wait until ``ready()``; False when one of the children ended or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if ready():
                return True
            if not all(child.running() for child in children):
                return False
            time.sleep(0.05)
        return False

    def watch(self) -> int:
        """Stay until a signal comes or a vital child ends; return the exit status."""
        while True:
            time.sleep(0.5)
            for child in list(self._children):
                if child.unwanted():
                    self._end(child)
                    continue
                if child.running():
                    continue
                code = child.process.returncode if child.process else 1
                if child.vital:
                    self._say(f"{child.name} ended with status {code}.")
                    return code if code > 0 else 1
                if not self._restart(child, code):
                    return code if code > 0 else 1

    def stop(self, grace: float) -> None:
        """End every child, vital ones first; kill what still runs after ``grace`` seconds."""
        self._stopping = True
        for child in reversed(self._children):
            if child.running() and child.process:
                child.process.terminate()
        deadline = time.monotonic() + grace
        for child in reversed(self._children):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill(child)

    def _restart(self, child: Child, code: int) -> bool:
        """Start a child again; False if it is needed and keeps ending."""
        now = time.monotonic()
        child.crashes = [at for at in child.crashes if now - at < CRASH_WINDOW] + [now]
        if len(child.crashes) > CRASHES_ALLOWED and child.needed:
            self._say(f"{child.name} keeps ending (status {code}); the gateway ends with it.")
            return False
        if len(child.crashes) > CRASHES_ALLOWED:
            self._say(
                f"{child.name} keeps ending (status {code}); it stays off until the next start."
            )
            self._children.remove(child)
            return True
        self._say(f"{child.name} ended with status {code}; starting it again.")
        child.start()
        return True

    def _end(self, child: Child) -> None:
        self._children.remove(child)
        if child.process is not None:
            child.process.terminate()
            try:
                child.process.wait(5)
            except subprocess.TimeoutExpired:
                self._kill(child)

    def _kill(self, child: Child) -> None:
        if child.process is not None:
            child.process.kill()
            child.process.wait()

    def _asked_to_stop(self, number: int, frame: object) -> None:
        if self._stopping:
            # Asked twice: no more patience.
            for child in self._children:
                self._kill(child)
            os._exit(130)
        raise Ended
