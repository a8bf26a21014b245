# Laid over a character config, makes it nanoGPT's recipe for a CPU: a run of about two minutes on two cores.
#   python train.py config/train_shakespeare_char.py config/cpu.py
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
