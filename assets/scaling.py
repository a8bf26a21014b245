"""
What a training step costs as the model and the batch grow, against the FLOPs that it has to do:
    python assets/scaling.py [--device=cuda]
Each point is the least of a few steps in a process of its own, with its peak memory; all go to results/scaling-DEVICE.json.
"""
import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from model import GPT, GPTConfig # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--device', default='cpu')
parser.add_argument('--point', help="one point, as JSON; printed, not written")
args = parser.parse_args()
BASE = dict(block_size=256, batch_size=2, n_layer=4, n_embd=256, vocab_size=4096)
POINTS = [BASE | more for more in (*(dict(block_size=T) for T in (256, 512, 1024, 2048, 4096)), *(dict(batch_size=B) for B in (1, 4, 8, 16)),
                                   *(dict(n_layer=L) for L in (1, 2, 8, 16)), *(dict(n_embd=C) for C in (128, 512, 1024)))]

def measure(block_size, batch_size, n_layer, n_embd, vocab_size):
    """FLOPs by PaLM's formula, seconds and peak memory in MB of one step."""
    model = GPT(GPTConfig(block_size, vocab_size, n_layer, n_embd // 64, n_embd, 0.0, False)).to(args.device)
    optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), args.device)
    rows = torch.randint(vocab_size, (batch_size, block_size + 1), device=args.device)
    times = []
    while len(times) < 5 or sum(times) < 2:
        t0 = time.perf_counter()
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == 'cuda'):
            loss = model(rows[:, :-1], rows[:, 1:])[1]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        times.append(time.perf_counter() - t0)
    flops = model.estimate_mfu(batch_size, 1, 1)
    if args.device == 'cuda':
        return flops, min(times), torch.cuda.max_memory_allocated() / 2 ** 20
    import resource
    return flops, min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

if args.point:
    print(json.dumps(measure(**json.loads(args.point))))
    sys.exit()
rows = []
for point in POINTS:
    command = [sys.executable, __file__, '--device', args.device, '--point', json.dumps(point)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit('scaling.py: ' + (done.stderr.strip() or 'a point was killed').splitlines()[-1])
    flops, seconds, memory = json.loads(done.stdout)
    rows.append(dict(point, gflop=flops / 1e9, ms=1000 * seconds, memory_mb=memory))
    print(f"T {point['block_size']:5} B {point['batch_size']:3} layers {point['n_layer']:3} C {point['n_embd']:5}: {flops / 1e9:9.1f} GFLOP "
          f"{1000 * seconds:9.1f} ms {flops / seconds / 1e9:7.1f} GFLOP/s {memory:7.0f} MB", flush=True)
from compare import write_results # noqa: E402 only now: memory taken before would count as the points'
x, y = np.log([r['gflop'] for r in rows]), np.log([r['ms'] for r in rows])
slope, offset = np.polyfit(x, y, 1)
print(f"ms = {np.exp(offset):.2f} x GFLOP^{slope:.3f}, within a factor of {np.exp(np.abs(y - offset - slope * x).max()):.2f}")
write_results(os.path.join(HERE, 'results', f'scaling-{args.device}.json'), f'python assets/scaling.py --device={args.device}', args.device,
              exponent=slope, rows=rows)
