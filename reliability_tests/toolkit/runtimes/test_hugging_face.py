"""Models of transformers are towers: what they return is found, whatever it comes in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers_twin import transformers_twin

from clipq.errors import ArtifactError
from clipq.models import ModelSource, load_model
from clipq.runtimes.hugging_face import features_of, tower_of

ROOT = Path(__file__).parents[3]
FEATURES, TOKENS = torch.ones(2, 4), torch.zeros(2, 5, 8)


@pytest.mark.parametrize(
    "result",
    [
        FEATURES,
        SimpleNamespace(pooler_output=FEATURES, last_hidden_state=TOKENS),
        SimpleNamespace(image_embeds=FEATURES, pooler_output=FEATURES + 1),
        (TOKENS, FEATURES),
        (FEATURES, TOKENS),
        [FEATURES],
    ],
)
def test_features_are_found_in_what_an_encoder_returns(result):
    assert torch.equal(features_of(result, "image"), FEATURES)


@pytest.mark.parametrize("result", [TOKENS, (TOKENS,), {}, SimpleNamespace(pooler_output=TOKENS)])
def test_what_holds_no_features_is_refused(result):
    with pytest.raises(ArtifactError, match=r"the text tower returned .* not features"):
        features_of(result, "text")


def test_a_tower_without_its_projection_is_refused():
    class Vision:
        config = SimpleNamespace(model_type="clip_vision_model")

        def __call__(self, pixel_values):
            return SimpleNamespace(pooler_output=FEATURES)

    encode = tower_of(Vision(), "image")
    with pytest.raises(ArtifactError, match="Vision returns no image_embeds"):
        encode(FEATURES, None)
    Vision.config = SimpleNamespace(model_type="siglip_vision_model")  # which has none to lose
    assert torch.equal(tower_of(Vision(), "image")(FEATURES, None), FEATURES)
    assert tower_of(torch.nn.Linear(2, 2), "image") is None


def test_clip_of_transformers_encodes_as_open_clip_s_with_the_same_weights():
    source = ModelSource.parse("local-dir:fixtures/models/vit-clean", base_dir=ROOT)
    loaded = load_model(source)
    found = transformers_twin(loaded.model)
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.standard_normal((4, 3, 32, 32)).astype(np.float32))
    tokens = loaded.tokenizer(["a red circle", "a photo of a blue square", "green"])
    mask = (tokens != 0).long()
    with torch.inference_mode():
        expected = loaded.model.encode_image(images)
        assert torch.allclose(tower_of(found, "image")(images, None), expected, atol=1e-5)
        expected = loaded.model.encode_text(tokens)
        for given in (None, mask):  # behind the last token nothing is looked at
            assert torch.allclose(tower_of(found, "text")(tokens, given), expected, atol=1e-5)
        found.config.return_dict = False
        assert torch.allclose(tower_of(found, "text")(tokens, None), expected, atol=1e-5)


def test_siglip_of_transformers_gives_its_pooled_output():
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    config = transformers.SiglipConfig(
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        text_config={**tower, "vocab_size": 32, "max_position_embeddings": 6,
                     "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
    )  # fmt: skip
    model = transformers.SiglipModel(config).eval()
    images, tokens = torch.randn(2, 3, 16, 16), torch.randint(0, 32, (2, 6))
    with torch.inference_mode():
        whole = model(input_ids=tokens, pixel_values=images)
        for kind, given in (("image", images), ("text", tokens)):
            found = tower_of(model, kind)(given, None)
            unit = found / found.norm(dim=-1, keepdim=True)
            assert torch.allclose(unit, getattr(whole, f"{kind}_embeds"), atol=1e-6)
