# Evaluates OpenAI's gpt2-medium (355M parameters) on OpenWebText and exits.
#   python train.py config/eval_gpt2_medium.py
# nanoGPT's README has 2.85 and 2.84 for train and val.
init_from = 'gpt2-medium'
eval_only = True
eval_iters = 500
batch_size = 8
wandb_log = False
