"""Renew, or with --check compare, the generated blocks of README.md and docs/*.md.

A block is a fenced `console` listing under a line `<!-- run -->`: its `$ vram-plan …` and `$ python …` lines are run and what
they print is put below them. `docs/cli.md` is the commands' own help.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)
COMMANDS = ("plan", "table", "compare", "recommend", "models", "gpus", "formats", "hardware")


def run(command: str) -> str:
    """What a command prints, at 80 columns, plain, without the network."""
    words = shlex.split(command)
    if words[0] == "vram-plan":
        words[:1] = [sys.executable, "-m", "vram_plan_cli"]
    elif words[0] == "python":
        words[0] = sys.executable
    env = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", env=env, cwd=ROOT, timeout=120, check=False)  # noqa: S603
    lines = (done.stdout + done.stderr).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def renewed(text: str) -> str:
    """A page with every block's commands run again."""

    def block(match: re.Match[str]) -> str:
        commands = [line[2:] for line in match[2].splitlines() if line.startswith("$ ")]
        return match[1] + "\n".join(f"$ {command}\n{run(command)}" for command in commands) + match[3]

    return BLOCK.sub(block, text)


def command_reference() -> str:
    """The help of every command."""
    parts = ["# Commands\n\nWritten from the commands' own help.\n"]
    for name in ("", *COMMANDS):
        command = f"vram-plan {name}".strip()
        parts.append(f"\n## {command}\n\n```text\n{run(command + ' --help').strip()}\n```\n")
    return "".join(parts)


def main() -> int:
    pages = {path: renewed(path.read_text(encoding="utf-8")) for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
    pages[ROOT / "docs" / "cli.md"] = command_reference()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(pages[path], encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not current: run make docs")
    if not stale:
        print(f"docs: {len(pages)} pages current")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
