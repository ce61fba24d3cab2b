"""Operations per token by hand for each family, and the share of a peak."""

import pytest

from pipelines.core.sections.training import Architecture
from pipelines.model.architecture import build, feed_forward
from pipelines.training.throughput import flops_per_token, mfu, peak_flops


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_operations_are_those_of_the_products(family: str) -> None:
    sizes = Architecture(family=family, layers=2, hidden=32, heads=4, kv_heads=4, context=64)  # type: ignore[arg-type]
    inner = 8 * 32 if family == "gpt2" else 3 * feed_forward(32)  # columns of all products of one feed-forward block
    weights = 2 * (4 * 32 * 32 + inner * 32) + 300 * 32
    assert flops_per_token(build(sizes, 300), 16) == 6 * weights + 12 * 2 * 32 * 16


def test_utilization_is_a_share_of_the_stated_peak() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989.5e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("AMD EPYC") is None
    assert mfu(100.0, 1e12, 200e12) == 0.5
    assert mfu(100.0, 1e12, None) is None
