"""
The loss of checkpoints, ours or nanoGPT's, over the whole of a val.bin in windows that do not overlap:
    python assets/whole_val.py data/shakespeare_char out-shakespeare-char/ckpt.pt [more.pt ...]
"""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.prepare import Tokens, load_meta, stop # noqa: E402
from model import GPT, UserError, load_checkpoint # noqa: E402

@torch.no_grad()
def whole_val(path, folder, T=None):
    """(mean loss over folder's val.bin in windows of T tokens, its block_size if T is None; iterations made) of a checkpoint."""
    try:
        checkpoint = load_checkpoint(path)
    except UserError as e:
        stop(e)
    model, T = GPT.from_checkpoint(checkpoint, dict(dropout=0.0)).eval(), T or checkpoint['model_args']['block_size']
    data = Tokens(folder, 'val', load_meta(os.path.join(folder, 'meta.pkl')), model.config.vocab_size, T)
    n = (len(data) - 1) // T
    total = sum(model(rows[:, :-1], rows[:, 1:])[1].item() * len(rows) for rows in torch.from_numpy(data.windows(np.arange(n) * T)).split(128))
    return total / n, checkpoint['iter_num']

if __name__ == '__main__':
    if len(sys.argv) < 3:
        stop(f"got {' '.join(sys.argv[1:]) or 'nothing'}; give a dataset's folder and checkpoints, as in data/shakespeare_char out-shakespeare-char/ckpt.pt")
    for path in sys.argv[2:]:
        print("{}: {:.4f} after {} iterations".format(path, *whole_val(path, sys.argv[1])))
