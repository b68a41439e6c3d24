"""What `import vram_plan` promises."""

from __future__ import annotations

import subprocess
import sys

import vram_plan as vp


def test_all_names_exist_and_are_sorted() -> None:
    assert vp.__all__ == sorted(vp.__all__, key=lambda name: (name.islower(), name))
    assert set(vp.__all__) == set(vp._HOME_OF)
    for name in vp.__all__:
        assert getattr(vp, name) is not None


def test_importing_it_is_light() -> None:
    heavy = "torch", "huggingface_hub", "pynvml", "rich", "typer", "pydantic"
    work = "import vram_plan as v, sys; v.plan(v.load('llama3-8b'), context='16k', bits=4, gpus='RTX 4060')"
    code = f"{work}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_drivers_binding_is_not_imported_where_there_is_no_driver() -> None:
    code = (
        "import ctypes, sys, vram_plan as v\n"
        "def absent(name, *a, **k): raise OSError(name)\n"
        "ctypes.CDLL = absent\n"
        "print(sys.platform.startswith('linux') and 'pynvml' in sys.modules, v.local_devices().reason != '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_no_module_hides_a_public_name() -> None:
    """A submodule becomes an attribute of its package when it is imported, in place of a function of that name."""
    import pkgutil

    assert not {module.name for module in pkgutil.iter_modules(vp.__path__)} & set(vp.__all__)
