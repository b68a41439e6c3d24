"""Hostile files and configs: nothing but the package's own errors, quickly and in little memory."""

from __future__ import annotations

import copy
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_files import gguf_header, gguf_value, llama_gguf, safetensors_header, text, write_sparse
from vram_plan.errors import VramPlanError
from vram_plan.models import gguf, safetensors
from vram_plan.models.dialects import read_architecture
from vram_plan.models.gguf_architecture import read_gguf_architecture
from vram_plan.models.json_guard import load_json
from vram_plan.models.names import architecture_from_safetensors

CONFIGS = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent.parent / "data" / "configs").glob("*.json"))}
SECONDS, MEGABYTES = 2, 300
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def in_time() -> Iterator[None]:
    """No more than the time a hostile input may take, in this process."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < SECONDS


#: What a hostile hand puts where a number, a text or a list belongs.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 1.5, -0.0, 1e300, 65536, 1 << 27, (1 << 27) + 1, 1 << 31, 1 << 63, 1 << 64,
    -(1 << 63), 10**4000, "", "0", "32", "many", "x" * 100_000, [], {},
    [[]], [None], ["full_attention"] * 5, [1] * 9000, [-1], {"a": {}}, {"hidden_size": -1}, [{}] * 100,
)  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value; of long lists the first places only."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*at, key))
    return found


def put(value: Any, at: tuple[Any, ...], new: Any) -> None:
    for key in at[:-1]:
        value = value[key]
    value[at[-1]] = new


@st.composite
def mutated_configs(draw: st.DrawFn) -> dict[str, Any]:
    config = copy.deepcopy(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(paths(config)))
        action = draw(st.sampled_from(("put", "put", "put", "drop", "borrow")))
        if action == "drop" and isinstance(at[-1], str):
            put(config, at, None)
        elif action == "borrow":
            other = CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))]
            key = draw(st.sampled_from(sorted(other)))
            config[key] = copy.deepcopy(other[key])
        else:
            put(config, at, copy.deepcopy(draw(st.sampled_from(ODD))))
    return config


@quick
@given(mutated_configs())
def test_mutated_config(config: dict[str, Any]) -> None:
    try:
        with in_time():
            found = read_architecture(config)
    except VramPlanError as error:
        assert "\n" not in error.message
        assert len(error.message) < 600
        return
    assert sum(t.parameters for t in found.tensors) >= 0
    assert found.kv_bytes(131072) >= 0
    assert found.state_bytes >= 0


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_key_of_a_config_in_turn(name: str) -> None:
    """Each value alone replaced, in turn by a number too large, a negative one, a text, a list and an object."""
    understood = 0
    for number, at in enumerate(paths(CONFIGS[name])):
        config = copy.deepcopy(CONFIGS[name])
        put(config, at, (1 << 63, -1, "32", [], {})[number % 5])
        try:
            with in_time():
                read_architecture(config)
            understood += 1
        except VramPlanError as error:
            assert "\n" not in error.message
    assert 0 < understood < len(paths(CONFIGS[name])), "some keys say nothing of sizes, some do"


@st.composite
def edited(draw: st.DrawFn, blob: bytes) -> bytes:
    """Some bytes of a blob changed, cut out, doubled, or its end lost."""
    data = bytearray(blob)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        action = draw(st.integers(0, 4))
        if action == 0:
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif action == 1:
            data[at : at + 8] = draw(st.sampled_from((b"\xff" * 8, bytes(8), struct.pack("<Q", 1 << 63), struct.pack("<Q", 1 << 32))))
        elif action == 2:
            del data[at : at + draw(st.integers(1, 40))]
        elif action == 3:
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        else:
            del data[at:]
    return bytes(data)


GGUF_HEADER, GGUF_DATA = gguf_header(
    *llama_gguf(**{"llama.attention.sliding_window": 16, "llama.list": [1, 2, 3], "tokenizer.ggml.tokens": ["a"] * 9})
)


@quick
@given(edited(GGUF_HEADER), st.booleans())
def test_edited_gguf(blob: bytes, size_known: bool) -> None:
    try:
        header = gguf.parse(lambda offset, size: blob[offset : offset + size], "m.gguf", len(blob) + GGUF_DATA if size_known else None)
        found = read_gguf_architecture(header)
    except VramPlanError:
        return
    assert found.kv_bytes(8192) >= 0


GGUF_KEYS = [
    "block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "context_length", "attention.sliding_window", "attention.sliding_window_pattern",
    "attention.shared_kv_layers", "nextn_predict_layers", "num_loops", "expert_count", "attention.compress_ratios",
    "attention.cross_attention_layers", "attention.recurrent_layers", "full_attention_interval", "expert_used_count", "ssm.inner_size",
    "ssm.state_size", "vocab_size", "kda.head_dim", "attention.kv_lora_rank", "attention.key_length_swa",
]  # fmt: skip
GGUF_ODD = (0, -1, 1, 1 << 31, 1 << 62, 1.5, float("nan"), float("inf"), "x", True, [], [1], [1, -1], [1 << 30] * 2, ["a"], [True, False])


@quick
@given(
    st.sampled_from(
        ("llama", "gemma4", "gemma3n", "deepseek4", "mllama", "nanbeige", "minimax-01", "llama4", "t5", "qwen3next", "clip", "zebra")
    ),
    st.dictionaries(
        st.sampled_from(GGUF_KEYS),
        st.sampled_from(GGUF_ODD),
        max_size=6,
    ),
    st.sampled_from(("attn_k", "attn_kv", "attn_kv_a_mqa", "ssm_conv1d", "time_mix_key", "shortconv.conv", "attn_qkv", "cross_attn_k")),
)
def test_odd_gguf_metadata(arch: str, keys: dict[str, object], role: str) -> None:
    usual = {"block_count": 2, "embedding_length": 32, "attention.head_count": 4}
    metadata = {"general.architecture": arch, **{f"{arch}.{k}": v for k, v in {**usual, **keys}.items()}}
    blob, data = gguf_header(
        metadata, {f"blk.0.{role}.weight": (32, 32), "blk.99999.x_exps.weight": (4, 2, 32), f"dec.blk.1.{role}": (32, 32)}
    )
    header = gguf.parse(lambda offset, size: blob[offset : offset + size], "m.gguf", len(blob) + data)
    try:
        found = read_gguf_architecture(header)
    except VramPlanError:
        return
    assert found.kv_bytes(8192) >= 0
    assert found.state_bytes >= 0


SAFETENSORS_HEADER = safetensors_header(
    {
        "model.embed_tokens.weight": ("BF16", (64, 32)),
        "model.layers.0.self_attn.k_proj.weight": ("F8_E4M3", (8, 32)),
        "model.norm.weight": ("F32", (32,)),
    },
    __metadata__={"format": "pt"},
)[0]


@quick
@given(edited(SAFETENSORS_HEADER))
def test_edited_safetensors(blob: bytes) -> None:
    try:
        architecture_from_safetensors(safetensors.parse_header(blob, "m.safetensors", None))
    except VramPlanError as error:
        assert len(error.message) < 400


@quick
@given(st.data())
def test_odd_safetensors_values(data: st.DataObject) -> None:
    header = json.loads(SAFETENSORS_HEADER)
    put(header, data.draw(st.sampled_from(paths(header))), data.draw(st.sampled_from(ODD)))
    try:
        architecture_from_safetensors(safetensors.parse_header(json.dumps(header).encode(), "m.safetensors", None))
    except VramPlanError as error:
        assert len(error.message) < 400


@settings(quick, max_examples=40)
@given(st.recursive(st.none() | st.floats() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json(value: Any) -> None:
    try:
        loaded = load_json(
            json.dumps({"model_type": value, "hidden_size": 8, **(value if isinstance(value, dict) else {})}).encode(), "config.json"
        )
        read_architecture(loaded)
    except VramPlanError:
        return


# the worst few, each in a process of its own, which reports its time and its peak memory

_CHILD = """
import sys, time
from pathlib import Path
from vram_plan.errors import VramPlanError
from vram_plan.models.assemble import assemble
from vram_plan.models.local import open_local
begin = time.process_time()
try:
    assemble(open_local(Path(sys.argv[1])))
    outcome = "read"
except VramPlanError as error:
    outcome = error.code
seconds = time.process_time() - begin
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(outcome, seconds, peak)
"""


def strings_gguf(count: int) -> bytes:
    """A vocabulary of empty strings."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("tokenizer.ggml.tokens")
    return head + struct.pack("<IIQ", 9, 8, count) + bytes(8 * count)


def keys_gguf(count: int, value: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, count) + b"".join(text(f"k{i}") + value for i in range(count))


def tensors_gguf(count: int) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, count, 0)
    return head + b"".join(text(f"blk.{i}.attn_k.weight") + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i in range(count))


def many_tensors(count: int) -> bytes:
    body = ",".join(f'"w{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in range(count)).encode()
    return struct.pack("<Q", len(body) + 2) + b"{" + body + b"}"


def header_of(body: bytes) -> bytes:
    return struct.pack("<Q", len(body)) + body


def wide_config(**changes: object) -> bytes:
    return json.dumps({**CONFIGS["meta-llama--Meta-Llama-3-8B"], **changes}).encode()


WORST = {
    "a million safetensors.safetensors": lambda: many_tensors(1_000_000),
    "as many as are read.safetensors": lambda: many_tensors(100_000),
    "empty objects.safetensors": lambda: header_of(b"[" + b"{}," * 16_000_000 + b"{}]"),
    "deep.safetensors": lambda: header_of(b"[" * 900_000),
    "one long text.safetensors": lambda: header_of(b'{"' + b"a" * 49_000_000 + b'":0}'),
    "vocabulary.gguf": lambda: strings_gguf(3_000_000),
    "lists.gguf": lambda: keys_gguf(2_000, struct.pack("<IIQ", 9, 12, 4000) + bytes(32000)),
    "texts.gguf": lambda: keys_gguf(10_000, gguf_value("x" * 4000)),
    "a million tensors.gguf": lambda: b"GGUF" + struct.pack("<IQQ", 3, 1_000_000, 0) + bytes(60_000_000),
    "as many as are read.gguf": lambda: tensors_gguf(100_000),
    "deep.json": lambda: b'{"a":' + b"[" * 4_000_000 + b"]" * 4_000_000 + b"}",
    "fifty megabytes.json": lambda: b" " * 50_000_000,
    "layers.json": lambda: wide_config(num_hidden_layers=4096),
    "experts.json": lambda: json.dumps(
        {**CONFIGS["deepseek-ai--DeepSeek-V3"], "n_routed_experts": 65536, "num_hidden_layers": 4096}
    ).encode(),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", WORST)
def test_time_and_memory(tmp_path: Path, name: str) -> None:
    path = write_sparse(tmp_path / name, blob := WORST[name](), len(blob))
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert run.returncode == 0, run.stderr[-500:]
    outcome, seconds, kilobytes = run.stdout.split()
    assert outcome == ("read" if name == "layers.json" else "not_understood") or name == "experts.json"
    assert float(seconds) < SECONDS, f"{seconds} seconds"
    assert int(kilobytes) < MEGABYTES * 1000, f"{kilobytes} kB"
