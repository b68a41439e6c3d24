"""What this machine really does: a torch decoder run here, its times fitted to the terms a plan's speed is made of.

The only rooms that import torch, and only in the measuring process: `run` starts it, `worker` is it.
"""
