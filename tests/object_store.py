"""A real S3-speaking server on loopback: SeaweedFS, one binary from pip."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

KEY, SECRET, READER = "test-key", "test-secret-hunter2", "read-only-key"
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
    "s3.port", "s3.port.grpc",
)  # fmt: skip


def _identity(name: str, *actions: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": actions}


def environment(port: int, key: str = KEY) -> dict[str, str]:
    """What a user would set for a server of one's own."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The server, and the environment for those who use it; it makes a bucket when something is put there.

    A bucket takes seven volumes; without a free one, each put into a new bucket ends with status 500.

    Started again on a folder, it has what it had, where it was.
    """
    again = (folder / "ports.json").exists()
    for left in (2, 1, 0):
        server, env = _start(folder, again=again)
        try:
            if _is_ready(env, server, again=again):
                yield env
                return
        finally:
            server.kill()
            server.wait()
        # Another process was given one of the ports meanwhile.
        assert left, (folder / "log").read_text()
        assert not again, (folder / "log").read_text()


def _start(folder: Path, *, again: bool) -> tuple["subprocess.Popen[bytes]", dict[str, str]]:
    known = folder / "ports.json"
    if not again:
        known.write_text(json.dumps(dict(zip(PORTS, _free(len(PORTS)), strict=True))))
    ports = json.loads(known.read_text())
    identities = [_identity(KEY, "Admin", "Read", "Write", "List"), _identity(READER, "Read", "List")]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                Path(sys.executable).parent / "weed", "server", f"-dir={folder}", "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1", "-master.electionTimeout=1s", "-master.volumeSizeLimitMB=64",
                "-master.telemetry=false", "-volume.max=500", "-filer", "-s3",
                f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-s3.autoCreateBucket=true",
                "-s3.port.iceberg=0", "-s3.port.lance=0",
                *(f"-{name}={port}" for name, port in ports.items()),
            ],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    return server, environment(ports["s3.port"])


def client(env: dict[str, str], bucket: str = "bucket") -> S3Store:
    """The tests' own client."""
    names = {
        "endpoint": "AWS_ENDPOINT_URL", "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY", "region": "AWS_REGION",
    }  # fmt: skip
    config = {name: env[variable] for name, variable in names.items()}
    return S3Store(
        bucket, config=config, client_options={"allow_http": True}, retry_config={"max_retries": 0}
    )  # type: ignore[arg-type]


def _free(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_ready(env: dict[str, str], server: "subprocess.Popen[bytes]", *, again: bool) -> bool:
    until, store = time.monotonic() + 120, client(env)
    while server.poll() is None and time.monotonic() < until:
        try:
            if again:  # what it had
                obstore.get(store, "up").bytes()
            obstore.put(store, "up", b"up" * 10_000)
        except (BaseError, OSError):
            time.sleep(0.1)
        else:
            return True
    return False
