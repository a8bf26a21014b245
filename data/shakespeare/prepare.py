"""Shakespeare in GPT-2 BPE: 301,966 tokens in train.bin, 36,059 in val.bin."""
import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import SHAKESPEARE, fetched_text, parted, takes_no_arguments, tiktoken_bpe, write_parts

takes_no_arguments()
tiktoken_bpe('gpt2') # fail before the download if it is missing
write_parts(folder, *parted(fetched_text(os.path.join(folder, 'input.txt'), *SHAKESPEARE)), by_characters=False)
