"""Train an expander SAE on your own activations: python examples/quickstart.py activations.pt"""

import sys

import torch

from expander_sae import Trainer, evaluate, load

# Your activations, a float tensor [N, m]; without a file, 20,000 made-up ones of width 64.
made_up = torch.randn(20_000, 64) @ torch.randn(64, 64)
h = torch.load(sys.argv[1], weights_only=True) if sys.argv[1:] else made_up
train, test = h[: -len(h) // 10], h[-len(h) // 10 :]

sae = Trainer(train, n=512, d=7, k=8, on_log=print).fit(steps=500)
code = sae.encode(test)  # SparseCode: index and value [N, k]
rebuilt = sae.decode(code)  # [N, m]
print(evaluate(sae, test))  # relative_error, explained_variance, l0, dead_fraction, …
print(evaluate(sae, test, inference="omp"))  # the same decoder, decoded with OMP
sae.save("sae.safetensors")  # values, biases and the mask as a recipe
print(load("sae.safetensors").about["norm_limit"])  # the mask is regenerated and verified
