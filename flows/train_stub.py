"""A stub of the downstream stage: started by the event of a publication, it reads the published file."""

import polars as pl
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed


@flow(name="train-stub", persist_result=False)
async def train_stub(path: str) -> State[int]:
    """Count the images that would be trained on; replace it by your own stage.

    Args:
        path: The published file, from the event `s2v.dataset.published`.
    """
    images = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return Completed(message=f"would train on {images} images of {path}", data=images)
