"""From what was asked to one parsed piece of work: formats, cache types, counts, each default said in a note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from .engines import Work, engine_cache_type, engine_module, engine_name
from .errors import UnknownNameError, UsageError
from .formats import Format, find_format, for_engine, format_for_bits
from .models.model import Model
from .results import Note
from .units import parse_tokens

__all__ = ["DEFAULT_CONTEXT", "default_engine", "make_work", "own_format"]

DEFAULT_CONTEXT: Final = 8192
_GGUF_ENGINES: Final = ("ollama", "llama.cpp")
#: The usual GGUF of a width.
_NEAR_GGUF: Final = {4: "Q4_K_M", 8: "Q8_0"}
_MAX_COUNT: Final = 1 << 20
_OFFLOADS: Final = ("experts", "layers")


def make_work(
    model: Model,
    device_count: int,
    *,
    context: int | str | None = None,
    bits: int | None = None,
    quant: str | None = None,
    engine: str | None = None,
    sequences: int = 1,
    kv_type: str | None = None,
    kv_type_k: str | None = None,
    kv_type_v: str | None = None,
    tensor_parallel: int | None = None,
    pipeline_parallel: int | None = None,
    expert_parallel: bool = False,
    offload: str = "auto",
    prompt: int | str | None = None,
    output: int | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Work, tuple[Note, ...]]:
    """The work and the notes on what was filled in. Raises UsageError and UnknownNameError."""
    if bits is not None and quant is not None:
        raise UsageError("both bits and a format were given", "give --bits or --quant")
    name, notes = _engine(model, device_count, engine, bits, quant)
    module = engine_module(name)
    tokens, context_notes = _context(model, context)
    format, format_notes = _format(model, name, bits, quant)
    kv_k = engine_cache_type(name, kv_type_k or kv_type or module.DEFAULT_KV)
    kv_v = engine_cache_type(name, kv_type_v or kv_type or module.DEFAULT_KV)
    split = _count(tensor_parallel or 1, "tensor parallelism") * _count(pipeline_parallel or 1, "pipeline parallelism")
    if 0 < device_count < split:
        raise UsageError(
            f"a split over {split} GPUs was asked for, and {device_count} given", "lower --tp and --pp, or name more GPUs with --gpu"
        )
    work = Work(
        engine=name,
        format=format,
        kv_k=kv_k,
        kv_v=kv_v,
        context=tokens,
        sequences=_count(sequences, "the number of sequences"),
        prompt=parse_tokens(prompt, "prompt") if prompt is not None else tokens,
        output=parse_tokens(output, "output") if output is not None else 0,
        tensor_parallel=_count(tensor_parallel or 1, "tensor parallelism"),
        pipeline_parallel=_count(pipeline_parallel or 1, "pipeline parallelism"),
        expert_parallel=bool(expert_parallel),
        offload=_offload(offload, name, getattr(module, "OFFLOADS", _OFFLOADS)),
        options=_options(name, module.OPTIONS, options),
    )
    return work, (*notes, *context_notes, *_prompt_note(work), *format_notes)


def default_engine(model: Model, device_count: int, bits: int | None = None, quant: str | None = None) -> str:
    """The engine taken where none is asked for."""
    return _engine(model, device_count, None, bits, quant)[0]


def _engine(model: Model, device_count: int, engine: str | None, bits: int | None, quant: str | None) -> tuple[str, tuple[Note, ...]]:
    if engine is not None:
        return engine_name(engine), ()
    small = (bits is not None and bits < 16) or (quant is not None and find_format(quant).family == "gguf")
    if model.ollama_tag:
        return "ollama", (Note("info", "engine not given: Ollama (its tag)"),)
    if model.is_gguf or (_stored(model).family == "gguf" and bits is None and quant is None):
        return "ollama", (Note("info", "engine not given: Ollama (a GGUF)"),)
    if small and device_count <= 1:
        return "ollama", (Note("info", "engine not given: Ollama (a small format on one GPU)"),)
    return "vllm", (Note("info", "engine not given: vLLM (the checkpoint's own format, or several GPUs)"),)


def _context(model: Model, context: int | str | None) -> tuple[int, tuple[Note, ...]]:
    trained = model.trained_context
    if context is None:
        tokens = min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
        return tokens, (Note("info", f"context not given: {tokens:,} tokens"),)
    tokens = parse_tokens(context)
    if trained and tokens > trained:
        return tokens, (Note("warning", f"trained for {trained:,} tokens: beyond, quality needs rope scaling"),)
    return tokens, ()


def _prompt_note(work: Work) -> tuple[Note, ...]:
    """A prompt that, with its answer, is longer than what was planned for."""
    total = work.prompt + (work.output if work.prompt != work.context else 0)
    if total <= work.context:
        return ()
    enough = f"{-(-total // 1024)}k"
    return (Note("warning", f"prompt and answer are {total:,} tokens, more than the context: give --ctx {enough}"),)


def _format(model: Model, engine: str, bits: int | None, quant: str | None) -> tuple[Format, tuple[Note, ...]]:
    own = _stored(model)
    if quant is not None:
        format = for_engine(find_format(quant), engine)
        foreign = engine in _GGUF_ENGINES and format.family == "scheme" and format.name != "MXFP4"
        near = _NEAR_GGUF.get(width(format), "BF16")
        return format, (Note("warning", f"{engine} reads no {format.name}, only GGUF: --quant {near} is as wide"),) if foreign else ()
    if bits is None and engine in _GGUF_ENGINES and model.ollama_tag and own.family != "gguf" and own.name != "MXFP4":
        return _tag_format(model.ollama_tag, own, engine)
    if bits is None or (width(own) == bits and (model.is_gguf or own.family == "scheme")):
        return _own_format(own, engine)
    chosen = format_for_bits(bits, engine)
    return chosen, (Note("info", f"format not given: {chosen.name} (its usual {bits} bits)"),)


def _tag_format(tag: str, own: Format, engine: str) -> tuple[Format, tuple[Note, ...]]:
    """What a tag that was not pulled stands for in Ollama's library: a quantised file, not the checkpoint it was made from."""
    from .engines.ollama import tag_format

    format = for_engine(find_format(tag_format(tag)), engine)
    if format.name == own.name:
        return _own_format(own, engine)
    return format, (Note("info", f"format not given: {format.name}, as Ollama's library builds {tag}"),)


def own_format(model: Model, engine: str) -> tuple[Format, tuple[Note, ...]]:
    """The checkpoint's own format as the engine holds it, and what to say about it."""
    return _own_format(_stored(model), engine)


def width(format: Format) -> int:
    """The nominal bits of a format: what is over in a real one are block scales and tensors left wider."""
    return int(format.bits_per_weight)


def _own_format(own: Format, engine: str) -> tuple[Format, tuple[Note, ...]]:
    """The checkpoint's own format as the engine holds it: GGUF engines have no FP8, and llama.cpp's MXFP4 is a mix; Ollama's tag of
    gpt-oss is the checkpoint as it was, all but experts in 16 bits (ollama/ollama#16416: 61,223 + 1,104 MiB of gpt-oss:120b)."""
    if engine not in _GGUF_ENGINES or own.family != "scheme" or (engine, own.name) == ("ollama", "MXFP4"):
        return for_engine(own, engine), (Note("info", f"format not given: {own.name}, as it is stored"),)
    near = for_engine(own, engine)
    if near.family == "scheme":
        near = for_engine(find_format(_NEAR_GGUF.get(width(own), "BF16")), engine)
    return near, (Note("info", f"{engine} has no {own.name}: planned as {near.name}"),)


@lru_cache(maxsize=256)
def _stored(model: Model) -> Format:
    return find_format(model.stored_format)


def _count(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_COUNT:
        raise UsageError(f"{what} is {value!r}", f"a whole number from 1 to {_MAX_COUNT:,} belongs there")
    return value


def _offload(text: str, engine: str, known: Sequence[str]) -> str:
    """What to keep in host memory, of what the engine can: `experts`, or a number of layers."""
    value = text.strip().lower()
    number = value.removesuffix("s").removesuffix("layer").strip()
    layers = number.isdigit() and len(number) <= 5
    if value in ("auto", "none") or (value == "experts" and value in known) or (layers and "layers" in known):
        return f"{int(number)} layers" if layers else value
    if layers or value == "experts":
        can = "only whole layers" if known else "nothing"
        raise UsageError(f"{engine} is planned with {can} in host memory", "leave --offload out, or take llama.cpp, which can")
    raise UsageError(f"offload {text[:40]!r} is not known", "one of auto, none, experts, or a number of layers")


def _options(engine: str, known: Mapping[str, str], given: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    for name in given or ():
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            listed = "; ".join(known) or "none yet"
            raise UnknownNameError(
                f"{engine} has no option {str(name)[:40]!r}", (f"did you mean {near[0]}? " if near else "") + f"known: {listed}"
            )
    return tuple(sorted((given or {}).items()))
