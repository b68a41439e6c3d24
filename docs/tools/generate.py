"""Renew, or with --check compare, the generated blocks of README.md and the pages under docs/.

Under a line `<!-- run -->` stands a fenced block that is run: of a `console` block the `$ vram-plan …` and `$ python …` lines,
with what they print put below each; of a `python` block the whole, one namespace a page, with what it prints put into the
`text` block that follows. `docs/cli.md` is the commands' own help.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)
PYTHON = re.compile(r"(<!-- run -->\n```python\n)(.*?)(```\n)(?:\n```text\n.*?```\n)?", re.DOTALL)
PLAIN = {"COLUMNS": "80", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that shows the repository's files but takes what a command writes; and no settings of the user's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for entry in ROOT.iterdir():
            (folder / entry.name).symlink_to(entry)
        yield folder


def run(command: str, folder: Path) -> str:
    """What a command prints, at 80 columns, plain, without the network. A failure of a Python example is ours."""
    words = shlex.split(command)
    example = words[0] == "python"
    words[:1] = [sys.executable] if example else [sys.executable, "-m", "vram_plan_cli"]
    paths = os.pathsep.join(str(ROOT / part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part)
    env = os.environ | PLAIN | {"PYTHONPATH": paths, "VRAM_PLAN_DATA_DIR": str(folder / "user-data")}
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env=env, cwd=folder, timeout=120, check=example)  # noqa: S603
    lines = (done.stdout + done.stderr).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def renewed(text: str, folder: Path) -> str:
    """A page with every block run again."""
    namespace: dict[str, Any] = {"__name__": "__main__"}

    def console(match: re.Match[str]) -> str:
        commands = [line[2:] for line in match[2].splitlines() if line.startswith("$ ")]
        return match[1] + "\n".join(f"$ {command}\n{run(command, folder)}" for command in commands) + match[3]

    def python(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match[2], "a block of the docs", "exec"), namespace)  # noqa: S102  our own pages
        shown = f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else ""
        return match[1] + match[2] + match[3] + shown

    return PYTHON.sub(python, CONSOLE.sub(console, text))


def command_reference(folder: Path) -> str:
    """The help of every command."""
    from vram_plan_cli.app import app

    names = [info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands]
    parts = ["# Commands\n\nWritten from the commands' own help.\n"]
    for name in ("", *names):
        command = f"vram-plan {name}".strip()
        parts.append(f"\n## {command}\n\n```text\n{run(command + ' --help', folder).strip()}\n```\n")
    return "".join(parts)


def pages() -> list[Path]:
    written = [path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    return [ROOT / "README.md", *sorted(written)]


def main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    with scratch() as folder:
        texts = {path: renewed(path.read_text(encoding="utf-8"), folder) for path in pages()}
        texts[ROOT / "docs" / "cli.md"] = command_reference(folder)
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(texts[path], encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not current: run make docs")
    if not stale:
        print(f"docs: {len(texts)} pages current")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
