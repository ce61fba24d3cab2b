"""Log-probabilities from hidden states: the numbers and gradients of the plain way."""

import pytest
import torch
from torch import Tensor

from pipelines.model import logits
from pipelines.model.logits import chosen_logprobs


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return ((hidden @ weight.T) / temperature).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_log_softmax(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits, "CHUNK_ELEMENTS", 40)  # several chunks, the last one not full
    drawn = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 5, generator=drawn, dtype=torch.float64) for rows in (7, 13))
    hidden, weight = hidden.float(), weight.float()
    targets = torch.randint(13, (7,), generator=drawn)
    upstream = torch.randn(7, generator=drawn)
    found = []
    for way in (chosen_logprobs, plain):
        leaves = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
        values = way(*leaves, targets, temperature)
        values.backward(upstream)
        found.append([values.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_head_that_is_not_trained_needs_no_gradient() -> None:
    hidden = torch.randn(3, 5, requires_grad=True)
    chosen_logprobs(hidden, torch.randn(13, 5), torch.tensor([1, 2, 3])).sum().backward()
    assert hidden.grad is not None
