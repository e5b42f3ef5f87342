"""Run the contract suite with several versions of the libraries (docs/versions.md says what the legs mean).

``legs`` says which versions and which Python a leg has, ``noxfile`` installs and runs one with nox, ``results`` reads
the files of a leg, ``renewal`` writes the files of versions, and ``__main__`` is the command line.
"""
