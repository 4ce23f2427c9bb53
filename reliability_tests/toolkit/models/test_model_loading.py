"""Models: sources, identity, loading, preprocessing and the zero-shot head, on tiny checkpoints."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from clipq.errors import ModelError, ProbeError, UnknownNameError
from clipq.models import (
    ModelSource,
    Preprocess,
    class_embeddings,
    identity,
    load_model,
    prompt_tokens,
)
from clipq.models import loading as loading_module
from clipq.models.in_memory import model_in_memory
from clipq.models.source import checkpoint_in

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
MERGES = ["a n", "an d", "r e", "re d</w>", "f o", "fo x</w>"]
VOCABULARY = 512 + len(MERGES) + 2
CLASSES = ("red fox", "owl {of} night", "boat")
TEMPLATES = ("a photo of the {c}", "the {c}", "{c} and {c}")


def clip_config() -> dict:
    return {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1,
            },
            "text_cfg": {
                "context_length": 24, "vocab_size": VOCABULARY, "width": 16, "heads": 2,
                "layers": 1, "tokenizer_kwargs": {"bpe_path": "vocabulary.txt.gz"},
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "size": 16},
    }  # fmt: skip


def siglip_config() -> dict:
    config = clip_config()
    config["model_cfg"] |= {"custom_text": True, "init_logit_bias": -10.0}
    config["preprocess_cfg"] |= {"resize_mode": "squash", "interpolation": "bilinear"}
    return config


def build(folder: Path, config: dict, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "vocabulary.txt.gz", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(["#version: test", *MERGES]))
    arguments = dict(config["model_cfg"])
    kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(**arguments)
    (folder / CONFIG).write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / WEIGHTS)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "tiny", clip_config())


def local(folder: Path) -> ModelSource:
    return ModelSource.parse(f"local-dir:{folder.name}", base_dir=folder.parent)


def edit(folder: Path, change) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config["model_cfg"])
    (folder / CONFIG).write_text(json.dumps(config))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestSource:
    @pytest.mark.parametrize(
        "text",
        ["ViT-B-32/laion2b_s34b_b79k", "hf-hub:org/name", "local-dir:models/x", "local-dir:/abs"],
    )
    def test_canonical_text_parses_back_to_itself(self, text):
        source = ModelSource.parse(text, base_dir=Path("/base"))
        assert str(source) == text
        assert ModelSource.parse(str(source), base_dir=Path("/base")) == source

    def test_a_slash_in_an_architecture_is_spelled_as_open_clip_does(self):
        source = ModelSource.parse("ViT-B/32/openai", base_dir=Path())
        assert str(source) == "ViT-B-32/openai"

    def test_local_folders_start_from_the_base(self):
        assert ModelSource.parse("local-dir:m/x", base_dir=Path("/b")).path == Path("/b/m/x")
        assert ModelSource.parse("local-dir:/m/x", base_dir=Path("/b")).path == Path("/m/x")

    def test_unknown_architecture_gets_a_suggestion(self):
        with pytest.raises(UnknownNameError, match=r"did you mean.*ViT-B-32"):
            ModelSource.parse("ViTB-32/openai", base_dir=Path())

    @pytest.mark.parametrize("text", ["ViT-B-32", "", "/", "local-dir:", "hf-hub:name"])
    def test_a_source_without_weights_or_place_is_refused(self, text):
        with pytest.raises(ModelError):
            ModelSource.parse(text, base_dir=Path())

    def test_parsing_and_identity_import_no_torch(self, folder):
        code = (
            "import sys; from pathlib import Path; from clipq.models import ModelSource, identity;"
            f"identity(ModelSource.parse('local-dir:{folder}', base_dir=Path()));"
            "ModelSource.parse('ViT-B-32/openai', base_dir=Path());"
            "sys.exit(len({'torch', 'open_clip'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


class TestIdentity:
    def test_is_of_the_files(self, folder):
        found = identity(local(folder))
        assert found.weights_sha256 == sha256(folder / WEIGHTS)
        assert found.config_sha256 == sha256(folder / CONFIG)
        assert found == load_model(local(folder)).identity
        assert set(found.to_plain()) == {"weights_sha256", "config_sha256", "tokenizer_sha256"}

    @pytest.mark.parametrize(
        ("file", "field"),
        [
            (WEIGHTS, "weights_sha256"),
            (CONFIG, "config_sha256"),
            ("vocabulary.txt.gz", "tokenizer_sha256"),
        ],
    )
    def test_each_file_changes_its_own_part_only(self, folder, file, field):
        before = identity(local(folder)).to_plain()
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content + b" ")
        after = identity(local(folder)).to_plain()
        assert {key for key in before if before[key] != after[key]} == {field}

    def test_does_not_depend_on_the_folder_or_on_other_files(self, folder, tmp_path):
        other = build(tmp_path / "elsewhere", clip_config())
        (other / "README.txt").write_text("hello")
        assert identity(local(other)) == identity(local(folder))

    def test_a_vocabulary_outside_the_folder_counts(self, folder):
        outside = folder.parent / "shared.gz"
        outside.write_bytes((folder / "vocabulary.txt.gz").read_bytes())
        edit(folder, lambda m: m["text_cfg"]["tokenizer_kwargs"].update(bpe_path="../shared.gz"))
        before = identity(local(folder)).tokenizer_sha256
        outside.write_bytes(outside.read_bytes() + b" ")
        assert identity(local(folder)).tokenizer_sha256 != before

    def test_expected_hash(self, folder):
        expected = sha256(folder / WEIGHTS)
        load_model(local(folder), expected_sha256=expected.upper())
        with pytest.raises(ModelError, match="tampered with or truncated") as caught:
            load_model(local(folder), expected_sha256="0" * 64)
        assert expected in str(caught.value)
        assert "0" * 64 in str(caught.value)

    @pytest.mark.parametrize("seed", range(40))
    def test_hashes_the_checkpoint_that_open_clip_loads(self, tmp_path, seed):
        names = [
            "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "z.bin",
            "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
            "pytorch_model.bin", "pytorch_model.pth", "model.pth", "b.safetensors", "a.pth",
        ]  # fmt: skip
        rng = np.random.default_rng(seed)
        for name in rng.choice(names, size=rng.integers(1, 5), replace=False):
            (tmp_path / name).write_bytes(b"")
        logging.disable(logging.WARNING)
        try:
            expected = _find_checkpoint_in_dir(tmp_path)
        finally:
            logging.disable(logging.NOTSET)
        assert str(checkpoint_in(tmp_path)) == expected

    def test_only_local_models_are_identified_without_loading(self):
        with pytest.raises(ModelError, match="load_model"):
            identity(ModelSource.parse("hf-hub:a/b", base_dir=Path()))


class TestLoading:
    def test_is_open_clips_model_frozen_and_in_evaluation_mode(self, folder):
        loaded = load_model(local(folder))
        assert not loaded.model.training
        assert not any(p.requires_grad for p in loaded.model.parameters())
        stored = load_file(folder / WEIGHTS)
        for name, value in loaded.model.state_dict().items():
            torch.testing.assert_close(value, stored[name], rtol=0, atol=0)
        assert loaded.logit_scale == pytest.approx(1 / 0.07)
        assert loaded.logit_bias == 0.0

    def test_a_siglip_like_model_has_a_bias(self, tmp_path):
        loaded = load_model(local(build(tmp_path / "s", siglip_config())))
        assert loaded.logit_bias == -10.0
        assert type(loaded.model).__name__ == "CustomTextCLIP"

    def test_the_vocabulary_is_found_from_any_working_directory(self, folder, monkeypatch):
        monkeypatch.chdir("/")
        tokens = load_model(local(folder)).tokenizer(["red fox"])
        merged = [2 * 256 + MERGES.index(m) for m in ("re d</w>", "fo x</w>")]
        assert tokens[0, 1:3].tolist() == merged

    def test_says_nothing_and_leaves_the_loggers_alone(self, folder, capfd, monkeypatch):
        monkeypatch.setattr(logging.root, "handlers", [])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_model(local(folder))
        assert logging.root.handlers == []
        assert logging.root.manager.disable == logging.NOTSET
        assert capfd.readouterr() == ("", "")

    def test_does_not_move_the_global_seed_by_more_than_open_clip_itself(self, folder):
        first, second = load_model(local(folder)), load_model(local(folder))
        images = torch.zeros(1, 3, 16, 16)
        torch.testing.assert_close(
            first.model.encode_image(images), second.model.encode_image(images), rtol=0, atol=0
        )

    def refused(self, folder: Path, message: str) -> str:
        with pytest.raises(ModelError, match=message) as caught:
            load_model(local(folder))
        assert caught.value.hint
        return str(caught.value)

    def test_missing_parts(self, folder):
        (folder / "vocabulary.txt.gz").unlink()
        self.refused(folder, "vocabulary that is missing")
        (folder / WEIGHTS).unlink()
        self.refused(folder, "no checkpoint in .*random weights")
        self.refused(folder.parent / "nothing", "no model folder")

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "{}", '{"model_cfg": 3}', "\xff", '{"model_cfg": {"text_cfg": [1]}}'],
    )
    def test_malformed_configuration(self, folder, text):
        (folder / CONFIG).write_bytes(text.encode("latin-1"))
        assert CONFIG in self.refused(folder, "open_clip_config")

    def test_missing_configuration(self, folder):
        (folder / CONFIG).unlink()
        self.refused(folder, "cannot be read as JSON")

    @pytest.mark.parametrize("size", [0, 4, 100, -1])
    def test_truncated_weights(self, folder, size):
        path = folder / WEIGHTS
        path.write_bytes(path.read_bytes()[:size])
        message = self.refused(folder, "cannot be loaded")
        assert str(path) in message
        assert sha256(path) in message

    def test_weights_of_another_configuration(self, folder):
        edit(folder, lambda m: m["vision_cfg"].update(width=24))
        self.refused(folder, "size mismatch|Error")

    def test_weights_with_a_tensor_missing(self, folder):
        stored = load_file(folder / WEIGHTS)
        stored.pop("visual.proj")
        save_file(stored, folder / WEIGHTS)
        self.refused(folder, "cannot be loaded")

    def test_a_pickle_is_never_executed(self, folder, tmp_path, monkeypatch):
        (folder / WEIGHTS).unlink()
        mark = tmp_path / "executed"

        class Payload:
            def __reduce__(self):
                return os.mkdir, (str(mark),)

        (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        self.refused(folder, "cannot be loaded")
        torch.save({"state_dict": Payload()}, folder / "open_clip_pytorch_model.bin")
        self.refused(folder, "cannot be loaded")
        assert not mark.exists()

    def test_plain_tensors_in_a_bin_file_load(self, folder):
        torch.save(load_file(folder / WEIGHTS), folder / "open_clip_pytorch_model.bin")
        (folder / WEIGHTS).unlink()
        assert load_model(local(folder)).logit_scale == pytest.approx(1 / 0.07)

    def test_damaged_vocabulary(self, folder):
        path = folder / "vocabulary.txt.gz"
        path.write_bytes(b"not gzip")
        message = self.refused(folder, "tokenizer cannot be loaded")
        assert str(path) in message
        assert sha256(path) in message

    def test_a_vocabulary_larger_than_the_text_tower(self, folder):
        edit(folder, lambda m: m["text_cfg"].pop("tokenizer_kwargs"))
        self.refused(folder, f"49408 tokens, its text tower {VOCABULARY}")

    @pytest.mark.parametrize(
        ("tensor", "place", "value", "said"),
        [
            ("logit_scale", (), np.nan, r"NaN or infinity in logit_scale \(1 of 1 values\)"),
            ("logit_scale", (), np.inf, "NaN or infinity in logit_scale"),
            ("logit_scale", (), 30.85, r"logit_scale 30.85 is a scale of exp\(30.85\) = 2.5e\+13"),
            ("logit_scale", (), 100.0, r"exp\(100\) = 2.69e\+43\n.*store log\(scale\)"),
            ("logit_scale", (), 5000.0, r"exp\(5000\) = inf"),
            ("logit_scale", (), -1000.0, r"exp\(-1000\) = 0"),
            ("ln_final.bias", (3,), np.nan, r"infinity in ln_final.bias \(1 of 16 values\)"),
            ("visual.proj", (0, 1), -np.inf, r"visual.proj \(1 of 256 values\)"),
        ],
    )
    def test_numbers_that_no_training_gives(self, folder, tensor, place, value, said):
        stored = load_file(folder / WEIGHTS)
        stored[tensor][place] = value
        save_file(stored, folder / WEIGHTS)
        self.refused(folder, said)
        module = open_clip.create_model(f"local-dir:{folder}")
        with pytest.raises(ModelError, match=r"model in memory \(CLIP\): .*" + tensor):
            model_in_memory(module, tokenizer=load_model)

    @pytest.mark.parametrize(("scale", "loads"), [(100.0, True), (130.0, True), (1e-4, False)])
    def test_scales_as_clip_s_and_siglip_s_are_good(self, folder, scale, loads):
        stored = load_file(folder / WEIGHTS)
        stored["logit_scale"] = torch.tensor(scale).log()
        save_file(stored, folder / WEIGHTS)
        if loads:
            assert load_model(local(folder)).logit_scale == pytest.approx(scale)
        else:
            self.refused(folder, "allowed: 0.001 to 1000")

    @pytest.mark.parametrize("kind", ["safetensors", "bin", "state_dict"])
    @pytest.mark.parametrize(
        ("tower", "setting", "value", "said"),
        [
            ("vision_cfg", "image_size", 32,
             r"visual.positional_embedding of shape \(5, 16\), .* makes it \(17, 16\): "
             r"vision_cfg.image_size 32, trained with 16"),
            ("text_cfg", "context_length", 77,
             r"positional_embedding of shape \(24, 16\), .* makes it \(77, 16\): "
             r"text_cfg.context_length 77, trained with 24"),
        ],
    )  # fmt: skip
    def test_weights_that_open_clip_would_resize(self, folder, kind, tower, setting, value, said):
        edit(folder, lambda m: m[tower].update({setting: value}))
        if kind != "safetensors":
            stored = load_file(folder / WEIGHTS)
            (folder / WEIGHTS).unlink()
            if kind == "state_dict":  # as open_clip's training writes it
                stored = {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in stored.items()}}
            torch.save(stored, folder / "open_clip_pytorch_model.bin")
        open_clip.create_model(f"local-dir:{folder}")  # says nothing
        message = self.refused(folder, said)
        assert str(folder / CONFIG) in message

    def test_a_bias_that_open_clip_would_invent(self, tmp_path):
        folder = build(tmp_path / "s", siglip_config())
        stored = load_file(folder / WEIGHTS)
        del stored["logit_bias"]
        save_file(stored, folder / WEIGHTS)
        self.refused(folder, "sets init_logit_bias, the weights hold no logit_bias")

    def test_text_weights_of_the_older_layout_are_compared_as_well(self, tmp_path):
        folder = build(tmp_path / "s", siglip_config())
        stored = load_file(folder / WEIGHTS)
        save_file({n.removeprefix("text."): v for n, v in stored.items()}, folder / WEIGHTS)
        assert load_model(local(folder)).logit_bias == -10.0
        edit(folder, lambda m: m["text_cfg"].update(context_length=30))
        self.refused(folder, "text_cfg.context_length 30, trained with 24")


class TestRemote:
    @pytest.fixture
    def offline(self, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("We couldn't connect to 'https://huggingface.co'\nmore")

        monkeypatch.setattr(loading_module, "download_pretrained", fail)
        monkeypatch.setattr(loading_module, "download_pretrained_from_hf", fail)

    @pytest.mark.parametrize(
        ("text", "command"),
        [
            ("ViT-B-32/openai", "open_clip.create_model('ViT-B-32', pretrained='openai')"),
            ("hf-hub:org/name", "open_clip.create_model('hf-hub:org/name')"),
        ],
        ids=["tag", "hub"],
    )
    def test_offline_says_what_to_fetch_elsewhere(self, offline, text, command):
        with pytest.raises(ModelError, match="couldn't connect") as caught:
            load_model(ModelSource.parse(text, base_dir=Path()))
        assert text in caught.value.problem
        assert command in caught.value.hint
        assert "local-dir" in caught.value.hint

    def test_unknown_tag(self, offline):
        with pytest.raises(ModelError, match=r"did you mean.*'openai'"):
            load_model(ModelSource.parse("ViT-B-32/openia", base_dir=Path()))

    def test_another_activation_than_the_trained_one_is_refused(self, folder, monkeypatch):
        """open_clip only warns, and evaluates ViT-B-32/openai with the wrong activation."""
        built = load_model(local(folder)).model
        checkpoint = folder / WEIGHTS
        monkeypatch.setattr(loading_module, "download_pretrained", lambda cfg: checkpoint)

        def create(name, **arguments):
            warnings.warn("QuickGELU mismatch between model config and tag", stacklevel=2)
            return built

        monkeypatch.setattr(open_clip, "create_model", create)
        with pytest.raises(ModelError, match="QuickGELU") as caught:
            load_model(ModelSource.parse("ViT-B-32/openai", base_dir=Path()))
        assert "-quickgelu" in caught.value.hint


def image(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert("RGB").convert(mode)


class TestPreprocess:
    @pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    def test_both_stages_are_bit_identical_to_the_transform(self, resize, interpolation):
        """Images of every mode and format are compared in `data/test_pixels.py`."""
        config = PreprocessCfg(size=16, resize_mode=resize, interpolation=interpolation)
        transform = image_transform_v2(config, is_train=False)
        preprocess = Preprocess(transform, config)
        for size in [(16, 16), (40, 23), (11, 50), (3, 2), (224, 224)]:
            pixels = preprocess.to_uint8(image("RGB", size))
            assert pixels.dtype == np.uint8
            assert pixels.shape == (16, 16, 3)
            expected = transform(image("RGB", size))
            assert torch.equal(preprocess.normalise(pixels[None])[0], expected)

    def test_a_size_that_is_not_square(self):
        config = PreprocessCfg(size=(16, 24))
        transform = image_transform_v2(config, is_train=False)
        preprocess = Preprocess(transform, config)
        pixels = preprocess.to_uint8(image("RGB", (50, 30)))
        assert torch.equal(preprocess.normalise(pixels[None])[0], transform(image("RGB", (50, 30))))

    def test_a_batch_equals_its_images(self):
        config = PreprocessCfg(size=16)
        preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
        batch = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
        batch.setflags(write=False)  # as a memory map is
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            together = preprocess.normalise(batch)
        assert together.is_contiguous()
        assert together.dtype == torch.float32
        for index in range(5):
            assert torch.equal(together[index], preprocess.normalise(batch[index : index + 1])[0])

    @pytest.mark.parametrize(
        "images", [np.zeros((1, 4, 4, 3), np.float32), np.zeros((1, 3, 4, 4), np.uint8),
                   np.zeros((4, 4, 3), np.uint8)]
    )  # fmt: skip
    def test_only_uint8_pixels_are_normalised(self, images):
        config = PreprocessCfg(size=4)
        with pytest.raises(ModelError, match="uint8"):
            Preprocess(image_transform_v2(config, is_train=False), config).normalise(images)

    def test_a_training_transform_is_refused(self):
        config = PreprocessCfg(size=4)
        transform = image_transform_v2(config, is_train=False)
        transform.transforms.reverse()
        with pytest.raises(ModelError, match="preprocessing"):
            Preprocess(transform, config)

    def test_identity_is_canonical_and_tells_configurations_apart(self, folder, tmp_path):
        found = json.loads(load_model(local(folder)).preprocess.identity)
        assert found["mean"] == [0.5, 0.4, 0.3]
        assert found["std"] == [0.2, 0.3, 0.25]
        assert found["interpolation"] == "bicubic"
        assert found["resize_mode"] == "shortest"
        other = load_model(local(build(tmp_path / "s", siglip_config()))).preprocess
        assert other.identity != load_model(local(folder)).preprocess.identity


class TestZeroShot:
    @pytest.fixture(params=["clip", "siglip"])
    def loaded(self, tmp_path, request):
        config = clip_config() if request.param == "clip" else siglip_config()
        return load_model(local(build(tmp_path / "m", config)))

    def test_equals_open_clip(self, loaded):
        expected = open_clip.build_zero_shot_classifier(
            loaded.model,
            loaded.tokenizer,
            classnames=CLASSES,
            templates=[lambda c, t=t: t.format(c=c) for t in TEMPLATES],
            num_classes_per_batch=None,
        ).T
        found = class_embeddings(loaded.model, loaded.tokenizer, CLASSES, TEMPLATES, batch_size=100)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_equals_clip_benchmark_one_class_at_a_time(self, loaded):
        found = class_embeddings(loaded.model, loaded.tokenizer, CLASSES, TEMPLATES, batch_size=2)
        for row, name in zip(found, CLASSES, strict=True):
            tokens = loaded.tokenizer([t.format(c=name) for t in TEMPLATES])
            mean = normalize(loaded.model.encode_text(tokens), dim=-1).mean(dim=0)
            torch.testing.assert_close(row, mean / mean.norm(), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("batch_size", [1, 2, 4, 9, 500])
    def test_batches_do_not_matter(self, loaded, batch_size):
        one = class_embeddings(loaded.model, loaded.tokenizer, CLASSES, TEMPLATES, batch_size=9)
        two = class_embeddings(
            loaded.model, loaded.tokenizer, CLASSES, TEMPLATES, batch_size=batch_size
        )
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(two.norm(dim=1), torch.ones(3))

    def test_classes_with_the_same_tokens_have_exactly_the_same_embedding(self, loaded):
        names = [*(f"fox {n}" for n in range(9)), "Owl_a", "fox 3", "Owl a"]
        found = class_embeddings(loaded.model, loaded.tokenizer, names, TEMPLATES, batch_size=5)
        assert torch.equal(found[3], found[10])
        assert not torch.equal(found[9], found[11])  # of this vocabulary's tokens these are two

    def test_prompts_run_over_templates_first(self, loaded):
        expected = loaded.tokenizer([t.format(c=c) for c in CLASSES for t in TEMPLATES])
        assert torch.equal(prompt_tokens(loaded.tokenizer, CLASSES, TEMPLATES), expected)

    @pytest.mark.parametrize(
        ("classes", "templates"),
        [((), TEMPLATES), (CLASSES, ()), (CLASSES, ("a photo",)), (CLASSES, ("a {}",))],
    )
    def test_prompts_that_say_nothing_are_refused(self, loaded, classes, templates):
        with pytest.raises(ProbeError):
            prompt_tokens(loaded.tokenizer, classes, templates)
