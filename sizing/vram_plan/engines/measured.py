"""What an engine holds on a device beyond weights, cache and activations, where that was measured on this device."""

from __future__ import annotations

from ..hardware.device import Device

__all__ = ["measured_runtime"]


def measured_runtime(device: Device | None, *engines: str) -> tuple[int, str] | None:
    """Bytes of context, libraries and kernels, and where they come from; None: not measured here.

    The first of `engines` that `verify` measured; for transformers also what `calibrate` found beside torch's own memory,
    since both are one torch process.
    """
    profile = device.profile if device else None
    if profile is None:
        return None
    for engine in engines:
        scale = profile.engines.get(engine)
        if scale and scale.runtime_bytes is not None:
            return scale.runtime_bytes, f"what {engine} itself held here on {scale.date[:10]}"
    found = profile.fitted.runtime_bytes
    if found is None or "transformers" not in engines:
        return None
    return round(found.value), f"what torch held here besides its tensors: calibration of {profile.date[:10]}"
