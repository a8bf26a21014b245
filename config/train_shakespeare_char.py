# A small character model of Shakespeare.
#   python data/shakespeare_char/prepare.py
#   python train.py config/train_shakespeare_char.py                   on a GPU
#   python train.py config/train_shakespeare_char.py config/cpu.py     on a CPU
# nanoGPT's README: 3 minutes to a best val loss of 1.4697 on one A100. Not yet measured here on a GPU.
out_dir = 'out-shakespeare-char'
eval_interval = 250
eval_iters = 200
log_interval = 10
always_save_checkpoint = False # it overfits, so ckpt.pt keeps the best

wandb_log = False
wandb_project = 'shakespeare-char'
wandb_run_name = 'mini-gpt'

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256

n_layer = 6
n_head = 6
n_embd = 384
dropout = 0.2

learning_rate = 1e-3
max_iters = 5000
lr_decay_iters = 5000
min_lr = 1e-4
beta2 = 0.99 # few tokens an iteration, so a longer memory
warmup_iters = 100
