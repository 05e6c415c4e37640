"""Images and words in, labels out."""
