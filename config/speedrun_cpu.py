# Below the loss of nanoGPT's CPU recipe in seconds: Shakespeare by characters on two CPU cores.
#   python data/shakespeare_char/prepare.py
#   python train.py config/speedrun_cpu.py
# Two cores of an Intel Xeon, torch 2.13.0: 8.6 seconds with start-up, loss 1.81 over all of val.bin; nanoGPT's recipe, run in turns with
# it, took 98 seconds to 1.91. assets/results/README.md says what each change gives.
out_dir = 'out-speedrun-cpu'
eval_interval = 1000 # more than max_iters: evaluates at the beginning and at the end only
eval_iters = 20
log_interval = 10

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 48
block_size = 64

n_layer = 1
n_head = 4
n_embd = 128
rotary = True
ngrams = 16384

learning_rate = 3e-3
lr_schedule = 'wsd'
cooldown = 0.5
max_iters = 70
lr_decay_iters = 70
min_lr = 0.0
warmup_iters = 3
beta2 = 0.99
compile = False # on a GPU too: the run is over before compiling would have paid
