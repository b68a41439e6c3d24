"""safetensors headers, names and JSON with limits."""

from __future__ import annotations

import json
import struct

import pytest
from model_files import safetensors_header, write_safetensors, write_sparse
from vram_plan.errors import FormatError
from vram_plan.formats.storage import is_stored_format, storage_bytes
from vram_plan.models import safetensors
from vram_plan.models.checkpoint import StoredTensor
from vram_plan.models.json_guard import load_json
from vram_plan.models.names import architecture_from_safetensors, classify

GOOD = {"b": ("BF16", (4, 8)), "a": ("F32", (3,)), "empty": ("F32", (0, 5)), "scalar": ("I64", ())}


def header_of(entries: object) -> bytes:
    return json.dumps(entries).encode()


def one(dtype: object = "F32", shape: object = (2, 2), offsets: object = (0, 16)) -> bytes:
    return header_of({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})


def test_tensors_in_the_order_of_their_data(tmp_path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", GOOD, __metadata__={"format": "pt"})
    found = safetensors.read_file(path)
    assert [(t.name, t.dtype, t.shape, t.bytes) for t in found] == [
        ("b", "BF16", (4, 8), 64), ("a", "F32", (3,), 12), ("empty", "F32", (0, 5), 0), ("scalar", "I64", (), 8),
    ]  # fmt: skip
    assert 8 + safetensors.header_length(path.read_bytes()[:8], "m") + sum(t.bytes for t in found) == path.stat().st_size


def test_the_dtypes_are_formats_of_the_same_size() -> None:
    """The number formats' table and the file format's agree on every dtype that both have."""
    shared = {name: bits for name, bits in safetensors.DTYPE_BITS.items() if is_stored_format(name)}
    assert len(shared) >= 19
    assert all(storage_bytes(name, (8, 64)) * 8 == 512 * bits for name, bits in shared.items())


@pytest.mark.parametrize(
    ("first8", "message"),
    [
        (b"", "only 0 bytes"),
        (b"\0" * 7, "only 7 bytes"),
        (struct.pack("<Q", 0), "0 bytes"),
        (struct.pack("<Q", 1 << 63), "9,223,372,036,854,775,808 bytes"),
        (struct.pack("<Q", 100_000_001), "100,000,001 bytes"),
        (b"GGUF\3\0\0\0", "is it a safetensors file"),
    ],
)
def test_length_that_cannot_be(first8: bytes, message: str) -> None:
    with pytest.raises(FormatError) as error:
        safetensors.header_length(first8, "m.safetensors")
    assert message in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no valid JSON"),
        (b"\xff\xfe{}", "no UTF-8"),
        (b'{"w": NaN}', "NaN is no number"),
        (b'{"w": 1e999}', "too large"),
        (b'{"w": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b'{"w": 3}', "an object belongs there"),
        (one(dtype="F33"), "'F33', which is not known"),
        (one(dtype=None), "None, which is not known"),
        (one(dtype=["F32"]), "a list of 1, which is not known"),
        (one(shape=[2, -2]), "whole numbers belong there"),
        (one(shape=[2.0, 2]), "whole numbers belong there"),
        (one(shape=[True, 4]), "whole numbers belong there"),
        (one(shape="22"), "whole numbers belong there"),
        (one(shape=[1] * 17), "whole numbers belong there"),
        (one(shape=[1 << 63, 4]), "whole numbers belong there"),
        (one(shape=[1 << 50] * 16), "cannot take"),
        (one(offsets=[0]), "a start and an end"),
        (one(offsets=[16, 0]), "a start and an end"),
        (one(offsets=[0, 15]), "cannot take 15 bytes"),
        (one(offsets=[8, 24]), "starts at byte 8, where 0 is next"),
        (one()[:-1] + b"," + one()[1:], "given twice"),
        (header_of({"__metadata__": [[[[[[0]]]]]]}), "nested deeper"),
        (b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
        (b"[" * 2_000_000, "more than 1,000,000 values"),
        (b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(100_002)) + b"}", "100,002 tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "blob",
)
def test_hostile_header_is_a_sentence(blob: bytes, message: str) -> None:
    with pytest.raises(FormatError) as error:
        safetensors.parse_header(blob, "m.safetensors", None)
    assert message in error.value.message
    assert len(error.value.message) < 400


def test_overlap_and_length_of_the_file() -> None:
    entries = {f"w{i}": {"dtype": "U8", "shape": [4], "data_offsets": [4 * (i // 2), 4 * (i // 2) + 4]} for i in range(4)}
    with pytest.raises(FormatError, match="starts at byte 0, where 4 is next"):
        safetensors.parse_header(header_of(entries), "m", None)
    blob, data = safetensors_header(GOOD)
    assert safetensors.parse_header(blob, "m", 8 + len(blob) + data)
    for wrong in (8 + len(blob) + data - 1, 8 + len(blob) + data + 1):
        with pytest.raises(FormatError, match="its header describes"):
            safetensors.parse_header(blob, "m", wrong)


def test_a_file_cut_off_in_its_header(tmp_path) -> None:
    blob, _ = safetensors_header(GOOD)
    path = write_sparse(tmp_path / "m.safetensors", struct.pack("<Q", len(blob)) + blob, len(blob))
    with pytest.raises(FormatError, match=r"but a header"):
        safetensors.read_file(path)


def test_index() -> None:
    assert safetensors.parse_index({"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}) == (
        "m-1.safetensors",
        "m-2.safetensors",
    )


@pytest.mark.parametrize(
    "obj",
    [
        None, [], {}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 1}}, {"weight_map": {"a": ["x.safetensors"]}},
        {"weight_map": {"a": "../x.safetensors"}}, {"weight_map": {"a": "/etc/x.safetensors"}}, {"weight_map": {"a": "a/b.safetensors"}},
        {"weight_map": {"a": "a\\b.safetensors"}}, {"weight_map": {"a": "model.bin"}}, {"weight_map": {"a": "x\n.safetensors"}},
        {"weight_map": {"a": "..safetensors"}}, {"weight_map": {str(i): f"m-{i}.safetensors" for i in range(10_001)}},
    ],
    ids=str,
)  # fmt: skip
def test_index_that_leads_astray(obj: object) -> None:
    with pytest.raises(FormatError):
        safetensors.parse_index(obj)


# JSON


def test_json_limits() -> None:
    assert load_json(b'\xef\xbb\xbf{"a": [1, 2.5, "\\u00e9"]}', "c") == {"a": [1, 2.5, "é"]}
    for data, message in (
        (b"x" * 11, "at most 10 are read"),
        (b"[[[1]]]", "deeper than 2"),
        (b'["\\ud8"]', "no valid JSON"),
        (b"[1,1,1,1]", "more than 3 values"),
        (b"-Infinity", "no number"),
    ):
        with pytest.raises(FormatError, match=message):
            load_json(data, "c", max_bytes=10, max_depth=2, max_values=3)
    with pytest.raises(FormatError, match="no Unicode"):
        load_json(b'{"a": ["\\ud800"]}', "c")
    with pytest.raises(FormatError, match="no Unicode"):
        load_json(b'{"\\udfff": 1}', "c")
    with pytest.raises(FormatError, match="10,000,000 are read"):
        load_json(b" " * 10_000_001, "c")


# names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", ("token_embd", None, "text", False)),
        ("lm_head.weight", ("output", None, "text", False)),
        ("model.norm.weight", ("output_norm", None, "text", False)),
        ("transformer.h.11.attn.c_proj.bias", ("attn_output.bias", 11, "text", False)),
        ("transformer.h.11.mlp.c_proj.weight", ("ffn_down", 11, "text", False)),
        ("model.layers.3.self_attn.q_proj.weight", ("attn_q", 3, "text", False)),
        ("model.layers.3.self_attn.k_proj.weight_scale_inv", ("attn_k.weight_scale_inv", 3, "text", False)),
        ("model.layers.3.mlp.down_proj.qweight", ("ffn_down", 3, "text", False)),
        ("model.layers.3.mlp.down_proj.qzeros", ("ffn_down.qzeros", 3, "text", False)),
        ("model.layers.60.mlp.experts.255.up_proj.weight", ("ffn_up_exps", 60, "text", True)),
        ("model.layers.0.mlp.experts.gate_up_proj", ("ffn_gate_up_exps", 0, "text", True)),
        ("model.layers.60.mlp.shared_experts.up_proj.weight", ("ffn_up_shexp", 60, "text", False)),
        ("model.layers.1.block_sparse_moe.experts.7.w2.weight", ("ffn_down_exps", 1, "text", True)),
        ("model.layers.1.block_sparse_moe.gate.weight", ("ffn_gate_inp", 1, "text", False)),
        ("model.layers.61.eh_proj.weight", ("eh_proj", 61, "mtp", False)),
        ("mtp.layers.0.self_attn.q_proj.weight", ("attn_q", 0, "mtp", False)),
        ("vision_tower.encoder.layers.2.self_attn.q_proj.weight", ("attn_q", 2, "vision", False)),
        ("model.visual.blocks.2.attn.qkv.weight", ("attn.qkv", 2, "vision", False)),
        ("visual.merger.mlp.0.weight", ("merger.mlp", None, "vision", False)),
        ("multi_modal_projector.linear_1.weight", ("multi_modal_projector.linear_1", None, "projector", False)),
        ("audio_tower.layers.0.fc1.weight", ("ffn_up", 0, "audio", False)),
        ("backbone.layers.5.mixer.A_log", ("ssm_a", 5, "text", False)),
        ("encoder.layer.0.attention.self.key.weight", ("attn_k", 0, "text", False)),
        ("bert.embeddings.position_ids", ("buffer.position_ids", None, "text", False)),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", ("buffer.inv_freq", 0, "text", False)),
        ("something.new.weight", ("something.new", None, "text", False)),
        ("", ("", None, "text", False)),
    ],
)
def test_names(name: str, expected: tuple[str, int | None, str, bool]) -> None:
    assert classify(name) == expected


def test_layers_beyond_the_config_are_drafts() -> None:
    assert classify("model.layers.61.self_attn.q_a_proj.weight", layers=61).part == "mtp"
    assert classify("model.layers.60.self_attn.q_a_proj.weight", layers=61).part == "text"


def stored(**tensors: tuple[int, ...]) -> tuple[StoredTensor, ...]:
    return tuple(StoredTensor(name.replace("__", "."), "BF16", shape, 0) for name, shape in tensors.items())


def test_architecture_of_a_lone_file() -> None:
    found = architecture_from_safetensors(
        stored(
            model__embed_tokens__weight=(100, 64), model__layers__0__self_attn__k_proj__weight=(16, 64),
            model__layers__0__self_attn__v_proj__weight=(8, 64), model__layers__1__self_attn__qkv_proj__weight=(64 + 2 * 16, 64),
            model__layers__1__self_attn__o_proj__weight=(64, 64), model__layers__2__mixer__conv1d__weight=(64, 1, 4),
        )
    )  # fmt: skip
    assert (found.basis, found.layers, found.vocab_size, found.hidden_size, found.tied_embeddings) == ("fallback", 3, 100, 64, True)
    assert [c.elements_per_token for c in found.cache_layers] == [24, 32]
    assert "1 of 3 layers" in found.notes[-1]


def test_matrices_stored_the_other_way_round_show_their_width_in_the_bias() -> None:
    found = architecture_from_safetensors(
        stored(h__0__attn__c_attn__weight=(64, 192), h__0__attn__c_attn__bias=(192,), h__0__attn__c_proj__weight=(64, 64))
    )
    assert [c.elements_per_token for c in found.cache_layers] == [128]


def test_packed_weights_show_their_width_in_the_scales() -> None:
    found = architecture_from_safetensors(
        stored(
            model__embed_tokens__weight=(100, 64), model__layers__0__self_attn__k_proj__qweight=(8, 16),
            model__layers__0__self_attn__k_proj__scales=(1, 16), model__layers__0__self_attn__v_proj__scales=(1, 16),
        )
    )  # fmt: skip
    assert [c.elements_per_token for c in found.cache_layers] == [32]


def test_experts_and_latent_attention_of_a_lone_file() -> None:
    experts = {f"model__layers__0__mlp__experts__{e}__down_proj__weight": (64, 16) for e in range(6)}
    found = architecture_from_safetensors(
        stored(
            model__layers__0__self_attn__kv_a_proj_with_mqa__weight=(576, 64),
            model__layers__0__self_attn__kv_a_layernorm__weight=(512,),
            **experts,
        )
    )
    assert (found.experts, found.cache_layers[0].kind, found.cache_layers[0].k_dim, found.cache_layers[0].latent_rank) == (
        6,
        "latent",
        576,
        512,
    )


def test_no_language_model() -> None:
    with pytest.raises(FormatError, match="no layers"):
        architecture_from_safetensors(stored(a=(3, 3)))
