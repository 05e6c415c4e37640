"""Makes the weights of the mini CLIP: caption pairs, pretraining, and a probe of the result."""
