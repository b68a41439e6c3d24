"""The decoder a calibration runs: it is as large as the plan says, and a right decoder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.calibration.layout import layout_of
from vram_plan.calibration.shapes import first_layers, from_wire, ladder_shape
from vram_plan.models.architecture import Architecture
from vram_plan.models.dialects import read_architecture

pytest.importorskip("torch")
from vram_plan.calibration.decoder import Decoder
from vram_plan.calibration.kernels import load_torch

torch = load_torch()
torch.set_num_threads(1)  # other work on the cores makes two threads wait for each other

SMALL = {
    "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 96, "max_position_embeddings": 512,
}  # fmt: skip
DIALECTS = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 16},
    "gemma3_text": {"sliding_window": 8},
    "mistral": {"sliding_window": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
    "olmo2": {},
    "cohere": {},
    "starcoder2": {"sliding_window": None},
    "phi3": {},
}


def architecture_of(kind: str) -> Architecture:
    return read_architecture({"model_type": kind, **SMALL, **DIALECTS[kind]}, kind)


def decoder_of(architecture: Architecture, capacity: int = 24, dtype: str = "float32", **more: object) -> Decoder:
    torch.manual_seed(7)
    return Decoder(layout_of(architecture), getattr(torch, dtype), torch.device("cpu"), capacity=capacity, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", DIALECTS)
def test_it_is_as_large_as_the_inventory(kind: str) -> None:
    architecture = architecture_of(kind)
    decoder = decoder_of(architecture, 24, "bfloat16")
    expected = sum(tensor.parameters for tensor in architecture.tensors)
    assert decoder.parameters == layout_of(architecture).parameters == expected
    assert decoder.weight_bytes == 2 * expected
    places = [min(24, layer.window or 24) for layer in architecture.cache_layers]
    held = [layer.tokens_held(24) + (1 if place < 24 else 0) for layer, place in zip(architecture.cache_layers, places, strict=True)]
    assert places == held, "a static ring has the newest token's own place besides the W - 1 that are kept"
    elements = [place * layer.elements_per_token for place, layer in zip(places, architecture.cache_layers, strict=True)]
    assert decoder.kv_bytes == 2 * sum(elements)
    if not any(layer.window for layer in architecture.cache_layers):
        assert decoder.kv_bytes == architecture.kv_bytes(24)


@pytest.mark.parametrize("kind", DIALECTS)
def test_token_by_token_gives_what_the_whole_prompt_gives(kind: str) -> None:
    decoder = decoder_of(architecture_of(kind))
    tokens = torch.randint(0, 300, (12,))
    with torch.inference_mode():
        whole = [decoder.prefill(tokens[: n + 1])[0] for n in range(12)]
        for layer in decoder.layers:
            layer.k.fill_(float("nan"))
            layer.v.fill_(float("nan"))
        for n in range(12):
            decoder.tokens.fill_(int(tokens[n]))
            torch.testing.assert_close(decoder.step(n + 1)[0], whole[n], rtol=1e-3, atol=1e-4)
    assert whole[5].std() > 0.05, "logits that hardly differ would agree whatever was computed"


def plainly(decoder: Decoder, tokens: Any) -> Any:
    """The logits after each token, computed as the textbook writes it: positions turned as complex numbers, K and V repeated, a mask."""
    x = decoder.embedding[tokens]
    places = torch.arange(len(tokens))
    behind = places[:, None] - places[None, :]

    def normed(x: Any, norm: Any) -> Any:
        return x if norm is None else x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    def turned(x: Any, size: int) -> Any:
        half = size // 2
        angle = places[:, None, None] * 10_000.0 ** (-torch.arange(half) / half)
        both = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((both.real, both.imag), -1)

    def block(made: Any, h: Any) -> Any:
        gate, up = (h @ made.up.weight.T).chunk(2, -1)
        return (gate * gate.sigmoid() * up) @ made.down.weight.T

    def mixture(layer: Any, h: Any) -> Any:
        shares = (h @ layer.router.weight.T).softmax(-1)
        shares = shares * (shares >= shares.topk(layer.of.chosen).values[:, -1:])
        shares = shares / shares.sum(-1, keepdim=True)
        return sum(shares[:, i, None] * block(expert, h) for i, expert in enumerate(layer.routed))

    for layer in decoder.layers:
        of, named = layer.of, layer.norms
        h = normed(x, named.get("before_attention"))
        q, k, v = (h @ layer.qkv.weight.T).split((of.heads * of.head_dim, of.kv_heads * of.head_dim, of.kv_heads * of.head_dim), -1)
        q, k, v = (part.view(len(tokens), -1, of.head_dim) for part in (q, k, v))
        q, k = turned(normed(q, named.get("q_norm")), of.head_dim), turned(normed(k, named.get("k_norm")), of.head_dim)
        k, v = (part.repeat_interleave(of.heads // of.kv_heads, 1) for part in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / of.head_dim**0.5
        seen = (behind >= 0) & (behind < (of.window or len(tokens)))
        mixed = torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v).reshape(len(tokens), -1)
        x = x + normed(mixed @ layer.out.weight.T, named.get("after_attention"))
        h = normed(x, named.get("before_ffn"))
        x = x + normed(block(layer.dense, h) if layer.dense else mixture(layer, h), named.get("after_ffn"))
    return normed(x, decoder.norm) @ (decoder.head.weight if decoder.head else decoder.embedding).T


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "mistral", "mixtral"])
def test_it_computes_what_the_textbook_says(kind: str) -> None:
    """Held against transformers' own classes by hand as well: Llama, Qwen3, Mistral, OLMo 2 and Mixtral agreed to 1e-6."""
    decoder, tokens = decoder_of(architecture_of(kind)), torch.randint(0, 300, (12,))
    with torch.inference_mode():
        expected = plainly(decoder, tokens)
        for n in range(12):
            decoder.tokens.fill_(int(tokens[n]))
            torch.testing.assert_close(decoder.step(n + 1)[0], expected[n], rtol=1e-3, atol=1e-5)


def test_a_prompt_leaves_the_cache_the_next_token_needs() -> None:
    decoder = decoder_of(architecture_of("mistral"))
    tokens = torch.randint(0, 300, (20,))
    with torch.inference_mode():
        whole = decoder.prefill(tokens)
        decoder.prefill(tokens[:19])
        decoder.tokens.fill_(int(tokens[19]))
        torch.testing.assert_close(decoder.step(20), whole, rtol=1e-3, atol=1e-4)


def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    single, batch = decoder_of(architecture_of("qwen3")), decoder_of(architecture_of("qwen3"), sequences=3)
    tokens = torch.randint(0, 300, (3, 6))
    with torch.inference_mode():
        for n in range(6):
            batch.tokens.copy_(tokens[:, n])
            together = batch.step(n + 1)
        for row in range(3):
            batch_weights = single.prefill(tokens[row]) if same_weights(single, batch) else None
            assert batch_weights is not None
            torch.testing.assert_close(together[row], batch_weights[0], rtol=1e-3, atol=1e-4)


def same_weights(to: Decoder, source: Decoder) -> bool:
    """Copies every weight of one decoder into another of the same layout."""
    to.embedding.copy_(source.embedding)
    for a, b in zip(to.layers, source.layers, strict=True):
        assert a.dense is not None and b.dense is not None
        for x, y in ((a.qkv, b.qkv), (a.out, b.out), (a.dense.up, b.dense.up), (a.dense.down, b.dense.down)):
            x.weight.copy_(y.weight)  # type: ignore[attr-defined]
        for name, norm in a.norms.items():
            norm.weight.copy_(b.norms[name].weight)
    assert to.norm is not None and source.norm is not None
    to.norm.weight.copy_(source.norm.weight)
    return True


def test_grouped_experts_give_what_single_ones_give() -> None:
    architecture = read_architecture({"model_type": "mixtral", **SMALL, **DIALECTS["mixtral"]}, "mixtral")
    one, grouped = decoder_of(architecture, dtype="bfloat16"), decoder_of(architecture, dtype="bfloat16", grouped=True)
    assert one.parameters == grouped.parameters
    layer, stacked = one.layers[0], grouped.layers[0]
    assert stacked.stacks is not None
    for stack, experts in zip(stacked.stacks, ([e.up for e in layer.routed], [e.down for e in layer.routed]), strict=True):
        for row, expert in zip(stack, experts, strict=True):
            row.copy_(expert.weight)  # type: ignore[attr-defined]
    h = torch.randn(5, 64).bfloat16()
    ids, shares = torch.tensor([[0, 1], [1, 3], [2, 0], [3, 2], [1, 0]]), torch.rand(5, 2).bfloat16()
    expected = one._one_by_one(layer, h, ids, shares)
    torch.testing.assert_close(grouped._grouped(stacked, h, ids, shares), expected, rtol=0.05, atol=1e-3)


def test_the_first_layers_of_a_model_are_the_shallower_model() -> None:
    deep, shallow = architecture_of("llama"), first_layers(architecture_of("llama"), 2)
    with torch.inference_mode():
        torch.testing.assert_close(decoder_of(shallow).step(1), decoder_of(deep).step(1, layers=2))
        assert not torch.equal(decoder_of(deep).step(1), decoder_of(deep).step(1, layers=2))
    assert layout_of(shallow).layers == layout_of(deep).layers[:2]


@pytest.mark.parametrize(("name", "words"), [("deepseek-v3", "latent"), ("mamba-codestral-7b", "cache"), ("t5-small", "no decoder")])
def test_what_it_cannot_build_is_said(name: str, words: str) -> None:
    with pytest.raises(vp.UsageError, match=words) as caught:
        layout_of(vp.load(name).architecture)
    assert "grouped-query attention" in caught.value.hint


def test_every_buildable_model_of_the_catalogue_has_its_parameters() -> None:
    built = 0
    for row in vp.list_models()[::24]:
        try:
            architecture = vp.load(row.name).architecture
            layout = layout_of(architecture)
        except vp.VramPlanError:
            continue
        built += 1
        assert layout.parameters == sum(tensor.parameters for tensor in architecture.tensors if tensor.part == "text"), row.name
    assert built > 5


def test_an_architecture_survives_the_way_to_the_measuring_process() -> None:
    import json

    architecture = ladder_shape(1024, 4, 8192, mixture=True)
    assert from_wire(json.loads(json.dumps(asdict(architecture)))) == architecture


@pytest.mark.parametrize("mixture", [False, True])
def test_a_step_asks_the_device_for_no_value_and_keeps_its_places(mixture: bool) -> None:
    """What a recorded graph needs: no operation that waits for a number, and the same token and cache buffers step after step."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: set[str] = set()

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    decoder = decoder_of(ladder_shape(256, 2, 512, mixture=mixture), dtype="bfloat16", grouped=True)
    buffers = [decoder.tokens, *(cache for layer in decoder.layers for cache in (layer.k, layer.v))]
    places = [buffer.data_ptr() for buffer in buffers]
    with torch.inference_mode(), Log():
        decoder.step(20)
    assert "mm" in seen or "linear" in seen or "addmm" in seen
    assert not seen & {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "is_nonzero", "equal"}
    assert [buffer.data_ptr() for buffer in buffers] == places and decoder.recordable
