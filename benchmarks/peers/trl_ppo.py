"""TRL 1.12's PPOTrainer as the peer of `ppo_vs_trl`; runs in an environment of its own, which has only TRL.

    python trl_ppo.py time <job.json>       seconds of each step, as JSON in the last line
    python trl_ppo.py maths <job.json>      one step; the tensors of its arithmetic into job["tensors"]

The job names the folders of policy and reward model, the prompts as token ids, and the settings of the run.
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


class StepTimes(TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ended = [time.perf_counter()]

    def on_train_begin(self, args, state, control, **kwargs):
        self.ended = [time.perf_counter()]

    def on_step_end(self, args, state, control, **kwargs):
        self.ended.append(time.perf_counter())


def record_arithmetic(record):
    """Keep what the trainer's arithmetic is given and what it finds; the functions are those that train() calls."""

    def watch(name, note):
        original = getattr(ppo_trainer, name)

        def watched(*arguments, **keywords):
            found = original(*arguments, **keywords)
            note(arguments, keywords, found)
            return found

        setattr(ppo_trainer, name, watched)

    def keep(key, tensor):
        record.setdefault(key, tensor.detach().float().clone())

    def whitened(arguments, _keywords, found):
        keep("advantages", arguments[0])
        keep("advantage_mask", arguments[1])
        keep("whitened", found)

    def averaged(arguments, _keywords, found):
        if "whitened" not in record:
            return  # whitening takes means too
        # In the order of train(): value loss, its clip fraction, policy loss.
        for key in ("value_losses", "value_clipped", "policy_losses"):
            if key not in record:
                keep(key, arguments[0])
                keep(f"{key}_mask", arguments[1])
                keep(f"{key}_mean", found)
                return

    logprobs = iter(("logprobs", "ref_logprobs", "new_logprobs"))
    rewards = iter(("values", "scores"))

    def predicted(_arguments, _keywords, found):
        keep(next(logprobs), found)

    def rewarded(arguments, _keywords, found):
        key = next(rewards)
        context = arguments[3]
        keep(key, found[0][:, context - 1 : -1].squeeze(-1) if key == "values" else found[1])
        record.setdefault("sequences", arguments[1].clone())

    watch("masked_whiten", whitened)
    watch("masked_mean", averaged)
    watch("selective_log_softmax", predicted)
    watch("get_reward", rewarded)


def main():
    mode, path = sys.argv[1:]
    job = json.loads(Path(path).read_text())
    torch.manual_seed(job["seed"])
    dtype = getattr(torch, job["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(job["policy"], padding_side="left")
    policy, ref_policy = (AutoModelForCausalLM.from_pretrained(job["policy"], dtype=dtype) for _ in range(2))
    value_model, reward_model = (
        AutoModelForSequenceClassification.from_pretrained(job["reward_model"], num_labels=1, dtype=dtype)
        for _ in range(2)
    )
    episodes = job["episodes"]
    arguments = PPOConfig(
        output_dir=job["output"],
        per_device_train_batch_size=episodes,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=1,
        total_episodes=episodes * job["steps"],
        response_length=job["max_new_tokens"],
        local_rollout_forward_batch_size=episodes,
        stop_token="eos",
        temperature=job["temperature"],
        learning_rate=job["learning_rate"],
        kl_coef=job["kl_coefficient"],
        cliprange=job["clip_range"],
        cliprange_value=job["value_clip_range"],
        vf_coef=job["value_coefficient"],
        gamma=job["gamma"],
        lam=job["gae_lambda"],
        num_sample_generations=0,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=job["seed"],
    )
    rows = Dataset.from_list([{"input_ids": ids} for ids in job["prompts"]])
    times, record = StepTimes(), {}
    if mode == "maths":
        record_arithmetic(record)
        ppo_trainer.np.random.permutation = ppo_trainer.np.arange  # one mini-batch, its rows in order
    trainer = PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=ref_policy,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=rows,
        eval_dataset=rows.select(range(1)),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[times],
    )
    trainer.train()
    if mode == "maths":
        record["sequences"] = record["sequences"].long()
        save_file({key: tensor.contiguous() for key, tensor in record.items()}, job["tensors"])
    seconds = [late - early for early, late in pairwise(times.ended)]
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
