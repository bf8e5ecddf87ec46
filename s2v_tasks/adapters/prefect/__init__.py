"""Prefect: the command's own server, setup, artifacts, events, the rate limit in its UI, task runners."""
