"""
Times training steps of a GPT-2, without the rest of a training run.

GPT-2 124M as it is:         python bench.py
a smaller model:             python bench.py --n_layer=4 --n_head=4 --n_embd=128 --block_size=64
what the time goes into:     python bench.py --profile=True     (opens in TensorBoard or at ui.perfetto.dev)
"""
import os
import time

import numpy as np
import torch
import torch.utils.benchmark

from model import GPT, GPTConfig, UserError, find_data, load_meta, open_bin, peak_flops

# ---- settings ----------------------------------------------------------------------------------------------------------
batch_size = 12
block_size = 1024
n_layer = 12
n_head = 12
n_embd = 768
bias = False
real_data = True # False: made-up tokens, as where the dataset is not there
dataset = 'openwebtext'
max_seconds = 60 # a slow machine makes fewer than 10 steps of warm-up or 20 timed ones when one of them takes longer
seed = 1337
device = 'auto' # 'cuda', 'cuda:1', 'xpu', 'mps' or 'cpu'; auto: the best there is
dtype = 'auto' # 'float32', 'bfloat16' or 'float16'
compile = 'auto' # True or False; auto: on CUDA, if it works there
profile = False # True: write a trace of five steps to bench_log/
_here = os.path.dirname(os.path.abspath(__file__))
exec(open(os.path.join(_here, 'configurator.py'), encoding='utf-8').read())

# ---- data and model ----------------------------------------------------------------------------------------------------
try:
    folder = find_data(dataset)
except UserError:
    folder = ''
if real_data and os.path.exists(os.path.join(folder, 'train.bin')):
    meta = load_meta(os.path.join(folder, 'meta.pkl'))
    vocab_size = meta['vocab_size'] if meta else 50304
    data = open_bin(folder, 'train', meta, block_size + 1)
    if data[:10_000_000].max() >= vocab_size:
        stop(f"train.bin in {folder} holds the id {data[:10_000_000].max()}, but the vocabulary ends at {vocab_size - 1}; prepare it again")
else:
    vocab_size = 50304
    data = np.random.default_rng(seed).integers(vocab_size, size=50 * block_size)
    print("timing on made-up tokens" + (f": dataset {dataset!r} is not prepared here" if real_data else ''))
model = GPT(GPTConfig(block_size, vocab_size, n_layer, n_head, n_embd, 0.0, bias)).to(device)
rng = np.random.default_rng(seed)

def get_batch():
    """Inputs and targets, each (B, T), on the device."""
    starts = rng.integers(len(data) - block_size, size=batch_size)
    rows = torch.from_numpy(data[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    rows = (rows.pin_memory() if device_type == 'cuda' else rows).to(device, non_blocking=True)
    return rows[:, :-1], rows[:, 1:]

optimizer = model.configure_optimizers(1e-2, 1e-4, (0.9, 0.95), device_type)
if compile:
    model.compile()

def synchronize():
    if device_type != 'cpu':
        torch.accelerator.synchronize()

def measured_peak():
    """FLOP/s of a large matmul on this device: the yardstick where no data sheet is known."""
    a = torch.randn(1024, 1024, device=device, dtype=getattr(torch, dtype))
    timer = torch.utils.benchmark.Timer('a @ a', globals=dict(a=a), num_threads=torch.get_num_threads())
    return 2 * 1024 ** 3 / min(timer.blocked_autorange(min_run_time=0.5).times)

def step():
    """Forward, backward and update on one batch; the loss stays on the device."""
    with ctx:
        loss = model(*get_batch())[1]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()

# ---- timing ------------------------------------------------------------------------------------------------------------
def timed(steps):
    """(seconds, steps made) of at most so many steps and about max_seconds."""
    synchronize()
    t0, n = time.perf_counter(), 0
    while n < steps and time.perf_counter() - t0 <= max_seconds:
        loss = step()
        n += 1
    print(f"{n} steps, loss {loss.item():.4f}") # item waits for the device
    return time.perf_counter() - t0, n

if profile:
    os.makedirs('bench_log', exist_ok=True)
    activities = torch.profiler.supported_activities()
    with torch.profiler.profile(activities=activities, schedule=torch.profiler.schedule(wait=2, warmup=3, active=5),
                                on_trace_ready=torch.profiler.tensorboard_trace_handler('bench_log'), with_flops=True) as trace:
        for _ in range(10):
            step()
            trace.step()
    print(trace.key_averages().table(sort_by='self_cpu_time_total' if device_type == 'cpu' else 'self_device_time_total', row_limit=12))
    print("the trace is in bench_log/")
else:
    timed(10)
    seconds, n = timed(20)
    peak = peak_flops(device, dtype)
    source = "the data sheet's" if peak else "a 1024x1024 matmul's measured"
    peak = peak or measured_peak()
    print(f"time per iteration: {1000 * seconds / n:.4f}ms, MFU: {100 * model.estimate_mfu(batch_size, seconds / n, peak):.2f}%")
    print(f"{batch_size * block_size * n / seconds:,.0f} tokens/s; MFU is of {source} {peak / 1e12:.2f} TFLOP/s in {dtype}")
