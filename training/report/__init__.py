"""The report of a run: one page that says how the training went, from the files of its folder."""
