"""Writes a llama with random weights as GGUF: a model that costs what a real one of its size does.

    python model.py OUT.gguf [--layers 4] [--width 384]

Every word of two syllables is one token. Only words can come out, never an end mark, so a call's
`max_tokens` alone sets the length of its reply.
"""

import argparse
from itertools import product

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType, TokenType

CONSONANTS, VOWELS = "bdfgklmnprs", "aeiou"
HEAD_WIDTH, HEADS_PER_KEY = 64, 2
SPACE = "▁"
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}assistant "


def vocabulary() -> tuple[list[tuple[str, float, TokenType]], int]:
    """Return (text, score, kind) of each token, and how many of them are no words.

    A SentencePiece tokenizer joins the pair with the best score first, and both halves must be
    tokens as well: characters, syllables, a word's first syllable, words.
    """
    syllables = [c + v for c, v in product(CONSONANTS, VOWELS)]
    rest = [("<unk>", 0.0, TokenType.UNKNOWN)]
    rest += [(mark, 0.0, TokenType.CONTROL) for mark in ("<s>", "</s>")]
    rest += [(f"<0x{byte:02X}>", 0.0, TokenType.BYTE) for byte in range(256)]
    rest += [(c, -4.0, TokenType.NORMAL) for c in [SPACE, *map(chr, range(33, 127))]]
    rest += [(s, -3.0, TokenType.NORMAL) for s in syllables]
    rest += [(SPACE + s, -2.0, TokenType.NORMAL) for s in syllables]
    words = [(SPACE + a + b, -1.0, TokenType.NORMAL) for a, b in product(syllables, repeat=2)]
    return rest + words, len(rest)


def write(path: str, *, layers: int, width: int) -> None:
    """Write the model; the same bytes each time."""
    tokens, no_words = vocabulary()
    heads, inner = width // HEAD_WIDTH, 3 * width
    keys = heads // HEADS_PER_KEY
    rng = np.random.default_rng(1)
    out = gguf.GGUFWriter(path, "llama")
    out.add_name("random")
    out.add_context_length(8192)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(inner)
    out.add_head_count(heads)
    out.add_head_count_kv(keys)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(HEAD_WIDTH)
    out.add_vocab_size(len(tokens))
    out.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    out.add_tokenizer_model("llama")
    out.add_token_list([text.encode() for text, _, _ in tokens])
    out.add_token_scores([score for _, score, _ in tokens])
    out.add_token_types([kind for _, _, kind in tokens])
    out.add_unk_token_id(0)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.add_add_eos_token(False)
    out.add_chat_template(TEMPLATE)

    def weights(name: str, rows: int, columns: int, *, silent_rows: int = 0) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) * columns**-0.5
        values[:silent_rows] = 0.0
        kind = GGMLQuantizationType.Q8_0
        out.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        out.add_tensor(name, np.ones(width, np.float32))

    weights("token_embd.weight", len(tokens), width)
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight")
        weights(block + "attn_q.weight", width, width)
        weights(block + "attn_k.weight", HEAD_WIDTH * keys, width)
        weights(block + "attn_v.weight", HEAD_WIDTH * keys, width)
        weights(block + "attn_output.weight", width, width)
        norm(block + "ffn_norm.weight")
        weights(block + "ffn_gate.weight", inner, width)
        weights(block + "ffn_up.weight", inner, width)
        weights(block + "ffn_down.weight", width, inner)
    norm("output_norm.weight")
    weights("output.weight", len(tokens), width, silent_rows=no_words)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=384, help="A multiple of 128.")
    options = parser.parse_args()
    if options.width % (HEAD_WIDTH * HEADS_PER_KEY):
        parser.error(f"--width {options.width}: must be a multiple of 128, two heads of 64")
    write(options.out, layers=options.layers, width=options.width)


if __name__ == "__main__":
    main()
