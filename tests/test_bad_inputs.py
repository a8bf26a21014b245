"""
What a wrong input costs: one line on stderr that says what is wrong, exit status 1, nothing written, nothing executed.

Each row of a table is a name, what is wrong, and words that the line must hold.
"""
import io
import os
import pickle
import re
import socket
import warnings
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, make_dataset, run

SAMPLE = dict(num_samples=1, max_new_tokens=4, device='cpu')
BENCH = {k: TINY[k] for k in ('n_layer', 'n_head', 'n_embd', 'block_size', 'batch_size', 'device')}
BASE = {'train.py': TINY, 'sample.py': SAMPLE, 'bench.py': BENCH}
TRAIN, BOTH = ('train.py',), ('train.py', 'sample.py')
HUGE = 10 ** 30


class Touch:
    """Unpickled the ordinary way, makes a file."""
    def __init__(self, path):
        self.path = str(path)
    def __reduce__(self):
        return open, (self.path, 'w')


def listing(folder):
    """{name: bytes} of all files below, and None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob('*')}


def refused(folder, script, *args, words, **settings):
    """Run script in folder and assert that it costs a line and nothing else."""
    before = listing(folder)
    with warnings.catch_warnings(record=True) as caught:
        result = run(script, *args, cwd=folder, **{**BASE.get(str(script), {}), **settings})
    result.refused(f"{os.path.basename(script)}: ", *words)
    assert len(result.err.splitlines()) == 1 and len(result.err) < 1500
    assert not [w for w in caught if w.category in (UserWarning, RuntimeWarning, SyntaxWarning)] # more lines on stderr
    assert listing(folder) == before


def table(names, rows):
    """Parametrize by rows whose first column is their name."""
    return pytest.mark.parametrize(names, [pytest.param(*row[1:], id=row[0].replace(' ', '_')) for row in rows])


# ---- settings ------------------------------------------------------------------------------------------------------------
@table('script, args, words', [
    *((f'{s} {k}={v}'[:40], s, [f'--{k}={v}'], [k]) for s, k, v in [
        *(('train.py', k, HUGE) for k in ('batch_size', 'n_layer', 'block_size', 'max_iters', 'gradient_accumulation_steps', 'eval_iters')),
        *(('train.py', k, v) for k in ('n_embd', 'n_head', 'n_layer', 'block_size', 'batch_size', 'eval_interval') for v in (0, -1)),
        ('train.py', 'batch_size', 2 ** 31 - 1), ('train.py', 'n_head', 5), ('train.py', 'n_head', 64),
        ('train.py', 'learning_rate', 'nan'), ('train.py', 'learning_rate', '-1e-3'), ('train.py', 'grad_clip', 'inf'),
        ('train.py', 'learning_rate', '1e400'), ('train.py', 'dropout', '1.5'), ('train.py', 'beta1', 1), ('train.py', 'bias', 'maybe'),
        ('train.py', 'max_iters', '6.5'), ('train.py', 'max_iters', '0.99999999999999999999'), ('train.py', 'seed', '9007199254740993.5'),
        ('train.py', 'seed', '1e999999999'), ('train.py', 'compile', 'yes'), ('train.py', 'dtype', 'float8'), ('train.py', 'dtype', 'float16'),
        ('train.py', 'block_size', 3999 + 1), ('train.py', 'block_size', 800), ('train.py', 'batch_sise', 4),
        *((s, 'device', d) for s in BASE for d in ('cuda:99', 'gpu', 'cpu:999', 'cuda:99999999999999999999')),
        ('sample.py', 'temperature', 'nan'), ('sample.py', 'temperature', -1), ('sample.py', 'num_samples', 0), ('sample.py', 'max_new_tokens', HUGE),
        ('sample.py', 'top_k', -5), ('sample.py', 'n_head', 2), ('sample.py', 'dtype', 'int8'),
        ('bench.py', 'n_embd', 0), ('bench.py', 'n_embd', 33), ('bench.py', 'n_embd', 10 ** 8), ('bench.py', 'n_layer', 10 ** 9),
        ('bench.py', 'block_size', HUGE), ('bench.py', 'batch_size', HUGE), ('bench.py', 'batch_size', 2 ** 31 - 1), ('bench.py', 'max_seconds', -1),
    ]),
    ('a value is missing', 'train.py', ['--batch_size'], ['--batch_size', 'needs a value']),
    ('one dash', 'sample.py', ['-seed=1'], ['-seed=1']),
    ('a word', 'bench.py', ['fast'], ['fast', 'config file']),
    ('an unknown switch', 'bench.py', ['--fast'], ['fast', 'nearest']),
    ('a setting that is not UTF-8', 'sample.py', ['--start=\udcff'], ['start']),
])
def test_settings(dataset, trained, tmp_path, script, args, words):
    own = dict(out_dir=trained) if script == 'sample.py' else dict(out_dir='out', dataset=dataset) if script == 'train.py' else dict(dataset=dataset)
    key = args[0].lstrip('-').split('=')[0]
    settings = {k: v for k, v in {**BASE[script], **own}.items() if k != key} # conftest's come after args, and the last one counts
    before = dict(BASE)
    try:
        BASE[script] = {}
        refused(tmp_path, script, *args[1:], *([] if '=' in args[0] else args), words=words, **settings, **(
            {key: args[0].partition('=')[2]} if '=' in args[0] and args[0].startswith('--') else {})) if args[0] != '-seed=1' else refused(
            tmp_path, script, *args, words=words, **settings)
    finally:
        BASE.update(before)
