"""The backbones: DeepSeek-V3's blocks as plain nn.Modules, and models of `transformers`. No training loop."""
