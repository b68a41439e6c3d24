"""The command. Each command turns its options into one call of the library and hands the answer to `render`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .commands_models import models
from .commands_questions import compare, recommend, table
from .failure import exit_code_of, report
from .options import Json, ModelArgument, Quiet, Width, load_model, parse_settings

if TYPE_CHECKING:
    from vram_plan import Model, Plan

__all__ = ["app", "main"]

_GLOBAL = ("--help", "-h", "--version", "--install-completion", "--show-completion")


class PlanByDefault(TyperGroup):
    """`vram-plan MODEL …` is `vram-plan plan MODEL …`: a first word that is no command is a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _GLOBAL:
            args = ["plan", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PlanByDefault,
    name="vram-plan",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Does a language model fit this GPU, where does each byte go, how long may the context get? "
    "`vram-plan MODEL` is short for `vram-plan plan MODEL`.",
)

QueryArgument = Annotated[str, typer.Argument(metavar="[QUERY]", show_default=False, help="Words the name must have.")]


def _version(asked: bool) -> None:
    if asked:
        from vram_plan import __version__

        typer.echo(f"vram-plan {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command()
def plan(
    model: ModelArgument,
    ctx: Annotated[
        str | None, typer.Option("--ctx", "-c", help="Tokens of one sequence: 16384 or 16k. Default: 8k.", show_default=False)
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", "-b", help="2, 3, 4, 5, 6, 8 or 16: the engine's usual format of that width.", show_default=False),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option("--quant", "-q", help="A number format by name: Q4_K_M, AWQ, FP8 … (vram-plan formats).", show_default=False),
    ] = None,
    kv: Annotated[str | None, typer.Option("--kv", help="KV cache type: f16, bf16, fp8, q8_0, q4_0 …", show_default=False)] = None,
    kv_k: Annotated[str | None, typer.Option("--kv-k", help="As --kv, for K alone.", show_default=False)] = None,
    kv_v: Annotated[str | None, typer.Option("--kv-v", help="As --kv, for V alone.", show_default=False)] = None,
    parallel: Annotated[int, typer.Option("--parallel", "-n", help="Sequences at once.")] = 1,
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", help="ollama, llama.cpp, vllm, sglang or transformers.", show_default=False)
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            help="'RTX 4090', 2xA100-80GB, 'RTX 3090 + RTX 3060', '2 nodes x 8xH100', 8GB. Default: this machine's.",
            show_default=False,
        ),
    ] = None,
    tp: Annotated[int | None, typer.Option("--tp", help="Tensor parallelism.", show_default=False)] = None,
    pp: Annotated[int | None, typer.Option("--pp", help="Pipeline parallelism.", show_default=False)] = None,
    ep: Annotated[bool, typer.Option("--ep", help="Expert parallelism.")] = False,
    offload: Annotated[str, typer.Option("--offload", help="auto, none, experts, or a number of layers kept on the CPU.")] = "auto",
    prompt: Annotated[str | None, typer.Option("--prompt", help="Tokens of the prompt. Default: the context.", show_default=False)] = None,
    output: Annotated[str | None, typer.Option("--output", help="Tokens of the answer.", show_default=False)] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An engine option; may be repeated.", show_default=False)
    ] = None,
    json: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Walk through every formula with this model's numbers.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when it does not fit.")] = False,
    quiet: Quiet = False,
    width: Width = None,
) -> None:
    """Plan one model: does it fit, where does each byte go, how far could it go."""
    import vram_plan as vp

    loaded = load_model(model, offline)
    answer = vp.plan(
        loaded, context=ctx, bits=bits, quant=quant, engine=engine, gpus=gpu or vp.local_devices(), sequences=parallel,
        kv_type=kv, kv_type_k=kv_k, kv_type_v=kv_v, tensor_parallel=tp, pipeline_parallel=pp, expert_parallel=ep, offload=offload,
        prompt=prompt, output=output, options=parse_settings(setting or []),
    )  # fmt: skip
    if json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        _print_plan(loaded, answer, explain, quiet, width)
    if check and answer.fit.verdict == "unknown":
        raise vp.HardwareError("there is no GPU to check against", "name one with --gpu")
    if check and answer.fit.verdict not in ("fits", "tight"):
        raise typer.Exit(1)


def _print_plan(model: Model, answer: Plan, explain: bool, quiet: bool, width: int | None) -> None:
    from .screen import console, print_explanation, print_plan, print_verdict

    out = console(width)
    if quiet:
        print_verdict(answer, out)
    else:
        print_plan(answer, out)
    if explain:
        print_explanation(model, answer, out)


app.command()(table)
app.command()(compare)
app.command()(recommend)
app.command()(models)


@app.command()
def gpus(query: QueryArgument = "", json: Json = False) -> None:
    """The accelerators of the catalogue."""
    from .lists import print_gpus

    print_gpus(query, json)


@app.command()
def formats(query: QueryArgument = "", json: Json = False) -> None:
    """The number formats weights can have, with their bits per weight."""
    from .lists import print_formats

    print_formats(query, json)


@app.command()
def hardware(json: Json = False) -> None:
    """What was detected on this machine, and what of it is usable."""
    from .lists import print_hardware

    print_hardware(json)


def _with_one_command(args: Sequence[str]) -> typer.Typer:
    """The app with only the command these arguments run: to build the options of all takes longer than a plan."""
    if args[0] in _GLOBAL or any(name.endswith("_COMPLETE") for name in os.environ):
        return app
    named = {info.name or getattr(info.callback, "__name__", ""): info for info in app.registered_commands}
    one = copy(app)
    one.registered_commands = [named.get(args[0], named["plan"])]
    return one


def main(args: Sequence[str] | None = None) -> None:
    """The entry point: exit codes as documented, one line on stderr, never a traceback."""
    given = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        code = _with_one_command(given)(args=given, standalone_mode=False, prog_name="vram-plan")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except BaseException as error:
        if os.environ.get("VRAM_PLAN_DEBUG"):
            raise
        code = exit_code_of(error)
        report(error, as_json="--json" in given)
    raise SystemExit(code if isinstance(code, int) else 0)
