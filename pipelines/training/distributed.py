"""The only user of DeepSpeed: several processes train one model, on one machine or, by a hostfile, on many.

A stage that wants several processes starts itself again under DeepSpeed's launcher, as a module, so that every process
runs the workspace's code; with a hostfile the workspace must lie on a file system that the machines share. A single
process, unless ZeRO is asked for on a GPU, never imports DeepSpeed.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.sections.training import Distributed
from pipelines.core.tracking import URI_VARIABLE
from pipelines.training.checkpointing import COMPLETE, KEPT, Checkpoints, require_same
from pipelines.training.next_token import LanguageModelLoss
from pipelines.training.optimizer import BETAS, decay_groups

PORTS = range(20000, 32000)


class Rank(NamedTuple):
    """This process among those that train."""

    rank: int
    ranks: int
    local: int  # on its machine
    launched: bool  # by `launch`

    @property
    def first(self) -> bool:
        """Whether this one reports and saves."""
        return self.rank == 0


def this_rank() -> Rank:
    """From the environment that the launcher sets; one of one without it."""
    if "LOCAL_RANK" not in os.environ:
        return Rank(0, 1, 0, False)
    return Rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]), True)


def wants_launch(params: Distributed) -> bool:
    """Whether training under `params` takes DeepSpeed's launcher: several processes, or ZeRO on a GPU.

    Raises:
        BadInput: more processes than GPUs, or an offload that its ZeRO stage does not know.
    """
    needed = {"none": 0, "optimizer": 1, "weights": 3}[params.offload]
    if params.zero_stage < needed:
        raise BadInput(f"pretrain.distributed.offload {params.offload} needs zero_stage {needed}; raise it")
    gpus = torch.cuda.device_count()
    processes = params.processes or max(1, gpus)
    if gpus and processes > gpus and params.hostfile is None:
        raise BadInput(f"pretrain.distributed.processes is {processes}, there are {gpus} GPUs; set it to null for all")
    return (
        processes > 1
        or params.hostfile is not None
        or (gpus > 0 and (params.zero_stage > 0 or params.offload != "none"))
    )


def _free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to connections: the ranks bind it only later."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BadInput(f"none of 100 ports from {PORTS.start} to {PORTS.stop} is free; end what holds them")


def launch(module: str, params: Distributed) -> int:
    """Run `python -m module` in every process; returns the exit code of the first that failed, or 0."""
    processes = params.processes or max(1, torch.cuda.device_count())
    where = ["--num_accelerators", str(processes)]
    if params.hostfile is not None:
        where += ["--hostfile", params.hostfile]
    else:
        where += ["--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
    command = [sys.executable, "-m", "deepspeed.launcher.runner", *where, "--no_local_rank", "--module", module]
    chosen = {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
    return subprocess.run(command, env=os.environ | chosen, check=False).returncode


def enter(rank: Rank) -> None:
    """Join the other processes; all but the first stop talking to the tracking server."""
    import deepspeed

    if torch.cuda.is_available():
        torch.cuda.set_device(rank.local)
        deepspeed.init_distributed("nccl")
    else:
        # Its shared-memory transport is built by a C++ compiler at first use; gloo needs none.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("gloo")
    if not rank.first:
        os.environ.pop(URI_VARIABLE, None)


def leave() -> NoReturn:
    """Part from the other processes and end this one.

    The threads of gloo outlive the group, and an interpreter that takes its leave under them is now and then aborted
    (exit code -6 after all is saved), which the launcher takes for a failed training.
    """
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def configuration(params: Distributed, dtype: str, max_norm: float, sequences: int, accumulate: int) -> dict[str, Any]:
    """DeepSpeed's own settings; `sequences` are those of one micro-batch of one process."""
    zero: dict[str, Any] = {"stage": params.zero_stage}
    if params.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if params.offload == "weights":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": sequences,
        "gradient_accumulation_steps": accumulate,
        "gradient_clipping": max_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its own AdamW for offloading is built by a compiler
        "steps_per_print": 2**31,
    }


class DeepSpeedOptimizer:
    """AdamW under ZeRO, as `train_step` uses an optimizer. `engine` is the loss to train on, instead of `loss_of`."""

    def __init__(self, loss_of: LanguageModelLoss, weight_decay: float, config: dict[str, Any]) -> None:
        import deepspeed

        weights = [weight for weight in loss_of.parameters() if weight.requires_grad]
        adamw = torch.optim.AdamW(decay_groups(weights, weight_decay), lr=0.0, betas=BETAS)
        self._whole = config["zero_optimization"]["stage"] < 3
        if not self._whole:
            # The head is read outside of its own module, so its parts must be fetched for the loss as a whole.
            deepspeed.zero.register_external_parameter(loss_of, loss_of.head_weight)
        self.engine, *_ = deepspeed.initialize(model=loss_of, optimizer=adamw, config=config)
        self._weights = weights
        self._plain = config["zero_optimization"]["stage"] == 0 and not config["bf16"]["enabled"]
        self._behind = False

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's loss; the engine divides by their number."""
        if self._behind:
            self.engine.step()  # between micro-batches this only counts
        self.engine.backward(loss)
        self._behind = True

    def update(self, rate: float, max_norm: float, batches: int) -> float:
        """Update the weights; returns the norm of the mean gradient over all processes, before clipping."""
        assert batches == self.engine.gradient_accumulation_steps(), batches
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        # Without ZeRO in float32 the engine clips and does not say from what norm.
        grads = [weight.grad for weight in self._weights if weight.grad is not None]
        before = torch.nn.utils.get_total_norm(grads) if self._plain else None
        self.engine.step()
        self._behind = False
        return float(self.engine.get_global_grad_norm() if before is None else before)

    def mean(self, loss: Tensor) -> float:
        """The mean of `loss` [] over all processes."""
        whole = loss.detach().clone()
        torch.distributed.all_reduce(whole)
        return float(whole) / torch.distributed.get_world_size()

    def whole_weights(self) -> AbstractContextManager[Any]:
        """Within it every process holds all weights, also under ZeRO 3."""
        import deepspeed

        return nullcontext() if self._whole else deepspeed.zero.GatheredParameters(self._weights)


class RankCheckpoints:
    """Checkpoints that every process writes its part of, as DeepSpeed does; the first process says when."""

    def __init__(self, checkpoints: Checkpoints, engine: Any, rank: Rank) -> None:
        self._checkpoints, self._engine, self._rank = checkpoints, engine, rank

    def _saved(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return sorted(path.parent for path in self._checkpoints.folder.glob(f"step-*/{COMPLETE}"))

    def resume(self) -> tuple[int, list[float]]:
        """The steps that are done and their losses; weights and optimizer are as they were then.

        Raises:
            BadInput: the checkpoint belongs to another configuration.
        """
        saved = self._saved()
        if not saved:
            return 0, []
        require_same(read_json(saved[-1] / COMPLETE), self._checkpoints.identity, saved[-1])
        _, state = self._engine.load_checkpoint(str(self._checkpoints.folder), tag=saved[-1].name)
        if self._rank.first:
            print(f"goes on after step {state['step']}, from {saved[-1]}", flush=True)
        return state["step"], state["losses"]

    def due(self) -> bool:
        answer = torch.tensor([float(self._checkpoints.due())], device=self._engine.device)
        torch.distributed.broadcast(answer, 0)
        return bool(answer.item())

    def save(self, step: int, losses: list[float]) -> None:
        """Write the state after `step` steps; the mark of completeness comes last, and then the oldest goes."""
        folder = self._checkpoints.folder
        tag = f"step-{step:08d}"
        self._engine.save_checkpoint(str(folder), tag=tag, client_state={"step": step, "losses": losses})
        torch.distributed.barrier()
        if self._rank.first:
            write_json(folder / tag / COMPLETE, self._checkpoints.identity)
            for old in self._saved()[:-KEPT]:
                shutil.rmtree(old)
