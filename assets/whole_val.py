"""
The loss of checkpoints, ours or nanoGPT's, over the whole of a val.bin in windows that do not overlap:
    python assets/whole_val.py data/shakespeare_char out-shakespeare-char/ckpt.pt [more.pt ...]
"""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.prepare import Tokens, load_meta # noqa: E402
from model import GPT, load_checkpoint # noqa: E402

folder, *paths = sys.argv[1:]
meta = load_meta(os.path.join(folder, 'meta.pkl'))
for path in paths:
    checkpoint = load_checkpoint(path)
    model, T = GPT.from_checkpoint(checkpoint, dict(dropout=0.0)).eval(), checkpoint['model_args']['block_size']
    data = Tokens(folder, 'val', meta, model.config.vocab_size, T)
    n = (len(data) - 1) // T
    with torch.no_grad():
        total = sum(model(rows[:, :-1], rows[:, 1:])[1].item() * len(rows)
                    for rows in torch.from_numpy(data.windows(np.arange(n) * T)).split(128))
    print(f"{path}: {total / n:.4f} after {checkpoint['iter_num']} iterations")
