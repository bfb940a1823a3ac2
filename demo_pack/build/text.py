"""The tokenizer of the pack: byte-level BPE trained on captions, in CLIP's file format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTokenizer

VOCABULARY = 1024
MAX_TOKENS = 77
WORD_END = "</w>"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
OTHER_WORDS = (
    "a photo of a picture of an image of something, best quality, highly detailed, beautiful painting by an artist",
    "low quality, blurry, ugly, text, watermark, drawing, portrait, cartoon, the quick animal jumps over the river",
)


def train_tokenizer(captions: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Train the tokenizer and save it in `folder`; every byte has a token, so that any text is legal input."""
    bpe = CLIPTokenizer().backend_tokenizer
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=symbols, end_of_word_suffix=WORD_END, show_progress=False
    )
    bpe.train_from_iterator([*captions, *OTHER_WORDS * 20], trainer)
    alphabet = [*symbols, *(symbol + WORD_END for symbol in symbols)]
    learned = json.loads(bpe.to_str())["model"]["merges"]
    merges = [(str(a), str(b)) for a, b in learned][: VOCABULARY - len(alphabet) - len(SPECIAL)]
    tokens = dict.fromkeys([*alphabet, *(a + b for a, b in merges), *SPECIAL])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
    _save(tokenizer, vocabulary, merges, folder)
    return tokenizer


def _save(tokenizer: CLIPTokenizer, vocabulary: dict[str, int], merges: list[tuple[str, str]], folder: Path) -> None:
    """The one-file format of today and CLIP's original pair of files."""
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def text_config(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    """The text tower's configuration for this vocabulary: width 128, 77 tokens."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
