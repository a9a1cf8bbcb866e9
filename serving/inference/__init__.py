"""The inference worker: ONNX Runtime sessions, engines, and the frames it speaks."""
