"""Names as people and drivers write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.errors import UnknownNameError, UsageError, VramPlanError
from vram_plan.hardware import find_gpu, match_gpu
from vram_plan.hardware.names import match_local

GIB = 1 << 30

PLAIN = {
    "4090": "NVIDIA GeForce RTX 4090",
    "rtx4090": "NVIDIA GeForce RTX 4090",
    " RTX  4090 ": "NVIDIA GeForce RTX 4090",
    "Nvidia RTX-4090": "NVIDIA GeForce RTX 4090",
    "4090 24GB": "NVIDIA GeForce RTX 4090",
    "4090d": "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 3060 12GB": "NVIDIA GeForce RTX 3060 12GB",
    "l40s": "NVIDIA L40S",
    "L40": "NVIDIA L40",
    "5070 ti": "NVIDIA GeForce RTX 5070 Ti",
    "5070ti": "NVIDIA GeForce RTX 5070 Ti",
    "RTX 4070 Ti Super": "NVIDIA GeForce RTX 4070 Ti SUPER",
    "4060 laptop": "NVIDIA GeForce RTX 4060 Laptop GPU",
    "RTX 4060 Mobile": "NVIDIA GeForce RTX 4060 Laptop GPU",
    "4060ti16gb": "NVIDIA GeForce RTX 4060 Ti 16GB",
    "4060 Ti 8 GB": "NVIDIA GeForce RTX 4060 Ti 8GB",
    "3080 12gb": "NVIDIA GeForce RTX 3080 12GB",
    "2080ti": "NVIDIA GeForce RTX 2080 Ti",
    "NVIDIA A100-SXM4-80GB": "NVIDIA A100-SXM4-80GB",
    "A100 PCIe 40GB": "NVIDIA A100-PCIE-40GB",
    "NVIDIA H100 80GB HBM3": "NVIDIA H100 80GB HBM3",
    "H100 SXM": "NVIDIA H100 80GB HBM3",
    "H100 SXM5": "NVIDIA H100 80GB HBM3",
    "H100 PCIe": "NVIDIA H100 PCIe",
    "H200": "NVIDIA H200",
    "NVIDIA GH200 480GB": "NVIDIA GH200 480GB (96GB HBM3)",
    "NVIDIA B300 SXM6 AC": "NVIDIA B300",
    "GB200": "NVIDIA GB200",
    "A10": "NVIDIA A10",
    "A10G": "NVIDIA A10G",
    "A6000": "NVIDIA RTX A6000",
    "RTX 6000 Ada": "NVIDIA RTX 6000 Ada Generation",
    "Quadro RTX 6000": "Quadro RTX 6000",
    "titan rtx": "NVIDIA TITAN RTX",
    "DGX Spark": "NVIDIA GB10",
    "AGX Orin 64GB": "NVIDIA Jetson AGX Orin 64GB",
    "mi300x": "AMD Instinct MI300X",
    "MI50 32GB": "AMD Radeon Instinct MI50 32GB",
    "7900xtx": "AMD Radeon RX 7900 XTX",
    "RX 7900 XT": "AMD Radeon RX 7900 XT",
    "Intel(R) Arc(TM) B580 Graphics": "Intel Arc B580",
    "gaudi3": "Intel Gaudi 3",
    "M3 Max 64GB": "Apple M3 Max (40-core GPU)",
    "m3max64gb": "Apple M3 Max (40-core GPU)",
    "M3 Max 36 GB": "Apple M3 Max (30-core GPU)",
    "MacBook Pro M4 Max 128GB": "Apple M4 Max (40-core GPU)",
    "M2 Ultra 76-core 192GB": "Apple M2 Ultra (76-core GPU)",
    "M1 Ultra 48 GPU Cores 128GB": "Apple M1 Ultra (48-core GPU)",
    "Ryzen AI MAX+ 395 128GB": "AMD Radeon 8060S",
}


@pytest.mark.parametrize(("text", "name"), PLAIN.items())
def test_plain(text, name):
    assert find_gpu(text).name == name
    assert match_gpu(text).note == "" or "SXM5" in text


FAMILIES = {
    "h100": ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"),
    "A100": ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB"),
    "a100 80g": ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
    "A100-40GB": ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    "V100 32GB": ("Tesla V100-SXM2-32GB", "Tesla V100-PCIE-32GB"),
    "3060": ("NVIDIA GeForce RTX 3060 12GB", ""),
    "3080": ("NVIDIA GeForce RTX 3080", "NVIDIA GeForce RTX 3080 12GB"),
    "RTX 3050": ("NVIDIA GeForce RTX 3050 8GB", "6GB"),
    "RTX PRO 6000": ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "Max-Q"),
    "MI300": ("AMD Instinct MI300X", "MI300A"),
    "M2 Ultra 192GB": ("Apple M2 Ultra (60-core GPU)", "76-core"),
    "M3 Max 40-core": ("Apple M3 Max (40-core GPU)", "largest memory, 128 GB"),
    "Strix Halo": ("AMD Radeon 8060S", "largest memory, 128 GB"),
}


@pytest.mark.parametrize(("text", "name", "other"), [(text, *answer) for text, answer in FAMILIES.items()])
def test_a_choice_is_said(text, name, other):
    match = match_gpu(text)
    assert match.spec.name == name
    assert name in match.note and other in match.note


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("4060 Ti", ["NVIDIA GeForce RTX 4060 Ti 8GB", "NVIDIA GeForce RTX 4060 Ti 16GB"]),
        ("V100", ["Tesla V100-PCIE-16GB", "Tesla V100-SXM2-32GB"]),
        ("RTX 6000", ["Quadro RTX 6000", "NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX PRO 6000 Blackwell Server Edition"]),
        ("7900", ["AMD Radeon RX 7900 XT", "AMD Radeon RX 7900 XTX"]),
        ("M3 Max", ["36, 48, 64, 96, 128 GB"]),
        ("m1", ["8, 16 GB"]),
    ],
)
def test_ambiguous_names_get_the_list(text, among):
    with pytest.raises(UsageError) as caught:
        find_gpu(text)
    assert not isinstance(caught.value, UnknownNameError) and caught.value.exit_code == 2
    assert all(name in caught.value.message for name in among)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("RTX 4095", "NVIDIA GeForce RTX 4090"), ("GTX 4090", "NVIDIA GeForce RTX 4090"), ("5090 Ti", "Ti"), ("A4500 Laptop", ""),
        ("AMD 4090", ""), ("nvidia", ""), ("zzz", ""), ("4090 48GB", "48GB"), ("M3 Max 72GB", "72GB"), ("409", ""), ("x" * 150, ""),
    ],
)  # fmt: skip
def test_unknown_names_get_the_nearest(text, near):
    with pytest.raises(UnknownNameError) as caught:
        find_gpu(text)
    assert caught.value.exit_code == 2 and near in caught.value.hint and len(caught.value.message) < 160


@pytest.mark.parametrize("text", ["", "  ", "a" * 201])
def test_no_name(text):
    with pytest.raises(UsageError):
        find_gpu(text)


@pytest.mark.parametrize(
    ("name", "gib", "row"),
    [
        ("NVIDIA GeForce RTX 4060 Ti", 16, "NVIDIA GeForce RTX 4060 Ti 16GB"),
        ("NVIDIA GeForce RTX 3080", 12, "NVIDIA GeForce RTX 3080"),
        ("Orin (nvgpu)", 61, "NVIDIA Jetson AGX Orin 64GB"),
        ("NVIDIA A40-48Q", 45, "NVIDIA A40"),
        ("Apple M3 Max", 64, "Apple M3 Max (40-core GPU)"),
        ("RX 7900", 20, "AMD Radeon RX 7900 XT"),
        ("NVIDIA GeForce RTX 4090", 48, "NVIDIA GeForce RTX 4090"),
        ("NVIDIA Quantum X9", 64, None),
        ("NVIDIA", 64, None),
    ],
)
def test_a_driver_s_name_and_its_memory(name, gib, row):
    spec = match_local(name, gib * GIB)
    assert (spec.name if spec else None) == row


PIECES = st.sampled_from(["rtx", "4090", "ti", "m3", "max", "64gb", "80", "g", "core", "a100", "-", "+", "(", "é", "\x00", " ", "mac pro"])


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.text(max_size=250), st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_is_answered_or_refused(text):
    try:
        assert match_gpu(text).spec.name
    except VramPlanError as error:
        assert error.message and "\n" not in error.message


@pytest.mark.parametrize("text", ["Mac Studio", "MacBook Pro", "iMac", "mac mini"])
def test_a_mac_is_asked_for_its_chip(text):
    with pytest.raises(UsageError, match="its chip and memory decide"):
        match_gpu(text)
