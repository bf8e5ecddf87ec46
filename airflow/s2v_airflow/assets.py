"""The asset of an output folder: it changes when a run is published there."""

from pathlib import Path

from airflow.sdk import Asset


def published(out: str) -> Asset:
    """The pointer of an output folder as an asset, for ``schedule=[published("/data/curated")]``.

    Args:
        out: The folder as the operator has it, a path or ``s3://...``.
    """
    place = out.rstrip("/") if "://" in out else f"file://{Path(out).expanduser().absolute()}"
    return Asset(name=f"s2v published in {out}", uri=f"{place}/published/current.json")
