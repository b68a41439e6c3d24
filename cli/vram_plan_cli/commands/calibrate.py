"""`calibrate`: measure this machine with torch, keep what was found, and look after what is kept."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..language import say
from ..options import Json, Offline, Quiet, Width, complete_model, load_model

if TYPE_CHECKING:
    from vram_plan import Profile, StoredProfile

__all__ = ["calibrate"]


def calibrate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            show_default=False,
            autocompletion=complete_model,
            help="A model whose architecture is measured too, with random weights: nothing is downloaded but its config.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cuda, cuda:1, mps or cpu. Default: the GPU, else the CPU.", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="bf16, f16 or f32. Default: bf16; int8 and int4 come on top where there is time.", show_default=False),
    ] = None,
    budget: Annotated[float, typer.Option("--budget", min=5, max=3600, help="Seconds it may take.")] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be measured and how long it takes; measure nothing.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="The profiles that are kept.")] = False,
    show: Annotated[str | None, typer.Option("--show", metavar="NAME", help="One of them, by its own or its device's name.")] = None,
    remove: Annotated[str | None, typer.Option("--remove", metavar="NAME", help="Delete one.")] = None,
    export: Annotated[
        str | None, typer.Option("--export", metavar="FILE", help="Write one (--show NAME, or the only one) to a file, without the UUID.")
    ] = None,
    imported: Annotated[str | None, typer.Option("--import", metavar="FILE", help="Take one from a file, for a card of that name.")] = None,
    points: Annotated[bool, typer.Option("--points", help="Also every point that was measured.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw decode time against context, with the fitted line.")] = False,
    save: Annotated[str | None, typer.Option("--save", metavar="FILE", help="Write that plot as .svg, or .png (extra plot).")] = None,
    json: Json = False,
    quiet: Quiet = False,
    width: Width = None,
    offline: Offline = False,
) -> None:
    """Run a real prefill and decode here with torch, and keep what was found: later plans on this device use it."""
    import vram_plan as vp

    measuring = {"MODEL": model, "--device": device, "--dtype": dtype, "--dry-run": dry_run}
    keeping = {"--list": listed, "--remove": remove, "--import": imported, "--show or --export": show or export}
    _refuse_mixtures({name: bool(value) for name, value in measuring.items()}, {name: bool(value) for name, value in keeping.items()})
    if json and plot:
        raise vp.UsageError("--json and --plot were both given", "choose one output; --save draws into a file")
    if listed:
        return _list(vp.stored_profiles(), json, width)
    if remove:
        return typer.echo(say(f"removed: {vp.remove_profile(remove).stem}"))
    if imported:
        return typer.echo(say(f"kept: {vp.import_profile(Path(imported)).stem}"))
    if export:
        return typer.echo(say(f"written: {vp.export_profile(_chosen(show).name, Path(export))}"))
    if dry_run:
        return _dry_run(model, device, dtype, budget, offline, json, width)
    profile = _profile_of(_chosen(show)) if show else _measure(model, device, dtype, budget, offline)
    return _answer(profile, json, points, plot, save, quiet, width, kept=not show)


def _refuse_mixtures(measuring: dict[str, bool], keeping: dict[str, bool]) -> None:
    """One thing at a time. Raises UsageError."""
    import vram_plan as vp

    asked = [name for name, given in keeping.items() if given]
    asked += [name for name, given in measuring.items() if given][:1] if asked else []
    if len(asked) > 1:
        raise vp.UsageError(f"{asked[0]} and {asked[1]} were both given", "do one, then the other")


def _measure(model: str | None, device: str | None, dtype: str | None, budget: float, offline: bool) -> Profile:
    import vram_plan as vp

    from ..screens.calibrate import measuring

    loaded = load_model(model, offline) if model else None
    with measuring() as progress:
        profile: Profile = vp.calibrate(loaded, device=device, dtype=dtype, budget_s=budget, progress=progress)
    return profile


def _dry_run(model: str | None, device: str | None, dtype: str | None, budget: float, offline: bool, json: bool, width: int | None) -> None:
    import vram_plan as vp

    loaded = load_model(model, offline) if model else None
    work: Any = vp.calibrate(loaded, device=device, dtype=dtype, budget_s=budget, dry_run=True)
    if json:
        return typer.echo(jsonlib.dumps({"seconds": round(work.seconds, 1), "work": work.in_words()}, indent=1))
    from ..screens.plan import console, show

    return show(console(width), f"About {work.seconds:.0f} s:", *(f"  {line}" for line in work.in_words()))


def _chosen(name: str | None) -> StoredProfile:
    """The profile that is named, or the only one there is. Raises UnknownNameError, UsageError."""
    import vram_plan as vp

    if name is not None:
        return vp.find_profile(name)
    stored = [one for one in vp.stored_profiles() if one.profile]
    if len(stored) == 1:
        return stored[0]
    if not stored:
        raise vp.UnknownNameError("there is no profile yet", "measure this machine with: vram-plan calibrate")
    raise vp.UsageError(f"there are {len(stored)} profiles", f"name one with --show: {', '.join(one.name for one in stored)[:300]}")


def _profile_of(stored: StoredProfile) -> Profile:
    import vram_plan as vp

    if stored.profile is None:
        raise vp.FormatError(stored.problem, f"remove it with: vram-plan calibrate --remove {stored.name}")
    return stored.profile


def _list(stored: tuple[StoredProfile, ...], json: bool, width: int | None) -> None:
    from ..screens.calibrate import print_profiles
    from ..screens.plan import console

    if not json:
        return print_profiles(stored, console(width))
    rows = [{"name": one.name, "file": str(one.path), "problem": one.problem or None, **_summary(one.profile)} for one in stored]
    return typer.echo(jsonlib.dumps(rows, indent=1))


def _summary(profile: Profile | None) -> dict[str, Any]:
    if profile is None:
        return {}
    whole = profile.model_dump(mode="json")
    kept = ("schema", "date", "vram_plan", "device", "software", "dtype", "model", "held_out", "engines", "flags")
    return {key: whole[key] for key in kept}


def _answer(
    profile: Profile, json: bool, points: bool, plot: bool, save: str | None, quiet: bool, width: int | None, kept: bool
) -> None:
    from ..plots.files import save_chart
    from ..plots.terminal import print_chart
    from ..screens.calibrate import decode_chart, print_points, print_profile
    from ..screens.plan import console, show

    out = console(width)
    if json:
        typer.echo(profile.model_dump_json(indent=1))
    else:
        print_profile(profile, out, quiet)
        if points:
            print_points(profile, out)
        if plot:
            show(out, "")
            print_chart(decode_chart(profile), out)
        if kept and not quiet:
            show(out, "", _next(profile))
    if save:
        save_chart(decode_chart(profile), save)


def _next(profile: Profile) -> str:
    """Where it went, and which plans take it."""
    from ..screens.calibrate import is_used

    if not is_used(profile):
        return "kept (vram-plan calibrate --list)"
    plans = "vram-plan MODEL --gpu cpu" if profile.device.kind == "cpu" else "plans for transformers, vLLM, SGLang"
    return f"kept (vram-plan calibrate --list); used by {plans}"
