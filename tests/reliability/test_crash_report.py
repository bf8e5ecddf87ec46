"""A run killed while it writes its report: it is finished and published, and the report can be made again."""

from pathlib import Path

import pytest
from crash_bench import KILLED, Crash, KilledRun
from fork_server import ForkServer

from s2v_tasks.adapters.storage import pointer
from s2v_tasks.emulator import Emulator, EmulatorOptions
from s2v_tasks.runtime.run_report import write_report

pytestmark = pytest.mark.ci


def test_a_run_killed_while_it_writes_its_report_is_finished_and_published(tmp_path: Path) -> None:
    """Before the file is written and before it is put in place: it is absent then, and can be made again."""
    with (
        Emulator(EmulatorOptions(limit=None, fetch_images=False)) as emulator,
        ForkServer("crash_child") as server,
    ):
        for phase in ("writing", "renaming"):
            folder = tmp_path / phase
            folder.mkdir()
            run = KilledRun(folder, emulator, server, seed=0, page=True)
            assert run.start(Crash(f"file:report.html:{phase}", 1)) == KILLED
            run_dir = run.out / "runs" / "the-run"
            published = pointer.read(run.out)
            assert published is not None
            assert published.run_id == run_dir.name
            assert not (run_dir / "report.html").exists()
            assert run.is_finished
            assert not (run_dir / "work").exists()
            page = Path(str(write_report(run_dir))).read_text("utf-8")
            assert f"Published: {published.rows} approved images." in page
            run.end()
            assert run.wrong == []
