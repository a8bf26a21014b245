"""Times training steps of a GPT-2, without the rest of a training run, or its text generation:
GPT-2 124M:                  python bench.py
where the time goes:         python bench.py --profile=True     (opens in TensorBoard or at ui.perfetto.dev)
generation:                  python bench.py --mode=generate"""
import os
import time
from itertools import islice

import numpy as np
import torch
from data.prepare import Tokens, find_data, load_meta, on_device
from model import GPT, GPTConfig, peak_flops
# ---- settings ----------------------------------------------------------------------------------------------------------
mode = 'train' # 'generate' times generation after half a context, for one row and for batch_size rows
batch_size = 12 # sequences in a step
block_size = 1024 # tokens in a sequence
n_layer = 12 # blocks
n_head = 12 # attention heads, a divisor of n_embd
n_embd = 768 # channels
bias = False # biases in Linears and LayerNorms
real_data = True # False: made-up tokens, as if the dataset were not there
dataset = 'openwebtext' # a folder under data/, or any folder
max_seconds = 60 # most time for the 10 warm-up steps, and for the 20 timed ones; a slow machine makes fewer
seed = 1337 # of weights and batches
device = 'auto' # 'cuda', 'cuda:1', 'xpu', 'mps' or 'cpu'; auto: the best there is
dtype = 'auto' # 'float32', 'bfloat16' or 'float16'
compile = 'auto' # True or False; auto: on CUDA, if it works there
profile = False # True: write a trace of five steps to bench_log/
exec(open(os.path.join(os.path.dirname(os.path.realpath(__file__)), 'configurator.py'), encoding='utf-8').read())
# ---- data and model (device_type and ctx come from configurator.py) ----------------------------------------------------
folder, rng, vocab_size = find_data(dataset), np.random.default_rng(seed), 50304 # unless meta.pkl says otherwise
if real_data and folder and os.path.exists(os.path.join(folder, 'train.bin')):
    meta = load_meta(os.path.join(folder, 'meta.pkl'))
    vocab_size = meta['vocab_size'] if meta else vocab_size
    data = Tokens(folder, 'train', meta, vocab_size, block_size)
    windows = lambda: data.windows(rng.integers(len(data) - block_size, size=batch_size))
else:
    windows = lambda: rng.integers(vocab_size, size=(batch_size, block_size + 1))
    print("timing on made-up tokens" + (f": dataset {dataset!r} is not prepared here" if real_data else ''))
model = GPT(GPTConfig(block_size, vocab_size, n_layer, n_head, n_embd, 0.0, bias)).to(device)
if mode == 'train':
    optimizer = model.configure_optimizers(1e-2, 1e-4, (0.9, 0.95), device_type)
    compile and model.compile(dynamic=False, options=dict(cpp_wrapper=device_type == 'cpu')) # as train.py does
synchronize = torch.accelerator.synchronize if device_type != 'cpu' else lambda: None

def seconds_of(statement, **names):
    """The least time of a statement in seconds, by torch's own timer."""
    from torch.utils.benchmark import Timer # here, because without a GPU it may warn
    return min(Timer(statement, globals=names, num_threads=torch.get_num_threads()).blocked_autorange(min_run_time=0.5).times)

def step():
    """Forward, backward and update on one batch; the loss stays on the device."""
    with ctx:
        loss = model(*on_device(windows(), device), 2 ** 23 // vocab_size if device_type == 'cpu' else 0)[1] # rows as in train.py
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()
# ---- timing ------------------------------------------------------------------------------------------------------------
def timed(steps):
    """Make at most steps steps, for about max_seconds; return (seconds, steps made)."""
    synchronize()
    t0, n = time.perf_counter(), 0
    while n < steps and time.perf_counter() - t0 <= max_seconds:
        loss = step()
        n += 1
    print(f"{n} steps, loss {loss.item():.4f}") # item waits for the device
    return time.perf_counter() - t0, n

def time_generation(rows):
    """Print the speed of rows texts at once, after prompts of half a context, and of one without a cache, as in nanoGPT."""
    half, ids = block_size // 2, windows()[:rows]
    for n in (6, max(6, min(64, half))): # the first time warms up
        stream = model.stream(ids[:, :half].tolist(), n, compiled=compile)
        times = [time.perf_counter()]
        for some in (1, 4, n): # the first token, some with which CUDA graphs are recorded anew, then all others
            list(islice(stream, some))
            synchronize()
            times.append(time.perf_counter())
    first, each = times[1] - times[0], (times[3] - times[2]) / (n - 5)
    width = half + (half if compile else n / 2) # positions of the cache that a step reads; it also reads all weights
    moved = model.lm_head.weight.element_size() * (model.get_num_params() + rows * 2 * n_layer * n_embd * width)
    a = torch.zeros(2, 2 ** 26, device=device) # half is read and half written, so a.nbytes move
    speed = a.nbytes / seconds_of('a[0].copy_(a[1])', a=a)
    with torch.inference_mode():
        again = seconds_of('model(x)', model=model, x=torch.from_numpy(ids[:1, :min(block_size, half + n // 2)]).to(device))
    print(f"{rows} at once: {1000 * first:.1f}ms to the first token, then {1000 * each:.2f}ms a step, {rows / each:,.1f} tokens/s, "
          f"{100 * moved / each / speed:.0f}% of {speed / 1e9:.0f} GB/s; recomputing {1 / again:,.1f} tokens/s, ratio {rows / each * again:.1f}")

if mode == 'generate':
    profile and refuse("profile traces training steps; leave it out, or --mode=generate")
    model.to(getattr(torch, dtype)).eval()
    for rows in (1, batch_size):
        time_generation(rows)
elif profile:
    with torch.profiler.profile(activities=torch.profiler.supported_activities(), schedule=torch.profiler.schedule(wait=2, warmup=3, active=5),
                                on_trace_ready=torch.profiler.tensorboard_trace_handler('bench_log'), with_flops=True) as trace:
        for _ in range(10):
            step()
            trace.step()
    spent = 'self_cpu_time_total' if device_type == 'cpu' else 'self_device_time_total'
    print(trace.key_averages().table(sort_by=spent, row_limit=12), "the trace is in bench_log/")
else:
    timed(10)
    seconds, n = timed(20)
    known, a = peak_flops(device, dtype), torch.randn(1024, 1024, device=device, dtype=getattr(torch, dtype))
    peak = known or 2 * 1024 ** 3 / seconds_of('a @ a', a=a) # measured where no data sheet is known
    print(f"time per iteration: {1000 * seconds / n:.4f}ms, MFU: {100 * model.estimate_mfu(batch_size, seconds / n, peak):.2f}%")
    print(f"{batch_size * block_size * n / seconds:,.0f} tokens/s; MFU is of {'' if known else 'a 1024x1024 matmul, '}{peak / 1e12:.2f} TFLOP/s in {dtype}")
