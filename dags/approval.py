"""A person's yes or no before a release, where the run asks for it: Airflow's human-in-the-loop operator."""

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException
from dvc_stage import run_info, workspace_of


class Approval(ApprovalOperator):
    """Waits for an answer on Airflow's page when `release.approval` is `required`; a no skips what follows."""

    def execute(self, context: Any) -> Any:
        if run_info(workspace_of(context["dag_run"].run_id))["approval"] != "required":
            raise AirflowSkipException("this run releases without asking; release.approval=required asks")
        return super().execute(context)
