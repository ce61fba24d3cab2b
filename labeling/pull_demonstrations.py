"""The snapshot of the answers that people wrote in one round, with what a second person said of each.

In: the round `pull_demonstrations.round` of the server in LABEL_STUDIO_URL; none, and no server, where that is null.
Out: answers.jsonl, WrittenAnswer rows sorted by annotation id, whatever their verdict, without names or times of day,
so that an unchanged pull has unchanged bytes.
"""

from collections import Counter

from labeling.client import LabelStudio
from labeling.demonstrations import answers, find, record
from pipelines.core import artifacts
from pipelines.core.jsonl import write_rows
from pipelines.core.records import WrittenAnswer
from pipelines.core.stage import open_stage


def pull(client: LabelStudio, name: str) -> list[WrittenAnswer]:
    """What the server holds of round `name`."""
    projects = find(client, name)
    users = client.users()
    given = answers(client.tasks(projects.write.id), client.tasks(projects.check.id), users)
    return sorted((record(one, users) for one in given), key=lambda answer: answer.annotation_id)


def main() -> None:
    with open_stage("pull_demonstrations") as stage:
        found: list[WrittenAnswer] = []
        if (name := stage.params.pull_demonstrations.round) is not None:
            with LabelStudio.from_environment() as client:
                found = pull(client, name)
        write_rows(artifacts.WRITTEN_ANSWERS, (answer.to_row() for answer in found))
        verdicts = Counter(answer.verdict for answer in found)
        print(f"{len(found)} written answers: {dict(sorted(verdicts.items()))}")
        counts = {verdict: float(verdicts[verdict]) for verdict in ("open", "accepted", "returned")}
        stage.write_metrics(counts | {"authors": float(len({answer.author for answer in found}))})


if __name__ == "__main__":
    main()
