"""train.py as its users see it: what it prints, writes, refuses, and that the numbers are right."""
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, as_args, events, make_dataset, run, run_process, train
from data.prepare import find_data, load_meta

from model import Float32Stays, load_checkpoint

# losses of the tiny run on the tiny dataset; made on torch 2.13, CPU
GOLDEN = [3.411781, 3.214976, 3.077309, 3.075322, 2.928594, 2.805362]


def weights(out_dir, name='ckpt.pt'):
    return torch.load(out_dir / name, weights_only=True)['model']


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_losses_are_the_recorded_ones(dataset, tmp_path):
    train(dataset, tmp_path)
    losses = [e['loss'] for e in events(tmp_path, 'log')]
    assert losses == pytest.approx(GOLDEN, abs=1e-4), "training changed; if that was the aim, re-record GOLDEN and say why"


def test_after_a_run_ctrl_c_is_pythons_again(dataset, tmp_path, monkeypatch):
    """For a session that goes on: python -i, %run, a notebook."""
    handlers, handle = [], signal.signal
    monkeypatch.setattr(signal, 'signal', lambda number, handler: handlers.append(handler) if number == signal.SIGINT else handle(number, handler))
    train(dataset, tmp_path, max_iters=1)
    assert handlers[0].__name__ == 'ask_to_stop' and handlers[1] is signal.default_int_handler


@pytest.mark.parametrize('name, stated, given, saved', [
    ('activation', "'gelu'", 'gelu_tanh', 'gelu_tanh'), ('vocab_size', '50304', 40, 30)]) # the dataset decides the vocabulary
def test_a_field_of_the_model_becomes_a_setting_by_stating_it(dataset, tmp_path, name, stated, given, saved):
    for script in ('model.py', 'configurator.py', 'data'):
        (tmp_path / script).symlink_to(ROOT / script)
    source = (ROOT / 'train.py').read_text(encoding='utf-8')
    (tmp_path / 'train.py').write_text(source.replace('rotary = False', f'{name} = {stated}\nrotary = False', 1), encoding='utf-8')
    train_own = run(tmp_path / 'train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / 'out', 'max_iters': 1, name: given})
    assert train_own.code == 0, train_own.err
    checkpoint = load_checkpoint(tmp_path / 'out' / 'ckpt.pt')
    assert (checkpoint['model_args'][name], checkpoint['config'][name]) == (saved, saved)


def test_lines_that_people_parse(dataset, tmp_path):
    out = train(dataset, tmp_path).out
    assert re.search(r'^tokens per iteration will be: 64$', out, re.M)
    assert re.search(r'^number of parameters: 0\.03M$', out, re.M)
    assert re.findall(r'^step (\d+): train loss \d\.\d{4}, val loss \d\.\d{4}$', out, re.M) == ['0', '3', '6']
    lines = re.findall(r'^iter (\d+): loss \d\.\d{4}, time \d+\.\d\dms, mfu \d+\.\d\d%(?: \(n/a\))?(?:, .*)?$', out, re.M)
    assert lines == list('012345') # exactly max_iters updates
    assert len(re.findall('^device cpu.*float32.*compile False', out, re.M)) == 1
    assert os.name != 'posix' or 0.1 < float(re.search(r'^peak memory (\d+\.\d\d) GiB\n\Z', out, re.M).group(1)) < 100


def test_training_learns(dataset, tmp_path):
    train(dataset, tmp_path, max_iters=150, lr_decay_iters=150, eval_interval=150, log_interval=50)
    first, last = events(tmp_path, 'eval')
    assert first['val'] > 3.2 and last['val'] < 2.0


def test_the_checkpoint_holds_what_the_contract_says(trained):
    ckpt = torch.load(trained / 'ckpt.pt', weights_only=True)
    assert {'model', 'optimizer', 'model_args', 'iter_num', 'best_val_loss', 'config', 'codec'} <= set(ckpt)
    assert set(ckpt['model_args']) == {'n_layer', 'n_head', 'n_embd', 'block_size', 'bias', 'vocab_size', 'dropout'}
    assert ckpt['iter_num'] == 6 and ckpt['codec']['vocab_size'] == 30 and ckpt['best_val_loss'].item() > 0 # readers of nanoGPT's call .item()
    config = ckpt['config']
    assert (config['device'], config['dtype'], config['compile']) == ('cpu', 'float32', False) # what ran, not 'auto'
    assert sorted(os.listdir(trained)) == ['ckpt.pt', 'metrics.jsonl']


def test_metrics_hold_the_run(trained):
    start, = events(trained, 'start')
    assert start['torch'] == torch.__version__ and start['config']['n_embd'] == 32
    assert [e['iter'] for e in events(trained, 'log')] == [0, 1, 2, 3, 4, 5]
    assert [e['iter'] for e in events(trained, 'eval')] == [0, 3, 6]
    assert [e['iter'] for e in events(trained, 'save')] == [3, 6]
    assert all(e['tokens_per_s'] > 0 and e['norm'] > 0 for e in events(trained, 'log'))


@pytest.mark.parametrize('more', [{}, dict(dropout=0.2, gradient_accumulation_steps=3), dict(dtype='bfloat16'),
                                  dict(optimizer='muon', rotary=True, ngrams=99, ngram_dropout=0.4, lr_schedule='wsd')], ids=str)
def test_resume_equals_never_having_stopped(dataset, tmp_path, more):
    train(dataset, tmp_path / 'whole', **more)
    train(dataset, tmp_path / 'parts', **more, max_iters=3)
    train(dataset, tmp_path / 'parts', **more, init_from='auto')
    a, b = (torch.load(tmp_path / d / 'ckpt.pt', weights_only=True) for d in ('whole', 'parts'))
    assert same(a['model'], b['model']) and a['best_val_loss'] == b['best_val_loss'] and a['iter_num'] == b['iter_num'] == 6
    for name in {'optimizer', 'muon'} & set(a):
        for i, state in a[name]['state'].items():
            assert all(torch.equal(v, b[name]['state'][i][k]) for k, v in state.items())
    assert ('muon' in a) == (more.get('optimizer') == 'muon')
    whole, parts = ([e['loss'] for e in events(tmp_path / d, 'log')] for d in ('whole', 'parts'))
    assert whole == parts


def test_bad_updates_are_counted_across_a_resume(dataset, tmp_path, monkeypatch):
    import model
    train(dataset, tmp_path, max_iters=1)
    forward = model.GPT.forward
    monkeypatch.setattr(model.GPT, 'forward', lambda self, *a: (lambda o: (o[0], o[1] * float('nan')) if self.training else o)(forward(self, *a)))
    train(dataset, tmp_path, init_from='resume', max_iters=3, max_bad_steps=4)
    assert load_checkpoint(tmp_path / 'ckpt.pt')['progress']['bad_steps'] == 2
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume', 'max_bad_steps': 4}).refused('4 updates in a row')
    assert len(events(tmp_path, 'log')) == 5


def test_a_finished_run_is_left_as_it_is(trained, dataset, tmp_path):
    shutil.copytree(trained, tmp_path / 'out')
    before = (tmp_path / 'out' / 'ckpt.pt').read_bytes()
    out = train(dataset, tmp_path / 'out', init_from='resume').out
    assert 'nothing to do' in out and '--max_iters' in out and 'iter 6' not in out
    assert (tmp_path / 'out' / 'ckpt.pt').read_bytes() == before


def test_a_run_longer_than_asked_for_is_left_as_it_is(trained, dataset):
    before = (trained / 'ckpt.pt').read_bytes()
    out = train(dataset, trained, init_from='resume', max_iters=4).out
    assert 'nothing to do' in out and 'has made 6 of max_iters 4' in out and (trained / 'ckpt.pt').read_bytes() == before


def test_dropout_is_what_the_run_was_told_even_when_it_goes_on(dataset, tmp_path):
    for n, dropout in (1, 0.25), (2, 0.5):
        model = train(dataset, tmp_path, init_from='auto', max_iters=n, dropout=dropout, ngrams=9, ngram_dropout=dropout / 2).space['model']
        assert model.config.dropout == model.transformer.drop.p == dropout and model.config.ngram_dropout == dropout / 2
        assert model.training # after its evaluation


def test_times_are_of_iterations_alone(dataset, tmp_path, monkeypatch):
    """A micro-batch takes a second here, a batch of an evaluation a hundred."""
    import model
    forward, now = model.GPT.forward, [0.0]
    def slow(self, *args):
        now[0] += 1 if self.training else 100
        return forward(self, *args)
    monkeypatch.setattr(model.GPT, 'forward', slow)
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
    monkeypatch.setattr(model, 'peak_flops', lambda *device: 1e9)
    result = train(dataset, tmp_path, gradient_accumulation_steps=2, log_interval=2, max_iters=5)
    assert [(e['iter'], e['ms'], e['tokens_per_s']) for e in events(tmp_path, 'log')] == [(i, 2000, 64) for i in (0, 2, 4)]
    assert {e['mfu'] for e in events(tmp_path, 'log')} == {result.space['model'].estimate_mfu(8, 2.0, 1e9)}
    assert re.findall(r'time 2000.00ms, mfu [\d.]+%, 64 tok/s, .*, (\S+) left', result.out) == ['00:08', '00:04', '00:00']
    train(dataset, tmp_path, gradient_accumulation_steps=2, log_interval=3, max_iters=8, init_from='resume') # its first line is of two iterations
    assert [(e['iter'], e['ms']) for e in events(tmp_path, 'log')][3:] == [(6, 2000)]


@pytest.mark.parametrize('asked, steps', [(1, 1), (95, 1), (100, 2), (640, 10)])
def test_tokens_an_iteration_are_whole_micro_batches(dataset, tmp_path, asked, steps):
    out = train(dataset, tmp_path, total_batch_tokens=asked, gradient_accumulation_steps=3, max_iters=1).out
    assert f'tokens per iteration will be: {64 * steps}\n' in out and events(tmp_path, 'start')[0]['config']['gradient_accumulation_steps'] == steps


def test_adamw_gets_its_settings(dataset, tmp_path):
    adamw, = train(dataset, tmp_path, beta1=0.8, beta2=0.7, weight_decay=0.3, max_iters=0).space['optimizers']
    assert [(g['betas'], g['weight_decay']) for g in adamw.param_groups] == [((0.8, 0.7), 0.3), ((0.8, 0.7), 0.0)]
    muon = train(dataset, tmp_path, weight_decay=0.3, optimizer='muon', max_iters=0, dtype='bfloat16').space['muon'][0]
    assert [g['weight_decay'] for g in muon.param_groups] == [0.3] and not isinstance(muon.precision, Float32Stays)


def test_bad_updates_end_the_run_between_log_lines_too(dataset, tmp_path, monkeypatch):
    import model
    forward, calls = model.GPT.forward, []
    def bad(self, *args):
        logits, loss = forward(self, *args)
        calls.append(self.training)
        return logits, loss * float('nan') if self.training and sum(calls) > 1 else loss
    monkeypatch.setattr(model.GPT, 'forward', bad)
    settings = {**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'max_iters': 50, 'eval_interval': 50, 'log_interval': 50, 'max_bad_steps': 4}
    run('train.py', **settings).refused('7 updates in a row') # as often as that is looked at
    assert sum(calls) == 8


def test_evaluation_does_not_disturb_training(dataset, tmp_path):
    for out_dir, more in [('a', {}), ('b', dict(eval_interval=1, eval_iters=7))]:
        train(dataset, tmp_path / out_dir, dropout=0.2, **more)
    assert same(weights(tmp_path / 'a'), weights(tmp_path / 'b'))


def test_evaluation_covers_the_split_evenly(dataset, tmp_path):
    model = train(dataset, tmp_path, max_iters=0, dropout=0.5).space['model'].eval()
    for split in ('train', 'val'):
        ids = np.fromfile(dataset / f'{split}.bin', dtype=np.uint16)
        # 2 batches of 4 windows: from the first token to the last, equally far apart
        starts = np.linspace(0, len(ids) - 17, 8).astype(int)
        x = torch.from_numpy(np.stack([ids[i:i + 17] for i in starts]).astype(np.int64))
        with torch.no_grad():
            expected = model(x[:, :-1], x[:, 1:])[1].item()
        assert events(tmp_path, 'eval')[-1][split] == pytest.approx(expected, abs=1e-6)


def test_an_evaluation_sees_a_split_at_most_once(dataset, tmp_path, monkeypatch):
    import model
    forward, seen = model.GPT.forward, []
    monkeypatch.setattr(model.GPT, 'forward', lambda self, idx, *more: seen.append(len(idx)) or forward(self, idx, *more))
    train(dataset, tmp_path, eval_iters=150, eval_only=True)
    assert seen == [4] * (63 + 13) # of 64 tokens, for 4000 and 800
    seen.clear()
    train(make_dataset(tmp_path / 'short', n_val=20), tmp_path, eval_iters=1, eval_only=True)
    assert len(seen) == 2 # though val.bin has less than a batch
    seen.clear()
    train(make_dataset(tmp_path / 'two', n_train=65, n_val=50), tmp_path, eval_iters=9, batch_size=1, eval_only=True)
    assert len(seen) == 4 + 4 # windows of 16 that reach the end of 65 and 50 tokens, the last ones over what another has seen


def test_a_dataset_without_tables_is_gpt2s_padded(dataset, tmp_path):
    bpe = shutil.copytree(dataset, tmp_path / 'bpe')
    (bpe / 'meta.pkl').unlink()
    assert train(bpe, tmp_path, eval_iters=1, batch_size=1, eval_only=True).space['model'].config.vocab_size == 50304


def test_weights_alone_go_on_with_a_new_optimizer(dataset, trained, tmp_path):
    ckpt = torch.load(trained / 'ckpt.pt', weights_only=True)
    torch.save({k: v for k, v in ckpt.items() if k not in ('optimizer', 'progress', 'best_val_loss')}, tmp_path / 'ckpt.pt')
    out = train(dataset, tmp_path, init_from='resume', max_iters=7, always_save_checkpoint=False).out # any loss is the best so far
    assert 'step 6:' not in out # after an evaluation it was saved
    assert {int(s['step']) for s in torch.load(tmp_path / 'ckpt.pt', weights_only=True)['optimizer']['state'].values()} == {1}


def test_micro_batches_add_up_to_one_batch(dataset, tmp_path):
    """Three micro-batches make the update that their windows make in one batch."""
    space = train(dataset, tmp_path, gradient_accumulation_steps=3, max_iters=1, grad_clip=0.0, log_interval=1).space
    fresh = train(dataset, tmp_path / 'fresh', gradient_accumulation_steps=3, max_iters=0).space
    model = fresh['model'].train()
    windows = torch.from_numpy(np.concatenate([space['train_batch'](0, m) for m in range(3)]))
    x, y = windows[:, :-1], windows[:, 1:]
    optimizer = model.configure_optimizers(0.1, 1, (0.9, 0.95), 'cpu')
    for group in optimizer.param_groups:
        group['lr'] = space['get_lr'](0)
    loss = model(x, y)[1]
    loss.backward()
    optimizer.step()
    assert events(tmp_path, 'log')[0]['loss'] == pytest.approx(loss.item(), abs=1e-6)
    for a, b in zip(space['model'].parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_batch_depends_on_its_place_only(dataset, tmp_path):
    a = train(dataset, tmp_path, max_iters=0).space['train_batch']
    b = train(dataset, tmp_path / 'b', max_iters=0, eval_iters=5).space['train_batch']
    c = train(dataset, tmp_path / 'c', max_iters=0, seed=7).space['train_batch']
    assert a(3, 1).shape == (4, 17) and (a(3, 1) == b(3, 1)).all()
    assert all((a(3, 1) != other).any() for other in (a(3, 2), a(4, 1), c(3, 1)))


def test_learning_rate_schedule(dataset, tmp_path):
    lr = train(dataset, tmp_path, max_iters=0, warmup_iters=10, lr_decay_iters=110, learning_rate=1.0, min_lr=0.1).space['get_lr']
    assert lr(0) == pytest.approx(1 / 11) and lr(9) == pytest.approx(10 / 11) and lr(10) == pytest.approx(1.0)
    assert lr(60) == pytest.approx(0.55) and lr(110) == lr(999) == pytest.approx(0.1)
    lr = train(dataset, tmp_path, max_iters=0, warmup_iters=10, lr_decay_iters=110, learning_rate=1.0, min_lr=0.1, lr_schedule='wsd',
               cooldown=0.4).space['get_lr']
    assert lr(0) == pytest.approx(1 / 11) and lr(10) == lr(70) == pytest.approx(1.0)
    assert lr(90) == pytest.approx(0.55) and lr(110) == lr(999) == pytest.approx(0.1)
    lr = train(dataset, tmp_path, max_iters=0, warmup_iters=10, lr_decay_iters=10, learning_rate=1.0, min_lr=0.1, lr_schedule='wsd', cooldown=0.0).space['get_lr']
    assert lr(9) == pytest.approx(10 / 11) and lr(10) == pytest.approx(1.0) and lr(11) == pytest.approx(0.1) # nothing is divided by 0
    lr = train(dataset, tmp_path, max_iters=0, warmup_iters=12, lr_decay_iters=10, learning_rate=1.0, min_lr=0.1).space['get_lr']
    assert lr(11) == pytest.approx(12 / 13) and lr(12) == pytest.approx(0.1) # which it has reached by then
    lr = train(dataset, tmp_path, max_iters=0, learning_rate=1.0, decay_lr=False).space['get_lr']
    assert lr(0) == lr(999) == 1.0


def test_what_nanogpt_has_not_is_in_the_file_only_where_it_is_used(dataset, trained, tmp_path):
    train(dataset, tmp_path, rotary=True, ngrams=99, ngram_dropout=0.4, optimizer='muon', max_iters=1)
    plain, more = (torch.load(d / 'ckpt.pt', weights_only=True) for d in (trained, tmp_path))
    assert set(more['model_args']) - set(plain['model_args']) == {'rotary', 'ngrams', 'ngram_dropout'} and set(more) - set(plain) == {'muon'}
    assert set(more['model']) ^ set(plain['model']) == {'transformer.wpe.weight', 'transformer.wng.weight'}
    text = run('sample.py', out_dir=tmp_path, max_new_tokens=40, num_samples=2, device='cpu').out
    assert text.count('---------------') == 2
    out = train(dataset, tmp_path, init_from='resume', max_iters=2, rotary=False, optimizer='muon').out
    assert 'the weights decide: rotary is True, not False' in out
    train(dataset, tmp_path / 'plain', ngram_dropout=0.4, max_iters=1) # without n-grams: nanoGPT's GPTConfig has no such argument
    assert set(torch.load(tmp_path / 'plain/ckpt.pt', weights_only=True)['model_args']) == set(plain['model_args'])
    other = run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume', 'max_iters': 3})
    other.refused('optimizer', '--init_from=scratch')


def test_muon_has_a_learning_rate_of_its_own(dataset, tmp_path):
    spaces = [train(dataset, tmp_path / str(lr), optimizer='muon', max_iters=1, muon_lr=lr, weight_decay=0.0).space for lr in (0.02, 0.001)]
    assert all(isinstance(space['muon'][0].precision, Float32Stays) for space in spaces)
    assert all(part.grad is None for space in spaces for muon in space['muon'] for parts in muon.parts.values() for part in parts) # memory
    one, slower = (space['model'] for space in spaces)
    start = train(dataset, tmp_path / 'start', max_iters=0).space['model']
    for (name, a), b, c in zip(one.named_parameters(), slower.parameters(), start.parameters(), strict=True):
        if '.h.' in name and a.dim() == 2: # 20 times the way
            torch.testing.assert_close(a - c, 20 * (b - c), atol=1e-4, rtol=1e-2)
        else:
            assert torch.equal(a, b), name


def test_eval_only_writes_nothing(dataset, trained, tmp_path):
    out = train(dataset, tmp_path / 'new', eval_only=True).out
    assert 'step 0: train loss' in out and 'iter 0' not in out and not (tmp_path / 'new').exists()
    before = {f: (trained / f).read_bytes() for f in os.listdir(trained)}
    out = train(dataset, trained, eval_only=True, init_from='resume').out
    assert 'step 6: train loss' in out and 'iter' not in out.split('step 6')[1]
    assert {f: (trained / f).read_bytes() for f in os.listdir(trained)} == before


def test_the_best_is_kept_and_the_last_is_saved(dataset, tmp_path):
    """With a learning rate that ruins the model ckpt.pt stays the best, and the run goes on from its last state."""
    args = dict(always_save_checkpoint=False, decay_lr=False, eval_interval=2, save_best=True)
    train(dataset, tmp_path, **args, max_iters=2)
    best = (tmp_path / 'ckpt.pt').read_bytes()
    train(dataset, tmp_path, **args, max_iters=4, learning_rate=10.0, init_from='resume')
    assert (tmp_path / 'ckpt.pt').read_bytes() == best
    assert torch.load(tmp_path / 'ckpt_best.pt', weights_only=True)['iter_num'] == 2
    last = torch.load(tmp_path / 'ckpt_last.pt', weights_only=True)
    assert last['iter_num'] == 4 and last['best_val_loss'] == torch.load(tmp_path / 'ckpt.pt', weights_only=True)['best_val_loss']
    out = train(dataset, tmp_path, **args, max_iters=5, init_from='resume').out
    assert 'after 4 iterations' in out
    train(dataset, tmp_path, max_iters=3, init_from='scratch', eval_interval=3) # saves ckpt.pt once, so that is the newest again
    assert not (tmp_path / 'ckpt_last.pt').exists()


def test_a_loss_that_is_not_finite_changes_nothing_and_ends_the_run(dataset, tmp_path):
    train(dataset, tmp_path / 'good', max_iters=3)
    poisoned = tmp_path / 'poisoned'
    shutil.copytree(tmp_path / 'good', poisoned)
    ckpt = torch.load(poisoned / 'ckpt.pt', weights_only=True)
    ckpt['model']['transformer.ln_f.weight'].fill_(1e30) # finite weights, an infinite loss
    torch.save(ckpt, poisoned / 'ckpt.pt')
    bad = run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': poisoned, 'init_from': 'resume', 'max_bad_steps': 2, 'eval_interval': 100})
    bad.refused('2 updates in a row', 'learning_rate')
    assert 'bad updates left out' in bad.out
    assert [e['left_out'] for e in events(poisoned, 'log')][-2:] == [1, 1]


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_an_update_that_is_not_finite_is_left_out(dataset, tmp_path, monkeypatch, optimizer):
    """Two poisoned micro-batches: these updates are missing, the rest happen; they are not in a row."""
    import model
    forward, calls = model.GPT.forward, []

    def sometimes(self, idx, targets=None, rows=0):
        logits, loss = forward(self, idx, targets, rows)
        if self.training:
            calls.append(1)
            if len(calls) in (2, 4):
                loss = loss * float('nan')
        return logits, loss

    monkeypatch.setattr(model.GPT, 'forward', sometimes)
    train(dataset, tmp_path, eval_interval=100, max_iters=5, max_bad_steps=2, optimizer=optimizer)
    assert [e['left_out'] for e in events(tmp_path, 'log')] == [0, 1, 0, 1, 0]
    assert 'NaN' not in (tmp_path / 'metrics.jsonl').read_text() # which is not JSON
    ckpt = torch.load(tmp_path / 'ckpt.pt', weights_only=True)
    assert all(v.isfinite().all() for v in ckpt['model'].values())
    assert {int(s['step']) for s in ckpt['optimizer']['state'].values()} == {3}


def test_an_update_left_out_is_counted_between_log_lines_and_over_a_stop(dataset, tmp_path, monkeypatch):
    clip, calls = torch.nn.utils.clip_grad_norm_, []
    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', lambda *args: calls.append(1) or clip(*args) * (float('nan') if len(calls) == 3 else 1))
    train(dataset, tmp_path, max_iters=4, log_interval=5, eval_interval=100)
    assert [e['left_out'] for kind in ('eval', 'log') for e in events(tmp_path, kind)] == [0, 1, 0]
    train(dataset, tmp_path, max_iters=12, log_interval=5, eval_interval=100, init_from='resume')
    assert [e['left_out'] for e in events(tmp_path, 'log')] == [0, 1, 0] and [e['left_out'] for e in events(tmp_path, 'eval')] == [0, 1, 0]


def test_a_save_that_fails_leaves_the_old_file(dataset, tmp_path, monkeypatch):
    train(dataset, tmp_path, max_iters=3)
    before = (tmp_path / 'ckpt.pt').read_bytes()

    def full(state, file):
        file.write(b'half a file')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', full)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume'}).refused('No space left', 'whole')
    assert (tmp_path / 'ckpt.pt').read_bytes() == before and not list(tmp_path.glob('*.tmp'))


def test_block_size_comes_from_the_checkpoint(dataset, trained, tmp_path):
    """nanoGPT's loader kept the default of 1024 here."""
    shutil.copytree(trained, tmp_path / 'out')
    args = {k: v for k, v in TINY.items() if k not in ('block_size', 'n_layer', 'n_head', 'n_embd')}
    out = run('train.py', **{**args, 'dataset': dataset, 'out_dir': tmp_path / 'out', 'init_from': 'resume', 'max_iters': 7})
    assert out.code == 0 and 'tokens per iteration will be: 64' in out.out and 'the weights decide' not in out.out
    shutil.copytree(trained, tmp_path / 'crop')
    train(dataset, tmp_path / 'crop', init_from='resume', max_iters=7, block_size=8, eval_interval=7)
    ckpt = torch.load(tmp_path / 'crop' / 'ckpt.pt', weights_only=True)
    assert ckpt['model']['transformer.wpe.weight'].shape == ckpt['optimizer']['state'][1]['exp_avg'].shape == (8, 32)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': trained, 'init_from': 'resume', 'block_size': 32}).refused('block_size 32', '16')


def broken(folder, **files):
    """A copy of the tiny dataset with some files' bytes replaced, or removed (None)."""
    make_dataset(folder)
    for name, data in files.items():
        path = folder / name.replace('_', '.', 1)
        path.unlink() if data is None else path.write_bytes(data)
    return folder


@pytest.mark.parametrize('files, words', [
    (dict(train_bin=None), ['train.bin is missing', 'prepare.py']),
    (dict(val_bin=None), ['val.bin is missing']),
    (dict(train_bin=b''), ['train.bin', '0 bytes']),
    (dict(val_bin=b'123'), ['val.bin', '3 bytes', 'uint16']),
    (dict(val_bin=b'\0\0' * 16), ['16 tokens', 'block_size 16']),
    (dict(train_bin=b'\xff\0' * 500), ['id 255', 'end at 29']),
    (dict(meta_pkl=b'nonsense'), ['meta.pkl']),
    (dict(meta_pkl=b"cos\nsystem\n(S'touch hacked'\ntR."), ['meta.pkl', 'system']),
])
def test_bad_data_is_named_before_anything_is_written(tmp_path, files, words):
    bad = run('train.py', **{**TINY, 'dataset': broken(tmp_path / 'data', **files), 'out_dir': tmp_path / 'out'}, cwd=tmp_path)
    bad.refused(*words)
    assert sorted(os.listdir(tmp_path)) == ['data']


@pytest.mark.parametrize('settings, words', [
    (dict(dataset='nowhere'), ["no dataset 'nowhere'"]),
    (dict(n_head=3), ['n_embd 32', 'n_head 3', '1, 2, 4']),
    (dict(optimizer='sgd'), ['optimizer', 'adamw, muon']),
    (dict(lr_schedule='linear'), ['lr_schedule', 'cosine, wsd']),
    (dict(init_from='gpt3'), ['gpt3']),
    (dict(init_from='resume'), ['no checkpoint']),
    (dict(dtype='float16'), ['float16', 'CUDA']),
    (dict(device='cuda:9'), ['cuda:9', 'cpu']),
    (dict(block_size=4500), ['block_size 4500', 'tokens']),
])
def test_impossible_settings_are_named_before_anything_is_written(dataset, tmp_path, settings, words):
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / 'out', **settings}).refused(*words)
    assert not (tmp_path / 'out').exists()


def test_another_alphabet_is_refused(trained, tmp_path):
    other = make_dataset(tmp_path / 'other', alphabet='\n ABCDEFGHIJKLMNOPQRSTUVWXYZ.,')
    run('train.py', **{**TINY, 'dataset': other, 'out_dir': trained, 'init_from': 'resume'}).refused('other tokens')
    run('train.py', **{**TINY, 'dataset': other, 'out_dir': tmp_path, 'init_from': 'gpt2-xl'}).refused('other tokens', "for OpenAI's weights") # before they are fetched


def test_accumulation_that_cannot_be_shared(dataset, tmp_path, monkeypatch):
    for k, v in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=3).items():
        monkeypatch.setenv(k, str(v))
    run('train.py', **{**TINY, 'gradient_accumulation_steps': 4, 'dataset': dataset, 'out_dir': tmp_path}).refused('4', '3 processes', 'such as 6')


def test_settings_without_effect_are_named(dataset, tmp_path):
    said = lambda **more: re.findall(r'^(\w+) has no effect', train(dataset, tmp_path / str(len(more)), max_iters=1, muon_lr=0.1, cooldown=1, ngram_dropout=0.5, **more).out, re.M)
    assert sorted(said()) == ['cooldown', 'muon_lr', 'ngram_dropout']
    assert not said(optimizer='muon', lr_schedule='wsd', ngrams=16)
    assert 'gradient_accumulation_steps' in said(total_batch_tokens=256) # which TINY gives


def test_wandb_without_a_login_costs_a_line(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'wandb', None) # as if it were not installed
    out = train(dataset, tmp_path, wandb_log=True).out
    assert len(re.findall('^wandb is off', out, re.M)) == 1 and len(events(tmp_path, 'log')) == 6


def test_wandb_gets_the_numbers(dataset, tmp_path, monkeypatch):
    lines = []
    wandb = types.SimpleNamespace(init=lambda **more: types.SimpleNamespace(id=more['id'] or 'abc'), log=lambda values, step: lines.append((step, *values)))
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    monkeypatch.setattr(sys, 'stdin', sys.stdin) # train.py closes it to questions
    train(dataset, tmp_path, wandb_log=True)
    names = ('loss', 'mfu', 'iter', 'lr', 'train/loss', 'val/loss') # nanoGPT's, of which each evaluation has the last four
    steps = [[step for step, *there in lines if name in there] for name in names]
    assert steps == [every := [0, 1, 2, 3, 4, 5], every, both := [0, 0, 1, 2, 3, 3, 4, 5, 6], both, [0, 3, 6], [0, 3, 6]]
    wandb.log = lambda values, step: lines.append(values.get('mfu'))
    monkeypatch.setattr('model.peak_flops', lambda *args: 1e9)
    lines.clear()
    train(dataset, tmp_path / 'timed', wandb_log=True)
    assert list(filter(None, lines)) == [100 * e['mfu'] for e in events(tmp_path / 'timed', 'log')]


def test_wandb_goes_on_with_the_run_it_had(dataset, tmp_path, monkeypatch):
    asked = []
    def init(**more):
        asked.append((more['id'], more['project'], more['name'], more['resume'], more['config']['n_embd'], sys.stdin.read())) # nobody to answer
        return types.SimpleNamespace(id=more['id'] or 'abc')
    monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init, log=lambda *args, **more: None))
    monkeypatch.setattr(sys, 'stdin', sys.stdin)
    for n in 1, 2:
        train(dataset, tmp_path, init_from='auto', max_iters=n, wandb_log=True, wandb_project='p', wandb_run_name='r')
    assert asked == [(None, 'p', 'r', 'allow', 32, ''), ('abc', 'p', 'r', 'allow', 32, '')]


def test_wandb_may_die_in_the_middle(dataset, tmp_path, monkeypatch):
    def log(values, step):
        if step == 2:
            raise ConnectionResetError
    monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=lambda **more: types.SimpleNamespace(id='abc'), log=log))
    monkeypatch.setattr(sys, 'stdin', sys.stdin)
    train(dataset, tmp_path, wandb_log=True)
    assert len(events(tmp_path, 'log')) == 6 and (tmp_path / 'ckpt.pt').exists()


def test_dropout_differs_between_iterations_and_processes(dataset, tmp_path, monkeypatch):
    generator, seeds = torch.default_generator, []
    monkeypatch.setattr(torch, 'default_generator', types.SimpleNamespace(manual_seed=lambda seed: seeds.append(seed) or generator.manual_seed(seed)))
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        train(dataset, tmp_path)
    assert len(set(seeds)) == len(seeds) == 2 * 6


def test_weights_that_overflow_are_not_saved(dataset, tmp_path):
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'learning_rate': 1e299, 'max_iters': 1}).refused('no longer finite at iteration 1', 'nothing was saved')
    assert not (tmp_path / 'ckpt.pt').exists()


def test_deterministic_asks_torch(dataset, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, 'use_deterministic_algorithms', asked.append)
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG') # which conftest.py sets
    train(dataset, tmp_path, max_iters=0, deterministic=True)
    assert asked[0] is True and os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'


def test_the_whole_model_is_compiled_in_training(dataset, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda module, dynamic, options: asked.append((type(module).__name__, dynamic, options)))
    for compiled in False, True:
        train(dataset, tmp_path, max_iters=0, compile=compiled)
    assert asked == [('GPT', False, dict(cpp_wrapper=True))]


def test_bfloat16_is_what_is_computed_in(dataset, tmp_path):
    for dtype in ('float32', 'bfloat16'):
        train(dataset, tmp_path / dtype, dtype=dtype, max_iters=1)
    for kind, key in (('log', 'loss'), ('eval', 'val')):
        one, half = (events(tmp_path / dtype, kind)[0][key] for dtype in ('float32', 'bfloat16'))
        assert half == pytest.approx(one, abs=0.05) and half != one


@pytest.mark.slow
def test_a_resumed_run_is_one_run_of_wandb(dataset, tmp_path):
    """In offline mode, for real: both parts have one id, and the second goes on at the iteration where the first ended."""
    pytest.importorskip('wandb', reason="wandb is not installed")
    offline = dict(WANDB_MODE='offline', WANDB_DIR=str(tmp_path), WANDB_SILENT='true')
    for max_iters in (3, 6):
        done = run_process('train.py', env=offline, **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / 'out', 'wandb_log': True, 'init_from': 'auto',
                                                       'max_iters': max_iters})
        assert done.code == 0 and 'wandb is off' not in done.out, done.err
    runs = sorted(os.listdir(tmp_path / 'wandb'))
    ids = {name.split('-')[-1] for name in runs if name.startswith('offline-run-')}
    assert len(ids) == 1 and len([r for r in runs if r.startswith('offline-run-')]) == 2
    assert torch.load(tmp_path / 'out' / 'ckpt.pt', weights_only=True)['wandb_id'] in ids


def test_a_sample_at_each_evaluation(dataset, tmp_path):
    """It is shown, recorded, and changes nothing."""
    out = train(dataset, tmp_path / 'a', sample_tokens=20, dropout=0.2).out
    train(dataset, tmp_path / 'b', dropout=0.2)
    texts = [e['sample'] for e in events(tmp_path / 'a', 'eval')]
    assert len(texts) == 3 and all(len(text) == 21 and text in out for text in texts)
    assert same(weights(tmp_path / 'a'), weights(tmp_path / 'b'))


def test_a_dataset_by_its_path_from_here(dataset, tmp_path, monkeypatch):
    for path in (f'./{dataset.name}', f'../{dataset.parent.name}/{dataset.name}'):
        result = run('train.py', **{**TINY, 'dataset': path, 'out_dir': tmp_path, 'max_iters': 1}, cwd=dataset.parent)
        assert result.code == 0, result.err
    commit = subprocess.run(['git', '-C', ROOT, 'rev-parse', 'HEAD'], capture_output=True, text=True).stdout.strip() if shutil.which('git') else None
    assert events(tmp_path, 'start')[0]['commit'] == commit # of these scripts, wherever they are run
    for name in 'here/x', 'here/data/x', 'x':
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / 'here')
    assert [find_data(name) for name in ('x', './x', '../x', 'here/x')] == ['data/x', './x', '../x', None]


def test_needs_only_torch_numpy_and_tqdm(dataset, trained, tmp_path):
    """The scripts run where the other packages are missing, from any folder; sampling does not import the compiler, which takes more than a second."""
    tiny = {k: TINY[k] for k in ('n_layer', 'n_head', 'n_embd', 'block_size', 'batch_size', 'device')}
    runs = [('sample.py', as_args(dict(out_dir=trained, num_samples=1, max_new_tokens=5, device='cpu'))),
            ('train.py', as_args({**TINY, 'dataset': dataset, 'out_dir': 'out'})), ('bench.py', as_args(tiny))]
    code = f"""import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
for name in ('transformers', 'datasets', 'tiktoken', 'wandb', 'safetensors', 'huggingface_hub'):
    sys.modules[name] = None # importing it raises ImportError
for script, args in {runs!r}:
    sys.argv = [script, *args]
    runpy.run_path({str(ROOT)!r} + '/' + script, run_name='__main__')
    assert script != 'sample.py' or 'torch._dynamo' not in sys.modules
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('---------------') == 1 and 'MFU' in done.stdout and (tmp_path / 'out' / 'ckpt.pt').exists()


def test_a_torch_that_is_too_old_ends_in_a_sentence(monkeypatch):
    monkeypatch.delattr(torch.optim, 'Muon') # came with 2.9
    monkeypatch.delitem(sys.modules, 'model', raising=False) # is imported anew
    run('train.py').refused(f'torch {torch.__version__} is too old', '2.9', 'pip install --upgrade torch')


@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory'), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
                                   RuntimeError('DefaultCPUAllocator: not enough memory: you tried')], ids=['CUDA', 'Linux', 'Windows'])
def test_running_out_of_memory_says_what_to_lower(dataset, tmp_path, monkeypatch, error):
    import model

    def forward(*args):
        raise error
    monkeypatch.setattr(model.GPT, 'forward', forward)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).refused('out of memory', 'batch_size and raise gradient_accumulation_steps', ' 0.0 GB')
    result = run('bench.py', n_layer=1, n_head=1, n_embd=8, real_data=False, device='cpu')
    result.refused('out of memory', '4.9 GB', 'Lower batch_size, then block_size')


def test_sampling_out_of_memory_says_what_to_lower(trained, monkeypatch):
    import model

    def stream(*args):
        raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(model.GPT, 'stream', stream)
    run('sample.py', out_dir=trained, device='cpu').refused('out of memory', '--num_samples', '--dtype=bfloat16')


def test_rows_of_logits_at_a_time_change_nothing(dataset, tmp_path):
    assert train(dataset, tmp_path / 'all').space['rows'] == 2 ** 23 // 30 # 32 MB of float32
    assert train(dataset, tmp_path / 'some', logit_rows=10).space['rows'] == 10
    for event, value in (('log', 'loss'), ('eval', 'val')):
        assert [e[value] for e in events(tmp_path / 'some', event)] == pytest.approx([e[value] for e in events(tmp_path / 'all', event)], abs=1e-5)


def test_the_best_loss_is_of_one_dataset(dataset, tmp_path):
    train(dataset, tmp_path, always_save_checkpoint=False)
    other = shutil.copytree(dataset, tmp_path / 'other')
    checkpoint = torch.load(tmp_path / 'ckpt.pt', weights_only=True)
    torch.save(dict(checkpoint, best_val_loss=0.1), tmp_path / 'ckpt.pt')
    for path, found in ((dataset, 6), (other, 8)):
        train(path, tmp_path, init_from='resume', max_iters=8, always_save_checkpoint=False)
        assert torch.load(tmp_path / 'ckpt.pt', weights_only=True)['iter_num'] == found
        (tmp_path / 'ckpt_last.pt').unlink(missing_ok=True)


def test_an_untied_head_stays_so(dataset, tmp_path, monkeypatch):
    """Which users make of it by taking a line out of model.py."""
    import model
    init = model.GPT.__init__
    def untied(self, config):
        init(self, config)
        self.lm_head.weight = torch.nn.Parameter(torch.full_like(self.lm_head.weight, 0.1))
    monkeypatch.setattr(model.GPT, '__init__', untied)
    train(dataset, tmp_path)
    loss = events(tmp_path, 'eval')[-1]['val']
    assert f"val loss {loss:.4f}" in train(dataset, tmp_path, init_from='resume', eval_only=True).out


def test_a_larger_block_is_refused_and_a_loss_not_measured_is_not_named(trained, dataset, tmp_path):
    shutil.copytree(trained, tmp_path / 'out')
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / 'out', 'init_from': 'resume', 'block_size': 32}).refused('give --block_size=16')
    assert 'best val loss' in train(dataset, tmp_path / 'out', init_from='resume', max_iters=7).out
    make_dataset(tmp_path / 'other')
    out = train(tmp_path / 'other', tmp_path / 'out', init_from='resume', max_iters=8).out
    assert 'after 7 iterations; not as it was: dataset' in out


def test_lines_that_cannot_be_written_do_not_end_a_run(dataset, tmp_path, monkeypatch):
    """A disk that is full for a moment costs lines of metrics.jsonl, no more."""
    dumps = json.dumps
    def full(event):
        if event['event'] == 'log' and event['iter'] < 2:
            raise OSError(122, 'Disk quota exceeded')
        return dumps(event)
    monkeypatch.setattr(json, 'dumps', full)
    train(dataset, tmp_path)
    assert [e['iter'] for e in events(tmp_path, 'log')] == [2, 3, 4, 5] and (tmp_path / 'ckpt.pt').exists()


@pytest.mark.skipif(os.name != 'posix', reason='links as Unix has them')
def test_nothing_is_written_through_a_link(dataset, tmp_path):
    (tmp_path / 'mine').write_text('precious', encoding='utf-8')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'metrics.jsonl').symlink_to(tmp_path / 'mine')
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / 'out'}).refused('cannot write into out_dir')
    assert (tmp_path / 'mine').read_text(encoding='utf-8') == 'precious'


def test_ids_that_are_no_text(dataset, tmp_path):
    """For nanoGPT's train.py a meta.pkl with vocab_size is enough."""
    ids = shutil.copytree(dataset, tmp_path / 'ids')
    (ids / 'meta.pkl').write_bytes(pickle.dumps(dict(vocab_size=load_meta(str(dataset / 'meta.pkl'))['vocab_size'])))
    train(ids, tmp_path)
    run('sample.py', out_dir=tmp_path, device='cpu').refused('no text')


def test_evaluation_asks_for_no_optimizer(dataset, tmp_path):
    train(dataset, tmp_path, optimizer='muon', learning_rate=0, min_lr=0) # nothing is divided by 0
    before = (tmp_path / 'ckpt.pt').read_bytes()
    out = train(dataset, tmp_path, init_from='resume', eval_only=True).out
    assert f"val loss {events(tmp_path, 'eval')[-1]['val']:.4f}" in out and (tmp_path / 'ckpt.pt').read_bytes() == before


def test_resuming_says_what_is_not_as_it_was(dataset, tmp_path):
    train(dataset, tmp_path, seed=7, max_iters=3, total_batch_tokens=128)
    out, space = (lambda r: (r.out, r.space))(train(dataset, tmp_path, init_from='resume', learning_rate=2e-2, total_batch_tokens=128, weight_decay=0.5))
    assert [g['weight_decay'] for g in space['optimizers'][0].param_groups] == [0.5, 0.0]
    assert 'not as it was: ' in out and 'seed 7 -> 1337' in out and 'learning_rate 0.01 -> 0.02' in out and 'max_iters 3 -> 6' in out
    assert not {'n_layer', 'gradient_accumulation_steps'} & set(out.split('not as it was')[1].splitlines()[0].split())
