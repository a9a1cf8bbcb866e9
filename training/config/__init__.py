"""The configuration of a training: its options, and the rules that they must obey."""
