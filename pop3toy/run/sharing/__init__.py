"""A store that several servers share, as a running server sees it.

That no two on one machine have one name is ``node``; whether the store answers at all, ``first_look``.
How it is shared is the store's matter (``stores.objects``). Start with ``first_look``.
"""
