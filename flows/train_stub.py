"""A stand-in for the stage behind: started by the event of a publication, it reads what was published."""

import polars as pl
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed


@flow(name="train-stub", persist_result=False)
async def train_stub(path: str) -> State[int]:
    """Count the pictures that would be trained on; replace it by your own stage.

    Args:
        path: The published file, from the event `s2v.dataset.published`.
    """
    pictures = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    return Completed(message=f"would train on {pictures} pictures of {path}", data=pictures)
