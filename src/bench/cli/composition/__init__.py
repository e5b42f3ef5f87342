"""Keep texts and numbers as typed while Hydra and YAML process them.

Both infer a value's type from its form before they know the type of its key: they read 2024_11_29 as a number, and a
text key then contains 20241129. `text_keys` defines which keys hold text, `text_overrides` quotes such values in
overrides, and `config_loader` restores the characters of values in files.
"""
