"""Prefect's server goes away in mid-run, or the run's process does: nothing is lost or paid twice."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fleet import BIN
from prefect import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from workbench import Bench, ended, ledger_ids, pointer, wait_until

from s2v_tasks.adapters.prefect.setup import zombies

AWAY_S = 90


class Server:
    """A Prefect server on a port of its own, that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self._env = {**os.environ, "PREFECT_HOME": str(home)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._is_up, 120)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Prefect server of this test's own."""
    server = Server(tmp_path / "prefect")
    server.start()
    yield server
    server.kill()


def event_count(server: Server, name: str) -> int:
    """How many events of a name the server has."""
    wanted = {"filter": {"event": {"name": [name]}}}
    response = httpx.post(f"{server.api}/events/filter", json=wanted, trust_env=False)
    return response.raise_for_status().json()["total"]


@pytest.mark.slow
def test_a_server_away_for_90_s_in_mid_run_costs_nothing(rate_limited: Bench, server: Server) -> None:
    """600 images at 5 a second; killed after the first, back 90 s later: published, ledger = invoice."""
    rate_limited.env["PREFECT_API_URL"] = server.api
    candidates = rate_limited.candidates(rate_limited.portraits(600))
    process = rate_limited.start(*rate_limited.curating(candidates))
    try:
        wait_until(lambda: len(rate_limited.billed_urls()) >= 20, 120)
        server.kill()
        gone = time.monotonic()
        before = len(rate_limited.billed_urls())
        while time.monotonic() - gone < AWAY_S:
            time.sleep(1)
        during = len(rate_limited.billed_urls()) - before
        server.start()
        ran = ended(process, 300)
    finally:
        process.kill()
    assert ran.status == 0, ran.err
    print(f"checked while the server was away for {AWAY_S} s: {during}")  # noqa: T201
    assert during > AWAY_S * 5 / 2
    wait_until(
        lambda: event_count(server, "s2v.dataset.published")
    )  # the downstream stage starts all the same
    assert pointer(rate_limited.out).rows == 600
    assert len(set(rate_limited.billed_urls())) == len(rate_limited.billed_urls()) == 600
    assert ledger_ids(rate_limited.out / "ledger.sqlite3") == rate_limited.billed_ids()


@pytest.mark.slow
def test_the_run_of_a_killed_process_is_ended_and_the_same_command_continues(
    rate_limited: Bench, server: Server
) -> None:
    """SIGKILL without a worker: the automation, here after a minute, ends the run; none is paid twice."""
    rate_limited.env |= {"PREFECT_API_URL": server.api, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    with temporary_settings({PREFECT_API_URL: server.api}), get_client(sync_client=True) as client:
        client.create_automation(zombies(timedelta(minutes=1)))
        command = rate_limited.curating(rate_limited.candidates(rate_limited.portraits(40)))
        killed = rate_limited.start(*command)
        wait_until(
            lambda: len(rate_limited.billed_urls()) >= 5 and event_count(server, "prefect.flow-run.heartbeat")
        )
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        (run,) = client.read_flow_runs()
        assert run.state_type is StateType.RUNNING
        wait_until(lambda: client.read_flow_run(run.id).state_type is StateType.CRASHED, 180)
        assert "repeat the command" in str(client.read_flow_run(run.id).state)
    ran = rate_limited.run(*command)
    assert ran.status == 0, ran.err
    assert len(set(rate_limited.billed_urls())) == len(rate_limited.billed_urls()) == 40
