"""`speed`: how a server behaves as more sequences run at once. One call of the library."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import (
    Bits,
    Csv,
    Ctx,
    Engine,
    Ep,
    Gpu,
    Json,
    Kv,
    Markdown,
    ModelArgument,
    Offline,
    Offload,
    Output,
    Pp,
    Prompt,
    Quant,
    Quiet,
    Setting,
    Tp,
    Width,
    load_model,
    request_of,
)

__all__ = ["speed"]


def speed(
    model: ModelArgument,
    ctx: Ctx = None,
    most: Annotated[
        int | None, typer.Option("--most", "-n", min=1, help="Sequences to go up to. Default: what memory holds.", show_default=False)
    ] = None,
    bits: Bits = None,
    quant: Quant = None,
    kv: Kv = None,
    engine: Engine = None,
    gpu: Gpu = None,
    tp: Tp = None,
    pp: Pp = None,
    ep: Ep = False,
    offload: Offload = "auto",
    prompt: Prompt = None,
    output: Output = None,
    setting: Setting = None,
    json: Json = False,
    csv: Csv = False,
    markdown: Markdown = False,
    quiet: Quiet = False,
    width: Width = None,
    offline: Offline = False,
) -> None:
    """How a server behaves from 1 sequence to as many as fit: tokens per second in all and each, and where more stops paying."""
    import vram_plan as vp

    from ..screens.grids import one_of
    from ..screens.speed import print_batches

    kind = one_of(json, csv, markdown)
    request = request_of(
        ctx=ctx, bits=bits, quant=quant, kv=kv, kv_k=None, kv_v=None, parallel=1, engine=engine, gpu=gpu, tp=tp, pp=pp, ep=ep,
        offload=offload, prompt=prompt, output=output, setting=setting,
    )  # fmt: skip
    print_batches(vp.batch_curve(load_model(model, offline), most=most, **request), kind, width, quiet)
