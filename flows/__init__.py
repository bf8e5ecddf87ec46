"""The Prefect flows: `curate` candidates, `gate` a finished run again, `pipeline` with a stage after it."""
