"""Paths, ports and secrets of the local stack, from one place. Standard library only.

Every value has an environment variable: COLLOQUY_HOME, COLLOQUY_ENVS and COLLOQUY_<SERVICE>_PORT.
"""

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
ADMIN = "admin"
ADMIN_EMAIL = "admin@colloquy.localhost"

DEFAULT_PORTS = {
    "AIRFLOW": 8080,
    "MLFLOW": 5000,
    "LABEL_STUDIO": 8081,
    "CHAT": 3000,
    "MONGODB": 27017,
    "REDIS": 6379,
}


# Services whose address may be given instead: then the stack starts none of its own.
ADDRESSES = {"MONGODB": "MONGODB_URL", "REDIS": "REDIS_URL"}


class SettingError(Exception):
    """A setting that can't work; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the stack lives and listens."""

    home: Path
    envs: Path
    ports: dict[str, int]

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def secrets_file(self) -> Path:
        return self.home / "secrets" / "passwords.json"

    @property
    def label_studio_token(self) -> Path:
        return self.home / "secrets" / "label_studio_token"

    @property
    def labelers(self) -> Path:
        return self.home / "secrets" / "labelers.json"

    @property
    def people(self) -> Path:
        return self.home / "secrets" / "people.json"

    @property
    def release(self) -> Path:
        return self.home / "serving" / "release.json"

    def url(self, service: str) -> str:
        return f"http://{HOST}:{self.ports[service]}"

    def python(self, environment: str) -> Path:
        return self.envs / environment / "bin" / "python"

    def binary(self, environment: str, name: str) -> str:
        return str(self.envs / environment / "bin" / name)


def port_variable(service: str) -> str:
    """The environment variable that moves `service` to another port."""
    return f"COLLOQUY_{service}_PORT"


def _port(service: str) -> int:
    text = os.environ.get(port_variable(service), str(DEFAULT_PORTS[service]))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise SettingError(f"{port_variable(service)}={text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def load() -> Settings:
    """The settings of this checkout and environment."""
    home = Path(os.environ.get("COLLOQUY_HOME", ROOT / ".colloquy")).resolve()
    envs = Path(os.environ.get("COLLOQUY_ENVS", ROOT / ".envs")).resolve()
    ports = {service: _port(service) for service in DEFAULT_PORTS}
    if len(set(ports.values())) < len(ports):
        raise SettingError(f"two services have one port: {ports}; set COLLOQUY_<SERVICE>_PORT")
    return Settings(home, envs, ports)


def given_address(service: str) -> str | None:
    """The address of a server outside the stack that serves instead of `service`, if one is given."""
    return os.environ.get(ADDRESSES.get(service, "")) or None


def port_taken(port: int) -> bool:
    """Whether something listens on `port` of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def require_free_ports(settings: Settings, services: list[str]) -> None:
    """Fail when a port that the stack needs is taken, naming it, its use and the setting that moves it."""
    for service in services:
        port = settings.ports[service]
        if port_taken(port):
            name = service.lower().replace("_", " ")
            raise SettingError(f"port {port} for {name} is taken; free it or set {port_variable(service)}")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated once for a home; `fresh` when this call made them."""

    airflow_password: str
    label_studio_password: str
    label_studio_token: str
    airflow_key: str
    fresh: bool


def write_private(path: Path, text: str) -> None:
    """Write `text` so that only its owner can read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    partial.replace(path)


def load_secrets(settings: Settings) -> Secrets:
    """The passwords and keys of this home, generated on first use."""
    fresh = not settings.secrets_file.exists()
    if fresh:
        made = {
            "airflow_password": secrets.token_urlsafe(12),
            "label_studio_password": secrets.token_urlsafe(12),
            "label_studio_token": secrets.token_hex(20),
            "airflow_key": secrets.token_urlsafe(48),
        }
        write_private(settings.secrets_file, json.dumps(made, indent=2))
    values = json.loads(settings.secrets_file.read_text())
    write_private(settings.label_studio_token, values["label_studio_token"])
    write_private(settings.home / "secrets" / "airflow_users.json", json.dumps({ADMIN: values["airflow_password"]}))
    return Secrets(**values, fresh=fresh)
