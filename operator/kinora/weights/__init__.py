"""Weight files: safetensors headers, verification. No model is ever loaded here."""
