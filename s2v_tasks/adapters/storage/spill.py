"""A run's scratch files: frames in numbered partitions, appended piece by piece, read back by partition."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl

from s2v_tasks.adapters.storage.local_files import sync
from s2v_tasks.errors import StorageUnavailable

_HEAD: Final = struct.Struct("<QI")
"""Before each piece: its bytes and their checksum, so that a torn tail is recognised."""


@dataclass(frozen=True, slots=True)
class SpillStore:
    """Frames of one schema, below a folder of their own; a file for each partition that has rows.

    A file is a sequence of pieces; reading ends at the first that is not whole. Memory holds what is read.
    """

    folder: Path
    schema: dict[str, pl.DataType]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def path(self, partition: int) -> Path:
        """The file of a partition; there is none if it has no rows."""
        return self.folder / f"{partition:06}"

    def append(self, partition: int, piece: pl.DataFrame, *, durable: bool = False) -> None:
        """Append a piece to a partition; ``durable``: it survives a loss of power too.

        Raises:
            StorageUnavailable: The piece can't be written; the pieces before it are kept.
        """
        if piece.is_empty():
            return
        content = io.BytesIO()
        piece.write_ipc_stream(content, compression="lz4")
        whole = content.getvalue()
        path = self.path(partition)
        with self._lock:
            try:
                with path.open("ab", buffering=0) as file:
                    _append(file, _HEAD.pack(len(whole), zlib.crc32(whole)) + whole, durable=durable)
            except OSError as error:
                raise StorageUnavailable(
                    f"{path} can't be written ({error.strerror}); fix that and run the same command again"
                ) from error

    def append_partitioned(self, frame: pl.DataFrame, partition: pl.Expr, *, durable: bool = False) -> None:
        """Append each row to the partition that an expression gives for it."""
        numbered = frame.with_columns(partition.alias(_PARTITION))
        pieces = numbered.partition_by(_PARTITION, as_dict=True, include_key=False)
        for (number,), piece in pieces.items():
            self.append(int(number), piece, durable=durable)

    def read(self, partition: int) -> pl.DataFrame:
        """All rows of a partition, in the order in which they were appended."""
        frames = [pl.DataFrame(schema=self.schema)]
        if self.path(partition).exists():
            with self.path(partition).open("rb") as file:
                frames += [pl.read_ipc_stream(piece) for piece in _pieces(file)]
        # A piece that another version of this program wrote may have other columns.
        return pl.concat(frames, how="diagonal", rechunk=True).select(*self.schema)

    def partitions(self) -> list[int]:
        """The partitions that have rows."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*"))

    def truncate_torn_tail(self) -> None:
        """Remove the torn tails that a killed process left, so that what is appended can be read."""
        for path in self.folder.iterdir():
            with path.open("rb+") as file:
                file.truncate(sum(_HEAD.size + len(piece) for piece in _pieces(file)))

    def open(self, *, truncate: bool) -> None:
        """Create the folder; ``truncate``: and empty it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir() if truncate else ():
            path.unlink()

    def sync(self) -> None:
        """Make all that was appended durable."""
        for path in (*self.folder.iterdir(), self.folder):
            sync(path)


_PARTITION: Final = "__s2v_partition"


def _append(file: io.FileIO, piece: bytes, *, durable: bool) -> None:
    start = file.seek(0, os.SEEK_END)
    try:
        unwritten = memoryview(piece)
        while unwritten:
            unwritten = unwritten[file.write(unwritten) :]
        if durable:
            os.fsync(file.fileno())
            if not start:
                sync(Path(file.name).parent)
    except OSError:
        file.truncate(start)  # else the next piece could not be read
        raise


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The whole pieces of a file, up to its end or the first that is not whole."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        if not 0 < length <= os.fstat(file.fileno()).st_size:  # a loss of power may leave anything
            return
        piece = file.read(length)
        if len(piece) < length or zlib.crc32(piece) != checksum:
            return
        yield piece
