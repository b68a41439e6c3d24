"""What must hold for every engine, whatever the model and the machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st

ENGINES = ("ollama", "llama.cpp", "vllm", "sglang", "transformers")
#: One of each kind of cache: full, windows, experts with windows, latent, recurrent beside attention.
NAMES = ("llama3-8b", "gemma3-12b", "gpt-oss-20b", "deepseek-v2-lite", "lfm2-1.2b", "qwen3-30b-a3b")
MACHINES = ("RTX 3060 12GB", "RTX 4090", "2x RTX 3090", "4x L4", "RTX 3090 + RTX 3060 12GB", "H100")
each = pytest.mark.parametrize("engine", ENGINES)
model = cache(vp.load)


def plan(name: str, engine: str, **asked: Any) -> vp.Plan:
    return vp.plan(model(name), engine=engine, **asked)


def fits(found: vp.Plan) -> bool:
    return found.fit.verdict in ("fits", "tight")


@each
@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(NAMES), context=st.integers(1, 100_000), more=st.integers(0, 30_000), sequences=st.integers(1, 12),
    others=st.integers(0, 12),
)  # fmt: skip
def test_memory_never_falls_when_more_is_asked(engine: str, name: str, context: int, more: int, sequences: int, others: int) -> None:
    asked = {"context": context, "sequences": sequences}
    little = plan(name, engine, **asked).memory.total
    assert plan(name, engine, **{**asked, "context": context + more}).memory.total >= little
    assert plan(name, engine, **{**asked, "sequences": sequences + others}).memory.total >= little


@each
@pytest.mark.parametrize("name", ["llama3-8b", "gemma3-12b", "qwen3-30b-a3b"])
def test_memory_never_falls_when_bits_rise(engine: str, name: str) -> None:
    totals = [plan(name, engine, context=4096, bits=bits).memory.total for bits in (4, 8, 16)]
    assert totals == sorted(totals) and totals[0] < totals[-1]


@each
@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(NAMES), gpus=st.sampled_from(MACHINES), sequences=st.integers(1, 6), bits=st.sampled_from((4, 8, 16)))
def test_the_longest_context_and_the_most_sequences_fit_and_one_more_does_not(
    engine: str, name: str, gpus: str, sequences: int, bits: int
) -> None:
    asked: dict[str, Any] = {"gpus": gpus, "bits": bits}
    longest = plan(name, engine, context=1, sequences=sequences, **asked).fit.max_context
    assert longest is not None
    assert not longest or fits(plan(name, engine, context=longest, sequences=sequences, **asked))
    assert not fits(plan(name, engine, context=longest + 1, sequences=sequences, **asked))
    most = plan(name, engine, context=8192, **asked).fit.max_sequences
    assert most is not None
    assert not most or fits(plan(name, engine, context=8192, sequences=most, **asked))
    assert not fits(plan(name, engine, context=8192, sequences=most + 1, **asked))


@each
@pytest.mark.parametrize("name", NAMES)
def test_several_gpus_hold_no_less_than_one(engine: str, name: str) -> None:
    """Servers fill their share with the pool, so there it is the weights alone; rounding of large tensors aside."""
    spread = {"options": {"spread": True}} if engine == "ollama" else {}
    one, *several = (plan(name, engine, gpus=f"{n}x H100", context=4096, **spread) for n in (1, 2, 4))
    pool = engine in ("vllm", "sglang")
    sums = [found.memory.weights if pool else found.memory.total for found in (one, *several) if not found.fit.refusal]
    assert len(sums) > 1 and all(total >= sums[0] - (64 << 20 if pool else 0) for total in sums)


@each
@pytest.mark.parametrize("name", NAMES)
def test_more_gpus_of_a_layer_split_never_shorten_the_longest_context(engine: str, name: str) -> None:
    """Ollama with a batch of 512: with its 2,048 the four copies of a pipeline's masks take more than a small model's cache."""
    split = {"options": {"spread": True, "ubatch": 512}} if engine == "ollama" else {}
    stages = engine in ("vllm", "sglang")
    found = [
        plan(name, engine, gpus=f"{n}x A100-80GB", context=1024, pipeline_parallel=n if stages else None, **split).fit for n in (1, 2, 3)
    ]
    longest = [fit.max_context or 0 for fit in found if not fit.refusal]
    assert len(longest) > 1 and longest == sorted(longest)


@each
@pytest.mark.parametrize("name", ["llama3-8b", "gemma3-12b", "gpt-oss-20b", "deepseek-v2-lite"])
def test_the_cache_grows_evenly_once_every_window_is_full(engine: str, name: str) -> None:
    past, step = 1 << 16, 1 << 14
    sizes = [plan(name, engine, context=past + step * n).memory.kv_cache for n in (0, 1, 2)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0
