"""sample.py and bench.py as their users see them."""
import itertools
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import types

import pytest
import torch
from conftest import ROOT, TINY, make_dataset, run, train
from data.prepare import Text
from model import GPT

ONE = dict(num_samples=1, max_new_tokens=8, device='cpu')


def text_of(result):
    """The samples that were printed."""
    assert result.code == 0, result.err
    return result.out.split('of parameters: 0.03M\n')[1].split('\n---------------\n')[:-1]


def test_each_sample_then_a_line(trained):
    samples = text_of(run('sample.py', out_dir=trained, start='ab', num_samples=3, max_new_tokens=20, device='cpu'))
    assert [len(s) for s in samples] == [22] * 3 and all(s.startswith('ab') for s in samples)
    assert len(set(samples)) == 3


def test_the_same_seed_the_same_text(trained):
    first, again, other = (text_of(run('sample.py', out_dir=trained, seed=s, **{**ONE, 'max_new_tokens': 40})) for s in (1, 1, 2))
    assert first == again != other


def test_the_prompt_may_be_a_file(trained, tmp_path):
    (tmp_path / 'prompt.txt').write_text('a b, c', encoding='utf-8')
    assert text_of(run('sample.py', out_dir=trained, start=f"FILE:{tmp_path / 'prompt.txt'}", **ONE))[0].startswith('a b, c')


@pytest.mark.parametrize('more', [dict(temperature=0), dict(temperature=0.0, top_k=5), dict(top_k=1)])
def test_greedy_is_the_same_each_time(trained, more):
    a, b = text_of(run('sample.py', out_dir=trained, **{**ONE, **more, 'num_samples': 2}))
    assert a == b


def test_top_k_may_be_off(trained):
    off = [text_of(run('sample.py', out_dir=trained, top_k=k, **ONE)) for k in (0, None, 30)]
    assert off[0] == off[1] == off[2] # the vocabulary has 30 tokens


def test_the_checkpoint_carries_its_codec(trained, tmp_path):
    """nanoGPT looks for the dataset's meta.pkl and decodes as GPT-2 if it is gone."""
    shutil.copytree(trained, tmp_path / 'elsewhere')
    assert text_of(run('sample.py', out_dir=tmp_path / 'elsewhere', cwd=tmp_path, **ONE))


def test_a_checkpoint_without_its_tables_is_not_guessed_at(trained, tmp_path):
    ckpt = torch.load(trained / 'ckpt.pt', weights_only=True)
    del ckpt['codec'] # as in nanoGPT's
    torch.save(ckpt, tmp_path / 'ckpt.pt')
    assert text_of(run('sample.py', out_dir=tmp_path, **ONE)) == text_of(run('sample.py', out_dir=trained, **ONE)) # by the dataset's
    ckpt['config']['dataset'] = 'gone'
    torch.save(ckpt, tmp_path / 'ckpt.pt')
    run('sample.py', out_dir=tmp_path, **ONE).refused('vocabulary of 30', 'meta.pkl')


@pytest.mark.parametrize('settings, words', [
    (dict(start='aXYZ'), ["'X' 'Y' 'Z'"]),
    (dict(start=''), ['start is empty']),
    (dict(start='FILE:nowhere.txt'), ['nowhere.txt']),
    (dict(out_dir='nowhere'), ['no checkpoint', 'nowhere']),
    (dict(device='cuda:7'), ['cuda:7']),
    (dict(num_samples=0), ['num_samples']),
    (dict(temperature=-1), ['temperature']),
    (dict(dtype='float64'), ['float64', 'bfloat16']),
])
def test_mistakes_get_a_sentence(trained, settings, words):
    run('sample.py', **{'out_dir': trained, **ONE, **settings}).refused(*words)


def test_a_prompt_that_is_not_utf8(trained, tmp_path):
    (tmp_path / 'prompt.txt').write_bytes(b'abc\xff\xfe')
    run('sample.py', out_dir=trained, start=f"FILE:{tmp_path / 'prompt.txt'}", **ONE).refused('not UTF-8')


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_other_precisions(trained, dtype):
    result = run('sample.py', out_dir=trained, dtype=dtype, **ONE)
    assert text_of(result) and result.space['model'].lm_head.weight.dtype == getattr(torch, dtype)


def test_a_run_that_never_improved_can_be_sampled(dataset, tmp_path):
    train(dataset, tmp_path)
    (tmp_path / 'ckpt_last.pt').write_bytes(b'not this one, if there is ckpt.pt')
    assert text_of(run('sample.py', out_dir=tmp_path, **ONE))
    os.replace(tmp_path / 'ckpt.pt', tmp_path / 'ckpt_last.pt')
    assert text_of(run('sample.py', out_dir=tmp_path, **ONE))


def test_each_setting_reaches_the_model(trained, monkeypatch):
    import model
    seen, stream = [], model.GPT.stream
    monkeypatch.setattr(model.GPT, 'stream', lambda self, prompts, *args: seen.append(args) or stream(self, prompts, *args))
    run('sample.py', out_dir=trained, temperature=0.7, top_k=9, top_p=0.6, context_stride=5, **ONE)
    assert seen[0][:6] == (8, 0.7, 9, 0.6, 5, 30)


def test_nothing_is_dropped_from_samples(dataset, tmp_path):
    train(dataset, tmp_path, ngrams=9, dropout=0.9, ngram_dropout=0.9, max_iters=1)
    a, b = text_of(run('sample.py', out_dir=tmp_path, temperature=0, start='a', **{**ONE, 'num_samples': 2, 'max_new_tokens': 40}))
    assert a == b and not run('sample.py', out_dir=tmp_path, **ONE).space['model'].training


def test_a_stop_in_the_prompt_ends_nothing():
    text = Text([2, 0], lambda ids: ''.join('ab\n'[i] for i in ids), 9, stop='\n')
    text.add([0, 1])
    assert not text.over
    text.add([1, 2, 0])
    assert text.over and text.fresh() == '\naabb'


BENCH = {k: TINY[k] for k in ('n_layer', 'n_head', 'n_embd', 'block_size', 'batch_size', 'device')}


def test_bench_on_made_up_tokens(dataset, monkeypatch):
    """It does not take the current folder for a dataset that is not there."""
    asked, rows, forward = [], set(), GPT.forward
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda module, dynamic, options: asked.append((type(module).__name__, dynamic, options)))
    monkeypatch.setattr(GPT, 'forward', lambda self, *args: rows.add(args[-1]) or forward(self, *args))
    out = run('bench.py', cwd=dataset, dataset='nowhere', compile=True, **BENCH).out
    assert asked == [('GPT', False, dict(cpp_wrapper=True))]
    assert rows == {2 ** 23 // 50304} # as in train.py on a CPU
    assert "made-up tokens: dataset 'nowhere' is not prepared" in out
    assert re.search(r'^time per iteration: \d+\.\d+ms, MFU: \d+\.\d\d%$', out, re.M)


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(trained):
    command = [sys.executable, str(ROOT / 'sample.py'), f'--out_dir={trained}', '--device=cpu', '--num_samples=300', '--max_new_tokens=300']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith('settings given')
    process.stdout.close()
    assert process.stderr.read() == '' and process.wait(timeout=600) == 1


def test_ctrl_c_ends_in_a_sentence(trained, monkeypatch):
    monkeypatch.setattr('model.GPT.stream', lambda *args: signal.default_int_handler(signal.SIGINT, None)) # a background job ignores the signal
    run('sample.py', out_dir=trained, device='cpu').refused('stopped')


def test_an_alphabet_padded_to_a_rounder_size(tmp_path):
    """Ids without a letter are trained on, as in nanoGPT, and never drawn."""
    folder, out = make_dataset(tmp_path / 'd'), tmp_path / 'out'
    meta = pickle.loads((folder / 'meta.pkl').read_bytes())
    (folder / 'val.bin').write_bytes(b'\x64\0' + (folder / 'val.bin').read_bytes()[2:]) # the prompt of sample_tokens
    (folder / 'meta.pkl').write_bytes(pickle.dumps(meta | dict(vocab_size=128)))
    train(folder, out, max_iters=1, sample_tokens=20)
    assert torch.load(out / 'ckpt.pt')['model']['lm_head.weight'].shape[0] == 128
    text = run('sample.py', out_dir=out, device='cpu', num_samples=1, max_new_tokens=200, temperature=5.0, start='a').out.split('M\n')[1].split('\n---')[0]
    assert len(text) == 201 and set(text) <= set(meta['stoi'])


def test_bench_on_a_dataset(dataset, monkeypatch):
    monkeypatch.setattr('torch.utils.benchmark.Timer.blocked_autorange', lambda *args, **more: types.SimpleNamespace(times=[0.7, 0.5, 0.6]))
    result = run('bench.py', dataset=dataset, **BENCH)
    out, s = result.out, result.space
    assert s['peak'] == 2 * 1024 ** 3 / 0.5 # multiplications and additions of a matmul, at its quickest
    assert 'made-up' not in out and re.findall(r'^(\d+) steps', out, re.M) == ['10', '20'] == [str(10), str(s['n'])]
    assert {int(of['step']) for of in s['optimizer'].state.values()} == {30} and len(s['optimizer'].state) == len(list(s['model'].parameters()))
    assert all(p.grad is None for p in s['model'].parameters()) # each step updates, by its own gradients
    ms, mfu = map(float, re.search(r'iteration: ([\d.]+)ms, MFU: ([\d.]+)%', out).groups())
    assert mfu == pytest.approx(100 * s['model'].estimate_mfu(4, ms / 1000, s['peak']), abs=0.006)
    assert float(re.search(r'^([\d,]+) tokens/s', out, re.M)[1].replace(',', '')) == pytest.approx(4 * 16 * 1000 / ms, rel=0.01)


@pytest.mark.parametrize('block_size', [2, 4, 5])
def test_bench_times_generation_in_short_contexts(tmp_path, block_size):
    out = run('bench.py', cwd=tmp_path, mode='generate', real_data=False, **BENCH | dict(block_size=block_size)).out
    assert out.count('ms a step') == 2


def test_bench_does_not_profile_generation():
    run('bench.py', mode='generate', profile=True, **BENCH).refused('profile', '--mode=generate')


def test_bench_ends_in_time_and_computes_in_dtype(dataset, monkeypatch):
    import model
    seen, forward = [], model.GPT.forward
    monkeypatch.setattr(model.GPT, 'forward', lambda *args: seen.append(torch.is_autocast_enabled('cpu')) or forward(*args))
    monkeypatch.setattr('time.perf_counter', itertools.count().__next__) # each look at the clock takes a second
    out = run('bench.py', dataset=dataset, real_data=False, max_seconds=3, dtype='bfloat16', **BENCH).out
    assert re.findall(r'^(\d+) steps', out, re.M) == ['3', '3'] and seen == [True] * 6 and 'made-up tokens\n' in out


def test_bench_writes_a_trace(dataset, tmp_path):
    result = run('bench.py', cwd=tmp_path, dataset=dataset, profile=True, **BENCH)
    trace, = (tmp_path / 'bench_log').iterdir()
    assert trace.stat().st_size > 1000 and 'aten::' in result.out


def test_bench_refuses_too_little_data(dataset):
    run('bench.py', dataset=dataset, **{**BENCH, 'block_size': 5000}).refused('4000 tokens', '5000')


def test_bench_refuses_an_impossible_shape(dataset):
    run('bench.py', dataset=dataset, **{**BENCH, 'n_head': 5}).refused('n_head 5')
