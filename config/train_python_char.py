# The first run: Python by characters, from the interpreter's own standard library, with no download and no GPU.
#   python data/python_char/prepare.py
#   python train.py config/train_python_char.py
#   python sample.py --out_dir=out-python-char
# Two cores of an Intel Xeon, torch 2.13.0: 2 minutes 15 seconds, val loss 1.47.
out_dir = 'out-python-char'
eval_interval = 500
eval_iters = 50
log_interval = 50
always_save_checkpoint = False # ckpt.pt keeps the best

dataset = 'python_char'
gradient_accumulation_steps = 1
batch_size = 16
block_size = 64

n_layer = 4
n_head = 4
n_embd = 128

learning_rate = 3e-3
max_iters = 2500
lr_decay_iters = 2500
min_lr = 3e-4
beta2 = 0.99 # few tokens an iteration, so a longer memory
warmup_iters = 50
