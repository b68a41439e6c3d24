"""The memory part of docs/accuracy.md: predicted against measured by engine, component and kind of architecture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from accuracy_cases import Case, Unpredicted, all_cases, off

__all__ = ["case_lines", "memory_section"]

#: What each part was measured with, and whether constants hang on it.
_PARTS = {
    "transformers' classes": """\
Parameters counted and caches filled by transformers 5.23.0's own classes, on the meta device and in forward passes of shrunken
copies. Nothing is fitted: shapes are the classes' rules.""",
    "GGUF files": "Sizes llama.cpp's quantiser (0c1e57098) gives whole models in every mix. Nothing is fitted.",
    "Checkpoints": """\
Parameter bytes vLLM 0.32.0 creates for a whole model. Where they differ from the checkpoint's, vLLM keeps routers in fp32 or
drops a V that K serves as.""",
    "llama.cpp": """\
llama.cpp's (0c1e57098) own projection for one emulated CUDA GPU with all layers on it. *Total* is weights, KV, state and compute;
the driver's context is apart. Nothing is fitted, but the rules of the compute buffer were completed on these very rows.
`tests/engines/test_llamacpp_real.py` tries the same on a real engine, with tiny models of each kind of cache.""",
    "llama.cpp, spread": """\
The same engine with layers or experts in host memory, over two to four GPUs of equal memory, and with 3, 6 and 10 sequences: each GPU's own
buffers, and the host's.
*Unseen* rows, of other models at other settings, were projected before and compared once the rules stood, in one go; what their first
comparison showed (1.3 % of 2,424 totals off by more than 1 %) was then looked into as well, so this table is a little better than it was.
""",
    "vLLM grid": """\
vLLM 0.32.0's own classes and cache code on full-size configs, GPU emulated as Hopper. Nothing is fitted. Of the cache's points
(sizes of memory, batches) two or three of each model, split and cache type are kept. Some buffers are of a thousand bytes: an
error there is large and is nothing. `tests/data/vllm_mixes.jsonl` has made-up mixes of layers besides, all exact.
The 93 configs of `tests/data/vllm_more.jsonl` were run when the rules stood: of 190 of their kind on one rank 12 were off by more than
0.1 % at first, most of them shrunk ones, and of 70 quantised ones 3 (a router's name was read as a projection's too); four splits
vLLM refuses were not refused. The rules were then completed, so these are agreement as well.""",
    "vLLM logs": """\
Start-up logs of real GPUs, predicted from config, GPU and flags alone. **In-sample**: activation, non-torch memory and CUDA graphs
rest on constants by version (`vllm_profiles.toml`) read off these logs, so expect more on other GPUs and versions; *available*,
*tokens* and *concurrency* follow from them. Weights, and tokens from the logged memory, rest on no log; that medium tensors share
segments of PyTorch's allocator, and that activation order keeps indices, was looked up in the sources after their misses were seen.""",
    "vLLM logs, few flags": """\
Logs that leave out flags, GPU or kernel, which were then assumed, and of models whose configs are written into the case (by hand,
from what is published of granite, Mistral Small and Kimi-VL). Little is known of versions before 0.8.3,
whose constants rest on vllm-project/vllm#17327 here, and of Marlin kernels. Two give the available memory, so their tokens test
the cache alone. Non-torch memory of granite and of version 0.19 is in-sample. Of two logs the kernel or the version was taken from what
they show themselves (`assumed`).""",
    "llama.cpp and Ollama logs": """\
What people posted. Files in mixes of their own (UD-…) count for KV, state and compute only. The build is the log's date where it
has one; two Metal logs have none, and their host buffer tells of a build before 2026-05. The `realrun` rows were loaded on a CPU;
their file was larger than the usual Q4_K_M of that model. The driver's share in the one total was read off such logs, in-sample.""",
    "SGLang logs": """\
Start-up logs people posted. Where a log leaves out the model, the GPU or a flag, the case says under `assumed` what was taken, and from
what. **In-sample**: memory held before the weights are loaded was read off logs, 001 and 004 among them; nothing else is fitted.
While MXFP4 experts are laid out, PyTorch holds memory that is not counted (009). Pools of compressed attention (DeepSeek-V4) and of
windows have no log that tells its flags: they follow the source.""",
    "transformers": """\
Live tensor bytes beside the weights at the peak of a prefill, small models on a CPU, attention kernels left out. The rule of what is alive
at once was found on the first 14 rows; of the 8 models traced after it (phi3, starcoder2, exaone4, cohere2, glm4_moe, qwen2, granite,
qwen2_moe) four agreed at once, and four told of rules that were missing. bitsandbytes and real GPUs are not in them.""",
}
_INTRO = """\
Error is |predicted ÷ measured − 1|. Every case is kept under `tests/data` with its source, and all of them were known while the rules
were written: this is agreement, not a forecast. `python docs/tools/accuracy.py` writes this page, with `--cases` it prints all
{cases:,} cases as tab-separated lines.

*Naive* is the textbook, beside every figure it has a word on:

- weights: parameters × bits ÷ 8, ÷ ranks; the bits are the number in the format's name (Q4_K_M: 4), the parameters the true ones;
- KV: 2 × layers × KV heads × (width ÷ heads) × tokens × bytes, with the config's numbers (KV heads shared out over ranks);
- parameters: 12 × layers × width² + 2 × vocabulary × width;
- total: weights + KV; vLLM's pool: utilisation × the GPU's memory − weights, ÷ the KV of a token.

Configs that do not name these numbers have no naive figure. In kinds, *MoE* alone is dense attention with experts; *sliding* has windows
or chunks in some layers; *hybrid* has attention and a recurrent state.
"""
_HEAD = """\
| what | kind | cases | median | 90th percentile | worst | naive: median / 90th / worst |
| --- | --- | ---: | ---: | ---: | ---: | ---: |"""

_SHORT_HEAD = _HEAD.replace("| kind |", "| figure |")


def memory_section(every: int = 1) -> str:
    """Markdown; of one row in `every` of each file."""
    cases, unpredicted = all_cases(every)
    heads = ["### In short", "", _SHORT_HEAD, *_short(cases), ""]
    parts = [_part(name, [case for case in cases if case.part == name]) for name in _PARTS]
    lists = (*_logs(cases), *_outliers(cases), *_not_predicted(unpredicted))
    return "\n".join(["## Memory", "", _INTRO.format(cases=len(cases)), *heads, *parts, *lists])


def case_lines(every: int = 1) -> Iterable[str]:
    """All cases, tab-separated, with a heading."""
    yield "part\tcomponent\tkind\tcase\tpredicted\tmeasured\terror\tnaive"
    for c in all_cases(every)[0]:
        naive = "" if c.naive is None else f"{c.naive:.6g}"
        yield f"{c.part}\t{c.component}\t{c.kind}\t{c.label}\t{c.predicted:.10g}\t{c.measured:.10g}\t{c.error:.3g}\t{naive}"


def _short(cases: Sequence[Case]) -> Iterable[str]:
    """Every component, of all kinds together."""
    for name in _PARTS:
        for component in dict.fromkeys(case.component for case in cases if case.part == name):
            yield _row(name, component, [case for case in cases if (case.part, case.component) == (name, component)])


def _part(name: str, cases: Sequence[Case]) -> str:
    by_component: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_component[case.component].append(case)
    lines = [line for component, of_it in by_component.items() for line in _rows(component, of_it)]
    return "\n".join([f"### {name}", "", _PARTS[name], "", _HEAD, *lines, ""])


def _rows(component: str, cases: Sequence[Case]) -> Iterable[str]:
    """All kinds together, then each."""
    kinds = sorted({case.kind for case in cases})
    yield _row(f"**{component}**", "all", cases)
    if len(kinds) > 1:
        yield from (_row("", kind, [case for case in cases if case.kind == kind]) for kind in kinds)


def _row(what: str, kind: str, cases: Sequence[Case]) -> str:
    naive = [off(case.naive, case.measured) for case in cases if case.naive is not None]
    words = " / ".join(_three(naive)) if naive else "–"
    return f"| {what} | {kind} | {len(cases):,} | {' | '.join(_three([case.error for case in cases]))} | {words} |"


def _three(errors: Sequence[float]) -> tuple[str, str, str]:
    """Median, 90th percentile and worst: of n sorted values the ones at ⌊n/2⌋ and ⌊0.9 n⌋, and the last."""
    ordered = sorted(errors)
    return _percent(ordered[len(ordered) // 2]), _percent(ordered[int(len(ordered) * 0.9)]), _percent(ordered[-1])


def _percent(error: float) -> str:
    if error < 5e-6:
        return "0"
    return f"{error:.3%}" if error < 0.01 else f"{error:.1%}" if error < 0.1 else f"{error:,.0%}"


def _logs(cases: Sequence[Case]) -> Iterable[str]:
    """Every figure of a log."""
    yield from ("### Every log", "", "GiB for vLLM and SGLang, MiB for llama.cpp.", "")
    yield from ("| log | what | predicted | measured | error | naive error |", "| --- | --- | ---: | ---: | ---: | ---: |")
    for c in cases:
        if "logs" in c.part:
            naive = "–" if c.naive is None else _percent(off(c.naive, c.measured))
            yield f"| {c.label} | {c.component} | {_number(c.predicted)} | {_number(c.measured)} | {_percent(c.error)} | {naive} |"
    yield ""


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < 10_000 else f"{value:,.0f}"


def _outliers(cases: Sequence[Case]) -> Iterable[str]:
    """Those no log explains: off by more than 0.5 %."""
    wrong = [case for case in cases if case.error > 0.005 and "logs" not in case.part]
    rest = sum("logs" not in case.part for case in cases)
    yield from ("### Off by more than 0.5 %", "", f"{len(wrong)} of {rest:,} cases that are not logs.", "")
    yield from ("| case | what | predicted | measured | error |", "| --- | --- | ---: | ---: | ---: |")
    for c in sorted(wrong, key=lambda case: (case.part, case.component, case.label)):
        yield f"| {c.part}: {c.label} | {c.component} | {_number(c.predicted)} | {_number(c.measured)} | {_percent(c.error)} |"
    yield ""


def _not_predicted(unpredicted: Sequence[Unpredicted]) -> Iterable[str]:
    yield from ("### Not predicted", "", "| case | why |", "| --- | --- |")
    yield from (f"| {item.part}: {item.label} | {item.reason} |" for item in unpredicted)
    yield ""
