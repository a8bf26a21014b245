"""
What each part of config/speedrun_cpu.py gives: the recipe, and the recipe with one thing changed, on the last tenth of train.bin,
which is kept from training, so that val.bin has no part in any choice:
    python assets/ablations.py data/shakespeare_char [--seeds=1337,7,42]
The table is printed in Markdown; the runs go to assets/results/ablations-cpu.json.
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from compare import stop, write_results
from tqdm import tqdm
from whole_val import whole_val

HERE = os.path.dirname(os.path.abspath(__file__))
PLAIN = dict(rotary=False, ngrams=0)
VARIANTS = {
    'the recipe': {},
    'Muon for the blocks, muon_lr 0.02': dict(optimizer='muon'),
    'Muon, muon_lr 0.01': dict(optimizer='muon', muon_lr=0.01),
    'Muon, muon_lr 0.04': dict(optimizer='muon', muon_lr=0.04),
    'learned positions': dict(rotary=False),
    'no n-grams': dict(ngrams=0),
    '4,096 rows of n-grams': dict(ngrams=4096),
    '65,536 rows of n-grams': dict(ngrams=65536),
    'ngram_dropout 0.2': dict(ngram_dropout=0.2),
    'learning_rate 2e-3': dict(learning_rate=2e-3),
    'learning_rate 5e-3': dict(learning_rate=5e-3),
    'cosine': dict(lr_schedule='cosine'),
    'weight_decay 0': dict(weight_decay=0),
    'neither rotary nor n-grams, learning_rate 1e-3': dict(PLAIN, learning_rate=1e-3),
    'neither, learning_rate 3e-3': PLAIN,
    'neither, learning_rate 1e-2': dict(PLAIN, learning_rate=1e-2),
    'neither, Muon': dict(PLAIN, optimizer='muon'),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('dataset', help="a character dataset, prepared")
parser.add_argument('--seeds', default='1337,7,42')
parser.add_argument('--out', default=os.path.join(HERE, 'results', 'ablations-cpu.json'))
parser.add_argument('--settings', default='', help="of all runs, such as --settings='--max_iters=2 --lr_decay_iters=2'")
args = parser.parse_args()
if not os.path.exists(os.path.join(args.dataset, 'meta.pkl')):
    stop(f"{args.dataset!r} is no character dataset; prepare one first, python data/shakespeare_char/prepare.py")
ids = np.fromfile(os.path.join(args.dataset, 'train.bin'), '<u2')
rows, bar = [], tqdm(total=len(VARIANTS) * len(args.seeds.split(',')), disable=None)
with tempfile.TemporaryDirectory() as folder:
    shutil.copy(os.path.join(args.dataset, 'meta.pkl'), folder)
    for split, part in (('train', ids[:len(ids) * 9 // 10]), ('val', ids[len(ids) * 9 // 10:])):
        part.tofile(os.path.join(folder, split + '.bin'))
    for seed in args.seeds.split(','):
        for name, changes in VARIANTS.items():
            command = [sys.executable, os.path.join(HERE, '..', 'train.py'), os.path.join(HERE, '..', 'config', 'speedrun_cpu.py'), f'--dataset={folder}',
                       f'--out_dir={folder}/out', f'--seed={seed}', *args.settings.split(), *(f'--{k}={v}' for k, v in changes.items())]
            t0 = time.perf_counter()
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                sys.exit(run.stderr)
            ms = [float(x) for x in re.findall(r'^iter .*? time ([\d.]+)ms', run.stdout, re.M)]
            rows.append(dict(what=name, changes=changes, seed=int(seed), seconds=time.perf_counter() - t0, ms=statistics.median(ms),
                             loss=whole_val(f'{folder}/out/ckpt.pt', folder)[0]))
            bar.update()
print("| changed | loss, mean of seeds | least to most | ms an iteration |\n| --- | --- | --- | --- |")
for name in VARIANTS:
    some = [r for r in rows if r['what'] == name]
    losses = [r['loss'] for r in some]
    print(f"| {name} | {statistics.mean(losses):.3f} | {min(losses):.3f} to {max(losses):.3f} | {statistics.median(r['ms'] for r in some):.0f} |")
write_results(args.out, f'python assets/ablations.py data/shakespeare_char --seeds={args.seeds} {args.settings}'.strip(), rows=rows)
