"""The estimate against what people measured, and how it must behave whatever the constants."""

from __future__ import annotations

from statistics import median, quantiles
from typing import Any

import pytest
import vram_plan as vp

from speed.cases import Case, speed_cases


def planned(case: Case, **more: Any) -> Any:
    options = {"flash_attn": case.flash_attn, "build": case.build, "backend": case.backend}
    given = {"context": max(1, round(case.history)), "engine": "llama.cpp", "quant": case.quant, "gpus": case.gpu} | more
    return vp.plan(case.model, options=options, **given).speed


def usable(case: Case, backend: str, metric: str) -> bool:
    """llama.cpp's own measurements, one GPU and sequence; files of a mix nobody else has say another size than the format."""
    own = case.engine == "llama.cpp" and case.backend == backend and case.metric == metric and not case.suspect
    return own and case.n_gpu == case.batch == 1 and case.tokens_per_s is not None and not case.quant_as_named and not case.measured


@pytest.mark.parametrize(("backend", "mid", "ninth"), [("cuda", 0.05, 0.13), ("metal", 0.05, 0.15), ("rocm", 0.10, 0.30)])
def test_decode_is_what_was_measured(backend: str, mid: float, ninth: float) -> None:
    errors = []
    for case in [case for case in speed_cases() if usable(case, backend, "decode")]:
        speed = planned(case)
        errors.append(abs(speed.decode.tokens_per_s / case.tokens_per_s - 1))
    assert len(errors) >= 30
    assert median(errors) <= mid
    assert quantiles(errors, n=10)[-1] <= ninth


@pytest.mark.parametrize(("backend", "mid"), [("cuda", 0.12), ("metal", 0.08)])
def test_prefill_is_what_was_measured(backend: str, mid: float) -> None:
    errors = []
    for case in [case for case in speed_cases() if usable(case, backend, "prefill") and case.prompt >= 512 and not case.depth]:
        speed = planned(case, context=case.prompt, prompt=case.prompt)
        errors.append(abs(speed.prefill.tokens_per_s / case.tokens_per_s - 1) if case.ubatch == 512 else 0.0)
    assert len(errors) >= 50
    assert median(errors) <= mid


def test_vllm_takes_the_time_it_took() -> None:
    errors = []
    for case in speed_cases():
        if case.engine == "vllm" and case.tp == case.n_gpu and case.tpot_ms and not case.suspect:
            gpus = f"{case.tp}x {case.gpu}" if case.tp > 1 else case.gpu
            context = case.prompt + case.gen
            speed = vp.plan(
                case.model, engine="vllm", quant=case.quant, context=context, prompt=case.prompt, output=case.gen, sequences=case.batch,
                tensor_parallel=case.tp, gpus=gpus, kv_type=case.kv or None, options={"version": case.version} if case.version else None,
            ).speed  # fmt: skip
            assert speed is not None
            errors.append(abs(speed.tpot_s * 1000 / case.tpot_ms - 1))
    assert len(errors) >= 200
    assert median(errors) <= 0.06
    assert quantiles(errors, n=10)[-1] <= 0.20


def test_longer_contexts_write_slower_and_say_so() -> None:
    rates = []
    for context in (1024, 8192, 32768, 131072):
        speed = vp.plan("llama3.1-8b", engine="llama.cpp", bits=4, context=context, gpus="RTX 4090").speed
        assert speed is not None
        assert speed.decode.low < speed.decode.tokens_per_s < speed.decode.high
        rates.append(speed.decode.tokens_per_s)
    assert rates == sorted(rates, reverse=True)
    assert "KV" in speed.decode.why
    assert speed.decode.why.startswith("memory-bound")


def test_more_sequences_write_more_in_all_and_less_each() -> None:
    one, many = (vp.plan("llama3-8b", engine="vllm", context=4096, sequences=n, gpus="H100").speed for n in (1, 32))
    assert one is not None
    assert many is not None
    assert many.decode.tokens_per_s > 4 * one.decode.tokens_per_s
    assert many.tpot_s > one.tpot_s


def test_times_add_up() -> None:
    speed = vp.plan("llama3-8b", engine="llama.cpp", bits=4, context=2500, prompt=2000, output=500, gpus="RTX 4090").speed
    assert speed is not None
    assert speed.total_s == pytest.approx(speed.ttft_s + 499 * speed.tpot_s)
    assert speed.ttft_s == pytest.approx(2000 / speed.prefill.tokens_per_s + speed.tpot_s)
    assert speed.tokens_per_joule_at_limit == pytest.approx(speed.decode.tokens_per_s / 450)
    assert speed.joules_per_token_at_most == pytest.approx(450 / speed.decode.low)


def test_without_an_answer_length_there_is_no_total() -> None:
    speed = vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus="RTX 4090").speed
    assert speed is not None
    assert speed.total_s is None
    assert speed.tpot_s == pytest.approx(1 / speed.decode.tokens_per_s)


@pytest.mark.parametrize("gpus", [None, "24GB"])
def test_a_device_whose_bandwidth_is_not_known_gets_no_speed(gpus: str | None) -> None:
    assert vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus=gpus).speed is None


@pytest.mark.parametrize("name", ["BAAI/bge-large-en", "openai/whisper-tiny"])
def test_what_writes_no_text_token_by_token_gets_no_speed(name: str) -> None:
    assert vp.plan(name, engine="transformers", gpus="RTX 4090").speed is None


def test_a_layer_split_is_no_faster_and_tensor_parallelism_is() -> None:
    def rate(engine: str, gpus: str) -> float:
        speed = vp.plan("llama3-70b", engine=engine, bits=16, context=2048, gpus=gpus).speed
        assert speed is not None
        return speed.decode.tokens_per_s

    assert rate("llama.cpp", "2x H100") < rate("llama.cpp", "H100")
    assert rate("vllm", "4x H100") > 1.5 * rate("vllm", "2x H100")


def test_offloaded_weights_are_slow_and_named() -> None:
    def speed(offload: str) -> Any:
        return vp.plan("llama3-8b", engine="llama.cpp", bits=16, context=2048, gpus="RTX 4090", offload=offload).speed

    whole, half = speed("none"), speed("16 layers")
    assert half.decode.tokens_per_s < whole.decode.tokens_per_s / 2
    assert "host memory" in half.decode.why
    assert half.decode.bound == "link"


def test_the_basis_names_the_class_and_says_when_it_is_a_pool() -> None:
    known = vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus="RTX 4090").speed
    pool = vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus="RX 6800").speed
    assert known is not None
    assert pool is not None
    assert "cuda, ada" in known.basis
    assert "rocm pool: no measurement of rdna2" in pool.basis


def test_copies_share_the_sequences_and_a_mixtures_experts() -> None:
    def tpot(model: str, gpus: str, sequences: int, copies: int) -> float:
        options = {"data_parallel": copies} if copies > 1 else None
        speed = vp.plan(model, engine="vllm", context=2048, sequences=sequences, gpus=gpus, tensor_parallel=1, options=options).speed
        assert speed is not None
        return speed.tpot_s

    assert tpot("llama3-8b", "4x H100", 64, 4) == pytest.approx(tpot("llama3-8b", "H100", 16, 1))
    assert tpot("gpt-oss-120b", "4x H200", 64, 4) < tpot("gpt-oss-120b", "H200", 64, 1)


def test_stages_of_a_pipeline_work_on_different_sequences() -> None:
    def speed(gpus: str, sequences: int, stages: int) -> Any:
        return vp.plan("llama3-8b", engine="vllm", context=2048, sequences=sequences, gpus=gpus, pipeline_parallel=stages).speed

    assert speed("4x H100", 1, 4).tpot_s == pytest.approx(speed("H100", 1, 1).tpot_s)
    assert speed("4x H100", 64, 4).tpot_s == pytest.approx(speed("H100", 16, 1).tpot_s)
    assert speed("4x H100", 64, 4).decode.tokens_per_s > 1.5 * speed("H100", 64, 1).decode.tokens_per_s


def test_sums_within_a_machine_do_not_cross_the_network() -> None:
    def speed(gpus: str, **more: Any) -> Any:
        return vp.plan("llama3-70b", engine="vllm", context=2048, sequences=32, gpus=gpus, **more).speed

    within, across = speed("2 nodes x 8xH100"), speed("2 nodes x 8xH100", tensor_parallel=16)
    assert within.tpot_s < across.tpot_s


def test_the_first_token_of_a_server_comes_when_it_came() -> None:
    """At 4 requests at once, which hardly wait. Prompts of 1,024 tokens had no part in the fit."""
    errors = []
    for case in speed_cases():
        alone = case.engine == "vllm" and case.tp == case.n_gpu and case.batch <= 4 and case.prompt == 1024
        if alone and case.ttft_ms and not case.suspect:
            speed = vp.plan(
                case.model, engine="vllm", quant=case.quant, context=case.prompt + case.gen, prompt=case.prompt, output=case.gen,
                tensor_parallel=case.tp, gpus=f"{case.tp}x {case.gpu}", options={"version": case.version} if case.version else None,
            ).speed  # fmt: skip
            assert speed is not None
            errors.append(abs(speed.ttft_s * 1000 / case.ttft_ms - 1))
    assert len(errors) >= 15
    assert median(errors) <= 0.15


def test_sums_over_pcie_take_longer() -> None:
    shares = []
    for gpus in ("2x RTX 4090", "2x RTX 3090"):  # the latter have a bridge
        speed = vp.plan("qwen3-32b", engine="vllm", quant="AWQ", context=2048, gpus=gpus, tensor_parallel=2).speed
        assert speed is not None
        shares.append(int(speed.decode.why.partition(" % link")[0].rpartition(" ")[2]))
    assert shares[0] > 2 * shares[1]


def test_gpus_an_engine_leaves_idle_do_not_count() -> None:
    one, three = (vp.plan("llama3-8b", engine="ollama", bits=4, gpus=f"{n}x RTX 3090", context=8192).speed for n in (1, 3))
    assert one and three and one == three
    spread = vp.plan("llama3-8b", engine="ollama", bits=4, gpus="3x RTX 3090", context=8192, options={"spread": True}).speed
    assert spread and spread.decode.tokens_per_s < one.decode.tokens_per_s
    two, idle = (vp.plan("llama3-8b", engine="vllm", gpus=f"{n}x RTX 3090", context=8192, tensor_parallel=2).speed for n in (2, 3))
    assert two and idle and two == idle


def test_each_gpu_counts_by_its_layers() -> None:
    def rate(split: str) -> float:
        cards, options = "RTX 4090 + RTX 3060 12GB", {"tensor_split": split}
        plan = vp.plan("llama3-8b", engine="llama.cpp", bits=4, context=8192, gpus=cards, options=options)
        assert plan.speed
        return plan.speed.decode.tokens_per_s

    alone = vp.plan("llama3-8b", engine="llama.cpp", bits=4, context=8192, gpus="RTX 4090").speed
    assert alone and rate("1,0") == alone.decode.tokens_per_s > rate("3,1") > rate("1,1") > rate("0,1")


def test_a_range_that_says_little_is_called_that() -> None:
    def told(gpus: str) -> bool:
        return any("too few GPUs" in note.text for note in vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus=gpus).notes)

    assert told("RX 7900 XTX") and not told("RTX 4090") and not told("M3 Max 64GB")
