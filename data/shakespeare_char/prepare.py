"""Shakespeare by characters: 1,003,854 tokens in train.bin, 111,540 in val.bin, a vocabulary of 65."""
import os
import sys

folder = os.path.dirname(os.path.abspath(__file__))
sys.path[0] = os.path.dirname(folder)
from prepare import SHAKESPEARE, fetched_text, parted, takes_no_arguments, write_parts

takes_no_arguments()
write_parts(folder, *parted(fetched_text(os.path.join(folder, 'input.txt'), *SHAKESPEARE)))
