"""Judges of what is heard: whether a turn is complete, whether a sound over a reply interrupts."""
