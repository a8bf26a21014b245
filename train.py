"""
Trains, finetunes or evaluates a GPT.

one process, on whatever the machine has:   python train.py config/train_python_char.py
some settings changed:                      python train.py config/train_shakespeare_char.py config/cpu.py --seed=7
on where a run stopped:                     python train.py config/train_python_char.py --init_from=resume
eight GPUs of one machine:                  torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py
"""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from model import GPT, GPTConfig, load_meta, newest_checkpoint, on_host, peak_flops, save_checkpoint

# ---- settings ----------------------------------------------------------------------------------------------------------
# reading and writing
out_dir = 'out' # where checkpoints and metrics.jsonl go
eval_interval = 2000 # iterations between evaluations; the last state is always evaluated
log_interval = 1 # iterations between log lines
eval_iters = 200 # batches of an evaluation, from each split; no more than it takes to see the split once
eval_only = False # evaluate once, write nothing
always_save_checkpoint = True # False: ckpt.pt is only replaced when the val loss improves
save_interval = 0 # iterations between saves besides those after evaluations, 0: none
save_minutes = 0.0 # the same by the clock
keep_checkpoints = 1 # above 1, the last so many stay as ckpt_ITERATION.pt, beside ckpt.pt
save_best = False # also keep the state with the lowest val loss, as ckpt_best.pt
init_from = 'scratch' # 'resume', 'auto' (resume if out_dir has a checkpoint, else scratch), 'gpt2', 'gpt2-xl' and so on, or a folder
# wandb, beside metrics.jsonl
wandb_log = False
wandb_project = 'owt'
wandb_run_name = 'gpt2'
# data
dataset = 'openwebtext' # a folder under data/, or any folder
gradient_accumulation_steps = 40 # micro-batches an iteration, shared by all processes
batch_size = 12 # sequences in a micro-batch
block_size = 1024 # tokens in a sequence
# model
n_layer = 12
n_head = 12
n_embd = 768
dropout = 0.0 # 0 for pretraining; 0.1 and up where the data is seen many times
bias = False # in Linears and LayerNorms; GPT-2 has them, without is a little better and faster
# AdamW
learning_rate = 6e-4 # the largest
max_iters = 600000 # updates in all
weight_decay = 0.1
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0 # largest gradient norm, 0.0 turns clipping off
# learning rate schedule
decay_lr = True # False: constant
warmup_iters = 2000
lr_decay_iters = 600000 # where it arrives at min_lr; usually max_iters
min_lr = 6e-5 # usually a tenth of learning_rate
# safety
max_bad_steps = 10 # updates in a row with a loss or gradient that is not finite before the run stops
# machine: auto means whatever this one does best
seed = 1337 # of initial weights, data order and dropout
deterministic = False # True: the same bits each time on CUDA too, by slower kernels and no TF32
backend = 'auto' # between processes: 'nccl' on CUDA, else 'gloo'
device = 'auto' # 'cuda', 'cuda:1', 'xpu', 'mps' or 'cpu'
dtype = 'auto' # 'bfloat16', 'float16' (with loss scaling) or 'float32'
compile = 'auto' # True or False; auto: on CUDA, if it works there
_here = os.path.dirname(os.path.abspath(__file__))
exec(open(os.path.join(_here, 'configurator.py'), encoding='utf-8').read())

# ---- checks: all that can be known before anything is built --------------------------------------------------------------
def stop(message):
    sys.exit(f"train.py: {message}")

stop_signal = 0 # of the signal that asked the run to end, which it does after the iteration at hand and a save
def ask_to_stop(number, frame):
    global stop_signal
    if stop_signal and number == signal.SIGINT:
        os._exit(128 + number) # the second Ctrl-C does not wait
    stop_signal = number
for name in ('SIGINT', 'SIGTERM', 'SIGUSR1'): # the last is what Slurm can be told to send before its time limit
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), ask_to_stop)

if gradient_accumulation_steps % world_size:
    fits = [n for n in range(world_size, gradient_accumulation_steps + world_size + 1, world_size)]
    stop(f"gradient_accumulation_steps {gradient_accumulation_steps} cannot be shared among {world_size} processes; "
         f"a multiple of {world_size} can, such as {fits[-1]}")
if dtype == 'float16' and device_type != 'cuda':
    stop(f"float16 is trained with loss scaling, which needs CUDA; on {device_type} use bfloat16 or float32")
micro_steps = gradient_accumulation_steps // world_size # micro-batches of this process in one iteration
master_process = rank == 0
notice = partial(print, flush=True) if master_process else lambda *args: None

data_dir = os.path.join('data', dataset)
if not os.path.isdir(data_dir):
    data_dir = os.path.join(_here, 'data', dataset)
if not os.path.isdir(data_dir):
    stop(f"there is no dataset {dataset!r}, neither in ./data nor in {os.path.join(_here, 'data')}")
bin_path = {split: os.path.join(data_dir, f'{split}.bin') for split in ('train', 'val')}
ckpt_path, last_path, best_path = (os.path.join(out_dir, f'ckpt{kind}.pt') for kind in ('', '_last', '_best'))
try:
    meta = load_meta(os.path.join(data_dir, 'meta.pkl'))
    checkpoint = None
    if init_from in ('resume', 'auto'):
        saved_path, checkpoint, problem = newest_checkpoint(out_dir)
        if problem and init_from == 'resume':
            stop(problem + (f"; {saved_path} is good, and --init_from=auto goes on from it" if checkpoint else ''))
        if problem and checkpoint:
            notice(f"{problem}; going on from {saved_path}")
        init_from = 'resume' if checkpoint else 'scratch'
except ValueError as e:
    stop(e)
bin_dtype = np.dtype((meta or {}).get('dtype', 'uint16'))
for path in bin_path.values():
    if not os.path.isfile(path):
        stop(f"{path} is missing: run python {os.path.join(data_dir, 'prepare.py')}")
    size = os.path.getsize(path)
    if size == 0 or size % bin_dtype.itemsize:
        stop(f"{path} has {size} bytes, which is no whole number of {bin_dtype} tokens: it is cut short or of another kind")

# ---- model ---------------------------------------------------------------------------------------------------------------
iter_num = 0 # updates made so far
best_val_loss = 1e9
try:
    if init_from == 'scratch':
        vocab_size = meta['vocab_size'] if meta else 50304
        model = GPT(GPTConfig(block_size, vocab_size, n_layer, n_head, n_embd, dropout, bias))
    elif init_from == 'resume':
        model = GPT.from_checkpoint(checkpoint, dict(dropout=dropout))
        iter_num, best_val_loss = int(checkpoint.get('iter_num', 0)), float(checkpoint.get('best_val_loss', 1e9))
        saved = checkpoint.get('config', {})
        changed = [f'{k} {saved[k]!r} -> {config[k]!r}' for k in config if k in saved and config[k] != saved[k] and k not in
                   ('init_from', 'out_dir', 'device', 'backend', 'n_layer', 'n_head', 'n_embd', 'bias', 'block_size')]
        notice(f"resuming from {saved_path} after {iter_num} iterations, best val loss {best_val_loss:.4f}"
               + (f"; not as it was: {', '.join(changed)}" if changed else ''))
    elif init_from.startswith('gpt2') or '/' in init_from or os.path.isdir(init_from):
        model = GPT.from_pretrained(init_from, dict(dropout=dropout))
    else:
        stop(f"init_from {init_from!r} is not scratch, resume, auto, the name of a GPT-2 on the hub or a folder with one")
except ValueError as e:
    stop(e)
if init_from != 'scratch': # the weights say what the shape is
    differ = [k for k in ('n_layer', 'n_head', 'n_embd', 'bias') if k in given and config[k] != getattr(model.config, k)]
    if differ:
        notice(f"the weights decide: {', '.join(f'{k} is {getattr(model.config, k)}, not {config[k]}' for k in differ)}")
    if 'block_size' not in given:
        block_size = model.config.block_size
    if block_size > model.config.block_size:
        stop(f"block_size {block_size} is more than the {model.config.block_size} positions of these weights")
    if block_size < model.config.block_size:
        model.crop_block_size(block_size)
    if (checkpoint or {}).get('codec', meta) != meta or meta and meta['vocab_size'] != model.config.vocab_size:
        stop(f"the weights read another alphabet than dataset {dataset!r} has; choose the dataset that they were trained on")
    for k in ('block_size', 'n_layer', 'n_head', 'n_embd', 'bias'):
        config[k] = getattr(model.config, k)
if init_from == 'resume' and iter_num >= max_iters and not eval_only:
    notice(f"nothing to do: {saved_path} has made {iter_num} of max_iters {max_iters} iterations; a larger --max_iters goes on")
    sys.exit(0)
tokens_per_iter = gradient_accumulation_steps * batch_size * block_size
model_args = {k: v for k, v in vars(model.config).items() if k != 'activation' or v != GPTConfig.activation}

# ---- data: a batch is a function of seed, split, iteration and micro-batch, whatever else happens -------------------------
def tokens(split):
    """The split's tokens, mapped anew at each call, so that the pages of a long run are given back."""
    return np.memmap(bin_path[split], dtype=bin_dtype, mode='r')

def check_ids(ids, split):
    """On a GPU an id that is too large would be an assertion without a name."""
    if ids.max() >= model.config.vocab_size:
        stop(f"{bin_path[split]} holds the id {ids.max()}, but the model's ids end at {model.config.vocab_size - 1}: "
             "the data, its meta.pkl and the weights do not belong together")

def gather(split, starts):
    """Inputs and targets, each (B, T), of the windows that begin at starts (B), on the device."""
    rows = tokens(split)[starts[:, None] + np.arange(block_size + 1)]
    check_ids(rows, split)
    rows = torch.from_numpy(rows.astype(np.int64))
    if device_type == 'cuda':
        rows = rows.pin_memory()
    rows = rows.to(device, non_blocking=True)
    return rows[:, :-1], rows[:, 1:]

for split in bin_path:
    if len(tokens(split)) <= block_size:
        stop(f"{bin_path[split]} has {len(tokens(split))} tokens; block_size {block_size} needs at least {block_size + 1}")
    check_ids(tokens(split)[:10_000_000], split) # the rest as it is read

def stream(*purpose):
    """Random numbers for one purpose, a tuple of whole numbers, that no other purpose can disturb."""
    return np.random.default_rng((seed, *purpose))

def train_batch(iteration, micro_batch):
    """micro_batch counts over all processes, so their number does not change the data."""
    return gather('train', stream(0, iteration, micro_batch).integers(len(tokens('train')) - block_size, size=batch_size))

def batches():
    """This process's training batches from the present iteration on, each read while the one before computes."""
    with ThreadPoolExecutor(1) as reader:
        mine = ((i, rank * micro_steps + m) for i in range(iter_num, max_iters) for m in range(micro_steps))
        pending = None
        for where in mine:
            ahead = reader.submit(train_batch, *where)
            if pending:
                yield pending.result()
            pending = ahead
        yield pending.result()

# ---- processes, precision, optimizer -------------------------------------------------------------------------------------
if 'RANK' in os.environ: # set by torchrun
    torch.distributed.init_process_group(backend)
    host_group = torch.distributed.new_group(backend='gloo') # for what the processes agree on without the device
model.to(device)
optimizer = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')
if init_from == 'resume' and checkpoint.get('optimizer'):
    try:
        for old, new in zip(checkpoint['optimizer']['param_groups'], optimizer.param_groups, strict=True):
            old.update({k: v for k, v in new.items() if k != 'params'}) # the moments are the file's, the settings ours
        optimizer.load_state_dict(checkpoint['optimizer'])
        for p, moments in optimizer.state.items():
            for k in ('exp_avg', 'exp_avg_sq'):
                moments[k] = moments[k][:len(p)].clone() # positions may have been cropped
                assert moments[k].shape == p.shape
        if scaler.is_enabled() and 'scaler' in checkpoint:
            scaler.load_state_dict(checkpoint['scaler'])
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as e:
        stop(f"the optimizer's state in {saved_path} does not fit its weights ({type(e).__name__} {e}); --init_from=scratch starts anew")
progress = dict(evaluated_at=iter_num if checkpoint else -1, mean_loss=0.0, bad_steps=0) # what the next iterations still ask
progress |= (checkpoint or {}).get('progress', {})
checkpoint = None
if compile:
    model.compile() # in place: the names of parameters stay
wrapped = model # what trains; model itself is what is saved, counted and evaluated
if 'RANK' in os.environ:
    wrapped = torch.nn.parallel.DistributedDataParallel(model, device_ids=[device] if device_type != 'cpu' else None)

def explain(kind, error, trace):
    """Says what to do when memory runs out; every other error keeps its traceback."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return sys.__excepthook__(kind, error, trace)
    n, logits = model.get_num_params(False), batch_size * block_size * model.config.vocab_size
    print(f"train.py: out of memory on {device}. Weights, gradients and AdamW's moments take {16 * n / 1e9:.1f} GB whatever the batch, "
          f"the logits of a micro-batch and their gradient {8 * logits / 1e9:.1f} GB. Lower --batch_size (now {batch_size}) and raise "
          f"--gradient_accumulation_steps by the same factor, then lower --block_size, or take a smaller model", file=sys.stderr)
sys.excepthook = explain

def all_sum(x):
    """x summed over all processes, in place."""
    if world_size > 1:
        torch.distributed.all_reduce(x)
    return x

def agreed(number):
    """The largest number that any process has."""
    if world_size > 1:
        number = torch.tensor(number)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, host_group)
    return int(number)

# ---- schedule, evaluation, saving ----------------------------------------------------------------------------------------
def get_lr(it):
    """The learning rate of update it: linear warm-up, then half a cosine from learning_rate to min_lr."""
    if not decay_lr:
        return learning_rate
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    progress = min(1.0, (it - warmup_iters) / max(1, lr_decay_iters - warmup_iters))
    return min_lr + (learning_rate - min_lr) * (1 + math.cos(math.pi * progress)) / 2

@torch.no_grad()
def estimate_loss():
    """Mean loss of each split over windows that are the same at every call, evenly spread, shared by all processes."""
    losses = {}
    model.eval()
    for split in ('train', 'val'):
        last = len(tokens(split)) - block_size - 1
        n = min(eval_iters, math.ceil((last + 1) / (block_size * batch_size)))
        starts = np.linspace(0, last, n * batch_size).astype(np.int64).reshape(n, batch_size)
        total = torch.zeros((), device=device)
        bar = tqdm(starts[rank::world_size], f'evaluating {split}', leave=False, disable=None if master_process else True)
        for rows in bar:
            with ctx:
                total += model(*gather(split, rows))[1]
        losses[split] = all_sum(total).item() / n
    model.train()
    return losses

writer, writing = ThreadPoolExecutor(1), None
def save(improved):
    """Copy the state after iter_num updates and have it written while training goes on; one write at a time."""
    global writing, saved_at
    if not torch.stack([p.isfinite().all() for p in model.parameters()]).all():
        stop(f"weights are no longer finite at iteration {iter_num}; nothing was saved, what was saved before is as it was")
    saved()
    paths = [best_path] if save_best and improved else []
    if keep_checkpoints > 1:
        paths.append(os.path.join(out_dir, f'ckpt_{iter_num:07d}.pt'))
    paths.append(ckpt_path if improved or always_save_checkpoint else last_path)
    weights = {k: v for k, v in model.state_dict().items() if k != 'lm_head.weight'} # which is wte
    state = {'model': weights, 'optimizer': optimizer.state_dict(), 'model_args': model_args, 'iter_num': iter_num,
             'best_val_loss': best_val_loss, 'config': config, 'codec': meta, 'progress': dict(progress, bad_steps=int(bad))}
    if scaler.is_enabled():
        state['scaler'] = scaler.state_dict()
    writing, saved_at = writer.submit(save_checkpoint, on_host(state), paths, keep_checkpoints), time.monotonic()
    notice(f"saving {paths[-1]}")
    record('save', iter=iter_num, path=paths[-1])

def saved():
    """Wait for the write under way, if any; one that failed ends the run."""
    try:
        return writing and writing.result()
    except (OSError, RuntimeError) as e:
        stop(f"could not save into {out_dir!r} ({' '.join(str(e).split())[:200]}); what was saved before is untouched, --init_from=auto goes on from it")

# ---- logging ---------------------------------------------------------------------------------------------------------------
metrics = None
if master_process and not eval_only:
    try:
        os.makedirs(out_dir, exist_ok=True)
        metrics = open(os.path.join(out_dir, 'metrics.jsonl'), 'a', buffering=1, encoding='utf-8')
        needed, free = 12 * model.get_num_params(False), shutil.disk_usage(out_dir).free # weights and two moments in float32
        if free < needed:
            stop(f"a checkpoint takes {needed / 1e9:.1f} GB, and {out_dir!r} has {free / 1e9:.1f} GB free; free some or give another --out_dir")
    except OSError as e:
        stop(f"cannot write into out_dir {out_dir!r} ({e.strerror})")
    if wandb_log:
        try:
            import wandb
            wandb.init(project=wandb_project, name=wandb_run_name, config=config)
        except Exception as e: # not installed, not logged in, not reachable: none is worth a run
            wandb_log = False
            notice(f"wandb is off ({type(e).__name__}: {' '.join(str(e).split())[:120]}); metrics.jsonl has the numbers")

def record(event, **values):
    """One line of metrics.jsonl, and the numbers in it to wandb."""
    if metrics:
        metrics.write(json.dumps(dict(event=event, **values)) + '\n')
        if wandb_log and event in ('eval', 'log'):
            wandb.log({f'{event}/{k}': v for k, v in values.items() if k != 'iter'}, step=values['iter'])

git = shutil.which('git') and subprocess.run(['git', '-C', _here, 'rev-parse', 'HEAD'], capture_output=True, text=True)
record('start', iter=iter_num, time=time.time(), config=config, torch=torch.__version__, python=sys.version.split()[0],
       world_size=world_size, device=torch.cuda.get_device_name(device) if device_type == 'cuda' else device_type,
       commit=git.stdout.strip() if git else None)
notice(f"tokens per iteration will be: {tokens_per_iter:,}")
notice(f"number of parameters: {model.get_num_params() / 1e6:.2f}M")

# ---- the loop --------------------------------------------------------------------------------------------------------------
feed = batches()
peak = peak_flops(device, dtype)
bad = torch.tensor(float(progress['bad_steps']), device=device) # updates in a row that were left out
loss = torch.zeros((), device=device)
t0, saved_at, logged_at, resumed_at = time.perf_counter(), time.monotonic(), iter_num, iter_num
model.train()
while True:
    paused_at = time.perf_counter()
    stopping, improved = agreed(stop_signal), False
    evaluating = eval_only or (iter_num % eval_interval == 0 or iter_num == max_iters) and iter_num != progress['evaluated_at']
    if evaluating and not stopping:
        losses = estimate_loss()
        notice(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        if eval_only:
            break
        record('eval', iter=iter_num, train=losses['train'], val=losses['val'], lr=get_lr(iter_num))
        improved, progress['evaluated_at'] = losses['val'] < best_val_loss, iter_num
        best_val_loss = min(best_val_loss, losses['val'])
    saving = (iter_num == max_iters or evaluating and (improved or always_save_checkpoint) or save_interval and iter_num % save_interval == 0
              or save_minutes and time.monotonic() - saved_at > 60 * save_minutes)
    if master_process and (stopping or saving and (iter_num > resumed_at or iter_num == max_iters)):
        save(improved)
    if stopping or iter_num >= max_iters:
        break
    t0 += time.perf_counter() - paused_at

    # forward and backward over the micro-batches; gradients meet once, at the last
    lr = get_lr(iter_num)
    for group in optimizer.param_groups:
        group['lr'] = lr
    torch.manual_seed(int(stream(1, iter_num, rank).integers(2**63))) # dropout's
    loss.zero_()
    for m in range(micro_steps):
        with wrapped.no_sync() if world_size > 1 and m < micro_steps - 1 else nullcontext():
            with ctx:
                micro_loss = wrapped(*next(feed))[1] / micro_steps
            scaler.scale(micro_loss).backward()
        loss += micro_loss.detach()

    # update; one that is not finite is left out, on the device, so that nothing waits for the answer
    scaler.unscale_(optimizer)
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if grad_clip:
        torch.nn.utils.clip_grads_with_norm_(parameters, grad_clip, norm)
    found = (~norm.isfinite()).float()
    if not scaler.is_enabled():
        optimizer.found_inf = found
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    bad = (bad + 1) * found

    if iter_num % log_interval == 0:
        mean_loss, bad_steps = (all_sum(loss.clone()) / world_size).item(), int(bad.item()) # waits for the device
        spike = 0 < 1.5 * progress['mean_loss'] < mean_loss
        if math.isfinite(mean_loss):
            progress['mean_loss'] = 0.9 * (progress['mean_loss'] or mean_loss) + 0.1 * mean_loss # of the last ten or so lines
        t1 = time.perf_counter()
        dt, t0 = (t1 - t0) / (iter_num + 1 - logged_at), t1 # of an iteration, without evaluations
        logged_at = iter_num + 1
        mfu = model.estimate_mfu(batch_size * gradient_accumulation_steps, dt, peak * world_size) if peak else None
        notice(f"iter {iter_num}: loss {mean_loss:.4f}, time {1000 * dt:.2f}ms, mfu {f'{100 * mfu:.2f}%' if mfu else 'n/a'}, "
               f"{tokens_per_iter / dt:,.0f} tok/s, norm {norm.item():.2f}, lr {lr:.2e}" + (f", {bad_steps} bad updates left out" if bad_steps else '')
               + (", a spike" if spike else ''))
        record('log', iter=iter_num, loss=mean_loss, ms=1000 * dt, tokens_per_s=tokens_per_iter / dt, mfu=mfu,
               norm=norm.item(), lr=lr, bad_steps=bad_steps, spike=spike)
        if bad_steps >= max_bad_steps:
            stop(f"{bad_steps} updates in a row had a loss or gradient that is not finite; the weights are those before them. "
                 "Try a lower --learning_rate, a longer --warmup_iters, --grad_clip=1.0 or --dtype=float32")
    iter_num += 1

saved()
if 'RANK' in os.environ:
    torch.distributed.destroy_process_group()
if stopping:
    notice(f"stopped by {signal.Signals(stopping).name} after {iter_num} iterations" + ("" if eval_only else "; --init_from=auto goes on"))
    sys.exit(128 + stopping)
