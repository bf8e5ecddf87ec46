r"""Strict check of CSV (RFC 4180), because the reader finds its records by counting quotes.

A quote that is escaped otherwise (``\"``, as Spark and MySQL write) or is unpaired shifts that count. Rows
between two such quotes become one value, without an error. So this module checks the position of every quote
before the file is read, a block at a time, with numpy; a file without quotes costs one pass over its bytes.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import numpy as np

from s2v_tasks.errors import InputError

BLOCK_BYTES: Final = 1 << 22
MAX_RECORD_BYTES: Final = 1 << 26
"""A longer record counts as an unclosed quote."""

_QUOTE, _COMMA, _LF, _CR, _BACKSLASH = b'",\n\r\\'
_BOM: Final = b"\xef\xbb\xbf"
_QUOTING: Final = "write a quote inside a quoted value twice, or save the file as parquet"
_NONE: Final = np.array([], np.int64)


def count_records(chunks: Iterable[bytes], name: str) -> int:
    """Check one file and count its records below the header, blank lines included.

    Raises:
        InputError: The file's records are ambiguous; names the file and the line.
    """
    blocks = _blocks(chunks)
    rest, line = _without_head(next(blocks))
    records = -1
    for chunk in chain([b""], blocks):
        block = _Block(rest + chunk, name, line)
        if not block.size and len(block.content) > MAX_RECORD_BYTES:
            block.refuse(0, f"begins {MAX_RECORD_BYTES >> 20} MB or more in which a quote is not closed")
        records, line = records + block.records(), line + block.lines
        rest = block.content[block.size :]
    block = _Block(rest + b"\n" if rest else b"", name, line, is_last=True)
    return max(records + block.records(), 0)


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of at least ``BLOCK_BYTES``, but for the last."""
    held: list[bytes] = []
    for chunk in chunks:
        held.append(chunk)
        if sum(map(len, held)) >= BLOCK_BYTES:
            yield b"".join(held)
            held.clear()
    yield b"".join(held)


def _without_head(block: bytes) -> tuple[bytes, int]:
    """The first block without its byte order mark and the blank lines above the header; the header's line."""
    block = block.removeprefix(_BOM)
    line = 1
    while block.startswith((b"\n", b"\r\n")):
        block = block.removeprefix(b"\r").removeprefix(b"\n")
        line += 1
    return block, line


class _Block:
    """Some bytes that begin with a record: its quotes in pairs, each of which opens and closes.

    ``size``: where its last whole record ends; ``lines``: line ends up to there.
    """

    def __init__(self, content: bytes, name: str, line: int, *, is_last: bool = False) -> None:
        self.content = content
        self._name = name
        self._line = line
        self._array: Any = np.frombuffer(content, np.uint8)
        self._quotes = _NONE
        self._inside = 0
        if b'"' not in content:
            self.size = content.rfind(b"\n") + 1
            self.lines = int(np.count_nonzero(self._array[: self.size] == _LF))
            return
        quotes, ends = (np.flatnonzero(self._array == byte) for byte in (_QUOTE, _LF))
        before = np.searchsorted(quotes, ends)
        whole = np.flatnonzero(before % 2 == 0)
        if is_last and len(quotes) % 2:
            self._check_pairs(quotes[:-1], before[before < len(quotes)])
            self.refuse(int(quotes[-1]), "has a quote that is not closed")
        self.lines = int(whole[-1]) + 1 if len(whole) else 0
        self.size = int(ends[whole[-1]]) + 1 if len(whole) else 0
        self._quotes = quotes[: before[self.lines - 1] if self.lines else 0]
        self._before = before[: self.lines]
        self._inside = self.lines - len(whole)

    def records(self) -> int:
        """Check the block; return how many records it has."""
        quoted = self._check_pairs(self._quotes, self._before) if len(self._quotes) else None
        if b"\r" in self.content:
            self._check_returns(quoted)
        return self.lines - self._inside

    def _check_pairs(self, quotes: Any, before: Any) -> Any:
        """Of each pair, whether it quotes; ``before`` has the number of quotes before each line end.

        A quoted value is enclosed by separators. A doubled quote ends one pair and begins the next: such
        pairs are one chain. In a value without quotes they are characters like any other, as long as a pair
        stays within its line and does not end where a quoted value could begin.
        """
        opens, closes, bytes_ = quotes[0::2], quotes[1::2], self._array
        ahead = np.where(opens == 0, _LF, bytes_[opens - 1])
        chained = np.append(False, opens[1:] == closes[:-1] + 1)
        first = np.maximum.accumulate(np.where(chained, 0, np.arange(len(opens))))
        quoted = ((ahead == _COMMA) | (ahead == _LF))[first]
        behind = bytes_[closes + 1]
        closed = (behind == _COMMA) | (behind == _LF) | (behind == _CR) | (behind == _QUOTE)
        self._refuse_any(closes, quoted & ~closed, "has text behind a closing quote")
        self._refuse_any(opens, ~quoted & (bytes_[closes - 1] == _COMMA), "has a quote inside a value")
        broken = np.unique(before[before % 2 == 1] // 2)  # the pairs with a line end inside
        if len(broken):
            of_lines = np.zeros(len(opens), np.bool_)
            of_lines[broken] = True
            self._refuse_any(opens, of_lines & ~quoted, "has a quote inside a value")
            of_lines = np.isin(first, first[broken])
            escaped = (bytes_[closes - 1] == _BACKSLASH) | (chained & (ahead == _BACKSLASH))
            self._refuse_any(closes, of_lines & escaped, "has a backslash before a quote, in a long value")
        return quoted

    def _check_returns(self, quoted: Any) -> None:
        """A carriage return alone ends a line for some programs and not for others."""
        returns = np.flatnonzero(self._array[: self.size] == _CR)
        if quoted is not None:
            before = np.searchsorted(self._quotes, returns)
            is_inside = before % 2 == 1
            is_inside[is_inside] = quoted[before[is_inside] // 2]
            returns = returns[~is_inside]
        behind = self._array[returns + 1]
        alone = (behind != _LF) & (behind != _CR)
        self._refuse_any(returns, alone, "has a carriage return alone", "end lines with \\n or \\r\\n")

    def _refuse_any(self, positions: Any, wrong: Any, what: str, advice: str = _QUOTING) -> None:
        if wrong.any():
            self.refuse(int(positions[wrong][0]), what, advice)

    def refuse(self, at: int, what: str, advice: str = _QUOTING) -> None:
        """Name the line of a byte.

        Raises:
            InputError: Always.
        """
        line = self._line + self.content.count(b"\n", 0, at)
        raise InputError(f"can't read {self._name}: line {line} {what}; {advice}")
