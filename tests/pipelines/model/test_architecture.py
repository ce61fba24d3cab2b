"""Architectures: each family is built in the sizes asked for, and sizes that don't fit are refused."""

import pytest
import torch

from pipelines.core.errors import BadInput
from pipelines.core.sections.training import Architecture
from pipelines.model.architecture import build, feed_forward

SIZES = {"layers": 2, "hidden": 32, "heads": 4, "context": 64}


@pytest.mark.parametrize(("family", "kv_heads"), [("gpt2", 4), ("llama", 2), ("qwen3", 2)])
def test_a_family_is_built_causal_and_tied(family: str, kv_heads: int) -> None:
    torch.manual_seed(0)
    model = build(Architecture(family=family, kv_heads=kv_heads, **SIZES), 300).eval()  # type: ignore[arg-type]
    assert model.config.model_type == family
    assert model.config.max_position_embeddings == 64
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ids = torch.arange(20)[None] + 5
    changed = ids.clone()
    changed[0, 15] = 200
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert torch.allclose(before[:, :15], after[:, :15], atol=1e-5)
    assert not torch.allclose(before[:, 15:], after[:, 15:], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden": 30}, "hidden 30 over 4 heads"),
        ({"kv_heads": 3}, "4 heads can't share 3"),
        ({"family": "gpt2"}, "set kv_heads to 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], reason: str) -> None:
    sizes = {"family": "llama", "kv_heads": 2, **SIZES, **changes}
    with pytest.raises(BadInput, match=reason):
        build(Architecture(**sizes), 300)  # type: ignore[arg-type]


def test_the_feed_forward_width_is_eight_thirds_in_steps_of_64() -> None:
    assert [feed_forward(hidden) for hidden in (96, 576, 4096)] == [256, 1536, 10944]
