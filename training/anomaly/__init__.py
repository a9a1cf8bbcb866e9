"""How well a model of what is usual tells the unusual from it, beside methods without a GAN."""
