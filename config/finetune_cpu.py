# Finetunes GPT-2 124M without a GPU, on shorter and fewer sequences; give it after finetune_shakespeare.py:
#   python data/shakespeare/prepare.py
#   python train.py config/finetune_shakespeare.py config/finetune_cpu.py
# Time and loss were not measured here, as OpenAI's weights have to be downloaded.
init_from = 'gpt2'
block_size = 256
batch_size = 1
gradient_accumulation_steps = 8
eval_interval = 10
eval_iters = 10
