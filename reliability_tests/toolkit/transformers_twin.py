"""A CLIP of Hugging Face's transformers that has the weights of one of open_clip's."""

from __future__ import annotations

from typing import Any


def transformers_twin(model: Any) -> Any:
    """Return a CLIPModel with the weights of an open_clip CLIP of ViTs."""
    import transformers

    vision, text = model.visual, model.transformer
    width, layers = vision.conv1.out_channels, len(vision.transformer.resblocks)
    shared = {"hidden_act": "gelu", "attention_dropout": 0.0}
    config = transformers.CLIPConfig(
        vision_config={"hidden_size": width, "intermediate_size": 4 * width, "image_size": 32,
                       "num_hidden_layers": layers, "patch_size": 8,
                       "num_attention_heads": vision.transformer.resblocks[0].attn.num_heads}
        | shared,
        text_config={"hidden_size": text.width, "intermediate_size": 4 * text.width,
                     "num_hidden_layers": len(text.resblocks), "vocab_size": 661,
                     "num_attention_heads": text.resblocks[0].attn.num_heads,
                     "max_position_embeddings": model.context_length, "bos_token_id": 0,
                     "eos_token_id": 2} | shared,
        projection_dim=vision.proj.shape[1],
    )  # fmt: skip
    weights = {
        "vision_model.embeddings.class_embedding": vision.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": vision.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": vision.positional_embedding,
        "visual_projection.weight": vision.proj.T,
        "text_model.embeddings.token_embedding.weight": model.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": model.positional_embedding,
        "text_projection.weight": model.text_projection.T,
        "logit_scale": model.logit_scale,
    }
    norms = {"vision_model.pre_layrnorm": vision.ln_pre,
             "vision_model.post_layernorm": vision.ln_post,
             "text_model.final_layer_norm": model.ln_final}  # fmt: skip
    for tower, blocks in (("vision", vision.transformer), ("text", text)):
        for at, block in enumerate(blocks.resblocks):
            name = f"{tower}_model.encoder.layers.{at}"
            norms |= {f"{name}.layer_norm1": block.ln_1, f"{name}.layer_norm2": block.ln_2,
                      f"{name}.mlp.fc1": block.mlp.c_fc, f"{name}.mlp.fc2": block.mlp.c_proj,
                      f"{name}.self_attn.out_proj": block.attn.out_proj}  # fmt: skip
            for part, (weight, bias) in zip(
                "qkv", zip(block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3),
                           strict=True), strict=True,
            ):  # fmt: skip
                weights[f"{name}.self_attn.{part}_proj.weight"] = weight
                weights[f"{name}.self_attn.{part}_proj.bias"] = bias
    for name, module in norms.items():
        weights |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    found = transformers.CLIPModel(config).eval()
    missing, unexpected = found.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("position_ids") for name in missing)
    return found
