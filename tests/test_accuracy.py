"""The accuracy page: its cases are what they are said to be, its headline figures hold, and it names every part."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
#: Of every part and component: no case is further off than this; logs apart, of which some are.
WORST = {
    ("transformers' classes", "parameters"): 0.0,
    ("transformers' classes", "KV, 8,192 tokens"): 0.0,
    ("transformers' classes", "KV, 131,072 tokens"): 0.0,
    ("transformers' classes", "state"): 0.0,
    ("GGUF files", "size"): 1e-5,
    ("Checkpoints", "size"): 0.007,
    ("llama.cpp", "weights"): 1e-4,
    ("llama.cpp", "KV and state"): 1e-4,
    ("llama.cpp", "compute"): 1e-3,
    ("llama.cpp", "total"): 1e-4,
    ("llama.cpp", "weights in host memory"): 1e-4,
    ("vLLM grid", "parameters of a rank"): 1e-3,
    ("vLLM grid", "refused splits"): 0.0,
    ("vLLM grid", "bytes of a block"): 0.0,
    ("vLLM grid", "number of blocks"): 0.0,
    ("llama.cpp, spread", "total"): 0.02,
    ("llama.cpp, spread", "total, unseen"): 0.012,
    ("llama.cpp, spread", "compute in host memory"): 0.02,
    ("llama.cpp, spread", "compute in host memory, unseen"): 0.01,
    ("vLLM grid", "tokens"): 0.0,
    ("vLLM grid", "concurrency"): 0.0,
    ("vLLM grid", "longest length of a refusal"): 0.0,
    ("vLLM logs", "weights"): 0.02,
    ("vLLM logs", "available"): 0.02,
    ("vLLM logs", "tokens"): 0.02,
    ("vLLM logs", "concurrency"): 0.02,
    ("vLLM logs", "tokens, from the logged memory"): 0.003,
    ("llama.cpp and Ollama logs", "KV"): 1e-3,
    ("llama.cpp and Ollama logs", "state"): 1e-3,
    ("SGLang logs", "tokens"): 0.04,
    ("transformers", "cache"): 0.01,
    ("transformers", "prefill's peak beside the weights"): 0.18,
}
#: One row in so many of each file: the page itself is of all.
EVERY = 11


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    """`docs/tools/accuracy_cases.py`, which is no part of a package."""
    sys.path.insert(0, str(DOCS / "tools"))
    try:
        import accuracy_cases
    finally:
        sys.path.remove(str(DOCS / "tools"))
    return accuracy_cases


def test_no_case_is_further_off_than_the_page_says(cases: ModuleType) -> None:
    found, _ = cases.all_cases(EVERY)
    wrong = [(c, c.error) for c in found if not math.isclose(c.error, 0, abs_tol=WORST.get((c.part, c.component), math.inf) + 1e-12)]
    assert not wrong
    assert {part for part, _ in WORST} <= {case.part for case in found}


def test_the_page_has_every_part_component_and_reason(cases: ModuleType) -> None:
    page = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    found, unpredicted = cases.all_cases(EVERY)
    for case in found:
        assert f"### {case.part}\n" in page
        assert f"| **{case.component}** | all |" in page
    for item in unpredicted:
        assert f"| {item.part}: {item.label} | {item.reason} |" in page


def test_every_posted_log_is_predicted_or_has_a_reason(cases: ModuleType) -> None:
    found = list(cases.field_cases(1))
    said = {item.label.split(":")[0] for item in found if isinstance(item, cases.Unpredicted)}
    predicted = {item.label for item in found if isinstance(item, cases.Case)}
    assert not said & predicted
    assert len(said) + len(predicted) == len((cases.DATA / "field_logs.jsonl").read_text(encoding="utf-8").splitlines())


def test_the_textbook(cases: ModuleType) -> None:
    """Llama 3 8B: 1 GiB of KV at 8,192 tokens; 8 billion parameters in 4 bits are 4 GB."""
    config = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    assert cases.textbook_kv(config, 8192) == 1 << 30
    assert cases.textbook_kv({"text_config": config}, 8192, ranks=2) == 1 << 29
    assert cases.textbook_kv({"hidden_size": 4096}, 8192) is None
    assert cases.textbook_weights(8_000_000_000, "Q4_K_M") == cases.textbook_weights(8_000_000_000, "AWQ") == 4e9
    assert cases.textbook_parameters(config) == 12 * 32 * 4096**2 + 2 * 128256 * 4096
