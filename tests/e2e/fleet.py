"""A Prefect server's worker and deployments, as a platform engineer sets them up; driven by the API."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Scheduled
from workbench import Bench, wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def shell(command: str, bench: Bench, cwd: Path = ROOT) -> str:
    """Run a line as a shell would, from the root of the repository; what it printed."""
    env = {**bench.env, "PATH": f"{BIN}:{bench.env['PATH']}"}
    ran = subprocess.run(["bash", "-c", command], cwd=cwd, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@contextmanager
def working(bench: Bench, command: str, ready: str) -> Any:
    """A worker, or what serves in its place, for as long as the block lasts."""
    env = {**bench.env, "PATH": f"{BIN}:{bench.env['PATH']}", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    log = bench.folder / "worker.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command.split(), cwd=bench.folder, env=env, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: ready in log.read_text())
        yield log
    finally:
        process.terminate()
        process.wait(60)


def start(deployment: str, **parameters: Any) -> UUID:
    """Start a run as the form does, with its values."""
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        return client.create_flow_run_from_deployment(found.id, parameters=parameters).id


def read(run: UUID) -> FlowRun:
    """A run as the server has it."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def ended(run: UUID, timeout_s: float = 300.0) -> State[Any]:
    """Follow a run to its end."""

    def final() -> State[Any] | None:
        state = read(run).state
        return state if state is not None and state.is_final() else None

    return wait_until(final, timeout_s)


def cancel(run: UUID) -> State[Any]:
    """Cancel a run as the button does, and follow it to its end."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())
    return ended(run)


def retry(run: UUID) -> None:
    """Retry a run as the button does."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Scheduled(name="AwaitingRetry"), force=True)


def runs_of(deployment: str) -> list[FlowRun]:
    """The runs of a deployment, latest first."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        id_ = client.read_deployment_by_name(deployment).id
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[id_]))
        return client.read_flow_runs(deployment_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC)


def events(name: str, run: UUID) -> list[dict[str, Any]]:
    """The events of a name that a run sent, as the server has them."""
    with get_client(sync_client=True) as client:
        response = client._client.post(  # noqa: SLF001  (the client has no call for it)
            "/events/filter",
            json={"filter": {"event": {"name": [name]}, "any_resource": {"id": [f"prefect.flow-run.{run}"]}}},
        )
    response.raise_for_status()
    return response.json()["events"]
