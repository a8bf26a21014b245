# Laid over finetune_shakespeare.py, finetunes GPT-2 124M on one GPU of 8 GB: by torch's memory tracker, on tensors without data,
# about 3 GB, of which 2 are weights, gradients and moments. --init_from=gpt2-medium with --batch_size=1 --gradient_accumulation_steps=32 fits too, in 7.
#   python data/shakespeare/prepare.py
#   python train.py config/finetune_shakespeare.py config/finetune_8gb.py
init_from = 'gpt2'
batch_size = 4
gradient_accumulation_steps = 8
activation_checkpointing = True
logit_rows = 512
