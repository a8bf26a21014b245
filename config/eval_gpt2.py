# Evaluates OpenAI's gpt2 (124M parameters) on OpenWebText and exits.
#   python train.py config/eval_gpt2.py
# nanoGPT's README has 3.11 and 3.12 for train and val.
init_from = 'gpt2'
eval_only = True
eval_iters = 500
batch_size = 8
wandb_log = False
