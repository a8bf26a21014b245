"""
The loss of checkpoints, ours or nanoGPT's, over the whole of a val.bin in windows that do not overlap:
    python assets/whole_val.py data/shakespeare_char out-shakespeare-char/ckpt.pt [more.pt ...]
"""
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model import GPT, load_checkpoint, load_meta, open_bin # noqa: E402

folder, *paths = sys.argv[1:]
ids = torch.from_numpy(open_bin(folder, 'val', load_meta(os.path.join(folder, 'meta.pkl'))).astype('int64'))
for path in paths:
    checkpoint = load_checkpoint(path)
    model, T = GPT.from_checkpoint(checkpoint, dict(dropout=0.0)).eval(), checkpoint['model_args']['block_size']
    n = (len(ids) - 1) // T
    x, y = ids[:n * T].view(n, T), ids[1:n * T + 1].view(n, T)
    with torch.no_grad():
        total = sum(model(a, b)[1].item() * len(a) for a, b in zip(x.split(128), y.split(128), strict=True))
    print(f"{path}: {total / n:.4f} after {checkpoint['iter_num']} iterations")
