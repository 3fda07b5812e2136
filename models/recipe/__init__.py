"""The recipe of the embedded model: data made on the spot, and the training of each part."""
