"""From a bundle to images over HTTP. Knows no torch and no training."""

VERSION = "0.1.0"
