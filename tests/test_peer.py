"""
Files and numbers against nanoGPT itself, both ways: its configs, data, checkpoints, losses, updates and greedy text.

    NANOGPT_DIR=/where/its/clone/is python -m pytest tests/test_peer.py        without the variable all of it is skipped
"""
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, as_args, run, train
from data.prepare import load_meta

from model import GPT, load_checkpoint

CLONE = os.environ.get('NANOGPT_DIR')
CONFIGS = sorted(Path(CLONE, 'config').glob('*.py')) if CLONE else []
pytestmark = pytest.mark.skipif(not CLONE, reason="NANOGPT_DIR, the folder of a clone of karpathy/nanoGPT, is not set")

ON_CPU = dict(device='cpu', dtype='float32', compile=False) # its defaults need CUDA
GREEDY = dict(num_samples=1, max_new_tokens=20, start='the ', device='cpu', dtype='float32') # 20 goes past TINY's block_size


@pytest.fixture(scope='module')
def peer(tmp_path_factory):
    """A copy of what its scripts need, with characters prepared by its own script; its scripts run with this as cwd."""
    folder = tmp_path_factory.mktemp('peer')
    chars = folder / 'data/shakespeare_char'
    chars.mkdir(parents=True)
    for name in ('model.py', 'train.py', 'sample.py', 'configurator.py', 'data/shakespeare_char/prepare.py'):
        shutil.copy(Path(CLONE, name), folder / name)
    rng = np.random.default_rng(0)
    words = rng.choice(['the ', 'quick ', 'brown ', 'fox,\n', 'jumps\r\n', 'naïve — ', 'Ωmega. '], 3000)
    (chars / 'input.txt').write_bytes(''.join(words).encode())
    (chars / 'requests.py').write_text('') # prepare.py imports it, and has nothing to fetch
    peer_run(folder, 'data/shakespeare_char/prepare.py')
    return folder


@pytest.fixture(scope='module')
def peer_trained(peer):
    """The same folder after a tiny run of its train.py: out/ckpt.pt holds the state after 6 updates."""
    peer_run(peer, 'train.py', **{**TINY, **ON_CPU, 'dataset': 'shakespeare_char', 'out_dir': 'out'})
    return peer


def peer_run(folder, script, **settings):
    """What one of its scripts printed."""
    done = subprocess.run([sys.executable, script, *as_args(settings)], cwd=folder, capture_output=True, encoding='utf-8',
                          timeout=600, env={**os.environ, 'PYTHONUTF8': '1', 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr
    return done.stdout


def peer_sample(folder, out_dir):
    """The most likely text by its sample.py, which imports tiktoken even for a model of characters."""
    pytest.importorskip('tiktoken', reason="nanoGPT's sample.py imports tiktoken, which is not installed")
    return sampled(peer_run(folder, 'sample.py', out_dir=out_dir, top_k=1, **GREEDY))


def own_sample(out_dir, **settings):
    result = run('sample.py', **{**GREEDY, 'out_dir': out_dir, 'top_k': 1, **settings})
    assert result.code == 0, result.err
    return sampled(result.out)


def sampled(out):
    """The one sample in what a sample.py printed: a character a token, the prompt's among them."""
    text = out.partition('\n---------------')[0][-len(GREEDY['start']) - GREEDY['max_new_tokens']:]
    assert text.startswith(GREEDY['start']), out
    return text


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def assert_continued(before, after, n, beta2=0.95):
    """after is before plus n updates at a learning rate of 0: equal weights, and moments that have decayed, not restarted."""
    assert (before['iter_num'], after['iter_num']) == (6, 6 + n)
    assert before['model'].keys() == after['model'].keys()
    assert all(torch.equal(before['model'][k], after['model'][k]) for k in before['model'])
    old, new = before['optimizer']['state'], after['optimizer']['state']
    assert old.keys() == new.keys()
    for k in old:
        assert (int(old[k]['step']), int(new[k]['step'])) == (6, 6 + n)
        assert (new[k]['exp_avg_sq'] >= 0.999 * beta2 ** n * old[k]['exp_avg_sq']).all()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_its_configs_load_unchanged(path):
    result = run('train.py', path, dataset='/nonexistent', device='cpu', compile=False)
    result.refused('there is no dataset', '/nonexistent')
    says = {}
    exec(path.read_text(encoding='utf-8'), says)
    for key, value in says.items():
        if type(value) in (bool, int, float, str) and key not in ('dataset', 'wandb_run_name'): # which may hold the time
            assert f'{key} = {value!r}' in result.out


def test_data_is_equal_to_the_byte(peer, tmp_path):
    theirs, ours = peer / 'data/shakespeare_char', tmp_path / 'data/shakespeare_char'
    ours.mkdir(parents=True)
    shutil.copy(ROOT / 'data/prepare.py', ours.parent)
    shutil.copy(ROOT / 'data/shakespeare_char/prepare.py', ours)
    shutil.copy(theirs / 'input.txt', ours)
    subprocess.run([sys.executable, ours / 'prepare.py'], check=True, capture_output=True, env={**os.environ, 'PYTHONUTF8': '1'})
    for name in ('train.bin', 'val.bin'):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert load_meta(ours / 'meta.pkl') == load_meta(theirs / 'meta.pkl')


def test_its_checkpoint_resumes_here(peer_trained, tmp_path):
    before = load(peer_trained / 'out/ckpt.pt')
    shutil.copy(peer_trained / 'out/ckpt.pt', tmp_path)
    result = train('shakespeare_char', tmp_path, cwd=peer_trained, init_from='resume', max_iters=9, learning_rate=0, min_lr=0)
    assert f"after 6 iterations, best val loss {float(before['best_val_loss']):.4f}" in result.out
    after = load(tmp_path / 'ckpt.pt')
    assert_continued(before, after, 3)
    assert after['best_val_loss'] <= float(before['best_val_loss'])
    assert after['model_args'] == before['model_args']


def test_its_checkpoint_samples_here(peer_trained, tmp_path):
    text = own_sample(peer_trained / 'out', cwd=peer_trained)
    checkpoint = load(peer_trained / 'out/ckpt.pt')
    checkpoint['model'] = {'_orig_mod.' + k: v for k, v in checkpoint['model'].items()} # as it saves a compiled model
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    assert text == own_sample(tmp_path, cwd=peer_trained)
    assert text == peer_sample(peer_trained, 'out')


def test_its_checkpoint_beside_other_data_is_refused(peer_trained, tmp_path):
    """It names its dataset, but carries no alphabet: what lies under that name need not be what it was trained on."""
    checkpoint = load(peer_trained / 'out/ckpt.pt')
    checkpoint['config']['dataset'] = 'other'
    torch.save(checkpoint, tmp_path / 'ckpt.pt')
    run('sample.py', out_dir=tmp_path, **GREEDY, cwd=tmp_path).refused('meta.pkl', 'other')
    other = tmp_path / 'data/other'
    other.mkdir(parents=True)
    meta = load_meta(peer_trained / 'data/shakespeare_char/meta.pkl')
    n = meta['vocab_size'] + 1
    grown = {'vocab_size': n, 'stoi': meta['stoi'] | {'☃': n - 1}, 'itos': meta['itos'] | {n - 1: '☃'}}
    (other / 'meta.pkl').write_bytes(pickle.dumps(grown))
    run('sample.py', out_dir=tmp_path, **GREEDY, cwd=tmp_path).refused(str(n), str(n - 1))


def test_own_checkpoint_resumes_there(peer, dataset, trained, tmp_path):
    before = load(trained / 'ckpt.pt')
    shutil.copy(trained / 'ckpt.pt', tmp_path)
    out = peer_run(peer, 'train.py', **{**TINY, **ON_CPU, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume',
                                        'max_iters': 9, 'learning_rate': 0.0, 'min_lr': 0.0})
    assert 'step 6: ' in out and 'iter 6: ' in out and 'iter 5: ' not in out
    assert_continued(before, load(tmp_path / 'ckpt.pt'), 3)


def test_own_checkpoint_samples_there(peer, trained, tmp_path):
    assert own_sample(trained) == peer_sample(peer, trained)
    finetuned = load(trained / 'ckpt.pt') | {'activation': 'gelu_tanh'} # OpenAI's; nanoGPT computes the other GELU, which differs by less than 0.001
    torch.save(finetuned, tmp_path / 'ckpt.pt')
    assert GPT.from_checkpoint(load_checkpoint(tmp_path / 'ckpt.pt')).config.activation == 'gelu_tanh'
    peer_sample(peer, tmp_path)


@pytest.fixture(params=[True, False], ids=['bias', 'no bias'])
def twins(request, peer):
    """Its GPT and ours with equal weights, none of them 0 or 1 as initialised, ids and targets."""
    torch.manual_seed(0)
    models = []
    for name, path in (('peer_model', peer / 'model.py'), ('own_model', ROOT / 'model.py')):
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        models.append(module.GPT(module.GPTConfig(block_size=16, vocab_size=61, n_layer=2, n_head=4, n_embd=32, bias=request.param)))
    theirs, ours = models
    with torch.no_grad():
        for p in theirs.parameters():
            p += 0.05 * torch.randn_like(p)
    ours.load_state_dict(theirs.state_dict())
    x, y = torch.randint(61, (2, 3, 16))
    y[:, ::5] = -1 # not counted
    return theirs.eval(), ours.eval(), x, y


@torch.no_grad()
def test_equal_logits_and_loss(twins):
    theirs, ours, x, y = twins
    for targets in (y, None):
        a, b = theirs(x, targets), ours(x, targets)
        torch.testing.assert_close(a[0], b[0], atol=1e-5, rtol=0)
        if targets is not None:
            torch.testing.assert_close(a[1], b[1], atol=1e-5, rtol=0)
    assert theirs.get_num_params() == ours.get_num_params()


def test_equal_updates(twins):
    theirs, ours, _, _ = twins
    assert [n for n, _ in theirs.named_parameters()] == [n for n, _ in ours.named_parameters()]
    a, b = (m.configure_optimizers(0.1, 1e-2, (0.9, 0.95), 'cpu') for m in (theirs, ours))
    names = [{id(p): n for n, p in m.named_parameters()} for m in (theirs, ours)]
    groups = [[(g['weight_decay'], [n[id(p)] for p in g['params']]) for g in o.param_groups] for n, o in zip(names, (a, b), strict=True)]
    assert groups[0] == groups[1]
    for _ in range(2):
        for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
        for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-6, rtol=0)
        state_a, state_b = a.state_dict(), b.state_dict() # the second update goes on from each other's moments
        a.load_state_dict(state_b)
        b.load_state_dict(state_a)


def test_equal_greedy_text(twins):
    theirs, ours, x, _ = twins
    a = theirs.generate(x[:, :3], 20, top_k=1)
    assert torch.equal(a, ours.generate(x[:, :3], 20, top_k=1))
    assert torch.equal(a, ours.generate(x[:, :3], 20, temperature=0))
