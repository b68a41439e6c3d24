"""`verify`: a plan held against a log, a running server, the driver, or llama.cpp's own projection."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..options import (
    Bits,
    Ctx,
    Engine,
    Ep,
    Gpu,
    Json,
    Kv,
    KvK,
    KvV,
    ModelArgument,
    Offline,
    Pp,
    Quant,
    Quiet,
    Setting,
    Tp,
    Width,
    load_model,
    parse_settings,
)

__all__ = ["verify"]

Against = Annotated[
    str,
    typer.Option(
        "--against",
        "-a",
        metavar="WHAT",
        show_default=False,
        help="A log (a file, or - for standard input), a server (http://127.0.0.1:8080, ollama, llama-server, vllm), nvml, nvml:PID, "
        "or llama.cpp (its llama-fit-params).",
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--api-key", envvar="VRAM_PLAN_API_KEY", show_default=False, help="Sent to the server as a bearer token; else none is."),
]


def verify(
    model: ModelArgument,
    against: Against,
    ctx: Ctx = None,
    bits: Bits = None,
    quant: Quant = None,
    kv: Kv = None,
    kv_k: KvK = None,
    kv_v: KvV = None,
    parallel: Annotated[int | None, typer.Option("--parallel", "-n", help="Sequences at once.", show_default=False)] = None,
    engine: Engine = None,
    gpu: Gpu = None,
    tp: Tp = None,
    pp: Pp = None,
    ep: Ep = False,
    offload: Annotated[str | None, typer.Option("--offload", help="As in plan.", show_default=False)] = None,
    setting: Setting = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run one short generation on the server and compare its speed.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Keep what was measured in the profile of this machine's device.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when it is off by more than --tolerance.")] = False,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, max=1000, help="Per cent.")] = 5.0,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, max=3600, help="Seconds for all a server is asked.")] = 30.0,
    api_key: Key = None,
    json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    width: Width = None,
) -> None:
    """Hold a plan against what an engine really did, line by line; what the engine runs with is taken over unless given here."""
    import vram_plan as vp

    from ..progress import after_a_second
    from ..screens.verify import print_reconciliation

    request: dict[str, Any] = {
        "context": ctx, "bits": bits, "quant": quant, "engine": engine, "gpus": gpu, "sequences": parallel, "kv_type": kv,
        "kv_type_k": kv_k, "kv_type_v": kv_v, "tensor_parallel": tp, "pipeline_parallel": pp, "expert_parallel": ep or None,
        "offload": offload, "options": parse_settings(setting or []),
    }  # fmt: skip
    loaded = load_model(model, offline)
    with after_a_second("reading" if not measure else "measuring") as progress:
        answer = vp.verify(
            loaded, against, measure=measure, save=save, timeout_s=timeout, api_key=api_key, progress=progress, **request
        )
    print_reconciliation(answer, tolerance / 100, "json" if json else "", width, quiet)
    if check and not answer.within(tolerance / 100):
        raise typer.Exit(1)
