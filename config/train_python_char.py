# The first run: Python by characters, from the interpreter's own standard library, with no download and no GPU.
#   python data/python_char/prepare.py
#   python train.py config/train_python_char.py
out_dir = 'out-python-char'
eval_interval = 250
eval_iters = 20
log_interval = 50
always_save_checkpoint = False # ckpt.pt keeps the best

dataset = 'python_char'
gradient_accumulation_steps = 1
batch_size = 16
block_size = 128

n_layer = 4
n_head = 4
n_embd = 192
dropout = 0.0

learning_rate = 2e-3
max_iters = 1000
lr_decay_iters = 1000
min_lr = 2e-4
beta2 = 0.99
warmup_iters = 50
