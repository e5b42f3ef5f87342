"""Load a model with its tokenizer and its prompts from a model config."""
