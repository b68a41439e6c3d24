"""transformers itself loads small models, reads a prompt and writes one token; what its tensors take is compared with the plan.

Needs torch and transformers (tests/requirements-transformers.txt). Parameters and caches agree to the byte. The peak, weights and all,
is of live tensors, attention kernels left out. The same numbers, once traced, are tested without torch in test_transformers.py.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.models.assemble import assemble
from vram_plan.models.checkpoint import Checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

TOKENS = 512
_LINES = (Path(__file__).parents[1] / "data" / "transformers_peaks.jsonl").read_text(encoding="utf-8").splitlines()
ROWS = {row["name"]: row for row in map(json.loads, _LINES)}
#: Name of a traced config → how far its peak may be from the plan's.
SLACK = {
    "llama": 0.001, "llama, eager": 0.002, "qwen3, wide heads": 0.005, "gemma3, windows": 0.03, "mistral, windows": 0.03,
    "qwen3-moe": 0.002, "deepseek-v3": 0.004, "gpt-oss, eager": 0.01, "phi3": 0.001, "glm4_moe": 0.005,
}  # fmt: skip


class Live(TorchDispatchMode):  # type: ignore[misc]
    """Counts the bytes of storages alive: those given, and what operations put out until it is freed."""

    def __init__(self, held: Iterable[Any]) -> None:
        super().__init__()
        self.seen = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in held}
        self.now = self.peak = sum(self.seen.values())

    def _gone(self, key: int) -> None:
        self.now -= self.seen.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.seen:
                storage = tensor.untyped_storage()
                self.seen[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata)
        self.peak = max(self.peak, self.now)
        return out


def cached(cache: Any) -> int:
    """Bytes of all storages a cache holds."""
    held = (value for layer in cache.layers for value in tree_leaves(list(vars(layer).values())))
    storages = [v.untyped_storage() for v in held if isinstance(v, torch.Tensor) and v.is_floating_point()]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def kernel(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """What an attention kernel puts out, and nothing of what it needs inside."""
    return query.new_zeros((*query.shape[:-1], value.shape[-1]))


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("name", SLACK)
def test_a_real_prompt_and_token(name: str, static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS[name]
    config = transformers.AutoConfig.for_model(**row["config"])
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", kernel)
    real = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=row["attention"]).eval()
    weights = {p.untyped_storage()._cdata: p for p in real.parameters()}
    prompt = torch.zeros(row["sequences"], TOKENS, dtype=torch.long)
    given = {"past_key_values": transformers.StaticCache(config=config, max_cache_len=TOKENS + 1)} if static else {}
    with torch.no_grad(), Live(weights.values()) as live:
        out = real(prompt, use_cache=True, logits_to_keep=1, **given)
        peak, cache = live.peak, out.past_key_values
        del out
        real(prompt[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)

    model = assemble(Checkpoint(name="real", reference="real", kind="local", source="a test", config=row["config"]))
    options = {"attention": row["attention"], "cache": "static" if static else "dynamic"}

    def terms(context: int) -> dict[str, int]:
        plan = vp.plan(model, engine="transformers", context=context, sequences=row["sequences"], options=options)
        return {term.name: term.bytes for term in plan.devices[0].terms}

    assert terms(TOKENS)["weights"] == sum(p.nbytes for p in weights.values())
    joined = 0 if static else sum(2 * c.elements_per_token for c in model.cache_layers if c.window and c.window <= TOKENS)
    assert terms(TOKENS + 1)["kv_cache"] + joined * row["sequences"] == cached(cache)
    planned = terms(TOKENS)
    assert planned["weights"] + planned["kv_cache"] + planned["activations"] == pytest.approx(peak, rel=SLACK[name])
