"""Checkpoint schemes: whole models against the parameters vLLM creates, and which modules stay in 16 bits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from vram_plan.errors import FormatError
from vram_plan.formats import apply_format, find_format, inventory_bytes
from vram_plan.formats.schemes import Scheme, apply_scheme, scheme_from_config
from vram_plan.formats.storage import is_stored_format
from vram_plan.models.architecture import Tensor

from formats.catalogue_models import architecture, config

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "scheme_sizes.jsonl").read_text(encoding="utf-8").splitlines()]

#: Where vLLM's parameters differ from the checkpoint's: fp32 routers and hyper-connections, a V where K serves as V.
DIFFERENT = {
    "MiniMaxAI/MiniMax-M2.5": 5e-4,
    "MiniMaxAI/MiniMax-M2.7": 5e-4,
    "nvidia/MiniMax-M2.5-NVFP4": 1e-3,
    "deepseek-ai/DeepSeek-V4-Flash": 6e-4,
    "nvidia/Gemma-4-26B-A4B-NVFP4": 2e-3,
    "nvidia/Gemma-4-31B-IT-NVFP4": 7e-3,
}


METHODS = ("gptq", "awq", "fp8", "mxfp4", "compressed-tensors", "modelopt", "bitsandbytes", "hqq", "torchao", "quark", "mlx", "eetq")
KEYS = (
    "bits", "group_size", "ignore", "config_groups", "quant_algo", "quantized_layers", "quant_type", "quant_config", "global_quant_config",
    "dynamic", "moe_quant_algo",
)  # fmt: skip


def own_scheme(model: str) -> Scheme:
    found = config(model)
    scheme = scheme_from_config(found.get("quantization_config") or found["text_config"]["quantization_config"], found)
    assert scheme is not None
    return scheme


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['format']}")
def test_a_model_takes_the_bytes_vllm_gives_it(row: dict[str, Any]) -> None:
    model = architecture(row["model"])
    native = row["format"] == "native"
    tensors = apply_scheme(model.tensors, own_scheme(row["model"])) if native else apply_format(model, find_format(row["format"]))
    found = inventory_bytes(t for t in tensors if t.part != "mtp")
    assert found == pytest.approx(row["parameter_bytes"], rel=DIFFERENT.get(row["model"], 2e-5))


def layer(role: str, *shape: int, at: int = 3, experts: int = 0) -> Tensor:
    return Tensor(role, at, (experts, *shape) if experts else shape, experts)


MODEL = (
    Tensor("token_embd", None, (1024, 256)),
    layer("attn_norm", 256),
    layer("attn_q", 256, 256),
    layer("attn_q.bias", 256),
    layer("ffn_gate_inp", 8, 256),
    layer("ffn_up_exps", 512, 256, experts=8),
    layer("ffn_up_shexp", 512, 256),
    layer("ffn_down", 256, 512, at=0),
    Tensor("output", None, (1024, 256)),
    Tensor("v.attn_q", 0, (256, 256), part="vision"),
)


def changed(raw: dict[str, Any], whole: dict[str, Any] | None = None) -> dict[str, str]:
    scheme = scheme_from_config(raw, whole)
    assert scheme is not None
    return {t.role: t.stored_as for t in apply_scheme(MODEL, scheme) if t.stored_as != "BF16"}


def compressed(weights: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, **more}}}


LINEAR = ("attn_q", "ffn_up_exps", "ffn_up_shexp", "ffn_down")


@pytest.mark.parametrize(
    ("raw", "name", "kind"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8-BLOCK", "FP8B"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "FP8", "FP8T"),
        ({"quant_method": "fbgemm_fp8"}, "FP8-CHANNEL", "FP8C"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, "GPTQ", "GPTQ-4/128"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "GPTQ-INT8", "GPTQ-8/128"),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1}, "GPTQ-3/0", "GPTQ-3/0"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "modules_to_not_convert": None}, "AWQ", "AWQ-4/128"),
        ({"quant_algo": "FP8", "quant_method": "modelopt"}, "FP8", "FP8T"),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}, "NVFP4", "NVFP4S"),
        (compressed({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}), "W4A16", "CT-4/128"),
        (compressed({"num_bits": 4, "type": "int", "group_size": 32, "symmetric": False}), "CTZ-4/32", "CTZ-4/32"),
        (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}, input_activations={"num_bits": 8}), "W8A8", "INT8"),
        (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}), "W8A16", "CT-8/0"),
        (compressed({"num_bits": 8, "type": "float", "strategy": "channel"}), "FP8-CHANNEL", "FP8C"),
        (compressed({"num_bits": 8, "type": "float", "strategy": "block"}), "FP8-BLOCK", "FP8B"),
        (compressed({"num_bits": 4, "type": "float", "group_size": 16}), "NVFP4", "NVFP4S"),
        (compressed({"num_bits": 4, "type": "float", "group_size": 32}), "MXFP4", "MXFP4"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, "HQQ", "HQQ-4/64"),
        ({"quant_method": "eetq"}, "EETQ", "EETQ"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}, "TORCHAO-INT4", "TORCHAO"),
    ],
)  # fmt: skip
def test_linear_layers_get_the_format_a_config_names(raw: dict[str, Any], name: str, kind: str) -> None:
    scheme = scheme_from_config(raw)
    assert scheme is not None and (scheme.name, scheme.note) == (name, "")
    assert changed(raw) == dict.fromkeys(LINEAR, kind)
    assert find_format(scheme.name).name == name


def test_bitsandbytes_takes_towers_as_well() -> None:
    both = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    assert changed(both) == dict.fromkeys((*LINEAR, "v.attn_q"), "NF4")
    assert set(changed({**both, "bnb_4bit_use_double_quant": True}).values()) == {"NF4DQ"}
    assert set(changed({"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["lm_head"]}).values()) == {"BNB8"}


def test_bitsandbytes_by_name_leaves_stacks_of_experts() -> None:
    """What transformers 5 makes of a 16-bit checkpoint; a checkpoint already packed says so itself (above)."""
    tensors = (layer("ffn_up", 512, 256), layer("ffn_up_exps", 512, 256, experts=8))
    for kind in ("NF4", "NF4DQ", "BNB8"):
        assert [t.stored_as for t in apply_scheme(tensors, Scheme.plain(kind, kind))] == [kind, "BF16"]


def test_mlx_takes_embedding_and_head_as_well() -> None:
    assert changed({"group_size": 64, "bits": 4}) == dict.fromkeys((*LINEAR, "token_embd", "output"), "MLX-4/64")


def test_mxfp4_takes_experts_only() -> None:
    assert changed({"quant_method": "mxfp4"}) == {"ffn_up_exps": "MXFP4"}


def test_four_bit_experts_in_an_fp8_checkpoint() -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert changed(fp8, {"expert_dtype": "fp4"}) == {**dict.fromkeys(LINEAR, "FP8B"), "ffn_up_exps": "MXFP4"}


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        (["lm_head"], set()),
        (["gate"], set()),  # the router, which is never quantised; not gate_proj
        (["model.layers.3.self_attn.q_proj"], {"attn_q"}),
        (["self_attn"], {"attn_q"}),
        (["model.layers.*.self_attn"], {"attn_q"}),
        (["model.language_model.layers.3.self_attn*"], {"attn_q"}),
        (["model.layers.30.self_attn*"], set()),
        (["re:.*self_attn.*"], {"attn_q"}),
        (["re:.*shared_expert.*", "re:model.layers.0..*"], {"ffn_up_shexp", "ffn_down"}),
        (["re:.*mlp\\.(gate|up|gate_up|down)_proj$"], {"ffn_down"}),
        (["re:.*mlp.down$"], set()),  # not down_proj
        (["re:.*mlp.down"], {"ffn_down"}),
        (["*.mlp.experts.*"], {"ffn_up_exps"}),
        (["model.layers.3"], {"attn_q", "ffn_up_exps", "ffn_up_shexp"}),
        (["model.layers.3.mlp.experts.0.up_proj"], {"ffn_up_exps"}),
    ],
)
def test_modules_named_as_exceptions_stay(entries: list[str], kept: set[str]) -> None:
    assert set(LINEAR) - set(changed({"quant_method": "fp8", "ignore": entries})) == kept


def test_modules_with_an_algorithm_each() -> None:
    mixed = {
        "quant_method": "modelopt",
        "quant_algo": "MIXED_PRECISION",
        "quantized_layers": {
            "model.layers.3.self_attn.q_proj": {"quant_algo": "FP8"},
            "model.layers.0.mlp.down_proj": {"quant_algo": "NVFP4"},
            "lm_head": {"quant_algo": "NVFP4"},
        },
    }
    assert changed(mixed) == {"attn_q": "FP8T", "ffn_down": "NVFP4S", "output": "NVFP4S"}
    found = scheme_from_config(mixed)
    assert found is not None and found.name == "NVFP4"


@pytest.mark.parametrize(
    "raw",
    [
        {"quant_method": "aqlm"},
        {"quant_method": 7},
        {"quant_method": "modelopt", "quant_algo": "W1A1"},
        {"quant_method": "compressed-tensors"},
    ],
)
def test_what_is_not_understood_is_said_and_left_in_16_bits(raw: dict[str, Any]) -> None:
    scheme = scheme_from_config(raw)
    assert scheme is not None and "16 bits" in scheme.note
    assert apply_scheme(MODEL, scheme) == MODEL


def test_no_scheme_where_none_is_stated() -> None:
    assert scheme_from_config({}) is None


@pytest.mark.parametrize(
    "raw",
    [
        {"quant_method": "gptq", "bits": "four"},
        {"quant_method": "gptq", "bits": 99},
        {"quant_method": "awq", "group_size": -(10**30)},
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": [4]}}}},
        [],
    ],
)
def test_values_that_cannot_be_meant_are_refused(raw: Any) -> None:
    with pytest.raises(FormatError):
        scheme_from_config(raw)


@pytest.mark.parametrize(
    "entry",
    ["re:(a+)+$", "re:(.*)*(.*)*x", "re:" + ".*" * 50 + "x", "re:(((", "re:" + "a" * 9000, "*" * 300, "re:(.*a){20}", "re:(?:a|a)*$", ""],
)
def test_hostile_exceptions_cost_little(entry: str) -> None:
    start = time.perf_counter()
    scheme = scheme_from_config({"quant_method": "fp8", "ignore": [entry] * 200, "config_groups": {str(i): 0 for i in range(5000)}})
    assert scheme is not None
    apply_scheme(MODEL, scheme)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("value", [None, 3, "x", [], [[]], {"a": {}}, True, -1, "NVFP4", {"g": {"weights": {}}}])
@pytest.mark.parametrize("method", METHODS)
def test_odd_values_give_a_scheme_or_a_clear_error(method: str, value: Any) -> None:
    for key in KEYS:
        try:
            scheme = scheme_from_config({"quant_method": method, key: value})
        except FormatError:
            continue
        assert scheme is not None
        assert all(is_stored_format(t.stored_as) for t in apply_scheme(MODEL, scheme))
