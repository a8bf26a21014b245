"""Shakespeare in GPT-2 BPE: 301,966 tokens to train on, 36,059 to measure with."""
import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import SHAKESPEARE, fetched_text, gpt2_bpe, parted, write_bin

bpe = gpt2_bpe()
text = fetched_text(os.path.join(folder, 'input.txt'), *SHAKESPEARE)
for split, part in zip(('train', 'val'), parted(text), strict=True):
    write_bin(os.path.join(folder, split + '.bin'), bpe.encode_ordinary(part))
