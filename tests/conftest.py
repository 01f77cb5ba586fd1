"""Settings of the whole test session."""

import os

import torch

# Two test processes share two cores: one thread each, and idle OpenMP threads that sleep.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch.set_num_threads(1)
