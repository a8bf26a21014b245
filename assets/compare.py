"""
nanoGPT, from a clone of it, and this project side by side in one run, in turns, and the ratios between them:
    python assets/compare.py PEER_DIR JOB [--rounds=N] [--device=cpu] [--KEY=VALUE of both train.py ...]
    python assets/compare.py PEER_DIR loss --rounds=3 --ours=config/train_shakespeare_char.py+config/cpu.py,config/other.py
Jobs: sample (text from a character model), long (text from GPT-2 124M after a long prompt), small, middle, vocab (training of
three shapes: the recipe for CPUs, 6 layers x 384, and a small model with GPT-2's vocabulary), start (a run of one update),
eval (the evaluations of a run), bench (the steps of bench.py on both model.py, on CUDA of GPT-2 124M, compiled),
loss (Shakespeare by nanoGPT's recipe there and by each of --ours here, whole runs: seconds, curve, loss over all of val.bin).
What was measured goes to assets/results/JOB-DEVICE.json, of training compiled to JOB-DEVICE-compiled.json. Ctrl-C ends
the rounds early and keeps what was measured; loss keeps each run as soon as it ends.
"""
import argparse
import importlib.util
import json
import os
import pickle
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from itertools import pairwise, product

import numpy as np
import torch
from tqdm import tqdm

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path[:0] = HERE, ROOT
from data.prepare import parted, read_text, stop, write_parts # noqa: E402
from model import GPT, GPTConfig, peak_flops # noqa: E402
from whole_val import whole_val # noqa: E402

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

def in_rounds(turn):
    """What turn returns in each round; Ctrl-C ends them early, and those that are whole count."""
    found = []
    with suppress(KeyboardInterrupt):
        for _ in tqdm(range(args.rounds), unit='round', disable=None):
            found.append(turn())
    return found or stop("stopped before the first round was whole; nothing was written")

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
    def turn():
        yardstick = rate(theirs_samples * new, theirs)
        return [(yardstick, rate(samples * new, lambda s=settings: ours(s))) for settings in variants.values()]
    for settings in variants.values():
        ours(settings) # warms up
    return dict(zip(variants, zip(*in_rounds(turn), strict=True), strict=True))

# ---- train.py as processes ----------------------------------------------------------------------------------------------
ON_CUDA = """import atexit, runpy, sys, torch
atexit.register(lambda: print('MB on the device:', torch.cuda.max_memory_allocated() / 2 ** 20))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')""" # runs a script as it is, and says at the end what it took of the device

def process(command, cwd, device='cpu'):
    """Run a Python script; ([(seconds since its start, line) that it printed], seconds, peak memory in MB, of the device if it is CUDA)."""
    t0 = time.perf_counter()
    run = subprocess.Popen([sys.executable, '-u', *['-c', ON_CUDA] * device.startswith('cuda'), *command], cwd=cwd,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')
    try:
        lines = [(time.perf_counter() - t0, line) for line in run.stdout]
    except KeyboardInterrupt: # its folder goes now, so it has to end before
        run.kill()
        run.wait()
        raise
    _, status, usage = os.wait4(run.pid, 0)
    if status:
        sys.exit(''.join(line for _, line in lines))
    taken = printed(lines, r'MB on the device: ([\d.]+)')
    return lines, time.perf_counter() - t0, taken[-1][1] if taken else usage.ru_maxrss / 1024

def as_args(settings):
    return [f'--{k}={v}' for k, v in settings.items()]

def printed(lines, pattern):
    """[[seconds, number]] of the lines that begin with pattern, whose group is the number."""
    return [[t, float(m[1])] for t, line in lines if (m := re.match(pattern, line))]

def median_ms(lines):
    """Of an iteration, without the first quarter."""
    times = [ms for _, ms in printed(lines, r'iter \d+: .*?time ([\d.]+)ms')]
    return statistics.median(times[len(times) // 4:])

def evaluation_ms(lines):
    """Of an evaluation, which lies between an iteration's line and its own."""
    return 1000 * statistics.median(t1 - t0 for (t0, a), (t1, b) in pairwise(lines) if a.startswith('iter ') and b.startswith('step '))

def in_turns(what, shape, vocab_size, iterations, tokens, ms, **more):
    """
    {what: [nanoGPT's, ours] a round} of train.py as processes in turns, on made-up tokens: tokens/s if the tokens of a run's
    settings take what ms reads in the lines, peak memory and seconds of the whole process.
    """
    by_hand = dict(a.removeprefix('--').split('=', 1) for a in args.more if '=' in a) # given to both; here they count for the tokens
    names = f"{what}{', compiled here' * (args.compile and args.device == 'cpu')}, tokens/s", 'peak memory, MB', 'whole process, s'
    with tempfile.TemporaryDirectory() as folder:
        for split in ('train', 'val'):
            np.random.default_rng(0).integers(vocab_size, size=1000000).astype('uint16').tofile(os.path.join(folder, split + '.bin'))
        if vocab_size < 50000:
            letters = {i: chr(32 + i) for i in range(vocab_size)}
            with open(os.path.join(folder, 'meta.pkl'), 'wb') as f:
                pickle.dump(dict(vocab_size=vocab_size, itos=letters, stoi={c: i for i, c in letters.items()}), f)
        settings = dict(shape, dataset=folder, out_dir=folder + '/out', device=args.device, log_interval=1, eval_iters=1, eval_interval=10**6,
                        gradient_accumulation_steps=1, dropout=0.0, bias=False, decay_lr=False, always_save_checkpoint=False,
                        compile=args.device != 'cpu', dtype='float32' if args.device == 'cpu' else 'bfloat16', max_iters=iterations) | more
        settings.update({k: int(v) for k, v in by_hand.items() if type(settings.get(k)) is int})
        def turn():
            measured = []
            for place in (args.peer, ROOT): # nanoGPT makes one update more
                own = dict(max_iters=settings['max_iters'] - 1) if place == args.peer else dict(compile=settings['compile'] or args.compile)
                lines, seconds, memory = process(['train.py', *as_args(settings), *args.more, *as_args(own)], place, args.device)
                measured.append((1000 * tokens(settings) / ms(lines), memory, seconds))
            return list(zip(*measured, strict=True))
        return dict(zip(names, zip(*in_rounds(turn), strict=True), strict=True))

def training(shape, vocab_size, iterations):
    tokens = lambda s: s['batch_size'] * s['block_size'] * s['gradient_accumulation_steps']
    return in_turns('training', shape, vocab_size, iterations, tokens, median_ms)

def evaluation():
    """Of both splits; weights that do not change do not improve, so that ours saves nothing meanwhile."""
    found = {}
    for name, shape, batches in (('small', RECIPE, 100), ('middle', MIDDLE, 5)):
        tokens = lambda s: 2 * s['eval_iters'] * s['batch_size'] * s['block_size']
        for what, pairs in in_turns('evaluation', shape, 65, 5, tokens, evaluation_ms, eval_interval=1, eval_iters=batches, learning_rate=0.0).items():
            found[f'{name}: {what}'] = pairs
    return {what: pairs for what, pairs in found.items() if 'process' not in what} # nanoGPT's has an evaluation less

# ---- bench.py's job -----------------------------------------------------------------------------------------------------
def bench():
    """{what: [nanoGPT's, ours] a round}: nanoGPT's bench.py's statements on both models in turns, 20 steps at once on CUDA."""
    cuda, found = args.device != 'cpu', {}
    shapes = {'GPT-2 124M': (GPTConfig(bias=False), 12)} if cuda else {
        'small': (GPTConfig(64, 65, 4, 4, 128, bias=False), 12), 'middle': (GPTConfig(256, 65, 6, 6, 384, bias=False), 8)}
    precision, peak = torch.autocast('cuda', torch.bfloat16) if cuda else nullcontext(), peak_flops(args.device, 'bfloat16')
    if cuda:
        torch.set_float32_matmul_precision('high')
    def stepper(model, batch, compiled, steps):
        optimizer = model.train().configure_optimizers(weight_decay=1e-2, learning_rate=1e-4, betas=(0.9, 0.95), device_type=args.device)
        if compiled:
            model.compile()
        def work():
            for _ in range(steps):
                with precision:
                    _, loss = model(*batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                loss.item()
        return work
    for (name, (config, B)), compiled in product(shapes.items(), [False, True] if args.compile else [cuda]):
        torch.manual_seed(0)
        torch.compiler.reset() # another shape is not a dynamic one
        model, T, steps = GPT(config).to(args.device), config.block_size, 20 if cuda else 1
        x, y = torch.randint(config.vocab_size, (2, B, T), device=args.device)
        works = [stepper(m, batch, compiled, steps) for m, batch in ((peer_model(model), (x, y)), (model, (x, y, 0)))] # 0: the loss alone, as bench.py asks
        for work in works * (1 if cuda else 10):
            work() # warms up
        pairs = in_rounds(lambda works=works, tokens=steps * B * T: [rate(tokens, work) for work in works])
        name += ', compiled' if compiled else ''
        found[f'{name}: tokens/s'] = pairs
        found[f'{name}: ms a step'] = [[1000 * B * T / tokens for tokens in pair] for pair in pairs]
        if peak:
            found[f'{name}: MFU, % of {peak / 1e12:.0f} TFLOP/s'] = [[100 * model.estimate_mfu(tokens / T, 1, peak) for tokens in pair] for pair in pairs]
    return found

# ---- time to a loss -----------------------------------------------------------------------------------------------------
def shakespeare(folder):
    """The folder of its bins by characters: folder, if the environment names the text, else where prepare.py puts them."""
    text, prepared = os.environ.get('NANOGPT_SHAKESPEARE'), os.path.join(ROOT, 'data', 'shakespeare_char')
    if text:
        write_parts(folder, *parted(read_text(text)))
    elif not os.path.exists(os.path.join(prepared, 'meta.pkl')):
        stop("there is no Shakespeare: run python data/shakespeare_char/prepare.py, or set NANOGPT_SHAKESPEARE to the path of its text")
    return folder if text else prepared

def loss():
    """Record a row a run, of each seed nanoGPT's and ours, each round beginning with another."""
    cpu, char, rows = args.device == 'cpu', 'config/train_shakespeare_char.py', []
    flags = dict(device='cpu', compile=False, eval_iters=20, log_interval=1, **RECIPE, max_iters=2000, lr_decay_iters=2000, dropout=0.0)
    runs = [('nanoGPT', [char, *as_args(flags if cpu else {})]), *(('here', c.split('+')) for c in args.ours.split(','))]
    with open(os.path.join(args.peer, 'train.py'), encoding='utf-8') as f:
        source = f.read()
    if source.count('manual_seed(1337') != 1:
        stop(f"its train.py is not nanoGPT's: there is no manual_seed(1337 in {f.name} to give another seed")
    with tempfile.TemporaryDirectory() as folder:
        data = shakespeare(folder)
        for n, seed in enumerate(args.seeds):
            with open(f.name, 'w', encoding='utf-8') as f: # of the copy
                f.write(source.replace('manual_seed(1337', f'manual_seed({seed}'))
            for who, config in runs[n % len(runs):] + runs[:n % len(runs)]:
                out = os.path.join(folder, str(len(rows)))
                own = [] if who == 'nanoGPT' else [f'--seed={seed}', f'--device={args.device}']
                lines, seconds, _ = process(['train.py', *config, f'--dataset={data}', f'--out_dir={out}', *own, *args.more],
                                            args.peer if who == 'nanoGPT' else ROOT)
                mean, iterations = whole_val(os.path.join(out, 'ckpt.pt'), data, 64 if cpu else 256)
                rows.append(dict(who=who, config=' '.join(config), seed=int(seed), seconds=seconds, whole_val=mean,
                                 iterations=iterations, curve=printed(lines, r'step \d+: .*val loss ([\d.]+)')))
                print(f"{who} {' '.join(config)}, seed {seed}: {seconds:.1f} s, {mean:.4f} over all of val.bin after {iterations} iterations", flush=True)
                record(rows)

# ---- the jobs -----------------------------------------------------------------------------------------------------------
RECIPE = dict(block_size=64, batch_size=12, n_layer=4, n_head=4, n_embd=128)
MIDDLE = dict(n_layer=6, n_head=6, n_embd=384, block_size=256, batch_size=8)
JOBS = {
    'sample': lambda: generation(GPTConfig(64, 65, 4, 4, 128, bias=False), 1, 10, 500, 2, {
        '10 x 500 tokens, exact': {}, '10 x 500 tokens, context_stride 32': dict(context_stride=32)}),
    'long': lambda: generation(GPTConfig(1024, 50304, 12, 12, 768, bias=False), 500, 10, 200, 1, {'10 x 200 tokens after 500': {}}),
    'small': lambda: training(RECIPE, 65, 400),
    'middle': lambda: training(MIDDLE, 65, 24),
    'vocab': lambda: training(dict(n_layer=4, n_head=4, n_embd=256, block_size=256, batch_size=4), 50304, 24),
    'start': lambda: {what: pairs for what, pairs in training(RECIPE, 65, 1).items() if what == 'whole process, s'},
    'eval': evaluation,
    'bench': bench,
    'loss': loss,
}

def provenance(command, device='cpu'):
    """What a figure was measured by and on."""
    git = shutil.which('git') and subprocess.run(['git', '-C', ROOT, 'describe', '--always', '--dirty'], capture_output=True, text=True).stdout.strip()
    name = torch.cuda.get_device_name() if device == 'cuda' else platform.processor() or platform.machine()
    if os.path.exists('/proc/cpuinfo') and device == 'cpu':
        name = next((line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), name)
    return dict(command=command, commit=git, device=name, threads=torch.get_num_threads(), torch=torch.__version__, python=platform.python_version())

def write_results(path, command, device='cpu', **found):
    """Write what was found, with what it was measured by and on, as JSON."""
    measured = dict(provenance(command, device), **found) # before a file of the commit is overwritten
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(measured, f, indent=1)

def check_device(device):
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e: # what torch raises depends on how it was built
        stop(f"device {device!r} is not on this machine ({str(e).splitlines()[0]})")

def record(rows):
    """Write rows, with what they were measured by, to args.out."""
    options = {'rounds': args.rounds, 'device': args.device} | ({'seeds': ','.join(args.seeds), 'ours': args.ours} if args.job == 'loss' else {})
    command = ['python assets/compare.py NANOGPT', args.job, *as_args(options), *['--compile'] * args.compile, *args.more]
    os.makedirs(args.out, exist_ok=True)
    name = f"{args.job}-{args.device}{'-compiled' * (args.compile and args.job != 'bench')}.json"
    write_results(os.path.join(args.out, name), ' '.join(command), args.device, rows=rows)

def compared(found):
    """The rows of {what: [nanoGPT's, ours] a round}, which are printed too."""
    rows = []
    for what, pairs in found.items():
        ratios = sorted(ours / theirs for theirs, ours in pairs)
        rows.append(dict(what=what, theirs=[p[0] for p in pairs], ours=[p[1] for p in pairs],
                         ratio=statistics.median(ratios), least=ratios[0], most=ratios[-1]))
        print(f"{what}: {statistics.median(rows[-1]['theirs']):.1f} there, {statistics.median(rows[-1]['ours']):.1f} here, "
              f"ratio {rows[-1]['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {len(pairs)} rounds")
    return rows

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.error = lambda message: stop(f"{message}; --help says more")
    parser.add_argument('peer', help="a clone of nanoGPT")
    parser.add_argument('job', choices=JOBS)
    parser.add_argument('--rounds', type=int, help="60 of bench, 3 of loss, else 7")
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--compile', action='store_true', help="bench both ways; on a CPU the training jobs compile ours, nanoGPT's recipe says not to")
    parser.add_argument('--seeds', default='1337,7,42,1,2,3,4,5', help="of loss, one a round")
    parser.add_argument('--ours', help="configs of loss, with + laid over each other; nanoGPT's own if left out")
    parser.add_argument('--out', default=os.path.join(HERE, 'results'), help="where what was measured goes")
    args, args.more = parser.parse_known_args()
    args.ours = args.ours or 'config/train_shakespeare_char.py' + '+config/cpu.py' * (args.device == 'cpu')
    args.rounds = args.rounds or dict(bench=60, loss=3).get(args.job, 7)
    if not os.path.isfile(os.path.join(args.peer, 'model.py')):
        stop(f"there is no model.py in {args.peer}; give a clone of nanoGPT")
    check_device(args.device)
    if args.more and args.job in ('sample', 'long', 'bench'):
        stop(f"{args.more[0]} is no option of {args.job}, which runs no train.py")
    if args.compile and args.job in ('sample', 'long', 'loss'):
        stop(f"{args.job} has no compiled form; leave --compile out")
    given, args.seeds = args.seeds, [s for s in args.seeds.split(',') if s.isdigit()][:args.rounds]
    if args.job == 'loss' and len(args.seeds) < args.rounds:
        stop(f"{args.rounds} rounds of loss take as many seeds, as in --seeds=1337,7,42; got {given!r}")
    with tempfile.TemporaryDirectory() as copy: # the clone stays as it is
        args.peer = shutil.copytree(args.peer, os.path.join(copy, 'nanoGPT'), ignore=shutil.ignore_patterns('.git', 'data', '*out*', '*.ipynb'))
        found = JOBS[args.job]()
    if found:
        record(compared(found))
