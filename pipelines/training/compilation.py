"""Compiling the forward pass: when it pays, what it needs, and one rewrite of the graph that CPUs gain from."""

import ctypes
import importlib.util
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.nn import functional

from pipelines.core.errors import BadInput

CPU_COMPILERS = ("c++", "g++", "clang++")
# Below this much training on a CPU, the minute that compiling can take is more than it saves.
WORTHWHILE_CPU_FLOPS = 4e13

_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1  # of glibc's mallopt(3)


def has_compiler(device: str) -> bool:
    """Whether torch.compile can build kernels: Triton for a GPU, a C++ compiler for a CPU."""
    if device == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(compiler) for compiler in CPU_COMPILERS)


def should_compile(choice: bool | Literal["auto"], device: str, training_flops: float) -> bool:
    """What `choice` means here; "auto" compiles wherever that can and pays.

    Raises:
        BadInput: true was asked for and there is no compiler.
    """
    if choice == "auto":
        return has_compiler(device) and (device == "cuda" or training_flops >= WORTHWHILE_CPU_FLOPS)
    if choice and not has_compiler(device):
        missing = "Triton" if device == "cuda" else "a C++ compiler"
        raise BadInput(f"pretrain.compile needs {missing} and there is none; install it, or set it to auto or false")
    return choice


def join_linears(graph: fx.GraphModule) -> int:
    """Make one product of linear layers on the same input (query, key and value; gate and up); returns how many went.

    Narrow products leave a CPU's cores waiting: one of 3 × 384 columns takes well under the time of three of 384.
    """
    by_input: dict[Any, list[Any]] = defaultdict(list)
    for node in graph.graph.nodes:
        plain = node.op == "call_function" and node.target in (functional.linear, torch._C._nn.linear)
        if plain and len(node.args) == 3 and node.args[2] is None and not node.kwargs:
            by_input[node.args[0]].append(node)
    joined = 0
    for source, linears in by_input.items():
        weights = [node.args[1] for node in linears]
        shapes = [weight.meta["example_value"].shape for weight in weights]
        if len(linears) < 2 or any(weight.op != "placeholder" for weight in weights):
            continue
        with graph.graph.inserting_before(linears[0]):
            stacked = graph.graph.call_function(torch.cat, (weights,))
            product = graph.graph.call_function(functional.linear, (source, stacked))
            parts = graph.graph.call_function(torch.split, (product, [shape[0] for shape in shapes], -1))
            for number, node in enumerate(linears):
                part = graph.graph.call_function(lambda parts, number: parts[number], (parts, number))
                node.replace_all_uses_with(part)
        for node in linears:
            graph.graph.erase_node(node)
        joined += len(linears)
    graph.recompile()
    return joined


def _joining_backend(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
    from torch._inductor.compile_fx import compile_fx

    join_linears(graph)
    return compile_fx(graph, inputs)


def compiled(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """`forward` compiled for the fixed shapes of training."""
    if device == "cpu":
        return torch.compile(forward, backend=_joining_backend, dynamic=False)
    return torch.compile(forward, dynamic=False)


def keep_freed_memory() -> None:
    """Let this process reuse memory that tensors free, instead of giving it back and faulting it in again.

    Activations on a CPU are hundreds of megabytes that come and go with every step. glibc only; elsewhere nothing.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
