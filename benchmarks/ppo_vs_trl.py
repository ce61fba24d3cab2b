"""PPO here against TRL 1.12's PPOTrainer, the last that TRL had: the same arithmetic, and samples per second on a CPU.

    make bench NAME=ppo_vs_trl
    DTYPE=float32 EPISODES=16 ROUNDS=1 make bench NAME=ppo_vs_trl

Policy, reference, reward and value model are SmolLM2-135M; batch, cap, dtype and settings are the same, in processes of
their own that take turns. Two prompt sets: one whose answers stop by themselves early, one whose answers reach the cap.
TRL always draws to the cap and cuts afterwards. TRL's weights are bfloat16 throughout, its fastest; here they are
bfloat16 with float32 masters.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.base_models import ROOT, write_policy, write_reward_model
from benchmarks.peers.environment import python_of
from pipelines import ppo
from pipelines.core import config
from pipelines.core.sections.alignment import Ppo
from pipelines.model.attention import suit_device
from pipelines.model.engine import TransformersEngine
from pipelines.model.rewards import RewardScorer
from pipelines.rlhf.advantages import generalized_advantages, token_rewards, whiten
from pipelines.rlhf.experience import Models
from pipelines.rlhf.kl import kl_per_token
from pipelines.rlhf.losses import policy_loss, value_loss
from pipelines.rlhf.prompts import Prompt
from pipelines.training.compilation import keep_freed_memory

EPISODES = int(os.environ.get("EPISODES", "32"))
ROUNDS = int(os.environ.get("ROUNDS", "2"))
DTYPE = os.environ.get("DTYPE", "bfloat16")
CAP = 64  # tokens of a response
STEPS, WARMING = 5, 2  # of a process, and of these the first, which fault their memory in
TOLERANCE = 1e-5
PLACES = """France Italy Spain Portugal Germany Austria Poland Greece Norway Sweden Finland Denmark Ireland Belgium
Hungary Romania Bulgaria Croatia Serbia Turkey Egypt Kenya Nigeria Morocco Ghana India China Japan Nepal Thailand
Vietnam Indonesia Australia Canada Mexico Brazil Argentina Chile Peru Colombia"""
PROMPT_SETS = {
    "natural": "What is the capital of {}? Answer with the name only.",
    "full_length": "Write a long and detailed story that takes place in {}.",
}


def settings(steps: int) -> Ppo:
    """What both sides run with, where they have the same knob."""
    params = config.parse(config.resolve(ROOT, "smol", []), "the parameters").ppo
    return params.model_copy(
        update={
            "steps": steps,
            "episodes_per_step": EPISODES,
            "minibatch_episodes": EPISODES,
            "microbatch_episodes": EPISODES,
            "epochs": 1,
            "max_new_tokens": CAP,
            "dtype": DTYPE,
        }
    )


def write_job(folder: Path, prompts: list[list[int]], params: Ppo, name: str) -> Path:
    """A run of either side as a file."""
    job = {
        "policy": str(folder / "policy"),
        "reward_model": str(folder / "reward"),
        "output": str(folder / "trl"),
        "tensors": str(folder / "tensors.safetensors"),
        "prompts": prompts,
        "seed": 1,
        "episodes": params.episodes_per_step,
        **params.model_dump(),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(job))
    return path


def render(folder: Path, template: str) -> list[list[int]]:
    """One prompt for each episode of a step."""
    engine = TransformersEngine.load(folder / "policy", "bfloat16", 1)
    chats = [[{"role": "user", "content": template.format(place)}] for place in PLACES.split()[:EPISODES]]
    return [engine.render(chat) for chat in chats]


def load(job: dict[str, Any]) -> Models:
    """Our models of a job."""
    dtype = getattr(torch, job["dtype"])
    policy = suit_device(AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32).eval())
    value_model = AutoModelForSequenceClassification.from_pretrained(job["reward_model"], dtype=torch.float32)
    return Models(
        policy=policy,
        ref_policy=suit_device(AutoModelForCausalLM.from_pretrained(job["policy"], dtype=dtype).eval()),
        value_model=suit_device(value_model.eval()),
        scorer=RewardScorer.load(Path(job["reward_model"]), job["dtype"]),
        harm=None,
        engine=TransformersEngine(policy, AutoTokenizer.from_pretrained(job["policy"]), job["episodes"]),
        adapters=None,
    )


def watch_time(owner: Any, name: str, spent: dict[str, float]) -> None:
    """Add the seconds of every call of `owner.name` to `spent`."""
    original: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        found = original(*arguments, **keywords)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
        return found

    setattr(owner, name, timed)


def run_ours(path: Path) -> None:
    """Our side: seconds and figures of each step, and how long its parts took in all."""
    job = json.loads(path.read_text())
    params = settings(job["steps"])
    keep_freed_memory()
    models = load(job)
    optimizers = ppo.Optimizers.of(models, params)
    prompts = [Prompt(str(number), ids) for number, ids in enumerate(job["prompts"])]
    steps: list[dict[str, Any]] = []
    spent: dict[str, float] = {}
    for owner, name in (
        (ppo, "roll_out"),
        (ppo, "judge"),
        (ppo, "update"),
        (Models, "ref_logprobs"),
        (RewardScorer, "score"),
    ):
        watch_time(owner, name, spent)
    last = time.perf_counter()

    def log(figures: dict[str, float], _step: int) -> None:
        nonlocal last
        now = time.perf_counter()
        steps.append({"seconds": now - last, "parts": dict(spent), "tokens": figures["response_tokens"]})
        spent.clear()
        last = now

    ppo.train(models, optimizers, prompts, params, job["seed"], log)
    print(json.dumps({"steps": steps}))


def run(command: list[str]) -> dict[str, Any]:
    """What a process says in its last line."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def arithmetic(tensors: dict[str, Tensor], params: Ppo) -> dict[str, float]:
    """The largest difference of each of our functions from what TRL found from the same tensors."""
    inside = tensors["advantage_mask"].float()
    ended = tensors[
        "value_losses_mask"
    ].float()  # TRL puts the reward one position after the end token, if there is one
    kl = kl_per_token(tensors["logprobs"], tensors["ref_logprobs"], inside)
    rewards = token_rewards(tensors["scores"], kl, ended, params.kl_coefficient)
    estimated = generalized_advantages(rewards, tensors["values"] * ended, ended, params.gamma, params.gae_lambda)
    policy = policy_loss(
        tensors["new_logprobs"], tensors["logprobs"], tensors["whitened"] * inside, inside, params.clip_range
    )
    values = tensors["values"] * ended
    value = value_loss(values, values, estimated.returns, ended, params.value_clip_range)

    def difference(ours: Tensor, theirs: Tensor) -> float:
        return float((ours - theirs).abs().max())

    return {
        "advantages": difference(estimated.advantages * inside, tensors["advantages"] * inside),
        "whitened": difference(whiten(tensors["advantages"], inside), tensors["whitened"] * inside),
        "policy_loss": difference(policy.loss, tensors["policy_losses_mean"]),
        "value_loss": difference(value.loss, 0.5 * tensors["value_losses_mean"]),
    }


def main() -> None:
    python = str(python_of("trl-ppo"))
    peer = str(Path(__file__).parent / "peers" / "trl_ppo.py")
    with tempfile.TemporaryDirectory(prefix="colloquy-ppo-") as place:
        folder = Path(place)
        write_reward_model(write_policy(folder / "policy"), folder / "reward")
        prompts = {name: render(folder, template) for name, template in PROMPT_SETS.items()}

        params = settings(1).model_copy(update={"dtype": "float32", "episodes_per_step": 8})
        run([python, peer, "maths", str(write_job(folder, prompts["natural"][:8], params, "maths"))])
        tensors = load_file(folder / "tensors.safetensors")
        differences = arithmetic(tensors, params)
        print("largest difference from TRL on its own tensors: ", differences)

        params = settings(STEPS)
        seconds: dict[str, list[float]] = {}
        parts: dict[str, list[dict[str, Any]]] = {}
        for _ in range(ROUNDS):
            for name, ids in prompts.items():
                job = str(write_job(folder, ids, params, name))
                ours = run([sys.executable, __file__, "ours", job])["steps"][WARMING:]
                seconds.setdefault(f"{name} ours", []).extend(step["seconds"] for step in ours)
                parts.setdefault(name, []).extend(ours)
                seconds.setdefault(f"{name} trl", []).extend(run([python, peer, "time", job])["seconds"][WARMING:])
    figures: dict[str, float] = {}
    print(f"{EPISODES} episodes a step, cap {CAP} tokens, {DTYPE}, {ROUNDS} rounds of {STEPS - WARMING} steps each")
    for name in PROMPT_SETS:
        ours, theirs = (statistics.median(seconds[f"{name} {side}"]) for side in ("ours", "trl"))
        length = statistics.mean(step["tokens"] for step in parts[name])
        print(
            f"{name:<12} mean length {length:5.1f}   ours {ours:6.2f} s a step, {EPISODES / ours:5.2f} samples/s   "
            f"TRL {theirs:6.2f} s, {EPISODES / theirs:5.2f} samples/s   ratio {theirs / ours:.2f}"
        )
        total = sum(step["seconds"] for step in parts[name])
        for part in ("roll_out", "judge", "ref_logprobs", "score", "update"):
            share = sum(step["parts"].get(part, 0.0) for step in parts[name]) / total
            inside = " (in judge)" if part in ("ref_logprobs", "score") else ""
            print(f"    {part + inside:<26}{share:6.1%}")
        figures[f"ratio_{name}"] = round(theirs / ours, 2)
        figures[f"samples_per_s_{name}"] = round(EPISODES / ours, 2)
    figures["samples_per_s"] = figures["samples_per_s_full_length"]
    figures |= {f"difference_{name}": value for name, value in differences.items()}
    print(json.dumps({"name": "ppo_vs_trl", "figures": figures}))
    if max(differences.values()) > TOLERANCE:
        sys.exit(f"the arithmetic differs from TRL's by more than {TOLERANCE}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        run_ours(Path(sys.argv[2]))
    else:
        main()
