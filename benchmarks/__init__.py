"""The same POP3 work given to several servers in one run: ``python -m benchmarks``.

Nothing here is installed with the server, and nothing here is imported by it.
``README.rst`` beside this file says what each row means.
"""
