"""What to buy and how to run it."""

from __future__ import annotations

import pytest
import vram_plan as vp
from vram_plan.questions.machines import machines_to_try, splits
from vram_plan.questions.prices import parse_prices


@pytest.fixture(scope="module")
def answer() -> vp.Recommendation:
    return vp.recommend("llama3.1-8b", context="16k", gpus="RTX 4060; RTX 4090; RTX 3060 12GB", min_decode=10)


def test_what_is_recommended_does_what_was_asked(answer: vp.Recommendation) -> None:
    assert answer.options and not answer.misses and answer.tried > 50
    for option in answer.options:
        assert option.plan.fit.verdict in ("fits", "tight") and option.plan.request.context == 16384
        assert option.reason
        assert option.plan.speed is None or option.plan.speed.decode.tokens_per_s >= 10


def test_the_smallest_comes_first_and_more_is_only_listed_for_more(answer: vp.Recommendation) -> None:
    first, *rest = answer.options
    assert first.machine.name == "RTX 4060"
    for option in rest:
        assert option.machine.total > first.machine.total and option.traded
        assert option.loss < first.loss or "fast" in option.reason or "spare" in option.reason


def test_prices_put_the_cheapest_first() -> None:
    asked = {"model": "llama3.1-8b", "context": "8k", "gpus": ["1x RTX 4090", "1x RTX 3090"]}
    for cheap, dear in (("RTX 3090", "RTX 4090"), ("RTX 4090", "RTX 3090")):
        options = vp.recommend(prices={cheap: "$0.2/h", dear: "$0.9/h"}, **asked).options
        assert options[0].machine.name == cheap and str(options[0].price) == "$0.20/h"
    assert all(option.price is None for option in vp.recommend(**asked).options)


def test_nothing_fits_gives_the_nearest_and_what_would_help() -> None:
    answer = vp.recommend("llama3.1-70b", context="8k", gpus="RTX 4060;RTX 3060 12GB", engines="vllm", quants="BF16")
    assert not answer.options and 0 < len(answer.misses) <= 3
    assert all(miss.lacks for miss in answer.misses)
    assert answer.misses[0].option.machine.gpus == 4


def test_a_speed_nobody_reaches_is_named() -> None:
    answer = vp.recommend("llama3.1-8b", context="8k", gpus="1x RTX 3060 12GB", min_decode=100_000)
    assert not answer.options and "instead of 100000 tokens/s" in answer.misses[0].lacks[0]


def test_experts_go_to_ram_where_the_cards_are_too_small() -> None:
    answer = vp.recommend("qwen3-30b-a3b", context="8k", gpus="1x RTX 4060", quants="Q4_K_M")
    assert answer.options[0].offload == "experts" and "experts in RAM" in answer.options[0].reason
    assert answer.options[0].plan.host.used > 10 * 2**30


def test_the_format_a_model_was_published_in_loses_nothing() -> None:
    answer = vp.recommend("gpt-oss-20b", context="8k", gpus="1x RTX 4090")
    assert answer.options[0].format.startswith("MXFP4") and answer.options[0].loss == 0


def test_machines_are_counted_where_no_count_was_given() -> None:
    assert [len(machine) for machine in machines_to_try("RTX 4090")] == [1, 2, 4]
    assert [len(machine) for machine in machines_to_try("H100")] == [1, 2, 4, 8]
    assert [len(machine) for machine in machines_to_try("1x RTX 4090; 3x RTX 3090; 8GB")] == [1, 3, 1]
    assert [len(machine) for machine in machines_to_try("H100 MIG 1g.10gb")] == [1]
    with pytest.raises(vp.UsageError):
        machines_to_try(" ; ")


def test_this_machines_gpus_are_a_machine_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from vram_plan.hardware import Detection

    monkeypatch.setattr("vram_plan.hardware.local_devices", lambda: Detection(reason="no GPU found here", local=True))
    with pytest.raises(vp.HardwareError):
        machines_to_try("local")
    monkeypatch.setattr("vram_plan.hardware.local_devices", lambda: Detection(machines_to_try("1x RTX 4090")[0], local=True))
    assert [machine[0].name for machine in machines_to_try("local")] == ["NVIDIA GeForce RTX 4090"]


def test_splits_use_every_gpu() -> None:
    assert list(splits("vllm", 8)) == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert list(splits("llama.cpp", 8)) == [(1, 1)]
    for count in range(1, 9):
        assert all(tp * pp == count for tp, pp in splits("vllm", count))


@pytest.mark.parametrize(
    ("given", "amount", "per"),
    [("H100=2.1/h", 2.1, "h"), ("H100=$2/hour", 2, "h"), ("H100=€900 per month", 900, "month"), ("H100=25000", 25000, "")],
)
def test_prices_are_read(given: str, amount: float, per: str) -> None:
    price = parse_prices([given]).total(machines_to_try("2x H100")[0])
    assert price is not None and (price.amount, price.per) == (2 * amount, per)


@pytest.mark.parametrize("given", [["H100"], ["H100=cheap"], ["H100=1/h", "RTX 4090=1500"], ["=3"], ["NoSuchCard=1"], ["H100=-1"]])
def test_prices_that_cannot_be_meant_are_refused(given: list[str]) -> None:
    with pytest.raises(vp.UsageError):
        parse_prices(given)


@pytest.mark.parametrize("wrong", [{"min_decode": 0}, {"max_ttft_s": -1}, {"gpus": "RTX 9999"}, {"engines": "vlm"}, {"sequences": 0}])
def test_what_cannot_be_meant_is_refused(wrong: dict) -> None:
    with pytest.raises(vp.UsageError):
        vp.recommend("llama3-8b", **{"gpus": "8GB", **wrong})
