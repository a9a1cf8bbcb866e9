"""From an opened image file to uint8 pixels of one form, as a viewer shows them.

Training's data and the server's requests take the same road (`models.decoding.road`), so that a
file has one meaning: its orientation, transparency, depth, colours and size. What files are, which
are allowed, and what becomes of those that can't be used, is for those who open them.
"""
