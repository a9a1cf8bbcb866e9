"""GPUs: which can be used, what their errors mean, the thread that owns one, and its runs."""
