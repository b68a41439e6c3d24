"""How each family's weights and cache follow from a GGUF's metadata and tensors."""

from __future__ import annotations

import pytest
from model_files import gguf_header, llama_gguf
from vram_plan.errors import FormatError
from vram_plan.models import gguf
from vram_plan.models.architecture import Architecture
from vram_plan.models.gguf_architecture import read_gguf_architecture


def architecture(metadata: dict[str, object], tensors: dict[str, object]) -> Architecture:
    blob, data = gguf_header(metadata, tensors)
    return read_gguf_architecture(gguf.parse(lambda offset, size: blob[offset : offset + size], "m.gguf", len(blob) + data))


def family(arch: str, layers: int, tensors: dict[str, tuple[int, ...]], **keys: object) -> Architecture:
    """An architecture from its keys (dots as __) and the tensors of its layers; `{i}` in a name means every layer."""
    named_keys = {f"{arch}.{k.replace('__', '.')}": v for k, v in keys.items()}
    metadata = {"general.architecture": arch, f"{arch}.block_count": layers, **named_keys}
    named: dict[str, object] = {"token_embd.weight": (64, 32)}
    for name, shape in tensors.items():
        for i in range(layers) if "{i}" in name else (0,):
            named[name.replace("{i}", str(i))] = shape
    return architecture(metadata, named)


QKV = {"blk.{i}.attn_q.weight": (32, 32), "blk.{i}.attn_k.weight": (32, 32), "blk.{i}.attn_v.weight": (32, 32)}


def test_llama() -> None:
    found = architecture(*llama_gguf(3))
    assert (found.family, found.layers, found.hidden_size, found.vocab_size, found.heads) == ("llama", 3, 512, 1024, 8)
    assert found.tied_embeddings
    assert found.basis == "formula"
    assert found.trained_context == 8192
    assert found.kv_bytes(1000) == 3 * 1000 * 2 * (64 + 64) * 2
    assert {t.role for t in found.tensors if t.layer == 1} >= {"attn_q", "ffn_down", "attn_norm"}
    assert sum(t.parameters for t in found.tensors) == 1024 * 512 + 512 + 3 * (2 * 512 + 2 * 512 * 512 + 2 * 128 * 512 + 3 * 512 * 1024)


def test_head_sizes_and_kv_heads_may_differ_by_layer() -> None:
    found = family(
        "deci", 3, {"blk.{i}.attn_k.weight": (32, 32)}, embedding_length=32, attention__head_count=[4, 0, 4],
        attention__head_count_kv=[2, 0, 1], attention__key_length=16, attention__value_length=8,
    )  # fmt: skip
    assert [(c.layer, c.kv_heads, c.k_dim, c.v_dim) for c in found.cache_layers] == [(0, 2, 16, 8), (2, 1, 16, 8)]


@pytest.mark.parametrize(
    ("arch", "keys", "kinds"),
    [
        ("gemma2", {"attention__sliding_window": 4096}, "sfsfsf"),
        ("gemma2", {}, "sfsfsf"),
        ("gemma3", {"attention__sliding_window": 512}, "sssssf"),
        ("gemma3", {}, "ffffff"),
        ("gpt-oss", {"attention__sliding_window": 128}, "sfsfsf"),
        ("cohere2", {"attention__sliding_window": 4096}, "sssfss"),
        ("llama4", {}, "cccfcc"),
        ("llama4", {"attention__sliding_window": 0}, "ffffff"),
        ("olmo2", {"attention__sliding_window": 4096}, "sssfss"),
        ("smallthinker", {"attention__sliding_window": 4096}, "fsssfs"),
        ("gemma4", {"attention__sliding_window": 512, "attention__sliding_window_pattern": [True, True, False] * 2}, "ssfssf"),
        ("mimo2", {"attention__sliding_window": 128, "attention__sliding_window_pattern": [0, 1, 1, 1, 1, 0]}, "fssssf"),
        ("gemma3", {"attention__sliding_window": 512, "attention__sliding_window_pattern": 3}, "ssfssf"),
        ("phi3", {"attention__sliding_window": 2047}, "ffffff"),
        ("llama", {"attention__sliding_window": 4096}, "ffffff"),
    ],
)
def test_windows_as_llama_cpp_sets_them(arch: str, keys: dict[str, object], kinds: str) -> None:
    found = family(arch, 6, QKV, embedding_length=32, attention__head_count=4, **keys)
    assert "".join(c.kind[0] for c in found.cache_layers) == kinds
    stated = keys.get("attention__sliding_window", 4096)
    assert all(c.window == (8192 if arch == "llama4" else stated) for c in found.cache_layers if c.kind != "full")
    assert any("sliding window" in note for note in found.notes) == (arch in ("phi3", "llama"))


def test_sliding_layers_have_their_own_head_size_and_shared_layers_no_cache() -> None:
    """Gemma 4 E2B in small: the last layers read the last cache of their kind (llama-model.cpp, `reuse`)."""
    found = family(
        "gemma4", 6, QKV, embedding_length=32, attention__head_count=4, attention__head_count_kv=1, attention__key_length=16,
        attention__value_length=16, attention__key_length_swa=8, attention__value_length_swa=8, attention__sliding_window=100,
        attention__sliding_window_pattern=[True, True, True, False, True, False], attention__shared_kv_layers=2,
    )  # fmt: skip
    assert [(c.kind, c.k_dim, c.source) for c in found.cache_layers] == [
        ("sliding", 8, None), ("sliding", 8, None), ("sliding", 8, None), ("full", 16, None), ("shared", 8, 2), ("shared", 16, 3),
    ]  # fmt: skip
    assert found.kv_bytes(1000) == 2 * (3 * 99 * 16 + 1000 * 32)


MLA = {
    "blk.{i}.attn_q.weight": (4 * 24, 32), "blk.{i}.attn_kv_a_mqa.weight": (16 + 8, 32), "blk.{i}.attn_kv_a_norm.weight": (16,),
}  # fmt: skip


def test_latent_attention() -> None:
    new = family(
        "deepseek2", 2, {**MLA, "blk.{i}.attn_k_b.weight": (4, 16, 16), "blk.{i}.attn_v_b.weight": (4, 16, 16)}, embedding_length=32,
        attention__head_count=4, attention__head_count_kv=1, attention__kv_lora_rank=16, attention__key_length=24,
        attention__value_length=16, attention__key_length_mla=24, attention__value_length_mla=16,
    )  # fmt: skip
    assert [(c.kind, c.elements_per_token, c.latent_rank) for c in new.cache_layers] == [("latent", 24, 16)] * 2
    old = family(
        "deepseek2", 2, {**MLA, "blk.{i}.attn_kv_b.weight": (4 * 32, 16)}, embedding_length=32, attention__head_count=4,
        attention__head_count_kv=4, attention__kv_lora_rank=16, attention__key_length=24, attention__value_length=16,
    )  # fmt: skip
    assert [(c.kind, c.elements_per_token) for c in old.cache_layers] == [("full", 4 * (24 + 16))] * 2
    assert any("old conversion" in note for note in old.notes)


def test_an_indexer_adds_its_key() -> None:
    dsa = family(
        "glm-dsa", 2, {**MLA, "blk.{i}.attn_k_b.weight": (4, 16, 16), "blk.0.indexer.attn_k.weight": (128, 32)}, embedding_length=32,
        attention__head_count=4, attention__head_count_kv=1,
    )  # fmt: skip
    assert [c.index_dim for c in dsa.cache_layers] == [128, 0]


def test_delta_net_layers_keep_a_state_the_others_a_cache() -> None:
    """Qwen3-Next's numbers: 8192 × 4 conv elements and 32 × 128 × 128 of state a layer (transformers' cache, measured)."""
    linear = {"blk.0.attn_qkv.weight": (8192, 32), "blk.0.ssm_conv1d.weight": (8192, 4), "blk.0.ssm_out.weight": (32, 4096)}
    full = {f"blk.1.attn_{r}.weight": (512, 32) for r in "kv"}
    found = family(
        "qwen3next", 2, linear | full, embedding_length=32, attention__head_count=16, attention__head_count_kv=2, attention__key_length=256,
        attention__value_length=256, ssm__conv_kernel=4, ssm__inner_size=4096, ssm__state_size=128, ssm__group_count=16,
        ssm__time_step_rank=32,
    )  # fmt: skip
    state, cache = found.cache_layers
    assert (state.layer, state.kind, state.conv_elements, state.state_elements) == (0, "recurrent", 32768, 524288)
    assert (cache.layer, cache.kind, cache.elements_per_token) == (1, "full", 1024)


def test_other_states() -> None:
    lfm = family(
        "lfm2", 2, {"blk.0.shortconv.conv.weight": (32, 3), "blk.1.attn_k.weight": (8, 32)}, embedding_length=32,
        attention__head_count=4, attention__head_count_kv=[0, 1], shortconv__l_cache=3,
    )  # fmt: skip
    assert [(c.kind, c.conv_elements) for c in lfm.cache_layers] == [("recurrent", 96), ("full", 0)]
    falcon = family(
        "falcon-h1", 1, {"blk.0.ssm_conv1d.weight": (48, 4), "blk.0.attn_k.weight": (8, 32)}, embedding_length=32, attention__head_count=4,
        ssm__inner_size=32, ssm__state_size=8,
    )  # fmt: skip
    assert [c.kind for c in falcon.cache_layers] == ["recurrent", "full"], "attention and a state side by side"
    kimi = family(
        "kimi-linear", 1, {**QKV, **{f"blk.0.ssm_conv1d_{x}.weight": (32, 4) for x in "qkv"}}, embedding_length=32, attention__head_count=4,
        attention__head_count_kv=[0], kda__head_dim=8, ssm__conv_kernel=4,
    )  # fmt: skip
    assert [(c.conv_elements, c.state_elements) for c in kimi.cache_layers] == [(3 * 32 * 4, 8 * 8 * 4)]
    rwkv = family("rwkv6", 1, {"blk.0.time_mix_key.weight": (32, 32)}, embedding_length=32, wkv__head_size=8)
    assert [(c.conv_elements, c.state_elements) for c in rwkv.cache_layers] == [(64, 256)]
    minimax = family(
        "minimax-01", 2, {"blk.0.attn_qkv.weight": (96, 32), "blk.1.attn_k.weight": (8, 32)}, embedding_length=32, attention__head_count=4,
        attention__head_count_kv=1, attention__key_length=8, attention__recurrent_layers=[True, False],
    )  # fmt: skip
    assert [(c.kind, c.state_elements) for c in minimax.cache_layers] == [("recurrent", 8 * 8 * 4), ("full", 0)]


def test_compressed_cache_of_deepseek_v4() -> None:
    """Of the published sizes: 512 wide, index keys of 128, 5,120 elements of compressor state at ratio 4 (measured in transformers)."""
    found = family(
        "deepseek4", 3, {"blk.{i}.attn_kv.weight": (512, 32)}, embedding_length=32, attention__head_count=4, attention__head_count_kv=1,
        attention__key_length=512, attention__value_length=512, attention__sliding_window=128, attention__compress_ratios=[0, 4, 128],
        attention__indexer__key_length=128,
    )  # fmt: skip
    first, csa, hca = found.cache_layers
    assert (first.kind, first.elements_per_token) == ("sliding", 1024)
    assert csa.kv_elements(8192) == 127 * 512 + 2048 * (512 + 128)
    assert csa.conv_elements == 5120
    assert hca.kv_elements(8192) == 127 * 512 + 64 * 512


def test_experts_draft_layers_and_towers() -> None:
    tensors = {
        **QKV, "blk.{i}.ffn_up_exps.weight": (8, 16, 32), "blk.{i}.ffn_up_exps.bias": (8, 16), "blk.{i}.ffn_up_shexp.weight": (16, 32),
        "blk.0.nextn.eh_proj.weight": (32, 64), "v.blk.0.attn_q.weight": (32, 32), "mm.0.weight": (32, 32),
        "a.blk.0.ffn_up.weight": (32, 32),
        "output.weight": (64, 32),
    }  # fmt: skip
    found = family(
        "glm4moe", 3, tensors, embedding_length=32, attention__head_count=4, nextn_predict_layers=1, expert_count=8, expert_used_count=2
    )
    assert (found.layers, len(found.cache_layers), found.experts, found.experts_per_token) == (2, 2, 8, 2)
    assert not found.tied_embeddings
    parts = {t.role: t.part for t in found.tensors if t.layer is None or t.part not in ("text", "mtp")}
    assert parts["mm.0"] == "projector"
    assert [t.part for t in found.tensors if t.role == "attn_q"] == ["text", "text", "mtp", "vision"]
    assert [t.part for t in found.tensors if t.role == "ffn_up"] == ["audio"]
    assert {t.experts for t in found.tensors if t.role.startswith("ffn_up_exps")} == {8}
    assert {t.experts for t in found.tensors if t.role == "ffn_up_shexp"} == {0}


def test_experts_stored_one_by_one() -> None:
    found = family(
        "llama", 1, {**QKV, **{f"blk.0.ffn_up.{e}.weight": (16, 32) for e in range(4)}}, embedding_length=32, attention__head_count=4
    )
    stacked = [t for t in found.tensors if t.role == "ffn_up_exps"]
    assert [t.experts for t in stacked] == [1] * 4
    assert sum(t.parameters for t in stacked) == 4 * 16 * 32


def test_encoders_keep_nothing_and_unknown_ones_say_so() -> None:
    assert family("bert", 2, QKV, embedding_length=32, attention__head_count=4).kind == "encoder"
    assert family("bert", 2, QKV, embedding_length=32, attention__head_count=4).cache_layers == ()
    unknown = family("zebra", 2, QKV, embedding_length=32, attention__head_count=4, attention__sliding_window=16)
    assert unknown.basis == "fallback"
    assert "'zebra' is not known" in unknown.notes[0]
    assert unknown.kv_bytes(10) == 2 * 10 * 64 * 2


def test_projector_alone() -> None:
    found = architecture(
        {"general.architecture": "clip", "clip.vision.block_count": 3}, {"v.blk.0.attn_q.weight": (32, 32), "mm.0.weight": (8, 8)}
    )
    assert [t.part for t in found.tensors] == ["vision", "projector"]
    assert found.cache_layers == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block_count": "many"}, "block_count"),
        ({"block_count": 1 << 40}, "block_count"),
        ({"attention__head_count": [4]}, "2 whole numbers"),
        ({"attention__head_count": [4, -1]}, "2 whole numbers"),
        ({"embedding_length": 0}, "embedding_length"),
        ({"embedding_length": float("nan")}, "embedding_length"),
        ({"attention__key_length": -5}, "key_length"),
        ({"nextn_predict_layers": 1.5}, "nextn_predict_layers"),
    ],
)
def test_metadata_that_cannot_be_meant(keys: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        family("llama", 2, QKV, **{"embedding_length": 32, "attention__head_count": 4, **keys})


def test_rope_tables_take_bytes_but_are_no_parameters() -> None:
    metadata, tensors = llama_gguf()
    with_table = architecture(metadata, {**tensors, "rope_freqs.weight": ((64,), "F32")})
    without = architecture(metadata, tensors)
    assert len(with_table.tensors) == len(without.tensors) + 1
    assert sum(t.parameters for t in with_table.tensors) == sum(t.parameters for t in without.tensors)


@pytest.mark.parametrize("name", ["", "\x1b[2J", "a b", "x" * 65, 3])
def test_odd_architecture_name(name: object) -> None:
    with pytest.raises(FormatError, match=r"general\.architecture"):
        architecture({"general.architecture": name}, {})


def test_files_that_are_no_whole_model() -> None:
    metadata, tensors = llama_gguf()
    with pytest.raises(FormatError, match="holds no weights"):
        architecture(metadata, {})
    with pytest.raises(FormatError, match="adapter"):
        architecture({**metadata, "general.type": "adapter"}, tensors)


def test_no_architecture() -> None:
    with pytest.raises(FormatError, match=r"general\.architecture"):
        architecture({"general.name": "x"}, {})
