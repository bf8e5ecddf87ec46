"""SQLite URLs: all behind ``sqlite:///`` is the path, but for options such as ``?mode=ro&uri=true``."""

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote

import sqlalchemy as sa

from s2v_tasks.adapters.home import expanded

_OPTIONS: Final = re.compile(r"[A-Za-z_]+=[^&=?/]*(?:&[A-Za-z_]+=[^&=?/]*)*")


def sqlite_url(url: str) -> sa.URL | None:
    """The URL of a SQLite file, whose path may hold ``?``, ``#`` and ``%``; None if it is no such URL."""
    scheme, _, rest = url.partition(":///")
    if not rest or scheme.lower().partition("+")[0] != "sqlite":
        return None
    path, _, options = rest.rpartition("?")
    if not path or not _OPTIONS.fullmatch(options):
        path, options = rest, ""
    query = dict(parse_qsl(options, keep_blank_values=True))
    return sa.URL.create(scheme.lower(), database=expanded(path), query=query)


def without_writing(url: sa.URL) -> sa.URL:
    """The URL to read a ledger by in a folder that can't be written: SQLite could not open its -shm file.

    Only of a file whose -wal holds nothing: SQLite would not read that.
    """
    path = Path(url.database or "").absolute()
    wal = path.with_name(f"{path.name}-wal")
    if url.query or os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
        return url
    query = {"mode": "ro", "immutable": "1", "uri": "true"}
    return url.set(database=f"file:{quote(str(path))}", query=query)
