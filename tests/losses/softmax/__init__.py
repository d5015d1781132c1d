"""Cross entropy with class indices or probabilities, NLL, log-softmax and the softmax focal loss."""
