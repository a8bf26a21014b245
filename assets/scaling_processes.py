"""
What a second process on a second core is worth: tokens/s of train.py in two processes against twice those of one, a thread each.
    python assets/scaling_processes.py [--rounds=3] [--shapes=1] [--link=200mbit]
One process, two under DDP, with gradients in bfloat16 too, and two under FSDP run in turns, over gloo on the CPU, with two
micro-batches an iteration in all. A run's number is the median of its iterations but the first; all go to results/processes-cpu.json.
With --link they go to results/processes-LINK.json, and Linux's tc makes the loopback as slow, both directions together, for
everything on this machine meanwhile; it takes root.
"""
import argparse
import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from statistics import median

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from data.prepare import stop # noqa: E402

SHAPES = {'the CPU recipe’s shape': dict(n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12, max_iters=40),
          '6 layers × 384, block 256, batch 2': dict(n_layer=6, n_head=6, n_embd=384, block_size=256, batch_size=2, max_iters=6)}
WAYS = {'one': (1, []), 'ddp': (2, []), 'ddp, bfloat16 gradients': (2, ['--bf16_gradients=True']), 'fsdp': (2, ['--fsdp=True'])}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--rounds', type=int, default=3)
parser.add_argument('--shapes', type=int, default=2, help="how many of the shapes")
parser.add_argument('--link', help="tc's word for a rate, such as 200mbit")
args = parser.parse_args()
if args.rounds < 1:
    stop(f"got --rounds={args.rounds}; give 1 or more")

def tokens_per_s(folder, shape, n, more):
    """Of a run of train.py in n processes; the loss of the last line goes along, to show that all did the same."""
    launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={n}'] if n > 1 else []
    settings = dict(shape, dataset=folder, out_dir=folder, device='cpu', gradient_accumulation_steps=2, eval_interval=10 ** 6, eval_iters=1)
    lines = os.path.join(folder, 'metrics.jsonl')
    if os.path.exists(lines):
        os.remove(lines)
    done = subprocess.run([sys.executable, *launch, os.path.join(HERE, '..', 'train.py'), *(f'--{k}={v}' for k, v in settings.items()), *more],
                          capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    if done.returncode:
        sys.exit(done.stderr)
    with open(lines, encoding='utf-8') as f:
        log = [e for e in map(json.loads, f) if e['event'] == 'log']
    return median(e['tokens_per_s'] for e in log[1:]), log[-1]['loss']

def slow(command):
    """Have tc add or delete the link's rate."""
    if args.link:
        rate = f'tbf rate {args.link} burst 256kb latency 400ms' if command == 'add' else ''
        if subprocess.run(f'tc qdisc {command} dev lo root {rate}'.split()).returncode:
            stop(f"tc could not {command} --link={args.link}; it takes root, and a rate such as 200mbit")

rows = []
slow('add')
atexit.register(slow, 'del')
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) # which atexit hears of
with tempfile.TemporaryDirectory() as folder:
    for split in 'train', 'val':
        np.random.default_rng(0).integers(65, size=100000, dtype=np.uint16).tofile(os.path.join(folder, f'{split}.bin'))
    itos = {i: chr(32 + i) for i in range(65)}
    with open(os.path.join(folder, 'meta.pkl'), 'wb') as f:
        pickle.dump({'vocab_size': 65, 'itos': itos, 'stoi': {c: i for i, c in itos.items()}}, f)
    for name, shape in list(SHAPES.items())[:args.shapes]:
        runs = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way, (n, more) in WAYS.items():
                speed, loss = tokens_per_s(folder, shape, n, more)
                runs[way].append(speed)
                print(f"{name}, {way}: {speed:,.0f} tok/s, last loss {loss:.5f}", flush=True)
        for way in list(WAYS)[1:]:
            ratios = [two / (2 * one) for one, two in zip(runs['one'], runs[way], strict=True)]
            rows.append(dict(shape=name, way=way, processes=2, tokens_per_s=runs[way], one_process=runs['one'], efficiency=median(ratios),
                             least=min(ratios), most=max(ratios)))
            print(f"{name}, {way}: efficiency {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
with open(os.path.join(HERE, 'results', f'processes-{args.link or "cpu"}.json'), 'w', encoding='utf-8') as f:
    command = f'python assets/scaling_processes.py --rounds={args.rounds} --shapes={args.shapes}' + (f' --link={args.link}' if args.link else '')
    json.dump(dict(command=command, torch=torch.__version__, rows=rows), f, indent=1, ensure_ascii=False)
