# Finetunes GPT-2 XL (1.5 billion parameters) on Shakespeare; --init_from=gpt2 takes the smallest instead.
#   python data/shakespeare/prepare.py
#   python train.py config/finetune_shakespeare.py
# XL with AdamW in float32 needs about 25 GB for weights, gradients and moments alone.
# Time and loss were not measured here, as OpenAI's weights have to be downloaded.
import time

out_dir = 'out-shakespeare'
eval_interval = 5
eval_iters = 40
wandb_log = False
wandb_project = 'shakespeare'
wandb_run_name = f'ft-{time.time()}'

dataset = 'shakespeare'
init_from = 'gpt2-xl'
always_save_checkpoint = False # ckpt.pt keeps the best

# 32,768 tokens an iteration; train.bin has 301,966, so 20 iterations see it about twice
batch_size = 1
gradient_accumulation_steps = 32
max_iters = 20

learning_rate = 3e-5
decay_lr = False
