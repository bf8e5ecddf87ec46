"""The screen on a task runner: its results must not depend on where it runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal
from workbench import Bench, Ran, descendants, ended, wait_until

from s2v_tasks import Advanced, CurationResult, Screening, curate
from s2v_tasks.settings import Runner

MODULES = {"dask": "prefect_dask", "ray": "prefect_ray"}


JOB = """
import asyncio, sys
from s2v_tasks import Advanced, Screening, curate

if __name__ == "__main__":
    screening = Screening(allow_private_hosts=True)
    advanced = Advanced(runner=sys.argv[3], estimate_sample_size=0)
    groups = {"screening": screening, "advanced": advanced}
    state = asyncio.run(curate(sys.argv[1], sys.argv[2], 1.0, **groups, return_state=True))
    print(state.message)
"""


def there(name: str) -> Any:
    """A runner; Ray is no part of the extra ``dev``, so its absence is no failure. Dask starts slowly."""
    if name == "ray":
        missing = find_spec(MODULES[name]) is None
        return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"needs the extra {name}"))
    marks = (pytest.mark.needs(MODULES[name]), pytest.mark.ci) if name in MODULES else ()
    return pytest.param(name, marks=marks)


def candidates(bench: Bench) -> str:
    """Good and bad images, dead links, one listed twice."""
    urls: list[str | None] = [*bench.portraits(12), bench.url(3), None, "http://127.0.0.1:9/nobody.jpg"]
    urls += [f"{bench.emulator.origin}/samples/{name}" for name in ("nothing.jpg", "page.html")]
    return bench.candidates([*urls, bench.url(7, "crowd")])


async def screened(bench: Bench, runner: Runner) -> pl.DataFrame:
    """The job on a runner, in a folder and a ledger of its own: its verdicts."""
    bench.emulator.reset()
    run: CurationResult = await curate(
        candidates(bench),
        str(bench.folder / runner),
        1.0,
        screening=Screening(allow_private_hosts=True),
        advanced=Advanced(runner=runner, estimate_sample_size=2, max_concurrent_shards=3, shard_size=4),
    )
    return pl.read_parquet(run.run_dir / "verdicts.parquet").sort("row")


RUNNERS = pytest.mark.parametrize("runner", [there(name) for name in ("processes", "dask", "ray")])


@pytest.mark.ci
@RUNNERS
async def test_the_same_job_gives_the_same_frame_on_every_runner(in_process: Bench, runner: Runner) -> None:
    """Row by row as in one loop, good, bad and dead ones; nothing is paid twice, and no process is left."""
    here = await screened(in_process, "loop")
    before = set(psutil.Process().children(recursive=True))
    there = await screened(in_process, runner)
    assert_frame_equal(there.drop("request_id", "checked_at"), here.drop("request_id", "checked_at"))
    assert set(here["reason"].drop_nulls()) >= {"not_found", "refused", "empty_url"}
    assert len(in_process.billed_urls()) == len(set(in_process.billed_urls())) > 10
    left = set(psutil.Process().children(recursive=True)) - before
    assert [p for p in left if "resource_tracker" not in " ".join(p.cmdline())] == []


@pytest.mark.slow
@RUNNERS
def test_a_stop_does_not_wait_for_what_a_runner_screens(bench: Bench, runner: Runner) -> None:
    """SIGTERM while every shard hangs at a silent host: the run ends soon, and leaves no process."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        candidates = bench.candidates([f"{host}/{number}.jpg" for number in range(200)])
        mark = f"stop-{runner}-{os.getpid()}"
        job = bench.folder / "job.py"
        job.write_text(JOB)
        command = subprocess.Popen(
            [sys.executable, str(job), candidates, str(bench.out), runner],
            env={**bench.env, "TESTS_MARK": mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        silent.settimeout(120)
        with silent.accept()[0]:
            time.sleep(1)
            command.send_signal(signal.SIGTERM)
            began = time.monotonic()
            ran = ended(command)
        assert time.monotonic() - began < 60
    assert "stopped by SIGTERM" in ran.out, ran.err
    wait_until(lambda: not descendants(mark), 30)


def test_a_runner_that_is_not_installed_is_named_before_anything_is_written(
    in_process: Bench, command: Callable[..., Ran]
) -> None:
    """And so is one that is none."""
    candidates = in_process.candidates(in_process.portraits(1))
    for name in {"fork", *(name for name, module in MODULES.items() if not find_spec(module))}:
        ran = command(*in_process.curating(candidates, "--runner", name))
        assert ran.status == 2
        assert name in ran.err
        assert not in_process.out.exists()
