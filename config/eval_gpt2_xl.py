# Evaluates OpenAI's gpt2-xl (1558M parameters) on OpenWebText and exits.
#   python train.py config/eval_gpt2_xl.py
# nanoGPT's README has 2.56 and 2.54 for train and val.
init_from = 'gpt2-xl'
eval_only = True
eval_iters = 500
batch_size = 8
wandb_log = False
