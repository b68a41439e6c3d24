"""Write the model catalogue from a folder of real configs: architecture facts only, each row with its source.

    python data/tools/build_models.py CONFIG_DIR SOURCES.md > data/vram_plan_data/models.jsonl

CONFIG_DIR holds `org--name.json` files; SOURCES.md a table whose rows are `| file | id | source | confidence | note |`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from vram_plan_data.folding import folded

#: Keys that say nothing of sizes.
DROP = re.compile(
    r"(_token_id|_token_index|_token_ids|_ids|dropout|_pdrop|_drop|_eps|_epsilon|initializer|_init|_std|_factor|_coef|_scale|_scaling|multiplier|temperature|top_p)$"
    r"|^(transformers_version|auto_map|id2label|label2id|use_cache|pad_token|bos_token|eos_token|_name_or_path|task_specific_params|"
    r"activation_function|hidden_act|hidden_activation|finetuning_task|return_dict|output_.*|prefix|"
    r"pruned_heads|problem_type|sep_token_id|min_length|max_length|num_beams.*|length_penalty|no_repeat.*|repetition.*|do_sample|early_stopping|"
    r"torchscript|use_bfloat16|tf_legacy_loss|suppress_tokens|begin_suppress_tokens|forced_.*|scoring_func|topk_method|norm_topk_prob|"
    r"seq_aux|aux_loss_alpha|router_aux.*|router_jitter.*|mask_.*|apply_spec_augment|_attn_implementation.*|"
    r"final_logit_softcapping|attn_logit_softcapping|query_pre_attn_scalar|image_token.*|video_token.*|audio_token.*|vision_.*_token.*|"
    r"bad_words_ids|typical_p|encoder_no_repeat.*|diversity_penalty|remove_invalid_values|exponential_decay.*|is_decoder_only|license|"
    r"chunk_size_feed_forward|cross_attention_hidden_size|tokenizer_class|decoder_start_token_id|sampling_rate|gradient_checkpointing)$"
)
KEEP = {
    "rope_scaling",
    "partial_rotary_factor",
    "rotary_pct",
    "routed_scaling_factor",
    "mlp_expansion_factor",
    "num_token_ids",
    "shared_expert_gating",
    "downsample_factor",
    "scale_factor",
}
MAX_FACTORS = 4


def facts(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        kept = {k: facts(v, k) for k, v in value.items() if (k in KEEP or not DROP.search(k)) and v != {} and not k.startswith("_comment")}
        if key == "" and "id2label" in value and "SequenceClassification" in str(value.get("architectures")):
            kept["num_labels"] = len(value["id2label"])
        return kept
    if isinstance(value, list) and len(value) > MAX_FACTORS and all(isinstance(v, float) for v in value):
        return value[:1]  # long rope factors: only that they are there counts
    return value


def main() -> None:
    folder, sources = Path(sys.argv[1]), Path(sys.argv[2])
    rows = (re.split(r"\s*\|\s*", line.strip().strip("|").strip()) for line in sources.read_text().splitlines() if ".json |" in line)
    known = {row[0]: row for row in rows if len(row) >= 4}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("class-default--"):
            continue
        row = known.get(path.name)
        if row is None:
            sys.exit(f"{path.name} has no source")
        record = {"id": row[1], "config": folded(facts(json.loads(path.read_text()))), "source": row[2], "confidence": row[3]}
        print(json.dumps(record, separators=(",", ":"), sort_keys=False, ensure_ascii=False))


if __name__ == "__main__":
    main()
