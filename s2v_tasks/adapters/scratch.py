"""A run's scratch files: frames in numbered parts, appended piece by piece, read back a part at a time."""

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

from s2v_tasks.adapters.storage import sync
from s2v_tasks.errors import S2VError

_HEAD: Final = struct.Struct("<QI")
"""Before each piece: its bytes and their checksum, so that a torn end is told from a whole one."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Frames of one schema, below a folder of their own; a file for each part that holds anything.

    A file is a row of pieces; reading ends at the first that is not whole. Memory holds what is read.
    """

    folder: Path
    schema: dict[str, pl.DataType]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def path(self, part: int) -> Path:
        """Where a part is, if it holds anything."""
        return self.folder / f"{part:06}"

    def append(self, part: int, piece: pl.DataFrame, *, durable: bool = False) -> None:
        """Put a piece behind the others of a part; ``durable``: it outlives a loss of power too.

        Raises:
            S2VError: It can't be written; what was there before still is.
        """
        if piece.is_empty():
            return
        content = io.BytesIO()
        piece.write_ipc_stream(content, compression="lz4")
        whole = content.getvalue()
        path = self.path(part)
        with self._lock:
            try:
                with path.open("ab", buffering=0) as file:
                    _append(file, _HEAD.pack(len(whole), zlib.crc32(whole)) + whole, durable=durable)
            except OSError as error:
                raise S2VError(
                    f"{path} can't be written ({error.strerror}); mend that and run the same command again"
                ) from error

    def spread(self, frame: pl.DataFrame, part: pl.Expr, *, durable: bool = False) -> None:
        """Append each row to the part that an expression gives for it."""
        pieces = frame.with_columns(part.alias(_PART)).partition_by(_PART, as_dict=True, include_key=False)
        for (number,), piece in pieces.items():
            self.append(int(number), piece, durable=durable)

    def read(self, part: int) -> pl.DataFrame:
        """All that a part holds, in the order it came."""
        frames = [pl.DataFrame(schema=self.schema)]
        if self.path(part).exists():
            with self.path(part).open("rb") as file:
                frames += [pl.read_ipc_stream(piece) for piece in _pieces(file)]
        # Of another version of this program a piece may have other columns.
        return pl.concat(frames, how="diagonal", rechunk=True).select(*self.schema)

    def parts(self) -> list[int]:
        """The parts that hold anything."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*"))

    def mend(self) -> None:
        """Cut off the torn ends that a killed process left, so that what is appended can be read."""
        for path in self.folder.iterdir():
            with path.open("rb+") as file:
                file.truncate(sum(_HEAD.size + len(piece) for piece in _pieces(file)))

    def begin(self, *, anew: bool) -> None:
        """Make the folder; ``anew``: empty."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir() if anew else ():
            path.unlink()

    def sync(self) -> None:
        """Make all that was appended durable."""
        for path in (*self.folder.iterdir(), self.folder):
            sync(path)


_PART: Final = "__s2v_part"


def _append(file: io.FileIO, piece: bytes, *, durable: bool) -> None:
    start = file.seek(0, os.SEEK_END)
    try:
        left = memoryview(piece)
        while left:
            left = left[file.write(left) :]
        if durable:
            os.fsync(file.fileno())
            if not start:
                sync(Path(file.name).parent)
    except OSError:
        file.truncate(start)  # else what is appended next could not be read
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
