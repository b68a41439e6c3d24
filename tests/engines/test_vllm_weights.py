"""vLLM's weights and buffers per rank against its own classes built from real configs (tests/data/vllm_weights.jsonl)."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.engines.base import Work
from vram_plan.engines.vllm.allocator import allocated
from vram_plan.engines.vllm.classes import vllm_class
from vram_plan.engines.vllm.layout import expert_bytes, linear_bytes, mxfp4_padding
from vram_plan.engines.vllm.ropes import RopeTable, rope_tables
from vram_plan.engines.vllm.shards import padded_vocab, stage_layers
from vram_plan.engines.vllm.weights import RankWeights, rank_weights, refusal
from vram_plan.formats import find_format
from vram_plan.models.model import Model
from vram_plan_data import ROOT

DATA = Path(__file__).parent.parent / "data"
CASES = [json.loads(line) for line in (DATA / "vllm_weights.jsonl").read_text("utf-8").splitlines()][1:]
EXPERTS = [json.loads(line) for line in (DATA / "vllm_experts.jsonl").read_text("utf-8").splitlines()][1:]
MORE = [json.loads(line) for line in (DATA / "vllm_more.jsonl").read_text("utf-8").splitlines()][1:]
EVERY_LAYER = range(1 << 20)
#: Its 4-bit rows quantise SigLIP too, which no such checkpoint does; vLLM then refuses every split.
TOWER_IN_4_BITS = ("google/gemma-3-27b-it", ("AWQ", "W4A16"))


@cache
def model(name: str, folder: Path) -> Model:
    """From the catalogue; transformers' default configs from the rows of the transformers oracle; others from the row itself."""
    config = next((case["config"] for case in CASES if case["model"] == name and "config" in case), None)
    if config is None and not name.startswith("class-default/"):
        return vp.load(name, offline=True)
    rows = (json.loads(line) for line in (DATA / "oracle.jsonl").read_text("utf-8").splitlines())
    config = config or next(row["config"] for row in rows if row["model"] == name)
    path = folder / f"{name.replace('/', '--')}.json"
    path.write_text(json.dumps(config))
    return vp.load(str(path), offline=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def work(found: Model, format: str | None = None, **more: Any) -> Work:
    return Work("vllm", find_format(format or found.stored_format), "bf16", "bf16", 8192, **more)


def held(name: str, tp: int = 1, pp: int = 1, stage: int = 0, format: str | None = None, **more: Any) -> RankWeights:
    found = vp.load(name, offline=True)
    return rank_weights(found, work(found, format, **more), tp, pp, 0, stage)


def off(found: int, true: int) -> bool:
    return abs(found - true) > max(true / 1000, 4096)


def test_every_rank_of_the_grid(folder: Path) -> None:
    """Within 0.1 % (and 4 KiB) of every row but the six of a tower in 4 bits; most are equal to the byte."""
    wrong, total, equal = [], 0, 0
    for case in CASES:
        if (case["model"], case["format"]) in ((TOWER_IN_4_BITS[0], f) for f in TOWER_IN_4_BITS[1]) or "rows" not in case:
            continue
        found = model(case["model"], folder)
        options = (("moe_backend", case["moe_backend"]),) if "moe_backend" in case else ()
        asked = work(found, case["format"], options=options)
        for tp, pp, rank, parameters, buffers in case["rows"]:
            got = rank_weights(found, asked, tp, pp, rank if tp > 1 else 0, rank if pp > 1 else 0)
            total += 1
            equal += got.parameter_bytes == parameters
            kimi = "Kimi-K3" in case["model"]  # 35 KB of its vision tower's tables are not counted
            if off(got.parameter_bytes, parameters) or (off(got.buffer_bytes, buffers) and not kimi):
                wrong.append((case["model"], case["format"], tp, pp, rank, got.parameter_bytes - parameters, got.buffer_bytes - buffers))
    assert not wrong
    assert total > 900
    assert equal > total / 2


@pytest.mark.parametrize("case", MORE[::2], ids=lambda case: case["model"])
def test_models_and_quantisations_of_no_catalogue(case: dict[str, Any], tmp_path: Path) -> None:
    """Every second of them (`make accuracy` takes all): parameters and buffers within 0.1 %, and what vLLM refused is refused."""
    (tmp_path / "config.json").write_text(json.dumps(case["config"]))
    found = vp.load(str(tmp_path / "config.json"), offline=True)
    for tp, pp, rank, parameters, buffers in case.get("rows", ()):
        got = rank_weights(found, work(found), tp, pp, rank)
        assert not off(got.parameter_bytes, parameters), (tp, got.parameter_bytes, parameters)
        assert buffers is None or not off(got.buffer_bytes, buffers), (tp, got.buffer_bytes, buffers)
        assert refusal(found, work(found), tp, pp) is None
    for tp, pp, why in case.get("refused", ()):
        assert refusal(found, work(found), tp, pp), (tp, why)


@pytest.mark.parametrize("case", EXPERTS, ids=lambda case: case["model"])
def test_expert_and_data_parallel_ranks_to_the_byte(case: dict[str, Any], tmp_path: Path) -> None:
    """10 experts over 4 ranks, copies with and without expert parallelism, shared experts; Whisper's encoder and decoder."""
    (tmp_path / "config.json").write_text(json.dumps(case.get("config")))
    found = vp.load(str(tmp_path / "config.json") if "config" in case else case["model"], offline=True)
    for tp, rank, expert_parallel, copies, parameters in case["rows"]:
        asked = work(found, "BF16", expert_parallel=expert_parallel, options=(("data_parallel", copies),) if copies > 1 else ())
        assert rank_weights(found, asked, tp, 1, rank).parameter_bytes == parameters, (tp, rank, expert_parallel, copies)
        assert refusal(found, asked, tp, 1) is None


def test_what_vllm_refused_is_refused_and_nothing_else(folder: Path) -> None:
    for case in CASES:
        if (case["model"], case["format"]) in ((TOWER_IN_4_BITS[0], f) for f in TOWER_IN_4_BITS[1]):
            continue
        found = model(case["model"], folder)
        asked = work(found, case["format"])
        for tp, pp, why in case.get("refused", ()):
            assert refusal(found, asked, tp, pp), (case["model"], case["format"], tp, pp, why)
        for tp, pp, *_ in case.get("rows", ()):
            shared = case["model"] == "google/gemma-4-E2B-it" and pp > 1  # its first stage can be built, its second cannot
            assert shared or refusal(found, asked, tp, pp) is None, (case["model"], case["format"], tp, pp)


def test_a_refusal_names_what_is_legal() -> None:
    found = vp.load("Qwen/Qwen2.5-7B-Instruct", offline=True)
    assert refusal(found, work(found), 8, 1) == (
        "28 attention heads are not divisible by tensor parallelism 8; tensor parallelism of 1, 2, 4 would be"
    )


def test_a_class_vllm_dropped_runs_in_an_older_version() -> None:
    found = vp.load("mosaicml/mpt-7b", offline=True)
    assert "0.28" in (refusal(found, work(found), 1, 1) or "")
    for version in ("0.19", "v0.26.1rc1", "0.28.3"):
        assert refusal(found, work(found, options=(("version", version),)), 1, 1) is None


@pytest.mark.parametrize(("layers", "pp", "expected"), [(30, 4, (7, 8, 8, 7)), (61, 2, (31, 30)), (32, 4, (8, 8, 8, 8)), (5, 1, (5,))])
def test_stages(layers: int, pp: int, expected: tuple[int, ...]) -> None:
    assert stage_layers(layers, pp) == expected


@given(layers=st.integers(1, 500), pp=st.integers(1, 64))
def test_stages_hold_every_layer(layers: int, pp: int) -> None:
    counts = stage_layers(layers, pp)
    assert sum(counts) == layers
    assert len(counts) == pp
    assert max(counts) - min(counts) <= 1


NAMES = (
    "llama3-8b", "Qwen/Qwen3-30B-A3B", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "openai/gpt-oss-20b",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), tp=st.sampled_from((1, 2, 4)))
def test_ranks_together_hold_the_model_and_each_less_than_one_alone(name: str, tp: int) -> None:
    one, each = held(name), held(name, tp)
    assert each.parameter_bytes * tp >= one.parameter_bytes
    assert each.parameter_bytes <= one.parameter_bytes
    assert each.buffer_bytes == one.buffer_bytes


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), pp=st.sampled_from((2, 4)))
def test_stages_together_hold_the_model(name: str, pp: int) -> None:
    assert sum(held(name, 1, pp, stage).parameter_bytes for stage in range(pp)) >= held(name).parameter_bytes


def test_experts_are_shared_out_whole_with_expert_parallelism() -> None:
    """128 experts on 8 ranks: 16 each, so no group of a quantised expert is cut and nothing is padded."""
    cut, whole = held("Qwen/Qwen3-30B-A3B", 8, format="AWQ"), held("Qwen/Qwen3-30B-A3B", 8, format="AWQ", expert_parallel=True)
    assert whole.parameter_bytes < cut.parameter_bytes


def test_a_format_named_by_hand_can_be_refused_where_expert_parallelism_would_run() -> None:
    found = vp.load("Qwen/Qwen3-30B-A3B", offline=True)
    assert "192" in (refusal(found, work(found, "W4A16"), 4, 1) or "")
    assert refusal(found, work(found, "W4A16", expert_parallel=True), 4, 1) is None


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", (RopeTable(131072, 128),)),
        ("google/gemma-3-27b-it", (RopeTable(131072, 128), RopeTable(8 * 131072, 128))),  # sliding layers, and × 8 by its scaling
        ("openai/gpt-oss-20b", (RopeTable(131072, 64, 4),)),
        ("deepseek-ai/DeepSeek-V3", (RopeTable(163840, 64),)),
        ("Qwen/Qwen2-VL-7B-Instruct", (RopeTable(4 * 32768, 128), RopeTable(8192, 40))),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", ()),
        ("allenai/OLMo-2-1124-13B", ()),
    ],
)
def test_rope_tables(name: str, tables: tuple[RopeTable, ...]) -> None:
    assert sorted(rope_tables(vp.load(name, offline=True), EVERY_LAYER), key=str) == sorted(tables, key=str)


def test_step_buffers_follow_the_batch() -> None:
    """The sparse indexer's picks: 2,048 numbers of 4 bytes a token."""
    more, less = (held("zai-org/GLM-5", options=(("max_num_batched_tokens", tokens),)) for tokens in (16384, 8192))
    assert more.buffer_bytes - less.buffer_bytes == 8192 * 2048 * 4


@pytest.mark.parametrize(
    ("name", "format", "tp", "version", "capability", "logged_gib"),
    [
        # "Model loading took": llm-d-planner PR 205 (0.19, H100), its empirical runs (0.11), vllm-project/vllm#33155, 0.19 on A100 (Marlin)
        ("Qwen/Qwen2.5-7B-Instruct", None, 1, "0.19", (9, 0), 14.25),
        ("google/gemma-3-27b-it", None, 1, "0.19", (9, 0), 51.45),
        ("microsoft/phi-4", None, 1, "0.19", (9, 0), 27.39),
        ("Qwen/Qwen2.5-72B", None, 2, "0.19", (9, 0), 67.80),
        ("Qwen/Qwen3-32B", None, 2, "0.11", (9, 0), 30.59),
        ("openai/gpt-oss-20b", None, 1, "0.11", (9, 0), 13.47),
        ("openai/gpt-oss-20b", None, 2, "0.19", (9, 0), 7.01),
        ("openai/gpt-oss-120b", None, 1, "0.11", (9, 0), 64.38),
        ("openai/gpt-oss-120b", None, 1, "0.14.1", (9, 0), 64.38),
        ("openai/gpt-oss-20b", None, 1, "0.19", (8, 0), 13.72),
        ("Qwen/Qwen3-30B-A3B", "W4A16", 1, "0.8.5", (8, 6), 15.6841),  # vllm-project/vllm#17327
    ],
)
def test_logs(name: str, format: str | None, tp: int, version: str, capability: tuple[int, int], logged_gib: float) -> None:
    found = vp.load(name, offline=True)
    got = rank_weights(found, work(found, format, options=(("version", version),)), tp, 1, capability=capability)
    assert got.total / 2**30 == pytest.approx(logged_gib, rel=0.002)


def extra(name: str, version: str, capability: int, format: str | None = None) -> int:
    """What loading adds, or frees where negative."""
    found = vp.load(name, offline=True)
    got = rank_weights(found, work(found, format, options=(("version", version),)), 1, 1, capability=(capability, 0))
    assert bool(got.extra_why) == bool(got.extra_bytes)
    return got.extra_bytes - got.freed_bytes


def test_versions_load_the_same_weights_differently() -> None:
    lite, oss = "deepseek-ai/DeepSeek-V2-Lite", "openai/gpt-oss-20b"
    assert extra(lite, "0.24", 9) - extra(lite, "0.25", 9) == extra(lite, "0.12", 8) - extra(lite, "0.11", 8) == 128 << 20
    kept = 24 * 32 * (5760 + 2880) * 90  # one byte of scale for each 32 weights
    assert 0 <= extra(oss, "0.24", 9) - extra(oss, "0.25", 9) - kept + 24 * 32 * (5888 + 3072) * 2 < 48 << 20  # scales' groups: 90, then 92
    assert extra(oss, "0.17", 9) > extra(oss, "0.16", 9)
    assert extra(oss, "0.24", 8) == extra(oss, "0.25", 8)  # Marlin


def test_hopper_keeps_zero_points_that_other_gpus_free() -> None:
    name = "Qwen/Qwen2.5-7B-Instruct"
    weights = 28 * (3584 * (3584 + 2 * 512) + 3584 * 3584 + 3 * 3584 * 18944)
    assert extra(name, "0.32", 8, "GPTQ") == extra(name, "0.32", 9, "GPTQ") - weights // 128 // 2
    assert extra(name, "0.29", 9, "GPTQ") == extra(name, "0.32", 9, "GPTQ") + 28 * 4 * (3 * 3584 + 18944)  # g_idx
    assert extra(name, "0.32", 9, "AWQ") == extra(name, "0.32", 8, "AWQ") + weights // 128 * 12 // 8  # 4 → 16 bits
    assert extra(name, "0.17", 9, "AWQ") == extra(name, "0.32", 8, "AWQ")


@pytest.mark.parametrize(
    ("sizes", "slack"),
    [
        ((8.0, 1.75, 8.0, 1.75), 0.5),  # one segment of 20 MiB: half a MiB is too little to be cut off
        ((12.5, 1.25), 0.25),  # a segment of 14 MiB; what it leaves takes the second
        ((11.25, 0.25), 0.75),
        ((9.0, 9.0, 9.0), 0),
        ((2.0 ** -20,), 511 / (1 << 20)),
    ],
)  # fmt: skip
def test_what_the_allocator_counts_beyond_what_is_asked_for(sizes: tuple[float, ...], slack: float) -> None:
    counted, idle = allocated(int(size * (1 << 20)) for size in sizes)
    assert counted == int(slack * (1 << 20))
    assert idle == {(8.0, 1.75, 8.0, 1.75): 0, (12.5, 1.25): 0, (9.0, 9.0, 9.0): 13 << 20}.get(sizes, 0)


@pytest.mark.parametrize(
    ("scheme", "family"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}, "GPTQ"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["Linear"], "weights": {
            "num_bits": 4, "type": "int", "group_size": 128, "symmetric": True, "actorder": "group"}}}}, "CT"),
    ],
)  # fmt: skip
def test_activation_order_takes_indices_up_to_version_0_29(scheme: dict[str, Any], family: str, tmp_path: Path) -> None:
    """Two int32 for each input of a matrix (GPTQ on Hopper has one already); where inputs are cut, the scales of all. Marlin then."""
    known = vp.load("llama3.1-8b", offline=True)
    plain = json.loads(json.dumps(scheme).replace('"group"', '"static"').replace('"desc_act": true', '"desc_act": false'))
    found = []
    for number, asked in enumerate((scheme, plain)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({**(known.config or {}), "quantization_config": asked}))
        found.append(vp.load(str(path), offline=True))
    inputs, cut = 32 * 3 * 4096, 32 * 14336

    def more(tp: int, capability: int) -> int:
        old = (("version", "0.19"),)
        sorted_, unsorted = (rank_weights(m, work(m, options=old), tp, 1, capability=(capability, 0)).total for m in found)
        return sorted_ - unsorted

    assert more(1, 9) == (1 if family == "GPTQ" else 2) * 4 * (inputs + cut)
    assert more(1, 8) == 2 * 4 * (inputs + cut)
    scales = 32 * 4096 * (14336 + 4096) // 128 // 2 * 2
    assert more(2, 8) == 2 * 4 * (32 * 2 * 4096 + (32 * 4096 + cut) // 2) + scales
    assert refusal(found[0], work(found[0]), 1, 1) and refusal(found[0], work(found[0], options=(("version", "0.29"),)), 1, 1) is None
    assert refusal(found[1], work(found[1]), 1, 1) is None


def test_layouts_of_experts() -> None:
    """Qwen3-30B-A3B's down projections at tensor parallelism 8: 96 of 768 inputs a rank."""
    shape, padding = (128, 2048, 96), mxfp4_padding(None)
    plain = 128 * 2048 * 96
    assert expert_bytes("BF16", shape, True, padding, 96) == 2 * plain
    assert expert_bytes("FP8B", shape, True, padding, 96) == plain + 4 * 128 * 64 * 3  # scales by 32 × 32
    assert expert_bytes("AWQ-4/128", shape, True, padding, 96) == plain // 2 + 128 * 2048 * 3 * 2 + 128 * 2048 * 3 // 2  # groups of 32
    assert expert_bytes("MXFP4", shape, True, (1, 64), 96) == 128 * 2048 * 128 * 17 // 32  # 96 → 128
    assert linear_bytes("GPTQ-4/128", (4096, 4096)) == 4096 * 4096 // 2 + 4096 * 32 * 2 + 4096 * 32 // 2


def test_vocabulary_is_padded_to_64() -> None:
    assert [padded_vocab(n) for n in (32000, 32001, 151936, 50257)] == [32000, 32064, 151936, 50304]


def test_every_class_row_is_whole() -> None:
    with (ROOT / "vllm_classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 280
    assert len({row["architecture"] for row in rows}) == len(rows)
    for row in rows:
        assert row["source"], row
        assert row["embedding"] in ("", "every", "first+last"), row
        assert row["head"] in ("", "every", "last", "every own", "last own"), row
        assert set(row["tower"].split()) <= {"whole", "divides", "attention", "projector", "feature", "mlp", "embedding"}, row
        assert set(row["router"].split()) <= {"fp32", "quantised", "bias"}, row


def test_an_architecture_without_a_class_runs_on_transformers_code() -> None:
    assert not vllm_class(vp.load("HuggingFaceTB/SmolLM3-3B", offline=True)).native
    assert vllm_class(vp.load("llama3-8b", offline=True)).native


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
KEYS = (
    "architectures", "model_type", "max_position_embeddings", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_dim",
    "qk_rope_head_dim", "vision_config", "text_config", "n_groups", "mamba_n_groups", "index_topk", "vision_feature_layer", "topk_method",
    "hidden_size_per_layer_input", "kv_channels", "seq_length", "n_positions", "position_embedding_type",
)  # fmt: skip
INNER_KEYS = ("rope_type", "factor", "original_max_position_embeddings", "mrope_section", "hidden_size", "num_heads", "rope_dim")
INNER = st.dictionaries(st.sampled_from(INNER_KEYS), ODD)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(("google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")),
    odd=st.dictionaries(st.sampled_from(KEYS), ODD | INNER, max_size=4),
    tp=st.integers(1, 9),
    pp=st.integers(1, 3),
)
def test_an_odd_config_still_gets_an_answer(name: str, odd: dict[str, Any], tp: int, pp: int) -> None:
    known = vp.load(name, offline=True)
    found = replace(known, config={**(known.config or {}), **odd})
    got = rank_weights(found, work(found), tp, pp, tp - 1, pp - 1)
    assert got.parameter_bytes > 0
    assert got.buffer_bytes >= 0
    assert refusal(found, work(found), tp, pp) != ""
