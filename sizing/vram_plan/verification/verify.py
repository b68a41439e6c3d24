"""A plan held against an engine: a log, a running server, the driver, or llama.cpp's own projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..errors import UsageError, VramPlanError
from ..hardware import Detection, Device, local_devices, resolve
from ..models.loading import load
from ..models.model import Model
from ..planner import plan as make_plan
from ..results import Plan, SpeedEstimate
from ..units import GIB
from .reading import Progress
from .reconcile import aligned, compared
from .saving import plain_devices, saved
from .settings import command_line, gpus_text, merged, planned
from .sources import observe
from .values import Figure, Line, Observation, Rate, Reconciliation, Setting

__all__ = ["reconciled", "verify"]

#: Shorter prompts and answers tell no rate.
LEAST_PROMPT: Final = 256
LEAST_OUTPUT: Final = 16


def verify(
    model: Plan | Model | str,
    against: str,
    *,
    measure: bool = False,
    save: bool = False,
    timeout_s: float = 30.0,
    api_key: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    **request: Any,
) -> Reconciliation:
    """Hold a plan against what an engine does with the model, line by line.

    `against` is a log file or `-` (llama.cpp, llama-server, Ollama, vLLM, SGLang: recognised by what stands in it), a running
    server's address (`http://127.0.0.1:8080`) or its name on this machine (`ollama`, `llama-server`, `vllm`), `nvml` or `nvml:PID`
    for what the driver says a process holds, or `llama.cpp` for the projection of an installed `llama-fit-params`.

    `model` is what `plan` takes, `request` its other arguments: settings found are taken over where `request` does not say
    otherwise. A finished Plan is compared as it is. `measure` runs one short generation on the server; otherwise nothing is asked
    but what it is. `save` keeps what was measured in the profile of this machine's device. `timeout_s` is for everything asked of
    a server. No key is sent but `api_key`. `progress(done, total)` is told bytes of a log, or seconds of waiting.

    Raises UsageError, ModelError, FormatError (a log or reply that is not understood), HardwareError, EngineError (no answer).
    """
    if isinstance(model, Plan):
        if request or save:
            raise UsageError("a finished plan is compared as it is", "give the model to plan with other settings, or to save")
        m = model.model
        seen = observe(
            against, (m.layers, m.hidden_size), (m.name,), model=None, request={"engine": model.request.engine}, timeout_s=timeout_s,
            api_key=api_key, measure=measure, progress=progress,
        )  # fmt: skip
        asked, settings = planned(model, seen)
        cards = gpus_text(tuple(device.name for device in model.devices if device.usable))
        return _result(model, seen, settings, command_line(m.name, asked, settings, cards or None), ())
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    a, names = loaded.architecture, (loaded.reference, loaded.name, loaded.ollama_tag or "")
    seen = observe(
        against, (a.layers, a.hidden_size), names, model=loaded, request=request, timeout_s=timeout_s, api_key=api_key, measure=measure,
        progress=progress,
    )  # fmt: skip
    machine, gpus = _machine(request.get("gpus"), seen)
    found = reconciled(loaded, seen, request, plain_devices(machine) if save else machine, gpus)
    return replace(found, saved=saved(found, seen, machine)) if save else found


def reconciled(model: Model, seen: Observation, request: Mapping[str, Any], machine: Detection, gpus: str | None = None) -> Reconciliation:
    """What was seen held against the plan of a model on a machine, with the settings seen; `gpus` is how `--gpu` names the machine."""
    taken, settings = merged(model, request, seen)
    taken = {**{name: value for name, value in taken.items() if name != "gpus"}, "gpus": machine}
    plan = make_plan(model, **taken)
    lines = (*_given_memory(model, taken, seen), *_rate_lines(model, taken, seen))
    return _result(plan, seen, settings, command_line(model.reference, taken, settings, gpus), lines)


def _machine(asked: Any, seen: Observation) -> tuple[Detection, str | None]:
    """The GPUs to plan for, and how `--gpu` names them: those asked for, those the engine names, or this machine's."""
    if asked is not None:
        if isinstance(asked, str):
            machine = resolve(asked)
            return (_unused(machine), None) if machine.local else (machine, asked)
        machine = asked if isinstance(asked, Detection) else Detection(tuple(asked))
        return machine, None if machine.local else gpus_text(tuple(device.name for device in machine.devices))
    if any(item.name == "backend" and item.value == "cpu" for item in seen.settings):
        return Detection(), None
    if seen.gpus:
        text = gpus_text(seen.gpus)
        try:
            return resolve(text), text
        except VramPlanError as error:
            return Detection(notes=(f"the GPU the engine names is not in the catalogue: {error.message}",)), None
    return _unused(local_devices()), None


def _unused(machine: Detection) -> Detection:
    """This machine as before the engine was started: it is the one that holds the memory."""
    return replace(machine, devices=tuple(replace(device, free=None, used_by_others=0) for device in machine.devices))


# --- the result -----------------------------------------------------------------------------------------------------------


def _result(plan: Plan, seen: Observation, settings: tuple[Setting, ...], command: str, more: tuple[Line, ...]) -> Reconciliation:
    lines = (*aligned(plan, seen), *more)
    notes = (*_mismatch(plan, seen), *_contradictions(settings), *seen.notes)
    counted = [line for line in lines if line.counts and line.error is not None]
    worst = max(counted, key=lambda line: abs(line.error or 0), default=None)
    return Reconciliation(
        source=seen.source, engine=seen.engine, engine_version=seen.version, model=plan.model.name, lines=lines, settings=settings,
        command=command, launch=plan.launch, notes=tuple(dict.fromkeys(notes)), plan=plan,
        worst=worst,
    )  # fmt: skip


def _mismatch(plan: Plan, seen: Observation) -> list[str]:
    """Said where the engine runs another model than the plan's."""
    m, found = plan.model, []
    for name, ours in (("layers", m.layers), ("hidden_size", m.hidden_size), ("vocab_size", m.vocab_size)):
        theirs = seen.facts.get(name)
        apart = 1 if name == "layers" else 0  # a file may hold a draft layer more
        padded = name == "vocab_size" and isinstance(theirs, int) and 0 <= theirs - ours <= 512
        if isinstance(theirs, int) and abs(theirs - ours) > apart and not padded:
            found.append(f"{name.replace('_', ' ')} {theirs:,} (the plan's model: {ours:,})")
    named = seen.facts.get("name")
    quant = next((item.value for item in seen.settings if item.name == "quant"), plan.request.quant)
    file = [f"the engine's file is {quant}, the plan's format {plan.request.quant}"] if quant != plan.request.quant else []
    return [*file, f"this looks like another model{f' ({named})' if named else ''}: {', '.join(found)}"] if found else file


def _contradictions(settings: tuple[Setting, ...]) -> list[str]:
    return [f"{s.name}: the plan has {s.asked}, the engine runs with {s.engine}" for s in settings if not s.taken]


def _given_memory(model: Model, request: dict[str, Any], seen: Observation) -> list[Line]:
    """The tokens that the memory the engine says it has for its cache should hold, and the longest context: right whatever else was off."""
    told = {"vllm": "available_kv", "sglang": "kv_cache"}.get(seen.engine)
    memory = min((f for f in seen.figures if f.name == told), key=lambda f: f.value, default=None)
    if memory is None or memory.value <= 0 or (seen.engine == "sglang" and model.state_bytes):
        return []
    machine: Detection = request["gpus"]
    devices = machine.devices or tuple(Device("GPU", i, 80 * GIB, 80 * GIB, None) for i in range(_ranks(request)))
    fixed = {**request, "gpus": Detection(devices)}
    low, plan, high = (
        make_plan(model, **{**fixed, "options": {**request["options"], "kv_cache_memory_bytes": max(int(size), 1)}})
        for size in (memory.value - memory.step, memory.value, memory.value + memory.step)
    )
    found = []
    why = "the layout of the cache: block size, groups, or a version's rule"
    if (tokens := seen.figure("kv_tokens")) and plan.engine.get("kv_tokens"):
        step = (high.engine["kv_tokens"] - low.engine["kv_tokens"]) / 2 + 1
        found.append(compared("kv_tokens_of_that_memory", None, "tokens", float(plan.engine["kv_tokens"]), tokens, True, why, step=step))
    if (longest := seen.figure("max_context")) and plan.fit.max_context:
        step = ((high.fit.max_context or 0) - (low.fit.max_context or 0)) / 2 + 1
        found.append(compared("max_context_of_that_memory", None, "tokens", float(plan.fit.max_context), longest, True, why, step=step))
    return found


def _ranks(request: dict[str, Any]) -> int:
    return min(max(int(request.get("tensor_parallel") or 1) * int(request.get("pipeline_parallel") or 1), 1), 1024)


def _rate_lines(model: Model, request: dict[str, Any], seen: Observation) -> list[Line]:
    """Speeds of one request, beside the estimate for a request of that length."""
    found: list[Line] = []
    for rate in seen.rates[:4]:
        plan = _plan_of(model, request, rate)
        if plan is not None and plan.speed is not None:
            found += _two_rates(rate, plan.speed)
    return found


def _two_rates(rate: Rate, speed: SpeedEstimate) -> list[Line]:
    """Prompts and answers too short to tell a rate are left out: what is measured then is how long a request takes to begin."""
    pairs = (
        ("prefill", rate.prefill_tokens_per_s if rate.prompt >= LEAST_PROMPT else None, speed.prefill),
        ("decode", rate.decode_tokens_per_s if rate.output >= LEAST_OUTPUT else None, speed.decode),
    )
    found = []
    for name, actual, expected in pairs:
        if actual:
            span = f"{expected.low:,.0f} to {expected.high:,.0f}"
            why = f"expected {span} ({expected.bound}-bound) for {rate.prompt:,} + {rate.output:,} tokens"
            figure = Figure(name, actual, "tokens/s", line=rate.line)
            found.append(compared(name, None, "tokens/s", expected.tokens_per_s, figure, False, why))
    return found


def _plan_of(model: Model, request: dict[str, Any], rate: Rate) -> Plan | None:
    """The plan of one request in the middle of its answer."""
    changed = {**request, "context": max(rate.prompt + rate.output // 2, 1), "prompt": max(rate.prompt, 1), "sequences": 1}
    options = {key: value for key, value in request["options"].items() if key not in ("max_model_len", "kv_unified")}
    try:
        return make_plan(model, **{**changed, "options": options})
    except UsageError:
        return None
