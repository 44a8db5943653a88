"""How training runs, whatever the model and the data; each setting is explained in
`detector.config.Config`."""

from torch.optim import AdamW

from detector.training.schedule import OneCycle

epochs = 80
batch_size = 4
workers = 4
cache_frames = False
accumulate = 1
precision = "float32"
optimizer = dict(factory=AdamW, lr=0.003, betas=(0.95, 0.99), weight_decay=0.01)
schedule = dict(type=OneCycle, warmup=0.4, start=0.1, momentum=(0.95, 0.85))
frozen = ()
clip_norm = 10.0
fused_backbone = True
cuda_graph = True
sync_norm = False
skip_bad_frames = False
ema = 0.0
seed = 0
evaluate_every = 5
keep_checkpoints = 3
