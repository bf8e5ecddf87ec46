"""SpillStore files: what was appended whole is read back, a torn tail is removed."""

import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from s2v_tasks.adapters.storage.spill import SpillStore

SCHEMA: dict[str, pl.DataType] = {"key": pl.String(), "n": pl.Int64()}


def piece(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"key": [f"k{n}" for n in numbers], "n": numbers}, schema=SCHEMA)


@pytest.fixture
def scratch(tmp_path: Path) -> SpillStore:
    made = SpillStore(tmp_path / "scratch", SCHEMA)
    made.open(truncate=True)
    return made


def test_pieces_come_back_in_the_order_they_came(scratch: SpillStore) -> None:
    """Each partition on its own; one without rows is an empty frame of the same columns."""
    for partition, numbers in ((0, (1, 2)), (3, (9,)), (0, (3,))):
        scratch.append(partition, piece(*numbers), durable=True)
    scratch.append(1, piece())
    assert scratch.read(0).equals(piece(1, 2, 3))
    assert scratch.read(3).equals(piece(9))
    assert scratch.read(1).equals(piece())
    assert scratch.read(7).schema == SCHEMA


def test_rows_are_appended_to_the_partitions_that_they_name(scratch: SpillStore) -> None:
    """In order within a partition, whose number is no column of it."""
    scratch.append_partitioned(piece(*range(10)), pl.col("n") % 3)
    scratch.append_partitioned(piece(*range(10, 20)), pl.col("n") % 3)
    for partition in range(3):
        assert scratch.read(partition)["n"].to_list() == list(range(partition, 20, 3))


def test_a_torn_tail_is_removed_wherever_it_is_torn(scratch: SpillStore) -> None:
    """A process died somewhere in a piece: what came before is read, what comes after too."""
    path = scratch.path(0)
    scratch.append(0, piece(1))
    whole = path.stat().st_size
    scratch.append(0, piece(2, 3))
    content = path.read_bytes()
    for size in (*range(whole, whole + 20), *range(whole + 20, len(content), 37), len(content) - 1):
        path.write_bytes(content[:size])
        assert scratch.read(0).equals(piece(1)), size
        scratch.truncate_torn_tail()
        scratch.append(0, piece(4))
        assert scratch.read(0).equals(piece(1, 4)), size


@pytest.mark.parametrize("junk", [b"\0" * 4096, b"\xff" * 4096])
def test_what_a_lost_power_left_behind_is_no_piece(scratch: SpillStore, junk: bytes) -> None:
    """A file that grew before its content came, or got another's, ends where its whole pieces do."""
    scratch.append(0, piece(1))
    size = scratch.path(0).stat().st_size
    with scratch.path(0).open("ab") as file:
        file.write(junk)
    assert scratch.read(0).equals(piece(1))
    scratch.truncate_torn_tail()
    assert scratch.path(0).stat().st_size == size


def test_a_changed_byte_is_noticed(scratch: SpillStore) -> None:
    """What is not as it was written is not read as if it were."""
    scratch.append(0, piece(1))
    content = bytearray(scratch.path(0).read_bytes())
    content[-20] ^= 1
    scratch.path(0).write_bytes(content)
    assert scratch.read(0).is_empty()


def test_threads_may_append_to_one_partition(scratch: SpillStore) -> None:
    """Pieces are never interleaved."""
    threads = [threading.Thread(target=scratch.append, args=(0, piece(*[n] * 1000))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = scratch.read(0)
    assert read.height == 16_000
    assert read["n"].rle().struct.field("len").to_list() == [1000] * 16


FULL = """
import resource, signal, sys
from pathlib import Path
import polars as pl
from s2v_tasks.adapters.storage.spill import SpillStore
from s2v_tasks.errors import S2VError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
scratch = SpillStore(Path(sys.argv[1]), {"n": pl.Int64()})
scratch.open(truncate=True)
scratch.append(0, pl.DataFrame({"n": [1]}))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))
try:
    scratch.append(0, pl.select(n=pl.int_range(9999).hash(0).reinterpret(signed=True)))
except S2VError as error:
    print(error)
scratch.append(0, pl.DataFrame({"n": [2]}))
print(scratch.read(0)["n"].to_list())
"""


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    """Half a piece is taken back, so that those after it can be read."""
    ran = subprocess.run([sys.executable, "-c", FULL, tmp_path / "s"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    message, left = ran.stdout.splitlines()
    assert "can't be written" in message
    assert "run the same command again" in message
    assert left == "[1, 2]"
