"""The commands of `training.stability`: their options, their results as text and as JSON."""
