"""The routes of the Open Inference Protocol v2, and its tensors."""
