"""The Prefect flows: `curate` the candidates, `gate` a finished run again, `pipeline` with a stage behind."""
