"""A run that is interrupted anywhere goes on to the same bits, and no checkpoint is lost."""
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import ROOT, TINY, as_args, events, run, run_process, train

from model import by_age, load_checkpoint, newest_checkpoint, save_checkpoint


def assert_same(a, b):
    """Two nested states are equal, to the bit."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            assert_same(a[k], b[k])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def what_counts(out_dir, name='ckpt.pt'):
    """All of a checkpoint but the settings that name the run's place and beginning."""
    ckpt = load_checkpoint(out_dir / name)
    ckpt['config'] = {k: v for k, v in ckpt['config'].items() if k not in ('out_dir', 'init_from')}
    return ckpt


def numbers(out_dir):
    """What metrics.jsonl says of losses and rates, the last word on each iteration."""
    keys = ('loss', 'norm', 'lr', 'left_out', 'spike', 'train', 'val')
    return {(e['event'], e['iter']): [e.get(k) for k in keys] for kind in ('log', 'eval') for e in events(out_dir, kind)}


@pytest.mark.parametrize('more', [
    dict(gradient_accumulation_steps=3, dropout=0.1), *(pytest.param(more, marks=pytest.mark.slow) for more in (
        {}, dict(dropout=0.2), dict(dtype='bfloat16'), dict(bias=True, grad_clip=0.0), dict(deterministic=True),
        dict(decay_lr=False, always_save_checkpoint=False), dict(optimizer='muon', rotary=True, ngrams=99)))], ids=str)
def test_stopping_and_going_on_changes_no_bit(dataset, tmp_path, more):
    train(dataset, tmp_path / 'whole', **more)
    train(dataset, tmp_path / 'parts', **more, max_iters=2)
    train(dataset, tmp_path / 'parts', **more, max_iters=5, init_from='resume') # neither end is one of eval_interval's
    train(dataset, tmp_path / 'parts', **more, init_from='resume')
    for out_dir in ('whole', 'parts'): # at 2 and 5 the parts were evaluated as well, which can only better their best
        assert newest_checkpoint(tmp_path / out_dir)[1]['iter_num'] == 6
    whole, parts = (newest_checkpoint(tmp_path / d)[1] for d in ('whole', 'parts'))
    for key in ('model', 'optimizer', 'model_args', 'iter_num', 'codec'):
        assert_same(whole[key], parts[key])
    whole, parts = numbers(tmp_path / 'whole'), numbers(tmp_path / 'parts')
    assert {k: parts[k] for k in whole} == whole


@pytest.mark.slow
def test_compiled_training_goes_on_to_the_same_bits(dataset, tmp_path):
    """deterministic, because inductor's gradient of an embedding adds up in the order in which threads arrive."""
    for out_dir, ends in (('whole', [6]), ('parts', [3, 6])):
        for end in ends:
            done = run_process('train.py', timeout=600, **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / out_dir, 'max_iters': end,
                                                          'init_from': 'auto', 'compile': True, 'deterministic': True, 'dropout': 0.1})
            assert done.code == 0, done.err
    assert_same(what_counts(tmp_path / 'whole'), what_counts(tmp_path / 'parts'))


LONG = {**TINY, 'max_iters': 100000, 'lr_decay_iters': 200, 'eval_interval': 100000, 'dropout': 0.1, 'log_interval': 50}


def interrupted(signals, after, pause=0.0, **settings):
    """Start a long run, send it signals once it has printed a line that begins with after; return (exit status, what it printed)."""
    process = subprocess.Popen([sys.executable, str(ROOT / 'train.py'), *as_args({**LONG, **settings})], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(after):
            for number in signals:
                time.sleep(pause)
                process.send_signal(number)
            break
    lines += process.stdout.readlines()
    return process.wait(timeout=600), ''.join(lines)


@pytest.mark.parametrize('number', [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGUSR1))])
def test_a_signal_ends_the_run_after_a_save(dataset, tmp_path, number):
    status, out = interrupted([number], 'iter 50:', dataset=dataset, out_dir=tmp_path / 'parts')
    assert status == 128 + number and number.name in out and 'Traceback' not in out
    stopped_at = load_checkpoint(tmp_path / 'parts' / 'ckpt.pt')['iter_num']
    assert stopped_at > 50 and f'after {stopped_at} iterations' in out
    if number == signal.SIGTERM:
        args = {**LONG, 'max_iters': stopped_at + 5}
        train(dataset, tmp_path / 'parts', **args, init_from='auto')
        train(dataset, tmp_path / 'whole', **args)
        assert_same(what_counts(tmp_path / 'whole'), what_counts(tmp_path / 'parts'))


@pytest.mark.skipif(not hasattr(signal, 'SIGUSR1'), reason='a signal of Unix')
@pytest.mark.parametrize('names, status, there', [(['SIGUSR1'], 128 + 10, True), (['SIGUSR1', 'SIGTERM'], 128 + 15, True), (['SIGINT'] * 2, 128 + 2, False)], ids=str)
def test_only_a_second_interrupt_keeps_a_run_from_saving(dataset, tmp_path, monkeypatch, names, status, there):
    """Slurm sends one signal before the time limit and another at it."""
    numbers, clip, updates = [getattr(signal, name) for name in names], torch.nn.utils.clip_grad_norm_, []
    def stopped(*args):
        updates.append(1)
        for number in numbers * (len(updates) == 2):
            signal.raise_signal(number)
        return clip(*args)
    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', stopped)
    monkeypatch.setattr(os, '_exit', sys.exit)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN) # which ends pytest, should train.py not take it
    try:
        result = run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'eval_interval': 2})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert result.code == status and 'step 2' not in result.out and os.path.exists(tmp_path / 'ckpt.pt') == there
    assert not there or load_checkpoint(tmp_path / 'ckpt.pt')['iter_num'] == 2


@pytest.mark.slow
def test_a_run_that_nobody_reads_any_more_still_saves(dataset, tmp_path):
    """A Ctrl-C ends `| tee log` too, often before train.py has printed its last lines."""
    process = subprocess.Popen([sys.executable, str(ROOT / 'train.py'), *as_args({**LONG, 'dataset': dataset, 'out_dir': tmp_path})],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().startswith('iter 50:'):
        assert process.poll() is None
    process.stdout.close()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert (process.wait(timeout=600), process.stderr.read()) == (130, '')
    assert load_checkpoint(tmp_path / 'ckpt.pt')['iter_num'] > 50


def test_a_run_stopped_before_its_last_evaluation_still_gets_it(dataset, tmp_path):
    train(dataset, tmp_path)
    ckpt = load_checkpoint(tmp_path / 'ckpt.pt')
    ckpt['progress']['evaluated_at'] = 3 # as a signal during the last iteration leaves it
    torch.save(ckpt, tmp_path / 'ckpt.pt')
    assert 'step 6: train loss' in train(dataset, tmp_path, init_from='auto').out
    assert 'nothing to do' in train(dataset, tmp_path, init_from='auto').out


def test_an_evaluation_that_is_interrupted_writes_nothing(dataset, tmp_path, monkeypatch):
    """The signal comes before the evaluation begins."""
    import model
    peak_flops = model.peak_flops
    monkeypatch.setattr(model, 'peak_flops', lambda *args: signal.raise_signal(signal.SIGTERM) or peak_flops(*args))
    result = run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path / 'out', 'eval_only': True})
    assert result.code == 143 and not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait(dataset, tmp_path):
    """Not even for the evaluation that it arrives in."""
    status, out = interrupted([signal.SIGINT] * 2, 'number of parameters', pause=0.3, dataset=dataset, out_dir=tmp_path,
                              eval_iters=10**6, batch_size=1, block_size=1)
    assert status == 130 and 'step 0' not in out and 'stopped by' not in out and 'Traceback' not in out


def kills(count, tmp_path, dataset):
    done = subprocess.run([sys.executable, ROOT / 'tests' / 'killer.py', str(count), tmp_path, dataset], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert re.search(rf'^{count} kills, [1-9]\d* of them in the middle of a save, 0 checkpoints lost', done.stdout)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_six_kills_cost_nothing(tmp_path, dataset):
    kills(6, tmp_path, dataset)


@pytest.mark.slow
def test_two_hundred_kills_cost_nothing(tmp_path, dataset):
    kills(200, tmp_path, dataset)


def test_a_full_disk_leaves_the_old_file(dataset, tmp_path):
    """The limit on a file's size makes the write fail half way, as a full disk does."""
    train(dataset, tmp_path, max_iters=3)
    before = (tmp_path / 'ckpt.pt').read_bytes()

    resource = pytest.importorskip('resource', reason="only Unix limits the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try: # Python ignores the signal that comes with it
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        result = run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume'})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    result.refused('could not save', 'File too large') # the system's word, which torch hides behind one of its own
    assert (tmp_path / 'ckpt.pt').read_bytes() == before and not list(tmp_path.glob('*.tmp'))
    train(dataset, tmp_path, init_from='auto') # and there it goes on


@pytest.mark.parametrize('broken', ['fsync', 'replace'])
def test_an_input_output_error_leaves_the_old_file(dataset, tmp_path, monkeypatch, broken):
    train(dataset, tmp_path, max_iters=3)
    before = (tmp_path / 'ckpt.pt').read_bytes()

    def fails(*args):
        raise OSError(5, 'Input/output error')
    monkeypatch.setattr(os, broken, fails)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume'}).refused('could not save', 'Input/output error')
    monkeypatch.undo()
    assert (tmp_path / 'ckpt.pt').read_bytes() == before and not list(tmp_path.glob('*.tmp'))


def test_too_little_space_is_said_before_training(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: (10**9, 10**9, 100))
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).refused('a checkpoint takes', '0.0 GB free')
    assert not (tmp_path / 'ckpt.pt').exists()


@pytest.mark.parametrize('bytes_each, status', [(11, 1), (13, 0)]) # weights and two moments in float32 take 12
def test_space_for_a_checkpoint_is_for_moments_too(dataset, trained, tmp_path, monkeypatch, bytes_each, status):
    weights = torch.load(trained / 'ckpt.pt', weights_only=True)['model']
    free = bytes_each * sum(v.numel() for k, v in weights.items() if k != 'lm_head.weight')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: (10**9, 10**9, free))
    assert run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).code == status


def test_the_last_checkpoints_are_kept_not_those_of_a_longer_run_before(dataset, tmp_path):
    for max_iters in 6, 3:
        train(dataset, tmp_path, max_iters=max_iters, keep_checkpoints=2, save_interval=1, eval_interval=100)
    assert sorted(p.name for p in tmp_path.glob('ckpt_*')) == ['ckpt_0000002.pt', 'ckpt_0000003.pt']


def test_checkpoints_kept_before_stay_when_no_more_are_kept(dataset, tmp_path):
    train(dataset, tmp_path, max_iters=3, keep_checkpoints=3, save_interval=1)
    train(dataset, tmp_path, max_iters=4, init_from='auto')
    assert sorted(p.name for p in tmp_path.glob('ckpt_*')) == ['ckpt_0000001.pt', 'ckpt_0000002.pt', 'ckpt_0000003.pt']


def test_files_of_one_second_are_told_apart_by_their_numbers(tmp_path):
    folder = tmp_path / 'run[1]' # which is no pattern
    folder.mkdir()
    for i, second in (3, 5), (1, 5), (4, 2), (2, 5):
        (folder / f'ckpt_{i}.pt').touch()
        os.utime(folder / f'ckpt_{i}.pt', (second, second))
    assert [os.path.basename(p) for p in by_age(str(folder), 'ckpt_*.pt')] == ['ckpt_4.pt', 'ckpt_1.pt', 'ckpt_2.pt', 'ckpt_3.pt']


def test_the_last_state_goes_when_a_newer_one_is_saved_in_several_files(trained, tmp_path):
    """Else the run would go on from it, as ckpt_last.pt is there only while it is newest."""
    (tmp_path / 'ckpt_last.pt').touch()
    save_checkpoint(load_checkpoint(trained / 'ckpt.pt'), [str(tmp_path / name) for name in ('ckpt_best.pt', 'ckpt.pt', 'ckpt_0000006.pt')], 2)
    assert sorted(os.listdir(tmp_path)) == ['ckpt.pt', 'ckpt_0000006.pt', 'ckpt_best.pt']


def test_a_kept_state_comes_before_the_best(trained, tmp_path):
    (tmp_path / 'ckpt.pt').write_bytes(b'cut')
    for name in ('ckpt_0000006.pt', 'ckpt_best.pt'):
        shutil.copy(trained / 'ckpt.pt', tmp_path / name)
    assert newest_checkpoint(str(tmp_path))[0].endswith('ckpt_0000006.pt')


def test_new_checkpoints_stay_when_the_clock_goes_back(dataset, tmp_path):
    for max_iters in 3, 6:
        train(dataset, tmp_path, init_from='auto', max_iters=max_iters, keep_checkpoints=2, save_interval=1, eval_interval=100)
        for path in tmp_path.glob('ckpt_*'):
            os.utime(path, (2e9, 2e9))
    assert (tmp_path / 'ckpt_0000006.pt').exists()


def test_what_was_left_in_a_save_goes_with_the_next(dataset, tmp_path):
    """Each process writes to a file of its own, so that two of them by mistake do not damage each other's."""
    (tmp_path / 'ckpt.99999999.tmp').write_bytes(b'of a process that was killed')
    train(dataset, tmp_path, max_iters=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['ckpt.pt', 'metrics.jsonl']


def test_a_kept_checkpoint_is_newer_than_the_best_one(dataset, tmp_path):
    """Where ckpt_last.pt, which holds the last state, is damaged."""
    args = dict(always_save_checkpoint=False, keep_checkpoints=3, learning_rate=1e-9, min_lr=0.0, save_interval=2)
    train(dataset, tmp_path, **args)
    (tmp_path / 'ckpt_last.pt').write_bytes(b'cut')
    path, checkpoint, problem = newest_checkpoint(str(tmp_path))
    assert (os.path.basename(path), checkpoint['iter_num']) == ('ckpt_0000006.pt', 6) and 'ckpt_last.pt' in problem


def test_kept_checkpoints_and_the_best(dataset, tmp_path):
    train(dataset, tmp_path, save_interval=1, keep_checkpoints=3, save_best=True)
    assert sorted(os.listdir(tmp_path)) == ['ckpt.pt', 'ckpt_0000004.pt', 'ckpt_0000005.pt', 'ckpt_0000006.pt', 'ckpt_best.pt', 'metrics.jsonl']
    assert_same(load_checkpoint(tmp_path / 'ckpt.pt'), load_checkpoint(tmp_path / 'ckpt_0000006.pt'))
    vals = {e['iter']: e['val'] for e in events(tmp_path, 'eval')}
    best = load_checkpoint(tmp_path / 'ckpt_best.pt')
    assert best['best_val_loss'] == vals[best['iter_num']] == min(vals.values())


def test_a_damaged_file_is_named_and_the_one_before_is_used(dataset, tmp_path):
    train(dataset, tmp_path, save_interval=2, keep_checkpoints=2)
    for name in ('ckpt.pt', 'ckpt_0000006.pt'):
        os.truncate(tmp_path / name, 5000)
    args = {**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'max_iters': 7}
    run('train.py', **args, init_from='resume').refused('ckpt.pt cannot be read', 'ckpt_0000004.pt is good', '--init_from=auto')
    out = run('train.py', **args, init_from='auto').out
    assert 'going on from' in out and 'after 4 iterations' in out
    whole = tmp_path / 'whole'
    train(dataset, whole, max_iters=7)
    assert_same(what_counts(whole)['model'], what_counts(tmp_path)['model'])


def test_a_save_is_on_the_disk_before_it_has_its_name(trained, tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda fd: done.append('folder' if stat.S_ISDIR(os.fstat(fd).st_mode) else os.fstat(fd).st_size) or fsync(fd))
    monkeypatch.setattr(os, 'replace', lambda *paths: done.append('name') or replace(*paths))
    save_checkpoint(load_checkpoint(trained / 'ckpt.pt'), [str(tmp_path / 'ckpt.pt')])
    assert done == [(tmp_path / 'ckpt.pt').stat().st_size, 'name', *['folder'] * (os.name == 'posix')]


def test_saving_by_the_clock(dataset, tmp_path, monkeypatch):
    """And the last state is evaluated wherever eval_interval stands."""
    clock = itertools.count(0, 20)
    monkeypatch.setattr(time, 'monotonic', lambda: next(clock)) # 20 seconds an iteration
    train(dataset, tmp_path, save_minutes=1, eval_interval=100)
    assert [[e['iter'] for e in events(tmp_path, kind)] for kind in ('save', 'eval')] == [[3, 6], [0, 6]]


def test_a_save_that_fails_ends_the_run_though_later_ones_might_not(dataset, tmp_path, monkeypatch):
    import model
    save_checkpoint = model.save_checkpoint
    def once(state, *more):
        if state['iter_num'] == 3:
            raise OSError(28, 'No space left on device')
        save_checkpoint(state, *more)
    monkeypatch.setattr(model, 'save_checkpoint', once)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).refused('could not save', 'No space left')
    assert not (tmp_path / 'ckpt.pt').exists()


def test_a_run_that_is_stopped_at_once_leaves_an_older_ones_weights(trained, dataset, tmp_path, monkeypatch):
    """Who forgets --init_from=resume and presses Ctrl-C has lost nothing."""
    shutil.copy(trained / 'ckpt.pt', tmp_path / 'ckpt.pt')
    before, clip = (tmp_path / 'ckpt.pt').read_bytes(), torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', lambda *args: signal.raise_signal(signal.SIGINT) or clip(*args))
    assert run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).code == 130
    assert (tmp_path / 'ckpt.pt').read_bytes() == before and newest_checkpoint(str(tmp_path))[1]['iter_num'] == 1
    monkeypatch.undo()
    train(dataset, tmp_path, init_from='auto') # at the first evaluation the new run takes its place
    assert newest_checkpoint(str(tmp_path))[0] == str(tmp_path / 'ckpt.pt')


def test_a_save_that_fails_ends_the_run_at_once(dataset, tmp_path, monkeypatch):
    """Not at the next save, before which all would be trained for nothing."""
    import model
    def fails(*args):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(model, 'save_checkpoint', fails)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'max_iters': 5000, 'eval_interval': 10 ** 6, 'save_interval': 4}).refused('could not save')
    assert len(events(tmp_path, 'save')) == 1


def test_the_best_alone_goes_on(trained, tmp_path):
    shutil.copy(trained / 'ckpt.pt', tmp_path / 'ckpt_best.pt')
    for name in ('ckpt.pt', 'ckpt_last.pt'):
        (tmp_path / name).write_bytes(b'cut')
        assert newest_checkpoint(str(tmp_path))[1]['iter_num'] == 6


def test_a_disk_that_cannot_flush_folders(dataset, tmp_path, monkeypatch):
    """As those which virtual machines share."""
    fsync = os.fsync
    def picky(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(22, 'Invalid argument')
        fsync(fd)
    monkeypatch.setattr(os, 'fsync', picky)
    train(dataset, tmp_path)
    assert load_checkpoint(str(tmp_path / 'ckpt.pt'))['iter_num'] == 6


def test_the_newest_state_is_found_when_a_save_ends_between_its_files(dataset, tmp_path, monkeypatch):
    replace, done = os.replace, []

    def some(*paths):
        if len(done) == 3: # the numbered copy of the second save
            raise OSError("the plug is pulled")
        done.append(paths)
        replace(*paths)
    monkeypatch.setattr(os, 'replace', some)
    settings = dict(TINY, dataset=dataset, out_dir=tmp_path, keep_checkpoints=2, save_interval=2, eval_interval=100)
    run('train.py', **settings).refused('could not save', 'the plug is pulled')
    assert newest_checkpoint(str(tmp_path))[1]['iter_num'] == 4


def test_auto_does_not_write_over_what_it_cannot_read(dataset, tmp_path):
    (tmp_path / 'ckpt.pt').write_bytes(b'damaged')
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'auto'}).refused('ckpt.pt', 'move it away')
    assert (tmp_path / 'ckpt.pt').read_bytes() == b'damaged'


def test_training_goes_on_while_a_save_is_written(dataset, tmp_path, monkeypatch):
    """A write that takes long holds up neither the iterations nor is it mixed with the next one."""
    import model
    save_checkpoint, log = model.save_checkpoint, []

    def slowly(state, paths, keep):
        log.append(('begin', state['iter_num']))
        if state['iter_num'] == 3:
            assert fourth.wait(30) # the fourth update, which is made, does not wait for the write
        save_checkpoint(state, paths, keep)
        log.append(('end', state['iter_num']))
    monkeypatch.setattr(model, 'save_checkpoint', slowly)
    clip_grad_norm_ = torch.nn.utils.clip_grad_norm_
    fourth, updates = threading.Event(), []

    def counted(*args):
        updates.append(1)
        if len(updates) == 5:
            fourth.set()
        return clip_grad_norm_(*args)
    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', counted)
    train(dataset, tmp_path, save_interval=3, eval_interval=100, max_iters=6, keep_checkpoints=2)
    assert log == [('begin', 3), ('end', 3), ('begin', 6), ('end', 6)]
    train(dataset, tmp_path / 'plain', save_interval=3, eval_interval=100, keep_checkpoints=2)
    for name in ('ckpt_0000003.pt', 'ckpt.pt'):
        assert_same(what_counts(tmp_path, name)['model'], what_counts(tmp_path / 'plain', name)['model'])


def test_a_spike_is_logged(dataset, tmp_path, monkeypatch):
    import model
    forward, calls = model.GPT.forward, []

    def spiky(self, idx, targets=None, rows=0):
        logits, loss = forward(self, idx, targets, rows)
        calls.append(self.training)
        return logits, loss * 3 if sum(calls) == 4 and self.training else loss
    monkeypatch.setattr(model.GPT, 'forward', spiky)
    out = train(dataset, tmp_path, eval_interval=100).out
    assert [e['spike'] for e in events(tmp_path, 'log')] == [False, False, False, True, False, False]
    assert len(re.findall(r'^iter 3: .*, a spike$', out, re.M)) == 1


@pytest.mark.parametrize('always', [False, True], ids=['for a moment', 'always'])
def test_a_file_that_somebody_reads(dataset, tmp_path, monkeypatch, always):
    """Windows does not let it be replaced meanwhile: a save waits, but not for ever."""
    replace, waits = os.replace, []

    def busy(old, new):
        if always or len(waits) < 2:
            raise PermissionError(13, 'Access is denied')
        replace(old, new)
    monkeypatch.setattr(os, 'replace', busy)
    monkeypatch.setattr('model.time.sleep', waits.append)
    if always:
        run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).refused('could not save', 'Access is denied')
        assert waits == [1, 4, 16] and os.listdir(tmp_path) == ['metrics.jsonl']
    else:
        train(dataset, tmp_path)
        assert waits == [1, 4] and load_checkpoint(tmp_path / 'ckpt.pt')['iter_num'] == 6


def test_a_full_disk_is_called_so_whenever_it_is_noticed(dataset, tmp_path, monkeypatch):
    """Here by closing the file, after an error of torch's own that does not say why."""
    def fails(*_):
        try:
            raise RuntimeError('unexpected pos 64 vs 0')
        finally:
            raise OSError(28, 'No space left on device')
    monkeypatch.setattr('model.save_checkpoint', fails)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path}).refused('could not save', 'No space left')


def test_a_log_line_that_was_cut_short_stays_alone(dataset, tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"event": "log", "it')
    train(dataset, tmp_path)
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['event'] for line in lines[1:3]] == ['start', 'eval']


def test_a_run_that_has_saved_is_stopped_into_the_same_file(dataset, tmp_path, monkeypatch):
    """ckpt_last.pt is for a run that is stopped before it wrote anything, while ckpt.pt is another's."""
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def stopping(*args):
        calls.append(0)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGTERM)
        return clip(*args)
    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', stopping)
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'save_interval': 2, 'eval_interval': 100})
    assert newest_checkpoint(tmp_path)[1]['iter_num'] == 5 and not (tmp_path / 'ckpt_last.pt').exists()
    calls.clear() # a resumed run goes on with its own file, though it has written nothing
    run('train.py', **{**TINY, 'dataset': dataset, 'out_dir': tmp_path, 'init_from': 'resume', 'max_iters': 20, 'eval_interval': 100})
    assert newest_checkpoint(tmp_path)[1]['iter_num'] == 10 and not (tmp_path / 'ckpt_last.pt').exists()


def test_a_new_run_stopped_at_once_replaces_no_state_of_an_older_one(dataset, tmp_path, monkeypatch):
    """Which has only ckpt_last.pt, when --init_from=auto is forgotten."""
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def stopping(*args):
        calls.append(0)
        if len(calls) in (5, 7):
            signal.raise_signal(signal.SIGTERM)
        return clip(*args)
    monkeypatch.setattr(torch.nn.utils, 'clip_grad_norm_', stopping)
    settings = TINY | dict(dataset=dataset, out_dir=tmp_path, eval_interval=100, always_save_checkpoint=False)
    run('train.py', **settings)
    run('train.py', **settings | dict(always_save_checkpoint=True))
    assert sorted(p.name for p in tmp_path.glob('*.pt')) == ['ckpt_0000002.pt', 'ckpt_last.pt']
    assert newest_checkpoint(tmp_path)[1]['iter_num'] == 5


def test_the_best_loss_counts_after_a_move_from_windows(dataset, tmp_path):
    train(dataset, tmp_path)
    state = torch.load(tmp_path / 'ckpt.pt', weights_only=True)
    state['config']['dataset'], state['best_val_loss'] = 'C:\\text\\' + os.path.basename(dataset), 0.5
    torch.save(state, tmp_path / 'ckpt.pt')
    train(dataset, tmp_path, init_from='resume', max_iters=9, always_save_checkpoint=False)
    assert load_checkpoint(tmp_path / 'ckpt.pt')['iter_num'] == 6 and (tmp_path / 'ckpt_last.pt').exists()


def test_a_network_folder_that_knows_no_free_space(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: (0, 0, 0))
    train(dataset, tmp_path)
