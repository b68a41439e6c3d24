"""llama.cpp: weights by layer, caches by cell, one compute buffer a GPU, and the driver's own share.

Verified against llama.cpp 0c1e57098 (2026-10); differences of older builds are rows of `llamacpp_builds.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from ...hardware.device import Device, is_processor
from ...models.model import Model
from ...results import Term
from ...units import format_gib
from ...values import Same, dataclass
from ..base import Allocation, Work
from ..measured import measured_runtime
from .cells import Context, KvGroup, cache_layers, kv_groups, state_elements
from .compute import compute_bytes, spread_bytes
from .draft import DRAFTED, KV, draft_work, prediction_bytes, predictor, rolls_back
from .layers import global_shapes
from .placement import HOST, FileWeights, Placement, file_weights, placed
from .run import Run, compute_why, host_why, is_spread, kv_why, state_why, weights_why
from .settings import OPTIONS, Build, Settings, runtime_of, settings_of
from .tape import padded
from .towers import reads_towers, tower_inputs, tower_note, tower_terms

__all__ = ["DEFAULT_KV", "MAX_SEQUENCES", "OPTIONS", "allocate", "completed", "least_offload", "room"]

DEFAULT_KV: Final = "f16"
#: A context holds no more sequences than this (src/llama-cparams.h, LLAMA_MAX_SEQ).
MAX_SEQUENCES: Final = 256


@dataclass(frozen=True, slots=True)
class Share:
    """One device's part of a run, as far as neither context nor sequences change it: `fixed` are its weights' and towers' bytes,
    `state` the elements of one sequence's recurrent state."""

    device: int
    layers: tuple[int, ...]
    last: bool
    weights: Term
    groups: tuple[KvGroup, ...]
    state: int
    towers: tuple[Term, ...]
    fixed: int


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """What `llama-server -np SEQUENCES -c SEQUENCES × CONTEXT` takes. Pure; see `Engine.allocate`."""
    run = run_of(model, work, devices, settings_of(work, devices))
    return allocation(run, devices)


def run_of(model: Model, work: Work, devices: tuple[Device, ...], settings: Settings) -> Run:
    weights = file_weights(model, work.format)
    placement = _placement(work.offload, Same(settings), Same(devices), len(weights.layers))
    context = context_of(work, settings)
    if settings.mtp and settings.build.rollback and rolls_back(model):
        context = context._replace(rollback=DRAFTED)
    draft = _draft_run(work, devices, settings, context) if settings.draft else None
    return Run(model, work, settings, context, placement, weights, draft)


def _draft_run(work: Work, devices: tuple[Device, ...], settings: Settings, context: Context) -> Run | None:
    """The draft model wholly on the GPUs, with as many cells as the model."""
    draft = settings.draft
    if draft is None:
        return None
    alone = replace(settings, gpu_layers=None, draft=None, mmproj=False)
    run = run_of(draft, draft_work(work, draft), devices, alone)
    return replace(run, context=_drafting(context, settings.build))


def _drafting(context: Context, build: Build) -> Context:
    """The context of what drafts: fp16 cells, one row of logits for each sequence, or of older builds every row."""
    outputs = context.outputs if build.outputs == "all" else min(context.outputs, context.parallel)
    return context._replace(kv_k=KV, kv_v=KV, outputs=outputs, rollback=0)


def allocation(run: Run, devices: tuple[Device, ...]) -> Allocation:
    """The terms of each device and of the host; a processor is a device whose memory is the host's."""
    if is_processor(devices):
        return Allocation((_processor_terms(run),), (), _figures(run), _notes(run), _refusal(run))
    count = max(len(devices), 1)
    terms = tuple((*_device_terms(run, i), *_drafts(run, i), _runtime(Same(devices[i] if devices else None))) for i in range(count))
    return Allocation(terms, _host_terms(run), _figures(run), _notes(run), _refusal(run))


def completed(model: Model, work: Work, devices: tuple[Device, ...], found: Allocation) -> Allocation:
    """Where not all fits: what llama.cpp would leave in host memory of itself (`--fit`), as a figure and a note.

    Asked once a plan, not for each question about it: it tries several placements.
    """
    if not may_leave(work, devices, found):
        return found
    return completed_run(run_of(model, work, devices, settings_of(work, devices)), devices, found)


def may_leave(work: Work, devices: tuple[Device, ...], found: Allocation) -> bool:
    """Whether llama.cpp is let decide what it leaves in host memory, and must."""
    return bool(devices) and work.offload == "auto" and not _holds(found, devices)


def completed_run(run: Run, devices: tuple[Device, ...], found: Allocation) -> Allocation:
    """`completed` of a run already settled that does not fit."""
    least = least_offload_of(run, devices)
    if not least:
        return found
    moved = _moved(run, least, devices)
    experts = moved.placement.expert_layers
    what = f"experts of {least} layers" if experts else f"{least} layers"
    option = f"--n-cpu-moe {least}" if experts else f"-ngl {len(run.weights.layers) + 1 - least}"
    host = format_gib(sum(term.bytes for term in _host_terms(moved)))
    note = f"with {what} in host memory the rest fits ({option}): {host} of RAM, and slower"
    return replace(found, figures={**found.figures, "auto_offload": what}, notes=(*found.notes, note))


def context_of(work: Work, settings: Settings) -> Context:
    """The context of `sequences` times `context` tokens: a pool of that many cells, or a cache for each sequence."""
    build = settings.build
    parallel = min(work.sequences, MAX_SEQUENCES)
    unified = settings.unified or parallel == 1
    tokens = work.context * parallel if unified else work.context
    length = padded(tokens, build.cells)
    ubatch = min(settings.ubatch, length * (1 if unified else parallel))
    every = settings.all_logits or build.outputs == "all"
    rows = min(parallel * (1 + DRAFTED), settings.batch) if settings.drafts else parallel
    cuda = settings.backend in ("cuda", "rocm")
    return Context(
        length, parallel, unified, ubatch, settings.flash, work.kv_k, work.kv_v, ubatch if every else rows, settings.swa_full,
        build.mask_cast, cuda and build.fp16_copies, build.rotates, mixed=build.mixed, picks_last=build.picks_last,
        fuses=settings.fuses,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _placement(offload: str, asked: Same, on: Same, layers: int) -> Placement:
    settings: Settings = asked.value
    devices: tuple[Device, ...] = on.value
    shares = settings.tensor_split or tuple(float(max(device.available, 1)) for device in devices) or (1.0,)
    count = max(len(devices), 1)
    shares = (*shares[:count], *(0.0 for _ in range(count - len(shares))))
    gpu_layers = layers + 1 if settings.gpu_layers is None else settings.gpu_layers
    if settings.backend == "cpu":
        gpu_layers = 0
    elif settings.gpu_layers is None and offload.endswith("layers"):
        gpu_layers = max(layers + 1 - int(offload.split()[0]), 0)
    return placed(layers, gpu_layers, shares, layers if offload == "experts" else 0)


def room(model: Model, work: Work, devices: tuple[Device, ...]) -> int:
    """Bytes left free where least is, of the sums `allocate` makes terms of; negative where it refuses. See `Engine.room`."""
    return room_of(run_of(model, work, devices, settings_of(work, devices)), devices)


def room_of(run: Run, devices: tuple[Device, ...]) -> int:
    """`room` of a run already settled."""
    least = _least_free(run, devices)
    return least if _refusal(run) is None else min(least, -1)


def _least_free(run: Run, devices: tuple[Device, ...]) -> int:
    if is_processor(devices):
        return devices[0].available - sum(term.bytes for term in _processor_terms(run))
    shares = [_share_of(run, i) for i in range(len(devices))]
    held = [share.fixed + sum(_sizes(run, share)) + _runtime(Same(d)).bytes for d, share in zip(devices, shares, strict=True)]
    if run.settings.drafts:
        held = [size + sum(term.bytes for term in _drafts(run, i)) for i, size in enumerate(held)]
    return min([min(d.available, d.usable) - size for d, size in zip(devices, held, strict=True)])


def _share_of(run: Run, device: int) -> Share:
    return _share(run.model, Same(run.work.format), run.work.kv_k, run.work.kv_v, run.placement, Same(run.settings), device)


@lru_cache(maxsize=4096)
def _share(model: Model, format: Same, kv_k: str, kv_v: str, placement: Placement, settings: Same, device: int) -> Share:
    s: Settings = settings.value
    layers, last, weights = placement.layers_on(device), placement.output == device, file_weights(model, format.value)
    size = _weights(weights, placement, layers, last)
    term = Term("weights", size, weights.basis, weights_why(format.value.name, weights, placement, layers, last), "weights")
    towers = tower_terms(model, s.mmproj_type) if device == 0 and s.mmproj else ()
    groups = kv_groups(model, layers, (kv_k, kv_v), s.flash, s.backend in ("cuda", "rocm"))
    return Share(device, layers, last, term, groups, state_elements(model, layers), towers, size + sum(tower.bytes for tower in towers))


def _sizes(run: Run, share: Share) -> tuple[int, int, int]:
    """Bytes of the KV cache, the recurrent state and the compute buffer of one device."""
    kv, state = sum([group.bytes(run.context) for group in share.groups]), padded(4 * share.state * run.context.states)
    return kv, state, _compute(run, share) if share.layers or share.last or is_spread(run) else 0


def _device_terms(run: Run, device: int) -> tuple[Term, ...]:
    share, basis = _share_of(run, device), run.model.architecture.basis
    kv, state, compute = _sizes(run, share)
    terms = [share.weights]
    if kv:
        terms.append(Term("kv_cache", kv, basis, kv_why(run), "kv_cache"))
    if state:
        terms.append(Term("state", state, basis, state_why(run), "state"))
    if compute:
        terms.append(Term("compute", compute, basis, compute_why(run, device), "compute"))
    return (*terms, *share.towers)


def _drafts(run: Run, device: int) -> tuple[Term, ...]:
    """What drafts tokens: all of a smaller model, or the prediction layers, on the GPU that has the output matrix."""
    if run.draft is not None:
        name = run.draft.model.name
        return tuple(
            replace(term, name=f"draft_{term.name}", why=f"draft model {name}: {term.why}") for term in _device_terms(run.draft, device)
        )
    if not run.settings.mtp or device != max(run.placement.output, 0):
        return ()
    model, build, context = predictor(run.model), run.settings.build, _drafting(run.context, run.settings.build)
    if build.draft_kv == "model":
        context = context._replace(kv_k=run.context.kv_k, kv_v=run.context.kv_v)
    a, kinds = model.architecture, (context.kv_k, context.kv_v)
    layers, on_cuda = tuple(range(a.layers)), run.settings.backend in ("cuda", "rocm")
    kv = sum(group.bytes(context) for group in kv_groups(model, layers, kinds, context.flash, on_cuda))
    size = compute_bytes(model, context)
    what, weights = f"{a.layers} prediction layer{'s' if a.layers > 1 else ''}", prediction_bytes(run.model, run.work)
    return (
        Term("mtp_weights", weights, run.weights.basis, f"{what} of the {run.work.format.name} file", "weights"),
        Term("mtp_kv_cache", kv, a.basis, f"{context.cells:,} cells of {what}, in {'/'.join(dict.fromkeys(kinds))}", "kv_cache"),
        Term("mtp_compute", size, a.basis, f"one batch of {context.tokens} tokens through {what}, and its logits", "compute"),
    )


def _weights(w: FileWeights, placement: Placement, layers: tuple[int, ...], last: bool) -> int:
    kept = placement.expert_layers
    return sum(w.layers[i] + (w.experts[i] if i >= kept else 0) for i in layers) + (w.head if last else 0)


def _kv(run: Run, layers: tuple[int, ...]) -> Any:
    c = run.context
    return kv_groups(run.model, layers, (c.kv_k, c.kv_v), c.flash, run.settings.backend in ("cuda", "rocm"))


def _compute(run: Run, share: Share) -> int:
    """The buffer of a device's part of the graph."""
    if is_spread(run):
        return spread_bytes(run, share.device)
    return compute_bytes(run.model, run.context)


@lru_cache(maxsize=1024)
def _runtime(key: Same) -> Term:
    device: Device | None = key.value
    if measured := measured_runtime(device, "llama.cpp", "ollama"):
        return Term("runtime", measured[0], "measured", measured[1], "runtime")
    vendor = device.vendor if device else ""
    capability = (device.compute_capability or (device.spec.compute_capability if device.spec else None) or "") if device else ""
    size, basis, source = runtime_of(vendor, capability, device.total if device else 0)
    return Term("runtime", size, basis, f"driver context, BLAS and kernels; {source}", "runtime")


def _host_terms(run: Run) -> tuple[Term, ...]:
    away, c, a = run.placement.layers_on(HOST), run.context, run.model.architecture
    w, kept = run.weights, run.placement.expert_layers
    weights = w.inputs + _weights(w, run.placement, away, run.placement.output == HOST and not w.tied)
    weights += sum(w.experts[i] for i in range(kept) if i not in away or i < kept)
    terms = [Term("weights", weights, w.basis, host_why(run), "weights")]
    kv = sum(group.bytes(c) for group in _kv(run, away)) + 4 * state_elements(run.model, away) * c.states
    if kv:
        terms.append(Term("kv_cache", kv, a.basis, f"cache of {len(away)} layers left in host memory", "kv_cache"))
    terms.append(Term("compute", _host_compute(run), a.basis, f"one batch of {c.tokens} tokens, as far as the CPU holds it", "compute"))
    terms.append(Term("output", 4 * a.vocab_size * c.parallel, a.basis, "logits handed back, one row a sequence", "compute"))
    if run.settings.mmproj and run.settings.backend != "cpu" and (given := tower_inputs(run.model)):
        terms.append(
            Term("mmproj_compute", given, a.basis, "an image or sound and where its parts lie, before they are copied in", "compute")
        )
    return tuple(terms)


def _processor_terms(run: Run) -> tuple[Term, ...]:
    """All of it in the memory of a machine that has no GPU, or is told to use none: towers and what drafts too."""
    towers = tower_terms(run.model, run.settings.mmproj_type) if run.settings.mmproj else ()
    drafts = _host_terms(run.draft) if run.draft else ()
    named = tuple(replace(term, name=f"draft_{term.name}", why=f"draft model: {term.why}") for term in drafts)
    return (*_host_terms(run), *towers, *(named or _drafts(run, 0)))


def _host_compute(run: Run) -> int:
    """The CPU's buffer: embeddings and masks that are copied to the GPU, or the whole graph where nothing is on one."""
    c, a = run.context, run.model.architecture
    if run.settings.backend == "cpu":
        return compute_bytes(run.model, c, host=True)
    if is_spread(run):
        return spread_bytes(run, HOST)
    windows = {layer.window for layer in cache_layers(a) if layer.kv_heads}
    element = 2 if c.flash and not c.mask_cast else 4
    seen = sum(c.ring(window) for window in windows) if a.kind != "encoder" else c.tokens
    rows = run.settings.build.embeds + ("position_embd" in global_shapes(a))
    return c.tokens * (4 * a.hidden_size * rows + element * seen)


def _figures(run: Run) -> Mapping[str, Any]:
    c, p = run.context, run.placement
    return {
        "n_ctx": c.cells,
        "n_ubatch": c.ubatch,
        "n_batch": min(run.settings.batch, c.cells),
        "n_parallel": c.parallel,
        "kv_unified": (c.unified and c.parallel > 1) or run.settings.unified,
        "flash_attn": c.flash,
        "n_gpu_layers": len(p.homes) - len(p.layers_on(HOST)) + (p.output != HOST),
        "n_layers": len(p.homes) + 1,
        "n_cpu_moe": p.expert_layers,
        "layers_per_device": [len(p.layers_on(i)) for i in range(p.devices)],
        "output_device": p.output if p.output != HOST else None,
        "file_bytes": run.weights.file,
        "draft": run.draft.model.name if run.draft else "prediction layers" if run.settings.mtp else None,
        "backend": run.settings.backend,
        "build": run.settings.build.date,
    }


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    c = run.context
    if c.parallel > 1:
        how = "one pool all sequences share" if c.unified else f"{c.length:,} cells for each"
        notes.append(f"{c.parallel} sequences: -c {c.cells} -np {c.parallel}, {how}")
    if not reads_towers(run.model):
        if run.model.parameters.vision + run.model.parameters.audio:
            notes.append("text only: llama.cpp reads neither images nor sound of this model")
    elif run.settings.mmproj:
        notes.extend(filter(None, (tower_note(run.model),)))
    elif size := sum(term.bytes for term in tower_terms(run.model, run.settings.mmproj_type)):
        notes.append(f"text only: for images or audio add the mmproj file, about {format_gib(size)} on the first GPU (--set mmproj=true)")
    return tuple(notes)


def _refusal(run: Run) -> str | None:
    if run.work.sequences > MAX_SEQUENCES:
        return f"llama.cpp runs at most {MAX_SEQUENCES} sequences at once, not {run.work.sequences:,}"
    work = run.work
    if work.tensor_parallel > 1 or work.expert_parallel or work.pipeline_parallel not in (1, run.placement.devices):
        return "llama.cpp shares whole layers out over all its GPUs: leave --tp, --pp and --ep out"
    return _odd_heads(run.model, run.context) if run.context.flash else None


def _odd_heads(model: Model, context: Context) -> str | None:
    """llama.cpp quantises a head's K and V by blocks of 32 and takes no part of one (`llama_init_from_model`)."""
    quantised = [(name, kind) for name, kind in (("K", context.kv_k), ("V", context.kv_v)) if kind not in ("f32", "f16", "bf16")]
    for layer in cache_layers(model.architecture) if quantised else ():
        for name, kind in quantised:
            width = layer.k_dim if name == "K" else layer.v_dim
            if layer.kv_heads and width % 32:
                return f"llama.cpp keeps no {name} in {kind} for heads {width} wide, which blocks of 32 do not divide: take f16"
    return None


def least_offload(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    """The fewest layers that must leave the GPUs for the rest to fit: of a mixture of experts, layers whose experts
    go (`--n-cpu-moe`), else whole layers. 0 when all fits, None when even all of them are not enough, or their number was given."""
    return least_offload_of(run_of(model, work, devices, settings_of(work, devices)), devices)


def least_offload_of(run: Run, devices: tuple[Device, ...]) -> int | None:
    """`least_offload` of a run already settled: by halves, as each layer moved leaves more room."""
    if run.settings.gpu_layers is not None or is_processor(devices):
        return None
    if _fits(_moved(run, 0, devices), devices):
        return 0
    low, high = 1, len(run.weights.layers) + (0 if any(run.weights.experts) else 1)
    if not _fits(_moved(run, high, devices), devices):
        return None
    most, quick = high, replace(run, quick=True)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(_moved(quick, middle, devices), devices) else (middle + 1, high)
    while low < most and not _fits(_moved(run, low, devices), devices):
        low += 1
    while low > 1 and _fits(_moved(run, low - 1, devices), devices):
        low -= 1
    return low


def _moved(run: Run, count: int, devices: tuple[Device, ...]) -> Run:
    if any(run.weights.experts):
        return replace(run, placement=replace(run.placement, expert_layers=count))
    return replace(run, placement=_placement(f"{count} layers", Same(run.settings), Same(devices), len(run.weights.layers)))


def _fits(run: Run, devices: tuple[Device, ...]) -> bool:
    return _least_free(run, devices) >= 0


def _holds(found: Allocation, devices: tuple[Device, ...]) -> bool:
    return all(sum(t.bytes for t in terms) <= min(d.available, d.usable) for d, terms in zip(devices, found.devices, strict=True))
