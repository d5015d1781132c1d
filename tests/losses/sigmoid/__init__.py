"""Binary cross entropy of probabilities and of logits, and the sigmoid focal loss."""
