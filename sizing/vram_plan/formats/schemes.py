"""Checkpoint schemes: from a `quantization_config` (or `hf_quant_config.json`) to a `Scheme`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..errors import FormatError
from .modules import ModuleList
from .scheme import Scheme, apply_scheme

__all__ = ["Scheme", "apply_scheme", "scheme_from_config"]

_Config = Mapping[str, Any]
#: Where configs list the modules that stay as they were.
_SKIPPED: Final = ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules", "llm_int8_skip_modules", )
_MAX_ENTRIES: Final = 100_000
#: What ModelOpt's and other tools' algorithms store linear layers as.
_ALGORITHMS: Final = {
    "NVFP4": "NVFP4S", "NVFP4_AWQ": "NVFP4S", "W4A16_NVFP4": "NVFP4S", "FP8": "FP8T", "FP8_PER_CHANNEL_PER_TOKEN": "FP8C",
    "FP8_PB_WO": "FP8B", "FP8_BLOCK": "FP8B", "MXFP8": "MXFP8", "MXFP4": "MXFP4", "W4A8_MXFP4_FP8": "MXFP4", "W4A16_AWQ": "AWQ",
    "W4A8_AWQ": "AWQ", "W8A16": "CT-8/0",
    "W8A8_SQ_PER_CHANNEL": "INT8", "INT4_AWQ": "AWQ", "NONE": "",
}  # fmt: skip
#: The names of `Format`s by what they store.
_NAMES: Final = {
    "FP8T": "FP8", "FP8C": "FP8-CHANNEL", "FP8B": "FP8-BLOCK", "FP8BE": "FP8-BLOCK", "NVFP4S": "NVFP4", "INT8": "W8A8", "CT": "W4A16",
    "CT-4/128": "W4A16", "CT-8/0": "W8A16", "AWQ-4/128": "AWQ", "GPTQ-4/128": "GPTQ", "GPTQ-8/128": "GPTQ-INT8", "NF4DQ": "NF4-DQ",
    "BNB8": "INT8", "HQQ-4/64": "HQQ", "TORCHAO": "TORCHAO-INT4", "MLX-4/64": "MLX-4BIT", "MLX-8/64": "MLX-8BIT", "": "BF16",
}  # fmt: skip


def scheme_from_config(config: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> Scheme | None:
    """The scheme a checkpoint's quantisation config states; None where it states none.

    `model` is the whole `config.json`, where there is one: DeepSeek-V4 says there that its experts are in FP4.

    A method nobody has described here gives a scheme that leaves all weights in 16 bits and says so in `note`.
    Raises FormatError where a value cannot be meant.
    """
    if not isinstance(config, Mapping):
        raise FormatError("the quantisation config is no JSON object")
    nested = config.get("quantization")
    if isinstance(nested, Mapping):  # hf_quant_config.json
        config = {"quant_method": "modelopt", **nested}
    if not config:
        return None
    if model is not None and model.get("expert_dtype") == "fp4":
        config = {"moe_quant_algo": "MXFP4", **config}
    method = _text(config, "quant_method").lower().replace("_", "-") or _guess(config)
    reader = _READERS.get(method)
    if reader is None:
        return _unread(f"quantisation method {method[:40]!r} is not known" if method else "the quantisation config names no method")
    return reader(config)


def _unread(what: str) -> Scheme:
    """All weights in 16 bits, and a note that says why."""
    return Scheme("BF16", "", note=f"{what}: weights counted in 16 bits")


def _guess(config: _Config) -> str:
    """The method of a config that does not name one."""
    if "config_groups" in config or "quant_algo" in config:
        return "modelopt" if "quant_algo" in config else "compressed-tensors"
    if config.get("load_in_4bit") or config.get("load_in_8bit"):
        return "bitsandbytes"
    if "group_size" in config and "bits" in config:
        return "mlx"
    return ""


def _scheme(kind: str, config: _Config, *, groups: tuple[tuple[ModuleList, str], ...] = (), name: str = "", **more: Any) -> Scheme:
    skipped = ModuleList(tuple(entry for key in _SKIPPED for entry in _entries(config, key)))
    unread = [entry for modules in (skipped, *(g for g, _ in groups)) for entry in modules.unread]
    note = f"exceptions not understood: {', '.join(unread[:3])}" if unread else ""
    return Scheme(name or _NAMES.get(kind, kind), kind, skipped, groups, note=note, **more)


def _entries(config: _Config, key: str) -> tuple[str, ...]:
    found = config.get(key)
    if not isinstance(found, (list, tuple)):
        return ()
    if len(found) > _MAX_ENTRIES:
        raise FormatError(f"quantization_config: {key} has {len(found)} entries; at most {_MAX_ENTRIES} are read")
    return tuple(entry for entry in found if isinstance(entry, str) and 0 < len(entry) <= 300)


def _text(config: _Config, key: str) -> str:
    found = config.get(key)
    return found[:200] if isinstance(found, str) else ""


def _number(config: _Config, key: str, default: int, low: int = -1, high: int = 1 << 16) -> int:
    found = config.get(key)
    if found is None:
        return default
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        raise FormatError(f"quantization_config: {key} is {str(found)[:40]!r}; a whole number from {low} to {high} belongs there")
    return found


def _grouped(family: str, config: _Config, bits_key: str = "bits", group: int = 128, **more: Any) -> Scheme:
    """A scheme of so many bits by groups; a group size of -1 means one scale a row."""
    bits = _number(config, bits_key, 4, 2, 8)
    return _scheme(f"{family}-{bits}/{max(_number(config, 'group_size', group), 0)}", config, **more)


def _gptq(config: _Config) -> Scheme:
    dynamic = config.get("dynamic")
    skipped = tuple(f"re:{k[2:]}" for k in dynamic if isinstance(k, str) and k.startswith("-:")) if isinstance(dynamic, Mapping) else ()
    return _grouped("GPTQ", {**config, "ignore": (*_entries(config, "ignore"), *skipped)})


def _awq(config: _Config) -> Scheme:
    return _grouped("AWQ", config, "w_bit" if "w_bit" in config and "bits" not in config else "bits")


def _bitsandbytes(config: _Config) -> Scheme:
    if config.get("load_in_8bit") or config.get("_load_in_8bit"):
        return _scheme("BNB8", config, towers=True)
    return _scheme("NF4DQ" if config.get("bnb_4bit_use_double_quant") else "NF4", config, towers=True)


def _fp8(config: _Config) -> Scheme:
    block = config.get("weight_block_size")
    kind = ("FP8BE" if _text(config, "scale_fmt") == "ue8m0" else "FP8B") if block else "FP8T"
    experts = _ALGORITHMS.get(_text(config, "moe_quant_algo"))
    if experts:  # DeepSeek-V4: 4-bit experts in an FP8 checkpoint
        return Scheme(_NAMES.get(experts, experts), kind, groups=((ModuleList(("mlp.experts",)), experts),))
    return _scheme(kind, config)


def _mxfp4(config: _Config) -> Scheme:
    return _scheme("MXFP4", config, experts_only=True)


def _weights_kind(group: _Config, form: str) -> str:
    """What one config group stores weights as (compressed-tensors' `weights`)."""
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        return ""
    bits, size = _number(weights, "num_bits", 8, 1, 16), _number(weights, "group_size", 0) if weights.get("group_size") is not None else 0
    form = _text(group, "format") or form
    if _text(weights, "type") == "float":
        if bits == 4:
            return "MXFP4" if size == 32 or "mxfp4" in form else "NVFP4S"
        if size == 32:
            return "MXFP8"
        return {"block": "FP8B", "channel": "FP8C"}.get(_text(weights, "strategy"), "FP8T")
    if bits == 8 and group.get("input_activations"):
        return "INT8"
    if bits > 8:
        return ""
    return f"{'CT' if weights.get('symmetric', True) else 'CTZ'}-{max(bits, 2)}/{max(size, 0)}"


def _compressed(config: _Config) -> Scheme:
    """compressed-tensors: each group's targets (`Linear`: all) and how their weights are stored."""
    found = config.get("config_groups")
    form = _text(config, "format")
    groups: list[tuple[ModuleList, str]] = []
    base = ""
    for group in list(found.values())[:256] if isinstance(found, Mapping) else ():
        if not isinstance(group, Mapping):
            continue
        kind, targets = _weights_kind(group, form), _entries(group, "targets")
        if not targets or any(t in ("Linear", "FusedMoE") for t in targets):
            base = base or kind
        else:
            groups.append((ModuleList(targets), kind))
    kinds = [base, *(kind for _, kind in groups)]
    main = min((k for k in kinds if k), key=_bits_of, default="")
    if not main:
        return _unread("the quantisation config names no weights")
    return _scheme(base, config, groups=tuple(groups), name=_NAMES.get(main, main))


def _bits_of(kind: str) -> float:
    from .storage import storage_bits_per_weight

    return storage_bits_per_weight(kind)


def _modelopt(config: _Config) -> Scheme:
    """ModelOpt: one algorithm for all linear layers, or one for each module named (MIXED_PRECISION)."""
    algorithm = _text(config, "quant_algo").upper()
    layers = config.get("quantized_layers")
    if algorithm == "MIXED_PRECISION" and isinstance(layers, Mapping):
        return _mixed(config, layers)
    if isinstance(config.get("config_groups"), Mapping):
        return _compressed(config)
    if algorithm not in _ALGORITHMS:
        return _unread(f"quantisation algorithm {algorithm[:40]!r} is not known")
    return _scheme(_ALGORITHMS[algorithm], config)


def _mixed(config: _Config, layers: _Config) -> Scheme:
    """Modules by the algorithm each is listed with; what is not listed stays in 16 bits."""
    by_kind: dict[str, list[str]] = {}
    for name, entry in list(layers.items())[:_MAX_ENTRIES]:
        kind = _ALGORITHMS.get(_text(entry, "quant_algo").upper(), "") if isinstance(entry, Mapping) else ""
        if kind and len(name) <= 300:
            by_kind.setdefault(kind, []).append(name)
    main = min(by_kind, key=_bits_of, default="")
    groups = tuple((ModuleList(tuple(names)), kind) for kind, names in by_kind.items())
    return _scheme("", config, groups=groups, name=_NAMES.get(main, main or "BF16"))


def _torchao(config: _Config) -> Scheme:
    kind = str(config.get("quant_type", ""))[:2000].lower()
    if "int4" in kind:
        return _scheme("TORCHAO", config)
    return _scheme("FP8C" if "float8" in kind else "BNB8", config)


def _hqq(config: _Config) -> Scheme:
    inner = config.get("quant_config")
    weights = inner.get("weight_quant_params") if isinstance(inner, Mapping) else None
    found = weights if isinstance(weights, Mapping) else config
    bits = found.get("nbits", found.get("bits", 4))
    return _grouped("HQQ", {**config, "bits": bits, "group_size": found.get("group_size", 64)}, group=64)


def _mlx(config: _Config) -> Scheme:
    return _grouped("MLX", config, group=64, head=True)


def _quark(config: _Config) -> Scheme:
    """AMD Quark: `global_quant_config.weight` says dtype and group."""
    inner = config.get("global_quant_config")
    weight = inner.get("weight") if isinstance(inner, Mapping) else None
    weight = weight[0] if isinstance(weight, list) and weight else weight
    dtype = _text(weight, "dtype") if isinstance(weight, Mapping) else ""
    kind = {"fp4": "MXFP4", "fp8_e4m3": "FP8T", "int8": "INT8", "int4": "CT", "uint4": "CTZ"}.get(dtype)
    excluded = {"ignore": _entries(config, "exclude")}
    return _scheme(kind, excluded) if kind else _unread(f"Quark's weight format {dtype[:40]!r} is not known")


_READERS: Final[dict[str, Callable[[_Config], Scheme]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _gptq,
    "intel/auto-round": _gptq,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm-fp8": lambda c: _scheme("FP8C", c),
    "mxfp4": _mxfp4,
    "compressed-tensors": _compressed,
    "modelopt": _modelopt,
    "modelopt-fp4": _modelopt,
    "torchao": _torchao,
    "hqq": _hqq,
    "eetq": lambda c: _scheme("EETQ", c),
    "mlx": _mlx,
    "quark": _quark,
}
