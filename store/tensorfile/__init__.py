"""safetensors files, streamed in both directions."""
