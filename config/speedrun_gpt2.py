# GPT-2 124M with Muon, for 1 or 8 GPUs of 80 GB, on OpenWebText; 2^19 tokens an iteration on either. The settings follow
# published speed records for this size; not yet run here, since no GPU was at hand. By count it takes 1.6e18 FLOP: 66 minutes on one H200 at 40 %
# of its peak. What Muon gives at the very beginning, on a CPU and on Python source, not OpenWebText: a loss of 3.49 after
# 154,000 tokens, AdamW 3.54 after 512,000 (assets/results/README.md).
#   torchrun --standalone --nproc_per_node=8 train.py config/speedrun_gpt2.py
#   python train.py config/speedrun_gpt2.py
# AdamW at nanoGPT's rate and weight decay beside it; the time of its iterations tells what Muon's step costs:
#   python train.py config/speedrun_gpt2.py --optimizer=adamw --learning_rate=6e-4 --weight_decay=0.1 --out_dir=out-speedrun-gpt2-adamw
out_dir = 'out-speedrun-gpt2'
eval_interval = 250
eval_iters = 200
log_interval = 10

batch_size = 32
block_size = 1024
total_batch_tokens = 2 ** 19
rotary = True

optimizer = 'muon'
learning_rate = 3e-3
muon_lr = 0.02
weight_decay = 0.0
lr_schedule = 'wsd'
cooldown = 0.6
max_iters = 3500 # 1.8e9 tokens
lr_decay_iters = 3500
min_lr = 0.0
warmup_iters = 100
