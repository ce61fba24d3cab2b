"""One pass without padding: the states and gradients of the padded one, and no token read twice."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from pipelines.core.sections.training import Architecture
from pipelines.model.architecture import build
from pipelines.model.attention import suit_device
from pipelines.model.rewards import pad_right
from pipelines.model.trunk import Layout, hidden_states

BEGINNING = [5, 6, 7, 8, 9]
ROWS = [[*BEGINNING, 1], [*BEGINNING, 2, 3, 4], [*BEGINNING, 2, 11, 12, 13, 14]]


def model_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = Architecture(family=family, layers=2, hidden=32, heads=4, kv_heads=4 if family == "gpt2" else 2, context=64)
    return build(sizes, 32).eval()


def test_a_batch_is_laid_flat_and_back() -> None:
    ids, attention = pad_right(ROWS, 0)
    layout = Layout.of(ids, attention)
    assert layout.flat(ids).tolist() == [*BEGINNING, 1, 2, 3, 4, 2, 11, 12, 13, 14]
    assert torch.equal(layout.padded(layout.flat(ids)), ids)


def test_every_row_keeps_a_token_of_its_own() -> None:
    assert Layout.of(*pad_right(ROWS, 0)).shared == 5
    assert Layout.of(*pad_right([BEGINNING, [*BEGINNING, 1]], 0)).shared == 4
    assert Layout.of(*pad_right([[1, 2], [2, 2]], 0)).shared == 0


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("rows", [ROWS, [[1, 2, 3], [2, 2, 3, 4]], ROWS[:1]], ids=["alike", "different", "one"])
def test_states_and_gradients_are_those_of_one_pass(family: str, rows: list[list[int]]) -> None:
    model = model_of(family)
    ids, attention = pad_right(rows, 0)
    found = hidden_states(model, ids, attention)
    weights = torch.randn(found.shape) * attention[:, :, None]
    wanted = model.base_model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
    torch.testing.assert_close(found * attention[:, :, None], wanted * attention[:, :, None])

    grads = []
    for states in (found, wanted):
        model.zero_grad()
        (states * weights).sum().backward()
        grads.append({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_every_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    read: list[int] = []
    forward = model.base_model.forward
    monkeypatch.setattr(
        model.base_model,
        "forward",
        lambda input_ids, **rest: read.append(input_ids.numel()) or forward(input_ids, **rest),
    )
    ids, attention = pad_right(ROWS, 0)
    hidden_states(model, ids, attention)
    assert read == [5 + 1 + 3 + 5]


def test_a_model_with_a_sliding_window_reads_everything_at_once() -> None:
    config = Qwen2Config(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    ids, attention = pad_right(ROWS, 0)
    wanted = model.base_model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
    torch.testing.assert_close(hidden_states(model, ids, attention), wanted, rtol=0, atol=0)


def test_dropout_of_a_base_model_stays_in_training() -> None:
    config = GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.5)
    model = suit_device(GPT2LMHeadModel(config))
    ids, attention = pad_right(ROWS, 0)
    for training in (False, True):
        model.train(training)
        first, second = (hidden_states(model, ids, attention) for _ in range(2))
        assert torch.equal(first, second) is not training
