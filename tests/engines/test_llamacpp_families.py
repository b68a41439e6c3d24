"""Families with graphs of their own: what llama.cpp projects for them on an emulated CUDA device, and what drafts tokens."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp

MIB = 2**20
DATA = json.loads((Path(__file__).parents[1] / "data" / "llamacpp_families.json").read_text())["families"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("families")
    for name, family in DATA.items():
        (made / f"{name}.json").write_text(json.dumps(family["config"]))
    return made


@pytest.mark.parametrize("name", sorted(DATA))
def test_a_familys_graph_is_laid_out_as_the_engine_does(folder: Path, name: str) -> None:
    """Weights, cache with state and compute buffer, the last within a thousandth."""
    model = vp.load(str(folder / f"{name}.json"))
    for context, ubatch, parallel, unified, kv, flash, every, weights, kept, compute in DATA[name]["rows"]:
        options = {
            "ubatch": ubatch, "batch": max(2048, ubatch), "kv_unified": bool(unified), "flash_attn": bool(flash),
            "logits": "all" if every else "last",
        }  # fmt: skip
        memory = vp.plan(
            model, engine="llama.cpp", quant="Q4_K_M", context=context // parallel, sequences=parallel, kv_type=kv, options=options
        ).memory
        assert memory.weights == pytest.approx(weights, rel=1e-5)
        assert memory.kv_cache + memory.state == pytest.approx(kept, rel=2e-4)
        assert memory.compute == pytest.approx(compute, rel=1e-3), (context, ubatch, parallel, kv, flash, every)


@pytest.mark.parametrize(
    ("config", "projected", "off"),
    [
        (
            {
                "model_type": "rwkv7", "hidden_size": 2560, "num_hidden_layers": 32, "head_dim": 64, "intermediate_size": 10240,
                "vocab_size": 65536, "decay_low_rank_dim": 96, "a_low_rank_dim": 96, "v_low_rank_dim": 64, "gate_low_rank_dim": 320,
            },
            95899904,
            0.01,
        ),
        (
            {
                "model_type": "rwkv6", "hidden_size": 4096, "attention_hidden_size": 4096, "num_hidden_layers": 32, "head_size": 64,
                "vocab_size": 65536, "intermediate_size": 14336,
            },
            111182080,
            0.02,
        ),
    ],
)  # fmt: skip
def test_rwkv_is_laid_out_roughly(tmp_path: Path, config: dict[str, Any], projected: int, off: float) -> None:
    """4,096 tokens at 512 a batch; RWKV has no context to speak of, and its graph is written down in outline."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = vp.plan(str(tmp_path / "config.json"), engine="llama.cpp", quant="Q4_K_M", context=4096)
    assert found.memory.compute == pytest.approx(projected, rel=off)


@cache
def terms(name: str, **request: Any) -> dict[str, int]:
    options = dict(request.pop("options"))
    found = vp.plan(name, engine="llama.cpp", quant="Q4_K_M", options=options, **request)
    return {term.name: term.bytes for term in found.devices[0].terms}


#: llama.cpp 0c1e57098 on an emulated CUDA device with prediction layers loaded, 3 tokens drafted: weights, cache and state,
#: compute; then the prediction context's cache and compute.
PREDICTED = [
    ("Qwen/Qwen3.5-9B", 8192, 1, "f16", (5196992512, 479199232, 100679936, 33554432, 100679808)),
    ("Qwen/Qwen3.5-9B", 131072, 1, "q8_0", (5196992512, 2492465152, 730104064, 536870912, 180371584)),
    ("Qwen/Qwen3.5-9B", 2048, 4, "f16", (5196992512, 1111490560, 118243584, 33554432, 100679808)),
    ("Qwen/Qwen3.5-35B-A3B", 131072, 1, "q8_0", (21416407552, 1689518080, 457474304, 268435456, 176177280)),
]


@pytest.mark.parametrize(("name", "context", "sequences", "kv", "projected"), PREDICTED)
def test_prediction_layers_have_a_context_of_their_own(
    name: str, context: int, sequences: int, kv: str, projected: tuple[int, ...]
) -> None:
    options = (("mtp", True), ("kv_unified", sequences > 1))
    got = terms(name, context=context, sequences=sequences, kv_type=kv, options=options)
    sums = got["weights"] + got["mtp_weights"], got["kv_cache"] + got["state"], got["compute"], got["mtp_kv_cache"], got["mtp_compute"]
    assert sums == pytest.approx(projected, rel=2e-4)


def test_before_they_were_merged_prediction_layers_took_the_models_cache_types() -> None:
    """A build of PR #22673's branch, 2026-05-14: 131,072 cells in q8_0, logits of the whole batch; no copies of the state."""
    request = {"context": 32768, "sequences": 4, "kv_type": "q8_0"}
    got = terms("qwen3.6-27b", **request, options=(("mtp", True), ("kv_unified", True), ("build", "2026-05-14")))
    logged = {"kv_cache": 4352, "state": 598.5, "compute": 495, "mtp_kv_cache": 272, "mtp_compute": 495}
    assert {name: got[name] / MIB for name in logged} == pytest.approx(logged, rel=1e-3)
    later = terms("qwen3.6-27b", **request, options=(("mtp", True), ("kv_unified", True), ("build", "2026-05")))
    assert (later["state"], later["mtp_kv_cache"]) == (4 * got["state"], 512 * MIB)
    assert later["mtp_kv_cache"] + later["mtp_compute"] == 1129 * MIB  # "estimated memory usage of MTP context", another log


def test_a_draft_model_takes_what_it_takes_alone_with_the_models_cells() -> None:
    got = terms("qwen3-32b", context=8192, kv_type="q8_0", sequences=2, options=(("draft", "qwen3-0.6b"),))
    alone = terms("qwen3-0.6b", context=8192, sequences=2, options=())
    assert {name.removeprefix("draft_"): size for name, size in got.items() if name.startswith("draft_")} == {
        name: size for name, size in alone.items() if name != "runtime"
    }
    with_rows = terms("qwen3-32b", context=8192, kv_type="q8_0", sequences=2, options=())
    assert got["compute"] >= with_rows["compute"]
    assert got["kv_cache"] == with_rows["kv_cache"]


def test_what_drafts_is_launched_and_counted_by_the_inverse() -> None:
    model = vp.load("qwen3-8b")
    draft = vp.load("qwen3-0.6b")
    found = vp.plan(model, engine="llama.cpp", quant="Q4_K_M", context=8192, gpus="RTX 4060", options={"draft": draft})
    assert "--spec-type draft-simple -md draft.gguf" in found.launch[0].command
    assert found.request.options == {"draft": draft.name}
    assert found.engine["draft"] == draft.name
    plain = vp.plan(model, engine="llama.cpp", quant="Q4_K_M", context=8192, gpus="RTX 4060")
    assert found.fit.max_context is not None and plain.fit.max_context is not None
    assert found.fit.max_context < plain.fit.max_context
    at_most = vp.plan(model, engine="llama.cpp", quant="Q4_K_M", context=found.fit.max_context, gpus="RTX 4060", options={"draft": draft})
    assert (at_most.fit.headroom or 0) >= 0
    predicting = vp.plan("qwen3.6-27b", engine="llama.cpp", quant="Q4_K_M", gpus="2x RTX 3090", options={"mtp": True})
    assert "--spec-type draft-mtp" in predicting.launch[0].command
    assert [any(term.name == "mtp_weights" for term in device.terms) for device in predicting.devices] == [False, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mtp": True}, "prediction layers"),
        ({"draft": "qwen3-0.6b", "mtp": True}, "both"),
        ({"draft": 7}, "draft"),
        ({"draft": " "}, "name"),
    ],
)
def test_what_cannot_draft_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(vp.VramPlanError, match=said):
        vp.plan("llama3-8b", engine="llama.cpp", quant="Q4_K_M", options=options)


def test_ollama_is_not_told_to_draft() -> None:
    with pytest.raises(vp.UnknownNameError, match="draft"):
        vp.plan("llama3-8b", engine="ollama", quant="Q4_K_M", options={"draft": "qwen3-0.6b"})


def test_heads_no_block_divides_cannot_be_quantised() -> None:
    """Phi-2's heads are 80 wide: llama_init_from_model refuses the context."""
    refused = vp.plan("microsoft/phi-2", engine="llama.cpp", quant="Q4_K_M", context=2048, kv_type="q8_0", gpus="RTX 4090")
    assert refused.fit.verdict == "does_not_fit"
    assert vp.plan("microsoft/phi-2", engine="llama.cpp", quant="Q4_K_M", context=2048, gpus="RTX 4090").fit.verdict == "fits"
