"""A model as one file that runs without this project: ONNX or a program of torch.export."""
