"""Texts and numbers as they were typed, on their way through Hydra and YAML.

Both read a value by its looks before they ask what its key takes: 2024_11_29 is a number to them, and a text key then
holds 20241129. `keys` knows which keys hold text, `overrides` quotes such values in overrides, and `loading`
gives the values of files their characters back.
"""
