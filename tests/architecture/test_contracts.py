"""The house rules that a reader relies on: one name everywhere, paths from one place, declared code dependencies."""

import ast
import re
import sys
from pathlib import Path

import pytest

from pipelines.core import artifacts, config
from pipelines.core.config import read_yaml

ROOT = Path(__file__).parents[2]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
PACKAGES = ("pipelines", "labeling", "evals", "serving", "deploy")


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").exists() else None


def first_party_imports(file: Path) -> set[Path]:
    """The project's files that `file` names in its import statements."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in PACKAGES and (imported := module_file(name)):
                found.add(imported)
    return found


def import_closure(file: Path) -> set[Path]:
    seen: set[Path] = set()
    todo = [file]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += first_party_imports(current)
    return {path for path in seen if path.name != "__init__.py"}


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(stage: str) -> None:
    module = STAGES[stage]["cmd"].removeprefix("python -m ")
    package, _, name = module.rpartition(".")
    assert name == stage
    assert module_file(module) is not None
    assert STAGES[stage]["outs"] == [f"artifacts/{stage}"]
    assert STAGES[stage]["metrics"] == [f"artifacts/metrics/{stage}.json"]
    assert (ROOT / "tests" / package / f"test_{stage}.py").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_dependencies_cover_the_import_closure(stage: str) -> None:
    file = module_file(STAGES[stage]["cmd"].removeprefix("python -m "))
    assert file is not None
    declared = [ROOT / dependency for dependency in STAGES[stage]["deps"] if "${" not in dependency]
    missing = [
        str(path.relative_to(ROOT))
        for path in import_closure(file)
        if not path.is_relative_to(ROOT / "pipelines" / "core")
        and not any(path == entry or path.is_relative_to(entry) for entry in declared)
    ]
    assert not missing


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_dependencies_exist(stage: str) -> None:
    for dependency in STAGES[stage]["deps"]:
        if "${" not in dependency and not dependency.startswith("artifacts/"):
            assert (ROOT / dependency).exists(), dependency


def test_paths_of_artifacts_lie_in_the_outs_of_dvc() -> None:
    outs = {Path(out) for stage in STAGES.values() for out in stage["outs"]}
    paths = [value for value in vars(artifacts).values() if isinstance(value, Path)]
    written = [path for path in paths if path.is_relative_to(artifacts.ROOT)]
    for path in written:
        if path in (artifacts.ROOT, artifacts.METRICS):
            continue
        assert any(path == out or path.is_relative_to(out) for out in outs), path
    assert outs <= set(written)


@pytest.mark.parametrize("profile", config.profile_names(ROOT))
def test_every_profile_resolves(profile: str) -> None:
    params = config.parse(config.resolve(ROOT, profile, []), profile)
    assert params.profile == profile


def test_every_stage_reads_the_parameters_that_it_declares() -> None:
    """A section that a stage reads but does not declare would change results behind DVC's back; resources never do."""
    sections = set(config.Params.model_fields) - {"resources"}
    for name, stage in STAGES.items():
        file = module_file(stage["cmd"].removeprefix("python -m "))
        assert file is not None
        declared = {parameter.split(".")[0] for parameter in stage.get("params", [])}
        read = set(re.findall(r"\bparams\.([a-z_]+)\b", file.read_text(encoding="utf-8"))) & sections
        assert read <= declared, f"{name} reads {sorted(read - declared)} without declaring it"


@pytest.mark.parametrize("file", sorted((ROOT / "dags").glob("*.py")), ids=lambda file: file.name)
def test_dags_import_the_standard_library_airflow_and_siblings_only(file: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"airflow"} | {path.stem for path in (ROOT / "dags").glob("*.py")}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.module.split(".")[0] in allowed


def test_a_stage_never_imports_a_stage() -> None:
    modules = {name: module_file(stage["cmd"].removeprefix("python -m ")) for name, stage in STAGES.items()}
    for name, file in modules.items():
        assert file is not None
        others = {path for other, path in modules.items() if other != name}
        assert not first_party_imports(file) & others, name


@pytest.mark.parametrize("file", source_files(*PACKAGES), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_says_what_it_owns(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text)), "a module docstring is missing"


@pytest.mark.parametrize("vendor", ["bentoml", "great_expectations", "label_studio_sdk", "mlflow", "pymongo"])
def test_a_vendor_has_one_owner(vendor: str) -> None:
    owners = {
        "bentoml": ("serving/",),
        "great_expectations": ("pipelines/data/expectations.py",),
        "label_studio_sdk": ("labeling/client.py",),
        "mlflow": ("pipelines/core/tracking.py", "pipelines/core/registry.py"),
        "pymongo": ("serving/stores/",),
    }[vendor]
    for file in source_files(*PACKAGES):
        name = str(file.relative_to(ROOT))
        if re.search(rf"^\s*(import|from) {vendor}\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            assert name.startswith(owners), name
