"""
The arithmetic of many processes behind docs/scaling.md: memory a process, the models that fit, communication beside computation.
    python assets/parallel.py
counts, checks, and writes results/parallel.json, results/parallel.svg and the tables between the marks in docs/scaling.md. All of it
is on paper but for the counting: what autograd keeps is counted on small models, the totals are held against torch's own
memory tracker, which follows a forward and a backward pass at full size on tensors without data.
"""
import json
import os
import re
import sys
from functools import cache

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from model import GPT, Block, GPTConfig # noqa: E402

T, V = 1024, 50304
SHAPES = { # layers, heads, channels: GPT-2's four, then those of GPT-3's table 2.1 and of OPT's table 1
    'gpt2': (12, 12, 768), 'gpt2-medium': (24, 16, 1024), 'gpt2-large': (36, 20, 1280), 'gpt2-xl': (48, 25, 1600),
    '2.7B': (32, 32, 2560), '6.7B': (32, 32, 4096), '13B': (40, 40, 5120), '30B': (48, 56, 7168), '66B': (64, 72, 9216)}
SCHEMES = {'DDP': {}, 'DDP, checkpointing': dict(checkpointing=True), 'FSDP': dict(fsdp=True), 'FSDP, checkpointing': dict(fsdp=True, checkpointing=True)}
CARDS = (8, 24, 80, 141) # GB
USABLE = 0.9 # of a card; the rest is CUDA's context, NCCL's buffers and gaps between tensors
PEAK, MFU = 989e12, 0.4 # H100 or H200 in bfloat16, and the share of it that the computation alone reaches
LINKS = (50, 400) # Gbit/s a GPU, each way
BATCH = 8 # sequences in a micro-batch, for the communication

# ---- counting ----------------------------------------------------------------------------------------------------------
def as_on_cuda(model):
    """The model with LayerNorms that take float32 also where FSDP gathers weights in bfloat16, as CUDA's autocast has them and the CPU's has not."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: inputs[0].float())
    return model

def saved(dtype, n_layer=1, n_head=2, n_embd=64, vocab_size=96, B=1, T=16):
    """Bytes that autograd keeps for the backward pass of a GPT, each storage once, without the parameters themselves."""
    model = as_on_cuda(GPT(GPTConfig(T, vocab_size, n_layer, n_head, n_embd, 0.0, False)))
    ids, kept = torch.zeros(B, T, dtype=torch.long), {}
    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x # held, so that no address comes twice
        return x
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
        model(ids, ids)
    own = {p.data_ptr() for p in model.parameters()}
    return sum(x.untyped_storage().nbytes() for at, x in kept.items() if at not in own)

@cache
def coefficients(dtype):
    """The bytes of saved a token, as multiples of layers · channels, layers · heads, layers, channels, vocabulary and 1."""
    shapes = [(1, 2, 64, 96), (2, 2, 64, 96), (1, 4, 64, 96), (1, 2, 128, 96), (2, 2, 128, 96), (1, 2, 64, 192)]
    counts = [(saved(dtype, *s, B=2) - saved(dtype, *s, B=1)) / 16 for s in shapes] # free of what the batch shares, the casts of weights
    return np.linalg.solve([(L * C, L * nh, L, C, vocab, 1) for L, nh, C, vocab in shapes], counts).round(6).tolist()

@cache
def sizes(name):
    """Parameters: all, of a block, outside of blocks, in matrix products."""
    L, nh, C = SHAPES[name]
    with torch.device('meta'):
        model = GPT(GPTConfig(T, V, L, nh, C, 0.0, False))
    N, block = model.get_num_params(False), sum(p.numel() for p in model.transformer.h[0].parameters())
    return N, block, N - L * block, sum(p.numel() for p in model.parameters() if p.dim() > 1) - T * C

# ---- memory ------------------------------------------------------------------------------------------------------------
def memory(name, n=1, fsdp=False, checkpointing=False, dtype='bfloat16', B=1):
    """Bytes of each of n processes at the fullest moment of a step, by term; see docs/scaling.md for the formula."""
    L, nh, C = SHAPES[name]
    N, block, root, matmul = sizes(name)
    LC, Lnh, one, head_C, head_V, head_one = coefficients(dtype)
    tokens, half, share = B * T, dtype == 'bfloat16', n if fsdp else 1
    activations = (LC * C + Lnh * nh + one) * tokens # of a block
    head = (head_C * C + (head_V + 8) * V + head_one) * tokens
    recomputed = activations * checkpointing
    if fsdp:
        weights, at_head, at_block = 4 * root + 2 * half * V * C, head + (2 if half else 4) * block, recomputed + (10 if half else 12) * block + 4 * V * C
    else:
        weights, at_head, at_block = 2 * half * matmul, head, recomputed + 4 * V * C
    return {'parameters': 4 * N / share, 'gradients': 4 * N / share, 'moments': 8 * N / share,
            'copies of weights': weights, 'activations': L * ((2 if half else 4) * C * tokens if checkpointing else activations),
            'head or a block': max(at_head, at_block)}

def tracked(name, n=1, fsdp=False, checkpointing=False, dtype='bfloat16', B=1):
    """The same total by torch's memory tracker: a micro-batch with gradients and moments already there, in one process, on tensors without data."""
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore
    L, nh, C = SHAPES[name]
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=n)
    mesh = dist.init_device_mesh('cpu', (n,))
    with FakeTensorMode():
        model, ids = as_on_cuda(GPT(GPTConfig(T, V, L, nh, C, 0.0, False))), torch.zeros(B, T, dtype=torch.long)
        if checkpointing:
            apply_activation_checkpointing(model, check_fn=lambda x: isinstance(x, Block))
        for module in (*model.transformer.h, model) if fsdp else ():
            halves = MixedPrecisionPolicy(torch.bfloat16 if dtype == 'bfloat16' else None, torch.float32, cast_forward_inputs=False)
            fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy() if module is model else halves) # as train.py has it
        optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), 'cpu')
        for p in model.parameters():
            p.grad = torch.zeros_like(p) # of the micro-batches before
        optimizer.step() # makes the moments
        tracker = FSDPMemTracker(model, optimizer) if fsdp else MemTracker()
        if not fsdp:
            tracker.track_external(model, optimizer)
        with tracker:
            with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
                loss = model(ids, ids)[1]
            loss.backward()
        (total,) = (x['Total'] for device, x in tracker.get_tracker_snapshot('peak').items() if device.type == 'cpu')
    dist.destroy_process_group()
    return total

def fits(n, card, scheme):
    """The largest of SHAPES of which a process of n, each on a card of so many GB, has room for one sequence."""
    return max((name for name in SHAPES if sum(memory(name, n, **SCHEMES[scheme]).values()) <= USABLE * card * 1e9), default='', key=list(SHAPES).index)

# ---- time --------------------------------------------------------------------------------------------------------------
def efficiency(name, n, link, fsdp, micro_steps):
    """
    (share of the time that computes, seconds of computation, seconds of waiting) of an iteration on n GPUs, link in Gbit/s. Two
    thirds of a micro-batch's time are its backward pass, and what is sent then, or in FSDP's forward pass, waits for nothing else.
    """
    L, nh, C = SHAPES[name]
    N = sizes(name)[0]
    micro = BATCH * T * (6 * (N - T * C) + 12 * L * C * T) / (MFU * PEAK)
    ring = lambda b: (n - 1) / n * b / (link * 1e9 / 8) # seconds for so many bytes to go round once
    if fsdp: # every micro-batch: blocks gathered in bfloat16 twice, the rest in float32 once, float32 gradients scattered
        root = sizes(name)[2]
        waiting = micro_steps * (max(0, ring(2 * N + 2 * root) - micro / 3) + max(0, ring(6 * N - 2 * root) - 2 * micro / 3))
    else: # once: float32 gradients, reduced and gathered, behind the last backward pass
        waiting = max(0, ring(2 * 4 * N) - 2 * micro / 3)
    return micro * micro_steps / (micro * micro_steps + waiting), micro * micro_steps, waiting

# ---- what is written -----------------------------------------------------------------------------------------------------
def table(head, rows):
    return '\n'.join(f"| {' | '.join(map(str, row))} |" for row in (head, ['---'] * len(head), *rows))

def tables(result):
    """{mark in docs/scaling.md: its table}, of what results/parallel.json holds."""
    GB = lambda x: f"{x / 1e9:.1f}"
    memory_rows = [(r['model'], f"{r['parameters'] / 1e6:,.0f} M", *(GB(r[s][0]) for s in SCHEMES)) for r in result['rows']]
    terms = result['terms']
    return {
        'counted': table(['autograd keeps, bytes a token', 'a block', 'the rest'],
                         [(d, f"{k[0]:g}·C + {k[1]:g}·nh + {k[2]:g}", f"{k[3]:g}·C + {k[4]:g}·V + {k[5]:g}") for d, k in result['coefficients'].items()]),
        'memory': table(['model', 'parameters', *(f"{s}, 8 GPUs" for s in SCHEMES)], memory_rows),
        'terms': table(['GB of gpt2-xl', *SCHEMES], [(t, *(f"{terms[s][t] / 1e9:.2f}" for s in SCHEMES)) for t in terms['DDP']]),
        'tracked': table(['formula, and torch’s tracker, GB', *SCHEMES],
                         [(r['model'], *(f"{a / 1e9:.2f}, {b / 1e9:.2f}" for a, b in (r['tracked'][s] for s in SCHEMES))) for r in result['rows'] if 'tracked' in r]),
        'fits': table(['GPUs', *(f"{c} GB" for c in CARDS)],
                      [(f"{n}, {s if n > 1 else s.replace('DDP', 'one process')}", *(result['fits'][f'{n} {s}'][str(c)] or '—' for c in CARDS))
                       for n in (1, 8) for s in SCHEMES if f'{n} {s}' in result['fits']]),
        'efficiency': table(['model, tokens an iteration', 'GPUs', 'micro-batches a GPU', 'computation', *(f"{w}, {b} Gbit/s" for w in ('DDP', 'FSDP') for b in LINKS)],
                            [(f"{r['model']}, 2^{r['tokens'].bit_length() - 1}", r['gpus'], r['micro_steps'], f"{r['seconds']:.2f} s",
                              *(f"{100 * e:.0f} %" for e in r['efficiency'])) for r in result['efficiency']])}

def compute():
    result = dict(command='python assets/parallel.py', torch=torch.__version__, coefficients={d: coefficients(d) for d in ('float32', 'bfloat16')}, rows=[])
    total = lambda *args, **more: sum(memory(*args, **more).values())
    for name in list(SHAPES)[:4]:
        row = dict(model=name, parameters=sizes(name)[0], **{s: [total(name, 8, **how)] for s, how in SCHEMES.items()})
        if name in ('gpt2', 'gpt2-xl'): # the tracker knows no processes but FSDP's: DDP as one
            row['tracked'] = {s: [total(name, n, **how), tracked(name, n, **how)] for s, how in SCHEMES.items() for n in [8 if how.get('fsdp') else 1]}
        result['rows'].append(row)
    result['terms'] = {s: memory('gpt2-xl', 8, **how) for s, how in SCHEMES.items()}
    result['fits'] = {f'{n} {s}': {str(c): fits(n, c, s) for c in CARDS} for n in (1, 8) for s in SCHEMES if n > 1 or 'FSDP' not in s}
    result['efficiency'] = []
    for name, tokens in (('gpt2', 2 ** 19), ('gpt2-xl', 2 ** 19), ('gpt2-xl', 2 ** 22)):
        for n in (8, 64):
            micro_steps = tokens // (n * BATCH * T)
            all_ways = [efficiency(name, n, link, fsdp, micro_steps) for fsdp in (False, True) for link in LINKS]
            result['efficiency'].append(dict(model=name, tokens=tokens, gpus=n, micro_steps=micro_steps, seconds=all_ways[0][1], efficiency=[e for e, _, _ in all_ways]))
    return result

def draw(path):
    """Efficiency against the tokens that 64 GPUs accumulate in an iteration."""
    import matplotlib
    matplotlib.use('svg')
    import matplotlib.pyplot as plt
    grey = '#808080' # is seen on white and on black
    plt.rcParams.update({'svg.hashsalt': 'assets', 'svg.fonttype': 'none', 'axes.edgecolor': grey, 'axes.labelcolor': grey, 'legend.framealpha': 0,
                         **{f'{part}.color': grey for part in ('text', 'xtick', 'ytick', 'grid')}})
    figure, both = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout='constrained')
    steps = [2 ** k for k in range(6)]
    for axes, name in zip(both, ('gpt2', 'gpt2-xl'), strict=True):
        for fsdp, color in ((False, '#3b82c4'), (True, '#e08214')):
            for link, style in zip(LINKS, ('--', '-'), strict=True):
                axes.plot([64 * BATCH * T * m for m in steps], [100 * efficiency(name, 64, link, fsdp, m)[0] for m in steps], style, color=color,
                          marker='o', ms=4, label=f"{'FSDP' if fsdp else 'DDP'}, {link} Gbit/s a GPU")
        axes.set_xscale('log', base=2)
        axes.set(title=f'{name}, 64 GPUs, micro-batches of {BATCH} × {T}', xlabel='tokens an iteration', ylim=(0, 102))
        axes.grid(alpha=0.3)
    both[0].set_ylabel('% of the time that computes')
    both[0].legend(loc='center left', bbox_to_anchor=(0, 0.53))
    figure.savefig(path, metadata={'Date': None}, transparent=True)

if __name__ == '__main__':
    try:
        import matplotlib # noqa: F401 before anything is written
    except ImportError:
        sys.exit("parallel.py: drawing needs the package matplotlib: pip install matplotlib")
    result = compute()
    with open(os.path.join(HERE, 'results', 'parallel.json'), 'w', encoding='utf-8') as f:
        json.dump(result, f, indent=1)
    doc = os.path.join(os.path.dirname(HERE), 'docs', 'scaling.md')
    with open(doc, encoding='utf-8') as f:
        text = f.read()
    for mark, rows in tables(result).items():
        text = re.sub(rf'(<!-- {mark} -->\n).*?(\n<!-- end -->)', lambda found, rows=rows: found[1] + rows + found[2], text, flags=re.S)
    with open(doc, 'w', encoding='utf-8') as f:
        f.write(text)
    draw(os.path.join(HERE, 'results', 'parallel.svg'))
