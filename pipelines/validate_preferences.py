"""Stage `validate_preferences`: the pairs keep their contract, or the run ends here with the rule, count and examples.

In: `artifacts/prepare_preferences`. Out: `report.json`, `report.html`.
"""

from pipelines.core import artifacts
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Preference
from pipelines.core.stage import open_stage
from pipelines.data.expectations import check, preference_table


def main() -> None:
    with open_stage("validate_preferences") as stage:
        table = preference_table(
            map(Preference.from_row, read_rows(artifacts.PREFERENCES_TRAIN)),
            map(Preference.from_row, read_rows(artifacts.PREFERENCES_HELD_OUT)),
            min_pairs=stage.params.validate_preferences.min_pairs,
        )
        try:
            metrics = check("Preferences", [table], stage.out)
        finally:  # a broken contract is what people want to see the report of
            stage.tracker.log_artifact(stage.out)
        stage.write_metrics(metrics)


if __name__ == "__main__":
    main()
