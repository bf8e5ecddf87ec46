"""Local files on odd file systems: an error names its file, and what the end needs is tried at the start."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from s2v_tasks.adapters.storage import file_io, local_files, pointer
from s2v_tasks.errors import StorageUnavailable

SHIM = """
#include <errno.h>
int flock(int fd, int operation) { errno = %s; return -1; }
"""
CHECK = """
from pathlib import Path
from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.errors import UsageError
try:
    pointer.check_movable(Path("out"))
except UsageError as error:
    print(error)
"""
FULL = """
import resource, signal
from pathlib import Path
import polars as pl
from s2v_tasks.adapters.storage import file_io, pointer
from s2v_tasks.errors import StorageUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
rows = pl.LazyFrame({"a": [str(n) * 9 for n in range(5000)]})
for write in (lambda path: file_io.sink(rows, path), lambda path: file_io.write_json(path, ["x" * 5000])):
    try:
        write(Path("out/whole"))
    except StorageUnavailable as error:
        print(error)
"""


def run(code: str, folder: Path, **env: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_folder_that_can_not_be_synced_is_no_error() -> None:
    """CIFS, FUSE and procfs give EINVAL for a folder; a file that can't be synced stays an error."""
    local_files.sync(Path("/proc"))
    with pytest.raises(OSError, match="Invalid argument"):
        local_files.sync(Path("/proc/self/status"))


def test_a_full_disk_names_the_file_that_was_written(tmp_path: Path) -> None:
    """Not the candidates: polars' own error and the system's become the same line, and no part is left."""
    (tmp_path / "out").mkdir()
    first, second = run(FULL, tmp_path, TMPDIR=str(tmp_path / "elsewhere")).splitlines()
    assert first == second
    assert first.startswith("out/whole can't be written (File too large); fix that")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_room_says_so_and_where(tmp_path: Path) -> None:
    """The advice is to make room, and for a temporary file TMPDIR too."""

    def write(path: Path) -> None:
        pl.DataFrame({"a": ["x" * 100_000]}).write_parquet("/dev/full")

    with pytest.raises(
        StorageUnavailable, match=r"a\.b can't be written \(No space left on device\); make room"
    ):
        file_io.write_whole(tmp_path / "a.b", write)


@pytest.mark.parametrize("write", [file_io.write_json, lambda path, _: local_files.create(path, b"")])
def test_a_folder_that_is_a_file_is_named(tmp_path: Path, write: object) -> None:
    """Every step of a write names its file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match="file/x can't be written"):
        write(tmp_path / "file" / "x", {})  # type: ignore[operator]


def test_an_error_of_the_input_is_not_the_outputs(tmp_path: Path) -> None:
    """A source that disappears while its rows are written is no lack of the output."""
    with pytest.raises(FileNotFoundError):
        file_io.sink(pl.scan_parquet(str(tmp_path / "gone.parquet")), tmp_path / "a.parquet")


def test_what_a_publication_needs_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    """A folder that can't be made or written is refused; one that can is as it was."""
    pointer.check_movable(tmp_path / "out")
    assert not (tmp_path / "out" / "published").exists()
    (tmp_path / "published").mkdir()
    pointer.check_movable(tmp_path)
    assert list((tmp_path / "published").iterdir()) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "published").write_text("a file")
    with pytest.raises(StorageUnavailable, match=r"other/published/current.json can't be read \(Not a dir"):
        pointer.check_movable(tmp_path / "other")


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_locks_is_refused_before_anything_is_paid(tmp_path: Path, error: str) -> None:
    """As NFS without its lock daemon: one line with what to do."""
    (tmp_path / "shim.c").write_text(SHIM % error)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "shim.so", "shim.c"], cwd=tmp_path, check=True)
    said = run(CHECK, tmp_path, LD_PRELOAD=str(tmp_path / "shim.so"))
    assert said.startswith(
        f"nothing could be published in {tmp_path / 'out' / 'published'}".replace(f"{tmp_path}/", "")
    )
    assert "mount it with file locks" in said


def test_no_temporary_folder_is_a_refusal(tmp_path: Path) -> None:
    """It names the variable that chooses one."""
    code = CHECK.replace(
        'pointer.check_movable(Path("out"))',
        "import tempfile; tempfile.tempdir = '/no/such'\n    with file_io.temporary_dir(): pass",
    )
    assert "set TMPDIR to a folder with room" in run(code, tmp_path)
