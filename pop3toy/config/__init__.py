"""What a server is told: settings, and the command line and the file that make them.

Start with ``settings``: every option is a field there.  ``values`` says what may be said for an option,
``table`` has all options by name, ``cmdline`` reads words, ``toml`` reads a file, ``reference`` writes the
list of options for people.  Nothing here builds, opens or looks at anything.
"""
