"""
What the tests share: a tiny dataset, tiny settings, and ways to run the scripts.

    python -m pytest tests -n 2 --dist loadfile     the ring that always runs, in two processes (pytest-xdist), under two minutes
    python -m pytest tests -m slow                  README's commands, long runs
    python -m pytest tests -m gpu                   needs CUDA
"""
import contextlib
import functools
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1') # a core for each; torch reads it when it is imported

import numpy as np # noqa: E402
import pytest # noqa: E402
import torch # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8') # torch 2.9 reads it once a process
os.environ['HF_HUB_OFFLINE'] = '1' # read when huggingface_hub is first imported: no test fetches anything

# a run of a second: every setting that makes one small
TINY = dict(n_layer=2, n_head=2, n_embd=32, block_size=16, batch_size=4, gradient_accumulation_steps=1, max_iters=6,
            eval_interval=3, eval_iters=2, log_interval=1, lr_decay_iters=6, warmup_iters=2, learning_rate=1e-2, device='cpu')


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: minutes long; only with -m slow')
    config.addinivalue_line('markers', 'gpu: needs CUDA; only with -m gpu')


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr: # no -m given: the ring that always runs
        for item in items:
            for ring in ('slow', 'gpu'):
                if item.get_closest_marker(ring):
                    item.add_marker(pytest.mark.skip(reason=f'only runs with -m {ring}'))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker('gpu'):
                item.add_marker(pytest.mark.skip(reason='this machine has no CUDA device'))


def as_args(settings):
    return [f'--{k}={v}' for k, v in settings.items()]


class Result:
    """What a script did: out and err, its standard streams; code, its exit status; space, its globals (None if it stopped)."""
    def __init__(self, out, err, code, space=None):
        self.out, self.err, self.code, self.space = out, err, code, space

    def refused(self, *words):
        """Assert that it ended as a user's mistake should: one line on stderr with these words in it, status 1, no traceback."""
        assert self.code == 1, (self.code, self.out, self.err)
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert 'Traceback' not in self.err
        for word in words:
            assert word in self.err, (word, self.err)


@functools.cache
def compiled(path, changed):
    return compile(path.read_bytes(), str(path), 'exec')


def run(script, *args, cwd=None, **settings):
    """Run a script of the repository in this process with args and --key=val settings; return a Result."""
    path = ROOT / script
    argv, path_before, cwd_before = sys.argv, list(sys.path), os.getcwd()
    out, err, code, space = io.StringIO(), io.StringIO(), 0, None
    sys.argv = [str(path), *map(str, args), *as_args(settings)]
    sys.path[0:0] = [str(path.parent)] # a script's own folder comes first, and data/*/prepare.py replace it
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, getattr(signal, 'SIGUSR1', signal.SIGTERM))}
    excepthook = sys.excepthook
    try:
        os.chdir(cwd or cwd_before)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                names = dict(__name__='__main__', __file__=str(path))
                exec(compiled(path, path.stat().st_mtime_ns), names)
                space = names
            except SystemExit as e:
                if isinstance(e.code, str):
                    print(e.code, file=sys.stderr)
                code = 1 if isinstance(e.code, str) else (e.code or 0)
            except (Exception, KeyboardInterrupt):
                sys.excepthook(*sys.exc_info())
                code = 1
    finally:
        os.chdir(cwd_before)
        sys.argv, sys.path[:], sys.excepthook = argv, path_before, excepthook
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.use_deterministic_algorithms(False)
        sys.modules.pop('prepare', None) # that of data/, which data/*/prepare.py import
    return Result(out.getvalue(), err.getvalue(), code, space)


def run_process(script, *args, env=None, timeout=600, prefix=(), **settings):
    """The same in a process of its own; prefix stands before the script, for torchrun."""
    command = [sys.executable, *prefix, str(ROOT / script), *map(str, args), *as_args(settings)]
    done = subprocess.run(command, capture_output=True, encoding='utf-8', timeout=timeout, env={**os.environ, **(env or {})})
    return Result(done.stdout, done.stderr, done.returncode)


def train(dataset, out_dir, *args, **settings):
    """A tiny training run; it must succeed."""
    result = run('train.py', *args, **{**TINY, 'dataset': dataset, 'out_dir': out_dir, **settings})
    assert result.code == 0, result.err
    return result


def events(out_dir, kind):
    """The objects of one event in out_dir/metrics.jsonl."""
    lines = (Path(out_dir) / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    return [e for e in map(json.loads, lines) if e['event'] == kind]


def make_dataset(folder, n_train=4000, n_val=800, alphabet='\n abcdefghijklmnopqrstuvwxyz.,'):
    """A character dataset whose next character is mostly a function of the one before, so that a model can learn it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    V = len(alphabet)
    ids = np.zeros(n_train + n_val, dtype=np.uint16)
    for i in range(1, len(ids)):
        ids[i] = (ids[i - 1] * 3 + 1) % V if rng.random() < 0.8 else rng.integers(V)
    ids[:n_train].tofile(folder / 'train.bin')
    ids[n_train:].tofile(folder / 'val.bin')
    meta = {'vocab_size': V, 'stoi': {c: i for i, c in enumerate(alphabet)}, 'itos': dict(enumerate(alphabet))}
    (folder / 'meta.pkl').write_bytes(pickle.dumps(meta))
    return folder


@pytest.fixture(autouse=True)
def hasty_timer(monkeypatch):
    """torch's timer measures for a moment, as no test looks at times."""
    from torch.utils.benchmark import Timer
    measure = Timer.blocked_autorange
    monkeypatch.setattr(Timer, 'blocked_autorange', lambda self, min_run_time: measure(self, min_run_time=0.01))


@pytest.fixture(scope='session')
def dataset(tmp_path_factory):
    """A folder with a tiny character dataset; not to be changed."""
    return make_dataset(tmp_path_factory.mktemp('data') / 'tiny')


@pytest.fixture(scope='session')
def trained(dataset, tmp_path_factory):
    """An out_dir with the checkpoint of a tiny run; not to be changed."""
    out_dir = tmp_path_factory.mktemp('trained') / 'out'
    train(dataset, out_dir)
    return out_dir


def log_losses(text):
    return [float(x) for x in re.findall(r'^iter \d+: loss ([\d.]+)', text, re.M)]
