"""Certificates: as files, as contexts for connections, and one for trying.

``contexts`` chooses by name and reads again what has changed, ``certificate_files`` reads and checks,
``self_signed`` makes one. Needs the extra ``tls``; nothing else imports it when it is loaded. Start with
``contexts``.
"""
