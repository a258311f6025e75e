"""Makes the Python environment from the lock files, then runs what was asked for.

Standard library only: this runs before anything is installed. An environment carries a
stamp of the locks it was made from, so a second run starts at once.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = ".installed-locks"
ADVICE = """
What to do next:
  - Is the package index reachable from here? Behind a proxy set HTTPS_PROXY; for an index of
    your own set PIP_INDEX_URL. Then run the same command again: it goes on where it stopped.
  - Is the disk full? The environment needs about 400 MB in {folder}.
"""


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(text, flush=True)


def fail(text: str) -> None:
    """Print what went wrong and end with status 1."""
    print(f"\n{text.strip()}\n", file=sys.stderr, flush=True)
    raise SystemExit(1)


def digest(lock: Path) -> str:
    """Name the content of a lock."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def make_environment(folder: Path) -> None:
    """Create the virtual environment, or create it anew when its Python is gone."""
    python = folder / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python.exists():
        code = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0:
            return
    say(f"Making a Python {version} environment in {folder} ...")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        text = made.stdout + made.stderr
        hint = (
            "Python came without its venv module.\n"
            f"  Debian, Ubuntu:  sudo apt install python{version}-venv"
            if "ensurepip" in text
            else f"Is {folder.parent} writable for you, and is there room on the disk?"
        )
        fail(f"The environment could not be made:\n{text.strip()}\n\n{hint}")


def install(folder: Path, lock: Path) -> None:
    """Install exactly what the lock names, verifying every hash; show how far it is."""
    packages = len(re.findall(r"^[A-Za-z0-9]", lock.read_text(), re.MULTILINE))
    say(f"Installing {packages} locked packages from {lock.name} ...")
    command: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install"]
    command += ["--require-hashes", "--no-deps", "--no-input", "-r", lock]
    command += ["--disable-pip-version-check"]
    started, seen, shown = time.monotonic(), 0, 0.0
    last_lines: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last_lines.append(line.rstrip())
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                seen += 1
            if line.startswith("Installing collected"):
                say("  unpacking ...")
            if seen and time.monotonic() - shown > 3:
                shown = time.monotonic()
                say(f"  {min(seen, packages)} of {packages}")
    if pip.returncode != 0:
        output = "\n".join(last_lines)
        advice = ADVICE.format(folder=folder)
        fail(f"{output}\n\nThe packages could not be installed.{advice}")
    say(f"  done in {time.monotonic() - started:.0f} s")


def ensure(folder: Path, lock: Path, *contained: Path) -> Path:
    """Return the Python of an environment that holds ``lock``; ``contained`` are its subsets."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        guard = open(folder.parent / f"{folder.name}.lock", "w")  # noqa: SIM115
    except OSError as failure:
        fail(
            f"{folder.parent} cannot be written: {failure.strerror}. Clone into a folder of yours."
        )
    with guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        make_environment(folder)
        stamp = folder / STAMP
        if not stamp.exists() or digest(lock) not in stamp.read_text().split():
            stamp.unlink(missing_ok=True)
            install(folder, lock)
            stamp.write_text("\n".join(digest(file) for file in (lock, *contained)) + "\n")
    return folder / "bin" / "python"


def data_directory_of(arguments: list[str]) -> str:
    """Return the value of ``--data-dir``: the settings are read before options are."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--data-dir="):
            return argument.partition("=")[2]
        if argument == "--data-dir" and position + 1 < len(arguments):
            return arguments[position + 1]
    return ""


def main() -> None:
    """``environment.py serve|test|install-tools [arguments]``."""
    action, arguments = sys.argv[1], sys.argv[2:]
    runtime, development = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"
    if action == "serve":
        python = ensure(ROOT / ".venv", runtime)
        chosen = data_directory_of(arguments)
        if chosen:
            os.environ["GATEWAY_DATA_DIR"] = str(Path(chosen).expanduser().absolute())
        command = [python, ROOT / "manage.py", "gateway_serve", *arguments]
    elif action == "install-tools":
        ensure(ROOT / ".venv", development, runtime)
        return
    else:
        python = ensure(ROOT / ".venv", development, runtime)
        ensure(ROOT / ".venvs" / "mcp1", ROOT / "requirements-mcp1.txt")
        command = [python, ROOT / "bin" / "run_checks.py", *arguments]
    sys.stdout.flush()
    os.execv(python, [str(part) for part in command])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
