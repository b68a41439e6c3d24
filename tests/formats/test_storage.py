"""Bytes of single tensors, by hand and by property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vram_plan.errors import FormatError
from vram_plan.formats.storage import is_stored_format, storage_bits_per_weight, storage_bytes, storage_names


@pytest.mark.parametrize(
    ("stored_as", "shape", "expected"),
    [
        ("F32", (7,), 28),
        ("BF16", (3, 5), 30),
        ("F4", (2, 3), 4),  # two a byte, whole bytes a row
        ("BOOL", (), 1),
        ("Q4_K", (2, 256), 288),
        ("Q4_K", (1, 257), 288),  # whole blocks a row
        ("Q8_0", (4, 3, 32), 12 * 34),
        ("MXFP4", (32, 10, 64), 320 * 34),
        ("GPTQ", (512, 256), 512 * 256 // 2 + 2 * 512 * 2 + 2 * 512 // 2 + 256 * 4),  # scales fp16, zeros 4 bit, g_idx int32
        ("AWQ", (512, 256), 512 * 256 // 2 + 2 * 512 * 2 + 2 * 512 // 2),
        ("AWQ-4/64", (512, 256), 512 * 256 // 2 + 4 * 512 * 2 + 4 * 512 // 2),
        ("GPTQ-8/0", (512, 256), 512 * 256 + 512 * 2 + 512 + 256 * 4),  # one scale and one zero a row
        ("CT", (512, 256), 512 * 256 // 2 + 2 * 512 * 2 + 16),
        ("INT8", (512, 256), 512 * 256 + 512 * 4),
        ("FP8T", (8, 512, 256), 8 * (512 * 256 + 4)),
        ("FP8C", (512, 256), 512 * 256 + 512 * 4),
        ("FP8B", (576, 7168), 576 * 7168 + 5 * 56 * 4),  # blocks rounded up
        ("NVFP4S", (4, 64, 32), 4 * (64 * 16 + 64 * 2 + 8)),
        ("NF4", (64, 128), 64 * 64 + 128 * 4 + 64),
        ("NF4DQ", (4096, 4096), 4096 * 2048 + 262144 + 1024 * 4 + 64 + 1024 + 4),
        ("BNB8", (64, 128), 64 * 128 + 64 * 4),
        ("MLX", (64, 128), 64 * 64 + 64 * 2 * 4),
        ("AWQ", (0, 128), 0),
    ],
)
def test_bytes_of_one_tensor(stored_as: str, shape: tuple[int, ...], expected: int) -> None:
    assert storage_bytes(stored_as, shape) == expected


@pytest.mark.parametrize("name", ["", "Q4_K_M", "GPTQ-9", "AWQ-4/", "FP8T\n", "A" * 5000])
def test_an_unknown_key_is_refused(name: str) -> None:
    assert not is_stored_format(name)
    with pytest.raises(FormatError, match="no number format"):
        storage_bytes(name, (2, 2))


@given(st.sampled_from(storage_names()), st.integers(1, 300), st.integers(1, 600), st.integers(1, 4))
def test_a_stack_is_its_matrices_and_more_weights_are_never_fewer_bytes(name: str, rows: int, columns: int, count: int) -> None:
    one = storage_bytes(name, (rows, columns))
    assert storage_bytes(name, (count, rows, columns)) == count * one
    assert storage_bytes(name, (rows + 1, columns)) >= one
    assert storage_bytes(name, (rows, columns + 1)) >= one
    assert one * 8 >= rows * columns  # no format goes below one bit a weight


@given(st.sampled_from(["GPTQ", "AWQ", "CT", "HQQ", "MLX"]), st.integers(2, 7), st.sampled_from([32, 64, 128]))
def test_more_bits_and_smaller_groups_cost_more(family: str, bits: int, group: int) -> None:
    size = storage_bits_per_weight(f"{family}-{bits}/{group}")
    assert size < storage_bits_per_weight(f"{family}-{bits + 1}/{group}")
    assert size < storage_bits_per_weight(f"{family}-{bits}/{group // 2}")


def test_every_row_of_the_tables_says_where_it_is_from() -> None:
    import csv

    from vram_plan_data import ROOT

    for name in ("formats_blocks.csv", "formats_schemes.csv", "formats.csv", "gguf_mixes.csv"):
        with (ROOT / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len({row["name"] for row in rows}) == len(rows), name
        for row in rows:
            assert row["source"] and None not in row and None not in row.values(), (name, row)
