"""What a checkpoint's tensor is, from its name: role, layer, part of the model, whether of a routed expert.

For headers whose config is not known, and for sums by part. One table of name endings covers the families
transformers knows; a name in none of them keeps its own ending as its role.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..errors import FormatError
from .architecture import Architecture, CacheLayer, Part, Tensor
from .checkpoint import StoredTensor

__all__ = ["TensorName", "architecture_from_safetensors", "classify"]


class TensorName(NamedTuple):
    """`expert` is True for weights only some tokens use."""

    role: str
    layer: int | None
    part: Part
    expert: bool


_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|decoder_layers)\.(\d{1,5})\.(.+)")
_EXPERT = re.compile(r"(?:^|\.)(?:local_|moe_)?experts\.")
_MTP: Final = re.compile(r"(?:^|[._])(?:mtp|nextn)[._]|\.(?:eh_proj|enorm|hnorm|shared_head)\.")
#: Qwen's `visual.merger` belongs to its tower, as transformers has it.
_PROJECTOR: Final = re.compile(r"projector|(?:^|\.)(?:connector|aligner|embed_vision|embed_audio|resampler)")
_VISION: Final = re.compile(r"vision|visual|image_|(?:^|\.)(?:vit|vpm|img_)")
_AUDIO: Final = re.compile(r"audio|speech|(?:^|\.)(?:apm|code2wav|talker|token2wav)")

#: The last words of a name inside a layer, by how many of them it takes to tell.
_ROLES: Final[dict[str, str]] = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "out_proj": "attn_output", "wq": "attn_q",
    "wk": "attn_k", "wv": "attn_v", "wo": "attn_output", "attention.self.query": "attn_q", "attention.self.key": "attn_k",
    "attention.self.value": "attn_v", "attention.output.dense": "attn_output", "attention.dense": "attn_output",
    "self_attention.dense": "attn_output", "attn.c_proj": "attn_output", "qkv_proj": "attn_qkv", "query_key_value": "attn_qkv",
    "c_attn": "attn_qkv", "W_pack": "attn_qkv", "Wqkv": "attn_qkv", "att_proj": "attn_qkv", "q_a_proj": "attn_q_a",
    "SelfAttention.q": "attn_q", "SelfAttention.k": "attn_k", "SelfAttention.v": "attn_v", "SelfAttention.o": "attn_output",
    "EncDecAttention.k": "cross_attn_k", "EncDecAttention.v": "cross_attn_v", "DenseReluDense.wo": "ffn_down",
    "q_b_proj": "attn_q_b", "q_a_layernorm": "attn_q_a_norm", "kv_a_proj_with_mqa": "attn_kv_a_mqa", "kv_a_layernorm": "attn_kv_a_norm",
    "kv_b_proj": "attn_kv_b", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "sinks": "attn_sinks", "gate_proj": "ffn_gate",
    "up_proj": "ffn_up", "down_proj": "ffn_down", "w1": "ffn_gate", "w3": "ffn_up", "w2": "ffn_down", "fc1": "ffn_up", "fc2": "ffn_down",
    "dense_h_to_4h": "ffn_up", "dense_4h_to_h": "ffn_down", "c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "gate_up_proj": "ffn_gate_up",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "gate": "ffn_gate_inp", "router": "ffn_gate_inp",
    "shared_expert_gate": "ffn_gate_inp_shexp", "e_score_correction_bias": "exp_probs_b.bias", "input_layernorm": "attn_norm",
    "ln_1": "attn_norm", "attention_norm": "attn_norm", "post_attention_layernorm": "ffn_norm", "ln_2": "ffn_norm",
    "ffn_norm": "ffn_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "mixer.in_proj": "ssm_in", "mamba.in_proj": "ssm_in", "linear_attn.in_proj_qkvz": "ssm_in", "conv1d": "ssm_conv1d", "x_proj": "ssm_x",
    "dt_proj": "ssm_dt", "dt_bias": "ssm_dt.bias", "A_log": "ssm_a", "D": "ssm_d", "mixer.out_proj": "ssm_out",
    "mamba.out_proj": "ssm_out", "linear_attn.out_proj": "ssm_out", "mixer.norm": "ssm_norm",
}  # fmt: skip
_OUTER: Final[dict[str, str]] = {
    "embed_tokens": "token_embd", "shared": "token_embd", "wte": "token_embd", "word_embeddings": "token_embd",
    "tok_embeddings": "token_embd", "embed_in": "token_embd", "embeddings": "token_embd", "embedding": "token_embd",
    "lm_head": "output", "embed_out": "output",
    "output": "output", "output_layer": "output", "wpe": "position_embd", "position_embeddings": "position_embd", "norm": "output_norm",
    "ln_f": "output_norm", "final_layernorm": "output_norm", "final_layer_norm": "output_norm", "norm_f": "output_norm",
}  # fmt: skip
#: Tables that old checkpoints store beside their weights.
_BUFFERS: Final = (
    "position_ids", "token_type_ids", "inv_freq", "attn.masked_bias", "attention.masked_bias", "rotary_emb.cos_cached",
    "rotary_emb.sin_cached",
)  # fmt: skip
_PLAIN_ENDS: Final = (".weight", ".qweight", ".weight_packed")


def classify(name: str, layers: int | None = None) -> TensorName:
    """What the tensor `name` of a transformers checkpoint is.

    `layers` is the number of decoder layers where it is known: a text tensor of a layer beyond them is an MTP head's,
    as DeepSeek-V3 and GLM-4.5 store it. What goes with a quantised weight (scales, zero points) keeps its own ending.
    """
    base, ending = _split_ending(name[:512])
    part = _part(base)
    match = _LAYER.search(base)
    layer, inner = (int(match[1]), match[2]) if match else (None, base)
    if part == "text" and layer is not None and layers is not None and layer >= layers:
        part = "mtp"
    expert = _EXPERT.search(inner) is not None
    role = _role(inner, _OUTER if layer is None else _ROLES)
    if base.endswith(_BUFFERS):
        role, ending = f"buffer.{base.rpartition('.')[2]}", ""
    elif expert:
        role = f"{role}_exps"
    elif "shared_expert" in inner and role.startswith("ffn_") and not role.endswith("_shexp"):
        role = f"{role}_shexp"
    return TensorName(role + ending, layer, part, expert)


def _split_ending(name: str) -> tuple[str, str]:
    for end in _PLAIN_ENDS:
        if name.endswith(end):
            return name.removesuffix(end), ""
    base, dot, last = name.rpartition(".")
    if dot and (last in ("bias", "scales", "qzeros", "g_idx", "absmax") or last.startswith(("weight_", "input_", "quant_"))):
        return base, f".{last}"
    return name, ""


def _part(name: str) -> Part:
    if _MTP.search(name + "."):
        return "mtp"
    if _PROJECTOR.search(name):
        return "projector"
    if _AUDIO.search(name):
        return "audio"
    return "vision" if _VISION.search(name) else "text"


def _role(name: str, table: dict[str, str]) -> str:
    """The longest ending of the name that the table knows, of three words at most; else its last two words."""
    words = [word for word in name.split(".") if not word.isdigit()]
    for count in (3, 2, 1):
        known = table.get(".".join(words[-count:]))
        if known:
            return known
    return ".".join(words[-2:])


def architecture_from_safetensors(stored: Sequence[StoredTensor]) -> Architecture:
    """What a safetensors header alone says of a model: its weights exactly, of its cache the width of K and V.

    The cache is of full attention, since windows are not in a header; KV heads are counted as one of the whole width.
    Raises FormatError where the header lists no layers of a language model.
    """
    named = [(classify(tensor.name), tensor) for tensor in stored]
    tensors = tuple(Tensor(n.role, n.layer, t.shape, _experts(n, t), t.dtype, n.part) for n, t in named)
    shapes = {(t.role, t.layer): t.shape for t in tensors if t.part == "text"}
    layers = sorted({layer for _, layer in shapes if layer is not None})
    if not layers:
        raise FormatError("the safetensors file lists no layers of a language model", "put its config.json beside it")
    cache = [entry for entry in (_cache_of(shapes, layer) for layer in layers) if entry]
    encoder = any(t.name.startswith(("encoder.layer.", "bert.", "roberta.")) for t in stored)
    embedding = _shape_of(shapes, "token_embd")
    in_layer: Counter[int | None] = Counter()
    for tensor in tensors:
        in_layer[tensor.layer] += tensor.experts if tensor.role == "ffn_down_exps" else 0
    experts = max(in_layer.values())
    return Architecture(
        name="unknown",
        family="safetensors",
        kind="encoder" if encoder else "decoder",
        hidden_size=embedding[-1] if embedding else 0,
        layers=len(layers),
        vocab_size=embedding[0] if embedding else 0,
        heads=1,
        trained_context=None,
        tied_embeddings=("output", None) not in shapes and bool(embedding),
        tensors=tensors,
        cache_layers=() if encoder else tuple(cache),
        experts=experts,
        experts_per_token=experts,
        basis="fallback",
        notes=_notes(len(layers), len(cache) or encoder * len(layers), experts),
    )


def _experts(name: TensorName, stored: StoredTensor) -> int:
    """How many experts' weights a tensor holds: the first number of a stack's shape."""
    return (stored.shape[0] if len(stored.shape) == 3 else 1) if name.expert else 0


def _notes(layers: int, cached: int, experts: int) -> tuple[str, ...]:
    notes = ["no config.json beside it: the weights are the header's, the cache is read off their shapes as full attention"]
    if experts:
        notes.append(f"how many of the {experts} experts a token uses is not in a header: all are counted as used")
    if cached < layers:
        notes.append(f"{layers - cached} of {layers} layers have no attention that is recognised; a state they may keep is not counted")
    return tuple(notes)


def _shape_of(shapes: dict[tuple[str, int | None], tuple[int, ...]], role: str, layer: int | None = None) -> tuple[int, ...]:
    found = shapes.get((role, layer), ())
    return found if len(found) > 1 else ()


def _cache_of(shapes: dict[tuple[str, int | None], tuple[int, ...]], layer: int) -> CacheLayer | None:
    latent = _shape_of(shapes, "attn_kv_a_mqa", layer)
    if latent:
        return CacheLayer(layer, "latent", 1, 1, latent[0], 0, latent_rank=sum(shapes.get(("attn_kv_a_norm", layer), ())))
    k, v = _width(shapes, "attn_k", layer), _width(shapes, "attn_v", layer)
    if k:
        return CacheLayer(layer, "full", 1, 1, k, v or k)
    fused, out = _width(shapes, "attn_qkv", layer), _shape_of(shapes, "attn_output", layer)
    if fused and out and fused > out[1]:
        kv = (fused - out[1]) // 2
        return CacheLayer(layer, "full", 1, 1, kv, kv)
    return None


def _width(shapes: dict[tuple[str, int | None], tuple[int, ...]], role: str, layer: int) -> int:
    """Outputs of a projection, from its bias if it has one. GPT-2 stores its matrices the other way round; a packed weight
    (GPTQ, AWQ) is stored otherwise too, but its scales have one column an output."""
    sure = shapes.get((f"{role}.bias", layer)) or _shape_of(shapes, f"{role}.scales", layer)
    if sure:
        return sure[-1]
    shape = _shape_of(shapes, role, layer)
    return shape[0] if shape and shape[-1] > 1 else 0
