"""Airflow provider for s2v-tasks: calls the ``s2v`` command of another environment and reads its result."""

__version__ = "0.1.0"
