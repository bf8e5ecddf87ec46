"""The ``s2v`` command: a module for each verb, loaded when it is used."""

from s2v_tasks.cli.app import app, main

__all__ = ["app", "main"]
