"""From a bundle to images over HTTP. Knows no torch and no training."""
