"""Several processes train what one does, over gloo on the CPU; torchrun starts them."""
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, as_args, events, log_losses, run, train
from test_crash import assert_same, what_counts
from torch.distributed.run import get_args_parser

from model import GPT, newest_checkpoint

ARGS = {**TINY, 'eval_iters': 3, 'gradient_accumulation_steps': 4, 'save_interval': 1, 'keep_checkpoints': 9} # each state stays as ckpt_ITERATION.pt
WAYS = dict(ddp={}, fsdp=dict(fsdp=True))


QUICK = ['--shutdown-timeout=1'] * any('--shutdown-timeout' in action.option_strings for action in get_args_parser()._actions) # from torch 2.12 on


def start(n, *args, before=(), launch=('--standalone',), env=None, script=(str(ROOT / 'train.py'),), **settings):
    """Start torchrun with train.py in n processes."""
    command = [*before, sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={n}', *QUICK, *launch, *script, *args, *as_args(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})})


def end(process, timeout=600):
    """(status, stdout, stderr) of a torchrun; one that hangs is ended and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate() # torchrun ends its processes
        pytest.fail(f"hangs: {process.communicate()}")
    return process.returncode, out, err


def meeting(n):
    """The environment in which torchrun would start n processes, but for their ranks."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return {**os.environ, 'OMP_NUM_THREADS': '1', 'WORLD_SIZE': str(n), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(s.getsockname()[1])}


def train_in(n, dataset, out_dir, torchrun=False, script=ROOT / 'train.py', **settings):
    """A tiny run in n processes, which must succeed; for one, in this process. Returns what they printed. Without torchrun, which takes
    seconds, this process tells them what it would."""
    settings = {**ARGS, 'dataset': dataset, 'out_dir': out_dir, **settings}
    if n == 1:
        return train(**settings).out
    if torchrun:
        processes = [start(n, **settings)]
    else:
        env = meeting(n)
        processes = [subprocess.Popen([sys.executable, str(script), *as_args(settings)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env={**env, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}) for rank in range(n)]
    ended = [end(process) for process in processes]
    assert not any(code for code, _, _ in ended), ended
    return ''.join(out for _, out, _ in ended)


def begin_from(checkpoint, out_dir):
    """out_dir as a run leaves it that stopped with this checkpoint."""
    out_dir.mkdir()
    shutil.copy(checkpoint, out_dir / 'ckpt.pt')
    return out_dir


def follows(out_dir, reference, atol=1e-5):
    """Assert that losses and norms in out_dir, from where it began, are those of the reference."""
    for kind, keys in (('log', ['loss', 'norm']), ('eval', ['train', 'val'])):
        ours, theirs = ({e['iter']: [e[k] for k in keys] for e in events(d, kind)} for d in (out_dir, reference))
        assert ours and max(ours) == max(theirs)
        np.testing.assert_allclose([*ours.values()], [theirs[i] for i in ours], rtol=0, atol=atol)


@pytest.fixture(scope='module')
def runs(dataset, tmp_path_factory):
    """A folder with the out_dirs of the same run: one, in one process with four micro-batches; ddp and fsdp, in two with two (fsdp's with a known peak)."""
    folder = tmp_path_factory.mktemp('runs')
    (folder / 'known.py').write_text(f"""import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import model
model.peak_flops = lambda device, dtype: 1e9
runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')
""", encoding='utf-8')
    train_in(1, dataset, folder / 'one')
    for way, more in WAYS.items():
        assert len(log_losses(train_in(2, dataset, folder / way, torchrun=way == 'ddp', script=folder / 'known.py', **more))) == 6 # rank 0 alone prints
    return folder


@pytest.mark.parametrize('way', WAYS)
def test_two_processes_follow_one(runs, way):
    follows(runs / way, runs / 'one')


def test_a_shared_out_model_is_saved_as_any_other(runs):
    """Names, kinds and shapes of all that one process saves; weights_only reads plain tensors and nothing else."""
    one, fsdp = (torch.load(runs / d / 'ckpt.pt', weights_only=True) for d in ('one', 'fsdp'))

    def layout(x):
        if isinstance(x, torch.Tensor):
            return type(x), x.shape, x.dtype
        return {k: layout(v) for k, v in (x.items() if isinstance(x, dict) else enumerate(x))} if isinstance(x, (dict, list, tuple)) else type(x)
    for key in ('model', 'optimizer', 'model_args', 'progress'):
        assert layout(one[key]) == layout(fsdp[key])
    assert one.keys() == fsdp.keys() and fsdp['model']['lm_head.weight'].data_ptr() == fsdp['model']['transformer.wte.weight'].data_ptr()


def test_a_run_goes_on_in_other_processes(dataset, runs, tmp_path):
    """Two updates under DDP, two under FSDP, two in one process."""
    train_in(2, dataset, begin_from(runs / 'ddp' / 'ckpt_0000002.pt', tmp_path / 'fsdp'), init_from='resume', fsdp=True)
    train_in(1, dataset, begin_from(tmp_path / 'fsdp' / 'ckpt_0000004.pt', tmp_path / 'one'), init_from='resume')
    for out_dir in ('fsdp', 'one'):
        follows(tmp_path / out_dir, runs / 'one')
    assert [e['iter'] for e in events(tmp_path / 'one', 'log')] == [4, 5]


@pytest.mark.slow
@pytest.mark.parametrize('way', ['ddp', 'fsdp'])
def test_two_processes_go_on_to_the_same_bits(dataset, runs, tmp_path, way):
    train_in(2, dataset, begin_from(runs / way / 'ckpt_0000003.pt', tmp_path / 'out'), init_from='resume', **WAYS[way])
    assert_same(what_counts(tmp_path / 'out'), what_counts(runs / way))


@pytest.mark.slow
def test_three_processes_go_on_to_the_same_bits(dataset, tmp_path):
    """DDP sums in another order in its first passes, which more than two processes can tell."""
    args = dict(gradient_accumulation_steps=3, bias=True)
    train_in(3, dataset, tmp_path / 'whole', **args)
    train_in(3, dataset, begin_from(tmp_path / 'whole' / 'ckpt_0000003.pt', tmp_path / 'parts'), init_from='resume', **args)
    assert_same(what_counts(tmp_path / 'parts'), what_counts(tmp_path / 'whole'))


@pytest.mark.slow
def test_a_shared_out_model_trains_in_bfloat16_on_a_cpu(runs, dataset, tmp_path):
    train_in(2, dataset, tmp_path, fsdp=True, dtype='bfloat16')
    one, half = ([e['loss'] for e in events(d, 'log')] for d in (runs / 'one', tmp_path))
    assert half == pytest.approx(one, abs=0.05) and half != one


def test_recomputed_activations_change_no_bit(dataset, tmp_path):
    for out_dir, recomputed in (('kept', False), ('recomputed', True)):
        blocks = train(dataset, tmp_path / out_dir, activation_checkpointing=recomputed, dropout=0.1).space['model'].transformer.h
        assert all(('forward' in vars(block)) == recomputed for block in blocks)
    kept, recomputed = (newest_checkpoint(tmp_path / d)[1] for d in ('kept', 'recomputed'))
    assert_same(kept['model'], recomputed['model'])


@pytest.mark.parametrize('n, settings, words', [
    (1, {}, ['two or more', 'got 1;']),
    (2, dict(dtype='float16'), ['float16', 'bfloat16 or float32']),
    (3, dict(optimizer='muon'), ['n_embd 32', 'got 3;']),
    (2, dict(sample_tokens=5), ['sample_tokens=0']), # one process alone would wait for the others
], ids=str)
def test_what_fsdp_cannot_do_is_refused(dataset, tmp_path, monkeypatch, n, settings, words):
    """Before the processes meet, so none is needed."""
    monkeypatch.setenv('WORLD_SIZE', str(n))
    run('train.py', **{**TINY, 'gradient_accumulation_steps': n, 'dataset': dataset, 'out_dir': tmp_path / 'out', 'fsdp': True, **settings}).refused(*words)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('n, more', [(4, {}), (2, dict(activation_checkpointing=True)), (2, dict(optimizer='muon')), (2, dict(compile=True))], ids=str)
def test_more_processes_and_settings_follow_one(dataset, tmp_path, n, more, way):
    train_in(1, dataset, tmp_path / 'one', **more)
    train_in(n, dataset, tmp_path / 'all', **more, **WAYS[way])
    follows(tmp_path / 'all', tmp_path / 'one', atol=1e-4 if 'optimizer' in more else 1e-5) # Muon makes small differences larger


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_gradients_sent_in_bfloat16_train_nearly_the_same(dataset, tmp_path, way):
    train_in(1, dataset, tmp_path / 'one')
    train_in(2, dataset, tmp_path / 'two', bf16_gradients=True, **WAYS[way])
    follows(tmp_path / 'two', tmp_path / 'one', atol=2e-2)
    with pytest.raises(AssertionError, match='Mismatched elements'): # they were rounded
        follows(tmp_path / 'two', tmp_path / 'one', atol=1e-4)


@pytest.mark.slow
def test_tokens_an_iteration_do_not_depend_on_processes(dataset, tmp_path):
    for n in (1, 2, 4):
        out = train_in(n, dataset, tmp_path / str(n), total_batch_tokens=512)
        assert 'tokens per iteration will be: 512\n' in out
        follows(tmp_path / str(n), tmp_path / '1')


@pytest.mark.parametrize('done', [3, pytest.param(9, marks=pytest.mark.slow)])
def test_processes_with_other_settings_data_or_checkpoints_are_refused(dataset, tmp_path, done):
    """On machines that share no folder: a setting was forgotten on the second, a bin copied in part, and only there is a checkpoint."""
    data = {'0': dataset, '1': shutil.copytree(dataset, tmp_path / 'cut')} # folders and names may differ
    os.truncate(data['1'] / 'val.bin', 400)
    (tmp_path / '0').mkdir()
    train(dataset, tmp_path / '1' / 'out', max_iters=done)
    env, command = meeting(2), [sys.executable, str(ROOT / 'train.py'), *as_args({**ARGS, 'out_dir': 'out', 'init_from': 'auto', 'max_iters': 9})]
    processes = [subprocess.Popen([*command, f'--dataset={data[rank]}', f'--wandb_run_name={rank}', f'--learning_rate=1e-{rank}'], cwd=tmp_path / rank,
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**env, 'RANK': rank, 'LOCAL_RANK': rank}) for rank in '01']
    for code, _, err in map(end, processes):
        assert code == 1 and f'differ in learning_rate [1.0, 0.1], iter_num [0, {done}], tokens [[' in err and ', 200]];' in err and 'Traceback' not in err, (code, err)
    assert not (tmp_path / '0' / 'out').exists()


def test_mfu_is_of_all_processes_peaks(runs):
    line, model = events(runs / 'fsdp', 'log')[0], GPT.from_checkpoint(newest_checkpoint(runs / 'one')[1])
    sequences = ARGS['batch_size'] * ARGS['gradient_accumulation_steps']
    assert line['mfu'] == pytest.approx(model.estimate_mfu(sequences, line['ms'] / 1000, 1e9) / 2, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('many', [1, 2])
def test_a_signal_to_some_processes_ends_all_after_a_save(dataset, tmp_path, many):
    env = meeting(2)
    command = [sys.executable, str(ROOT / 'train.py'), *as_args({**ARGS, **LONG, 'max_iters': 10 ** 6, 'dataset': dataset, 'out_dir': tmp_path})]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**env, 'RANK': str(i), 'LOCAL_RANK': str(i)}) for i in (0, 1)]
    while not processes[0].stdout.readline().startswith('iter 10:'):
        assert processes[0].poll() is None
    for process in processes[-many:]:
        process.send_signal(signal.SIGTERM)
    assert [end(process)[0] for process in processes] == [128 + signal.SIGTERM] * 2
    assert newest_checkpoint(tmp_path)[1]['iter_num'] > 10


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_saving_by_the_clock_is_one_decision(dataset, tmp_path, way):
    """Each process has a clock of its own, and under FSDP all of them have to take part in a save."""
    train_in(2, dataset, tmp_path, **WAYS[way], max_iters=60, eval_interval=100, log_interval=10, save_interval=0, keep_checkpoints=1, save_minutes=0.003)
    assert len(events(tmp_path, 'save')) > 1


@pytest.mark.slow
def test_a_failure_at_the_start_of_one_process_ends_all(dataset, tmp_path):
    """The second machine, say, lacks the dataset: the other process waits for it when it ends."""
    shutil.copytree(dataset, tmp_path / 'data0')
    settings = as_args({**ARGS, 'out_dir': tmp_path / 'out', 'init_from': 'auto'})
    command = f'exec "$@" --dataset={tmp_path}/data$RANK'
    code, _, err = end(start(2, *settings, launch=['--standalone', '--no-python'], script=['sh', '-c', command, 'sh', sys.executable, str(ROOT / 'train.py')]))
    said, = (line for line in err.splitlines() if line.startswith('train.py: '))
    assert code == 1 and 'there is no dataset' in said and 'data1' in said, err


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_a_failure_in_the_middle_of_one_process_ends_all(dataset, tmp_path, way):
    """The process that saves cannot, while the other trains on."""
    (tmp_path / 'out' / 'ckpt.pt').mkdir(parents=True)
    code, _, err = end(start(2, **{**ARGS, 'dataset': dataset, 'out_dir': tmp_path / 'out', **WAYS[way]}))
    said, = (line for line in err.splitlines() if line.startswith('train.py: '))
    assert code == 1 and 'could not save' in said, err


LONG = dict(max_iters=1500, lr_decay_iters=1500, eval_interval=500, log_interval=10, learning_rate=1e-3, keep_checkpoints=1)


def workers(torchrun):
    """Process ids of what a torchrun has started."""
    return [int(pid) for pid in Path(f'/proc/{torchrun}/task/{torchrun}/children').read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='needs /proc, as on Linux')
@pytest.mark.parametrize('way', WAYS)
def test_ten_killed_processes_cost_nothing(dataset, tmp_path, way):
    """torchrun starts both anew each time, and they go on from the last save, to the bits of a run that nobody disturbed."""
    settings = {**LONG, **WAYS[way], 'save_interval': 20, 'max_iters': 3000 if way == 'ddp' else 1200} # the second is slower
    train_in(2, dataset, tmp_path / 'whole', **settings)
    settings = {**ARGS, **settings, 'dataset': dataset, 'out_dir': tmp_path / 'killed', 'init_from': 'auto'}
    process = start(2, launch=['--standalone', '--max_restarts=10'], **settings)
    rng, killed, before = random.Random(0), 0, set()
    while killed < 10 and process.poll() is None:
        time.sleep(0.05)
        pids = workers(process.pid)
        if len(pids) == 2 and not before & {*pids}: # both are new
            time.sleep(rng.uniform(0, 5)) # importing torch takes about half of that
            before = {*pids}
            with contextlib.suppress(ProcessLookupError): # it was quicker
                os.kill(rng.choice(pids), signal.SIGKILL)
                killed += 1
    code, out, err = end(process, 200)
    assert code == 0 and killed == 10, (killed, out, err)
    begun = [e['iter'] for e in events(tmp_path / 'killed', 'start')]
    assert begun == sorted(begun) and begun[-1] > 0
    assert_same(what_counts(tmp_path / 'killed')['model'], what_counts(tmp_path / 'whole')['model'])


@pytest.fixture
def two_machines():
    """Two network namespaces joined by a cable: their names, which are those of their interfaces too; addresses are 10.199.0.1 and .2."""
    names = [f'gpt{os.getpid()}{end}' for end in 'ab']
    ip = lambda words: subprocess.run(['ip', *words.split()], capture_output=True, text=True, check=True)
    try:
        for name in names:
            ip(f'netns add {name}')
        ip(f'link add {names[0]} netns {names[0]} type veth peer name {names[1]} netns {names[1]}')
        for i, name in enumerate(names):
            ip(f'-n {name} addr add 10.199.0.{i + 1}/24 dev {name}')
            for link in (name, 'lo'):
                ip(f'-n {name} link set {link} up')
        yield names, ip
    except FileNotFoundError:
        pytest.skip('there is no ip command')
    except subprocess.CalledProcessError as e:
        pytest.skip(f'cannot make network namespaces: {e.stderr.strip()}')
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='network namespaces are Linux')
@pytest.mark.parametrize('way', WAYS)
def test_two_machines_and_a_cable_that_is_pulled(dataset, tmp_path, two_machines, way):
    """They meet through torchrun, nothing moves while the cable is out, and after it is back they end as one process does."""
    names, ip = two_machines
    settings = {**LONG, 'save_interval': 0}
    train_in(1, dataset, tmp_path / 'one', **settings)
    processes = [start(1, before=['ip', 'netns', 'exec', name], env={'GLOO_SOCKET_IFNAME': name},
                       launch=['--nnodes=2', '--rdzv_backend=c10d', '--rdzv_id=cable', '--rdzv_endpoint=10.199.0.1:29500',
                               f'--rdzv_conf=is_host={1 - i}', f'--local_addr=10.199.0.{i + 1}'],
                       **{**ARGS, **settings, **WAYS[way], 'dataset': dataset, 'out_dir': tmp_path / 'two'}) for i, name in enumerate(names)]

    def logged():
        return len(events(tmp_path / 'two', 'log')) if (tmp_path / 'two' / 'metrics.jsonl').exists() else 0
    while logged() < 30 and all(p.poll() is None for p in processes):
        time.sleep(0.05)
    ip(f'-n {names[0]} link set {names[0]} down')
    time.sleep(1) # what is on its way arrives
    seen = logged()
    time.sleep(3)
    assert 30 <= logged() == seen < 150
    ip(f'-n {names[0]} link set {names[0]} up')
    for process in processes:
        code, _, err = end(process)
        assert code == 0, err
    follows(tmp_path / 'two', tmp_path / 'one', atol=1e-4)
