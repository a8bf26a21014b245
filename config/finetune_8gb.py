# Finetunes GPT-2 124M on one GPU of 8 GB; give it after finetune_shakespeare.py. By torch's memory tracker, on tensors without data, it takes
# about 3 GB, of which 2 are weights, gradients and moments. --init_from=gpt2-medium --batch_size=1 --gradient_accumulation_steps=32 takes 7 GB.
# Time and loss were not measured here, as OpenAI's weights have to be downloaded.
#   python data/shakespeare/prepare.py
#   python train.py config/finetune_shakespeare.py config/finetune_8gb.py
init_from = 'gpt2'
batch_size = 4
gradient_accumulation_steps = 8
activation_checkpointing = True
logit_rows = 512
