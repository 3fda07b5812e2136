"""Qwen3-Omni: encoders, thinker, talker and vocoder."""
