"""Every path that a stage writes or reads, relative to the workspace that the stage runs in.

`artifacts/<stage>/` is what `dvc.yaml` names as that stage's output, `artifacts/metrics/<stage>.json` its metrics.
"""

from pathlib import Path

ROOT = Path("artifacts")
METRICS = ROOT / "metrics"

INGEST = ROOT / "ingest"
INGEST_CORPUS = INGEST / "corpus"  # <source>-<n>.jsonl.gz: Document rows
INGEST_MODERATION = INGEST / "moderation"  # <source>-<n>.jsonl.gz: {text, labels}
INGEST_EVALUATION = INGEST / "evaluation"  # <source>/: the files of an evaluation set, for the `…_data` of evaluate
INGEST_BASE_MODEL = INGEST / "base_model"  # origin.json and the files of base_model, none when it is scratch
INGEST_GPT2_TOKENIZER = INGEST / "gpt2_tokenizer"  # its files and origin.json, or there why it is not at hand
INGEST_MODERATION_BASE = INGEST / "moderation_base"  # the files of ingest.moderation_base, none when it is null
INGEST_QUARANTINED = INGEST / "quarantined.jsonl"  # {source, path, line, reason}
INGEST_MANIFEST = INGEST / "manifest.json"

TRAIN_MODERATION = ROOT / "train_moderation"

PREPARE_CORPUS = ROOT / "prepare_corpus"
CORPUS_TRAIN = PREPARE_CORPUS / "train.jsonl.gz"
CORPUS_HELD_OUT = PREPARE_CORPUS / "held_out.jsonl.gz"
CORPUS_DROPPED = PREPARE_CORPUS / "dropped.jsonl.gz"
CORPUS_FUNNEL = PREPARE_CORPUS / "funnel.json"
CORPUS_DROP_SAMPLES = PREPARE_CORPUS / "drop_samples.jsonl"
CORPUS_FUNNEL_PLOT = PREPARE_CORPUS / "funnel.svg"
CORPUS_CARD = PREPARE_CORPUS / "card.md"

VALIDATE_CORPUS = ROOT / "validate_corpus"

TRAIN_TOKENIZER = ROOT / "train_tokenizer"
TOKENIZER_REPORT = TRAIN_TOKENIZER / "report.json"
TOKENIZER_CARD = TRAIN_TOKENIZER / "card.md"

TOKENIZE_CORPUS = ROOT / "tokenize_corpus"
TOKENS_MANIFEST = TOKENIZE_CORPUS / "manifest.json"  # names <split>-<number>.bin
TOKENS_CARD = TOKENIZE_CORPUS / "card.md"

PRETRAIN = ROOT / "pretrain"

PULL_DEMONSTRATIONS = ROOT / "pull_demonstrations"
WRITTEN_ANSWERS = PULL_DEMONSTRATIONS / "answers.jsonl"  # WrittenAnswer rows, whatever their verdict

PREPARE_SFT = ROOT / "prepare_sft"
SFT_TRAIN = PREPARE_SFT / "train.jsonl"
SFT_HELD_OUT = PREPARE_SFT / "held_out.jsonl"
PROMPTS_LABELING = PREPARE_SFT / "prompts_labeling.jsonl"  # people rank responses to these
PROMPTS_ALIGNMENT = PREPARE_SFT / "prompts_alignment.jsonl"  # rollouts
PROMPTS_HELD_OUT = PREPARE_SFT / "prompts_held_out.jsonl"  # never trained on: judge, held-out reward

VALIDATE_SFT = ROOT / "validate_sft"

SFT = ROOT / "sft"

PREVIOUS_ROUND = ROOT / "previous_round"
PREVIOUS_ROUND_MANIFEST = PREVIOUS_ROUND / "manifest.json"  # `core/rounds.py` reads it; the rest only from round 2 on
PREVIOUS_POLICY = PREVIOUS_ROUND / "policy"
PREVIOUS_REWARD_MODEL = PREVIOUS_ROUND / "reward_model"
PREVIOUS_CHALLENGER = PREVIOUS_ROUND / "challenger"  # the policy of another run, where one is named
PREVIOUS_PREFERENCES_TRAIN = PREVIOUS_ROUND / "train.jsonl"
PREVIOUS_PREFERENCES_HELD_OUT = PREVIOUS_ROUND / "held_out.jsonl"
EARLIER_ROUNDS = PREVIOUS_ROUND / "rounds.jsonl"  # {run, outs} of every earlier round, newest first; empty in the first

PULL_FEEDBACK = ROOT / "pull_feedback"
FEEDBACK = PULL_FEEDBACK / "answers.jsonl"  # RatedAnswer rows; none where no snapshot is named

SAMPLE_COMPLETIONS = ROOT / "sample_completions"
LABEL_BATCH = SAMPLE_COMPLETIONS / "batch.jsonl"  # LabelTask rows
LABEL_BATCH_MANIFEST = SAMPLE_COMPLETIONS / "batch.json"  # {batch_id, tasks, label_config_sha, guideline_version}

PULL_ANNOTATIONS = ROOT / "pull_annotations"
ANNOTATIONS = PULL_ANNOTATIONS / "annotations.jsonl"
PROGRESS = PULL_ANNOTATIONS / "progress.json"  # {labels, labels_needed, tasks, tasks_needed}

PREPARE_PREFERENCES = ROOT / "prepare_preferences"
PREFERENCES_TRAIN = PREPARE_PREFERENCES / "train.jsonl"
PREFERENCES_HELD_OUT = PREPARE_PREFERENCES / "held_out.jsonl"
AGREEMENT = PREPARE_PREFERENCES / "agreement.json"
AGREEMENT_REPORT = PREPARE_PREFERENCES / "agreement.html"

VALIDATE_PREFERENCES = ROOT / "validate_preferences"

REWARD_MODEL = ROOT / "reward_model"
PPO = ROOT / "ppo"
DPO = ROOT / "dpo"
GRPO = ROOT / "grpo"
RLOO = ROOT / "rloo"
BEST_OF_N = ROOT / "best_of_n"

EVALUATE = ROOT / "evaluate"
EVALUATION = EVALUATE / "results.json"
EVALUATION_SAMPLES = EVALUATE / "samples"  # <model>/<task>.jsonl

GATE = ROOT / "gate"
VERDICT = GATE / "verdict.json"
REPORT_CARD = GATE / "report_card.html"

# Written by commands that act on servers, never by DVC stages.
RUN = Path(".run")
RUN_INFO = RUN / "run.json"
FAILURES = RUN / "failures"
STAGE_LOG = RUN / "stages"
EVALUATION_PROGRESS = RUN / "evaluate"  # what a killed evaluation goes on from
PUSHED = RUN / "push_tasks.json"
WAITING = RUN / "wait.json"  # {progress, says}: what the last look at the labels found
PROMOTION = RUN / "promotion.json"  # {by, reason, at, verdict, verdict_sha256}: a release that the gate did not pass
PROMOTED_CARD = RUN / "report_card.html"
REGISTERED = RUN / "register.json"
LINEAGE = RUN / "lineage.json"  # what the version came from; `core/lineage.py`
BENTO = RUN / "build_bento.json"
DEPLOYED = RUN / "deploy.json"
SMOKE_TEST = RUN / "smoke_test.json"


def metrics_of(stage: str) -> Path:
    """Where `stage` writes its metrics."""
    return METRICS / f"{stage}.json"


def aligned_model(method: str) -> Path:
    """The policy folder that the alignment stage `method` writes."""
    return ROOT / method


def curve_of(stage: str) -> Path:
    """Where a trainer's figures over its steps lie: {step, loss, …} a line."""
    return ROOT / stage / "curve.jsonl"


def curve_progress_of(stage: str) -> Path:
    """Where they lie while it trains."""
    return RUN / "curves" / f"{stage}.jsonl"


def checkpoints_of(stage: str) -> Path:
    """Where a trainer keeps what it goes on from when it was killed."""
    return RUN / "checkpoints" / stage
