"""Paths in an object store (``s3://``, ``gs://``, ``abfss://``), through `obstore`.

Credentials and endpoint come from the environment variables that obstore and polars share (``AWS_*``,
``GOOGLE_*``, ``AZURE_*``), never from a parameter. A put is atomic. A conditional put replaces the lock that
a store does not have.
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

from s2v_tasks.adapters.storage.store_errors import store_cause
from s2v_tasks.errors import StorageUnavailable, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3", "gs", "abfss")
_SIGNED: Final = re.compile(
    r"[?&][\w-]*(signature|sig|token|credential|secret|password|keyid)=", re.IGNORECASE
)
_RETRIES: Final[dict[str, Any]] = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One listed object: its path, its size in bytes, and a tag that changes with its content."""

    path: "ObjectPath"
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """A path in a store: ``root`` is ``s3://bucket``, ``key`` the rest.

    Methods that `pathlib.Path` has too bear the same names. Every method that sends a request raises
    ``StorageUnavailable``.
    """

    root: str
    key: str

    @classmethod
    def of(cls, url: str) -> "ObjectPath":
        """Parse a URL.

        Raises:
            UsageError: It names no bucket, or holds a password or a signature; nothing of it is shown.
        """
        scheme, _, rest = url.partition("://")
        scheme = scheme.lower()
        bucket, _, key = rest.partition("/")
        wanted = "CONTAINER@ACCOUNT.dfs.core.windows.net" if scheme == "abfss" else "BUCKET"
        if not bucket or ":" in bucket or bucket.count("@") > wanted.count("@"):
            raise UsageError(
                f"a {scheme}:// URL reads {scheme}://{wanted}/PATH; set keys and passwords in the environment"
            )
        if _SIGNED.search(rest):
            raise UsageError(
                f"a signed {scheme}:// URL can't be used; name {scheme}://{wanted}/PATH, and set the keys in"
                " the environment"
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
        """The path without its last part."""
        return ObjectPath(self.root, self.key.rpartition("/")[0])

    def resolve(self) -> "ObjectPath":
        """Itself: a store has no links and no working folder."""
        return self

    def exists(self) -> bool:
        """Whether this object, or any below it, exists."""
        return self.is_file() or next(self.below(), None) is not None

    def is_file(self) -> bool:
        """Whether this object exists."""
        return self.stat() is not None

    def stat(self) -> StoredObject | None:
        """Size and tag of the object; None if it does not exist."""
        import obstore

        try:
            with _wrap_store_errors(self):
                return _stored(self, obstore.head(_store(self.root), self.key)) if self.key else None
        except FileNotFoundError:
            return None

    def below(self) -> Iterator[StoredObject]:
        """Every object below, sorted."""
        import obstore

        with _wrap_store_errors(self):
            listed = obstore.list(_store(self.root), f"{self.key}/" if self.key else None).collect()
        for meta in sorted(listed, key=lambda meta: meta["path"]):
            yield _stored(ObjectPath(self.root, meta["path"]), meta)

    def folders(self) -> list[str]:
        """The names of the folders directly below."""
        import obstore

        with _wrap_store_errors(self):
            listed = obstore.list_with_delimiter(_store(self.root), f"{self.key}/" if self.key else None)
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])

    def read_bytes(self) -> bytes:
        """The content.

        Raises:
            FileNotFoundError: There is no such object.
        """
        return self.read_tagged()[0]

    def read_tagged(self) -> tuple[bytes, str | None]:
        """The content, and the tag for ``put_if``.

        Raises:
            FileNotFoundError: There is no such object.
        """
        import obstore

        with _wrap_store_errors(self):
            got = obstore.get(_store(self.root), self.key)
            return bytes(got.bytes()), got.meta["e_tag"]

    def chunks(self) -> Iterator[bytes]:
        """The content, in chunks."""
        import obstore

        with _wrap_store_errors(self):
            for chunk in obstore.get(_store(self.root), self.key):
                yield bytes(chunk)

    def put(self, file: Path) -> None:
        """Upload a file, atomically."""
        import obstore

        with _wrap_store_errors(self):
            obstore.put(_store(self.root), self.key, file)

    def put_if(self, content: bytes, tag: str | None) -> bool:
        """Put ``content`` if the object still has this tag (None: no object yet); return whether it did."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        store = _store(self.root)
        try:
            with _wrap_store_errors(self):
                obstore.put(store, self.key, content, mode="create" if tag is None else {"e_tag": tag})
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def remove(self) -> None:
        """Remove the object."""
        import obstore

        with _wrap_store_errors(self):
            obstore.delete(_store(self.root), self.key)

    def check_conditional_puts(self) -> None:
        """Put, read and remove this object, to see whether the store keeps what `put_if` promises.

        Raises:
            StorageUnavailable: The store refuses one of them, or ignores a condition.
        """
        keeps = self.put_if(b"1", None) and not self.put_if(b"2", None)
        tag = self.read_tagged()[1]
        keeps = keeps and self.put_if(b"3", tag) and not self.put_if(b"4", tag)
        try:
            self.remove()
        finally:
            if not keeps:
                raise StorageUnavailable(
                    f"{self.root} ignores the conditions of a put (If-Match, If-None-Match), so a publication"
                    " could go back; use a store that keeps them"
                )

    def remove_below(self) -> None:
        """Remove every object below."""
        import obstore

        keys = [stored.path.key for stored in self.below()]
        if keys:
            with _wrap_store_errors(self):
                obstore.delete(_store(self.root), keys)


def is_object_url(text: str) -> bool:
    """Whether the text is the URL of a supported object store."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def or_stores() -> str:
    """The supported schemes, for a message."""
    *most, last = (f"{scheme}://" for scheme in SCHEMES)
    return f"{', '.join(most)} or {last}"


@lru_cache(maxsize=16)
def _store(root: str) -> "ObjectStore":
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise UsageError(
            f"{root} needs the extra s3; in a clone: pip install -c constraints.txt '.[s3]'"
        ) from None
    try:
        return from_url(root, retry_config=_RETRIES)  # type: ignore[call-overload,no-any-return]
    except BaseError as error:
        cause, fix = store_cause(error)
        raise UsageError(f"{root} can't be opened ({cause}); {fix}") from None


def _stored(path: ObjectPath, meta: Any) -> StoredObject:
    return StoredObject(path, meta["size"], meta["e_tag"] or str(meta["last_modified"]))


@contextmanager
def _wrap_store_errors(path: ObjectPath) -> Iterator[None]:
    """Turn the store's errors into one line with their cause: the message may hold a signed URL."""
    _store(path.root)  # raises if the package is missing
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (NotFoundError, FileNotFoundError) as error:
        if "<Code>NoSuchBucket" in str(error):
            cause, fix = store_cause(error)
            raise StorageUnavailable(f"{path} can't be used ({cause}); {fix}") from None
        raise FileNotFoundError(str(path)) from error
    except BaseError as error:
        cause, fix = store_cause(error)
        raise StorageUnavailable(f"{path} can't be used ({cause}); {fix}") from None
