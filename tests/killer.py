"""
Kills training runs and lets them go on: python tests/killer.py KILLS FOLDER DATASET

One uninterrupted run gives the weights to arrive at. Then runs with the same settings are killed with SIGKILL at random
moments, half of them while a save is being written, continued with --init_from=auto, and begun anew in another folder when they have arrived, until there were KILLS
kills. Each child is forked from this process, which has imported torch but computed nothing, so starting one is cheap.
"""
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import torch # noqa: E402
import torch._dynamo # noqa: E402, F401 which AdamW imports; here so that the children need not
import tqdm # noqa: E402, F401

from model import load_checkpoint, newest_checkpoint # noqa: E402

torch.set_num_threads(1)
SETTINGS = dict(n_layer=2, n_head=2, n_embd=128, block_size=16, batch_size=4, gradient_accumulation_steps=1, max_iters=20, eval_interval=5,
                eval_iters=2, log_interval=10, lr_decay_iters=20, warmup_iters=2, dropout=0.1, device='cpu', save_interval=1, init_from='auto')


def start(out_dir, dataset):
    """Fork a child that trains; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ['train.py', *(f'--{k}={v}' for k, v in {**SETTINGS, 'out_dir': out_dir, 'dataset': dataset}.items())]
    try:
        runpy.run_path(str(ROOT / 'train.py'), run_name='__main__')
        os._exit(0)
    except SystemExit as e:
        print(e.code, file=sys.stderr)
        os._exit(1 if isinstance(e.code, str) else e.code or 0)
    except BaseException as e:
        print(repr(e), file=sys.stderr)
        os._exit(2)


def weights(out_dir):
    return load_checkpoint(out_dir / 'ckpt.pt')['model']


def main(kills, folder, dataset):
    folder, rng = Path(folder), random.Random(0)
    t0 = time.monotonic()
    assert os.waitpid(start(folder / 'whole', dataset), 0)[1] == 0
    duration, reference = time.monotonic() - t0, weights(folder / 'whole')
    killed = in_a_save = arrived = 0
    out_dir = folder / 'run0'
    while killed < kills:
        before, pid = newest_checkpoint(out_dir)[1], start(out_dir, dataset)
        part = out_dir / f'ckpt.{pid}.tmp'
        if killed % 2: # every other kill waits for a write to begin
            time.sleep(rng.uniform(0, 0.3 * duration))
            give_up = time.monotonic() + duration
            while not part.exists() and time.monotonic() < give_up:
                time.sleep(0.0005)
        else:
            time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        _, after, problem = newest_checkpoint(out_dir)
        assert not (after and problem), problem
        assert not before or after and after['iter_num'] >= before['iter_num'], 'a checkpoint was lost'
        if os.WIFSIGNALED(status):
            killed += 1
            in_a_save += part.exists()
        else: # it was quicker
            assert os.WEXITSTATUS(status) == 0
            if after['iter_num'] == SETTINGS['max_iters']:
                assert all(torch.equal(v, reference[k]) for k, v in weights(out_dir).items()), 'other weights'
                arrived += 1
                out_dir = folder / f'run{arrived}'
    assert os.waitpid(start(out_dir, dataset), 0)[1] == 0
    assert all(torch.equal(v, reference[k]) for k, v in weights(out_dir).items()), 'other weights'
    print(f"{killed} kills, {in_a_save} of them in the middle of a save, 0 checkpoints lost, {arrived + 1} runs arrived at the weights of the uninterrupted one")


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
