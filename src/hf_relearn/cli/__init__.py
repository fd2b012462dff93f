"""Floor 5: the command line `hf-relearn`. Its modules import torch and transformers only when a command runs."""
