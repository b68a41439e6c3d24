"""Made-up and kept answers for the screens: only the drawing is held fixed, not what is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import vram_plan as vp
from rich.console import Console
from vram_plan.hardware import Detection, Device
from vram_plan.hardware.device import Process
from vram_plan.questions.catalogue_fit import ModelFit, ModelsFit
from vram_plan.questions.cells import Cell, Machine
from vram_plan.questions.compare import Comparison, Line, Subject
from vram_plan.questions.curve import CurvePoint, Times
from vram_plan.questions.prices import Price
from vram_plan.questions.recommend import Miss, Option, Recommendation
from vram_plan.questions.table import Table, TableRow
from vram_plan.results import EstimatedRate, LaunchCommand, Plan

__all__ = ["DATA", "SCREENS", "TABLE", "devices"]

DATA = Path(__file__).resolve().parent / "data" / "screens"
GIB = 1 << 30
CARD = Machine("RTX 3060 12GB", 1, 12 * GIB, 11 * GIB, 11 * GIB)


def kept(name: str) -> Plan:
    return Plan.model_validate_json((DATA / f"{name}.json").read_text(encoding="utf-8"))


TABLE = Table(
    "meta-llama/Meta-Llama-3-8B", 8192, "ollama", CARD, "f16", "f16", 1, (4096, 8192, 131072),
    (
        TableRow("Q8_0", 8.5, 8 * GIB, (
            Cell(4096, 9 * GIB, 2 * GIB, "fits"), Cell(8192, 11 * GIB, 1 << 20, "tight"), Cell(131072, 25 * GIB, -14 * GIB, "does_not_fit"),
        ), 8400, None),
        TableRow("Q4_K_M", 4.9, 4 * GIB, (
            Cell(4096, 5 * GIB, 6 * GIB, "fits"), Cell(8192, 6 * GIB, 5 * GIB, "fits"), Cell(131072, 21 * GIB, -10 * GIB, "does_not_fit"),
        ), None, None),
    ),
    ("engine not given: Ollama (a small format on one GPU)",),
)  # fmt: skip

_START = LaunchCommand("ollama", "ollama run a", {"OLLAMA_FLASH_ATTENTION": "1"})
COMPARISON = Comparison(
    (Subject("RTX 4090", SimpleNamespace(launch=(_START,), fit=SimpleNamespace(verdict="fits"))),  # type: ignore[arg-type]
     Subject("8GB", SimpleNamespace(launch=()))),  # type: ignore[arg-type]
    (
        Line("verdict", "text", ("fits", "does_not_fit"), True, (0,)),
        Line("weights", "bytes", (4 * GIB, 4 * GIB), False, ()),
        Line("longest context", "tokens", ("no limit", 1000), True, (0,)),
        Line("first token", "s", (0.5, None), True, ()),
    ),
    ("Llama", "ollama"),
)

_RATE = EstimatedRate(41.7, 30, 50, "memory")
MODELS = ModelsFit(
    CARD, "ollama", 8192, 2,
    (
        ModelFit("moe-30b", "a/moe", 30 * 10**9, 3 * 10**9, 40960, "Q4_K_M", 10 * GIB, GIB, "tight", 20480, _RATE, 1.0, 0.03),
        ModelFit("dense-8b", "a/dense", 8 * 10**9, 8 * 10**9, 8192, "Q8_0", 9 * GIB, 2 * GIB, "fits", 8192, None, None, 0.0),
    ),
    7, 0, 3,
)  # fmt: skip


def _option(plan: Plan, name: str, gpus: int, loss: float, price: Price | None, reason: str, traded: tuple[str, ...]) -> Option:
    machine = Machine(name, gpus, gpus * 24 * GIB, gpus * 23 * GIB, gpus * 23 * GIB)
    return Option(
        machine=machine, engine=plan.request.engine, format=plan.request.quant, tensor_parallel=gpus, pipeline_parallel=1, offload="auto",
        needed=plan.memory.total, plan=plan, loss=loss, quality=None, power_w=450.0 * gpus, price=price, price_per_million=None,
        reason=reason, traded=traded,
    )  # fmt: skip


def recommendation(nothing: bool) -> Recommendation:
    fits, large = kept("plan-fits"), kept("plan-too-large")
    better = "BF16 loses nothing, not 2.8 %; 3.1 × as fast"
    options = (
        _option(fits, "RTX 4060", 1, 0.028, Price(300, "$", ""), "the cheapest of the 12 machines that do what was asked", ()),
        _option(fits, "2 × RTX 4090", 2, 0.0, Price(3600, "$", ""), better, ("$3,600 instead of $300",)),
    )
    miss = Miss(_option(large, "2 × RTX 4090", 2, 0.0, None, "", ()), ("19.37 GiB short on the fullest GPU",), large.fit.suggestions)
    return Recommendation(
        "meta-llama/Meta-Llama-3-8B", 16384, 1, 20.0, 60.0, () if nothing else options, (miss,) if nothing else (), 1234,
        ("formats that lose more than 6 % are left out; name them with --quant",),
    )  # fmt: skip


def curve() -> vp.ContextCurve:
    points = tuple(
        CurvePoint(max(n, 1), 4 * GIB, n * GIB // 8192, 0, GIB // 8, GIB // 4, int(7.5 * GIB) - 4 * GIB - n * GIB // 8192 - 3 * GIB // 8)
        for n in range(0, 32769, 1024)
    )
    times = Times((("weights", 0.02), ("KV", 0.009), ("per-layer overhead", 0.001)), (("weights", 0.6), ("compute", 11.0)))
    return vp.ContextCurve(
        "m", "ollama", "Q4_K_M", 1, "NVIDIA GeForce RTX 4060", 0, 1, int(7.5 * GIB), False, 25600, 16384, 16384, 8192, points, times
    )


def devices() -> Detection:
    """Two cards, of which one drives a display."""
    card = Device(
        name="NVIDIA GeForce RTX 3090", index=0, total=24 * GIB, usable=23 * GIB, free=20 * GIB, used_by_others=3 * GIB, vendor="NVIDIA",
        uuid="GPU-00000000-1111-2222-3333-444444444444", compute_capability="8.6", driver="570.86", processes=(Process(4242, "Xorg", GIB),),
    )  # fmt: skip
    return Detection((card, replace(card, index=1, free=None, processes=())), ("CUDA_VISIBLE_DEVICES hides 2 GPUs",), local=True)


def _plan(name: str) -> Callable[[int], None]:
    def draw(width: int) -> None:
        from vram_plan_cli.screens.plan import console, print_plan

        print_plan(kept(name), console(width))

    return draw


def _plot(width: int) -> None:
    from vram_plan_cli.plots.plan import print_curve
    from vram_plan_cli.screens.plan import console

    print_curve(curve(), console(width))


def _terminal(width: int) -> None:
    """As on a terminal: with the bar."""
    import sys

    from vram_plan_cli.screens.plan import print_plan

    out = Console(file=sys.stdout, width=width, force_terminal=True, color_system=None, markup=False, highlight=False)
    print_plan(kept("plan-fits"), out)


def _questions(name: str) -> Callable[[int], None]:
    def draw(width: int) -> None:
        from vram_plan_cli.screens.compare import print_comparison
        from vram_plan_cli.screens.models import print_models_fit
        from vram_plan_cli.screens.recommend import print_recommendation
        from vram_plan_cli.screens.table import print_table

        {
            "table": lambda: print_table(TABLE, "", width),
            "compare": lambda: print_comparison(COMPARISON, "", width),
            "recommend": lambda: print_recommendation(recommendation(False), "", width),
            "recommend-nothing": lambda: print_recommendation(recommendation(True), "", width),
            "models": lambda: print_models_fit(MODELS, "", width=width),
        }[name]()

    return draw


def _lists(name: str) -> Callable[[int], None]:
    def draw(width: int) -> None:
        from vram_plan_cli.screens import lists

        look = lists.Look(width=width)
        {
            "gpus": lambda: lists.print_gpus("rtx 4090", look),
            "formats": lambda: lists.print_formats("q4", look),
            "hardware": lambda: lists.print_hardware(look),
        }[name]()

    return draw


#: Each screen by name: prints itself in so many columns.
SCREENS: dict[str, Callable[[int], None]] = {
    "plan": _plan("plan-fits"),
    "plan-terminal": _terminal,
    "plan-too-large": _plan("plan-too-large"),
    "plot": _plot,
    **{name: _questions(name) for name in ("table", "compare", "recommend", "recommend-nothing", "models")},
    **{name: _lists(name) for name in ("gpus", "formats", "hardware")},
}
