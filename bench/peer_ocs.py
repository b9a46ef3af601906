"""The peer: OCS agents behind a crossbar router. Usage: peer_ocs.py CALLS [AGENTS]; prints one JSON object.

With AGENTS, so many agents are called at once, each from a thread of its own, as OCS's clients do it.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from ocs.ocs_client import OCSClient

PORT = 18001
PATIENCE_S = 60
WARM_UP = 20
REALM = "bench"
ROLE = {
    "name": "agent",
    "permissions": [
        {
            "uri": "",
            "match": "prefix",
            "allow": {"call": True, "register": True, "publish": True, "subscribe": True},
            "disclose": {"caller": False, "publisher": False},
            "cache": True,
        }
    ],
}
PATHS = {
    "/": {"type": "static", "directory": "."},
    "ws": {
        "type": "websocket",
        "auth": {"anonymous": {"type": "static", "role": "agent"}},
        "options": {"auto_ping_interval": 10000, "auto_ping_timeout": 5000, "auto_ping_size": 12},
    },
    "call": {"type": "caller", "realm": REALM, "role": "agent", "options": {"debug": False}},
}
TRANSPORT = {
    "type": "web",
    "endpoint": {"type": "tcp", "port": PORT, "interface": "127.0.0.1"},
    "paths": PATHS,
}
ROUTER = {
    "version": 2,
    "controller": {},
    "workers": [{"type": "router", "realms": [{"name": REALM, "roles": [ROLE]}], "transports": [TRANSPORT]}],
}
SITE = {
    "hub": {
        "wamp_server": f"ws://127.0.0.1:{PORT}/ws",
        "wamp_http": f"http://127.0.0.1:{PORT}/call",
        "wamp_realm": REALM,
        "address_root": "observatory",
    },
    "hosts": {
        "bench": {
            "agent-instances": [
                {"agent-class": "Bench", "instance-id": name, "arguments": []}
                for name in ("bench", *(f"bench-{number}" for number in range(64)))
            ]
        },
    },
}


def main(calls: int, agents: int = 0) -> None:
    """Start router and agents, measure, and take them down again."""
    with tempfile.TemporaryDirectory(prefix="labwright-ocs-") as folder:
        home = Path(folder)
        (home / ".crossbar").mkdir()
        (home / ".crossbar" / "config.json").write_text(json.dumps(ROUTER))
        (home / "site.yaml").write_text(json.dumps(SITE))  # JSON is YAML
        os.environ["OCS_CONFIG_DIR"] = folder
        crossbar = shutil.which("crossbar", path=str(Path(sys.executable).parent)) or "crossbar"
        router = started([crossbar, "start", "--cbdir", str(home / ".crossbar")], home)
        names = [f"bench-{number}" for number in range(agents)] or ["bench"]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes = [started_agent(home, name) for name in names]
            clients = [connected(home, name) for name in names]
            print(json.dumps(fanned_out(clients, calls) if agents else measured(clients[0], processes[0], calls)))
        finally:
            for process in (*processes, router):
                end(process)


def started(command: list[str], home: Path) -> "subprocess.Popen[bytes]":
    """Start a process that says nothing."""
    return subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def started_agent(home: Path, name: str) -> "subprocess.Popen[bytes]":
    """Start an agent; OCS's agents end themselves when the router is not there yet, so it is tried again."""
    script = Path(__file__).with_name("peer_ocs_agent.py")
    site = ["--site-file", str(home / "site.yaml"), "--site-host", "bench", "--instance-id", name]
    return started([sys.executable, str(script), *site, "--crossbar-timeout", "0"], home)


def connected(home: Path, name: str) -> Any:
    """Give a client as soon as the agent answers."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return OCSClient(name, args=["--site-file", str(home / "site.yaml")])
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def measured(client: Any, agent: "subprocess.Popen[bytes]", calls: int) -> dict[str, float]:
    """Start and wait for the task, again and again."""
    times: list[float] = []
    for _ in range(WARM_UP + calls):
        began = time.perf_counter()
        client.nothing.start()
        reply = client.nothing.wait()
        times.append((time.perf_counter() - began) * 1000)
        assert reply.session["success"], reply
    memory = psutil.Process(agent.pid).memory_info().rss / 1e6
    return {"round_trip_p50_ms": statistics.median(times[WARM_UP:]), "memory_mb": memory}


def fanned_out(clients: list[Any], calls: int) -> dict[str, float]:
    """Start and wait for the task on all at once, a thread for each, again and again."""

    def call(client: Any) -> None:
        client.nothing.start()
        reply = client.nothing.wait()
        assert reply.session["success"], reply

    times: list[float] = []
    with ThreadPoolExecutor(len(clients)) as threads:
        for _ in range(calls):
            began = time.perf_counter()
            list(threads.map(call, clients))
            times.append((time.perf_counter() - began) * 1000)
    return {"fan_out_p50_ms": statistics.median(times[calls // 5 :])}


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it has started."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.kill()
    process.wait()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
