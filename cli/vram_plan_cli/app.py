"""The command. Each command turns its options into one call of the library and hands the answer to `render`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .commands.calibrate import calibrate
from .commands.models import models
from .commands.questions import compare, recommend, table
from .commands.report import write
from .commands.speed import speed
from .commands.verify import verify
from .failure import exit_code_of, report
from .options import (
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
    Offload,
    Output,
    Parallel,
    Pp,
    Prompt,
    Quant,
    Quiet,
    Setting,
    Tp,
    Width,
    load_model,
    refuse_two_machines,
    request_of,
)
from .plain_options import PlainCommand, PlainGroup

if TYPE_CHECKING:
    from vram_plan import ContextCurve, Model, Plan

__all__ = ["app", "main"]

_GLOBAL = ("--help", "-h", "--version", "--install-completion", "--show-completion")


class PlanByDefault(PlainGroup):
    """`vram-plan MODEL …` is `vram-plan plan MODEL …`: a first word that is no command is a model; `help COMMAND` is its help."""

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


@app.command(cls=PlainCommand)
def plan(
    model: ModelArgument,
    ctx: Ctx = None,
    max_ctx: Annotated[bool, typer.Option("--max-ctx", help="Plan the longest context that fits.")] = False,
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
    json: Json = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw memory against context, and where the time goes.")] = False,
    save: Annotated[
        str | None, typer.Option("--save", metavar="FILE", help="Save that plot as .svg, or .png (plot extra).", show_default=False)
    ] = None,
    offline: Offline = False,
    explain: Annotated[bool, typer.Option("--explain", help="Walk through every formula with this model's numbers.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when it does not fit.")] = False,
    quiet: Quiet = False,
    width: Width = None,
) -> None:
    """Plan one model: does it fit, where does each byte go, how far could it go."""
    import vram_plan as vp

    if json and plot:
        raise vp.UsageError("--json and --plot were both given", "choose one output; --save draws into a file")
    if save:
        from .plots.files import picture_kind

        picture_kind(save)
    loaded = load_model(model, offline)
    request = request_of(
        ctx=ctx, bits=bits, quant=quant, kv=kv, kv_k=kv_k, kv_v=kv_v, parallel=parallel, engine=engine, gpu=gpu, tp=tp, pp=pp, ep=ep,
        offload=offload, prompt=prompt, output=output, setting=setting,
    )  # fmt: skip
    if max_ctx:
        request["context"] = _longest(loaded, request)
    answer = vp.plan(loaded, **request)
    if json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        _print_plan(loaded, answer, explain, quiet, width)
    if plot or save:
        _draw(vp.context_curve(loaded, **request), plot, save, width)
    if check and answer.fit.verdict == "unknown":
        raise vp.HardwareError("there is no GPU to check against", "name one with --gpu")
    if check and answer.fit.verdict not in ("fits", "tight"):
        raise typer.Exit(1)


def _longest(model: Model, request: dict[str, Any]) -> int | None:
    """The longest context that fits and that the model was trained for; None, for the usual one, where none fits."""
    import vram_plan as vp

    if request["context"] is not None:
        raise vp.UsageError("--ctx and --max-ctx were both given", "choose one")
    fit = vp.plan(model, **request).fit
    if fit.verdict == "unknown":
        raise vp.HardwareError("there is no GPU to fill", "name one with --gpu")
    return min((n for n in (fit.max_context, model.trained_context) if n is not None), default=None) or None


def _print_plan(model: Model, answer: Plan, explain: bool, quiet: bool, width: int | None) -> None:
    from .screens.plan import console, print_explanation, print_plan, print_verdict

    out = console(width)
    if quiet:
        print_verdict(answer, out)
    else:
        print_plan(answer, out)
    if explain:
        print_explanation(model, answer, out)


def _draw(curve: ContextCurve, plot: bool, save: str | None, width: int | None) -> None:
    from .plots.files import save_chart
    from .plots.plan import context_chart, print_curve
    from .screens.plan import console

    if plot:
        print_curve(curve, console(width))
    if save:
        save_chart(context_chart(curve), save)


for command in (table, compare, recommend, speed, models, calibrate, verify):
    app.command(cls=PlainCommand)(command)
app.command(name="report", cls=PlainCommand)(write)


@app.command(cls=PlainCommand)
def gpus(query: QueryArgument = "", json: Json = False, quiet: Quiet = False, width: Width = None) -> None:
    """The accelerators of the catalogue."""
    from .screens.lists import Look, print_gpus

    print_gpus(query, Look(json, quiet, width))


@app.command(cls=PlainCommand)
def formats(query: QueryArgument = "", json: Json = False, quiet: Quiet = False, width: Width = None) -> None:
    """The number formats weights can have, with their bits per weight."""
    from .screens.lists import Look, print_formats

    print_formats(query, Look(json, quiet, width))


@app.command(cls=PlainCommand)
def hardware(json: Json = False, quiet: Quiet = False, width: Width = None) -> None:
    """What was detected on this machine, and what of it is usable."""
    from .screens.lists import Look, print_hardware

    print_hardware(Look(json, quiet, width))


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
    if given[0] == "help":
        given = [*given[1:2], "--help"]
    if args is None and given[0] != "calibrate":
        gc.disable()  # a process of a second or two: to look for cycles in what it makes took a twelfth of its time
    try:
        refuse_two_machines(given)
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
