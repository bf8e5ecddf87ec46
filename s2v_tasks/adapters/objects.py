"""Places in an object store (``s3://`` and its like), through `obstore`, which reads as polars does.

Credentials and endpoint come from the variables that both know (``AWS_*``, ``GOOGLE_*``, ``AZURE_*``), never
from a parameter. An object is put whole or not at all; a conditional put is the one lock a store has.
"""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from s2v_tasks.errors import StorageUnavailable, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3", "gs", "abfss")
_CODE: Final = re.compile(r"status code: (\d+ [A-Za-z ]+\w)(?s:.*?<Code>(\w+)</Code>)?")
_RETRIES: Final[dict[str, Any]] = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


@dataclass(frozen=True, slots=True)
class Stored:
    """One object that a store lists: its place and what changes with its content."""

    path: "ObjectPath"
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """A place in a store: ``root`` is ``s3://bucket``, ``key`` what follows.

    What the program uses of `pathlib.Path` is spelt the same here. Every method that reaches the store
    raises ``StorageUnavailable``.
    """

    root: str
    key: str

    @classmethod
    def of(cls, url: str) -> "ObjectPath":
        """The place that a URL names.

        Raises:
            UsageError: It names no bucket, or holds a password.
        """
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        if not bucket or ":" in bucket:
            raise UsageError(
                f"a {scheme}:// URL reads {scheme}://BUCKET/PATH; keys and passwords stand in the environment"
            )
        return cls(f"{scheme}://{bucket}", posixpath.normpath(f"/{key}").strip("/"))

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self.root, f"{self.key}/{name}".strip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> "ObjectPath":
        """What it is in."""
        return ObjectPath(self.root, self.key.rpartition("/")[0])

    def resolve(self) -> "ObjectPath":
        """Itself: a store knows no links and no working folder."""
        return self

    def exists(self) -> bool:
        """Whether there is such an object, or any below."""
        return self.is_file() or next(self.below(), None) is not None

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self.stat() is not None

    def stat(self) -> Stored | None:
        """What the store says of the object; None: there is none."""
        import obstore

        try:
            with _told(self):
                return _stored(self, obstore.head(_store(self.root), self.key)) if self.key else None
        except FileNotFoundError:
            return None

    def below(self) -> Iterator[Stored]:
        """Every object below, sorted."""
        import obstore

        with _told(self):
            listed = obstore.list(_store(self.root), f"{self.key}/" if self.key else None).collect()
        for meta in sorted(listed, key=lambda meta: meta["path"]):
            yield _stored(ObjectPath(self.root, meta["path"]), meta)

    def folders(self) -> list[str]:
        """The names of the folders directly below."""
        import obstore

        with _told(self):
            listed = obstore.list_with_delimiter(_store(self.root), f"{self.key}/" if self.key else None)
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])

    def read_bytes(self) -> bytes:
        """The content.

        Raises:
            FileNotFoundError: There is no such object.
        """
        return self.read_tagged()[0]

    def read_tagged(self) -> tuple[bytes, str | None]:
        """The content, and the tag by which ``put_if`` knows it again.

        Raises:
            FileNotFoundError: There is no such object.
        """
        import obstore

        with _told(self):
            got = obstore.get(_store(self.root), self.key)
            return bytes(got.bytes()), got.meta["e_tag"]

    def chunks(self) -> Iterator[bytes]:
        """The content, piece by piece."""
        import obstore

        with _told(self):
            for chunk in obstore.get(_store(self.root), self.key):
                yield bytes(chunk)

    def put(self, file: Path) -> None:
        """Put a file's content in place, whole or not at all."""
        import obstore

        with _told(self):
            obstore.put(_store(self.root), self.key, file)

    def put_if(self, content: bytes, tag: str | None) -> bool:
        """Put ``content`` only where the object still has this tag (None: where there is none yet)."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        store = _store(self.root)
        try:
            with _told(self):
                obstore.put(store, self.key, content, mode="create" if tag is None else {"e_tag": tag})
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def remove_below(self) -> None:
        """Remove every object below."""
        import obstore

        keys = [stored.path.key for stored in self.below()]
        if keys:
            with _told(self):
                obstore.delete(_store(self.root), keys)


def is_object_url(text: str) -> bool:
    """Whether it names a place in a store that we write to."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def or_stores() -> str:
    """The kinds of stores, for a message."""
    *most, last = (f"{scheme}://" for scheme in SCHEMES)
    return f"{', '.join(most)} or {last}"


@lru_cache(maxsize=16)
def _store(root: str) -> "ObjectStore":
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise UsageError(f"{root} needs one package more: pip install 's2v-tasks[s3]'") from None
    try:
        return from_url(root, retry_config=_RETRIES)  # type: ignore[call-overload,no-any-return]
    except BaseError as error:
        raise UsageError(f"{root} can't be opened ({_words(error)}); mend the store's variables") from None


def _stored(path: ObjectPath, meta: Any) -> Stored:
    return Stored(path, meta["size"], meta["e_tag"] or str(meta["last_modified"]))


@contextmanager
def _told(place: ObjectPath) -> Iterator[None]:
    """One line for whatever the store answers, of which only its code is shown: addresses may be signed."""
    _store(place.root)  # says what is missing
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except NotFoundError as error:
        raise FileNotFoundError(str(place)) from error
    except BaseError as error:
        raise StorageUnavailable(
            f"{place} can't be used ({_words(error)}); check the bucket's name, the store's variables"
            " (AWS_..., GOOGLE_..., AZURE_...) and its rights, then run the same command again"
        ) from None


def _words(error: Exception) -> str:
    found = _CODE.search(str(error))
    return " ".join(filter(None, found.groups())) if found else type(error).__name__
