"""Options read at once are read as typer itself reads them."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperCommand
from typer.testing import CliRunner
from vram_plan_cli.plain_options import PlainCommand

LINES = (
    "", "m", "m --bits 4", "m --bits 007", "m --bits ' 4'", "m --bits 4.0", "m --bits +4", "m --bits ४", "m --bits four", "m --bits ''",
    "m --bits 99999999999999999999", "m --width 80", "m --width 5", "m --width x", "m --name ''", "m --name é --flag", "m --set a --set b",
    "m --parallel -3", "m n", "m --checked yes", "m --checked no", "m --unknown",
)  # fmt: skip


def _checked(value: str | None) -> str | None:
    if value == "no":
        raise typer.BadParameter("not this")
    return value and f"checked {value}"


def _app(kind: type[TyperCommand]) -> typer.Typer:
    app = typer.Typer()

    @app.command(cls=kind)
    def run(
        model: str,
        bits: Annotated[int | None, typer.Option()] = None,
        width: Annotated[int | None, typer.Option(min=20, max=100)] = None,
        name: str = "auto",
        parallel: int = 1,
        flag: bool = False,
        setting: Annotated[list[str] | None, typer.Option("--set")] = None,
        checked: Annotated[str | None, typer.Option(callback=_checked)] = None,
    ) -> None:
        typer.echo(repr((model, bits, width, name, parallel, flag, setting, checked)))

    return app


@pytest.mark.parametrize("line", LINES)
def test_reads_as_typer_does(line: str) -> None:
    answers: list[Any] = [CliRunner().invoke(_app(kind), line, prog_name="run") for kind in (TyperCommand, PlainCommand)]
    assert answers[0].output == answers[1].output
    assert answers[0].exit_code == answers[1].exit_code


def test_a_plain_plan_makes_no_adapter() -> None:
    code = "import sys; from vram_plan_cli.app import main\ntry: main()\nexcept SystemExit: print('typer._adapters' in sys.modules)"
    command = [sys.executable, "-c", code, "llama3-8b", "--ctx", "16k", "--bits", "4", "--gpu", "24GB"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
