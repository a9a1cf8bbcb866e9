"""Images from a bundle on this machine, without a server: the commands generate and interpolate."""
