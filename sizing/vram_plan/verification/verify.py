"""A plan held against an engine: a log, a running server, the driver, or llama.cpp's own projection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ..errors import UsageError, VramPlanError
from ..hardware import Detection, Device, local_devices, resolve
from ..models.loading import load
from ..models.model import Model
from ..planner import plan as make_plan
from ..results import Plan, SpeedEstimate
from ..units import GIB
from .reconcile import aligned, compared
from .settings import command_line, gpus_text, merged
from .values import Figure, Line, Observation, Rate, Reconciliation

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
    **request: Any,
) -> Reconciliation:
    """Hold a plan against what an engine does with the model, line by line.

    `against` is a log file or `-` (llama.cpp, llama-server, Ollama, vLLM, SGLang: recognised by what stands in it), a running
    server's address (`http://127.0.0.1:8080`) or its name on this machine (`ollama`, `llama-server`, `vllm`), `nvml` or `nvml:PID`
    for what the driver says a process holds, or `llama.cpp` for the projection of an installed `llama-fit-params`.

    `model` is what `plan` takes, `request` its other arguments: settings found are taken over where `request` does not say
    otherwise. A finished Plan is compared as it is. `measure` runs one short generation on the server; otherwise nothing is asked
    but what it is. `save` keeps what was measured in the profile of this machine's device. `timeout_s` is for everything asked of
    a server. No key is sent but `api_key`.

    Raises UsageError, ModelError, FormatError (a log or reply that is not understood), HardwareError, EngineError (no answer).
    """
    if isinstance(model, Plan):
        if request:
            raise UsageError("a finished plan is compared as it is", f"give the model's name to plan with {', '.join(sorted(request))}")
        seen = _observe(against, model, None, timeout_s, api_key, measure)
        return _result(model, seen, None, {}, (), None)
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    seen = _observe(against, None, loaded, timeout_s, api_key, measure, request)
    found = reconciled(loaded, seen, request)
    if not save:
        return found
    from .saving import saved

    return replace(found, saved=saved(found, seen))


def reconciled(model: Model, seen: Observation, request: dict[str, Any]) -> Reconciliation:
    """What was seen held against the plan of a model with these settings."""
    merged_request, settings = merged(model, request, seen)
    machine, gpus = _machine(request.get("gpus"), seen)
    merged_request.pop("gpus", None)
    plan = make_plan(model, gpus=machine, **merged_request)
    command = command_line(model, merged_request, settings, gpus)
    return _result(plan, seen, model, {**merged_request, "gpus": machine}, settings, command)


def _observe(
    against: str,
    plan: Plan | None,
    model: Model | None,
    timeout_s: float,
    api_key: str | None,
    measure: bool,
    request: dict[str, Any] | None = None,
) -> Observation:
    from .sources import observe

    shape = (plan.model.layers, plan.model.hidden_size) if plan else (0, 0)
    if model is not None:
        shape = (model.architecture.layers, model.architecture.hidden_size)
    return observe(against, shape, model=model, request=request or {}, timeout_s=timeout_s, api_key=api_key, measure=measure)


def _machine(asked: Any, seen: Observation) -> tuple[Detection, str | None]:
    """The GPUs to plan for, and how `--gpu` names them: those asked for, those the engine names, or this machine's."""
    if asked is not None:
        if isinstance(asked, Detection):
            return asked, None if asked.local else gpus_text(tuple(device.name for device in asked.devices))
        return (resolve(asked), asked) if isinstance(asked, str) else (Detection(tuple(asked)), None)
    if any(item.name == "backend" and item.value == "cpu" for item in seen.settings):
        return Detection(), None
    if seen.gpus:
        text = gpus_text(seen.gpus)
        try:
            return resolve(text), text
        except VramPlanError as error:
            return Detection(notes=(f"the GPU the engine names is not in the catalogue: {error.message}",)), None
    return local_devices(), None


# --- the result -----------------------------------------------------------------------------------------------------------


def _result(
    plan: Plan, seen: Observation, model: Model | None, request: dict[str, Any], settings: tuple[Any, ...], command: str | None
) -> Reconciliation:
    lines = aligned(plan, seen)
    if model is not None:
        lines = (*lines, *_given_memory(model, request, seen), *_rate_lines(model, request, seen))
    notes = (*_mismatch(plan, seen), *_contradictions(settings), *seen.notes)
    counted = [line for line in lines if line.counts and line.error is not None]
    worst = max(counted, key=lambda line: abs(line.error or 0), default=None)
    return Reconciliation(
        source=seen.source, engine=seen.engine, engine_version=seen.version, model=plan.model.name, lines=lines, settings=settings,
        command=command or "", launch=plan.launch, notes=tuple(dict.fromkeys(notes)), plan=plan,
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
    return [f"this looks like another model{f' ({named})' if named else ''}: {', '.join(found)}"] if found else []


def _contradictions(settings: tuple[Any, ...]) -> list[str]:
    return [f"{s.name}: {s.asked} was asked for, the engine runs with {s.engine}" for s in settings if not s.taken]


def _given_memory(model: Model, request: dict[str, Any], seen: Observation) -> list[Line]:
    """The tokens that the memory the engine says it has for its cache should hold: right whatever else was off."""
    memory = min((f for f in seen.figures if f.name == "available_kv"), key=lambda f: f.value, default=None)
    tokens = seen.figure("kv_tokens")
    if seen.engine != "vllm" or memory is None or tokens is None or memory.value <= 0:
        return []
    machine: Detection = request["gpus"]
    devices = machine.devices or tuple(Device("GPU", i, 80 * GIB, 80 * GIB, None) for i in range(_ranks(request)))
    ends: list[float] = []
    for size in (memory.value - memory.step, memory.value, memory.value + memory.step):
        options = {**request["options"], "kv_cache_memory_bytes": max(int(size), 1)}
        ends.append(make_plan(model, **{**request, "gpus": Detection(devices), "options": options}).engine.get("kv_tokens") or 0.0)
    why = "the layout of the cache: block size, groups, or a version's rule"
    step = max(ends[2] - ends[1], ends[1] - ends[0]) + 1
    return [compared("kv_tokens_of_that_memory", None, "tokens", float(ends[1]), tokens, True, why, step=step)] if ends[0] else []


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

