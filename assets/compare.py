"""
nanoGPT, from a clone of it, and this project side by side in one run, in turns, and the ratios between them:
    python assets/compare.py PEER_DIR JOB [--rounds=N] [--device=cpu]
Jobs: sample (text from a character model), long (text from GPT-2 124M after a long prompt), small, middle, vocab (training of
three shapes: the recipe for CPUs, 6 layers x 384, and a small model with GPT-2's vocabulary), start (a run of one update).
What was measured goes to assets/results/JOB-DEVICE.json.
"""
import argparse
import importlib.util
import json
import os
import pickle
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, ROOT)
from model import GPT, GPTConfig # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('peer', help="a clone of nanoGPT")
parser.add_argument('job', choices=['sample', 'long', 'small', 'middle', 'vocab', 'start'])
parser.add_argument('--rounds', type=int, default=7)
parser.add_argument('--device', default='cpu')
parser.add_argument('--out', default=os.path.join(HERE, 'results'), help="where what was measured goes")
args = parser.parse_args()
args.peer = os.path.abspath(args.peer) # its train.py runs in its own folder
if not os.path.isfile(os.path.join(args.peer, 'model.py')):
    parser.error(f"there is no model.py in {args.peer}; give a clone of nanoGPT")

def peer_model(ours):
    """nanoGPT's GPT with the weights of ours."""
    spec = importlib.util.spec_from_file_location('peer_model', os.path.join(args.peer, 'model.py'))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    c = ours.config
    theirs = module.GPT(module.GPTConfig(**{k: getattr(c, k) for k in ('block_size', 'vocab_size', 'n_layer', 'n_head', 'n_embd', 'dropout', 'bias')}))
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval().to(args.device)

def rate(tokens, work):
    """Tokens a second of a piece of work."""
    t0 = time.perf_counter()
    work()
    if args.device != 'cpu':
        torch.accelerator.synchronize()
    return tokens / (time.perf_counter() - t0)

def generation(config, prompt, samples, new, theirs_samples, variants):
    """
    {what: [nanoGPT's, ours] a round} in tokens/s of new tokens for each of samples after prompt tokens. nanoGPT draws one
    sample after another, so theirs_samples of them are enough to know its rate.
    """
    torch.manual_seed(0)
    model = GPT(config).eval().to(args.device)
    peer, start = peer_model(model), torch.randint(config.vocab_size, (1, prompt), device=args.device)

    @torch.no_grad()
    def theirs():
        for _ in range(theirs_samples):
            peer.generate(start, new, temperature=0.8, top_k=200)
    def ours(settings):
        for _ in model.stream(start.tolist() * samples, new, 0.8, 200, **settings):
            pass
    found = {what: [] for what in variants}
    for settings in variants.values():
        ours(settings) # warms up
    for _ in range(args.rounds):
        yardstick = rate(theirs_samples * new, theirs)
        for what, settings in variants.items():
            found[what].append((yardstick, rate(samples * new, lambda s=settings: ours(s))))
    return found

def process(folder, settings):
    """Run train.py in folder; (what it printed, seconds, peak memory in MB)."""
    command = [sys.executable, os.path.join(folder, 'train.py'), *(f'--{k}={v}' for k, v in settings.items())]
    t0 = time.perf_counter()
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    out = run.stdout.read()
    _, status, usage = os.wait4(run.pid, 0)
    if status:
        sys.exit(out)
    return out, time.perf_counter() - t0, usage.ru_maxrss / 1024

def training(shape, vocab_size, iterations):
    """{what: [nanoGPT's, ours] a round} of train.py as processes in turns, on made-up tokens."""
    found = {'training, tokens/s': [], 'peak memory, MB': [], 'whole process, s': []}
    with tempfile.TemporaryDirectory() as folder:
        for split, n in (('train', 1000000), ('val', 100000)):
            np.random.default_rng(0).integers(vocab_size, size=n).astype('uint16').tofile(os.path.join(folder, split + '.bin'))
        if vocab_size < 50000:
            letters = {i: chr(32 + i) for i in range(vocab_size)}
            with open(os.path.join(folder, 'meta.pkl'), 'wb') as f:
                pickle.dump(dict(vocab_size=vocab_size, itos=letters, stoi={c: i for i, c in letters.items()}), f)
        settings = dict(shape, dataset=folder, out_dir=folder + '/out', device=args.device, log_interval=1, eval_iters=1, eval_interval=10**6,
                        gradient_accumulation_steps=1, dropout=0.0, bias=False, decay_lr=False, always_save_checkpoint=False,
                        compile=args.device != 'cpu', dtype='float32' if args.device == 'cpu' else 'bfloat16')
        for _ in range(args.rounds):
            measured = []
            for place in (args.peer, ROOT): # nanoGPT makes one update more
                out, seconds, memory = process(place, dict(settings, max_iters=iterations - (place == args.peer)))
                times = [float(ms) for ms in re.findall(r'^iter \d+: .*?time ([\d.]+)ms', out, re.M)][iterations // 4:]
                rate = shape['batch_size'] * shape['block_size'] / statistics.median(times) * 1000 if times else 0
                measured.append((rate, memory, seconds))
            for what, pair in zip(found, zip(*measured, strict=True), strict=True):
                found[what].append(pair)
    return found

RECIPE = dict(n_layer=4, n_head=4, n_embd=128, block_size=64, batch_size=12)
JOBS = {
    'sample': lambda: generation(GPTConfig(64, 65, 4, 4, 128, bias=False), 1, 10, 500, 2, {
        '10 x 500 tokens, exact': {}, '10 x 500 tokens, context_stride 32': dict(context_stride=32)}),
    'long': lambda: generation(GPTConfig(1024, 50304, 12, 12, 768, bias=False), 500, 10, 200, 1, {'10 x 200 tokens after 500': {}}),
    'small': lambda: training(RECIPE, 65, 150),
    'middle': lambda: training(dict(n_layer=6, n_head=6, n_embd=384, block_size=256, batch_size=8), 65, 24),
    'vocab': lambda: training(dict(n_layer=4, n_head=4, n_embd=256, block_size=256, batch_size=4), 50304, 24),
    'start': lambda: {what: pairs for what, pairs in training(RECIPE, 65, 1).items() if what == 'whole process, s'},
}
found = JOBS[args.job]()
git = subprocess.run(['git', '-C', ROOT, 'describe', '--always', '--dirty'], capture_output=True, text=True).stdout.strip()
device = torch.cuda.get_device_name() if args.device == 'cuda' else platform.processor() or platform.machine()
if os.path.exists('/proc/cpuinfo') and args.device == 'cpu':
    device = next(line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name'))
rows = []
for what, pairs in found.items():
    ratios = sorted(ours / theirs for theirs, ours in pairs)
    rows.append(dict(what=what, theirs=[p[0] for p in pairs], ours=[p[1] for p in pairs],
                     ratio=statistics.median(ratios), least=ratios[0], most=ratios[-1]))
    print(f"{what}: {statistics.median(rows[-1]['theirs']):.1f} there, {statistics.median(rows[-1]['ours']):.1f} here, "
          f"ratio {rows[-1]['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {len(pairs)} rounds")
os.makedirs(args.out, exist_ok=True)
with open(os.path.join(args.out, f'{args.job}-{args.device}.json'), 'w', encoding='utf-8') as f:
    json.dump(dict(command=f'python assets/compare.py NANOGPT {args.job} --rounds={args.rounds} --device={args.device}', commit=git, device=device,
                   threads=torch.get_num_threads(), torch=torch.__version__, python=platform.python_version(), rows=rows), f, indent=1)
