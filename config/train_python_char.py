# A first run: Python by characters, from the interpreter's own standard library, with no download and no GPU.
#   python data/python_char/prepare.py
#   python train.py config/train_python_char.py
#   python sample.py --out_dir=out-python-char
# Two cores of an Intel Xeon, torch 2.13.0: 75 seconds, val loss 1.27.
# With config/plain_gpt2.py after it, it is a plain GPT-2, which nanoGPT and transformers can read, in 66 seconds to a val loss of 1.74.
out_dir = 'out-python-char'
eval_interval = 150
eval_iters = 50
log_interval = 25
always_save_checkpoint = False # ckpt.pt keeps the best

dataset = 'python_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 64

n_layer = 2
n_head = 4
n_embd = 128
rotary = True
ngrams = 65536

optimizer = 'muon'
learning_rate = 3e-3
lr_schedule = 'wsd'
cooldown = 0.5
max_iters = 450
lr_decay_iters = 450
min_lr = 0.0
beta2 = 0.99 # few tokens an iteration, so a longer memory
warmup_iters = 10
compile = False # on a GPU too: the run is over before compiling would have paid
