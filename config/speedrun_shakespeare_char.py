# For one GPU; meant to reach the best loss of train_shakespeare_char.py sooner, and then a lower one. Not yet run on a GPU. Chosen by runs of
# 120 iterations of 8 sequences on two CPU cores (held-out loss 2.51 as GPT-2 with AdamW, 2.17 rotary, 2.05 rotary and Muon, 1.73 rotary
# and n-grams, 1.66 all three) and by whole runs of a smaller model (1.56 without ngram_dropout, 1.53 with it).
#   python data/shakespeare_char/prepare.py
#   python train.py config/speedrun_shakespeare_char.py
# nanoGPT's train_shakespeare_char.py beside it, three seeds in turns, NANOGPT being a clone of nanoGPT:
#   python assets/compare.py NANOGPT loss --device=cuda --ours=config/speedrun_shakespeare_char.py
out_dir = 'out-speedrun-shakespeare-char'
eval_interval = 50
eval_iters = 200
log_interval = 10
always_save_checkpoint = False # it overfits, so ckpt.pt keeps the best

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256

n_layer = 6
n_head = 6
n_embd = 384
dropout = 0.2
rotary = True
ngrams = 65536
ngram_dropout = 0.4

optimizer = 'muon'
learning_rate = 3e-3
muon_lr = 0.02
lr_schedule = 'wsd'
cooldown = 0.7
max_iters = 700
lr_decay_iters = 700
min_lr = 0.0
warmup_iters = 10
beta2 = 0.99 # few tokens an iteration, so a longer memory
compile = False # the run is over before compiling would have paid
