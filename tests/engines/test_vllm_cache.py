"""vLLM's KV groups, blocks and refusals against its own code run on full-size models (tests/data/vllm_kv.jsonl)."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache, partial
from pathlib import Path

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.engines.vllm.cache import Group, Layout, cache_layout, grouped, largest_length
from vram_plan.engines.vllm.specs import CacheSetup, Spec, checkpoint_cache
from vram_plan.models.model import Model

DATA = Path(__file__).parent.parent / "data"
CASES = [json.loads(line) for line in (DATA / "vllm_kv.jsonl").read_text("utf-8").splitlines()][1:]
KINDS = {
    "full": "FullAttentionSpec", "latent": "MLAAttentionSpec", "index": "MLAAttentionSpec", "sliding": "SlidingWindowSpec",
    "chunked": "ChunkedLocalAttentionSpec", "state": "MambaSpec", "latent_window": "SlidingWindowMLASpec",
}  # fmt: skip


@cache
def model(name: str, folder: Path) -> Model:
    """From the catalogue; transformers' default configs from the rows of the transformers oracle."""
    if not name.startswith("class-default/"):
        return vp.load(name, offline=True)
    for line in (DATA / "oracle.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["model"] == name:
            path = folder / f"{name.replace('/', '--')}.json"
            path.write_text(json.dumps(row["config"]))
            return vp.load(str(path), offline=True)
    raise AssertionError(f"no config of {name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def described(group: Group) -> str:
    """As the case file writes a group."""
    kinds = Counter(f"{KINDS[spec.kind]}/bs{spec.block}/page{spec.page}" for spec in group.specs)
    if len({spec.page for spec in group.specs}) == 1:
        return f"{next(iter(kinds))} x{len(group.specs)}"
    return "+".join(sorted(f"{count}x{kind}" for kind, count in kinds.items())) + f" x{len(group.specs)}"


def expected(text: str) -> str:
    """The file writes mixed groups as Uniform(…), also those whose pages are all alike."""
    if not text.startswith("Uniform("):
        return text
    inner, layers = text[len("Uniform(") :].rsplit(") x", 1)
    parts = inner.split(",")
    return f"{parts[0].split('x', 1)[1]} x{layers}" if len(parts) == 1 else "+".join(sorted(parts)) + f" x{layers}"


def layout_of(case: dict[str, object], folder: Path) -> Layout:
    found = model(str(case["model"]), folder)
    fp8 = case["kv"] == "fp8" or checkpoint_cache(found) == "fp8"
    layout = cache_layout(found, CacheSetup(fp8, int(str(case["tp"]))))
    assert layout is not None
    return layout


def test_every_grid_case(folder: Path) -> None:
    """Groups, block sizes, pages; bytes per block, blocks per request, blocks, tokens; and the refusal's longest length."""
    wrong = []
    for case in CASES:
        layout = layout_of(case, folder)
        groups = Counter(map(described, layout.groups))
        want = Counter()
        for text, count in case["groups"].items():
            want[expected(text)] += count
        if groups != want:
            wrong.append((case["model"], case["tp"], case["kv"], dict(groups), dict(want)))
        for tokens, length, available, block_bytes, per_request, blocks, last in case["points"]:
            took = layout.blocks_per_request(length, 2 * tokens)
            held = available // layout.bytes_per_block
            longest = largest_length(partial(layout.blocks_per_request, in_flight=2 * tokens), length, held - 1)
            fits = (held, int(held / took * length)) if took <= held - 1 else (None, longest)
            got = (layout.bytes_per_block, took, *fits)
            if got != (block_bytes, per_request, blocks, last):
                wrong.append((case["model"], case["tp"], case["kv"], length, tokens, got, (block_bytes, per_request, blocks, last)))
    assert not wrong[:5], f"{len(wrong)} wrong"
    assert len(CASES) > 700


MIXES = [json.loads(line) for line in (DATA / "vllm_mixes.jsonl").read_text("utf-8").splitlines()][1:]


def test_mixes_no_model_has() -> None:
    """Layers of three kinds in numbers and widths drawn at random, grouped as vLLM's own code does."""
    wrong = []
    for mix in MIXES:
        full, local = (16 * mix[f"{side}_heads"] * mix[f"{side}_width"] * 4 for side in ("full", "local"))
        kind = "chunked" if mix["chunked"] else "sliding"
        specs = [
            *(Spec("full", i, 16, full, (mix["full_heads"], mix["full_width"])) for i in range(mix["full"])),
            *(Spec(kind, i, 16, local, (mix["local_heads"], mix["local_width"]), mix["window"]) for i in range(mix["local"])),  # type: ignore[arg-type]
            *(Spec("state", i, 16, full, (full - 64,), fixed=2) for i in range(mix["state"])),
        ]
        groups = grouped(specs)
        got = (sorted(len(group.specs) for group in groups), max(group.page for group in groups))
        blocks = [[length, tokens, sum(group.blocks(length, 2 * tokens) for group in groups)] for length, tokens, _ in mix["blocks"]]
        if (*got, blocks) != (mix["sizes"], mix["block_bytes"], mix["blocks"]):
            wrong.append((mix, got, blocks))
    assert not wrong[:3], f"{len(wrong)} of {len(MIXES)} wrong"
    assert len(MIXES) == 120


def test_the_classic_block() -> None:
    """Llama-3-8B: 16 tokens × 32 layers × 128 KiB ÷ 32 = 2 MiB a block; 8,192 tokens are 512 blocks."""
    layout = cache_layout(vp.load("llama3-8b"), CacheSetup())
    assert layout is not None
    assert (layout.bytes_per_block, layout.block_size, layout.blocks_per_request(8192, 16384)) == (2 << 20, 16, 512)


def test_a_pipeline_stage_holds_its_own_layers() -> None:
    layout = cache_layout(vp.load("llama3-8b"), CacheSetup())
    assert layout is not None
    assert [layout.stage_bytes(range(i * 8, i * 8 + 8)) for i in range(4)] == [512 << 10] * 4


def test_drafts_add_layers_and_states_grow() -> None:
    """Qwen3.6-27B at TP2, fp8 and three speculated tokens: log of club-3090#642, 27,852,800 bytes a block of 1,600 tokens."""
    layout = cache_layout(vp.load("nvidia/Qwen3.6-27B-NVFP4", offline=True), CacheSetup(fp8=True, tensor_parallel=2, speculative=3))
    assert layout is not None
    assert (layout.block_size, layout.bytes_per_block, len(layout.groups)) == (1600, 27_852_800, 4)
    assert layout.blocks_per_request(262_144, 16_384) == 164 + 3 * 5


@pytest.mark.parametrize(
    ("capability", "fp8", "block"), [(8, False, 16), (8, True, 16), (9, False, 16), (9, True, 64), (10, False, 32), (12, True, 16)]
)
def test_latent_blocks_by_gpu(capability: int, fp8: bool, block: int) -> None:
    layout = cache_layout(vp.load("deepseek-ai/DeepSeek-V3", offline=True), CacheSetup(fp8, capability=capability))
    assert layout is not None
    assert layout.block_size == block


def test_no_cache_no_layout() -> None:
    assert cache_layout(vp.load("BAAI/bge-large-en", offline=True), CacheSetup()) is None


@given(
    kind=st.sampled_from(["full", "sliding", "chunked", "latent"]),
    block=st.sampled_from([4, 16, 64, 256]),
    window=st.integers(1, 10_000),
    in_flight=st.integers(1, 40_000),
    context=st.integers(1, 1_000_000),
)
def test_blocks_never_fall_and_hold_the_tokens(kind: str, block: int, window: int, in_flight: int, context: int) -> None:
    spec = Spec(kind, 0, block, 1024, window=window)  # type: ignore[arg-type]
    took = spec.blocks(context, in_flight)
    assert took <= spec.blocks(context + 1, in_flight)
    assert took <= spec.blocks(context, in_flight + 1)
    needed = context if kind in ("full", "latent") else min(context, window)
    assert took * block >= needed


@settings(max_examples=50)
@given(limit=st.integers(1, 1 << 20), step=st.integers(1, 5000), available=st.integers(-3, 2000))
def test_the_longest_length(limit: int, step: int, available: int) -> None:
    def blocks(length: int) -> int:
        return -(-length // step)

    found = largest_length(blocks, limit, available)
    assert found == max(0, min(limit, available * step))
