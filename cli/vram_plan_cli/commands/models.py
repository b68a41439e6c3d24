"""`models`: the catalogue, or what of it runs on a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import Csv, Engine, Json, Kv, Markdown, Parallel, Quiet, Width

__all__ = ["models"]


def models(
    query: Annotated[str, typer.Argument(metavar="[QUERY]", show_default=False, help="Words the name must have.")] = "",
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="List what runs well on it: 'RTX 3060 12GB', 2x3090, local.", show_default=False)
    ] = None,
    ctx: Annotated[str | None, typer.Option("--ctx", "-c", help="With --gpu: tokens. Default: 8k.", show_default=False)] = None,
    parallel: Parallel = 1,
    engine: Engine = None,
    quant: Annotated[
        str | None, typer.Option("--quant", "-q", help="With --gpu: only these formats. Default: the good ones.", show_default=False)
    ] = None,
    kv: Kv = None,
    min_decode: Annotated[
        float | None, typer.Option("--min-decode", help="With --gpu: tokens/s of one sequence, at least.", show_default=False)
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Show so many, the largest first.", show_default=False)] = None,
    json: Json = False,
    csv: Csv = False,
    markdown: Markdown = False,
    quiet: Quiet = False,
    width: Width = None,
) -> None:
    """The models of the offline catalogue; with --gpu those that run well on it, the largest first."""
    if gpu is None and (ctx is not None or min_decode is not None or quant is not None):
        from vram_plan import UsageError

        raise UsageError("a context, a speed or a format was given without a GPU", "name one with --gpu, or --gpu local")
    if gpu is None:
        from ..screens.lists import Look, print_models

        print_models(query, Look(json, quiet, width))
        return
    import vram_plan as vp

    from ..progress import after_a_second
    from ..screens.grids import one_of
    from ..screens.models import print_models_fit

    output = one_of(json, csv, markdown)
    with after_a_second("looking at models") as progress:
        answer = vp.models_for(
            gpu, query=query, context=ctx, sequences=parallel, engine=engine, quants=quant, kv_type=kv, min_decode=min_decode,
            progress=progress,
        )  # fmt: skip
    print_models_fit(answer, output, top, width, quiet)
