"""The backbone: DeepSeek-V3's blocks as plain nn.Modules, fitting the Protocols of types, with no training loop."""
