"""`table`, `compare`, `recommend`: each one call of the library."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    Csv,
    Engine,
    Gpu,
    Json,
    Kv,
    Markdown,
    ModelArgument,
    Offline,
    Offload,
    Parallel,
    Quiet,
    Setting,
    Width,
    load_model,
    parse_settings,
)

__all__ = ["table"]

Tp = Annotated[int | None, typer.Option("--tp", help="Tensor parallelism.", show_default=False)]
Pp = Annotated[int | None, typer.Option("--pp", help="Pipeline parallelism.", show_default=False)]


def table(
    model: ModelArgument,
    gpu: Gpu = None,
    ctx: Annotated[str | None, typer.Option("--ctx", "-c", help="Contexts: 4k,16k,64k. Default: 2k to 128k.", show_default=False)] = None,
    quant: Annotated[
        str | None, typer.Option("--quant", "-q", help="Formats: Q4_K_M,Q8_0. Default: the engine's usual ones.", show_default=False)
    ] = None,
    engine: Engine = None,
    parallel: Parallel = 1,
    kv: Kv = None,
    tp: Tp = None,
    pp: Pp = None,
    offload: Offload = "auto",
    setting: Setting = None,
    json: Json = False,
    csv: Csv = False,
    markdown: Markdown = False,
    quiet: Quiet = False,
    width: Width = None,
    offline: Offline = False,
) -> None:
    """Formats × contexts: what fits this machine, or --gpu, and how long the context may get in each format."""
    import vram_plan as vp

    from .grids import one_of
    from .table_screen import print_table

    output = one_of(json, csv, markdown)
    answer = vp.table(
        load_model(model, offline), formats=quant, contexts=ctx, gpus=gpu, engine=engine, sequences=parallel, kv_type=kv,
        tensor_parallel=tp, pipeline_parallel=pp, offload=offload, options=parse_settings(setting or []),
    )  # fmt: skip
    print_table(answer, output, width, quiet)
