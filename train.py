"""Trains, finetunes or evaluates a GPT:
one process, on whatever the machine has:   python train.py config/train_python_char.py
resumed, with a setting changed:            python train.py config/train_python_char.py --eval_interval=50 --init_from=resume
eight GPUs of one machine:                  torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py"""
import atexit
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path, PureWindowsPath

import numpy as np
import torch
from torch.utils._pytree import tree_map_only
from tqdm import tqdm
from data.prepare import Tokens, get_codec, load_meta, need_data, need_space, on_device
from model import GPT, GPTConfig, Muon, newest_checkpoint, peak_flops, save_checkpoint
# ---- settings ----------------------------------------------------------------------------------------------------------
out_dir = 'out' # where checkpoints and metrics.jsonl go
eval_interval = 2000 # iterations between evaluations; the last state is always evaluated
log_interval = 1 # iterations between log lines
eval_iters = 200 # batches of each split per evaluation; fewer if those see the whole split
sample_tokens = 0 # length of a sample that is drawn, printed and recorded after each evaluation; 0: none
eval_only = False # evaluate once, train nothing, write nothing
always_save_checkpoint = True # False: ckpt.pt is only replaced when the val loss improves
save_interval = 0 # iterations between further saves, besides those after evaluations; 0: none
save_minutes = 0.0 # the same in minutes
keep_checkpoints = 1 # above 1: besides ckpt.pt, keep this many of the latest saves, as ckpt_ITERATION.pt
save_best = False # also keep the state with the lowest val loss, as ckpt_best.pt
init_from = 'scratch' # 'resume', 'auto' (resume if out_dir has a checkpoint, else scratch), a GPT-2 on the hub like 'gpt2-xl', or a folder with one
wandb_log = False # also log to Weights & Biases; metrics.jsonl is written in any case
wandb_project = 'owt' # the project that the run belongs to
wandb_run_name = 'gpt2' # the run's name in it
dataset = 'openwebtext' # a folder under data/, or any folder
gradient_accumulation_steps = 40 # micro-batches an iteration, shared by all processes
total_batch_tokens = 0 # above 0: sets gradient_accumulation_steps so that an iteration has about this many tokens
batch_size = 12 # sequences in a micro-batch
block_size = 1024 # tokens in a sequence
n_layer = 12 # blocks
n_head = 12 # attention heads, a divisor of n_embd
n_embd = 768 # channels
dropout = 0.0 # 0 for pretraining; 0.1 and up where the data is seen many times
bias = False # biases in Linears and LayerNorms; GPT-2 has them, a model without is a little better and faster
activation_checkpointing = False # keep only each block's input, recompute the rest in the backward pass: less memory, a third more time
logit_rows = 0 # tokens whose logits the loss holds at once, fewer for less memory; 0: 32 MB of logits on a CPU, all elsewhere
rotary = False # rotary position embeddings: better, but neither nanoGPT nor transformers' GPT-2 can read the checkpoint
ngrams = 0 # rows of a hashed table of embeddings of the last 2, 3 and 4 tokens, a head start for small models; read only here, like rotary
ngram_dropout = 0.0 # share of the rows looked up that is dropped in training, for data that is seen many times
optimizer = 'adamw' # 'muon': torch's Muon for the blocks' matrices, AdamW for the rest
learning_rate = 6e-4 # AdamW's, at its peak
muon_lr = 0.02 # Muon's, at its peak; it follows the same schedule
max_iters = 600000 # updates in all
weight_decay = 0.1 # of matrices and embeddings
beta1 = 0.9 # decay of AdamW's average of gradients
beta2 = 0.95 # decay of its average of squared gradients; nearer to 1 where an iteration has few tokens
grad_clip = 1.0 # largest gradient norm, 0.0 turns clipping off
decay_lr = True # False: a constant learning rate, without warm-up
lr_schedule = 'cosine' # 'wsd': level, then a straight line down
cooldown = 0.7 # with wsd, the share of the iterations after warm-up in which the rate falls
warmup_iters = 2000 # iterations in which the rate rises
lr_decay_iters = 600000 # iteration at which the rate reaches min_lr; usually max_iters
min_lr = 6e-5 # where the rate ends; usually a tenth of learning_rate
max_bad_steps = 10 # updates in a row with a loss or gradient that is not finite before the run stops
seed = 1337 # of initial weights, data order and dropout
deterministic = False # True: bit-identical runs on CUDA, and when compiled, too; slower kernels, no TF32
fsdp = False # shard weights, gradients and moments across the processes (FSDP2), for models that one GPU cannot hold
bf16_gradients = False # send gradients between processes in bfloat16, half the bytes, for slow networks
backend = 'auto' # what connects processes: 'nccl' on CUDA, 'xccl' on XPU, 'gloo' anywhere
device = 'auto' # 'cuda', 'cuda:1', 'xpu', 'mps' or 'cpu'
dtype = 'auto' # 'bfloat16', 'float16' (with loss scaling) or 'float32'
compile = 'auto' # True or False; auto: on CUDA, if it works there
_here = os.path.dirname(os.path.realpath(__file__)) # without the underscore it would be a setting
exec(open(os.path.join(_here, 'configurator.py'), encoding='utf-8').read()) # brings refuse, config, given, rank, ctx and others
# ---- checks: all that can be known before anything is built --------------------------------------------------------------
if not total_batch_tokens and gradient_accumulation_steps % world_size:
    refuse(f"gradient_accumulation_steps {gradient_accumulation_steps} cannot be divided among {world_size} processes; "
           f"give a multiple of {world_size}, such as {-(-gradient_accumulation_steps // world_size) * world_size}")
if dtype == 'float16' and (device_type != 'cuda' or fsdp):
    refuse(f"training in float16 needs loss scaling, which works on CUDA only and without fsdp; on {device_type} use bfloat16 or float32")
if fsdp and (world_size == 1 or sample_tokens or optimizer == 'muon' and n_embd % world_size):
    refuse(f"fsdp shards the model across torchrun's processes, two or more (with Muon a divisor of n_embd {n_embd}), got {world_size}; it needs sample_tokens=0")
master_process = rank == 0
def notice(text):
    """Print, on rank 0. The run goes on even if nobody reads any more: Ctrl-C also ends a `| tee`."""
    try:
        master_process and tqdm.write(text) # progress bars step aside
    except OSError: # on Windows it is no BrokenPipeError
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
# ---- data and checkpoint: a batch is a function of seed, split, iteration and micro-batch, whatever else happens -------------
data_dir = need_data(dataset)
meta = load_meta(os.path.join(data_dir, 'meta.pkl'))
saved_path, checkpoint, problem = newest_checkpoint(out_dir) if init_from in ('resume', 'auto') else (None, {}, None)
if problem and init_from == 'resume':
    refuse(problem + (f"; {saved_path} is good, and --init_from=auto resumes from it" if checkpoint else ''))
if problem and checkpoint:
    notice(f"{problem}; going on from {saved_path}")
init_from = 'resume' if checkpoint else 'scratch' if init_from == 'auto' else init_from
block_size = checkpoint['model_args']['block_size'] if checkpoint and 'block_size' not in given else block_size
vocab_size = checkpoint['model_args']['vocab_size'] if checkpoint else meta['vocab_size'] if meta else 50304
from_openai = init_from.startswith('gpt2') and not os.path.isdir(init_from) # in GPT-2's BPE, as is data without a meta.pkl
if from_openai and meta or checkpoint.get('codec', meta) != meta:
    refuse(f"the weights were trained on other tokens than those of dataset {dataset!r}; choose the dataset they had, "
           "or for OpenAI's weights one in GPT-2's BPE")
decode, n_vocab = get_codec(meta)[1:3] if sample_tokens else (None, None)
open_data = lambda T: {split: Tokens(data_dir, split, meta, vocab_size, T) for split in ('train', 'val')}
data = open_data(block_size if init_from in ('scratch', 'resume') else 1) # weights from elsewhere decide block_size first

def train_batch(iteration, micro_batch):
    """Random windows (batch_size, block_size + 1); micro_batch counts over all processes, so data do not depend on how many."""
    rng = np.random.default_rng((seed, 0, iteration, micro_batch)) # 0 for data; dropout, in the loop below, has 1
    return data['train'].windows(rng.integers(len(data['train']) - block_size, size=batch_size))

# ---- model ---------------------------------------------------------------------------------------------------------------
iter_num, best_val_loss = 0, 1e9 # iter_num counts the updates made
drops = dict(dropout=dropout, ngram_dropout=ngram_dropout) # which may change when a run is resumed; of what follows only block_size, to less
shape = [k for k in GPTConfig.__annotations__ if k in config and k not in drops] # settings that are the model's, also ones you add
if init_from == 'scratch':
    model = GPT(GPTConfig(**{k: config[k] for k in shape} | drops | dict(vocab_size=vocab_size)))
elif init_from == 'resume':
    model, iter_num, before = GPT.from_checkpoint(checkpoint, drops), checkpoint['iter_num'], checkpoint['config']
    same_data = PureWindowsPath(str(before.get('dataset', dataset))).name == Path(dataset).name # whose parts / and \ divide
    best_val_loss = checkpoint['best_val_loss'] if same_data else 1e9 # it counts only for the dataset it was measured on
    may_differ = [*shape, 'init_from', 'out_dir', 'device', 'backend'] + ['gradient_accumulation_steps'] * (total_batch_tokens > 0)
    changed = [f'{k} {v} -> {config[k]}' for k, v in before.items() if k in config and k not in may_differ and str(config[k]) != str(v)]
    notice(f"resuming from {saved_path} after {iter_num} iterations" + (f", best val loss {best_val_loss:.4f}" if best_val_loss < 1e9 else '')
           + (f"; not as it was: {', '.join(changed)}" if changed else ''))
else:
    from data.pretrained import check_tokens
    model = GPT.from_pretrained(init_from, dict(dropout=dropout))
    check_tokens(init_from, meta, dataset)
    block_size = block_size if 'block_size' in given else min(block_size, model.config.block_size)
    vocab_size = model.config.vocab_size
    data = open_data(block_size)
model.crop_block_size(block_size)
for k in [k for k in shape if k in given and getattr(model.config, k) != config[k]]:
    notice(f"the weights decide: {k} is {getattr(model.config, k)}, not {config[k]}")
wandb_id = checkpoint.get('wandb_id') # nanoGPT's files lack it and progress; they are saved right after an evaluation
progress = dict(evaluated_at=iter_num if checkpoint else -1, mean_loss=0.0, bad_steps=0, left_out=0) | checkpoint.get('progress', {})
rows = logit_rows or (2 ** 23 // vocab_size if device_type == 'cpu' else 0) # 32 MB of float32
if total_batch_tokens:
    gradient_accumulation_steps = max(1, round(total_batch_tokens / (batch_size * block_size * world_size))) * world_size
for k, idle in dict(muon_lr=optimizer == 'adamw', cooldown=lr_schedule == 'cosine', ngram_dropout=not model.config.ngrams, gradient_accumulation_steps=total_batch_tokens).items():
    idle and k in given and notice(f"{k} has no effect in this run")
config.update({k: getattr(model.config, k) for k in shape}, gradient_accumulation_steps=gradient_accumulation_steps) # what runs
micro_steps = gradient_accumulation_steps // world_size # micro-batches of this process in one iteration
tokens_per_iter = gradient_accumulation_steps * batch_size * block_size
model_args = {k: v for k, v in vars(model.config).items() if k != 'activation' # nanoGPT's keys; activation is saved beside
              and (k not in ('rotary', 'ngrams', 'ngram_dropout') or v and (k == 'rotary' or model.config.ngrams))}
# ---- processes, precision, optimizer -------------------------------------------------------------------------------------
if world_size > 1: # which agree by host_group on what is in host memory, without the device
    atexit.register(time.sleep, 1) # gloo's threads, should they still hold a tensor when Python ends, abort the process
    one_machine = os.environ.get('LOCAL_WORLD_SIZE') == str(world_size) # several machines may differ in how often they restarted
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '') if one_machine else ''
    store = torch.distributed.PrefixStore(attempt, next(torch.distributed.rendezvous('env://'))[0]) # after a restart torchrun's has dead addresses
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size,
                                         device_id=torch.device(device) if device_type == 'cuda' else None)
    host_group, every = torch.distributed.new_group(backend='gloo'), [None] * world_size
    same = {k: v for k, v in config.items() if k in ('optimizer', 'lr_schedule', 'dtype') or type(v) is not str and k not in ('compile', 'wandb_log')}
    same |= dict(iter_num=iter_num, tokens=[len(ids) for ids in data.values()]) # other words are paths and names, which may differ
    torch.distributed.all_gather_object(every, same, host_group)
    if differ := [f'{k} {[of.get(k) for of in every]}' for k in same if any(of.get(k) != same[k] for of in every)]:
        refuse(f"the processes differ in {', '.join(differ)}; give all the same settings and data, and an out_dir {out_dir!r} that they share")
if checkpoint and not eval_only and (iter_num > max_iters or iter_num == max_iters == progress['evaluated_at']):
    notice(f"nothing to do: {saved_path} has made {iter_num} of max_iters {max_iters} iterations; raise --max_iters to train on")
    sys.exit(0)
stop_signal = 0 # number of the signal that asked the run to end, which it does after the current iteration and a save
def ask_to_stop(number, frame):
    global stop_signal
    if stop_signal and number == signal.SIGINT:
        os._exit(128 + number) # the second Ctrl-C does not wait
    stop_signal = number
for name in {'SIGINT', 'SIGTERM', 'SIGUSR1'} & set(dir(signal)): # Slurm can be told to send SIGUSR1 before its time limit
    signal.signal(getattr(signal, name), ask_to_stop)

model.to('cpu' if fsdp else device) # fully_shard moves one block at a time to the device
for block in model.transformer.h if activation_checkpointing else ():
    block.forward = lambda x, forward=block.forward, **past: torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=False, **past)
if fsdp: # blocks are gathered in the precision of their matmuls, as autocast has them; Muon wants whole columns
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor # a second to import
    mesh = torch.distributed.init_device_mesh(device_type, (world_size,))
    half, sent = torch.bfloat16 if dtype == 'bfloat16' and device_type != 'cpu' else None, torch.bfloat16 if bf16_gradients else torch.float32
    for module in (*model.transformer.h, model):
        fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(None if module is model else half, sent, cast_forward_inputs=False),
                    shard_placement_fn=lambda p: Shard(1) if optimizer == 'muon' and p.dim() == 2 else None)
muon = [Muon(model, muon_lr, weight_decay, dtype == 'bfloat16')] if optimizer == 'muon' else []
optimizers = [model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type, muon[0].parts if muon else ()), *muon]
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')
if checkpoint.get('optimizer') and not eval_only:
    try:
        for o, name in zip(optimizers, ('optimizer', 'muon'), strict=False): # the second only with Muon
            kept, ours, params = checkpoint[name], o.state_dict()['param_groups'], [p for g in o.param_groups for p in g['params']]
            if [g['params'] for g in kept['param_groups']] != [g['params'] for g in ours]:
                raise ValueError('it has other groups of parameters')
            for i, old in kept['state'].items(): # of which only what is known is taken: a list may hold itself many times over
                moments = kept['state'][i] = {} if name == 'muon' else dict(step=torch.tensor(float(old['step'])))
                for k in ('exp_avg', 'exp_avg_sq') if name == 'optimizer' else ('momentum_buffer',):
                    moments[k] = old[k][:len(params[i])].reshape(params[i].shape).clone() # positions may have been cropped
                    if fsdp: # so that only one at a time is whole on the device
                        moments[k] = distribute_tensor(moments[k], params[i].device_mesh, params[i].placements)
            o.load_state_dict(dict(state=kept['state'], param_groups=ours)) # its moments, our settings
        if 'scaler' in checkpoint: # without float16 the scaler ignores it
            scaler.load_state_dict(checkpoint['scaler'])
    except Exception as e: # what a foreign state raises is anyone's guess
        refuse(f"the optimizer's state in {saved_path} does not fit its weights ({type(e).__name__} {str(e)[:200]}); "
               "give the --optimizer that made it, or --init_from=scratch")
checkpoint = kept = None # free host memory
for module in (model.transformer.h if fsdp else [model]) if compile else (): # in place, so parameters keep their names
    module.compile(dynamic=False, options=dict(cpp_wrapper=device_type == 'cpu' and not activation_checkpointing))
ddp = world_size > 1 and not fsdp # wrapped is what trains; model itself is what is saved, counted and evaluated
wrapped = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=micro_steps == 1) if ddp else model
if ddp and bf16_gradients: # wrapped in a function, since on CPUs torch refuses its own hook by name
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
    wrapped.register_comm_hook(None, lambda state, bucket: bf16_compress_hook(state, bucket))
for _ in range(2) if ddp and not eval_only else (): # after two passes DDP's buckets are final; a resumed run has to sum in the same ones
    with ctx:
        wrapped(*on_device(train_batch(0, 0), device), rows)[1].backward()
    model.zero_grad(set_to_none=False)
whole = lambda x: getattr(x, 'full_tensor', lambda: x)() # a tensor with the other processes' parts, if it is sharded

def over_all(x, kind='SUM'):
    """The sum, or the 'MAX', of a tensor over all processes, in place."""
    if world_size > 1:
        torch.distributed.all_reduce(x, getattr(torch.distributed.ReduceOp, kind), host_group if x.device.type == 'cpu' else None)
    return x
# ---- schedule, evaluation, saving ----------------------------------------------------------------------------------------
def get_lr(it):
    """The learning rate of update it: linear warm-up, then down to min_lr by half a cosine, or (wsd) level and a straight line."""
    if not decay_lr:
        return learning_rate
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    done = 1.0 if it > lr_decay_iters else (it - warmup_iters) / max(1, lr_decay_iters - warmup_iters)
    left = (1 + math.cos(math.pi * done)) / 2 if lr_schedule == 'cosine' else min(1.0, (1 - done) / max(cooldown, 1e-9))
    return min_lr + (learning_rate - min_lr) * left

@torch.no_grad()
def estimate_loss():
    """{split: mean loss} over evenly spread windows, always the same, shared among the processes; a 'sample', if asked for."""
    losses = {}
    model.eval()
    for split in ('train', 'val'):
        last = len(data[split]) - block_size - 1
        n = min(eval_iters, math.ceil((last + block_size) / (block_size * batch_size)))
        windows = np.linspace(0, last, n * batch_size, dtype=np.int64).reshape(n, batch_size)
        total = torch.zeros((), device=device)
        share = range(rank, n + -n % world_size, world_size) # equally many for each process, as fsdp needs; from n on they count 0
        for i in tqdm(share, f'evaluating {split}', leave=False, disable=not master_process or None):
            with ctx:
                total += model(*on_device(data[split].windows(windows[i % n]), device), rows)[1] * (i < n)
        losses[split] = over_all(total).item() / n
    if sample_tokens and master_process: # prompted by the first token of val.bin
        first = torch.tensor([[int(data['val'].ids()[0])]], device=device)
        losses['sample'] = decode(model.generate(first, sample_tokens, 0.8, 200, n_vocab=n_vocab)[0].tolist())
    model.train()
    return losses

writer, writing = ThreadPoolExecutor(1), None
def wait_for_write():
    """Wait for the write under way, if any; end the run if it failed."""
    try:
        return writing and writing.result()
    except (OSError, RuntimeError) as e:
        refuse(f"could not save into {out_dir!r} ({str(e if isinstance(e, OSError) else e.__context__ or e)[:200]}); "
               "the files there are whole, --init_from=auto resumes from them")

def save(improved):
    """Copy the state after iter_num updates, since later ones change it, and have a thread write it, after the write before."""
    global writing, saved_at
    if not torch.stack([whole(p.isfinite().all()) for p in model.parameters()]).all():
        refuse(f"weights are no longer finite at iteration {iter_num}; nothing was saved, earlier files are untouched")
    wait_for_write()
    best, ckpt, last, numbered = (os.path.join(out_dir, f'ckpt{kind}.pt') for kind in ('_best', '', '_last', f'_{iter_num:07d}'))
    hasty = stopping and not writing and init_from != 'resume' # perhaps begun by mistake: an older run's ckpt.pt and ckpt_last.pt stay
    path = numbered if hasty and os.path.exists(last) else last if hasty and os.path.exists(ckpt) or not (improved or always_save_checkpoint) else ckpt
    paths = [best] * (save_best and improved) + [path] + [numbered] * (keep_checkpoints > 1)
    weights = {k: v for k, v in model.state_dict().items() if k != 'lm_head.weight' or model.lm_head.weight is not model.transformer.wte.weight}
    state = {'model': weights, 'optimizer': optimizers[0].state_dict(), 'model_args': model_args, # a tied head is added on writing
             'activation': model.config.activation, 'iter_num': iter_num, 'config': config, 'codec': meta, 'wandb_id': wandb_id,
             'best_val_loss': torch.tensor(best_val_loss, dtype=torch.float64), # as nanoGPT's is, so that .item() works
             'progress': dict(progress, bad_steps=int(bad), left_out=int(left_out))}
    state |= ({'scaler': scaler.state_dict()} if scaler.is_enabled() else {}) | ({'muon': muon[0].state_dict()} if muon else {})
    copy = tree_map_only(torch.Tensor, lambda x: whole(x.detach()).to('cpu' if master_process else 'meta', copy=True), state)
    if master_process: # the others, of an fsdp run, only took part in gathering
        writing, saved_at = writer.submit(save_checkpoint, copy, paths, keep_checkpoints), time.monotonic()
    notice(f"saving {path}")
    record('save', iter=iter_num, path=path)
# ---- logging ---------------------------------------------------------------------------------------------------------------
metrics = None
if master_process and not eval_only:
    try:
        need_space('a checkpoint', 12 * model.get_num_params(False), out_dir) # weights and two moments in float32
        os.makedirs(out_dir, exist_ok=True)
        through_no_link = lambda path, flags: os.open(path, flags | getattr(os, 'O_NOFOLLOW', 0), 0o666)
        metrics = open(os.path.join(out_dir, 'metrics.jsonl'), 'a', 1, 'utf-8', opener=through_no_link)
        Path(metrics.name).read_bytes()[-1:] in (b'', b'\n') or metrics.write('\n') # a line that a full disk or a crash cut short is ended
    except OSError as e:
        refuse(f"cannot write into out_dir {out_dir!r} ({e.strerror}); give another --out_dir")
    if wandb_log:
        try:
            import wandb
            sys.stdin = open(os.devnull) # if nobody is logged in, wandb would ask and wait
            wandb_id = wandb.init(project=wandb_project, name=wandb_run_name, config=config, id=wandb_id, resume='allow').id # a resumed run goes on there
        except Exception as e: # not installed, not logged in, not reachable: no reason to end a run
            wandb_log = False
            notice(f"wandb is off ({type(e).__name__}: {' '.join(str(e).split())[:120]}); metrics.jsonl has the numbers")

def record(event, **values):
    """Write one line of metrics.jsonl, and send the numbers of evaluations and log lines to wandb."""
    if metrics:
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()} # JSON has no nan
        with suppress(OSError): # a full disk may have room again by the next save, which ends the run if not
            metrics.write(json.dumps(dict(event=event, **values)) + '\n')
        if wandb_log and event in ('eval', 'log'):
            with suppress(Exception): # a later failure of wandb is no reason either; names and units are nanoGPT's
                wandb.log({k + '/loss' * (k in data): 100 * v if v and k == 'mfu' else v for k, v in values.items()}, step=values['iter'])

git = shutil.which('git') and subprocess.run(['git', '-C', _here, 'rev-parse', 'HEAD'], capture_output=True).stdout.decode().strip()
record('start', iter=iter_num, time=time.time(), config=config, torch=torch.__version__, python=sys.version.split()[0],
       world_size=world_size, device=torch.cuda.get_device_name(device) if device_type == 'cuda' else device_type, commit=git)
notice(f"tokens per iteration will be: {tokens_per_iter:,}\nnumber of parameters: {model.get_num_params() / 1e6:.2f}M")
# ---- the loop --------------------------------------------------------------------------------------------------------------
# this process's batches, each read while a GPU still computes the one before; a second thread would only fight for Python's lock
feed = (on_device(train_batch(i, rank * micro_steps + m), device) for i in range(iter_num, max_iters) for m in range(micro_steps))
batch, peak, parameters = next(feed, None), peak_flops(device, dtype), list(model.parameters())
generators = [torch.default_generator] + [getattr(torch, device_type)] * (device_type != 'cpu') # torch.manual_seed's time goes into those of other devices
bad, left_out = (torch.tensor(float(progress[k]), device=device) for k in ('bad_steps', 'left_out')) # in a row, and since the last log line
t0, saved_at, resumed_at = time.perf_counter(), time.monotonic(), iter_num # seconds, seconds, iterations
bar = tqdm(total=max_iters, initial=iter_num, unit='iter', leave=False, disable=not master_process or None)
while True:
    by_clock = master_process and 0 < 60 * save_minutes < time.monotonic() - saved_at # rank 0's clock decides for all
    stopping, by_clock = over_all(torch.tensor([stop_signal, by_clock]), 'MAX').tolist()
    ending, improved = stopping or iter_num >= max_iters, False
    evaluating = eval_only or (iter_num % eval_interval == 0 or iter_num == max_iters) and iter_num != progress['evaluated_at']
    saving = not eval_only and (ending or iter_num > resumed_at and (by_clock or save_interval and iter_num % save_interval == 0))
    if evaluating or saving:
        device_type == 'cpu' or torch.accelerator.synchronize() # iterations still under way are no part of the pause
        paused_at = time.perf_counter()
        if evaluating and not stopping:
            losses = estimate_loss()
            notice(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
            'sample' in losses and notice(losses['sample'])
            if eval_only:
                break
            record('eval', iter=iter_num, **losses, lr=get_lr(iter_num), left_out=int(left_out))
            improved, progress['evaluated_at'] = losses['val'] < best_val_loss, iter_num
            best_val_loss = min(best_val_loss, losses['val'])
            saving = saving or iter_num > 0 and (improved or always_save_checkpoint)
        if saving and (master_process or fsdp): # with fsdp all processes gather
            save(improved)
        t0 += time.perf_counter() - paused_at # the time per iteration leaves pauses out
    if ending:
        break
    writing and writing.done() and wait_for_write() # a save that failed ends the run now, not at the next one
    lr = get_lr(iter_num)
    for o in optimizers:
        for group in o.param_groups:
            group['lr'] = lr * (muon_lr / (learning_rate or 1) if o in muon else 1)
    dropout_seed = int(np.random.default_rng((seed, 1, iter_num, rank)).integers(2**63))
    for generator in generators:
        generator.manual_seed(dropout_seed)
    loss = torch.zeros((), device=device)
    for m in range(micro_steps):
        with wrapped.no_sync() if ddp and m < micro_steps - 1 else nullcontext(): # DDP averages gradients once, at the last
            with ctx:
                micro_loss = wrapped(*batch, rows)[1] / micro_steps
            scaler.scale(micro_loss).backward()
            batch = next(feed, None)
        loss += micro_loss.detach()
    # update; one that is not finite is skipped, decided on the device so that nothing waits for the answer
    for o in muon:
        o.take_gradients()
    for o in optimizers:
        scaler.unscale_(o)
    norm = whole(torch.nn.utils.clip_grad_norm_(parameters, grad_clip or math.inf)) # inf clips nothing
    found = optimizers[0].found_inf = (~norm.isfinite()).float() # where 1, fused AdamW skips its step; the scaler sets its own
    if not (muon or device_type == 'mps') or not found: # AdamW on MPS and Muon do not skip by themselves
        for o in optimizers:
            scaler.step(o)
    scaler.update()
    for m in (model, *muon):
        m.zero_grad(set_to_none=not ddp) # with DDP gradients stay in its buckets
    bad, left_out = (bad + 1) * found, left_out + found

    logging = iter_num % log_interval == 0
    if logging:
        mean_loss, missing = (over_all(loss) / world_size).item(), int(left_out) # item waits for the device
        spike = 0 < 1.5 * progress['mean_loss'] < mean_loss
        if math.isfinite(mean_loss):
            progress['mean_loss'] = 0.9 * (progress['mean_loss'] or mean_loss) + 0.1 * mean_loss # of about the last ten lines
        t1 = time.perf_counter()
        dt, t0 = (t1 - t0) / min(log_interval, iter_num + 1 - resumed_at), t1 # seconds per iteration since the last line
        left_out.zero_()
        mfu = model.estimate_mfu(batch_size * gradient_accumulation_steps, dt, peak * world_size) if peak else None
        notice(f"iter {iter_num}: loss {mean_loss:.4f}, time {1000 * dt:.2f}ms, mfu {f'{100 * mfu:.2f}%' if mfu else '0.00% (n/a)'}, "
               f"{tokens_per_iter / dt:,.0f} tok/s, norm {norm.item():.2f}, lr {lr:.2e}, {tqdm.format_interval(dt * (max_iters - iter_num - 1))} left"
               + (f", {missing} bad updates left out" if missing else '') + (", a spike" if spike else ''))
        record('log', iter=iter_num, loss=mean_loss, ms=1000 * dt, tokens_per_s=tokens_per_iter / dt, mfu=mfu, norm=norm.item(),
               lr=lr, left_out=missing, spike=spike)
    if (logging or (iter_num + 1) % max_bad_steps == 0) and bad >= max_bad_steps: # reading bad waits for the device
        refuse(f"{int(bad)} updates in a row had a loss or gradient that is not finite; the weights are from before them. "
               "Try a lower --learning_rate, a longer --warmup_iters, --grad_clip=1.0 or --dtype=float32")
    iter_num += 1
    bar.update()
bar.close()
wait_for_write()
signal.signal(signal.SIGINT, signal.default_int_handler) # Python's again, for a session that goes on (python -i, %run)
if device_type == 'cuda':
    notice(f"peak memory {torch.cuda.max_memory_allocated() / 2 ** 30:.2f} GiB")
elif device_type == 'cpu' and os.path.exists(path := '/proc/self/status') and 'VmHWM:' in (status := Path(path).read_text()):
    notice(f"peak memory {int(status.partition('VmHWM:')[2].split()[0]) / 2 ** 20:.2f} GiB") # getrusage counts the parent too
world_size > 1 and torch.distributed.destroy_process_group()
if stopping:
    notice(f"stopped by {signal.Signals(stopping).name} after {iter_num} iterations" + ("" if eval_only else "; --init_from=auto resumes"))
    sys.exit(128 + stopping)
