"""Prints the DAG named on the command line as JSON; run by Airflow's Python, which has nothing of the project."""

import contextlib
import json
import sys
from pathlib import Path

DAGS = Path(__file__).parents[2] / "dags"
sys.path.insert(0, str(DAGS))

with contextlib.redirect_stdout(sys.stderr):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(DAGS))

dag = bag.dags.get(sys.argv[1])
print(
    json.dumps(
        {
            "errors": bag.import_errors,
            "tasks": {
                task.task_id: {
                    "downstream": sorted(task.downstream_task_ids),
                    "pool": task.pool,
                    "retries": task.retries,
                    "retry_delay_s": task.retry_delay.total_seconds(),
                    "trigger_rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
                    "executor_config": task.executor_config,
                    "group": task.task_group.group_id,
                    "inlets": [asset.name for asset in task.inlets],
                    "outlets": [asset.name for asset in task.outlets],
                }
                for task in (dag.tasks if dag else [])
            },
            "params": {
                name: {"schema": param.schema, "description": param.description}
                for name in (dag.params if dag else ())
                for param in [dag.params.get_param(name)]
            },
        },
        default=str,
    )
)
