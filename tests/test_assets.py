"""The scripts behind the README's figures."""
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, train


def script(name, *args):
    return subprocess.run([sys.executable, str(ROOT / 'assets' / name), *map(str, args)], capture_output=True, text=True)


def test_curves_of_runs(dataset, trained, tmp_path):
    pytest.importorskip('matplotlib')
    train(dataset, tmp_path / 'other', seed=7)
    with open(tmp_path / 'other/metrics.jsonl', 'a', encoding='utf-8') as f:
        f.write('{"event": "log", "it') # cut short by a crash
    done = script('plot.py', trained, tmp_path / 'other', f'--save={tmp_path}/curves.svg')
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / 'curves.svg').read_text(encoding='utf-8')
    assert all(f'>{word}<' in svg for word in ('other', 'out', 'learning rate', 'gradient norm', 'tokens/s')) and '#000000' not in svg
    done = script('plot.py', tmp_path / 'nowhere')
    assert done.returncode == 1 and 'Traceback' not in done.stderr and 'give the out_dir of a run' in done.stderr


def test_the_committed_results_say_how_they_were_made():
    for path in (ROOT / 'assets/results').glob('*.json'):
        result = json.loads(path.read_text(encoding='utf-8'))
        assert result['command'].startswith('python assets/') and (result.get('torch') or result['tiktoken']) and result['rows'], path


def test_a_point_of_the_scaling_table():
    point = dict(block_size=64, batch_size=1, n_layer=1, n_embd=64, vocab_size=100)
    flops, seconds, memory = json.loads(script('scaling.py', '--point', json.dumps(point)).stdout)
    n = 100 * 64 + 12 * 64 ** 2 + 3 * 64 # parameters but for positions
    assert flops == 64 * (6 * n + 12 * 64 * 64) and seconds > 0 and memory > 10


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir(os.environ.get('NANOGPT_DIR', '')), reason="NANOGPT_DIR, a clone of nanoGPT, is not set")
@pytest.mark.parametrize('job', ['start', 'sample'])
def test_compare(job, tmp_path):
    done = script('compare.py', os.environ['NANOGPT_DIR'], job, '--rounds=1', f'--out={tmp_path}')
    assert done.returncode == 0 and 'ratio' in done.stdout, done.stderr
    rows = json.loads((tmp_path / f'{job}-cpu.json').read_text(encoding='utf-8'))['rows']
    assert rows and all(row['ratio'] > 0.1 and len(row['ours']) == len(row['theirs']) == 1 for row in rows)
