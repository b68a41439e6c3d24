"""Audio towers: each family's graph from the recording llama.cpp warms up with, 30 seconds, to the language model's tokens.

Source: llama.cpp 0c1e57098, tools/mtmd/models/whisper-enc.cpp, qwen3a.cpp, gemma4ua.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .graph import Value
from .layers import transformer
from .tower import Tower

__all__ = ["AUDIO", "FRAMES", "hearer"]

Build = Callable[[Tower], Value]
AUDIO: Final[dict[str, Build]] = {}
#: Frames of 10 ms (`warmup_audio_size`).
FRAMES: Final = 3000
#: Frames Qwen 3 hears at once, apart from all others.
_CHUNK: Final = 100


def hearer(*families: str) -> Callable[[Build], Build]:
    """Mark a graph as that of these families' audio towers."""

    def mark(build: Build) -> Build:
        AUDIO.update(dict.fromkeys(families, build))
        return build

    return mark


def _whisper(t: Tower, *, halved: bool) -> Value:
    """Two convolutions, the second of every other frame; positions are a weight. `halved`: two neighbours averaged before the last norm."""
    g, bins = t.graph, t.columns("a.conv1") // 3
    x = g.input(bins, FRAMES)
    for inputs, rows in ((3 * bins, FRAMES), (3 * t.width, FRAMES // 2)):
        x = g.over(g.matmul(g.new(inputs, rows, x, element=2), t.width).view())
    x = transformer(t, g.copy(x), post_norm=not halved)
    return g.norm(g.copy(g.new(t.width, x.rows // 2, g.copy(x)))) if halved else x


def _stacked(t: Tower, x: Value, factor: int) -> Value:
    """`factor` rows side by side; what is missing in the last is filled up first."""
    rows = -(-x.rows // factor)
    if rows * factor != x.rows:
        x = t.graph.new(x.width, rows * factor, x)
    return x.view(x.width * factor, rows)


@hearer("qwen2_audio", "qwen2_5_omni", "qwen2_5_omni_thinker")
def qwen2_audio(t: Tower) -> Value:
    return t.graph.matmul(_whisper(t, halved=True), t.out)


@hearer("voxtral", "audioflamingo3")
def voxtral(t: Tower) -> Value:
    """As many rows of the encoder in one token as the projector's input holds."""
    x, factor = _whisper(t, halved=True), max(t.columns("mm.0") // t.width, 1)
    return t.graph.feed(_stacked(t, x, factor), t.rows("mm.0"), t.out).view(rows=x.rows // factor)


@hearer("glmasr")
def glmasr(t: Tower) -> Value:
    """A mark is put before and behind the tokens."""
    g = t.graph
    x = _stacked(t, g.norm(_whisper(t, halved=False)), max(t.columns("mm.0") // t.width, 1))
    x = g.feed(x, t.rows("mm.0"), t.out)
    for _ in range(2):
        x = g.new(t.out, x.rows + 1, x)
    return x


@hearer("qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen3_asr")
def qwen3_audio(t: Tower) -> Value:
    """Three convolutions over chunks of a second, each halving time and bins; positions start anew in every chunk."""
    g, bins, width, chunks = t.graph, t.config.integer("num_mel_bins", default=128, high=65536), t.rows("a.conv1"), FRAMES // _CHUNK
    x, wide, high = g.copy(g.input(FRAMES, bins)), _CHUNK, bins
    for inputs in (9, 9 * width, 9 * width):
        wide, high = (wide + 1) // 2, (high + 1) // 2
        x = g.convolve(x, width, inputs, wide * high * chunks)
    x = g.matmul(g.copy(x, width * high, wide * chunks), t.width)
    x = transformer(t, g.over(x, g.new(t.width, x.rows)))
    first, second = ("mm.0", "mm.2") if "mm.0" in t.shapes and t.family == "qwen3_asr" else ("a.proj1", "a.proj2")
    return g.feed(x, t.rows(first), t.rows(second))


@hearer("gemma4_unified")
def gemma4_unified(t: Tower) -> Value:
    """No layers: frames of the waveform are normed and projected."""
    g, width = t.graph, t.columns("mm.a.input_projection")
    return g.matmul(g.over(g.copy(g.input(FRAMES, width), width, FRAMES)), t.out)
