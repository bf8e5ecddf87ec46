"""Operators: a curation run, and the gate of a finished one."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jsonschema
from airflow.sdk import AssetAlias, BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from s2v_airflow.assets import published
from s2v_airflow.command import End, Ended, arguments, environment, run_id, typed, xcom
from s2v_airflow.links.s2v import ReportLink
from s2v_airflow.process import CommandProcess

_SCHEMA_WITHIN_S = 120


class _S2VOperator(BaseOperator):
    """Runs the command, and ends the task as its result says."""

    operator_extra_links = (ReportLink(),)

    def __init__(
        self, *, s2v: str, report_url_prefix: str | None, env: Mapping[str, str] | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.s2v = s2v
        self.report_url_prefix = report_url_prefix
        self.env = env
        self.result: dict[str, Any] | None = None
        self._command = CommandProcess()
        alias = AssetAlias(f"s2v {self.dag_id if self.has_dag() else 'dag'}.{self.task_id}")
        self.outlets = [*self.outlets, alias]
        self._alias = alias

    def on_kill(self) -> None:
        """Stop the run in order; a later try continues it."""
        self.log.info("stopping s2v in order")
        self._command.stop()

    def _run(self, command: list[str], env: Mapping[str, str]) -> Ended:
        try:
            ended = self._command.run(command, env, lambda line: self.log.info("%s", line))
        except OSError as error:
            raise AirflowFailException(f"{self.s2v} can't be started ({error.strerror}); fix s2v=") from None
        self.result = ended.result
        return ended

    def _conclude(self, ended: Ended, context: Any, out: str, *, skip_if_exhausted: bool) -> dict[str, Any]:
        end = ended.means(skip_if_exhausted=skip_if_exhausted)
        self.log.info("%s (%s)", ended.message, end.value)
        found = xcom(ended.result or {})
        if end not in (End.PUBLISHED, End.SUCCESS):
            context["ti"].xcom_push(key="s2v_result", value=found)
        if end is End.SKIP:
            raise AirflowSkipException(ended.message)
        if end is End.RETRY:
            raise AirflowException(ended.message)
        if end is End.FAIL:
            raise AirflowFailException(ended.message)
        if end is End.PUBLISHED:
            extra = {name: found[name] for name in ("run_id", "published_file")}
            context["outlet_events"][self._alias].add(published(out), extra=extra)
        return found


class S2VCurateOperator(_S2VOperator):
    """Curate candidates into a gated, published dataset, with the ``s2v`` command of another environment.

    A retry continues the same run. XCom has run id, path of the published file, counts and cost; the asset
    ``s2v_airflow.assets.published(out)`` has an event if the pointer moved.

    :param candidates: file, folder or object store with the candidates; None if ``options`` has a ``query``.
    :param out: output folder, a path or ``s3://...``.
    :param budget_usd: what the run may spend at most.
    :param options: other options of ``s2v curate``, by their names without dashes; checked when the task
        runs, against ``s2v curate --schema``.
    :param s2v: the command.
    :param conn_id: connection whose password is the API key; its host, if any, is the service's URL, and its
        extra may have ``workspace``, ``ledger_url`` and ``source_url``.
    :param on_exhausted: what becomes of the task if the budget ended and nothing was published.
    :param env: more variables for the command.
    :param report_url_prefix: where ``out`` is served over HTTP, for the link to the report.
    """

    template_fields: Sequence[str] = (
        "candidates",
        "out",
        "budget_usd",
        "options",
        "s2v",
        "report_url_prefix",
    )

    def __init__(
        self,
        *,
        candidates: str | None = None,
        out: str,
        budget_usd: float | str,
        options: Mapping[str, Any] | None = None,
        s2v: str = "s2v",
        conn_id: str = "dashscope_default",
        on_exhausted: Literal["fail", "skip"] = "fail",
        env: Mapping[str, str] | None = None,
        report_url_prefix: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(s2v=s2v, report_url_prefix=report_url_prefix, env=env, **kwargs)
        self.candidates = candidates
        self.out = out
        self.budget_usd = budget_usd
        self.options = options
        self.conn_id = conn_id
        self.on_exhausted = on_exhausted

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it, and end as its result says."""
        ti = context["ti"]
        env = environment(more={**(self.env or {}), **self._secrets()})
        own = {
            "out": self.out,
            "budget-usd": self.budget_usd,
            "run-id": run_id(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index),
        }
        options = self._checked({**(self.options or {}), **own}, env)
        positional = [] if self.candidates is None else [self.candidates]
        ended = self._run([self.s2v, "curate", *arguments(options, positional)], env)
        return self._conclude(ended, context, self.out, skip_if_exhausted=self.on_exhausted == "skip")

    def _secrets(self) -> dict[str, str]:
        """The variables that the connection gives; Airflow masks its password in logs."""
        connection = BaseHook.get_connection(self.conn_id)
        if not connection.password:
            raise AirflowFailException(f"connection {self.conn_id!r} has no password: put the API key there")
        found = {"DASHSCOPE_API_KEY": connection.password}
        if connection.host:
            found["DASHSCOPE_HTTP_BASE_URL"] = connection.host
        names = {
            "workspace": "DASHSCOPE_WORKSPACE",
            "ledger_url": "S2V_LEDGER_URL",
            "source_url": "S2V_SOURCE_URL",
        }
        extra = connection.extra_dejson
        return found | {variable: str(extra[name]) for name, variable in names.items() if extra.get(name)}

    def _checked(self, options: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
        """The options, in the types that the command takes.

        Raises:
            AirflowFailException: It does not take them.
        """
        try:
            ran = subprocess.run(
                [self.s2v, "curate", "--schema"], env=dict(env), capture_output=True, timeout=_SCHEMA_WITHIN_S
            )
            schema = json.loads(ran.stdout)
        except (OSError, ValueError) as error:
            raise AirflowFailException(
                f"{self.s2v} curate --schema gives no schema ({type(error).__name__}); fix s2v="
            ) from None
        except subprocess.TimeoutExpired:
            raise AirflowException(f"{self.s2v} curate --schema took over {_SCHEMA_WITHIN_S} s") from None
        checked = typed(options, schema)
        errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(checked), key=str)
        if errors:
            place = "".join(f"{one}: " for one in errors[0].path)
            raise AirflowFailException(f"options: {place}{errors[0].message}")
        return checked


class S2VGateOperator(_S2VOperator):
    """Evaluate the gate of a finished run again, with other thresholds; no call, no cost.

    :param run_dir: the run's folder, such as ``{{ ti.xcom_pull("curate")["run_dir"] }}``.
    :param options: options of ``s2v gate``, by their names without dashes.
    :param publish: also publish the run if the gate is open.
    """

    template_fields: Sequence[str] = ("run_dir", "options", "s2v", "report_url_prefix")

    def __init__(
        self,
        *,
        run_dir: str,
        options: Mapping[str, Any] | None = None,
        publish: bool = True,
        s2v: str = "s2v",
        env: Mapping[str, str] | None = None,
        report_url_prefix: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(s2v=s2v, report_url_prefix=report_url_prefix, env=env, **kwargs)
        self.run_dir = run_dir
        self.options = options
        self.publish = publish

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it, and end as its result says."""
        options = {**(self.options or {}), "publish": self.publish}
        line = arguments(options, [self.run_dir])
        ended = self._run([self.s2v, "gate", *line], environment(more=self.env))
        out = self.run_dir.rstrip("/").rpartition("/runs/")[0]
        return self._conclude(ended, context, out, skip_if_exhausted=False)
