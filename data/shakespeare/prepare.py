"""Shakespeare in GPT-2 BPE: 301,966 tokens to train on, 36,059 to measure with."""
import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import SHAKESPEARE, fetched_text, parted, tiktoken_bpe, write_parts

tiktoken_bpe('gpt2') # which may be missing, before anything is fetched
write_parts(folder, *parted(fetched_text(os.path.join(folder, 'input.txt'), *SHAKESPEARE)), by_characters=False)
