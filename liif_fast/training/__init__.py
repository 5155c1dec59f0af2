"""The workshop: training, evaluation and shrinking of networks. Only the command line imports it."""
