"""Options that several commands share, and how a model's text becomes a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vram_plan import Model

__all__ = ["load_model", "offline_wanted", "parse_bits", "parse_seconds", "parse_settings", "refuse_two_machines", "request_of"]


def complete_model(incomplete: str) -> list[str]:
    from vram_plan import list_models

    return [row.name for row in list_models() if row.name.startswith(incomplete.lower())]


_MODEL = "A name (llama3-8b), Ollama tag (llama3:8b), Hub id (org/name[@revision], org/name:Q4_K_M), or a path."
_GPU = (
    "'RTX 4090', 2xA100-80GB, 'RTX 3090 + RTX 3060', '2 nodes x 8xH100', 'H100 MIG 3g.40gb', 8GB, 'i7-8700 32GB', cpu. "
    "Default: this machine's."
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, autocompletion=complete_model, help=_MODEL)]
ModelsArgument = Annotated[list[str], typer.Argument(metavar="MODEL...", show_default=False, autocompletion=complete_model, help=_MODEL)]
Ctx = Annotated[
    str | None, typer.Option("--ctx", "-c", help="Tokens of one sequence: 16384 or 16k. Default: 8k.", show_default=False)
]
Bits = Annotated[
    int | None,
    typer.Option("--bits", "-b", help="2, 3, 4, 5, 6, 8 or 16: the engine's usual format of that width.", show_default=False),
]
Quant = Annotated[
    str | None,
    typer.Option("--quant", "-q", help="A number format by name: Q4_K_M, AWQ, FP8 … (vram-plan formats).", show_default=False),
]
Parallel = Annotated[int, typer.Option("--parallel", "-n", help="Sequences at once.")]
Engine = Annotated[str | None, typer.Option("--engine", "-e", help="ollama, llama.cpp, vllm, sglang or transformers.", show_default=False)]
Gpu = Annotated[str | None, typer.Option("--gpu", help=_GPU, show_default=False)]
Kv = Annotated[str | None, typer.Option("--kv", help="KV cache type: f16, bf16, fp8, q8_0, q4_0 …", show_default=False)]
KvK = Annotated[str | None, typer.Option("--kv-k", help="As --kv, for K alone.", show_default=False)]
KvV = Annotated[str | None, typer.Option("--kv-v", help="As --kv, for V alone.", show_default=False)]
Tp = Annotated[int | None, typer.Option("--tp", help="Tensor parallelism.", show_default=False)]
Pp = Annotated[int | None, typer.Option("--pp", help="Pipeline parallelism.", show_default=False)]
Ep = Annotated[bool, typer.Option("--ep", help="Expert parallelism.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="Tokens of the prompt. Default: the context.", show_default=False)]
Output = Annotated[str | None, typer.Option("--output", help="Tokens of the answer.", show_default=False)]
Offload = Annotated[str, typer.Option("--offload", help="auto, none, experts, or a number of layers kept on the CPU.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An engine option; may be repeated.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="The answer as CSV.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="The answer as a Markdown table.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="The answer alone, without notes.")]
Width = Annotated[
    int | None, typer.Option("--width", min=20, max=1000, help="Columns to print in. Default: the terminal's.", show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]


def load_model(reference: str, offline: bool) -> Model:
    """The model a text names, with a progress bar where headers are read over the network."""
    import vram_plan as vp

    offline = offline or offline_wanted()
    if "/" not in reference or offline:
        return vp.load(reference, offline=offline)
    from .progress import after_a_second

    with after_a_second("reading headers") as progress:
        return vp.load(reference, offline=offline, progress=progress)


def request_of(
    *, ctx: str | None, bits: int | None, quant: str | None, kv: str | None, kv_k: str | None, kv_v: str | None, parallel: int,
    engine: str | None, gpu: str | None, tp: int | None, pp: int | None, ep: bool, offload: str, prompt: str | None,
    output: str | None, setting: Sequence[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """The options of a plan as the library's `plan` takes them; without --gpu this machine's GPUs."""
    import vram_plan as vp

    return {
        "context": ctx, "bits": bits, "quant": quant, "engine": engine, "gpus": gpu or vp.local_devices(), "sequences": parallel,
        "kv_type": kv, "kv_type_k": kv_k, "kv_type_v": kv_v, "tensor_parallel": tp, "pipeline_parallel": pp, "expert_parallel": ep,
        "offload": offload, "prompt": prompt, "output": output, "options": parse_settings(setting or []),
    }  # fmt: skip


def refuse_two_machines(args: Sequence[str]) -> None:
    """Several --gpu are for compare and recommend: else the parser would take the last without a word. Raises UsageError."""
    named = [value for name, value in pairwise((*args, "")) if name == "--gpu"]
    named += [arg.partition("=")[2] for arg in args if arg.startswith("--gpu=")]
    if len(named) > 1 and args[0] not in ("compare", "recommend"):
        from vram_plan import UsageError

        together = " + ".join(named)[:80]
        raise UsageError(f"--gpu was given {len(named)} times", f"cards of one machine are written together: --gpu '{together}'")


def offline_wanted() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs, values as JSON where they are (true, 512, 0.9), else as text."""
    import json

    from vram_plan import UsageError

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair[:60]!r} has no value", "write it as --set ubatch=1024")
        try:
            settings[key.strip()] = json.loads(value) if len(value) <= 200 else value
        except (ValueError, RecursionError):
            settings[key.strip()] = value
    return settings


def parse_bits(texts: Sequence[str]) -> list[int]:
    """`4,8` or several of them. Raises UsageError."""
    from vram_plan import UsageError

    parts = [part.strip() for text in texts for part in text.split(",")]
    wrong = next((part for part in parts if not (part.isascii() and part.isdigit() and len(part) < 3)), None)
    if wrong is not None:
        raise UsageError(f"{wrong[:40]!r} is no number of bits", "write them as --bits 4,8")
    return [int(part) for part in parts]


def parse_seconds(text: str) -> float:
    """`2`, `2s`, `500ms`. Raises UsageError."""
    from vram_plan import UsageError

    number = text.strip().lower()
    scale = 0.001 if number.endswith("ms") else 1.0
    try:
        seconds = float(number.removesuffix("ms").removesuffix("s")) * scale
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"{text[:40]!r} is no time", "write it as 2s or 500ms")
    return seconds
