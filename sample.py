"""Draws text from a trained model:
a checkpoint of train.py:  python sample.py --out_dir=out-python-char
OpenAI's weights:          python sample.py --init_from=gpt2-xl --start="What is the answer to life?" --num_samples=5
prompts from a file:       python sample.py --start=FILE:prompt.txt        (LINES:prompts.txt: one per line)"""
import os
import sys
import time
from itertools import islice

import numpy as np
import torch
from tqdm import tqdm
from data.prepare import Text, find_data, get_codec, load_meta, read_prompts
from model import GPT, load_checkpoint
# ---- settings ----------------------------------------------------------------------------------------------------------
init_from = 'resume' # 'resume' for a checkpoint in out_dir; else a GPT-2 on the hub, such as 'gpt2-xl', or a folder with one
out_dir = 'out' # where ckpt.pt is
start = "\n" # the prompt; FILE:name takes it from a UTF-8 file, LINES:name takes a prompt from each line of one
num_samples = 10 # of each prompt
max_new_tokens = 500 # of each sample
temperature = 0.8 # below 1.0 the likely gets likelier; 0 always takes the likeliest token
top_k = 200 # draw from the k likeliest tokens only; 0 or None: from all
top_p = 0.0 # draw only from the likeliest tokens that together reach this probability; 0 or None: from all
stop = '' # a sample ends before this text, and before <|endoftext|>
context_stride = 1 # tokens by which a full window moves at once; 1 keeps all context, half of block_size is many times faster
seed = 1337 # sample i of a seed is the same however many there are
device = 'auto' # 'cuda', 'cuda:1', 'xpu', 'mps' or 'cpu'; auto: the best there is
dtype = 'auto' # 'float32', 'bfloat16' or 'float16'; also of weights and cache
compile = False # True compiles the step from one token to the next, which takes a while
exec(open(os.path.join(os.path.dirname(os.path.realpath(__file__)), 'configurator.py'), encoding='utf-8').read())
# ---- model and text (refuse and device_type come from configurator.py) -------------------------------------------------
if init_from == 'resume':
    paths = [os.path.join(out_dir, name) for name in ('ckpt.pt', 'ckpt_last.pt')]
    checkpoint = load_checkpoint(next((p for p in paths if os.path.exists(p)), paths[0]))
    model = GPT.from_checkpoint(checkpoint, dict(dropout=0.0))
    dataset = str(checkpoint['config'].get('dataset', ''))
    place = os.path.join(find_data(dataset) or os.path.join('data', dataset), 'meta.pkl')
    codec = checkpoint['codec'] if 'codec' in checkpoint else load_meta(place) # nanoGPT leaves the alphabet with the data
else:
    from data.pretrained import read_codec
    model, codec, place = GPT.from_pretrained(init_from, dict(dropout=0.0)), read_codec(init_from), os.path.join(init_from, 'tokenizer.json')
c = model.config
V = codec.get('vocab_size') if codec else 50257 # no codec means GPT-2's BPE; a model from elsewhere may be padded beyond it
if codec and init_from == 'resume' and V != c.vocab_size or V > c.vocab_size:
    fault = f"is of other data, with one of {V}" if codec else "is missing"
    refuse(f"the model has a vocabulary of {c.vocab_size}; {place}, which should define it, {fault}")
encode, decode, n_vocab, end_of_text = get_codec(codec)
prompts = [encode(text) for text in read_prompts(start) for _ in range(num_samples)]
if not prompts or not all(prompts):
    refuse("start is empty; give at least one character, or <|endoftext|> with a GPT-2")
print(f"number of parameters: {model.get_num_params() / 1e6:.2f}M")
model.to(device, getattr(torch, dtype)).eval()
# ---- samples -----------------------------------------------------------------------------------------------------------
width = c.block_size if compile else min(c.block_size, max(map(len, prompts)) + max_new_tokens) # positions
each = width * c.n_embd * model.lm_head.weight.element_size() * (2 * c.n_layer + 16) + 16 * c.vocab_size # bytes a row: cache, work, logits
size = max(1, int((torch.cuda.mem_get_info(device)[0] / 2 if device_type == 'cuda' else 4e9) / each)) # as many as fit half of the GPU's free memory, or 4 GB
made, t0 = 0, time.perf_counter()
for begin in range(0, len(prompts), size):
    batch = prompts[begin:begin + size]
    samples = [Text(p, decode, max_new_tokens, end_of_text, stop) for p in batch]
    rngs = [np.random.default_rng((seed, (begin + i) % num_samples)) for i in range(len(batch))] # so no sample depends on another
    draws = torch.from_numpy(np.stack([rng.random(max_new_tokens, np.float32) for rng in rngs]))
    steps = model.stream(batch, max_new_tokens, temperature, top_k, top_p, context_stride, n_vocab, draws, compile)
    with tqdm(total=max_new_tokens, unit='token', leave=False, disable=sys.stdout.isatty() or None) as bar: # a terminal shows the text itself
        while not all(s.over for s in samples):
            some = list(islice(steps, 1 if len(batch) == 1 else 16)) # 16 at once, as reading ids makes a GPU wait
            for sample, ids in zip(samples, torch.stack(some, 1).tolist(), strict=True):
                sample.add(ids)
            bar.update(len(some))
            print(samples[0].fresh(), end='', flush=True)
    steps.close()
    for sample in samples:
        print(sample.fresh(), '---------------', sep='\n', flush=True)
    made += sum(s.made for s in samples)
print(f"{made} tokens in {(seconds := time.perf_counter() - t0):.2f} s, {made / seconds:.1f} tokens/s", file=sys.stderr)
