"""Figures of merit: functions of the features or pixels of real and generated images."""
