"""The Hub, spoken to through the real huggingface_hub client, on loopback."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import COMMIT, Fault, File, HubServer, Repo, gguf_file, json_file, safetensors_file, serving
from huggingface_hub import constants
from vram_plan.errors import (
    AmbiguousModelError,
    FormatError,
    GatedModelError,
    HubError,
    ModelNotFoundError,
    UsageError,
    VramPlanError,
)
from vram_plan.models import hub_files, hub_gguf
from vram_plan.models.gguf import LongArray
from vram_plan.models.hub import open_hub

CONFIG = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32}
TINY = {"model.embed_tokens.weight": ("BF16", (100, 8)), "lm_head.weight": ("BF16", (100, 8))}


def llama_tensors(layers: range, width: int = 4096) -> dict[str, tuple[str, tuple[int, ...]]]:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj")
    square = {f"model.layers.{n}.{part}.weight": ("BF16", (width, width)) for n in layers for part in parts}
    return square | {f"model.layers.{n}.input_layernorm.weight": ("BF16", (width,)) for n in layers}


def sharded(shards: int, layers_each: int = 3, width: int = 4096) -> dict[str, File]:
    files, weight_map = {"config.json": json_file(CONFIG)}, {}
    for i in range(shards):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        tensors = llama_tensors(range(i * layers_each, (i + 1) * layers_each), width)
        files[name] = safetensors_file(tensors)
        weight_map |= dict.fromkeys(tensors, name)
    return files | {"model.safetensors.index.json": json_file({"metadata": {"total_size": 1}, "weight_map": weight_map})}


def single(**more: File) -> Repo:
    return Repo({"config.json": json_file(CONFIG), "model.safetensors": safetensors_file(TINY), **more})


def llama_gguf(vocabulary: int = 0, merges: int = 0, layers: int = 4, **metadata: object) -> File:
    words = [f"token{n:x}" for n in range(vocabulary)]
    about = {"general.architecture": "llama", "general.tags": ["a", "b"], "llama.block_count": layers}
    if vocabulary:
        about |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": [0.0] * vocabulary}
        about |= {"tokenizer.ggml.merges": [f"to ken{n:x}" for n in range(merges)], "tokenizer.chat_template": "x" * 6000}
    tensors = {f"blk.{n}.{part}.weight": (64, 64) for n in range(layers) for part in ("attn_q", "attn_k", "attn_v", "ffn_up")}
    return gguf_file({**about, **metadata}, tensors)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of huggingface_hub of its own for each test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "VRAM_PLAN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    with serving(org__model=single()) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def refused(kind: type[VramPlanError], *args: object, **kwargs: object) -> VramPlanError:
    with pytest.raises(kind) as caught:
        open_hub(*args, **kwargs)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value


# found


def test_single_file(hub: HubServer):
    found = open_hub("org/model", None)
    assert found.config == CONFIG
    assert found.kind == "hub" and found.revision == COMMIT and found.name == "org/model"
    assert [(t.name, t.dtype, t.shape, t.bytes) for t in found.stored or ()] == [
        ("model.embed_tokens.weight", "BF16", (100, 8), 1600),
        ("lm_head.weight", "BF16", (100, 8), 1600),
    ]
    assert hub.requests == 3


def test_single_file_stays_within_the_budget(hub: HubServer):
    weights = safetensors_file(llama_tensors(range(32)))
    hub.repos["org/model"].files["model.safetensors"] = weights
    hub.redirect_weights = True
    found = open_hub("org/model", None)
    assert len(found.stored or ()) == 32 * 7
    assert hub.requests == 4  # the config, the redirect, eight bytes, the header
    assert hub.bytes <= 1.2 * len(weights.head)
    assert sum(t.bytes for t in found.stored or ()) + len(weights.head) == weights.size


def test_shards_each_in_one_request(hub: HubServer):
    hub.repos["org/model"].files = sharded(30)
    seen: list[tuple[int, int]] = []
    found = open_hub("org/model", None, progress=lambda done, total: seen.append((done, total)))
    assert len(found.stored or ()) == 30 * 3 * 7
    assert seen == [(n, 30) for n in range(1, 31)]
    assert hub.requests == 3 + 30  # the config, no single file, the index, the shards
    ranged = sum(s.bytes for s in hub.seen if s.range)
    assert ranged <= 1.2 * sum(len(f.head) for name, f in hub.repos["org/model"].files.items() if "-of-" in name)


def test_a_shard_header_longer_than_guessed_is_read_on(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    hub.repos["org/model"].files = sharded(2)
    monkeypatch.setattr(hub_files, "_entry_bytes", lambda _: 10)
    assert len(open_hub("org/model", None).stored or ()) == 42


def test_config_alone(hub: HubServer):
    hub.repos["org/model"].files = {"config.json": json_file(CONFIG), "pytorch_model.bin": File(b"x")}
    found = open_hub("org/model", None)
    assert found.config == CONFIG and found.stored is None
    assert "no safetensors" in found.notes[0]


def test_a_named_safetensors_file(hub: HubServer):
    hub.repos["org/model"].files["fp32/other.safetensors"] = safetensors_file({"w": ("F32", (2, 2))})
    found = open_hub("org/model", None, filename="fp32/other.safetensors")
    assert [t.dtype for t in found.stored or ()] == ["F32"]


def test_quantization_from_the_config(hub: HubServer):
    hub.repos["org/model"].files["config.json"] = json_file({**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert open_hub("org/model", None).quantization == {"quant_method": "awq", "bits": 4}
    assert hub.requests == 3


def test_quantization_from_the_file_beside_it(hub: HubServer):
    files = hub.repos["org/model"].files
    files["model.safetensors"] = safetensors_file({"w.weight": ("U8", (8, 8)), "w.weight_scale": ("F8_E4M3", (8, 1))})
    assert open_hub("org/model", None).quantization is None
    files["hf_quant_config.json"] = json_file({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}})
    assert open_hub("org/model", None, refresh=True).quantization == {"quant_method": "modelopt", "quant_algo": "NVFP4"}


def test_a_revision(hub: HubServer):
    hub.repos["org/model"].revisions = ("main", "refs/pr/3")
    assert open_hub("org/model", "refs/pr/3").reference == "org/model@refs/pr/3"
    assert "refs%2Fpr%2F3" in hub.seen[0].path
    assert open_hub("org/model", COMMIT).revision == COMMIT


def test_renamed(hub: HubServer):
    hub.moved["old/name"] = "org/model"
    found = open_hub("old/name", None)
    assert found.name == "org/model" and "renamed from old/name" in found.source
    assert [s.status for s in hub.seen].count(307) == 1  # the rest is asked for by the new name


def test_the_budget_where_configs_are_redirected_too(hub: HubServer):
    """As the real Hub does with files in git: the header has to come in one request then."""
    llama = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "vocab_size": 128256}
    llama |= {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}
    tensors = {"model.embed_tokens.weight": ("BF16", (128256, 2048)), "model.norm.weight": ("BF16", (2048,))}
    for n in range(16):
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj"):
            tensors[f"model.layers.{n}.{part}.weight"] = ("BF16", (2048, 2048))
        for part in ("mlp.down_proj", "input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{n}.{part}.weight"] = ("BF16", (2048,))
    weights = safetensors_file(tensors)
    hub.repos["org/model"].files |= {"config.json": json_file(llama), "model.safetensors": weights}
    hub.redirect_configs = hub.redirect_weights = True
    found = open_hub("org/model", None)
    assert found.config == llama and found.name == "org/model" and found.revision == COMMIT
    assert len(found.stored or ()) == 2 + 16 * 9
    assert hub.requests == 4 and hub.bytes <= 1.2 * len(weights.head)


def test_the_token_goes_to_the_hub_alone(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirect_weights = True
    with serving() as storage:
        storage.repos = hub.repos
        hub.storage = storage.url
        open_hub("org/model", None)
        assert {s.authorization for s in hub.seen} == {"Bearer hf_secret"}
        assert [s.authorization for s in storage.seen] == [None, None]
        storage.faults.append(Fault("storage", "status", status=403))
        error = refused(HubError, "org/model", None, refresh=True)
        assert "secret" not in str(error) + error.hint


# GGUF


def test_gguf_by_quant(hub: HubServer):
    wanted = llama_gguf()
    hub.repos["org/model"] = Repo({"m-Q4_K_M.gguf": wanted, "m-Q8_0.gguf": llama_gguf(), "mmproj-F16.gguf": llama_gguf()})
    found = open_hub("org/model", None, quant="q4_k_m")
    assert found.gguf is not None and found.config is None and found.stored is None
    assert found.gguf.file_bytes == wanted.size and len(found.gguf.tensors) == 16
    assert found.name == "org/model:Q4_K_M" and found.reference == "org/model:q4_k_m"
    assert "mmproj-F16.gguf" in found.notes[0]
    assert hub.requests <= 4


def test_gguf_header_with_a_vocabulary_stays_within_the_budget(hub: HubServer):
    wanted = llama_gguf(vocabulary=128_000, merges=280_000, layers=32)
    wanted.size += 5_000_000_000
    hub.redirect_weights = True
    hub.repos["org/model"] = Repo({"m-Q4_K_M.gguf": wanted})
    found = open_hub("org/model", None, quant="Q4_K_M")
    assert found.gguf is not None and len(found.gguf.tensors) == 32 * 4
    assert found.gguf.metadata["tokenizer.ggml.tokens"] == LongArray(128_000)
    assert hub.requests == 4  # the list, the redirect, a first look, the rest
    assert hub.bytes <= 1.2 * len(wanted.head)


@pytest.mark.parametrize(("vocabulary", "merges"), [(0, 0), (300, 0), (32_000, 0), (60_000, 60_000), (60_000, 130_000)])
def test_gguf_headers_of_all_sizes_stay_within_the_budget(hub: HubServer, vocabulary: int, merges: int):
    wanted = llama_gguf(vocabulary, merges, layers=32)
    wanted.size += 5_000_000_000
    hub.repos["org/model"] = Repo({"m-Q4_K_M.gguf": wanted})
    open_hub("org/model", None, quant="Q4_K_M")
    assert hub.requests <= 4 and hub.bytes <= 1.2 * len(wanted.head)


def test_gguf_by_file_name(hub: HubServer):
    hub.repos["org/model"] = Repo({"sub/m.gguf": llama_gguf(), "other.gguf": llama_gguf()})
    found = open_hub("org/model", None, filename="sub/m.gguf")
    assert found.gguf is not None and found.reference == "org/model/sub/m.gguf"
    assert hub.requests == 1  # no list; a header this small comes with the first look


def test_split_gguf_is_summed(hub: HubServer):
    part = {"split.count": 3}
    parts = {
        f"Q8_0/big-{n + 1:05}-of-00003.gguf": gguf_file(
            {**part, "split.no": n} | ({"general.architecture": "llama"} if n == 0 else {}), {f"blk.{n}.attn_q.weight": (64, 64)}
        )
        for n in range(3)
    }
    hub.repos["org/model"] = Repo({**parts, "big-Q4_0.gguf": llama_gguf()})
    for asked in ({"quant": "Q8_0"}, {"filename": "Q8_0/big-00002-of-00003.gguf"}):
        found = open_hub("org/model", None, **asked)
        assert found.gguf is not None
        assert found.gguf.file_bytes == sum(f.size for f in parts.values())
        assert [t.name for t in found.gguf.tensors] == [f"blk.{n}.attn_q.weight" for n in range(3)]


@pytest.mark.parametrize("config", [True, False])
def test_several_quants_and_none_named(hub: HubServer, config: bool):
    files = {"m-Q4_K_M.gguf": llama_gguf(), "m-Q8_0.gguf": llama_gguf()}
    hub.repos["org/model"].files = files | ({"config.json": json_file(CONFIG)} if config else {})
    error = refused(AmbiguousModelError, "org/model", None)
    assert "Q4_K_M, Q8_0" in str(error) and "org/model:Q4_K_M" in error.hint


def test_one_quant_needs_no_name(hub: HubServer):
    hub.repos["org/m-GGUF"] = Repo({"m-UD-Q4_K_XL.gguf": llama_gguf(), "imatrix.gguf": llama_gguf()})
    assert open_hub("org/m-GGUF", None).name == "org/m-GGUF:UD-Q4_K_XL"
    assert open_hub("org/m-GGUF", None, quant="q4_k_xl").gguf is not None


def test_a_quant_nobody_uploaded(hub: HubServer):
    assert "--quant Q4_K_M" in refused(ModelNotFoundError, "org/model", None, quant="Q4_K_M").hint
    hub.repos["org/g"] = Repo({"m-Q8_0.gguf": llama_gguf()})
    assert "Q8_0" in refused(ModelNotFoundError, "org/g", None, quant="Q2_K").hint


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-4B.gguf", "Qwen3-4B"),
        ("gemma.f16.gguf", "F16"),
        ("UD-IQ2_XXS/x-UD-IQ2_XXS-00001-of-00002.gguf", "UD-IQ2_XXS"),
        ("BF16/model-00001-of-00002.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
    ],
)
def test_quant_labels(name: str, label: str):
    assert hub_gguf.quant_label(name) == label


# refused


def test_gated(hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    repo = hub.repos["org/model"]
    repo.gated, repo.token = True, "hf_good"
    error = refused(GatedModelError, "org/model", None)
    assert "hf auth login" in error.hint and "huggingface.co/org/model" in error.hint
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    error = refused(GatedModelError, "org/model", None)
    assert "hf_bad" not in str(error) + error.hint
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert open_hub("org/model", None).config == CONFIG


@pytest.mark.parametrize("status", [401, 403])
def test_gated_without_a_code(hub: HubServer, status: int):
    hub.faults.append(Fault("config.json", "status", status=status))
    refused(GatedModelError, "org/model", None)


def test_missing(hub: HubServer):
    assert "org/none" in str(refused(ModelNotFoundError, "org/none", None))
    assert "'v9'" in str(refused(ModelNotFoundError, "org/model", "v9"))
    assert "no.gguf" in str(refused(ModelNotFoundError, "org/model", None, filename="no.gguf"))
    hub.faults.append(Fault("/", "status", status=404))
    refused(ModelNotFoundError, "org/model", None)


def test_nothing_that_is_a_model(hub: HubServer):
    hub.repos["org/a"] = Repo({"README.md": File(b"hello")})
    hub.repos["org/b"] = Repo({"adapter_config.json": json_file({})})
    refused(FormatError, "org/a", None)
    assert "adapter" in str(refused(FormatError, "org/b", None))


@pytest.mark.parametrize("repo_id", ["", "a/b/c", "../etc", "a/../b", "a b/c", "a/b" + "x" * 100, "a/b\n", "-a/b", "a--b/c", "é/b"])
def test_names_that_cannot_be(repo_id: str):
    refused(UsageError, repo_id, None)


@pytest.mark.parametrize("bad", [{"filename": "../x.gguf"}, {"filename": "/x.gguf"}, {"filename": "x.bin"}, {"filename": "a\n.gguf"}])
def test_files_that_cannot_be(bad: dict[str, str]):
    refused(UsageError, "org/model", None, **bad)


def test_revisions_that_cannot_be():
    for revision in ("../main", "a b", "x" * 300, "a?b"):
        refused(UsageError, "org/model", revision)


# a Hub in trouble


def test_busy_then_fine(hub: HubServer):
    hub.faults.append(Fault("config", "status", 1, 503, {"Retry-After": "0"}))
    hub.faults.append(Fault("model.safetensors", "status", 1, 429, {"ratelimit": '"api";r=0;t=0'}))
    assert open_hub("org/model", None).config == CONFIG
    assert [s.status for s in hub.seen if s.status >= 400] == [503, 429]


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "60"}), (429, {"ratelimit": '"api";r=0;t=55'}), (503, {"Retry-After": "99"})]
)
def test_a_wait_too_long_is_not_waited_for(hub: HubServer, status: int, headers: dict[str, str]):
    hub.faults.append(Fault("config", "status", status=status, headers=headers))
    begun = time.monotonic()
    assert str(status) in str(refused(HubError, "org/model", None))
    assert hub.requests == 1 and time.monotonic() - begun < 2


def test_down_for_good(hub: HubServer):
    hub.faults.append(Fault("/", "status", status=502, headers={"Retry-After": "0"}))
    error = refused(HubError, "org/model", None)
    assert "502" in str(error) and "--offline" in error.hint
    assert hub.requests == 4


@pytest.mark.parametrize("match", ["config", "model.safetensors"])
@pytest.mark.parametrize("kind", ["hang", "trickle"])
def test_slow(hub: HubServer, match: str, kind: str):
    hub.repos["org/model"].files["model.safetensors"] = safetensors_file(llama_tensors(range(4)))
    hub.faults.append(Fault(match, kind))
    begun = time.monotonic()
    error = refused(HubError, "org/model", None, timeout_s=0.5)
    assert "0.5 s" in str(error)
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize(("match", "kind"), [("config", "cut"), ("config", "long"), ("model.safetensors", "cut")])
def test_cut_off(hub: HubServer, match: str, kind: str):
    hub.faults.append(Fault(match, kind, times=1))
    assert open_hub("org/model", None).config == CONFIG  # once is nothing
    hub.faults.append(Fault(match, kind))
    refused(HubError, "org/model", None, refresh=True)


@pytest.mark.parametrize("kind", ["short", "shifted"])
def test_a_wrong_range(hub: HubServer, kind: str):
    hub.faults.append(Fault("model.safetensors", kind))
    refused(HubError, "org/model", None)


def test_a_server_without_ranges_sends_no_weights(hub: HubServer):
    hub.ranges = False
    hub.repos["org/model"].files["model.safetensors"] = safetensors_file(llama_tensors(range(32)))
    assert len(open_hub("org/model", None).stored or ()) == 32 * 7
    assert hub.bytes < 40_000_000  # of 7 GB: what the sockets held when the reading stopped
    hub.repos["org/model"] = Repo({"m-Q8_0.gguf": llama_gguf(vocabulary=5_000, merges=5_000)})
    assert open_hub("org/model", None, quant="Q8_0").gguf is not None


@pytest.mark.parametrize("match", ["config", "model.safetensors"])
def test_redirects_without_end(hub: HubServer, match: str):
    hub.faults.append(Fault(match, "status", status=302, headers={"Location": "/org/model/resolve/main/config.json"}))
    if match == "config":
        assert "redirect" in str(refused(HubError, "org/model", None))
    hub.faults[:] = [Fault("config", "status", status=302, headers={"Location": "file:///etc/passwd"})]
    refused(HubError, "org/model", None)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch):
    begun = time.monotonic()
    for address in ("http://127.0.0.1:9", "http://no-such-host.invalid", "not an address"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert "--offline" in refused(HubError, "org/model", None, timeout_s=2).hint
    assert time.monotonic() - begun < 7


def test_changed_while_it_is_read(hub: HubServer):
    hub.faults.append(Fault("model.safetensors", "status", 1, 302, {"Location": "/org/other/resolve/main/model.safetensors"}))
    hub.repos["org/other"] = Repo(hub.repos["org/model"].files, commit="f" * 40)
    assert "changed" in str(refused(HubError, "org/model", None))


# hostile files


@pytest.mark.parametrize(
    "weights",
    [
        File(b"", lfs=True),
        File(b"abc", lfs=True),
        File(struct.pack("<Q", 2**63) + b"{}", lfs=True),
        File(struct.pack("<Q", 40_000_000) + b"{}", lfs=True),
        File(struct.pack("<Q", 2) + b"[]", lfs=True),
    ],
)
def test_weights_that_lie(hub: HubServer, weights: File):
    hub.repos["org/model"].files["model.safetensors"] = weights
    with pytest.raises(FormatError):
        open_hub("org/model", None)
    assert hub.bytes < 10_000


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GGUF",
        b"nothing of the kind" * 10,
        struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 2**63),
        struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + struct.pack("<Q", 2**63),
        struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + struct.pack("<QcIQ", 1, b"k", 8, 2**64 - 1),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<QcIIQ", 1, b"k", 9, 8, 2**62) + b"\0" * 5000,
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<QcIIQ", 1, b"k", 9, 9, 5),
        struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + struct.pack("<QcI", 1, b"t", 2**31),
    ],
)
@pytest.mark.parametrize("more", [0, 1_000_000])
def test_ggufs_that_lie(hub: HubServer, head: bytes, more: int):
    hub.repos["org/model"] = Repo({"m.gguf": File(head, len(head) + more, lfs=True)})
    begun = time.monotonic()
    with pytest.raises(FormatError):
        open_hub("org/model", None, filename="m.gguf")
    assert hub.requests <= 8 and time.monotonic() - begun < 2


def test_jsons_that_lie(hub: HubServer):
    files = hub.repos["org/model"].files
    for config in (File(b" " * 50_000_000), File(b"[" * 100_000), File(b"[1]"), File(b"\xff"), File(b"")):
        files["config.json"] = config
        with pytest.raises(FormatError):
            open_hub("org/model", None)
    hub.repos["org/model"].files = sharded(2)
    hub.repos["org/model"].files.pop("model-00002-of-00002.safetensors")
    assert "model-00002-of-00002" in str(refused_format("org/model"))
    hub.repos["org/model"].files["model.safetensors.index.json"] = json_file({"weight_map": {"w": "../../etc/passwd"}})
    refused_format("org/model")
    hub.repos["org/model"].files["model.safetensors.index.json"] = json_file([])
    refused_format("org/model")
    hub.faults.append(Fault("/api/", "status", status=200))
    with pytest.raises(FormatError):
        open_hub("org/model", None, quant="Q8_0")


def refused_format(repo_id: str) -> FormatError:
    with pytest.raises(FormatError) as caught:
        open_hub(repo_id, None)
    return caught.value


# kept on disk, and offline


def test_nothing_is_asked_twice(hub: HubServer):
    first = open_hub("org/model", None)
    asked = hub.requests
    assert open_hub("org/model", None) == first
    assert open_hub("org/model", None, offline=True) == first
    assert hub.requests == asked
    open_hub("org/model", None, refresh=True)
    assert hub.requests == 2 * asked


def test_a_kept_gguf_is_the_same(hub: HubServer):
    hub.repos["org/model"] = Repo({"m-Q8_0.gguf": llama_gguf(vocabulary=2000, merges=10)})
    first = open_hub("org/model", None, quant="Q8_0")
    assert open_hub("org/model", None, quant="Q8_0", offline=True) == first


def test_a_spoilt_or_unwritable_cache_is_no_harm(hub: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch):
    open_hub("org/model", None)
    (kept,) = (home / "assets" / "vram-plan" / "headers").iterdir()
    for spoilt in (b"", b"garbage", kept.read_bytes()[:-20]):
        kept.write_bytes(spoilt)
        assert open_hub("org/model", None).config == CONFIG
    (home / "file").write_text("")
    monkeypatch.setenv("VRAM_PLAN_CACHE", str(home / "file"))
    assert open_hub("org/model", None).config == CONFIG


@pytest.mark.parametrize("by_environment", [True, False])
def test_offline_never_asks(hub: HubServer, monkeypatch: pytest.MonkeyPatch, by_environment: bool):
    if by_environment:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refused(ModelNotFoundError, "org/model", None, offline=not by_environment)
    assert "offline" in str(error)
    assert hub.requests == 0


def snapshot(home: Path, files: dict[str, File], most: int = 10**6) -> None:
    """Files as huggingface_hub lays them out."""
    root = home / "hub" / "models--org--model"
    for name, file in files.items():
        path = root / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(file.slice(0, min(file.size, most))))
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("files", [single().files, sharded(2, width=8)])
def test_a_snapshot_is_read_where_it_lies(hub: HubServer, home: Path, offline: bool, files: dict[str, File]):
    snapshot(home, files)
    found = open_hub("org/model", None, offline=offline)
    assert found.config == CONFIG and found.stored and found.revision == COMMIT
    assert "cache" in found.source and hub.requests == 0


def test_a_snapshot_of_one_quant(hub: HubServer, home: Path):
    hub.repos["org/model"] = Repo({"m-Q8_0.gguf": llama_gguf(), "m-Q4_0.gguf": llama_gguf()})
    snapshot(home, {"m-Q8_0.gguf": llama_gguf()})
    assert open_hub("org/model", None, quant="Q8_0").gguf is not None
    assert open_hub("org/model", None, offline=True).name == "org/model:Q8_0"
    assert hub.requests == 0
    refused(AmbiguousModelError, "org/model", None)


def test_a_snapshot_without_all_weights(hub: HubServer, home: Path):
    files = sharded(2, width=8)
    hub.repos["org/model"].files = files
    snapshot(home, {name: file for name, file in files.items() if "00002-of" not in name})
    offline = open_hub("org/model", None, offline=True)
    assert offline.stored is None and "not on this disk" in offline.notes[0]
    assert len(open_hub("org/model", None).stored or ()) == 42


def test_what_the_real_client_downloaded_is_found(hub: HubServer, tmp_path: Path):
    """HF_ENDPOINT and HF_HOME as a user sets them, in processes of their own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    download = "from huggingface_hub import hf_hub_download as d; d('org/model', 'config.json'); d('org/model', 'model.safetensors')"
    plan = "from vram_plan.models.hub import open_hub; print(len(open_hub('org/model', None).stored))"
    subprocess.run([sys.executable, "-c", download], env=env, check=True, timeout=60)
    asked = hub.requests
    done = subprocess.run([sys.executable, "-c", plan], env=env, check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.split() == ["2"] and hub.requests == asked > 0
    env["HF_HOME"] = str(tmp_path / "fresh")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", plan], env=env, check=True, timeout=60)
    assert hub.requests == asked + 3
