"""What the losses compute. Those of classes are in softmax, those of elements in sigmoid; here is what both share."""
