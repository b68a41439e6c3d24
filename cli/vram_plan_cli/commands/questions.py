"""`table`, `compare`, `recommend`: each one call of the library."""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import (
    Csv,
    Ctx,
    Engine,
    Gpu,
    Json,
    Kv,
    Markdown,
    ModelArgument,
    ModelsArgument,
    Offline,
    Offload,
    Output,
    Parallel,
    Pp,
    Prompt,
    Quiet,
    Setting,
    Tp,
    Width,
    load_model,
    parse_bits,
    parse_seconds,
    parse_settings,
)

__all__ = ["compare", "recommend", "table"]


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

    from ..screens.grids import one_of
    from ..screens.table import print_table

    output = one_of(json, csv, markdown)
    answer = vp.table(
        load_model(model, offline), quants=quant, contexts=ctx, gpus=gpu, engine=engine, sequences=parallel, kv_type=kv,
        tensor_parallel=tp, pipeline_parallel=pp, offload=offload, options=parse_settings(setting or []),
    )  # fmt: skip
    print_table(answer, output, width, quiet)


def compare(
    models: ModelsArgument,
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", help="Machines to compare, as in plan: 'RTX 3090; 2x RTX 3060'.", show_default=False)
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", "-e", help="Engines to compare: ollama,vllm.", show_default=False)
    ] = None,
    quant: Annotated[
        list[str] | None, typer.Option("--quant", "-q", help="Number formats to compare: Q4_K_M,Q8_0.", show_default=False)
    ] = None,
    bits: Annotated[
        list[str] | None, typer.Option("--bits", "-b", help="Widths to compare, as in plan: 4,8.", show_default=False)
    ] = None,
    ctx: Ctx = None,
    parallel: Parallel = 1,
    kv: Kv = None,
    tp: Tp = None,
    pp: Pp = None,
    offload: Offload = "auto",
    prompt: Prompt = None,
    output: Output = None,
    json: Json = False,
    csv: Csv = False,
    markdown: Markdown = False,
    quiet: Quiet = False,
    width: Width = None,
    offline: Offline = False,
) -> None:
    """Several models side by side, or one over several --gpu, --engine, --quant."""
    import vram_plan as vp

    from ..screens.compare import print_comparison
    from ..screens.grids import one_of

    kind = one_of(json, csv, markdown)
    answer = vp.compare(
        [load_model(model, offline) for model in models], gpus=gpu, engines=engine, quants=quant, bits=parse_bits(bits or []), context=ctx,
        sequences=parallel, kv_type=kv, tensor_parallel=tp, pipeline_parallel=pp, offload=offload, prompt=prompt, output=output,
    )  # fmt: skip
    print_comparison(answer, kind, width, quiet)


def recommend(
    model: ModelArgument,
    ctx: Ctx = None,
    parallel: Parallel = 1,
    min_decode: Annotated[
        float | None, typer.Option("--min-decode", help="Tokens/s of one sequence, at least.", show_default=False)
    ] = None,
    max_ttft: Annotated[str | None, typer.Option("--max-ttft", help="Time to the first token: 2s, 500ms.", show_default=False)] = None,
    gpus: Annotated[
        list[str] | None,
        typer.Option(
            "--gpus",
            "--gpu",
            help="Machines to choose from: 'RTX 4090; 2x RTX 3090; H100', or local. Default: common cards, 1 to 8 of each.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", "-e", help="As in plan; may be repeated. Default: llama.cpp, vllm.", show_default=False)
    ] = None,
    quant: Annotated[
        str | None, typer.Option("--quant", "-q", help="Formats: Q4_K_M,AWQ. Default: the engines' usual ones.", show_default=False)
    ] = None,
    price: Annotated[
        list[str] | None, typer.Option("--price", metavar="GPU=PRICE", help="'H100=2.1/h', 'RTX 3090=700'; may be repeated.")
    ] = None,
    kv: Kv = None,
    prompt: Prompt = None,
    output: Output = None,
    top: Annotated[int, typer.Option("--top", min=1, max=50, help="How many to show.")] = 5,
    json: Json = False,
    csv: Csv = False,
    markdown: Markdown = False,
    quiet: Quiet = False,
    width: Width = None,
    offline: Offline = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when nothing does what is asked.")] = False,
) -> None:
    """Which GPU(s), engine, format and split for this context, concurrency and speed; else the nearest misses."""
    import vram_plan as vp

    from ..progress import after_a_second
    from ..screens.grids import one_of
    from ..screens.recommend import print_recommendation

    kind = one_of(json, csv, markdown)
    loaded = load_model(model, offline)
    with after_a_second("trying machines") as progress:
        answer = vp.recommend(
            loaded, context=ctx, sequences=parallel, min_decode=min_decode, max_ttft_s=parse_seconds(max_ttft) if max_ttft else None,
            gpus=gpus, engines=engine, quants=quant, prices=price or (), kv_type=kv, prompt=prompt, output=output, top=top,
            progress=progress,
        )  # fmt: skip
    print_recommendation(answer, kind, width, quiet)
    if check and not answer.options:
        raise typer.Exit(1)
