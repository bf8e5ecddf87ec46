"""A stage of your own flow, as a subflow: awaited like any function, in the same process."""

from prefect import flow

from s2v_tasks import CurationResult, Screening, Thresholds, curate


@flow
async def prepare_training(
    candidates: str, out: str, budget_usd: float, screening: Screening = Screening()
) -> str:
    """Curate portraits, and give the path of the file to train on."""
    curated: CurationResult = await curate(
        candidates, out, budget_usd, screening=screening, thresholds=Thresholds(min_pass_rate=0.6)
    )  # raises GateClosed if the dataset is not good enough, NotApproved without approval
    if curated.publication is None:  # a run that started later is published already
        raise RuntimeError(curated.message)
    return curated.publication.path
