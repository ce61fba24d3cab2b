"""What the DAGs hand to each other, so that Airflow's graph shows how data moves."""

from airflow.sdk import Asset

FEEDBACK = Asset("feedback")  # a snapshot in $COLLOQUY_HOME/feedback
RELEASE = Asset("release")  # a version that passed its smoke test
