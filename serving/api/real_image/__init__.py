"""The routes that take a real image: encode, edit, inpaint, upscale, score."""
