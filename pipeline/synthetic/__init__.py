"""Made users: sentences, voices, sounds with exact ground truth, for training and benches."""
