"""llama.cpp on processors, as fit_speed_models has it on GPUs: other starts, and each processor its own class.

Shares of memory's and arithmetic's peak differ from one processor to the next more than they do between kinds of them (desktop,
server, ARM board: told apart, those missed the unseen by no less), so what is left out is one processor, and what tells it is all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from fit_speed_models import Decode, Prefill
from speed.cases import Case
from vram_plan.hardware import Device
from vram_plan.hardware.parse import parse_gpus

#: The K formats' kernels are MXFP4's too; formats looked up in a grid (IQ1 to IQ3) are slow on processors.
FAMILIES = ("plain", "simple", "k", "grid")


def processor(case: Case) -> Device:
    """The case's processor with as many cores as it had threads."""
    device = parse_gpus(case.gpu).devices[0]
    spec = device.spec
    if spec is None or not spec.fp32_flops or not spec.int8_ops:
        raise SystemExit(f"{case.gpu} is no processor")
    cores = min(case.threads or spec.cores, spec.cores)
    share = cores / spec.cores
    return replace(device, spec=replace(spec, cores=cores, fp32_flops=spec.fp32_flops * share, int8_ops=spec.int8_ops * share))


class CpuDecode(Decode):
    """Caches are read by the same cores as weights, with flash attention too once for each query head: at less than weights' speed."""

    FAMILIES = FAMILIES
    NOISE = 0.1

    def __init__(self) -> None:
        super().__init__("cpu")
        self.OWN_SD = (0.2, 0.3)

    def prior(self) -> tuple[Any, Any]:
        mean, sd = super().prior()
        mean[[0, 1, 3, 4]], mean[14:] = np.log([0.8, 50.0, 0.7, 0.7]), 0.0
        sd[[0, 3, 4, 6, 7, 8, 9, 15]] = [0.2, 0.5, 0.5, 0.15, 0.15, 0.15, 0.15, 0.3]
        return mean, sd


class CpuPrefill(Prefill):
    """Arithmetic is an fp32 peak (`issue`) and an int8 peak (`tensor`); bf16 and grids start at a third and half of the latter."""

    FAMILIES = FAMILIES

    def __init__(self) -> None:
        super().__init__("cpu")
        self.OWN_SD = (0.2, 0.2, 0.2)
        self.NOISE = 0.1

    def prior(self) -> tuple[Any, Any]:
        mean, sd = super().prior()
        mean[[1, 4, 10, 11]] = np.log([1 / 3, 0.5, 0.1, 0.1])
        sd[5:9], sd[15] = 0.4, 0.1
        return mean, sd
