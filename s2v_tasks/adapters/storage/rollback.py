"""Rollback: moves the pointer back to an earlier publication on purpose, and withdraws all later ones.

The later ones are marked first, then the pointer moves: a process that is about to publish one of them either
sees its mark or moves the pointer before, and then the rollback starts over. Killed in between, the same
rollback goes on where it was.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from s2v_tasks.adapters.storage import history, pointer
from s2v_tasks.adapters.storage.file_io import StoragePath, parse_path, sha256
from s2v_tasks.adapters.storage.history import Recorded
from s2v_tasks.domain.publish_rules import Publication, RolledBack
from s2v_tasks.errors import UsageError


@dataclass(frozen=True, slots=True)
class Rollback:
    """What is published now, and the publications that this rollback withdrew; ``moved``: the pointer did."""

    publication: Publication
    withdrawn: tuple[Publication, ...]
    moved: bool


def roll_back(out: StoragePath, run_id: str) -> Rollback:
    """Publish an earlier publication again and withdraw those after it.

    Raises:
        UsageError: Nothing is published, the run is no publication, was withdrawn itself, or its file is
            missing or not what was published. Nothing has changed then.
        StorageUnavailable: The output can't be read or written.
    """
    now = datetime.now(UTC)
    withdrawn: dict[str, Publication] = {}
    verified: set[str] = set()

    def decide(current: Publication | None) -> Publication | None:
        if current is None:
            raise UsageError(f"nothing is published in {out}; name an output folder with a publication")
        past = history.read(out, current)
        target = _target(out, past, run_id)
        if target.name not in verified:
            _verify(target.publication)
            verified.add(target.name)
        history.record(out, current)
        for one in past:
            if not one.withdrawn and one.publication.order > target.publication.order:
                history.withdraw(out, one.name, now, run_id)
                withdrawn[one.name] = one.publication
        if current.run_id == run_id:
            return None
        number, started_at = max([current.highest, *(one.publication.order for one in past if one.withdrawn)])
        back = RolledBack(at=now.isoformat(), number=number, started_at=started_at)
        said = Publication(**target.publication.model_dump(exclude={"facts"}))
        return said.model_copy(update={"rolled_back": back})

    moved = pointer.change(out, decide)
    publication = moved or pointer.read(out)
    if publication is None:
        raise UsageError(f"nothing is published in {out} any more")
    return Rollback(publication, tuple(withdrawn.values()), moved is not None)


def _target(out: StoragePath, past: list[Recorded], run_id: str) -> Recorded:
    found = [one for one in past if one.publication.run_id == run_id]
    if not found:
        raise UsageError(
            f"run {run_id} is no publication of {out}; s2v publications {out} lists those there are"
        )
    live = [one for one in found if not one.withdrawn]
    if not live:
        raise history.withdrawn_error(out, run_id)
    return live[-1]


def _verify(publication: Publication) -> None:
    file = parse_path(publication.path)
    if not file.is_file():
        raise UsageError(f"{file} is missing; restore it from a copy, or name another run")
    if sha256(file) != publication.sha256:
        raise UsageError(
            f"{file} is not what was published (its SHA-256 differs); restore it from a copy, or name another"
        )
