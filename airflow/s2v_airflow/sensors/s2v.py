"""Sensor: waits for a publication."""

import subprocess
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException

from s2v_airflow.command import End, arguments, environment, parse
from s2v_airflow.publications import wanted
from s2v_airflow.triggers.s2v import PublishedTrigger


class S2VPublishedSensor(BaseSensorOperator):
    """Wait until the pointer of an output folder names a publication; XCom has that publication.

    :param out: output folder, a path or ``s3://...``.
    :param published_after: only one whose gate was evaluated after that time (ISO 8601), such as
        ``{{ data_interval_start.isoformat() }}``; None: any.
    :param s2v: the command.
    :param deferrable: wait in the triggerer, without a worker's slot.
    """

    template_fields: Sequence[str] = ("out", "published_after", "s2v")

    def __init__(
        self,
        *,
        out: str,
        published_after: str | None = None,
        s2v: str = "s2v",
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.out = out
        self.published_after = published_after
        self.s2v = s2v
        self.deferrable = deferrable

    def execute(self, context: Any) -> Any:
        """Wait, here or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        trigger = PublishedTrigger(
            out=self.out,
            s2v=self.s2v,
            published_after=self.published_after,
            poke_interval_s=self.poke_interval,
        )
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=None)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Take what the trigger found."""
        if "error" in event:
            raise AirflowFailException(event["error"])
        found: dict[str, Any] = event["publication"]
        return found

    def poke(self, context: Any) -> PokeReturnValue:  # noqa: ARG002
        """Look once."""
        command = [self.s2v, "publications", *arguments({}, [self.out])]
        try:
            ran = subprocess.run(command, env=environment(), capture_output=True)
        except OSError as error:
            raise AirflowFailException(f"{self.s2v} can't be started ({error.strerror}); fix s2v=") from None
        ended = parse(ran.returncode, ran.stdout)
        if ended.means() is End.FAIL:
            raise AirflowFailException(ended.message)
        found = wanted(ended.result or {}, self.published_after) if ended.status == 0 else None
        return PokeReturnValue(is_done=found is not None, xcom_value=found)
