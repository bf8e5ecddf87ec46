"""``python -m s2v_tasks`` is the ``s2v`` command."""

from s2v_tasks.cli.app import main

main()
