"""One short generation on a running server, timed by the server where it does that, else by the clock here."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from ..errors import EngineError
from .http import Server
from .values import Observation, Rate

__all__ = ["OUTPUT", "measured"]

#: Tokens asked for.
OUTPUT: Final = 64
#: Words of the prompt; most are a token or two. A prompt no cache has seen, so that all of it is computed.
_WORDS: Final = 512
_SECONDS: Final = 300.0
_NANO: Final = 1e9


def _prompt() -> str:
    numbers = random.SystemRandom()
    return "Count on from these numbers: " + " ".join(str(numbers.randrange(100, 1000)) for _ in range(_WORDS))


def measured(server: Server, seen: Observation) -> Rate:
    """Prefill and decode of one request. Raises EngineError where the server does not generate, FormatError for odd replies."""
    server.more_time(_SECONDS)
    if seen.engine == "llama.cpp":
        return _llama_server(server, seen)
    if seen.engine == "ollama":
        return _ollama(server, seen)
    return _streamed(server, seen)


def _room(seen: Observation) -> str:
    """A prompt that fits the context."""
    length = next((item.value for item in seen.settings if item.name == "context"), 4096)
    words = max(min(_WORDS, (int(length) - OUTPUT) // 4), 8)
    return " ".join(_prompt().split(" ")[: words + 5])


def _llama_server(server: Server, seen: Observation) -> Rate:
    body = {"prompt": _room(seen), "n_predict": OUTPUT, "cache_prompt": False, "temperature": 0.0, "ignore_eos": True}
    answer = server.json("/completion", body)
    timings = answer.get("timings") if isinstance(answer, dict) else None
    if not isinstance(timings, dict):
        raise EngineError(f"{server.address}/completion answered without timings")
    return _rate(
        timings.get("prompt_n"), timings.get("predicted_n"), timings.get("prompt_per_second"), timings.get("predicted_per_second"), server
    )


def _ollama(server: Server, seen: Observation) -> Rate:
    """With the context it has loaded, so that it is not loaded again."""
    length = next((item.value for item in seen.settings if item.name == "context"), None)
    options: dict[str, Any] = {"num_predict": OUTPUT, "temperature": 0.0} | ({"num_ctx": length} if length else {})
    body = {"model": seen.facts.get("name", ""), "prompt": _room(seen), "raw": True, "stream": False, "options": options}
    answer = server.json("/api/generate", body)
    if not isinstance(answer, dict):
        raise EngineError(f"{server.address}/api/generate answered nothing of use")

    def per_second(count: str, duration: str) -> float | None:
        tokens, nanoseconds = answer.get(count), answer.get(duration)
        known = isinstance(tokens, int) and isinstance(nanoseconds, (int, float)) and nanoseconds > 0
        return tokens / nanoseconds * _NANO if known and isinstance(tokens, int) and isinstance(nanoseconds, (int, float)) else None

    prefill, decode = per_second("prompt_eval_count", "prompt_eval_duration"), per_second("eval_count", "eval_duration")
    return _rate(answer.get("prompt_eval_count"), answer.get("eval_count"), prefill, decode, server)


def _streamed(server: Server, seen: Observation) -> Rate:
    """The time to the first token is the prompt's, the rest the answer's."""
    body = {
        "model": _served_name(server), "prompt": _room(seen), "max_tokens": OUTPUT, "temperature": 0.0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    times, usage = [], None
    for second, line in server.events("/v1/completions", body):
        event = _event(line)
        if event and event.get("choices"):
            times.append(second)
        if event and isinstance(event.get("usage"), dict):
            usage = event["usage"]
    if len(times) < 2 or times[-1] <= times[0] or usage is None:
        raise EngineError(f"{server.address}/v1/completions streamed no answer that could be timed")
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(prompt, int) and isinstance(output, int) and 1 < output <= 10 * OUTPUT and 0 < prompt < 1 << 30):
        raise EngineError(f"{server.address}/v1/completions told no use of tokens")
    return _rate(prompt, output, prompt / times[0], (output - 1) / (times[-1] - times[0]), server)


def _served_name(server: Server) -> str:
    models = server.json("/v1/models")
    rows = models.get("data") if isinstance(models, dict) else None
    name = rows[0].get("id") if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
    if not isinstance(name, str):
        raise EngineError(f"{server.address}/v1/models names no model")
    return name


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"data:") or len(line) > 1 << 20:
        return None
    try:
        value = json.loads(line[5:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _rate(prompt: Any, output: Any, prefill: Any, decode: Any, server: Server) -> Rate:
    """Checked: what a server tells may be anything."""
    counts = [value for value in (prompt, output) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 30]
    rates = [value for value in (prefill, decode) if isinstance(value, (int, float)) and 0 < value < 1e9]
    if len(counts) < 2 or len(rates) < 2:
        raise EngineError(f"{server.address} generated nothing that could be timed")
    return Rate(counts[0], counts[1], float(rates[0]), float(rates[1]), f"measured: {counts[0]:,} tokens in, {counts[1]:,} out")
