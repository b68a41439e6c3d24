"""The profiles kept on this machine: one JSON file a device, under the user's data folder.

`VRAM_PLAN_DATA_DIR` moves the folder. A file is written whole or not at all. One that cannot be read, or holds no profile, is
reported and passed over: nobody's plan fails because of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from dataclasses import replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ..errors import FormatError, UnknownNameError, UsageError
from ..values import dataclass
from .device import Device
from .profiles import EngineScale, Figure, Kind, Profile, ProfiledDevice

__all__ = [
    "StoredProfile", "attach", "export_profile", "file_of", "find_profile", "folder", "import_profile", "kind_of", "profiled",
    "read_profile", "record_engine", "remove_profile", "save_profile", "stored_profiles",
]  # fmt: skip

MAX_BYTES: Final = 4 << 20
MAX_VALUES: Final = 200_000
MAX_FILES: Final = 256
MAX_TEXT: Final = 500
#: Older than this a profile is used with a note.
OLD_DAYS: Final = 180
#: Another card of the same name has the same memory, but for what the driver keeps of it, which CUDA does not count.
_SAME_MEMORY: Final = 0.1
_SAME_POWER: Final = 0.05
_MAKERS: Final = frozenset({"nvidia", "geforce", "amd", "radeon", "instinct", "apple", "intel"})
_KINDS: Final[dict[str, Kind]] = {"NVIDIA": "cuda", "AMD": "rocm", "Apple": "mps", "CPU": "cpu"}


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A file of the store. `profile` is None where it holds none; `problem` says why."""

    name: str
    path: Path
    profile: Profile | None
    problem: str = ""


def folder() -> Path:
    """Where profiles lie; it need not exist yet."""
    if given := os.environ.get("VRAM_PLAN_DATA_DIR"):
        return Path(given) / "profiles"
    from platformdirs import user_data_path

    return user_data_path("vram-plan", appauthor=False) / "profiles"


def kind_of(device: Device) -> Kind:
    """How torch calls this maker's devices."""
    return _KINDS.get(device.vendor, "cuda")


def profiled(device: Device) -> ProfiledDevice:
    """What a profile keeps of a device."""
    return ProfiledDevice(kind_of(device), device.name, device.total, device.uuid, device.driver, device.power_limit_w)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "device"


def file_of(device: ProfiledDevice) -> str:
    """The name of a device's file, without its ending: the same for the same UUID, or name where there is none."""
    key = device.uuid or f"{device.kind}:{device.name}"
    return f"{_slug(device.name)}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises FormatError for a file that holds none, is too large or cannot be read."""
    where = f"the profile {path.name}"
    try:
        if not path.is_file():
            raise FormatError(f"{where} is no file" if path.exists() else f"{where} does not exist")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{where} cannot be read: {error.strerror}") from None
    return _parse(data, where)


def _parse(data: bytes, where: str) -> Profile:
    from pydantic import ValidationError

    from ..models.json_guard import load_json

    value = load_json(data, where, max_bytes=MAX_BYTES, max_depth=8, max_values=MAX_VALUES)
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != "vram-plan-profile/1":
        raise FormatError(f"{where} is no profile of this version (schema {str(schema)[:40]!a})", "measure again with: vram-plan calibrate")
    try:
        profile = Profile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise FormatError(f"{where}: {'.'.join(str(part)[:40] for part in first['loc'])}: {first['msg'][:120]}") from None
    if problem := _nonsense(profile) or _bad_text(value):
        raise FormatError(f"{where}: {problem}", "measure again with: vram-plan calibrate")
    return profile


def _nonsense(profile: Profile) -> str:
    """What no measurement can have given: a plan would divide by it."""
    fitted = {name: getattr(profile.fitted, name) for name in profile.fitted.__slots__}
    figures = {name: value for name, value in fitted.items() if isinstance(value, Figure)}
    figures |= {f"weight_bytes_per_s.{name}": figure for name, figure in profile.fitted.weight_bytes_per_s.items()}
    for name, figure in figures.items():
        rate = name.endswith(("flops", "_per_s")) or "_per_s." in name
        if figure.sd < 0 or figure.value < 0 or (rate and not 1.0 <= figure.value <= 1e18) or figure.value > 1e18:
            return f"{name} is {figure.value:g} ± {figure.sd:g}"
    for name, scale in profile.engines.items():
        if any(value is not None and not 0.01 <= value <= 100 for value in (scale.decode_scale, scale.prefill_scale)):
            return f"the scale of {name!a} is not between 0.01 and 100"
        if scale.samples < 1 or not 0 <= (scale.runtime_bytes or 0) <= profile.device.total_bytes:
            return f"the figures of {name!a} cannot be"
    return "" if profile.device.total_bytes > 0 and _day(profile.date) else f"its date is {profile.date[:40]!a}"


def _bad_text(value: Any) -> str:
    """A text of any key or value that is too long or would move a terminal's cursor."""
    level = [value]
    while level:
        texts = [v for v in level if isinstance(v, str)] + [key for v in level if isinstance(v, dict) for key in v]
        for text in texts:
            if len(text) > MAX_TEXT or not text.isprintable():
                return f"the text {text[:40]!a} is too long or cannot be printed"
        level = [inner for v in level if isinstance(v, (dict, list)) for inner in (v.values() if isinstance(v, dict) else v)]
    return ""


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def _files() -> list[Path]:
    try:
        return sorted(islice((path for path in folder().iterdir() if path.suffix == ".json"), MAX_FILES))
    except OSError:
        return []


def _stored(path: Path) -> StoredProfile:
    try:
        return StoredProfile(path.stem, path, read_profile(path))
    except FormatError as error:
        return StoredProfile(path.stem, path, None, error.message)


def stored_profiles() -> tuple[StoredProfile, ...]:
    """Every file of the store, by name; those that hold no profile say why."""
    return tuple(_stored(path) for path in _files())


def find_profile(name: str) -> StoredProfile:
    """The file that a file's or a device's name (or a part only one has) means. Raises UnknownNameError."""
    stored = stored_profiles()
    wanted = name.strip().lower()
    exact = [one for one in stored if wanted in (one.name, one.profile.device.name.lower() if one.profile else "")]
    found = exact or [one for one in stored if wanted and (wanted in one.name or _slug(wanted) in one.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in found or stored)
    if not stored:
        raise UnknownNameError(f"no profile is called {name[:60]!a}: there is none yet", "measure this machine with: vram-plan calibrate")
    what = "several profiles are" if found else "no profile is"
    raise UnknownNameError(f"{what} called {name[:60]!a}", f"there are: {names[:400]}")


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> Path:
    """The whole file or none of it: written beside, flushed to the disk, then renamed."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "VRAM_PLAN_DATA_DIR names another folder for profiles") from None
    finally:
        with contextlib.suppress(OSError):
            Path(temporary).unlink(missing_ok=bool(temporary))
    return path


def save_profile(profile: Profile) -> Path:
    """Keep a device's profile in place of its last one, whose measured engines it takes over. Raises UsageError."""
    path = folder() / f"{file_of(profile.device)}.json"
    old = _stored(path).profile if path.is_file() else None
    kept = {name: scale for name, scale in old.engines.items() if name not in profile.engines} if old else {}
    return _write(path, _text(replace(profile, engines={**kept, **profile.engines})))


def _text(profile: Profile) -> str:
    """The file's text, which `read_profile` takes: what a driver or torch said in the notes is cut to what can be printed."""
    return replace(profile, flags=tuple(map(_plain, profile.flags))).model_dump_json(indent=1) + "\n"


def _plain(text: str) -> str:
    return "".join(ch if ch.isprintable() else " " for ch in text)[:MAX_TEXT]


def record_engine(device: Device, engine: str, scale: EngineScale) -> Path:
    """Keep what a real engine did on a device, averaged with earlier runs of the same version of it."""
    path = folder() / f"{file_of(profiled(device))}.json"
    old = _stored(path).profile if path.is_file() else None
    from .. import __version__

    today = _today().isoformat()
    profile = old or Profile(date=today, vram_plan=__version__, device=profiled(device))
    before = profile.engines.get(engine)
    merged = replace(_averaged(before, scale) if before and before.version == scale.version else scale, date=scale.date or today)
    return save_profile(replace(profile, engines={**profile.engines, engine: merged}))


def _averaged(old: EngineScale, new: EngineScale) -> EngineScale:
    def mean(before: float | None, now: float | None) -> float | None:
        if before is None or now is None:
            return before if now is None else now
        return (before * old.samples + now * new.samples) / (old.samples + new.samples)

    held = mean(old.runtime_bytes, new.runtime_bytes)
    return replace(
        new, decode_scale=mean(old.decode_scale, new.decode_scale), prefill_scale=mean(old.prefill_scale, new.prefill_scale),
        runtime_bytes=None if held is None else round(held), samples=old.samples + new.samples,
    )  # fmt: skip


def remove_profile(name: str) -> Path:
    """Delete a profile, found as `find_profile` does. Raises UnknownNameError, UsageError."""
    path = find_profile(name).path
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be removed: {error.strerror}") from None
    return path


def export_profile(name: str, target: Path) -> Path:
    """Write a profile to a file for another machine, without the device's UUID. An existing file is not overwritten."""
    found = find_profile(name)
    if found.profile is None:
        raise FormatError(found.problem, "measure again with: vram-plan calibrate")
    if target.exists():
        raise UsageError(f"{target} exists already", "choose another name")
    return _write(target, _text(replace(found.profile, device=replace(found.profile.device, uuid=None))))


def import_profile(source: Path) -> Path:
    """Take a profile from a file into the store. Raises FormatError for another kind of file, UsageError where the device has one."""
    profile = read_profile(source)
    path = folder() / f"{file_of(profile.device)}.json"
    if path.exists():
        raise UsageError(f"{profile.device.name} has a profile already", f"remove it first: vram-plan calibrate --remove {path.stem}")
    return save_profile(profile)


# --- which profile a device has ---------------------------------------------------------------------------------------


def attach(devices: tuple[Device, ...]) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Each device with its stored profile, and notes: on a file that is not used, or one from other circumstances than today's."""
    files = _files() if devices else []
    if not files:
        return devices, ()
    notes: list[str] = []
    found = []
    for device in devices:
        profile = _profile_of(device, files, notes)
        found.append(replace(device, profile=profile) if profile else device)
        notes.extend(_doubts(profile, device) if profile else ())
    return tuple(found), tuple(dict.fromkeys(notes))


def _profile_of(device: Device, files: list[Path], notes: list[str]) -> Profile | None:
    """The device's own file; else the newest of a device of the same kind, name and memory."""
    own = file_of(profiled(device))
    same_name = [path for path in files if _words(path.stem.rpartition("-")[0]) == _words(device.name)]
    candidates = []
    for path in sorted(same_name, key=lambda path: path.stem != own):
        stored = _stored(path)
        if stored.profile is None:
            notes.append(f"{stored.problem}; not used (vram-plan calibrate --remove {stored.name})")
        elif stored.name == own and stored.profile.device.kind == kind_of(device):
            return stored.profile
        elif _alike(stored.profile.device, device):
            candidates.append(stored)
    best = max(candidates, key=lambda one: one.profile.date if one.profile else "", default=None)
    if best is None or best.profile is None:
        return None
    notes.append(f"GPU {device.index}: the profile was measured on another {device.name}")
    return best.profile


def _alike(known: ProfiledDevice, device: Device) -> bool:
    same = known.kind == kind_of(device) and _words(known.name) == _words(device.name)
    return same and abs(known.total_bytes / device.total - 1) < _SAME_MEMORY


def _words(name: str) -> list[str]:
    """A name's telling words: torch and the catalogue do not name makers and lines alike."""
    return [word for word in _slug(name).split("-") if word not in _MAKERS]


def _doubts(profile: Profile, device: Device) -> list[str]:
    """What has changed since a profile was measured."""
    measured, doubts = profile.device, []
    if measured.driver and device.driver and measured.driver != device.driver:
        doubts.append(f"driver {measured.driver} then, {device.driver} now")
    if profile.software and (torch := _torch_version()) and torch != profile.software.torch.partition("+")[0]:
        doubts.append(f"torch {profile.software.torch} then, {torch} now")
    limits = (measured.power_limit_w, device.power_limit_w)
    if limits[0] and limits[1] and abs(limits[1] / limits[0] - 1) > _SAME_POWER:
        doubts.append(f"power limit {limits[0]:.0f} W then, {limits[1]:.0f} W now")
    taken = _day(profile.date)
    if taken and (days := (_today() - taken).days) > OLD_DAYS:
        doubts.append(f"measured {days} days ago")
    return [f"the calibration of {device.name} may be out of date: {'; '.join(doubts)} (vram-plan calibrate)"] if doubts else []


def _today() -> date:
    return date.today()


def _torch_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch").partition("+")[0]
    except PackageNotFoundError:
        return None
