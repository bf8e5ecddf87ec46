"""A run's folder: where its files are, its manifest, and finding an unfinished run to continue."""

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

from s2v_tasks.adapters import storage
from s2v_tasks.adapters.connection import ledger_url
from s2v_tasks.adapters.storage import Place
from s2v_tasks.errors import StorageUnavailable, UsageError
from s2v_tasks.settings import RUN_ID, CurateParameters

Status = Literal["running", "stopped", "closed", "budget_spent", "published"]
UNFINISHED: Final[frozenset[Status]] = frozenset({"running", "stopped"})
_RUN_ID: Final = re.compile(RUN_ID)
_VERSIONS: Final = ("s2v-tasks", "prefect", "polars", "pyarrow", "great-expectations", "httpx", "sqlalchemy")


class Manifest(BaseModel):
    """``manifest.json``: what a run was asked to do and what came of it; holds no secret. Amounts in USD."""

    model_config = ConfigDict(extra="ignore")

    run_id: str
    status: Status
    started_at: datetime
    finished_at: datetime | None = None
    service: str
    ledger: str
    identity: str
    parameters: CurateParameters
    message: str | None = None
    rows: int = 0
    counts: dict[str, int] = {}
    cost_usd: dict[str, float] = {}
    data_set_cost_usd: float | None = None
    gate: dict[str, object] | None = None
    versions: dict[str, str] = {}
    files: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run, below ``OUT/runs/<run_id>/``.

    Raises:
        UsageError: The run's id is not a plain name, and might lead out of that folder.
    """

    out: Place
    run_id: str

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise UsageError(
                f"--run-id {self.run_id!r} can't name a folder: up to 100 letters, digits and . _ -,"
                " of which the first is a letter or a digit"
            )

    @property
    def path(self) -> Place:
        """The folder itself."""
        return self.out / "runs" / self.run_id

    @property
    def manifest_path(self) -> Place:
        """What the run was asked and what came of it."""
        return self.path / "manifest.json"

    @property
    def rows(self) -> Place:
        """The input as it was when the run started; removed when the run is finished."""
        return self.path / "work" / "rows.parquet"

    def scratch(self, started_at: datetime) -> Path:
        """A local folder for what grows as the run goes on; another one for each run, also of the same id."""
        if isinstance(self.path, Path):
            return self.path / "work"
        name = hashlib.sha256(f"{self.path}\0{started_at.isoformat()}".encode()).hexdigest()[:32]
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s2v-tasks" / name

    @property
    def verdicts(self) -> Place:
        """A row for every input row."""
        return self.path / "verdicts.parquet"

    @property
    def approved(self) -> Place:
        """A row for every passed picture."""
        return self.path / "approved.parquet"

    @property
    def gate(self) -> Place:
        """The gate's report."""
        return self.path / "gate.json"

    @classmethod
    def of(cls, run_dir: Place) -> "RunFolder":
        """The folder ``OUT/runs/<run_id>``.

        Raises:
            UsageError: It is not the folder of a run.
        """
        run_dir = run_dir.resolve()
        if _RUN_ID.fullmatch(run_dir.name):
            folder = cls(run_dir.parent.parent, run_dir.name)
            if folder.path == run_dir and folder.manifest_path.is_file():
                return folder
        raise UsageError(f"{run_dir} is no run's folder; name one such as OUT/runs/<run_id>")

    def read(self) -> Manifest:
        """The manifest.

        Raises:
            UsageError: It can't be read.
        """
        try:
            return Manifest.model_validate_json(self.manifest_path.read_bytes())
        except (OSError, ValidationError):
            raise UsageError(f"{self.manifest_path} can't be read; name the folder of another run") from None

    def write(self, manifest: Manifest) -> None:
        """Put the manifest in place, whole."""
        storage.write_json(self.manifest_path, manifest.model_dump(mode="json"))

    def hashes(self) -> dict[str, str]:
        """The hashes of the data files that are there."""
        files = (self.verdicts, self.approved, self.gate)
        return {file.name: storage.sha256(file) for file in files if file.is_file()}

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        storage.remove_below(self.rows.parent)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _VERSIONS}}


def identity(parameters: CurateParameters, service: str, ledger: str, fingerprint: str) -> str:
    """What makes two commands the same run: input, parameters, service and ledger."""
    asked = parameters.model_dump_json(exclude={"screening": {"runner", "shards_at_once"}})  # no matter where
    text = "\0".join((asked, service, ledger, fingerprint))
    return hashlib.sha256(text.encode()).hexdigest()


def masked(url: str) -> str:
    """A ledger's URL without its password, which may also stand in its query.

    Raises:
        UsageError: It is no ledger's URL.
    """
    return ledger_url(url).set(query={}).render_as_string(hide_password=True)


def new_run_id(now: datetime) -> str:
    """UTC time and six random characters: sorts by time, never meets another."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def find_unfinished(out: Place, run_identity: str) -> str | None:
    """The latest run below ``out`` that was asked the same and did not finish."""
    names = [name for name in storage.subfolders(out / "runs") if _RUN_ID.fullmatch(name)]
    with ThreadPoolExecutor(8) as pool:  # a store answers slowly, but many at once
        manifests = pool.map(lambda name: _manifest(RunFolder(out, name)), names)
    found = [
        (manifest.started_at, manifest.run_id)
        for manifest in manifests
        if manifest is not None and manifest.identity == run_identity and manifest.status in UNFINISHED
    ]
    return max(found)[1] if found else None


def _manifest(folder: RunFolder) -> Manifest | None:
    try:
        return folder.read()
    except UsageError:
        return None


@contextmanager
def nothing_left_on_usage_error(folder: RunFolder) -> Iterator[None]:
    """Bad input leaves no trace: what was created for it is removed again.

    Raises:
        UsageError: As it came; also for a store that can't be used, for nothing was asked yet.
    """
    parents = (folder.path, folder.path.parent, folder.out)
    created = [path for path in parents if not path.exists()]
    try:
        yield
    except (UsageError, StorageUnavailable) as error:
        if folder.path in created:
            with suppress(StorageUnavailable):
                storage.remove_below(folder.path)
        for path in created[1:]:
            if isinstance(path, Path) and path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if isinstance(error, StorageUnavailable):
            raise UsageError(error.message) from None
        raise
