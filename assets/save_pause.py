"""
How long a save of GPT-2 124M with AdamW's moments holds up training, the copy to host memory, against a save that blocks:
    python assets/save_pause.py FOLDER [ROUNDS]
It writes 1.5 GB into FOLDER, which is on the disk to be tried, and removes them.
"""
import os
import statistics
import sys
import tempfile
import time

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from torch.utils._pytree import tree_map_only # noqa: E402

from data.prepare import stop # noqa: E402
from model import GPT, GPTConfig, save_checkpoint # noqa: E402

folder, rounds = [*sys.argv[1:], '9'][:2] if len(sys.argv) > 1 else ('', '9')
if not os.path.isdir(folder) or not rounds.isdigit() or int(rounds) < 1:
    stop(f"got {' '.join(sys.argv[1:]) or 'nothing'}; give a folder that is there, and how many rounds if not 9")
model = GPT(GPTConfig(bias=False))
optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), 'cpu')
for p in model.parameters():
    p.grad = torch.zeros_like(p)
optimizer.step()
ratios = []
for _ in range(int(rounds)):
    weights = {k: v for k, v in model.state_dict().items() if k != 'lm_head.weight'}
    state = {'model': weights, 'optimizer': optimizer.state_dict(), 'model_args': vars(model.config)}
    t0 = time.perf_counter()
    copy = tree_map_only(torch.Tensor, lambda x: x.detach().to('cpu', copy=True), state)
    t1 = time.perf_counter()
    del copy
    t2 = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as place: # nothing of the folder's own is touched
        save_checkpoint(state, [os.path.join(place, 'ckpt.pt')])
        t3, size = time.perf_counter(), os.path.getsize(os.path.join(place, 'ckpt.pt'))
    ratios.append((t1 - t0) / (t3 - t2))
    print(f"copy {t1 - t0:.3f} s, blocking save {t3 - t2:.3f} s, ratio {ratios[-1]:.2f}")
print(f"median ratio {statistics.median(ratios):.2f}; the file and the copy take {size / 1e9:.2f} GB each")
