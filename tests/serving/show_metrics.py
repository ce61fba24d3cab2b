"""Prints what /metrics says after a few requests; run as a process of its own, since BentoML keeps one registry."""

import os
import sys
import tempfile

os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()

import bentoml
from starlette.testclient import TestClient

from tests.serving.fakes import Parts


@bentoml.service(name="colloquy")
@bentoml.asgi_app(Parts().app(), path="/")
class Colloquy:
    """The real application over fakes, mounted as serving.service mounts it."""


Colloquy.inject_config()
with TestClient(Colloquy.to_asgi(is_main=True)) as client:
    for path in ("/api/status", "/api/status", "/no/such/path"):
        client.get(path)
    sys.stdout.write(client.get("/metrics").text)
