"""Exports a trained generator to ONNX and writes it as a verified bundle."""
