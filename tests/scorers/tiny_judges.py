"""Tiny random weights of judges, in the layout in which their authors publish them."""

import json
from pathlib import Path

import open_clip
import torch
import transformers as tf
from tiny_mllm import WORDS
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

HPS_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def clip_tokenizer():
    """A CLIP tokenizer whose vocabulary was learnt from a few words."""
    made = Tokenizer(BPE(end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=700, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(WORDS * 20, trainer)
    model = json.loads(made.to_str())["model"]
    vocab = dict(model["vocab"])
    for letter in alphabet:
        vocab.setdefault(letter, len(vocab))
        vocab.setdefault(letter + "</w>", len(vocab))
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocab[mark] = len(vocab)
    return tf.CLIPTokenizer(vocab=vocab, merges=[tuple(m) for m in model["merges"]], model_max_length=77)


def pickscore(home: Path) -> tuple[Path, Path]:
    """A tiny random model as the authors publish theirs, and beside it the processor that they name."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = tokenizer.eos_token_id
    text = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 77, "eos_token_id": end}
    text |= {"bos_token_id": end - 1, "pad_token_id": end}
    config = tf.CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8})
    config.projection_dim = 24
    model = tf.CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.ndim > 1 else None
        model.logit_scale.fill_(4.6052)
    model.save_pretrained(home / "PickScore_v1")
    processor = home / "CLIP-ViT-H-14"
    square = {"height": 32, "width": 32}
    tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(processor)
    tokenizer.save_pretrained(processor)
    return home / "PickScore_v1", processor


def hpsv2(home: Path) -> Path:
    """Both versions, each a pickle with 'state_dict' and what else training left there."""
    for seed, file in enumerate(["HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**HPS_CONFIG)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5) if parameter.ndim > 1 else None
        torch.save({"epoch": 1, "name": "hps", "state_dict": model.state_dict()}, home / file)
    return home
