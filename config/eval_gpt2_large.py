# Evaluates OpenAI's gpt2-large (774M parameters) on OpenWebText and exits.
#   python train.py config/eval_gpt2_large.py
# nanoGPT's README has 2.66 and 2.67 for train and val.
init_from = 'gpt2-large'
eval_only = True
eval_iters = 500
batch_size = 8
wandb_log = False
