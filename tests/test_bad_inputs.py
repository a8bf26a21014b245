"""
What a wrong input costs: one line on stderr that says what is wrong, exit status 1, nothing written, nothing executed.

Each row of a table is a name, what is wrong, and words that the line must hold.
"""
import io
import os
import pickle
import re
import shutil
import socket
import sys
import types
import warnings
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, as_args, run

SAMPLE = dict(num_samples=1, max_new_tokens=4, device='cpu')
BENCH = {k: TINY[k] for k in ('n_layer', 'n_head', 'n_embd', 'block_size', 'batch_size', 'device')}
BASE = {'train.py': dict(TINY, out_dir='out'), 'sample.py': dict(SAMPLE, out_dir='out'), 'bench.py': BENCH}
BOTH = ('train.py', 'sample.py')
HUGE = 10 ** 30


class Touch:
    """Unpickled the ordinary way, makes a file."""
    def __reduce__(self):
        return open, ('hacked', 'w')


def listing(folder):
    """{name: bytes} of all files below, and None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob('*') if '__pycache__' not in str(p)}


def refused(folder, script, *args, words=(), **settings):
    """Run script in folder with tiny settings, these settings and then args; assert that it costs a line and nothing else."""
    before = listing(folder)
    with warnings.catch_warnings(record=True) as caught:
        result = run(script, *as_args({**BASE.get(script, {}), **settings}), *args, cwd=folder)
    result.refused(f"{os.path.basename(script)}: ", *words)
    assert len(result.err.splitlines()) == 1 and len(result.err) < 1500
    assert not [w for w in caught if w.category in (UserWarning, RuntimeWarning, SyntaxWarning)] # more lines on stderr
    assert listing(folder) == before


def table(names, rows):
    """Parametrize by rows whose first column is the row's name."""
    return pytest.mark.parametrize(names, [pytest.param(*row[1:], id=row[0].replace(' ', '_')) for row in rows])


@pytest.fixture
def box(trained, tmp_path):
    """A folder to run in, with a trained model in out/."""
    shutil.copytree(trained, tmp_path / 'out')
    return tmp_path


# ---- settings ------------------------------------------------------------------------------------------------------------
@table('script, args, words', [
    *((f'{s} {k}={v}'[:50], s, [f'--{k}={v}'], [k]) for s, k, v in [
        *(('train.py', k, HUGE) for k in ('batch_size', 'n_layer', 'block_size', 'max_iters', 'gradient_accumulation_steps', 'eval_iters')),
        *(('train.py', k, v) for k in ('n_embd', 'n_head', 'n_layer', 'block_size', 'batch_size', 'eval_interval') for v in (0, -1)),
        *(('train.py', k, 0) for k in ('log_interval', 'eval_iters', 'gradient_accumulation_steps', 'max_bad_steps', 'keep_checkpoints')),
        ('train.py', 'batch_size', 2 ** 31 - 1), ('train.py', 'n_head', 5), ('train.py', 'n_head', 64),
        ('train.py', 'learning_rate', 'nan'), ('train.py', 'learning_rate', '-1e-3'), ('train.py', 'grad_clip', 'inf'),
        ('train.py', 'learning_rate', '1e400'), ('train.py', 'dropout', '1.5'), ('train.py', 'beta1', 1), ('train.py', 'beta2', 1), ('train.py', 'ngram_dropout', 1), ('train.py', 'cooldown', 1.01), ('sample.py', 'top_p', 1.01), ('train.py', 'bias', 'maybe'),
        ('train.py', 'max_iters', '6.5'), ('train.py', 'max_iters', '0.99999999999999999999'), ('train.py', 'seed', '9007199254740993.5'),
        ('train.py', 'seed', '1e999999999'), ('train.py', 'seed', '1e-999999999'), ('train.py', 'seed', 2 ** 64), ('train.py', 'compile', 'yes'),
        ('train.py', 'block_size', 4000), ('train.py', 'block_size', 800), ('train.py', 'batch_sise', 4), ('train.py', 'init_from', 'nonsense'),
        *((s, 'device', d) for s in BASE for d in ('cuda:99', 'gpu', 'cpu:999', 'cuda:99999999999999999999')),
        *((s, 'dtype', 'float8') for s in BASE), ('train.py', 'dataset', 'nowhere'),
        ('sample.py', 'temperature', 'nan'), ('sample.py', 'temperature', -1), ('sample.py', 'num_samples', 0), ('sample.py', 'max_new_tokens', 0), ('sample.py', 'context_stride', 0), ('sample.py', 'max_new_tokens', HUGE),
        ('sample.py', 'top_k', -5), ('sample.py', 'n_head', 2),
        ('bench.py', 'n_embd', 0), ('bench.py', 'n_embd', 33), ('bench.py', 'n_embd', 10 ** 8), ('bench.py', 'n_layer', 10 ** 9),
        ('bench.py', 'block_size', HUGE), ('bench.py', 'batch_size', HUGE), ('bench.py', 'batch_size', 2 ** 31 - 1), ('bench.py', 'max_seconds', 0),
    ]),
    ('a value is missing', 'train.py', ['--batch_size'], ['--batch_size', 'needs a value']),
    ('one dash', 'sample.py', ['-seed=1'], ['-seed=1']),
    ('float16 on a CPU', 'train.py', ['--dtype=float16'], ['float16', 'CUDA']),
    ('a word', 'bench.py', ['fast'], ['fast', 'config file']),
    ('an unknown switch', 'bench.py', ['--fast'], ['fast', 'nearest']),
    ('text that is not UTF-8', 'sample.py', ['--start=\udcff'], ['start']),
    ('a name of two lines', 'sample.py', ['--out_dir=no\nwhere'], ['no where']),
])
def test_settings(dataset, box, script, args, words):
    own = {} if script == 'sample.py' else dict(dataset=dataset)
    refused(box, script, *args, words=words, **own)


@table('source, words', [
    ('a syntax error', 'batch_size = = 2', ['line 1']),
    ('not UTF-8', b'# caf\xe9\nbatch_size = 2', ['UTF-8']),
    ('a null byte', b'batch_size = 2\0', ['null']),
    ('raising', 'raise RuntimeError("one\\ntwo")', ['RuntimeError: one two']),
    ('exiting', 'import sys\nsys.exit("enough")', ['SystemExit: enough']),
    ('exiting silently', 'raise SystemExit', ['SystemExit']),
    ('interrupted recursion', 'def f(): f()\nf()', ['RecursionError']),
    ('a misspelt key', 'batch_sise = 2', ["'batch_sise'", "'batch_size'"]),
    ('a list', 'n_layer = [2]', ['n_layer', '[2]']),
    ('a number of 5000 digits', 'n_layer = 10 ** 5000', ['n_layer']),
    ('a null byte in a name', 'out_dir = "a\\0b"', ['out_dir']),
    ('an endless brace', '(' * 5000, []),
    ('none at all', None, ['c.py', 'No such file']),
    ('a folder', 'folder', ['c.py']),
])
def test_config_files(tmp_path, dataset, source, words):
    path = tmp_path / 'c.py'
    if source == 'folder':
        path.mkdir()
    elif source is not None:
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    refused(tmp_path, 'train.py', 'c.py', words=['c.py', *words], dataset=dataset)


# ---- datasets ------------------------------------------------------------------------------------------------------------
def endless():
    """A small list that takes ages to print, compare or copy."""
    x = [0]
    for _ in range(60):
        x = [x, x]
    return x


META = dict(vocab_size=3, stoi=dict(a=0, b=1, c=2), itos=dict(enumerate('abc')))
GOOD_IDS = np.arange(400, dtype=np.uint16) % 3


def ids(*more):
    return np.append(GOOD_IDS, np.array(more, dtype=np.uint16)).tobytes()


@table('scripts, files, words', [
    ('no train.bin', ['train.py'], dict(train_bin=None), ['train.bin is missing']),
    ('no val.bin', ['train.py'], dict(val_bin=None), ['val.bin is missing']),
    ('an empty train.bin', ['train.py', 'bench.py'], dict(train_bin=b''), ['train.bin']),
    ('an odd train.bin', ['train.py', 'bench.py'], dict(train_bin=ids() + b'1'), ['train.bin']),
    ('an odd val.bin', ['train.py'], dict(val_bin=ids() + b'1'), ['val.bin', '801 bytes']),
    ('a short train.bin', ['train.py', 'bench.py'], dict(train_bin=ids()[:32]), ['train.bin', '16 tokens']),
    ('a short val.bin', ['train.py'], dict(val_bin=ids()[:32]), ['val.bin', '16 tokens']),
    ('an id too large in train.bin', ['train.py', 'bench.py'], dict(train_bin=ids(3) * 50), ['train.bin', 'id 3']),
    ('an id too large in val.bin', ['train.py'], dict(val_bin=ids(65535)), ['val.bin', 'id 65535']),
    *((f'meta.pkl: {name}', ['train.py', 'bench.py'], dict(meta_pkl=data), ['meta.pkl', *words]) for name, data, words in [
        ('garbage', b'nonsense', []), ('empty', b'', []), ('cut short', pickle.dumps(META)[:-9], []),
        ('an object', pickle.dumps(Touch()), ['import', 'open']), ('an object within', pickle.dumps(dict(META, x=[Touch()])), ['open']),
        ('a module of two lines', b'\x80\x04\x8c\x05os\nos\x8c\x06system\x93.', ['import os os']),
        ('a list', pickle.dumps([META]), []), ('half of its tables', pickle.dumps({k: META[k] for k in ('vocab_size', 'itos')}), ['stoi']),
        *((f'vocab_size {v!r}', pickle.dumps(dict(META, vocab_size=v)), []) for v in (0, -3, '3', 3.0, None, True, 2, HUGE)),
        ('a memo of gigabytes', b'\x80\x04}r\0\0\0\x20.', []), ('bytes by the terabyte', b'\x80\x05\x96' + (1 << 40).to_bytes(8, 'little') + b'.', ['KeyError']), # not MemoryError
        ('a vocabulary of 10 ** 5000', pickle.dumps(dict(vocab_size=10 ** 5000, dtype='uint32')), []),
        *((f'{k} without end', pickle.dumps(dict(META, **{k: endless()})), []) for k in ('tokenizer', 'dtype', 'vocab_size')),
        *((f'dtype {v!r}', pickle.dumps(dict(META, dtype=v)), []) for v in ('object', 'uint8', 16, [])),
        *((f'itos {v!r}', pickle.dumps(dict(META, itos=v)), []) for v in ('', {}, {0: 'a', 1: 'b', 5: 'c'}, {0: 0, 1: 1, 2: 2}, 7)),
        ('no letters', pickle.dumps(dict(vocab_size=3, stoi={}, itos={})), []),
        *((f'stoi {v!r}', pickle.dumps(dict(META, stoi=v)), []) for v in ([], dict(a=0, b=1, c=3), dict(a='0', b=1, c=2), dict(a=-1))),
    ]),
])
def test_datasets(tmp_path, scripts, files, words):
    folder = tmp_path / 'd'
    folder.mkdir()
    files = dict(train_bin=ids(), val_bin=ids(), meta_pkl=pickle.dumps(META)) | files
    for name, data in files.items():
        if data is not None:
            (folder / name.replace('_', '.')).write_bytes(data)
    for script in scripts:
        refused(tmp_path, script, words=words, dataset=folder)


def test_a_dataset_that_is_a_file(tmp_path):
    (tmp_path / 'd').write_bytes(b'')
    refused(tmp_path, 'train.py', words=['no dataset'], dataset=tmp_path / 'd')


# ---- checkpoints ---------------------------------------------------------------------------------------------------------
def a_zip(good):
    with zipfile.ZipFile(f := io.BytesIO(), 'w') as z:
        z.writestr('readme.txt', 'no model')
    return f.getvalue()


def saved(x):
    torch.save(x, f := io.BytesIO())
    return f.getvalue()


@table('make, words', [
    ('empty', lambda good: b'', []),
    *((f'cut at {part}', lambda good, part=part: good[:int(part * len(good)) or 1], []) for part in (0.0, 0.001, 0.1, 0.5, 0.9, 0.9999)),
    ('text', lambda good: b'not a checkpoint\n' * 100, []),
    ('another zip', a_zip, []),
    ('zeros within', lambda good: good[:200] + bytes(600) + good[800:], []),
    ('a pickle that opens a file', lambda good: pickle.dumps(Touch()), ['might run code']),
    ('an object within', lambda good: saved(dict(model={}, model_args={}, x=Touch())), ['might run code']),
    ('an object among the weights', lambda good: saved(dict(model={'transformer.wte.weight': Touch()}, model_args={})), ['might run code']),
    *((f'holds {x!r}'[:20], lambda good, x=x: saved(x), []) for x in (7, 'model', ['model', 'model_args'], {}, torch.ones(3))),
])
def test_files_in_a_checkpoints_place(box, dataset, make, words):
    path = box / 'out' / 'ckpt.pt'
    path.write_bytes(make(path.read_bytes()))
    for script, own in (('train.py', dict(dataset=dataset, init_from='resume')), ('train.py', dict(dataset=dataset, init_from='auto')), ('sample.py', {})):
        refused(box, script, words=['ckpt.pt', *words], **own)


def put(*keys, value=None):
    """What sets checkpoint[keys[0]][keys[1]]… to value; a function as value gets what was there, None removes it."""
    def change(checkpoint):
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value(checkpoint[keys[-1]]) if callable(value) else value
        if value is None:
            del checkpoint[keys[-1]]
    return change


WTE, NORM = 'transformer.wte.weight', 'transformer.ln_f.weight'


@table('change, scripts, words', [
    *((f'no {k}', put(k), BOTH, [k]) for k in ('model', 'model_args')),
    *((f'{k} is {v!r}'[:60], put(k, value=v), BOTH, [k if type(v) in (str, list, float) else '']) for k, v in [
        ('model', [1]), ('model', 'x'), ('model_args', [1]), ('model_args', 'x'), ('iter_num', 'six'), ('iter_num', [6]), ('iter_num', -1), ('iter_num', 1.5),
        ('best_val_loss', 'low'), ('best_val_loss', {}), ('best_val_loss', torch.ones(2)), ('config', 'x'), ('config', [1]),
        ('codec', 'x'), ('codec', {}), ('codec', dict(vocab_size=30, stoi='x', itos=7)), ('codec', META), ('codec', dict(META, vocab_size=30, itos={0: 'a', 2: 'c'})),
        ('optimizer', 'x'), ('optimizer', [1]), ('progress', 'x'), ('progress', dict(bad_steps='x')), ('scaler', 3),
    ]),
    *((f'{k} {v!r}', put('model_args', k, value=v), BOTH, []) for k, v in [
        ('n_embd', 64), ('n_embd', 0), ('n_layer', 3), ('n_layer', 1), ('n_layer', 10 ** 9), ('n_head', 5), ('n_head', '2'), ('n_embd', 32.0), ('block_size', 8),
        ('block_size', HUGE), ('vocab_size', 31), ('vocab_size', -30), ('bias', True), ('bias', 'no'), ('activation', 'relu'), ('activation', []), ('colour', 3),
    ]),
    *((f'activation {v!r} beside them', put('activation', value=v), BOTH, ['activation']) for v in ('relu', [])),
    ('no tables', lambda c: c.update(codec=None), ['sample.py'], ['vocabulary of 30']),
    ('a dataset that is a number', lambda c: (c.pop('codec'), c['config'].update(dataset=7)), ['sample.py'], ['vocabulary of 30']),
    *((f'no {k}', put('model_args', k), BOTH, []) for k in ('n_embd', 'block_size', 'vocab_size')),
    *((f'{k} without end', put('model_args', k, value=lambda v: endless()), BOTH, ['no number and no word']) for k in ('n_layer', 'bias', 'block_size')),
    *((f'bad_steps {v!r:.9}', put('progress', 'bad_steps', value=v), ['train.py'], ['progress']) for v in (float('nan'), 10 ** 600)),
    ('weights of another shape', put('model', NORM, value=torch.ones(31)), BOTH, ['ln_f']),
    ('a scalar for a weight', put('model', WTE, value=torch.ones(())), BOTH, []),
    ('a weight is missing', put('model', NORM), BOTH, ['ln_f']),
    ('a weight too many', put('model', 'transformer.h.9.ln_1.weight', value=torch.ones(32)), BOTH, ['h.9']),
    *((f'a weight is {v!r}', put('model', NORM, value=v), BOTH, []) for v in ('x', [1.0], 3)),
    ('a key is a number', put('model', 5, value=torch.ones(1)), BOTH, []),
    ('whole numbers as weights', put('model', NORM, value=lambda w: w.long()), BOTH, []),
    ('complex weights', put('model', NORM, value=lambda w: w + 0j), BOTH, []),
    ('one number for many weights', put('model', WTE, value=lambda w: torch.ones(1).expand(w.shape)), BOTH, ['fewer than it says']),
    ('weights that overlap', put('model', WTE, value=lambda w: torch.ones(99).as_strided(w.shape, (2, 1))), BOTH, ['fewer than it says']),
    ('weights beyond float32', put('model', NORM, value=lambda w: w.double() * 1e300), BOTH, ['finite']),
    ('sparse weights', put('model', WTE, value=lambda w: w.to_sparse()), BOTH, []),
    ('weights without values', put('model', WTE, value=lambda w: w.to('meta')), BOTH, []),
    ('a weight is nan', put('model', NORM, value=lambda w: w * float('nan')), BOTH, ['finite']),
    ('a weight is infinite', put('model', NORM, value=lambda w: w / 0), BOTH, ['finite']),
    ('a codec without end', lambda c: c.update(codec=dict(c['codec'], vocab_size=endless())), BOTH, ['codec']),
    ('moments of another shape', put('optimizer', 'state', 0, 'exp_avg', value=torch.ones(9, 9)), ['train.py'], ['optimizer']),
    ('moments that are text', put('optimizer', 'state', 0, 'exp_avg', value='x'), ['train.py'], ['optimizer']),
    ('a step that is text', put('optimizer', 'state', 0, 'step', value='x'), ['train.py'], ['optimizer']),
    ('no step of a later weight', put('optimizer', 'state', 3, 'step'), ['train.py'], ['optimizer']),
    ('no moments of one weight', put('optimizer', 'state', 0, 'exp_avg_sq'), ['train.py'], ['optimizer']),
    ('an optimizer of fewer groups', put('optimizer', 'param_groups', value=lambda g: g[:1]), ['train.py'], ['optimizer']),
    ('an optimizer of fewer weights', put('optimizer', 'param_groups', 0, 'params', value=lambda p: p[:1]), ['train.py'], ['optimizer']),
    ("another weight's moments", put('optimizer', 'param_groups', value=lambda g: [dict(g[0], params=g[0]['params'][::-1]), g[1]]), ['train.py'], ['optimizer']),
    ('an optimizer without groups', put('optimizer', 'param_groups'), ['train.py'], ['optimizer']),
])
def test_checkpoints(box, dataset, change, scripts, words):
    path = box / 'out' / 'ckpt.pt'
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    for script in scripts:
        refused(box, script, words=words, **(dict(dataset=dataset, init_from='resume', max_iters=7) if script == 'train.py' else {}))


# ---- prompts and folders -------------------------------------------------------------------------------------------------
@table('start, content, words', [
    ('unknown characters', 'aXYZ', None, ["'X' 'Y' 'Z'"]),
    ('unknown in a file', 'FILE:p.txt', 'a☃'.encode(), ["'☃'"]),
    ('empty', '', None, ['start is empty']),
    ('an empty file', 'FILE:p.txt', b'', ['start is empty']),
    ('no line', 'LINES:p.txt', b'\n\n', ['start is empty']),
    ('not UTF-8', 'FILE:p.txt', b'abc\xff\xfe', ['not UTF-8']),
    ('UTF-16', 'FILE:p.txt', 'abc'.encode('utf-16'), ['not UTF-8']),
    ('no file', 'FILE:p.txt', None, ['p.txt']),
    ('no name', 'FILE:', None, ['No such file']),
    ('a folder', 'FILE:out', None, ['out']),
])
def test_prompts(box, start, content, words):
    if content is not None:
        (box / 'p.txt').write_bytes(content)
    refused(box, 'sample.py', words=words, start=start)


@table('script, settings, words', [
    ('train into a file', 'train.py', dict(out_dir='file'), ['out_dir', 'file']),
    ('train below a file', 'train.py', dict(out_dir='file/out'), ['out_dir', 'file/out']),
    ('train into a name too long', 'train.py', dict(out_dir='x' * 300), ['out_dir']),
    ('resume from a file', 'train.py', dict(out_dir='file', init_from='resume'), ['no checkpoint', 'file']),
    ('resume from nothing', 'train.py', dict(out_dir='empty', init_from='resume'), ['no checkpoint', 'empty']),
    ('sample from a file', 'sample.py', dict(out_dir='file'), ['file']),
    ('sample from nothing', 'sample.py', dict(out_dir='empty'), ['no checkpoint', 'empty']),
    ('train from a folder without weights', 'train.py', dict(init_from='./empty'), ['./empty', 'config.json']),
    ('sample from a folder without weights', 'sample.py', dict(init_from='empty'), ['empty', 'config.json']),
    ('sample from a folder of a strange kind', 'sample.py', dict(init_from='strange'), ['strange']),
    ('a model that is not in the cache', 'train.py', dict(init_from='nobody/gpt2-xxl'), ['gpt2-xxl']),
    ('nonsense as a model', 'sample.py', dict(init_from='no such/model/!'), ['no such/model/!']),
    ('a folder for a checkpoint', 'sample.py', dict(out_dir='folder'), ['ckpt.pt']),
    ('a folder for a checkpoint, resumed', 'train.py', dict(out_dir='folder', init_from='auto'), ['ckpt.pt']),
    ('a folder for metrics', 'train.py', dict(out_dir='strange'), ['out_dir', 'directory']),
])
def test_folders(tmp_path, dataset, monkeypatch, script, settings, words):
    if settings.get('init_from', 'resume') not in ('resume', 'auto'):
        pytest.importorskip('safetensors')
        pytest.importorskip('huggingface_hub')
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    (tmp_path / 'file').write_bytes(b'')
    for folder in ('empty', 'folder/ckpt.pt', 'strange/metrics.jsonl'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'strange' / 'config.json').write_text('[1]', encoding='utf-8')
    refused(tmp_path, script, words=words, **(dict(dataset=dataset) if script == 'train.py' else {}), **settings)


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_that_cannot_be_written(tmp_path, dataset):
    (tmp_path / 'locked').mkdir(mode=0o500)
    refused(tmp_path, 'train.py', words=['out_dir', 'Permission'], dataset=dataset, out_dir='locked/out')


def test_a_full_disk(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: (10**12, 0, 1000))
    refused(tmp_path, 'train.py', words=['a checkpoint takes', 'free'], dataset=dataset)


# ---- prepare scripts -----------------------------------------------------------------------------------------------------
@pytest.fixture
def data(tmp_path):
    """A copy of data/'s scripts, which look for the network at a port where nobody listens, and some texts beside it."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        nobody = f'http://127.0.0.1:{s.getsockname()[1]}/'
    for path in (ROOT / 'data').rglob('prepare.py'):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        copy.write_text(re.sub(r'https://[^/]*/', nobody, path.read_text(encoding='utf-8')), encoding='utf-8')
    for name, content in {'good.txt': b'good ' * 50, 'latin.txt': b'na\xefve ' * 50, 'short.txt': b'short', 'blank.txt': b' \n' * 500, 'in/a.bin': b'',
                          'src/a.jsonl': b'{"text": "a"}\n' * 20,
                          'words/a.jsonl': b'{"words": "a"}\n' * 20, 'garbage/a.jsonl': b'{"text": \n' * 9, 'one/a.jsonl': b'{"text": "a"}\n',
                          'numbers/a.jsonl': b'{"text": 7}\n' * 20, 'hollow/a.jsonl': b'',
                          'torn.jsonl': b'{"text": "a"}\n\n{"text": "a\n', 'list.jsonl': b'["text"]\n', 'deep.jsonl': b'[' * 10 ** 6, 'garbage2/a.parquet': b'PAR1 no'}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path / 'data'


OWN, OWT = 'prepare.py', 'openwebtext/prepare.py'


@table('script, args, files, words', [
    ('no file', OWN, ['nowhere.txt', '--name=x'], {}, ['nowhere.txt']),
    ('not UTF-8', OWN, ['latin.txt', '--name=x'], {}, ['latin.txt', 'UTF-8']),
    ('too short', OWN, ['short.txt', '--name=x'], {}, ['short.txt']),
    ('blank', OWN, ['blank.txt', '--name=x'], {}, ['blank.txt']),
    ('a folder without text', OWN, ['in', '--name=x'], {}, ['.txt']),
    ('one good and one bad', OWN, ['good.txt', 'latin.txt', '--name=x'], {}, ['latin.txt']),
    ('a bad tokenizer', OWN, ['good.txt', '--name=x', '--tokenizer=words'], {}, ['tokenizer', 'words']),
    ('no name', OWN, ['good.txt'], {}, ['--name']),
    ('nothing at all', OWN, [], {}, ['paths']),
    ('an unknown option', OWN, ['good.txt', '--name=x', '--fast'], {}, ['--fast']),
    *((f'name {name}', OWN, ['good.txt', f'--name={name}'], {}, ['name']) for name in ('', '..', '.', '../x', 'a/b', '/tmp/x/y', 'x/')),
    *((f'a BPE of {size!r}', OWN, ['good.txt', '--name=x', f'--tokenizer=bpe:{size}'], {}, ['bpe:257 or more']) for size in ('', '256', '-300', 'many', '1.5')),
    ('no such field', OWN, ['words/a.jsonl', '--name=x'], {}, ['line 1', "'text'", 'only words', '--field']),
    ('a field of numbers', OWN, ['numbers', '--name=x'], {}, ['line 1', "'text'"]),
    ('a bad line of JSON', OWN, ['src/a.jsonl', 'torn.jsonl', '--name=x'], {}, ['torn.jsonl line 3 ']),
    ('a line that is a list', OWN, ['list.jsonl', '--name=x'], {}, ['list.jsonl line 1', 'list']),
    ('a line too deep', OWN, ['deep.jsonl', '--name=x'], {}, ['deep.jsonl line 1 is not JSON']),
    ('no Parquet', OWN, ['garbage2', '--name=x'], {}, ['a.parquet']),
    ('no match', OWN, ['*.doc', '--name=x'], {}, ["'*.doc'"]),
    ('a name that is a file', OWN, ['good.txt', '--name=prepare.py'], {}, ['prepare.py']),
    ('a name too long', OWN, ['good.txt', '--name=' + 'x' * 300], {}, ['too long']),
    ('no tables', OWN, ['good.txt', '--name=x', '--tokenizer=gpt2'], {}, ['tiktoken']),
    ('no network', 'shakespeare_char/prepare.py', [], {}, ['could not fetch', 'by hand']),
    ('no tables for shakespeare', 'shakespeare/prepare.py', [], {}, ['tiktoken']),
    *((f'input.txt: {name}', 'shakespeare_char/prepare.py', [], {'input.txt': content}, ['input.txt']) for name, content in [
        ('empty', b''), ('too short', b'to be'), ('not UTF-8', b'\xff' * 500), ('a folder', None)]),
    *((f'openwebtext from {name}', OWT, [f'--source={name}'], {}, [words]) for name, words in [
        ('nowhere', 'nowhere'), ('in', 'in'), ('words', "'text'"), ('garbage', 'garbage'), ('garbage2', 'garbage2'), ('hollow', 'hollow'),
        ('one', 'one'), ('numbers', 'numbers')]),
    ('max_docs a word', OWT, ['--max_docs=many'], {}, ['max_docs']),
    ('max_docs negative', OWT, ['--max_docs=-5'], {}, ['max_docs']),
    ('max_docs of one', OWT, ['--source=src', '--max_docs=1'], {}, ['max_docs']),
])
def test_prepare(data, tmp_path, monkeypatch, tmp_path_factory, script, args, files, words):
    outside = tmp_path_factory.mktemp('cache')
    if 'tiktoken' in words: # its tables are neither in memory nor on the disk nor to be fetched
        registry = pytest.importorskip('tiktoken.registry')
        monkeypatch.setattr(registry, 'ENCODINGS', {})
        monkeypatch.setenv('TIKTOKEN_CACHE_DIR', str(outside))
        for name in ('https_proxy', 'HTTPS_PROXY'):
            monkeypatch.setenv(name, 'http://127.0.0.1:9')
    elif script == OWT:
        datasets = pytest.importorskip('datasets')
        datasets.disable_progress_bars()
        monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', outside)
        monkeypatch.setattr('tiktoken.get_encoding', lambda name: types.SimpleNamespace(eot_token=0, encode_ordinary_batch=lambda texts, num_threads:
                                                                                       [list(t.encode()) for t in texts]))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    for name, content in files.items():
        path = data / Path(script).parent / name
        path.mkdir() if content is None else path.write_bytes(content)
    refused(tmp_path, str(data / script), *args, words=words)


# ---- the configurator, whatever is typed ---------------------------------------------------------------------------------
SPACE = dict(whole=3, real=6e-4, switch=False, text='x', seed=1337, batch_size=12, dropout=0.0, compile='auto')
SWITCH = ('true', 'false', '0', '1')


def meaning(args):
    """{key: text} of what args say by the grammar that configurator.py documents, the later winning; None if they break it."""
    said, args = {}, list(args)
    while args:
        arg = args.pop(0)
        key, equals, text = arg.removeprefix('--').partition('=')
        if key not in SPACE or not equals and not arg.startswith('--'):
            return None
        if not equals and key in ('switch', 'compile'):
            text = args.pop(0) if args and args[0].lower() in (*SWITCH, 'auto') else 'True'
        elif not equals:
            if not args or args[0].startswith('--'):
                return None
            text = args.pop(0)
        said[key] = text
    return said


def lossless(key, value, text):
    """Whether value is of key's kind and is what text says."""
    kind = type(SPACE[key])
    if key in ('switch', 'compile'):
        return value == 'auto' == text.lower() and key == 'compile' or type(value) is bool and text.lower() in SWITCH and value == (text.lower() in ('true', '1'))
    if text == 'None' and kind is not str:
        return type(value) is kind and value == 0
    return type(value) is kind and value == (text if kind is str else float(text) if kind is float else Fraction(text.strip()))


def test_any_arguments(tmp_path, monkeypatch):
    hypothesis = pytest.importorskip('hypothesis')
    st = hypothesis.strategies
    monkeypatch.chdir(tmp_path) # no argument is the name of a file here
    source = (ROOT / 'configurator.py').read_text(encoding='utf-8').split('\nglobals().update')[0]
    (tmp_path / 'toy.py').write_text('', encoding='utf-8')
    exec(source, space := dict(SPACE, __file__=str(tmp_path / 'toy.py')))
    configure, seen = space.pop('_configure'), dict(kept=0, refused=0)
    anything = st.text(st.characters(exclude_categories=()), max_size=12)
    numbers = st.one_of(st.integers(), st.floats(), st.integers(-3, 3), st.decimals(), st.sampled_from([2**31, 2**53 + 1.5, '1e4', '1_0', '٣', ' 7 ', '9' * 5000,
                        '1e999999999', '1e-999999999', '0.99999999999999999999', '9007199254740993.0', '0x10', '--', ''])).map(str)
    keys = st.one_of(st.sampled_from([*SPACE]), st.sampled_from([*SPACE]), st.sampled_from(['wole', 'Whole', 'whole ', '_configure', '__file__', '', 'os']), anything)
    values = st.one_of(numbers, st.sampled_from([*SWITCH, 'True', 'AUTO', 'None', 'nan', '-inf', '-', '=', 'a=b', '[1]']), anything)
    dashes = st.sampled_from(['--', '--', '', '-', '---'])
    one = st.tuples(dashes, keys, st.just('='), values).map(lambda parts: [''.join(parts)])
    two = st.tuples(st.tuples(dashes, keys).map(''.join), values).map(list)
    likely = st.tuples(st.sampled_from([('whole', '7'), ('real', '1'), ('text', 'a=b'), ('switch', '1'), ('seed', '1e4')]), st.booleans()).map(
        lambda p: ['--' + p[0][0], p[0][1]] if p[1] else [f'{p[0][0]}={p[0][1]}'])
    some = st.one_of(st.lists(likely, max_size=4), st.lists(st.one_of(likely, one, two, values.map(lambda v: [v])), max_size=3),
                     st.lists(one, min_size=1, max_size=1)).map(lambda parts: sum(parts, []))

    @hypothesis.settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @hypothesis.given(some.filter(lambda args: not {'-h', '--help'} & set(args)))
    def check(args):
        monkeypatch.setattr(sys, 'argv', ['toy.py', *args])
        try:
            settings, given = configure(space)
        except SystemExit as e:
            seen['refused'] += 1
            assert isinstance(e.code, str) and e.code.startswith('toy.py: ') and len(e.code.splitlines()) == 1, (args, e.code)
            return
        seen['kept'] += 1
        said = meaning(args)
        assert said is not None and set(given) == set(said) and settings == {**SPACE, **given}, (args, said)
        assert all(lossless(k, given[k], text) for k, text in said.items()), (args, given)

    check()
    assert min(seen.values()) > 50, seen # both ends of the promise were looked at


def test_what_a_strangers_optimizer_state_adds_is_left_out(box, dataset):
    """A list that holds itself many times over, or a step in another form, would cost a resumed run hours or a traceback."""
    checkpoint = torch.load(box / 'out' / 'ckpt.pt', weights_only=True)
    moments = checkpoint['optimizer']['state'][0]
    moments.update(more=endless(), step=moments['step'].to_sparse())
    torch.save(checkpoint, box / 'out' / 'ckpt.pt')
    assert run('train.py', **dict(TINY, dataset=dataset, out_dir=box / 'out', init_from='resume', max_iters=7)).code == 0
