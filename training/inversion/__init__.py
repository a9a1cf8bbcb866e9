"""From a real image back to a latent: encoders, projection, and what stands on them."""
