"""Sources on a network that is not there: a clear error, no hang, and no token in any log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.processes import SCRIPTS
from tests.faults.tally import Tally
from tests.faults.tiny_study import ENVIRONMENT, ROOT

TOKEN = "hf_" + "NotARealTokenButOneToLookFor"
_LIMIT = 240


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts connections, reads, and closes them without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def serve() -> None:
            server.settimeout(0.2)
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(1)
                    with suppress(OSError):
                        connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def break_network(scratch: Path, model_json: Path) -> Tally:
    """A Hub model and a Hub data set, offline, behind a dead port, and at a server that says nothing."""
    tally = Tally("broken network")
    model = {"name": "far", "label": "far", "source": "hub", "location": "someone/absent", "revision": None}
    model |= {"width": 16, "depth": 3, "dtype": "float32", "trust_remote_code": False}
    corpus = {"name": "far", "label": "far", "source": "hub", "location": "someone/absent", "revision": None}
    corpus |= {"subset": None, "split": "train", "column": "text", "context": 32, "min_tokens": 4}
    corpus |= {"max_overlap": 0.2, "data_seed": 0, "licence": "unknown"}
    needs = {"train": 8, "test": 8, "ce": 1, "shard": 8}
    folder = scratch / "network"
    folder.mkdir()
    out = ["--out", "results/far/out"]
    jobs = {
        "model": [*_spec(model), *out],
        "tokens": [
            *_spec(corpus),
            *("--needs", json.dumps(needs), "--model", str(model_json), "--record", "results/far/r.json"),
            *out,
        ],
    }
    with silent_server() as port:
        broken = {
            "offline": {"HF_HUB_OFFLINE": "1"},
            "refused": {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
            "silent": {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{port}"},
        }
        for how, environment in broken.items():
            for name, arguments in jobs.items():
                _attempt(tally, f"{name}, {how}", folder, name, arguments, environment)
    logs = [
        path for path in folder.rglob("*") if path.is_file() and TOKEN in path.read_text(errors="replace")
    ]
    tally.fault(not logs, f"the token stands in {logs}")
    return tally


def _spec(value: dict[str, object]) -> list[str]:
    return ["--spec", json.dumps(value)]


def _attempt(
    tally: Tally, what: str, folder: Path, name: str, arguments: list[str], changes: dict[str, str]
) -> None:
    own = {"HF_TOKEN": TOKEN, "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    own |= {"HF_HUB_DOWNLOAD_TIMEOUT": "3", "HF_HUB_ETAG_TIMEOUT": "3"}
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--log", f"results/logs/{name}.log", *arguments]
    environment = {**os.environ, **ENVIRONMENT, **own, **changes}
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        environment.pop(proxy, None)
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT, check=False, env=environment, cwd=folder
        )
    except subprocess.TimeoutExpired:
        tally.fault(False, f"{what}: no end after {_LIMIT} s")
        return
    text = ended.stdout + ended.stderr
    clear = ended.returncode == 2 and "error: " in text and "network" in text and "Traceback" not in text
    tally.fault(clear and TOKEN not in text, f"{what}: code {ended.returncode}: {text[-600:]}")
