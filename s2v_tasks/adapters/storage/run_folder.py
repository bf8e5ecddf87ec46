"""Run folder: the paths of a run's files, its manifest, and the search for an unfinished run to continue."""

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from s2v_tasks.adapters.home import expanded
from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.file_io import StoragePath
from s2v_tasks.domain.publish_rules import Publication
from s2v_tasks.errors import RunFinished, StorageUnavailable, UsageError
from s2v_tasks.models import FORMAT
from s2v_tasks.settings import RUN_ID, CurateParameters
from s2v_tasks.settings.moved import identifying

Status = Literal["running", "stopped", "closed", "budget_exhausted", "published", "superseded"]
UNFINISHED: Final[frozenset[Status]] = frozenset({"running", "stopped"})
_RUN_ID: Final = re.compile(RUN_ID)
_VERSIONS: Final = ("s2v-tasks", "prefect", "polars", "pyarrow", "great-expectations", "httpx", "sqlalchemy")


class Manifest(BaseModel):
    """``manifest.json``: the parameters and results of a run, without secrets. Amounts in USD.

    ``number``: the run's in its output folder, by start; 0: none. ``publication``: what it published.
    ``suspects``: images whose like refusals stopped the run, with how often. ``format``: 1 has other names.
    ``face_check``: of a run with one, `s2v_tasks.domain.face_summary.FaceSummary.figures`.
    """

    model_config = ConfigDict(extra="ignore")

    format: int = 1
    run_id: str
    status: Status
    number: int = 0
    started_at: datetime
    finished_at: datetime | None = None
    service: str
    ledger: str
    identity: str
    parameters: CurateParameters
    message: str | None = None
    rows: int = 0
    counts: dict[str, int] = {}
    run_cost_usd: dict[str, float] = {}
    dataset_cost_usd: float | None = None
    face_check: dict[str, int | float | None] | None = None
    gate: dict[str, object] | None = None
    versions: dict[str, str] = {}
    files: dict[str, str] = {}
    suspects: dict[str, int] = {}
    publication: Publication | None = None

    @property
    def order(self) -> tuple[int, str]:
        """The run's place among those of its output folder, as `Publication.order`."""
        return self.number, self.started_at.isoformat()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run, below ``OUT/runs/<run_id>/``.

    Raises:
        UsageError: The run's id is no plain name, so it could lead out of that folder.
    """

    out: StoragePath
    run_id: str

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise UsageError(
                f"--run-id {self.run_id!r} can't name a folder: up to 100 letters, digits and . _ -,"
                " of which the first is a letter or a digit"
            )

    @property
    def path(self) -> StoragePath:
        """The folder itself."""
        return self.out / "runs" / self.run_id

    @property
    def manifest_path(self) -> StoragePath:
        """The manifest: parameters and results."""
        return self.path / "manifest.json"

    @property
    def rows(self) -> StoragePath:
        """The input rows as read at the start; removed when the run is finished."""
        return self.path / "work" / "rows.parquet"

    def spill_dir(self, started_at: datetime) -> Path:
        """A local folder for the run's spill files; different for each run, also of the same id."""
        if isinstance(self.path, Path):
            return self.path / "work"
        name = hashlib.sha256(f"{self.path}\0{started_at.isoformat()}".encode()).hexdigest()[:32]
        return Path(expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "s2v-tasks" / name

    @property
    def verdicts(self) -> StoragePath:
        """A row for every input row."""
        return self.path / "verdicts.parquet"

    @property
    def approved(self) -> StoragePath:
        """A row for every passed image."""
        return self.path / "approved.parquet"

    @property
    def gate(self) -> StoragePath:
        """The gate's report."""
        return self.path / "gate.json"

    @property
    def report(self) -> StoragePath:
        """The page for people."""
        return self.path / "report.html"

    @property
    def thumbnails(self) -> StoragePath:
        """A sample of the run's images, made small."""
        return self.path / "thumbnails.parquet"

    def read(self) -> Manifest:
        """The manifest.

        Raises:
            UsageError: It can't be read, or is of a newer format.
        """
        try:
            content = self.manifest_path.read_bytes()
            return Manifest.model_validate_json(file_io.in_todays_format(self.manifest_path, content))
        except (OSError, ValidationError):
            raise UsageError(f"{self.manifest_path} can't be read; name the folder of another run") from None

    def write(self, manifest: Manifest) -> None:
        """Write the manifest, atomically."""
        file_io.write_json(self.manifest_path, manifest.model_dump(mode="json"))

    def hashes(self) -> dict[str, str]:
        """The hashes of the data files that exist."""
        files = (self.verdicts, self.approved, self.gate)
        return {file.name: file_io.sha256(file) for file in files if file.is_file()}

    def verify(self, manifest: Manifest) -> None:
        """Check that the data files are those of the manifest.

        Raises:
            UsageError: One is missing, or its hash is another.
        """
        for file in (self.verdicts, self.approved):
            known = manifest.files.get(file.name)
            if known is None or (file.is_file() and file_io.sha256(file) == known):
                continue
            what = "not what the run wrote (by its SHA-256)" if file.is_file() else "missing"
            raise UsageError(f"{file} is {what}; restore it from a copy, or curate again with --new-run")

    def clean(self) -> None:
        """Remove the files that only an unfinished run needs."""
        file_io.remove_below(self.rows.parent)


def open_run_folder(run_dir: StoragePath | str) -> RunFolder:
    """The folder of a run, ``OUT/runs/<run_id>``, a path or ``s3://...``.

    Raises:
        UsageError: It is not the folder of a run.
    """
    path = file_io.parse_path(run_dir).resolve()
    if _RUN_ID.fullmatch(path.name):
        folder = RunFolder(path.parent.parent, path.name)
        if folder.path == path and folder.manifest_path.is_file():
            return folder
    raise UsageError(f"{path} is no run's folder; name one such as OUT/runs/<run_id>")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}


def identity(parameters: CurateParameters, service: str, ledger: str, fingerprint: str) -> str:
    """What makes two commands the same run: input, parameters, service and ledger."""
    chosen = to_json(identifying(parameters.model_dump())).decode()
    text = "\0".join((chosen, service, ledger, fingerprint))
    return hashlib.sha256(text.encode()).hexdigest()


def previous_manifest(folder: RunFolder, run_identity: str) -> Manifest | None:
    """The manifest that an earlier process of a run wrote; None: there was none.

    Raises:
        UsageError: The run can't be continued; RunFinished if it was the same run, and has ended.
    """
    if not folder.manifest_path.exists():
        return None
    manifest = folder.read()
    if manifest.identity != run_identity:
        raise UsageError(
            f"run {manifest.run_id} had another input or other parameters;"
            " repeat its command, or leave --run-id out to start a new run"
        )
    if manifest.status not in UNFINISHED:
        raise RunFinished(f"run {manifest.run_id} is finished and is never reopened; leave --run-id out")
    _check_format(manifest)
    return manifest


def check_finished(manifest: Manifest) -> None:
    """Check that a run is finished.

    Raises:
        UsageError: It is not; the message says how to finish it, or what to do instead.
    """
    if manifest.status in UNFINISHED:
        _check_format(manifest)
        raise UsageError(f"run {manifest.run_id} is not finished; finish it with the command that began it")


def _check_format(manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise UsageError(
            f"run {manifest.run_id} was begun by an earlier version of s2v-tasks and can't be continued by"
            " this one; start a new one with --new-run: nothing is paid twice"
        )


def new_run_id(now: datetime) -> str:
    """A new run id: UTC time, which sorts, and six random characters."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def find_unfinished(out: StoragePath, run_identity: str) -> str | None:
    """The latest run below ``out`` that has the same identity and did not finish.

    One of an earlier format counts only until another run has the same identity: it can't be continued.

    Raises:
        UsageError: An earlier version of this program began that run.
    """
    same = [one for one in manifests(out) if one.identity == run_identity]
    latest = max((one.started_at for one in same), default=None)
    unfinished = [
        one for one in same if one.status in UNFINISHED and (one.format == FORMAT or one.started_at == latest)
    ]
    if not unfinished:
        return None
    found = max(unfinished, key=lambda one: (one.number, one.started_at, one.run_id))
    _check_format(found)
    return found.run_id


def manifests(out: StoragePath) -> list[Manifest]:
    """The manifests of the runs below an output folder, of those that can be read."""

    def read(name: str) -> Manifest | None:
        with suppress(UsageError):
            return RunFolder(out, name).read()
        return None

    names = [name for name in file_io.subfolders(out / "runs") if _RUN_ID.fullmatch(name)]
    with ThreadPoolExecutor(8) as pool:  # a store responds slowly, but to many at once
        return [one for one in pool.map(read, names) if one is not None]


@contextmanager
def clean_up_on_usage_error(folder: RunFolder) -> Iterator[None]:
    """Remove the created folders if the input turns out to be unusable.

    Raises:
        UsageError: Unchanged; also for a store that can't be used, because nothing was sent yet.
    """
    parents = (folder.path, folder.path.parent, folder.out)
    created = [path for path in parents if not path.exists()]
    try:
        yield
    except (UsageError, StorageUnavailable) as error:
        if folder.path in created:
            with suppress(StorageUnavailable):
                file_io.remove_below(folder.path)
        for path in created[1:]:
            if isinstance(path, Path) and path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if isinstance(error, StorageUnavailable):
            raise UsageError(error.message) from None
        raise
