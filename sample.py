"""
Draws text from a trained model.

what train.py saved:       python sample.py --out_dir=out-python-char
OpenAI's weights:          python sample.py --init_from=gpt2-xl --start="What is the answer to life?" --num_samples=5
a prompt from a file:      python sample.py --start=FILE:prompt.txt
"""
import os

import torch

from model import GPT, get_codec, load_checkpoint, load_meta

# ---- settings ----------------------------------------------------------------------------------------------------------
init_from = 'resume' # 'resume' for a checkpoint in out_dir; else the name of a GPT-2, such as 'gpt2-xl', or a folder with one
out_dir = 'out' # where ckpt.pt is
start = "\n" # the prompt; FILE:name takes it from a UTF-8 file
num_samples = 10
max_new_tokens = 500 # of each sample
temperature = 0.8 # below 1.0 the likely gets likelier; 0 always takes the likeliest token
top_k = 200 # draw from the k likeliest tokens only; 0 or None: from all
seed = 1337
device = 'auto' # 'cuda', 'cuda:1', 'xpu', 'mps' or 'cpu'; auto: the best there is
dtype = 'auto' # 'float32', 'bfloat16' or 'float16'
compile = False # True compiles the network first
_here = os.path.dirname(os.path.abspath(__file__))
exec(open(os.path.join(_here, 'configurator.py'), encoding='utf-8').read())

# ---- model and text ----------------------------------------------------------------------------------------------------
if init_from == 'resume':
    paths = [os.path.join(out_dir, name) for name in ('ckpt.pt', 'ckpt_last.pt')]
    checkpoint = load_checkpoint(next((p for p in paths if os.path.exists(p)), paths[0]))
    model = GPT.from_checkpoint(checkpoint, dict(dropout=0.0))
    metas = [os.path.join(p, 'data', str(checkpoint['config'].get('dataset', '')), 'meta.pkl') for p in ('', _here)]
    codec = (checkpoint['codec'] if 'codec' in checkpoint # else written by nanoGPT: the tables are with the data, if at all
             else load_meta(next(filter(os.path.exists, metas), metas[0])))
    if not (codec['vocab_size'] == model.config.vocab_size if codec else model.config.vocab_size >= 50257):
        found = f"is of other data, with one of {codec['vocab_size']}" if codec else "is missing"
        stop(f"the model has a vocabulary of {model.config.vocab_size}; {metas[0]}, which should say what it is, {found}")
else:
    model, codec = GPT.from_pretrained(init_from, dict(dropout=0.0)), None
encode, decode = get_codec(codec)
if start.startswith('FILE:'):
    try:
        with open(start[5:], encoding='utf-8') as f:
            start = f.read()
    except (OSError, UnicodeDecodeError) as e:
        stop(f"cannot read the prompt's file {start[5:]!r} ({e}); give a UTF-8 text file")
prompt = encode(start)
if not prompt:
    stop("start is empty; give at least one character, or <|endoftext|> with a GPT-2")
if max(prompt) >= model.config.vocab_size:
    stop(f"the prompt's ids go up to {max(prompt)}, the model's to {model.config.vocab_size - 1}: this text is not its text")
print(f"number of parameters: {model.get_num_params() / 1e6:.2f}M")
model.to(device).eval()
if compile:
    model.compile()

# ---- samples -----------------------------------------------------------------------------------------------------------
x = torch.tensor([prompt], device=device) # (1, T)
for _ in range(num_samples):
    with ctx:
        y = model.generate(x, max_new_tokens, temperature, top_k)
    print(decode(y[0].tolist()), flush=True)
    print('---------------', flush=True)
