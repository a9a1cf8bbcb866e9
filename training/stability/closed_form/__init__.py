"""Games so small that their answers are known: what the instrument is measured by."""
