"""From a model config to a loaded model with its tokenizer and prompts."""
