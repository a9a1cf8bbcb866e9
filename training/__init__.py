"""Data to G_ema to bundle: training of generative adversarial networks.

Imports models; never serving.
"""
