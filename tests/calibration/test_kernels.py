"""The products a calibration times are right ones, and its random weights are no zeros."""

from __future__ import annotations

import pytest
from vram_plan.calibration.clock import Clock, summary
from vram_plan.calibration.layout import Matrix

pytest.importorskip("torch")
from vram_plan.calibration import kernels
from vram_plan.calibration.kernels import GROUP, choose_product, fill, has_kernel, linear_of, load_torch

torch = load_torch()
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_normal_numbers_all_over(dtype: str) -> None:
    tensor = fill(torch.empty(3 << 20, dtype=getattr(torch, dtype)))
    for part in tensor.float().chunk(3):
        assert abs(float(part.mean())) < 1e-3 and float(part.std()) == pytest.approx(0.02, rel=0.02)
    assert not torch.equal(tensor[: 1 << 20], tensor[1 << 20 : 2 << 20])
    packed = fill(torch.empty(1 << 12, dtype=torch.uint8))
    assert len(set(packed.tolist())) == 256


def test_either_product_of_a_plain_matrix_is_the_same() -> None:
    linear = linear_of(Matrix(96, 64, bias=True), "plain", torch.float32, CPU)
    assert isinstance(linear, kernels.PlainLinear)
    x = torch.randn(1, 64)
    expected = x @ linear.weight.T + linear.bias
    for linear.by_vector in (False, True):
        torch.testing.assert_close(linear(x), expected)
    assert linear(torch.randn(3, 64)).shape == (3, 96)
    choose_product(linear, 64, lambda call: 1.0 if not linear.by_vector else 0.5)
    assert linear.by_vector
    choose_product(linear, 64, lambda call: 1.0 if not linear.by_vector else 0.99)
    assert not linear.by_vector


def test_eight_bit_weights_multiply_as_their_scales_say() -> None:
    if not has_kernel("int8", torch.bfloat16, CPU):
        pytest.skip("this torch has no 8-bit product here")
    linear = linear_of(Matrix(128, 256), "int8", torch.bfloat16, CPU)
    assert isinstance(linear, kernels.Int8Linear)
    assert linear.nbytes == 128 * 256 + 2 * 128 and linear.parameters == 128 * 256
    x = torch.randn(2, 256).bfloat16()
    expected = x.float() @ (linear.weight.float() * linear.scales.float()[:, None]).T
    torch.testing.assert_close(linear(x).float(), expected, rtol=0.02, atol=0.02)


def test_four_bit_weights_are_packed_as_torch_packs_them() -> None:
    if not has_kernel("int4", torch.bfloat16, CPU):
        pytest.skip("this torch has no 4-bit product here")
    linear = linear_of(Matrix(128, 256), "int4", torch.bfloat16, CPU)
    assert isinstance(linear, kernels.Int4Linear)
    assert linear.nbytes == 128 * 256 // 2 + 2 * 2 * 128 * 256 // GROUP
    weights = torch.randint(0, 16, (128, 256), dtype=torch.int32)
    linear.packed.copy_(torch._convert_weight_to_int4pack_for_cpu(weights, 1))
    scale, offset = (part.float().T.repeat_interleave(GROUP, 1) for part in linear.scales.unbind(-1))
    x = torch.randn(2, 256).bfloat16()
    expected = x.float() @ ((weights.float() - 8) * scale + offset).T
    torch.testing.assert_close(linear(x).float(), expected, rtol=0.03, atol=0.02)


def test_a_matrix_the_four_bit_product_cannot_take_stays_plain() -> None:
    assert isinstance(linear_of(Matrix(100, 60), "int4", torch.bfloat16, CPU), kernels.PlainLinear)


def test_times_are_summed_up_by_their_middle() -> None:
    s = summary([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (s.median_s, s.n) == (3.0, 5) and s.p10_s == pytest.approx(1.4) and s.p90_s == pytest.approx(4.6)
    assert summary([2.0]) == (2.0, 2.0, 2.0, 1)
    assert len(Clock(CPU).times(lambda: None, 4)) == 4
