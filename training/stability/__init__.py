"""The instrument: how a game behaves near where it stands, measured on the losses that train it."""
