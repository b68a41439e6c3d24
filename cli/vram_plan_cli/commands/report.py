"""`report`: the plan as one page to keep or to send."""

from __future__ import annotations

from typing import Annotated

import typer

from ..language import say
from ..options import (
    Bits,
    Ctx,
    Engine,
    Ep,
    Gpu,
    Kv,
    KvK,
    KvV,
    ModelArgument,
    Offline,
    Offload,
    Output,
    Parallel,
    Pp,
    Prompt,
    Quant,
    Quiet,
    Setting,
    Tp,
    load_model,
    request_of,
)

__all__ = ["write"]


def write(
    model: ModelArgument,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = "report.html",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is no report.")] = False,
    ctx: Ctx = None,
    bits: Bits = None,
    quant: Quant = None,
    kv: Kv = None,
    kv_k: KvK = None,
    kv_v: KvV = None,
    parallel: Parallel = 1,
    engine: Engine = None,
    gpu: Gpu = None,
    tp: Tp = None,
    pp: Pp = None,
    ep: Ep = False,
    offload: Offload = "auto",
    prompt: Prompt = None,
    output: Output = None,
    setting: Setting = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """One self-contained page: where the memory goes, how long the context may get, formats, other GPUs, the formulas."""
    from ..report.content import report_page, write_report

    loaded = load_model(model, offline)
    request = request_of(
        ctx=ctx, bits=bits, quant=quant, kv=kv, kv_k=kv_k, kv_v=kv_v, parallel=parallel, engine=engine, gpu=gpu, tp=tp, pp=pp, ep=ep,
        offload=offload, prompt=prompt, output=output, setting=setting,
    )  # fmt: skip
    write_report(out, report_page(loaded, request), force)
    if not quiet:
        typer.echo(say(f"written: {out}"))
