"""Times a large batch on its way to Label Studio and back: pushed by bulk import, labelled, pulled.

    make bench NAME=labeling_scale
    TASKS=1000 make bench NAME=labeling_scale

10,000 tasks of five responses on a Label Studio of its own, on SQLite, with the overlap of params.yaml. Each task gets
one ranking before the pull: one is submitted through the API, and the server's own database copies it to the others.
"""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.local import services, settings
from labeling.assignment import plan
from labeling.client import LabelStudio
from labeling.judgement import Judgement, to_result
from labeling.project import LABEL_CONFIG, Batch
from labeling.pull_annotations import pull
from labeling.push_tasks import push
from pipelines.core import config
from pipelines.core.digests import file_sha256
from pipelines.core.records import Completion, Conversation, LabelTask, Message, content_id

ROOT = Path(__file__).parents[1]
RESPONSES = 5
WORDS_PER_RESPONSE = 80
WORDS = ["bees", "make", "honey", "from", "nectar", "of", "flowers", "that", "grow", "near", "water", "in", "gardens"]
START_S = 400
LIMITS = {"push_s": 300, "pull_s": 120}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def label_studio(home: Path) -> Iterator[LabelStudio]:
    """The server of the local stack alone, with its state in `home`."""
    own = replace(settings.load(), home=home, ports={name: free_port() for name in settings.DEFAULT_PORTS})
    keys = settings.load_secrets(own)
    service = next(one for one in services.all_services(own, keys) if one.name == "label-studio")
    assert service.before is not None
    service.before()
    environment = services.clean_environment() | service.environment
    with (home / "label-studio.log").open("wb") as log:
        process = subprocess.Popen(
            service.command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    began = time.time()
    try:
        while not service.healthy(began):
            assert process.poll() is None, (home / "label-studio.log").read_text()[-2000:]
            assert time.time() - began < START_S, f"Label Studio is not healthy after {START_S} s"
            time.sleep(0.5)
        with LabelStudio(own.url("LABEL_STUDIO"), keys.label_studio_token) as admin:
            yield admin
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def batch_of(count: int) -> list[LabelTask]:
    """`count` tasks of made-up prose."""
    rng = random.Random(0)
    tasks = []
    for number in range(count):
        messages = (Message("user", f"Question {number}: {' '.join(rng.choices(WORDS, k=20))}?"),)
        prompt = Conversation(str(number), messages, "benchmark", "benchmark", "CC0-1.0")
        texts = [" ".join(rng.choices(WORDS, k=WORDS_PER_RESPONSE)) for _ in range(RESPONSES)]
        completions = tuple(Completion(f"m{place}", text, 0.7, "stop") for place, text in enumerate(texts))
        tasks.append(LabelTask(content_id([prompt.chat, texts]), prompt, completions))
    return tasks


def label_once(admin: LabelStudio, project_id: int, database: Path) -> None:
    """One ranking for each task; every task's responses bear the same names, so one ranking fits all."""
    first = next(admin.tasks(project_id))
    shown = first.data["shown_order"]
    admin.annotate(first.id, to_result(Judgement(tuple((name,) for name in reversed(shown))), shown), 30.0)
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(task_completion)")]
        own = {"id": "NULL", "task_id": "task.id", "unique_id": "lower(hex(randomblob(16)))"}
        values = ", ".join(own.get(name, f"task_completion.{name}") for name in columns)
        copied = f"SELECT {values} FROM task_completion JOIN task ON task.id != task_completion.task_id"
        connection.execute(f"INSERT INTO task_completion ({', '.join(columns)}) {copied}")
        connection.execute("UPDATE task SET total_annotations = 1")


def main() -> None:
    count = int(os.environ.get("TASKS", "10000"))
    params = config.parse(config.resolve(ROOT, "smol", []), "params.yaml").labeling
    with tempfile.TemporaryDirectory(prefix="colloquy-labeling-") as place, label_studio(Path(place)) as admin:
        os.environ["COLLOQUY_HOME"] = place  # of the backup that a pull adds to
        tasks = batch_of(count)
        batch = Batch(content_id([task.id for task in tasks]), "1", file_sha256(ROOT / LABEL_CONFIG), "human")
        assignments = plan([task.id for task in tasks], params.overlap_share, params.overlap_labelers, None)

        started = time.monotonic()
        project = push(admin, batch, tasks, assignments)
        push_s = time.monotonic() - started
        print(f"pushed in {push_s:.1f} s", file=sys.stderr, flush=True)

        label_once(admin, project.id, Path(place, "label-studio", "label_studio.sqlite3"))

        started = time.monotonic()
        snapshot = pull(admin, batch, [task.id for task in tasks], 2.0).snapshot
        pull_s = time.monotonic() - started
        assert not snapshot.deleted_tasks and len(snapshot.annotations) == count, len(snapshot.annotations)

    figures = {"push_s": round(push_s, 1), "pull_s": round(pull_s, 1), "tasks": count}
    asked = sum(assignment.needed for assignment in assignments)
    print(f"{count} tasks of {RESPONSES} responses, {asked} labels asked for")
    print(f"{'figure':<10}{'measured':>10}{'limit':>8}")
    for name, limit in LIMITS.items():
        print(f"{name:<10}{figures[name]:>10}{limit:>8}")
    print(json.dumps({"name": "labeling_scale", "figures": figures}))


if __name__ == "__main__":
    main()
