"""The measured memory figures kept under tests/data, each beside what is predicted for it and what the textbook says.

Naive figures are `textbook_parameters`, `textbook_weights` and `textbook_kv`: what a sizing page on one sheet of paper gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import vram_plan as vp
from textbook import textbook_kv, textbook_parameters, textbook_weights
from vram_plan.engines.base import Work
from vram_plan.engines.llamacpp import engine as llamacpp
from vram_plan.engines.vllm.cache import cache_layout, largest_length
from vram_plan.engines.vllm.specs import CacheSetup, checkpoint_cache
from vram_plan.engines.vllm.weights import rank_weights, refusal
from vram_plan.formats import apply_format, find_format, for_engine, inventory_bytes
from vram_plan.formats.gguf_inventory import as_gguf, gguf_facts
from vram_plan.formats.mixes import mix_types
from vram_plan.hardware import resolve
from vram_plan.models import catalog
from vram_plan.models.architecture import Architecture
from vram_plan.models.assemble import assemble
from vram_plan.models.checkpoint import Checkpoint
from vram_plan.models.dialects import read_architecture
from vram_plan.models.model import Model

__all__ = ["Case", "Unpredicted", "all_cases"]

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
MIB, GIB = 1 << 20, 1 << 30
#: What a log must tell for its pool to be predicted.
_FLAGS = {"batch", "sequences", "utilization", "length"}
#: Its 4-bit rows quantise the vision tower too, which no such checkpoint does.
_TOWER = ("google/gemma-3-27b-it", ("AWQ", "W4A16"))


@dataclass(frozen=True, slots=True)
class Case:
    """One figure: `part` is the section of the page, `component` what was measured. Units are the file's own."""

    part: str
    component: str
    kind: str
    label: str
    predicted: float
    measured: float
    naive: float | None = None

    @property
    def error(self) -> float:
        """|predicted ÷ measured − 1|; 0 where both are nothing."""
        return off(self.predicted, self.measured)


@dataclass(frozen=True, slots=True)
class Unpredicted:
    part: str
    label: str
    reason: str


Found = Iterator[Case | Unpredicted]


def off(found: float, true: float) -> float:
    """|found ÷ true − 1|."""
    return abs(found / true - 1) if true else float(found != 0)


def rows(name: str, every: int = 1) -> list[dict[str, Any]]:
    """The rows of a file of cases, its heading left out; one in `every` of them."""
    lines = (json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines())
    return [row for row in lines if row.keys() & {"model", "config"}][::every]


def kind_of(architecture: Architecture) -> str:
    """Dense, sliding, MLA, hybrid or state only, by what its layers keep; and whether it has experts."""
    kinds = {layer.kind for layer in architecture.cache_layers}
    if not kinds:
        attention = "encoder"
    elif "recurrent" in kinds:
        attention = "hybrid" if len(kinds) > 1 else "state only"
    elif kinds & {"latent", "compressed"}:
        attention = "MLA"
    else:
        attention = "sliding" if kinds & {"sliding", "chunked"} else "dense"
    if not architecture.experts:
        return attention
    return "MoE" if attention == "dense" else f"{attention}, MoE"


def local(config: Mapping[str, Any]) -> Model:
    scheme = config.get("quantization_config")
    own = Checkpoint(
        name="config", reference="config", kind="local", source="a case's own config", config=dict(config), quantization=scheme
    )
    return assemble(own)


@cache
def named(name: str) -> Model:
    """From the catalogue; transformers' default configs from the rows of its oracle."""
    if name.startswith("class-default/"):
        return local(next(row["config"] for row in rows("oracle.jsonl") if row["model"] == name))
    return vp.load(name, offline=True)


def logged(row: Mapping[str, Any]) -> Model:
    """The model of a log: one of the catalogue, with what its config says otherwise."""
    model = named(row["model"])
    return local({**(model.config or {}), **row["config"]}) if "config" in row else model


# The cases


def _row_config(row: Mapping[str, Any]) -> Mapping[str, Any]:
    config: Mapping[str, Any] = row.get("config") or catalog.row_config(catalog._rows()[row["model"]])[0]
    return config


def counted_cases(every: int) -> Found:
    """Parameters and cache of whole models, against transformers' own classes."""
    files = sorted(path.name for path in DATA.glob("oracle*.jsonl"))
    for row in (row for name in files for row in rows(name, every)):
        config = _row_config(row)
        a = read_architecture(config)
        label = row.get("model") or row.get("name") or str(config.get("model_type"))
        total = sum(t.parameters for t in a.tensors if t.part != "mtp")
        yield Case("transformers' classes", "parameters", kind_of(a), label, total, row["params_total"], textbook_parameters(config))
        for name, tokens in (("kv_bytes_bf16_8k", 8192), ("kv_bytes_bf16_128k", 131072)):
            if row.get(name) is not None:
                naive = textbook_kv(config, tokens)
                yield Case("transformers' classes", f"KV, {tokens:,} tokens", kind_of(a), label, a.kv_bytes(tokens), row[name], naive)
        if row.get("state_bytes"):
            yield Case("transformers' classes", "state", kind_of(a), label, a.state_bytes, row["state_bytes"])


def file_cases(every: int) -> Found:
    """Whole files: GGUF mixes against llama.cpp's quantiser, checkpoint schemes against vLLM's parameters."""
    for row in rows("gguf_sizes.jsonl", every):
        model = named(row["model"])
        a = model.architecture
        tensors = as_gguf(a)
        facts = gguf_facts(a, tensors)
        known = {mix: mib * MIB for mix, mib in row.get("sizes_mib", {}).items()} | row.get("sizes_bytes", {})
        for mix, size in known.items():
            naive = textbook_weights(model.parameters.total, mix)
            found = inventory_bytes(mix_types(tensors, mix, facts))
            yield Case("GGUF files", "size", kind_of(a), f"{row['model']} {mix}", found, size, naive)
    for row in rows("scheme_sizes.jsonl", every):
        model = named(row["model"])
        format = model.stored_format if row["format"] == "native" else row["format"]
        tensors = model.tensors if row["format"] == "native" else apply_format(model.architecture, find_format(format))
        found = inventory_bytes(t for t in tensors if t.part != "mtp")
        naive = textbook_weights(model.parameters.total, format)
        label = f"{row['model']} {row['format']}"
        yield Case("Checkpoints", "size", kind_of(model.architecture), label, found, row["parameter_bytes"], naive)


def llamacpp_cases(every: int) -> Found:
    """llama.cpp's own projection of what it will allocate on one GPU."""
    for row in rows("llamacpp_cases.jsonl", every):
        model, sequences = named(row["model"]), row["parallel"]
        options = {"ubatch": row["ubatch"], "kv_unified": row["unified"], "flash_attn": row["flash"]}
        options["logits"] = "all" if row["outputs"] > sequences else "last"
        plan = vp.plan(
            model, engine="llama.cpp", quant=row["quant"], context=row["n_ctx"] // sequences, sequences=sequences, kv_type=row["kv"],
            options=options,
        )  # fmt: skip
        memory = plan.memory
        host = sum(term.bytes for term in plan.host.terms if term.name == "weights")
        cache_bytes = memory.kv_cache + memory.state
        weights = textbook_weights(model.parameters.total, row["quant"])
        kv = textbook_kv(model.config, row["n_ctx"], {"f16": 2, "q8_0": 1}[row["kv"]])
        total = row["weights_mib"] + row["kv_mib"] + row["compute_mib"]
        figures = {
            "weights": (memory.weights, row["weights_mib"], weights),
            "KV and state": (cache_bytes, row["kv_mib"], kv),
            "compute": (memory.compute, row["compute_mib"], None),
            "total": (memory.weights + cache_bytes + memory.compute, total, weights + kv if kv is not None else None),
            "weights in host memory": (host, row["host_weights_mib"], None),
        }
        label = f"{row['model']} {row['quant']} {row['kv']}, {row['n_ctx']:,} tokens, {sequences} sequences, ubatch {row['ubatch']}"
        for component, (found, mib, naive) in figures.items():
            yield Case("llama.cpp", component, kind_of(model.architecture), label, found / MIB, mib, naive and naive / MIB)


def spread_cases(every: int) -> Found:
    """llama.cpp over host memory and several GPUs: what each of them holds."""
    for row in rows("llamacpp_spread.jsonl", every):
        model, count, seen = named(row["model"]), row["gpus"], "" if row["seen"] else ", unseen"
        kind, devices = kind_of(model.architecture), resolve(f"{count}x H100").devices
        where = f"{row.get('n_gpu_layers', 'all')} layers{', no experts' if row.get('experts') else ''} on {count} GPU"
        for length, ubatch, sequences, unified, kv, flash, buffers, host in row["rows"]:
            options = {"ubatch": ubatch, "kv_unified": unified, "flash_attn": flash, "build": "2026-10" if row["fused"] else "2026-08"}
            options |= {"n_gpu_layers": row["n_gpu_layers"]} if "n_gpu_layers" in row else {}
            offload = "experts" if row.get("experts") else "none"
            work = Work(
                "llama.cpp", for_engine(find_format("Q4_K_M"), "llama.cpp"), kv, kv, length // sequences, sequences, offload=offload,
                options=tuple(options.items()),
            )  # fmt: skip
            found = llamacpp.allocate(model, work, devices)
            label = f"{row['model']} {kv}, {length:,} tokens, {sequences} sequences, ubatch {ubatch}, {where}"
            for number, (terms, held) in enumerate(zip(found.devices, buffers, strict=True)):
                total = sum(term.bytes for term in terms if term.group != "runtime")
                compute = sum(term.bytes for term in terms if term.group == "compute")
                yield Case("llama.cpp, spread", f"compute{seen}", kind, f"{label}, {number}", compute / MIB, held[2] / MIB)
                yield Case("llama.cpp, spread", f"total{seen}", kind, f"{label}, {number}", total / MIB, sum(held) / MIB)
            compute = sum(term.bytes for term in found.host if term.name == "compute")
            yield Case("llama.cpp, spread", f"compute in host memory{seen}", kind, label, compute / MIB, host[2] / MIB)


def vllm_weight_cases(every: int) -> Found:
    """Parameter and buffer bytes of a rank, and refused splits, against vLLM's own classes."""
    for row in (*rows("vllm_weights.jsonl", every), *rows("vllm_more.jsonl", every)):
        model = local(row["config"]) if "config" in row else named(row["model"])
        kind = kind_of(model.architecture)
        format = find_format(row["format"] or model.stored_format)
        options = (("moe_backend", row["moe_backend"]),) if "moe_backend" in row else ()
        work = Work("vllm", format, "bf16", "bf16", 8192, options=options)
        name = f"{row['model']} {row['format'] or 'as stored'}"
        if row["model"] == _TOWER[0] and row["format"] in _TOWER[1]:
            count = len(row.get("rows", ())) + len(row.get("refused", ()))
            yield Unpredicted("vLLM grid", name, f"{count} splits: the vision tower in 4 bits, as no such checkpoint has it")
            continue
        for tp, pp, rank, parameters, buffers in row.get("rows", ()):
            found = rank_weights(model, work, tp, pp, rank if tp > 1 else 0, rank if pp > 1 else 0)
            naive = textbook_weights(model.parameters.total, format.name, tp * pp)
            label = f"{name}, tensor parallel {tp}, pipeline {pp}, rank {rank}"
            yield Case("vLLM grid", "parameters of a rank", kind, label, found.parameter_bytes, parameters, naive)
            if buffers is not None:
                yield Case("vLLM grid", "buffers of a rank", kind, label, found.buffer_bytes, buffers)
        for tp, pp, *_ in row.get("refused", ()):
            label = f"{name}, tensor parallel {tp}, pipeline {pp}"
            yield Case("vLLM grid", "refused splits", kind, label, float(refusal(model, work, tp, pp) is not None), 1.0)


def vllm_cache_cases(every: int) -> Found:
    """Block bytes, blocks, tokens and concurrency from the available bytes, against vLLM's own cache code."""
    for row in rows("vllm_kv.jsonl", every):
        model, kind = named(row["model"]), kind_of(named(row["model"]).architecture)
        fp8 = row["kv"] == "fp8" or checkpoint_cache(model) == "fp8"
        layout = cache_layout(model, CacheSetup(fp8, row["tp"]))
        if layout is None:
            raise ValueError(f"{row['model']} has no cache")
        token = textbook_kv(model.config, 1, 1 if fp8 else 2, row["tp"])
        for step, length, available, block_bytes, per_request, blocks, last in row["points"]:
            took = layout.blocks_per_request(length, 2 * step)
            held = available // layout.bytes_per_block
            longest = largest_length(partial(layout.blocks_per_request, in_flight=2 * step), length, held - 1)
            label = f"{row['model']} {row['kv']}, tensor parallel {row['tp']}, {length:,} tokens, {available / GIB:.0f} GiB"
            naive = token and available / token
            yield Case("vLLM grid", "bytes of a block", kind, label, layout.bytes_per_block, block_bytes)
            if blocks is None:
                found = 0 if took <= held - 1 else longest
                yield Case("vLLM grid", "longest length of a refusal", kind, label, found, last, naive and min(naive, length))
                continue
            yield Case("vLLM grid", "number of blocks", kind, label, held if took <= held - 1 else 0, blocks)
            yield Case("vLLM grid", "tokens", kind, label, int(held / took * length), last, naive)
            yield Case("vLLM grid", "concurrency", kind, label, held / took, blocks / per_request, naive and naive / length)


def vllm_log_cases(every: int) -> Found:
    """Published logs of vLLM: from config, GPU and flags alone."""
    for row in rows("vllm_logs.jsonl", every):
        given = {"gpu_memory_utilization": "utilization", "max_num_batched_tokens": "batch", "max_num_seqs": "sequences"}
        given |= {"version": "version", "speculative_tokens": "speculative"}
        model, options = logged(row), {name: row[key] for name, key in given.items() if key in row}
        planned = partial(
            vp.plan, model, engine="vllm", gpus=f"{row['gpus']}x {row['gpu']}", tensor_parallel=row["tp"], quant=row.get("quant"),
            kv_type=row.get("kv"), context=row.get("length", 8192),
        )  # fmt: skip
        yield from _log_cases("vLLM logs", row, row, planned(options=options), model)
        if not row.keys() >= {"tokens", "available"}:
            continue
        memory = int(row["available"] * GIB)
        tokens = planned(options=options | {"kv_cache_memory_bytes": memory}).engine["kv_tokens"]
        token = textbook_kv(model.config, 1, 1 if row.get("kv") == "fp8" else 2, row["tp"])
        kind = kind_of(model.architecture)
        yield Case("vLLM logs", "tokens, from the logged memory", kind, row["id"], tokens, row["tokens"], token and memory / token)
        if not row.keys() >= _FLAGS:
            yield Unpredicted("vLLM logs", row["id"], "tokens from flags alone: the log does not name every flag the pool hangs on")


def _log_cases(
    part: str, row: Mapping[str, Any], says: Mapping[str, Any], plan: vp.Plan, model: Model, given: int | None = None
) -> Iterator[Case]:
    """The figures of a vLLM log. The naive pool: utilisation × memory − weights, or the bytes `given`; a token: the textbook's."""
    figures, device, kind = plan.engine, plan.devices[0], kind_of(model.architecture)
    weights = sum(term.bytes for term in device.terms if term.group == "weights")
    tp = int(figures["tensor_parallel"])
    naive_weights = textbook_weights(model.parameters.total, row.get("quant") or model.stored_format, tp)
    pool = given or (device.total or 0) * figures["gpu_memory_utilization"] - naive_weights
    token = textbook_kv(model.config, 1, 1 if row.get("kv") == "fp8" else 2, tp)
    flagged = part != "vLLM logs" or row.keys() >= _FLAGS
    tokens = pool / token if token else None
    found = {
        "weights": (weights / GIB, naive_weights / GIB),
        "activation": (figures["activation"] / GIB, None),
        "non_torch": (figures["non_torch"] / GIB, None),
        "available": ((figures["available_kv"] or 0) / GIB, pool / GIB) if flagged else None,
        "tokens": (figures["kv_tokens"] or 0, tokens) if flagged else None,
        "concurrency": (figures["max_concurrency"] or 0, tokens and tokens / plan.request.context) if flagged else None,
    }
    for component, pair in found.items():
        if component in says and pair is not None:
            yield Case(part, component.replace("_", "-"), kind, row["id"], pair[0], says[component], pair[1])


def field_cases(every: int) -> Found:
    """Logs people posted of llama.cpp and Ollama, and of vLLM with fewer of its flags."""
    lines = (DATA / "field_logs.jsonl").read_text(encoding="utf-8").splitlines()[::every]
    for row in map(json.loads, lines):
        part = "vLLM logs, few flags" if row["engine"] == "vllm" else "llama.cpp and Ollama logs"
        if "unpredicted" in row:
            yield Unpredicted(part, f"{row['id']}: {row['model']} ({row['source']})", row["unpredicted"])
            continue
        asked = dict(row["plan"])
        config, name = asked.pop("config", None), asked.pop("model", None)
        model = local(config) if config else named(name)
        if row["engine"] == "vllm":
            says = {key.removesuffix("_gib"): value for key, value in row["says"].items()}
            known = {"id": row["id"], "quant": asked.get("quant")}
            memory = asked.get("options", {}).get("kv_cache_memory_bytes")
            yield from _log_cases(part, known, says, vp.plan(model, engine="vllm", **asked), model, memory)
        else:
            yield from _field_terms(part, row, vp.plan(model, **{"engine": "llama.cpp", "quant": "Q4_K_M", **asked}), model)


def _field_terms(part: str, row: Mapping[str, Any], plan: vp.Plan, model: Model) -> Iterator[Case]:
    on_host = {group: sum(t.bytes for t in plan.host.terms if t.name == group) for group in ("weights", "kv_cache", "compute")}
    memory, cpu = plan.memory, plan.host if plan.engine.get("n_gpu_layers") == 0 else None
    element = {"f16": 2.0, "q8_0": 1.0, "q4_0": 0.5}[row["plan"].get("kv_type", "f16")]
    found = {
        "weights": (memory.weights, None),
        "host_weights": (on_host["weights"], None),
        "kv": (on_host["kv_cache"] if cpu else memory.kv_cache, textbook_kv(model.config, plan.engine["n_ctx"], element)),
        "state": (memory.state, None),
        "compute": (on_host["compute"] if cpu else memory.compute, None),
        "total": (memory.total, None),
    }
    for name, mib in row["says"].items():
        size, naive = found[name.removesuffix("_mib")]
        component = {"kv": "KV", "host_weights": "weights in host memory"}.get(name.removesuffix("_mib"), name.removesuffix("_mib"))
        yield Case(part, component, kind_of(model.architecture), row["id"], size / MIB, mib, naive and naive / MIB)


def sglang_cases(every: int) -> Found:
    """Logs of SGLang: the pool from config, GPU and flags alone. The naive pool: share × memory − weights."""
    for row in map(json.loads, (DATA / "sglang_logs.jsonl").read_text(encoding="utf-8").splitlines()[::every]):
        if "unpredicted" in row:
            yield Unpredicted("SGLang logs", f"{row['id']}: {row['model']} ({row['source']})", row["unpredicted"])
            continue
        model = named(row["model"])
        plan = vp.plan(model, engine="sglang", **row["plan"])
        figures, device, tp = plan.engine, plan.devices[0], plan.request.tensor_parallel
        naive = textbook_weights(model.parameters.total, row["plan"].get("quant") or model.stored_format, tp)
        pool, token = (device.total or 0) * figures["mem_fraction_static"] - naive, textbook_kv(model.config, 1, 2, tp)
        found = {
            "weights_gib": (sum(term.bytes for term in device.terms if term.group == "weights") / GIB, naive / GIB),
            "pool_gib": (figures["available_kv"] / GIB, pool / GIB),
            "tokens": (figures["kv_tokens"], token and pool / token),
            "token_bytes": (figures["bytes_per_block"] / figures["block_size"], token),
            "states": (figures["max_states"], None),
            "running": (figures["max_num_seqs"], None),
        }
        for name, measured in row["says"].items():
            component = {"token_bytes": "bytes of a token", "running": "requests at once"}.get(name, name.removesuffix("_gib"))
            yield Case("SGLang logs", component, kind_of(model.architecture), row["id"], found[name][0], measured, found[name][1])


def peak_cases(every: int) -> Found:
    """transformers: the prefill's peak, and the cache after one more token, on small models."""
    for row in rows("transformers_peaks.jsonl", every):
        model = local(row["config"])
        kind, sums = kind_of(model.architecture), []
        for tokens, held in zip(row["tokens"], row["cache_bytes_after_one_more"], strict=True):
            asked: dict[str, Any] = {"engine": "transformers", "sequences": row["sequences"], "options": {"attention": row["attention"]}}
            terms = {term.name: term.bytes for term in vp.plan(model, context=tokens, **asked).devices[0].terms}
            sums.append(terms["kv_cache"] + terms["activations"])
            found = vp.plan(model, context=tokens + 1, **asked).memory.kv_cache
            naive = textbook_kv(row["config"], (tokens + 1) * row["sequences"])
            yield Case("transformers", "cache", kind, f"{row['name']}, {tokens} tokens", found, held, naive)
        for tokens, planned, traced in zip(row["tokens"], sums, row["prefill_bytes"], strict=True):
            yield Case("transformers", "prefill's peak beside the weights", kind, f"{row['name']}, {tokens} tokens", planned, traced)


def all_cases(every: int = 1) -> tuple[list[Case], list[Unpredicted]]:
    """All cases, or those of one row in `every` of each file; and what is not predicted, with the reason."""
    files = (counted_cases, file_cases, llamacpp_cases, spread_cases, vllm_weight_cases, vllm_cache_cases)
    logs = (vllm_log_cases, field_cases, sglang_cases, peak_cases)
    found = [item for part in (*files, *logs) for item in part(every)]
    return [item for item in found if isinstance(item, Case)], [item for item in found if isinstance(item, Unpredicted)]
