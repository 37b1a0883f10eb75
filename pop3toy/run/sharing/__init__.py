"""The store as a whole, as a running server sees it, which may share it with others.

That no two on one machine have one name is ``node``; whether the store answers at all, ``first_look``;
old mail is removed by ``expiry``. How it is shared is the store's matter (``stores.objects``). Start with
``first_look``.
"""
