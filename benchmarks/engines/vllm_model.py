"""Writes a llama with random weights for vLLM, with a tokenizer of made-up words.

    python vllm_model.py FOLDER

`ignore_eos` and `max_tokens` of a call set the length of its reply.
"""

import random
import sys
from itertools import product

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONSONANTS, VOWELS = "bdfgklmnprs", "aeiou"
VOCABULARY, WORDS = 2048, 20_000
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}assistant "


def tokenizer() -> Tokenizer:
    """Return byte pairs learnt from words of two syllables: about one token each."""
    chance = random.Random(1)
    syllables = [c + v for c, v in product(CONSONANTS, VOWELS)]
    words = " ".join("".join(chance.choices(syllables, k=2)) for _ in range(WORDS))
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    found.train_from_iterator([words], trainer)
    return found


def main() -> None:
    """Write tokenizer and weights."""
    folder = sys.argv[1]
    words = tokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
