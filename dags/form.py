"""What the forms of several DAGs ask for."""

from airflow.sdk import Param

COMMIT = Param(
    "HEAD",
    type="string",
    title="Commit",
    description="The commit whose code and params.yaml run; uncommitted changes never do.",
)


def overrides(over: str) -> Param:
    """Parameter overrides that lie over what `over` says."""
    return Param(
        [],
        type="array",
        items={"type": "string"},
        title="Parameter overrides",
        description=f"One `section.key=value` a line over {over}, for example ppo.steps=8.",
    )
