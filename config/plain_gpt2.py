# Plain GPT-2 with AdamW, which nanoGPT can go on training and transformers can read; give it after another config:
#   python train.py config/train_python_char.py config/plain_gpt2.py
rotary = False
ngrams = 0
optimizer = 'adamw'
lr_schedule = 'cosine'
