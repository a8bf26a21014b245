# Trains GPT-2 124M, OpenAI's smallest, on OpenWebText.
#   python data/openwebtext/prepare.py
#   torchrun --standalone --nproc_per_node=8 train.py config/train_gpt2.py
# nanoGPT's README: a loss of about 2.85 after about 4 days on eight A100 40GB. Not yet run to the end here.
wandb_log = True
wandb_project = 'owt'
wandb_run_name = 'gpt2-124M'

# 491,520 tokens an iteration
batch_size = 12
block_size = 1024
gradient_accumulation_steps = 40

# 300 billion tokens in all
max_iters = 600000
lr_decay_iters = 600000

eval_interval = 1000
eval_iters = 200
log_interval = 10

weight_decay = 0.1
