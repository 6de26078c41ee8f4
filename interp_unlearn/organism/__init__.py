"""The embedded world: a small language model whose knowledge and manners are known exactly."""
