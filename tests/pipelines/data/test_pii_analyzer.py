"""The search for personal data leaves alone what it has no use for."""

import subprocess
import sys

from tests.workspaces import ROOT, stage_environment

CODE = """
import sys
from importlib.util import find_spec
from pipelines.data.pii_analyzer import load_finder
found = [kind for kind, _, _ in load_finder(["email", "person"])("Ask Jane Doe at jane@doe.example about it.")]
assert found == ["person", "email"], found
assert "torch" not in sys.modules and "transformers" not in sys.modules
assert find_spec("torch") and find_spec("transformers")  # they can be imported afterwards
"""


def test_names_are_found_without_loading_torch() -> None:
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=stage_environment(ROOT), check=True)
