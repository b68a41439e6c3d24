"""HTML for a page of its own: everything is escaped, the style is inside, nothing is fetched and no script runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ..language import language_tag, say
from ..plots.svg import COLOURS, svg_style

__all__ = ["GENERATOR", "INK", "Cell", "Html", "colour_pairs", "el", "page", "table"]

#: What a page of ours says of itself; only such a page is written over without being asked.
GENERATOR: Final = "vram-plan report"
#: Colours of words beside those of the drawings, on the page and on its panels.
INK: Final = {
    "light": {
        "panel": "#f3f5f8", "rule": "#c6cdd8",
        "fits": "#14692a", "tight": "#7a4d00", "does_not_fit": "#a3201a", "unknown": "#1c2430",
    },
    "dark": {
        "panel": "#1b212a", "rule": "#414b59",
        "fits": "#74d68a", "tight": "#efbf5c", "does_not_fit": "#ff9a91", "unknown": "#e8ecf2",
    },
}  # fmt: skip
_VERDICTS: Final = ("fits", "tight", "does_not_fit", "unknown")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def el(name: str, *children: str, **attributes: str | bool) -> Html:
    """An element; text within is said in the chosen language and escaped, as are attributes (`class_`: class). Code stays as it is."""
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not False and value != ""
    )
    within = "".join(child if isinstance(child, Html) else escape(child if name == "code" else _said(child)) for child in children)
    return Html(f"<{name}{said}>{within}</{name}>")


def _said(text: str) -> str:
    return "\n".join(map(say, text.split("\n")))


Cell = str | tuple[str, str]


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Cell]], wide: Sequence[int] = (), text: Sequence[int] = ()) -> Html:
    """A table whose first column names the row. Columns in `wide` are left out on a narrow screen; those in `text` hold words.
    A cell is its words, or its words and a class."""

    def css(i: int, own: str = "") -> str:
        return " ".join(filter(None, ("wide" if i in wide else "", "words" if i in text else "" if i == 0 else "number", own)))

    def data(i: int, cell: Cell) -> Html:
        words, own = cell if isinstance(cell, tuple) else (cell, "")
        return el("th", words, scope="row", class_=css(i, own)) if i == 0 else el("td", words, class_=css(i, own))

    head = el("tr", *(el("th", title, scope="col", class_=css(i)) for i, title in enumerate(header)))
    body = [el("tr", *(data(i, cell) for i, cell in enumerate(row))) for row in rows]
    return el("table", el("caption", caption), el("thead", head), el("tbody", *body))


def page(title: str, body: Iterable[Html]) -> str:
    """The whole document."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">'
        f'<meta name="color-scheme" content="light dark"><meta name="generator" content="{GENERATOR}">'
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{language_tag()}">\n<head>{head}{el("title", title)}<style>{_style()}</style></head>\n'
        f"<body>{el('main', *body)}</body>\n</html>\n"
    )


def _style() -> str:
    """The page's style: two colour schemes, one column, tables that fit a phone."""
    inks = {name: "".join(f"--{key.replace('_', '-')}:{value};" for key, value in ink.items()) for name, ink in INK.items()}
    verdicts = "".join(f".{name}{{color:var(--{name.replace('_', '-')})}}" for name in _VERDICTS)
    return (
        f"{svg_style()}:root{{{inks['light']}}}@media (prefers-color-scheme:dark){{:root{{{inks['dark']}}}}}{verdicts}"
        "*{box-sizing:border-box}"
        "body{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,sans-serif}"
        "main{max-width:820px;margin:0 auto;padding:1.25rem 1rem 3rem}"
        "h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2.25rem 0 .5rem}"
        "h3{font-size:1rem;margin:1rem 0 .25rem}p{margin:.5rem 0;overflow-wrap:anywhere}.verdict{font-size:1.1rem;font-weight:600}"
        ".quiet,caption,footer{color:var(--quiet)}"
        "table{border-collapse:collapse;width:100%;margin:.75rem 0;font-size:.9rem}"
        "caption{text-align:left;padding:.25rem 0;font-size:.9rem}"
        "th,td{padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top;overflow-wrap:break-word}"
        "th{font-weight:600}tbody th{font-weight:400}.number{text-align:right;font-variant-numeric:tabular-nums}"
        ".number{white-space:nowrap}thead .number{white-space:normal}.words{overflow-wrap:anywhere}.chosen{font-weight:700}"
        "svg{display:block;width:100%;height:auto;margin:.5rem 0}.narrow-only{display:none}"
        "pre{background:var(--panel);padding:.75rem;border-radius:6px;font-size:.85rem;margin:.5rem 0}"
        "pre{white-space:pre-wrap;overflow-wrap:anywhere}"
        "li{overflow-wrap:anywhere;margin:.2rem 0}ul{padding-left:1.2rem}"
        "details{margin:.5rem 0;border-bottom:1px solid var(--rule)}summary{cursor:pointer;padding:.35rem 0;font-weight:600}"
        "summary:focus-visible{outline:3px solid var(--p0);outline-offset:2px}"
        "footer{margin-top:3rem;font-size:.85rem}"
        "@media (min-width:601px){tbody th{white-space:nowrap}}"
        "@media (max-width:600px){.wide{display:none}.wide-only{display:none}.narrow-only{display:block}"
        "th,td{padding-right:.4rem}table{font-size:.82rem}}"
        "@media (max-width:380px){.number{white-space:normal}}"
        "@media print{details>*{display:block}}"
    )


def colour_pairs() -> list[tuple[str, str, str, float]]:
    """(what, foreground, background, the contrast it must have): words 4.5, shapes 3, as WCAG 2.2 asks."""
    pairs: list[tuple[str, str, str, float]] = []
    for name, drawn in COLOURS.items():
        ground, panel = str(drawn["ground"]), INK[name]["panel"]
        words = {"text": str(drawn["text"]), "quiet": str(drawn["quiet"])} | {verdict: INK[name][verdict] for verdict in _VERDICTS}
        pairs += [(f"{name} {word} on {behind}", ink, behind, 4.5) for word, ink in words.items() for behind in (ground, panel)]
        pairs += [(f"{name} limit", str(drawn["limit"]), ground, 3.0)]
        pairs += [(f"{name} part {i}", part, ground, 3.0) for i, part in enumerate(drawn["part"])]
    return pairs
