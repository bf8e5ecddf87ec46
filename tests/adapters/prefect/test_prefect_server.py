"""The command's own Prefect server: started before it is known whether it is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROFILES = """
active = "mine"
[profiles.mine]
PREFECT_API_URL = "http://127.0.0.1:9/api"
"""
CODE = """
import os, psutil
from s2v_tasks.adapters.prefect import server as prefect_server
prefect_server.prestart()
(started,) = psutil.Process().children()
prefect_server.ensure_prefect_api()
url = os.environ.get("PREFECT_API_URL")
print(url, started.wait(60) if url is None else started.is_running())
"""


def prestarted(home: Path, code: str = CODE, **added: str) -> list[str]:
    """The API's URL in the environment after both steps; the early server's exit status, or that it runs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=home,
        env={**clean, "PREFECT_HOME": str(home), **added},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_a_server_that_is_not_needed_ends_before_it_has_booted(tmp_path: Path) -> None:
    """A detector names the user's server: that one is used, and the early one ends."""
    (tmp_path / "profiles.toml").write_text(PROFILES, "utf-8")
    assert prestarted(tmp_path) == ["None", "0"]


def test_the_early_server_is_the_one_that_is_used(tmp_path: Path) -> None:
    """Without a server of the user's there is one process, and its URL is where runs go."""
    url, is_running = prestarted(tmp_path)
    assert url.startswith("http://127.0.0.1:")
    assert is_running == "True"


READY = """
import os
from s2v_tasks.adapters.prefect import server as prefect_server
from s2v_tasks.errors import PrefectUnavailable
prefect_server.prestart()
prefect_server.ensure_prefect_api()
try:
    prefect_server.wait_until_ready()
except PrefectUnavailable as error:
    print(str(error).replace(" ", "_"))
else:
    import asyncio
    from prefect import get_client

    async def count():
        async with get_client() as client:
            return len(await client.read_flow_runs())

    print("runs", asyncio.run(count()))
"""


@pytest.mark.ci
def test_the_own_server_is_reached_whatever_the_machine_is_set_to(tmp_path: Path) -> None:
    """A proxy, another server's password and base path, and modules of the current folder are not for it."""
    for name in ("secrets.py", "queue.py"):
        (tmp_path / name).write_text("raise SystemExit('executed')", "utf-8")
    added = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
        "PREFECT_SERVER_API_AUTH_STRING": "admin:sesame",
        "PREFECT_SERVER_API_BASE_PATH": "/elsewhere",
    }
    assert prestarted(tmp_path, READY, **added) == ["runs", "0"]


def test_a_server_that_can_not_start_is_noticed_with_its_last_line(tmp_path: Path) -> None:
    """No advice about defects: what ended it, and what to do."""
    (tmp_path / "file").write_text("no folder", "utf-8")
    (line,) = prestarted(tmp_path, READY, PREFECT_HOME=str(tmp_path / "file" / "home"))
    assert line.startswith("the_command's_own_Prefect_server_ended:_PREFECT_HOME_(")
    assert "is_no_folder" in line
    assert "PREFECT_API_URL" in line
