"""From a passed gate to a served bento: a real MLflow server, git, BentoML, document store and client."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pipelines import register
from pipelines.core import artifacts, registry, tracking
from pipelines.core.config import Params, parse, resolve
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, write_json, write_rows
from pipelines.core.stage import Stage
from pipelines.core.workspace import write_params
from serving import build_bento, deploy, release_state, smoke_test
from serving.operations import rollback, trace
from tests.mlflow_pages import require_page
from tests.serving import servers
from tests.serving.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = """\
# How the model is made.
stages:
  sft:
    cmd: python -m pipelines.sft
  ppo: # the default
    cmd: python -m pipelines.ppo
  dpo:
    cmd: python -m pipelines.dpo
"""
OVERRIDES = ["chat.max_new_tokens=16", "chat.access.requests_per_minute=100000"]
PASS = {"verdict": "pass", "text": "pass (demo rules)", "rules": [], "notes": []}


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_model(folder: Path) -> None:
    """Two random llama layers and a byte-level tokenizer with the project's chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: index for index, token in enumerate(specials + alphabet)}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.chat_template = (ROOT / "pipelines/model/chat_template.jinja").read_text()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def write_moderation(folder: Path) -> None:
    """A classifier of two categories that has learned one sentence: that of the smoke test."""
    import numpy as np

    from pipelines.model.ngram_moderation import FeatureShape, NGramModerator

    shape = FeatureShape(hash_bits=12, shortest=2, longest=4, word_ngrams=1, word_weight=2.0)
    weights = np.zeros((2, 1 << shape.hash_bits), np.float32)
    harmful = shape.of(smoke_test.HARMFUL)
    weights[1, harmful.indices] = 40 * harmful.values
    NGramModerator(["harassment", "violence"], shape, weights, np.full(2, -20, np.float32)).save(folder)


def write_lock(model_hash: str) -> None:
    """A small dvc.lock: ppo from sft, gate over ppo's evaluation, and a stage that leads nowhere near the gate."""

    def entry(path: str, digest: str) -> dict[str, str]:
        return {"path": path, "hash": "md5", "md5": digest}

    stages = {
        "prepare_corpus": {"cmd": "p", "outs": [entry("artifacts/prepare_corpus", "c.dir")]},
        "prepare_sft": {"cmd": "p", "outs": [entry("artifacts/prepare_sft", "s.dir")]},
        "pull_annotations": {"cmd": "p", "outs": [entry("artifacts/pull_annotations", "a.dir")]},
        "sft": {"cmd": "a", "outs": [entry("artifacts/sft", "1.dir"), entry("artifacts/metrics/sft.json", "m1")]},
        "ppo": {
            "cmd": "b",
            "deps": [entry("artifacts/sft", "1.dir")],
            "params": {"params.yaml": {"ppo.steps": 2}},
            "outs": [entry("artifacts/ppo", model_hash)],
        },
        "evaluate": {
            "cmd": "c",
            "deps": [entry("artifacts/ppo", model_hash)],
            "outs": [entry("artifacts/evaluate", "e.dir")],
        },
        "gate": {
            "cmd": "d",
            "deps": [
                entry("artifacts/evaluate", "e.dir"),
                entry("artifacts/prepare_corpus/funnel.json", "f"),
                entry("artifacts/prepare_sft", "s.dir"),
                entry("artifacts/pull_annotations", "a.dir"),
            ],
            "outs": [entry("artifacts/gate", "g.dir")],
        },
        "other": {"cmd": "e", "outs": [entry("artifacts/other", "o.dir")]},
    }
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))  # JSON is YAML


def write_lineage() -> None:
    """What the stages before the gate left that says where their outputs came from."""
    source = {"name": "manual", "license": "MIT", "origin": "pypi:manual==1", "sha256": "5" * 64, "use": "corpus"}
    write_json(artifacts.INGEST_MANIFEST, {"base_model": None, "sources": [source, source | {"use": "moderation"}]})
    write_json(artifacts.CORPUS_FUNNEL, {"kept": {"train": {"documents": 3, "words": 50}}, "steps": []})
    write_json(artifacts.metrics_of("prepare_sft"), {"demonstrations": 2.0})
    write_rows(artifacts.SFT_TRAIN, [{"license": "MIT"}, {"license": "CC-BY-4.0"}])
    write_json(artifacts.LABEL_BATCH_MANIFEST, {"batch_id": "b4", "tasks": 4, "guideline_version": "g"})
    interval = {"value": 0.75, "low": 0.5, "high": 1.0}
    labelers = [{"labeler": "labeler-1", "agreement_with_others": interval}]
    agreement = {"labels": 6, "simulated_share": 0.5, "agreement": {"pairwise": interval}, "labelers": labelers}
    write_json(artifacts.AGREEMENT, agreement)
    write_rows(artifacts.EARLIER_ROUNDS, [])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's worktree with a finished gate, beside an MLflow server, with the environment of a task."""
    root = tmp_path_factory.mktemp("release")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "files")]
    patch = pytest.MonkeyPatch()
    for name, value in {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "BENTOML_HOME": str(root / "bentoml"),
        "COLLOQUY_HOME": str(root / "home"),
        "CHAT_URL": f"http://127.0.0.1:{free_port()}",
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
    }.items():
        patch.setenv(name, value)
    with (root / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=root)
    try:
        until(lambda: listens(port), 300)
        repo, workspace = root / "repo", root / "workspace"
        repo.mkdir()
        git(repo, "init", "--quiet", "--initial-branch", "main")
        (repo / "params.yaml").write_text("profile: base\n")
        (repo / "dvc.yaml").write_text(PIPELINE)
        git(repo, "add", ".")
        git(repo, "-c", "user.name=Someone", "-c", "user.email=someone@example.org", "commit", "--quiet", "-m", "first")
        git(repo, "worktree", "add", "--quiet", "--detach", str(workspace), "HEAD")
        patch.chdir(workspace)
        values = resolve(ROOT, "tiny", OVERRIDES)
        write_params(workspace, values)
        parent = tracking.open_parent("run-1", {"profile": "tiny"}, {})
        write_json(
            artifacts.RUN_INFO,
            {"run_id": "run-1", "commit": git(repo, "rev-parse", "HEAD"), "mlflow_run_id": parent, "tags": {}},
        )
        write_model(artifacts.PPO)
        write_moderation(artifacts.TRAIN_MODERATION)
        write_rows(artifacts.PREFERENCES_TRAIN, [{"simulated": one, "by_reward_model": False} for one in (False, True)])
        write_json(artifacts.metrics_of("prepare_preferences"), {"pairwise_agreement": 0.75})
        write_json(artifacts.VERDICT, PASS)
        artifacts.REPORT_CARD.write_text("a report card")
        write_lineage()
        write_lock("p.dir")
        yield root
    finally:
        patch.undo()
        end(server)


def params_here() -> Params:
    return parse(resolve(ROOT, "tiny", OVERRIDES), "test")


def stage_of(name: str) -> Stage:
    return Stage(name, params_here(), artifacts.ROOT / name, tracking.NoTracker())


def registered() -> dict:
    assert register.register(stage_of("register")) == ExitCode.OK
    return read_json(artifacts.REGISTERED)


def test_only_what_leads_to_the_gate_counts_for_the_lock_hash(scene: Path):
    lock = json.loads(Path("dvc.lock").read_text())
    assert register.stages_to(lock, "gate") == [
        "evaluate",
        "gate",
        "ppo",
        "prepare_corpus",
        "prepare_sft",
        "pull_annotations",
        "sft",
    ]
    digest = register.lock_hash(lock)
    lock["stages"]["other"]["outs"][0]["md5"] = "changed"
    lock["stages"]["sft"]["outs"][1]["md5"] = "other times"
    assert register.lock_hash(lock) == digest
    lock["stages"]["ppo"]["params"]["params.yaml"]["ppo.steps"] = 3
    assert register.lock_hash(lock) != digest
    with pytest.raises(BadInput, match="no stage 'gate'"):
        register.lock_hash({"stages": {}})


def test_the_same_lock_registers_once_and_another_lock_again(scene: Path):
    first = registered()
    assert (first["version"], first["tag"], first["reused"]) == (1, "model-v1", False)
    assert registered() == first | {"reused": True}
    version = registry.by_alias("challenger")
    assert version is not None and version.number == 1
    assert version.tags["reward_model_labels"] == "false"
    assert version.tags["simulated_labels"] == "true" and version.tags["verdict"] == "pass (demo rules)"
    assert version.tags["pairwise_agreement"] == "0.75" and version.tags["git_tag"] == "model-v1"
    write_lock("q.dir")
    try:
        assert registered()["version"] == 2
    finally:
        write_lock("p.dir")
    assert registered()["version"] == 1


def test_the_tag_brings_back_lock_and_parameters_and_touches_nothing_else(scene: Path):
    registered()
    repo = scene / "repo"
    assert git(repo, "show", "model-v1:dvc.lock") == Path("dvc.lock").read_text()
    assert git(repo, "show", "model-v1:params.yaml") == Path("params.yaml").read_text().strip()
    ran = git(repo, "show", "model-v1:dvc.yaml")
    assert ran == PIPELINE[: PIPELINE.index("  dpo:")].strip()
    assert git(repo, "log", "-1", "--format=%an", "model-v1") == "Colloquy release"
    assert git(repo, "rev-parse", "model-v1^") == git(repo, "rev-parse", "main")
    assert git(repo, "status", "--porcelain") == "" and git(repo, "branch", "--format=%(refname:short)") == "main"
    assert "user" not in (repo / ".git" / "config").read_text()


def test_a_tag_of_another_registry_is_left_alone(scene: Path):
    digest, commit = "d" * 64, git(scene / "repo", "rev-parse", "HEAD")
    git(scene / "repo", "tag", "model-v77", registered()["tag"])
    write_lock("z.dir")
    try:
        digest = register.lock_hash(json.loads(Path("dvc.lock").read_text()))
        tag = register.tag_inputs(77, digest, commit)
        assert tag == f"model-v77-{digest[:8]}"
        assert register.tag_inputs(77, digest, commit) == tag
    finally:
        write_lock("p.dir")


def test_every_step_of_a_trace_has_a_page_that_is_there(scene: Path):
    with tracking.open_run("register") as tracker:
        assert register.register(replace(stage_of("register"), tracker=tracker)) == ExitCode.OK
    found = {step.name: step for step in trace.trace("colloquy-v1", os.environ["MLFLOW_TRACKING_URI"])}
    digest = read_json(artifacts.REGISTERED)["lock_hash"]
    assert found["bento"].says == f"colloquy:v1-{digest[:8]}"
    assert found["gate"].says == "pass (demo rules)"
    assert found["label batch"].says == "b4, 4 tasks, 50% simulated"
    assert found["labeler"].says == "labeler-1 agrees with the others: 75% (50% to 100%)"
    assert found["SFT data"].says == "s.dir, 2 demonstrations, CC-BY-4.0, MIT"
    assert found["corpus"].says == "c.dir, 3 documents: manual (MIT, pypi:manual==1)"
    assert git(scene / "repo", "rev-parse", "HEAD") in found["git commit"].says
    for step in found.values():
        require_page(step.page)


@pytest.mark.parametrize(
    ("model", "says"),
    [("colloquy-v999", "no version 999"), ("gpt-4", "no model of this registry")],
)
def test_a_model_that_cannot_be_traced_is_named(scene: Path, model: str, says: str):
    with pytest.raises(BadInput, match=says):
        trace.trace(model, os.environ["MLFLOW_TRACKING_URI"])


@pytest.mark.parametrize("says", ["refuse", "inconclusive"])
def test_anything_but_pass_releases_nothing_and_names_the_rules(
    scene: Path, says: str, capsys: pytest.CaptureFixture[str]
):
    rules = [{"name": "mmlu", "verdict": says, "reason": "x"}, {"name": "safety", "verdict": "pass", "reason": "y"}]
    write_json(artifacts.VERDICT, {"verdict": says, "text": says, "rules": rules, "notes": []})
    try:
        assert register.register(stage_of("register")) == ExitCode.SKIP
    finally:
        write_json(artifacts.VERDICT, PASS)
    said = capsys.readouterr().out
    assert f"mmlu ({says})" in said and "safety" not in said


def test_a_promotion_releases_by_name_and_reason_and_only_the_verdict_that_it_was_of(
    scene: Path, capsys: pytest.CaptureFixture[str]
):
    verdict = {"verdict": "refuse", "text": "refuse (demo rules)", "rules": [], "notes": []}
    write_json(artifacts.VERDICT, verdict)
    promotion = {
        "by": "Ada",
        "reason": "a demonstration",
        "at": "2026-11-21T12:00:00+00:00",
        "verdict": verdict["text"],
    }
    write_json(artifacts.PROMOTION, promotion | {"verdict_sha256": file_sha256(artifacts.VERDICT)})
    artifacts.PROMOTED_CARD.write_text("by Ada")
    write_lock("forced.dir")
    try:
        first = registered()
        assert first["promoted"]
        assert "released by Ada although the gate says refuse (demo rules): a demonstration" in capsys.readouterr().out
        version = registry.find(first["lock_hash"])
        assert version is not None
        assert version.tags["verdict"] == "refuse (demo rules)"
        assert (version.tags["promoted_by"], version.tags["promoted_reason"]) == ("Ada", "a demonstration")
        release = build_bento.release_of(stage_of("build_bento"), version.number, version.tags)
        assert (release.promoted_by, release.promoted_reason) == ("Ada", "a demonstration")
        write_json(artifacts.VERDICT, verdict | {"notes": ["another look"]})
        assert register.register(stage_of("register")) == ExitCode.SKIP
        assert "it is void" in capsys.readouterr().out
    finally:
        artifacts.PROMOTION.unlink()
        write_json(artifacts.VERDICT, PASS)
        write_lock("p.dir")
    assert not registered()["promoted"]


def test_a_champion_that_changed_is_compared_with_before_anything_is_registered(
    scene: Path, monkeypatch: pytest.MonkeyPatch
):
    registered()
    values = resolve(ROOT, "tiny", ["evaluate.baseline=champion"])
    before = Path("params.yaml").read_bytes()
    write_params(Path.cwd(), values)
    registry.set_alias("champion", 1)
    ran: list[list[str]] = []

    def run(words: list[str], **options: object) -> subprocess.CompletedProcess:
        ran.append(words[-2:])
        return subprocess.CompletedProcess(words, 1 if words[-1] == "gate" else 0)

    monkeypatch.setattr(register.subprocess, "run", run)
    try:
        assert register.compare_with_champion() == ExitCode.NOT_YET
        assert ran == [["repro", "evaluate"], ["repro", "gate"]]
        assert "champion_version: 1" in Path("params.yaml").read_text()
        assert register.compare_with_champion() == ExitCode.OK and len(ran) == 2
    finally:
        Path("params.yaml").write_bytes(before)
        tracking.client().delete_registered_model_alias(registry.MODEL, "champion")


@pytest.fixture(scope="module")
def bento(scene: Path) -> dict:
    registered()
    build_bento.build_bento(stage_of("build_bento"))
    return read_json(artifacts.BENTO)


def test_a_version_is_built_once(bento: dict):
    digest = read_json(artifacts.REGISTERED)["lock_hash"]
    assert bento == {"bento": f"colloquy:v1-{digest[:8]}", "version": 1, "built": True}
    started = time.monotonic()
    build_bento.build_bento(stage_of("build_bento"))
    assert read_json(artifacts.BENTO) == bento | {"built": False}
    assert time.monotonic() - started < 1


def test_the_bento_carries_code_moderation_and_release_and_no_machine_path(bento: dict):
    import bentoml

    source = Path(bentoml.bentos.get(bento["bento"]).path) / "src"
    release = read_json(source / "release.json")
    assert release["version"] == 1 and release["simulated_labels"] is True
    assert release["chat"]["max_new_tokens"] == 16
    for name in (
        "serving/web/index.html",
        "serving/moderation.yaml",
        "pipelines/core/config.py",
        "moderation/config.json",
    ):
        assert (source / name).exists()
    packages = (source.parent / "env/python/requirements.txt").read_text()
    assert "torch==2.13.0\n" in packages and "+cpu" not in packages


@pytest.fixture(scope="module")
def stack(scene: Path) -> Iterator[str]:
    """The stores, and a chat process that serves when the release file appears, as the stack does it."""
    port = free_port()
    url = f"mongodb://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("nx-27017")), "--db", str(scene / "documents.db"), "-p", str(port)]
    command += ["--pid-file", str(scene / "documents.pid"), "--log-file", str(scene / "documents.log")]
    store = subprocess.Popen(command, cwd=scene, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "serving.serve"],
        cwd=ROOT,
        env=os.environ
        | {"MONGODB_URL": url, "REDIS_URL": f"{servers.valkey_url()}/1", "SQL_URL": f"sqlite:///{scene}/users.db"},
        stdout=(scene / "chat.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    yield os.environ["CHAT_URL"]
    end(watcher)
    end(store)


@pytest.fixture(scope="module")
def deployed(bento: dict, stack: str, scene: Path) -> str:
    try:
        deploy.deploy(stage_of("deploy"), scene / "home", stack, seconds=90)
    except deploy.DeployFailed as error:
        raise AssertionError(f"{error}\n{(scene / 'chat.log').read_text()[-4000:]}") from error
    return stack


def test_deploying_serves_the_bento_and_moves_the_champion_once(deployed: str, bento: dict, scene: Path):
    champion = registry.by_alias("champion")
    assert champion is not None and champion.number == 1
    assert read_json(artifacts.DEPLOYED) == {"bento": bento["bento"], "version": 1, "previous": None, "changed": True}
    state = release_state.path(scene / "home").read_bytes()
    deploy.deploy(stage_of("deploy"), scene / "home", deployed, seconds=5)
    assert read_json(artifacts.DEPLOYED)["changed"] is False
    assert release_state.path(scene / "home").read_bytes() == state and registry.by_alias("previous") is None


def test_the_served_bento_passes_its_smoke_test(deployed: str):
    result = smoke_test.smoke_test(stage_of("smoke_test"), deployed)
    assert result["version"] == 1 and result["models"] == ["colloquy-v1", "colloquy"]
    assert result["plain"] == result["streamed"] and result["moderated"].startswith("I can't help with hurting")
    if shutil.which("chromium"):
        assert (artifacts.RUN / "chat_page.png").stat().st_size > 1000
    else:
        assert result["notes"] == ["browser: not installed, skipped"]


def test_bentomls_health_and_metrics_answer_beside_the_page(deployed: str):
    assert httpx.get(f"{deployed}/livez").status_code == 200
    assert httpx.get(f"{deployed}/readyz").status_code == 200
    assert "bentoml_service_request_total" in httpx.get(f"{deployed}/metrics").text
    assert "What would you like to know?" in httpx.get(deployed).text


def test_a_reader_that_leaves_frees_the_slot_of_the_served_bento(deployed: str):
    body = {"model": "colloquy", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 150}

    def running() -> int:
        return httpx.get(f"{deployed}/api/status").json()["running"]

    with httpx.stream("POST", f"{deployed}/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
    until(lambda: running() == 0, seconds=2)


def test_a_bento_that_does_not_come_up_leaves_the_old_one_in_service(deployed: str, bento: dict, scene: Path):
    home = scene / "home"
    write_json(artifacts.BENTO, {"bento": "colloquy:v2-00000000", "version": 2, "built": True})
    try:
        with pytest.raises(deploy.DeployFailed, match=r"v1-\w+ answers \(ready\); see the end of .*chat\.log"):
            deploy.deploy(stage_of("deploy"), home, deployed, seconds=1)
    finally:
        write_json(artifacts.BENTO, bento)
    state, champion = release_state.read(home), registry.by_alias("champion")
    assert state is not None and state.bento == bento["bento"]
    assert champion is not None and champion.number == 1


def test_a_second_version_becomes_champion_and_remembers_the_first(deployed: str):
    assert deploy.promote(2) == 1
    previous, champion = registry.by_alias("previous"), registry.by_alias("champion")
    assert previous is not None and previous.number == 1 and champion is not None and champion.number == 2
    assert deploy.promote(2) == 1
    deploy.promote(1)


class Load:
    """Somebody who asks all the time; `failures` is what was answered but an answer."""

    def __init__(self, url: str) -> None:
        self.answers, self.failures = 0, []
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(3)]

    def _ask(self, number: int) -> None:
        body = {"model": "colloquy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=body | {"stream": number == 0})
                    ended = number != 0 or answer.text.rstrip().endswith("data: [DONE]")
                    said = None if answer.is_success and ended else f"{answer.status_code} {answer.text[-200:]}"
                except httpx.HTTPError as error:
                    said = repr(error)
                self.answers += said is None
                self.failures += [said] if said else []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_request_fails_while_a_version_takes_over_and_is_taken_back(deployed: str, bento: dict, scene: Path):
    write_lock("q.dir")
    try:
        second = registered()["version"]
        build_bento.build_bento(stage_of("build_bento"))
        with Load(deployed) as load:
            until(lambda: load.answers > 5)
            deploy.deploy(stage_of("deploy"), scene / "home", deployed, seconds=180)
            assert deploy.status(deployed)["bento"] == read_json(artifacts.BENTO)["bento"] != bento["bento"]
            until(lambda: load.answers > 20)
            state = rollback.rollback(scene / "home", deployed, "Ada", "a test")
            assert (state.bento, state.version, state.previous) == (bento["bento"], 1, second)
            assert deploy.status(deployed)["bento"] == bento["bento"]
            until(lambda: load.answers > 40)
    finally:
        write_lock("p.dir")
        registered()
        write_json(artifacts.BENTO, bento)
    assert load.failures == []
    aliases = {alias: registry.by_alias(alias) for alias in ("champion", "previous")}
    assert {alias: version and version.number for alias, version in aliases.items()} == {
        "champion": 1,
        "previous": second,
    }
    assert aliases["previous"] is not None and aliases["previous"].tags["rolled_back"].endswith("by Ada: a test")


def test_a_rollback_needs_a_version_before_a_name_and_a_reason(tmp_path: Path):
    with pytest.raises(BadInput, match="no version before"):
        rollback.rollback(tmp_path, "http://127.0.0.1:9", "Ada", "a test")
    with pytest.raises(BadInput, match="a name and a reason"):
        rollback.rollback(tmp_path, "http://127.0.0.1:9", "Ada", " ")


def test_a_candidate_answers_the_conversations_that_begin_with_it_until_it_is_taken_back(
    deployed: str, bento: dict, scene: Path
):
    home = scene / "home"
    write_lock("q.dir")
    try:
        second = registered()["version"]
        build_bento.build_bento(stage_of("build_bento"))
        candidate = read_json(artifacts.BENTO)["bento"]
        with httpx.Client(base_url=deployed, timeout=60) as client:

            def begin() -> str:
                return client.post("/api/conversations").raise_for_status().json()["conversation_id"]

            def answered_by(conversation: str) -> str:
                said = client.post(f"/api/conversations/{conversation}/messages", json={"content": "Hello"})
                first = said.raise_for_status().text.partition("data: ")[2].partition("\n")[0]
                return json.loads(first)["model"]

            old = begin()
            stage = stage_of("deploy")
            release = stage.params.release.model_copy(update={"rollout": "canary"})
            stage = replace(stage, params=stage.params.model_copy(update={"release": release}))
            deploy.deploy(stage, home, deployed, seconds=180)
            assert answered_by(begin()) == "colloquy-v1"  # no share yet
            deploy.give_share(home, candidate, 1.0)
            until(lambda: answered_by(begin()) == f"colloquy-v{second}")
            new = begin()
            assert answered_by(new) == f"colloquy-v{second}" and answered_by(old) == "colloquy-v1"
            assert deploy.status(deployed)["bento"] == bento["bento"]
            champion = registry.by_alias("champion")
            assert champion is not None and champion.number == 1
            rollback.rollback(home, deployed, "Ada", "enough seen")
            until(lambda: answered_by(new) == "colloquy-v1")
    finally:
        write_lock("p.dir")
        registered()
        write_json(artifacts.BENTO, bento)
    state = release_state.read(home)
    assert state is not None and state.candidate is None and state.bento == bento["bento"]
    assert registry.by_number(second).tags["rolled_back"].endswith("by Ada: enough seen")
